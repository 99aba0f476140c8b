"""`floor`: the smallest system that has all a file asks for, and which symbol or property sets it.

What counts is the load set that comes with the file: itself, and the libraries that it finds through $ORIGIN. What the
system has is asked for its versions, never looked into: a floor is a fact of the files alone.
"""

from __future__ import annotations

import os

from dlwhy.brought import BroughtAlong, highest
from dlwhy.errors import DlwhyError
from dlwhy.files import Files
from dlwhy.loader.objects import Objects
from dlwhy.report_systems import FloorReport, FloorSet, Lower
from dlwhy.walk import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Options

_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}
"""PEP 600, Legacy manylinux tags."""


def floor(files: list[str], options: Options) -> FloorReport:
    """Return the report; directories and archives are walked. Raises `UsageError`."""
    reader, cwd = Files(), options.cwd or os.getcwd()

    def examine(name: str, path: str) -> FloorSet:
        try:
            return BroughtAlong(name, path if path.startswith("/") else f"{cwd}/{path}", Objects(reader)).floors()
        except DlwhyError as error:
            return _refused(name, str(error))
        finally:
            reader.close()

    done: list[FloorSet] = []
    groups: dict[str, list[FloorSet]] = {}
    for name in files:
        found = list(walk([name], options, examine, _refused))
        done += found
        alone = len(found) == 1 and found[0].path == name
        groups.setdefault("" if alone else name, []).extend(one for one in found if one.error is None)
    together = [made for name, sets in groups.items() for made in _together(name, sets)]
    return FloorReport(tuple(done), tuple(together))


def _refused(name: str, error: str) -> FloorSet:
    return FloorSet(name, None, None, (), 0, (), (), (), None, (), error)


# -- several files -------------------------------------------------------------------------------------------------


def _together(name: str, sets: list[FloorSet]) -> list[FloorSet]:
    """The files of one directory, archive or list together, by machine and C library."""
    kinds: dict[str | None, list[str]] = {}
    for one in sets:
        kinds.setdefault(one.machine, [])
        if one.libc is not None and one.libc not in kinds[one.machine]:
            kinds[one.machine].append(one.libc)
    groups: dict[tuple[str | None, str | None], list[FloorSet]] = {}
    for one in sets:  # what names no C library goes with the only one that others name
        libc = one.libc or (kinds[one.machine][0] if len(kinds[one.machine]) == 1 else None)
        groups.setdefault((one.machine, libc), []).append(one)
    made = [
        _joined(name or f"{len(found)} files", machine, libc, found)
        for (machine, libc), found in groups.items()
        if len(found) > 1 or name
    ]
    return [one.but(remarks=(*one.remarks, *_claims(name, one))) for one in made]


def _joined(name: str, machine: str | None, libc: str | None, sets: list[FloorSet]) -> FloorSet:
    """What files need together: of what one of them lacks and another brings, nothing is asked of the system."""
    own = {os.path.basename(path) for found in sets for path in (found.path, *found.bundled)}
    levels = [
        (floor.what, floor.file, one)
        for found in sets
        for floor in found.floors
        if floor.file not in own
        for one in (Lower(floor.value, floor.because, floor.objects), *floor.lower)
    ]
    every = {field: tuple(dict.fromkeys(one for found in sets for one in getattr(found, field))) for field in _LISTS}
    tags = [found.tag for found in sets if found.libc == "glibc"]
    told = max((tag for tag in tags if tag is not None), key=_tagged, default=None) if None not in tags else None
    return FloorSet(
        name, machine, libc, highest(levels), min(found.pages for found in sets), every["ceilings"], every["bundled"],
        tuple(one for one in every["system"] if one not in own), told, every["remarks"], None,
    )  # fmt: skip


_LISTS = ("ceilings", "bundled", "system", "remarks")


def _tagged(tag: str) -> tuple[int, int]:
    """The release of a platform tag, manylinux_X_Y_ARCH or an older form of it. Raises `ValueError` for any other."""
    words = tag.split("_")
    return _LEGACY[words[0]] if words[0] in _LEGACY else (int(words[1]), int(words[2]))


def _claims(name: str, one: FloorSet) -> tuple[str, ...]:
    """What is untrue of the platform tags in the name of a wheel."""
    if not name.endswith(".whl") or one.tag is None:
        return ()
    least = _tagged(one.tag)
    tags = [tag for tag in name.removesuffix(".whl").rpartition("-")[2].split(".") if tag.startswith("manylinux")]
    try:
        false = [tag for tag in tags if _tagged(tag) < least]
    except (ValueError, IndexError):
        return ()
    told = f"which is too low: {one.tag} is the lowest true one"
    return tuple(f"the name of the wheel says {tag}, {told}" for tag in false)
