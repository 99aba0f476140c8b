"""A file and what comes with it: its load set without the system's part, and what that asks of a system."""

from __future__ import annotations

import os

from dlwhy.elf.constants import ET_DYN, ET_EXEC
from dlwhy.elf.machine import machine_name
from dlwhy.errors import DlwhyError, UnsupportedError
from dlwhy.hosts.executable import is_program
from dlwhy.loader import tokens
from dlwhy.needs import (
    GLIBC,
    KERNEL,
    MARKS,
    PRIVATE,
    Need,
    c_library,
    dotted,
    executable_stack,
    needs,
    of_the_c_library,
    pages,
    release,
)
from dlwhy.report_systems import Floor, FloorSet, Lower

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf
    from dlwhy.loader.objects import Objects

_MOST_OBJECTS = 4096
"""Objects of one load set that are looked at."""
_WHEEL_ARCHITECTURE = {
    "x86-64": "x86_64", "i386": "i686", "aarch64": "aarch64", "arm": "armv7l", "s390x": "s390x", "riscv64": "riscv64",
    "ppc64": "ppc64", "ppc64le": "ppc64le",
}  # fmt: skip
"""Machine -> its name in a platform tag (PEP 600: as `uname -m` has it)."""
_PROMISED: dict[str, tuple[tuple[int, str], ...]] = {
    "libstdc++ GLIBCXX": (
        (5, "3.4.8"), (12, "3.4.13"), (17, "3.4.19"), (24, "3.4.22"), (27, "3.4.24"), (31, "3.4.28"), (34, "3.4.29"),
        (35, "3.4.30"), (39, "3.4.33"),
    ),
    "libstdc++ CXXABI": (
        (5, "1.3.1"), (12, "1.3.3"), (17, "1.3.7"), (24, "1.3.10"), (27, "1.3.11"), (31, "1.3.12"), (34, "1.3.13"),
        (39, "1.3.15"),
    ),
    "libgcc GCC": ((5, "4.2.0"), (12, "4.3.0"), (17, "4.8.0"), (27, "7.0.0"), (35, "12.0.0"), (39, "14.0.0")),
}  # fmt: skip
"""What a wheel may take from the system beside glibc -> the minor release of glibc from which on all distributions have
that version of it (auditwheel 6.8, manylinux-policy.json: the policies of PEP 600's tags)."""
_LEAST_TAG = 5
"""manylinux1 stands for glibc 2.5, and no tag goes further down (PEP 600, Legacy manylinux tags)."""
_EXECSTACK = (
    "a library that wants an executable stack ({why}): dlopen refuses it from glibc 2.41 on, unless the program has one"
)


class BroughtAlong:
    """A file and the libraries that come with it, as the loader would find them through $ORIGIN."""

    def __init__(self, name: str, path: str, objects: Objects) -> None:
        """Raises `DlwhyError` for a file that nobody could load."""
        self.name = name
        self.objects = objects
        first = objects.elf(path)
        if first.type not in (ET_DYN, ET_EXEC) or first.debug_only:
            raise UnsupportedError(f"{name}: neither a program nor a shared library, so nothing loads it")
        self.found: list[tuple[str, Elf]] = [(path, first)]
        self.names: set[str] = set()
        self.system: dict[str, None] = {}
        todo: list[tuple[str, Elf, tuple[tuple[str, str], ...]]] = [(path, first, ())]
        for at, elf, above in todo:
            if elf.dynamic is None:
                continue
            self.names |= {elf.dynamic.soname or os.path.basename(at)}
            chain = _chain(at, elf, above)
            for _, wanted in elf.dynamic.filters:
                if wanted in self.names:
                    continue
                made = self._look(wanted, at, elf, chain)
                if made is None:
                    self.system[wanted] = None
                    continue
                self.names.add(wanted)
                if len(self.found) >= _MOST_OBJECTS:
                    raise UnsupportedError(f"{name}: more than {_MOST_OBJECTS} libraries come with it")
                if all(made[0] != one for one, _ in self.found):
                    self.found.append(made)
                    todo.append((*made, chain))

    def _look(self, wanted: str, at: str, elf: Elf, chain: tuple[tuple[str, str], ...]) -> tuple[str, Elf] | None:
        """The library of this name that comes with the object at `at`; None where the system has to have it."""
        if "/" in wanted:
            return self._take(wanted, os.path.dirname(at), "", elf)
        for paths, origin in chain:
            for one in paths.split(":"):
                made = self._take(one, origin, wanted, elf)
                if made is not None:
                    return made
        return None

    def _take(self, text: str, origin: str, name: str, asks: Elf) -> tuple[str, Elf] | None:
        """A file below $ORIGIN, if it is a library of the right machine."""
        if "$" not in text or not tokens.names_origin(text):
            return None
        place = tokens.expand(text, {"ORIGIN": origin, "LIB": None, "PLATFORM": None})
        if place is None:
            return None
        path = f"{place.rstrip('/')}/{name}" if name else place
        try:
            elf = self.objects.elf(path)
        except DlwhyError:
            return None
        fits = (elf.type, elf.machine, elf.class_) == (ET_DYN, asks.machine, asks.class_)
        return (path, elf) if fits else None

    # -- what they ask for -----------------------------------------------------------------------------------------

    def floors(self) -> FloorSet:
        """Return what the set asks of a system. Raises `ElfError`."""
        first = self.found[0][1]
        libc = self._libc()
        levels: list[tuple[str, str | None, Lower]] = []
        remarks: dict[str, None] = {}
        ceilings: list[str] = []
        for path, elf in self.found:
            shown = self.name if elf is first else os.path.normpath(path)
            for one in needs(elf):
                if one.file in self.names and one.file not in self.system:
                    continue  # it comes along
                if one.weak:
                    told = f"{one.version} of {one.file} is asked for weakly in {shown}: the loader goes on without it"
                    remarks[told] = None
                    continue
                found = _of_libc(one, libc)
                if found is not None:
                    levels.append((found.what, found.file, Lower(found.value, _because(found), (shown,))))
            remarks |= dict.fromkeys(self._told(elf, shown))
            why = executable_stack(elf)
            if why is not None and not is_program(elf):
                ceilings.append(f"{shown}: {_EXECSTACK.format(why=why)}")
        if libc == "musl":
            remarks[_MUSL] = None
        floors = highest(levels)
        system = tuple(one for one in self.system if not of_the_c_library(one))
        return FloorSet(
            self.name, machine_name(first.machine, first.class_), libc, floors,
            min(pages(elf) for _, elf in self.found), tuple(ceilings),
            tuple(os.path.normpath(path) for path, _ in self.found[1:]), system, _tag(first, libc, floors),
            tuple(remarks), None,
        )  # fmt: skip

    def _libc(self) -> str | None:
        named = {found for _, elf in self.found if (found := c_library(elf)) is not None}
        return named.pop() if len(named) == 1 else "both" if named else None

    def _told(self, elf: Elf, shown: str) -> list[str]:
        """What sets no floor of an object and is worth knowing."""
        made = []
        for file, found in elf.versions.need_files:
            for need in found:
                if file in self.names and file not in self.system:
                    continue
                if need.name == PRIVATE:
                    made.append(
                        f"{shown} needs {PRIVATE} of {file}: it fits only the very release that it was built with"
                    )
                elif need.name in MARKS and MARKS[need.name][1] is not None:
                    made.append(f"{need.name} in {shown}: {MARKS[need.name][1]}")
                elif need.name not in MARKS and release(need.name) is None:
                    made.append(f"{shown} needs version {need.name} of {file}, which tells no release")
        return made


