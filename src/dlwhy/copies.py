"""Copies: two files of one library in one process, each with its own code and data, and where each comes from.

The loader takes a file once by its inode and by its DT_SONAME (glibc elf/dl-load.c, _dl_map_object). auditwheel writes
a hash into both names, so that every wheel brings its own libgomp. Rule 1: only what the model has really mapped into
one namespace counts. Rule 2: a name alone proves nothing; the files must also export the same names.
"""

from __future__ import annotations

from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.report import Copies, Finding, LibraryCopy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf
    from dlwhy.files import Files
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.report_tls import Provenance

_MOST_NAMES = 50_000
"""Exported names of one file that are compared; no honest library that was seen twice had 20,000."""
_ALIKE = 0.5
"""Share of the names of the smaller file that the other must export too."""


def copies(namespaces: Iterable[Iterable[LinkMap]], files: Files) -> tuple[Copies, ...]:
    """Return the libraries that are more than once in one of the namespaces, with where each file comes from."""
    found = []
    for maps in namespaces:
        groups: dict[str, list[LinkMap]] = {}
        for one in maps:
            name = _library(one)
            if name is not None:
                groups.setdefault(name, []).append(one)
        for name, group in groups.items():
            if len(group) > 1:
                found += _alike(name, group, files)
    return tuple(found)


def findings(found: tuple[Copies, ...]) -> list[Finding]:
    """Return what is said of each, as a finding about the file that came last."""
    from dlwhy.rules import finding

    return [finding("library-twice", one.copies[-1].object, _sentence(one)) for one in found]


def _sentence(one: Copies) -> str:
    times = {2: "twice", 3: "three times"}.get(len(one.copies), f"{len(one.copies)} times")
    told = [copy.object + (f" (from {_way(copy.provenance)})" if copy.provenance else "") for copy in one.copies]
    names = f"{', '.join(told[:-1])} and {told[-1]}"
    return f"{one.library} is {times} in this process, each with its own code and data: {names}"


def _way(one: Provenance) -> str:
    """The package, and what it took the library from."""
    return ", which has it from ".join(one.path)


def _library(one: LinkMap) -> str | None:
    """What a library is called in whatever package: its soname without a hash, with the first number of its release.

    None for what has no soname: files of programs and of extensions are named alike and are not the same.
    """
    from dlwhy.origins import unhashed

    try:
        soname = one.soname if one.name else None
    except (DlwhyError, Unknown):
        return None
    if not soname:
        return None
    stem, dot, rest = unhashed(soname.rpartition("/")[2]).partition(".so")
    release = rest.lstrip(".").partition(".")[0]
    return f"{stem}{dot}.{release}" if release else f"{stem}{dot}"


def _alike(name: str, group: list[LinkMap], files: Files) -> list[Copies]:
    """Those of a group that export the same names, as one entry; none when the first is alone."""
    exports = [(one, _exports(one.elf)) for one in group if one.elf is not None]
    exports = [(one, names) for one, names in exports if names]
    if len(exports) < 2:
        return []
    first = exports[0][1]
    same = [(one, names) for one, names in exports if len(names & first) >= _ALIKE * min(len(names), len(first))]
    if len(same) < 2:
        return []
    common = set.intersection(*(names for _, names in same))
    made = tuple(_copy(one, len(names), files) for one, names in same)
    return [Copies(name, made, len(common))]


def _exports(elf: Elf | None) -> set[bytes]:
    """The names that a file defines for others; empty where they cannot be read."""
    if elf is None:
        return set()
    try:
        symbols = elf.symbols
        start, end = symbols.hashed
        if not end:
            start, end = 1, symbols.count
        rows = [symbols.fields(index) for index in range(start, min(end, start + _MOST_NAMES))]
        return {symbols.name_at(row[0]) for row in rows if row[5]}
    except (DlwhyError, Unknown):
        return set()


def _copy(one: LinkMap, names: int, files: Files) -> LibraryCopy:
    from dlwhy.origins import origin

    assert one.elf is not None
    try:
        told = origin(one.name, files)
    except (DlwhyError, Unknown):  # a profile holds no more than the loader reads
        told = None
    return LibraryCopy(one.name, one.soname, names, told)
