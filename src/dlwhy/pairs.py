"""Pairs: which file of OLD is which file of NEW, when both are files, directories or archives.

Two files are a pair whatever they are called. In directories and archives the path inside decides, then the path
without what a release changes in it (digits, the hash that auditwheel writes), then the file's name without these;
the latter two only where a single file is left on either side.
"""

from __future__ import annotations

import os

from dlwhy import archives
from dlwhy.errors import UsageError
from dlwhy.origins import unhashed
from dlwhy.record import Record
from dlwhy.walk import inside, loadable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import ExitStack

    from dlwhy.api import Options


class Place(Record):
    """One file of OLD or NEW."""

    name: str
    """The path inside of the directory or archive; of a file by itself what was named."""
    shown: str
    """As a reader knows it: DIRECTORY/NAME or ARCHIVE!/NAME."""
    path: str
    """Absolute, as the process sees it."""
    step: str
    """As dlopen gets it."""


class Side(Record):
    """All files of OLD or of NEW."""

    single: bool
    """Whether it is one file."""
    places: tuple[Place, ...]
    unpacked: tuple[str, str] | None
    """(directory of our own, what a reader knows it by) of an archive."""


def sides(names: tuple[str, str], options: Options, stack: ExitStack) -> tuple[Side, Side]:
    """Return what OLD and NEW name; what an archive is unpacked into is removed when `stack` is closed.

    A file that is not there is one file. Raises `UsageError` for a file and a directory, `UnsupportedError`.
    """
    places = [inside(name, options) for name in names]
    single = [real is None or not (os.path.isdir(real) or _packed(real)) for real in places]
    if single[0] != single[1]:  # said before anything is walked
        raise UsageError("one of OLD and NEW is a file, the other a directory or an archive: name two of a kind")
    return _side(names[0], options, stack), _side(names[1], options, stack)


def _packed(real: str) -> bool:
    return not loadable(real) and archives.kind(real) is not None


def _side(name: str, options: Options, stack: ExitStack) -> Side:
    real = inside(name, options)
    here = options.cwd or ("/" if options.sysroot else os.getcwd())
    if real is not None and os.path.isdir(real):
        top = os.path.normpath(os.path.join(here, name))
        shown = name.rstrip("/")
        return Side(False, tuple(_below(real, lambda inner: (f"{shown}/{inner}", f"{top}/{inner}"))), None)
    if real is not None and _packed(real):
        if options.sysroot is not None:
            raise UsageError(f"{name}: an archive is not examined below a sysroot: unpack it there")
        import tempfile

        made = os.path.realpath(stack.enter_context(tempfile.TemporaryDirectory(prefix="dlwhy-")))
        archives.unpack(real, made)
        places = _below(made, lambda inner: (f"{name}!/{inner}", f"{made}/{inner}"))
        return Side(False, tuple(places), (made, f"{name}!"))
    step = name if name.startswith(("/", "./", "../")) else f"./{name}"
    return Side(True, (Place(name, name, os.path.normpath(os.path.join(here, name)), step),), None)


def _below(directory: str, named: Callable[[str], tuple[str, str]]) -> list[Place]:
    """The libraries and programs in a directory, by name; links are not followed."""
    found = []
    for inner, subdirectories, names in os.walk(directory):
        subdirectories.sort()
        for one in sorted(names):
            real = f"{inner}/{one}"
            if not os.path.islink(real) and loadable(real):
                name = real[len(directory.rstrip("/")) + 1 :]
                shown, path = named(name)
                found.append(Place(name, shown, path, path))
    return found


def pairs(old: Side, new: Side) -> list[tuple[str, Place | None, Place | None]]:
    """Return (name, place in OLD, place in NEW) of every file, by name."""
    if old.single:
        return [(new.places[0].name, old.places[0], new.places[0])]
    found: list[tuple[str, Place | None, Place | None]] = []
    left, right = list(old.places), list(new.places)
    for key in (str, family, _last):
        here, there = _unique(left, key), _unique(right, key)
        for one in [here[name] for name in here if name in there]:
            other = there[key(one.name)]
            found.append((other.name, one, other))
            left.remove(one)
            right.remove(other)
    found += [(one.name, one, None) for one in left] + [(one.name, None, one) for one in right]
    return sorted(found, key=lambda pair: pair[0])


def _unique(places: Sequence[Place], key: Callable[[str], str]) -> dict[str, Place]:
    """The places by a key of their names, without those that share one."""
    counts: dict[str, int] = {}
    for one in places:
        counts[key(one.name)] = counts.get(key(one.name), 0) + 1
    return {key(one.name): one for one in places if counts[key(one.name)] == 1}


def family(name: str) -> str:
    """Return a path without the numbers and hashes that tell releases apart: a/libx-1a2b3c4d.so.1 is a/libx.so.#."""
    import re

    directory, slash, base = name.rpartition("/")
    return re.sub(r"[0-9]+(?:\.[0-9]+)*", "#", directory + slash + unhashed(base))


def _last(name: str) -> str:
    return family(name.rpartition("/")[2])