_MUSL = "musl has no symbol versions: from which release on it has all that is needed does not follow from the files"
_MUSL_RELR = (1, 2, 4)
"""The first release of musl that reads DT_RELR (musl ldso/dynlink.c)."""


def _chain(path: str, elf: Elf, above: tuple[tuple[str, str], ...]) -> tuple[tuple[str, str], ...]:
    """(run paths, $ORIGIN of them) that are searched for what an object needs (glibc elf/dl-load.c)."""
    assert elf.dynamic is not None
    origin = os.path.dirname(path)
    if elf.dynamic.runpath is not None:
        return ((elf.dynamic.runpath, origin),)
    return (((elf.dynamic.rpath, origin),) if elf.dynamic.rpath is not None else ()) + above


def _of_libc(one: Need, libc: str | None) -> Need | None:
    """A need as it stands of the C library that the files name: those of glibc's loader are nothing to musl."""
    if libc != "musl" or one.property is None or one.what not in (GLIBC, KERNEL):
        return one
    if one.property.startswith("DT_RELR"):
        return one.but(what="musl", order=_MUSL_RELR, value=dotted(_MUSL_RELR))
    return None


def _because(one: Need) -> tuple[str, ...]:
    if one.property is not None:
        return (one.property,)
    if not one.symbols:
        return (f"{one.version} of {one.file}, which no symbol asks for",)
    return tuple(f"{symbol}@{one.version}" for symbol in one.symbols)


def _order(value: str) -> tuple[int, ...]:
    """What a value is compared by: a release, or a level of x86-64 from the second on."""
    if value.startswith("x86-64-v"):
        return (int(value.rpartition("v")[2]),)
    return tuple(map(int, value.split(".")))


def highest(levels: Iterable[tuple[str, str | None, Lower]]) -> tuple[Floor, ...]:
    """Return the floors out of single needs: (what, the library asked, the need), those of one value put together."""
    kinds: dict[str, dict[str, Lower]] = {}
    files: dict[tuple[str, str], str | None] = {}
    for what, file, one in levels:
        values = kinds.setdefault(what, {})
        files.setdefault((what, one.value), file)
        known = values.get(one.value)
        if known is None:
            values[one.value] = one
            continue
        values[one.value] = Lower(
            one.value, tuple(dict.fromkeys(known.because + one.because)),
            tuple(dict.fromkeys(known.objects + one.objects)),
        )  # fmt: skip
    made = []
    for what, values in kinds.items():
        top, *rest = sorted(values.values(), key=lambda one: _order(one.value), reverse=True)
        made.append(Floor(what, top.value, top.because, top.objects, files[what, top.value], tuple(rest)))
    return tuple(sorted(made, key=lambda one: (one.what != GLIBC, one.what)))


def _tag(elf: Elf, libc: str | None, floors: tuple[Floor, ...]) -> str | None:
    """The lowest manylinux tag that the floors leave true: of glibc, and of what a wheel may take from the system.

    PEP 600: it works on any mainstream distribution with glibc of that release on. None where no row promises so much.
    """
    name = elf.row.name if elf.row is not None else ""
    architecture = _WHEEL_ARCHITECTURE.get(name + ("le" if name == "ppc64" and elf.little else ""))
    order = next((_order(one.value) for one in floors if one.what == GLIBC), None)
    if libc != "glibc" or not architecture or order is None:
        return None
    minors = [max(order[1], _LEAST_TAG)]
    for one in floors:
        if one.what in _PROMISED:
            row = next((minor for minor, value in _PROMISED[one.what] if _order(value) >= _order(one.value)), None)
            if row is None:
                return None
            minors.append(row)
    return f"manylinux_{order[0]}_{max(minors)}_{architecture}"
