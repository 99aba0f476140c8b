"""What Rust code without names was compiled from: the source files in the panic locations that a function refers to.

`core::panic::Location` is {pointer to a path, its length, line, column} in data that is relocated (rust-lang/rust
library/core/src/panic/location.rs). No stripping removes it. What stands in a function may have been inlined into it,
so it says whose code the function contains, and perhaps whose it is. With locations of several crates nothing is said.
"""

from __future__ import annotations

import re
import struct
from bisect import bisect_left

from dlwhy.attribute.code_x86_64 import leading
from dlwhy.elf.constants import PF_W
from dlwhy.elf.machine import EM_AARCH64, EM_X86_64
from dlwhy.elf.relocs import tables
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf

_LOCATION = struct.Struct("<QQII")
_DISTANCE = struct.Struct("<i").unpack_from
_LONGEST_PATH = 1024
_MOST_LINES = 1 << 24
_MOST_COLUMNS = 1 << 16
_LARGEST = 64 << 20
"""Bytes of data, of one relocation table, and of one function, that are looked at."""
_WINDOW = 1 << 23
"""Bytes of code in which one pattern finds what leads to data."""
_LONG = 1 << 20
"""Bytes of a function that longer ones have a pattern of their own for."""
_REGISTRY = re.compile(r"/(?:registry/src/[^/]+|rust/deps|vendor)/([A-Za-z0-9_][\w-]*?)-([0-9]+\.[0-9][^/]*)/(.+)")
_CHECKOUT = re.compile(r"/git/checkouts/([A-Za-z0-9_][A-Za-z0-9_-]*?)-[0-9a-f]{8,}/[0-9a-f]{7,}/(.+)")
_LIBRARY = re.compile(r"(?:.*/)?library/(?:std|core|alloc|[a-z_]+)/src/|/rust/library/")
_SOURCES = re.compile(r"(?:.*/)?([A-Za-z0-9_][A-Za-z0-9_-]*)/src/(.+)")


class Source(Record):
    """The source file that most panic locations of a function are of, when all are of one crate."""

    crate: str | None
    """As its directory is called, dashes as in Rust names; None of a path that does not tell."""
    file: str
    """From the crate's directory, with its version where that is known."""


def sources(elf: Elf, functions: Iterable[tuple[int, int]]) -> dict[int, Source]:
    """Return start -> source for those functions (start, end) that refer to panic locations outside Rust's library.

    Never raises for damaged tables: what they do not tell is left out.
    """
    reader = {EM_X86_64: _x86_64, EM_AARCH64: _aarch64}.get(elf.machine)
    if reader is None or not elf.little or not elf.layout.is64:
        return {}
    try:
        data = [(load[3], load[3] + load[5]) for load in elf.loads if load[1] & PF_W and load[5]]
        if not data:
            return {}
        within = min(data)[0], max(end for _, end in data)
        wanted = {start: set(reader(_code(elf, start, end), start, within)) for start, end in functions}
        paths = _paths(elf, set().union(*wanted.values()))
    except ElfError:
        return {}
    told = {path: _read(path) for path in set(paths.values())}
    result = {}
    for start, places in wanted.items():
        found = _source([told[paths[place]] for place in sorted(places) if place in paths])
        if found is not None:
            result[start] = found
    return result


def _code(elf: Elf, start: int, end: int) -> bytes:
    offset = elf.offset_of(start)
    return elf.view.some(offset, min(end - start, _LARGEST)) if offset is not None and end > start else b""


def _x86_64(code: bytes, address: int, within: tuple[int, int]) -> Iterable[int]:
    """Return those addresses `within` (start, end) that instructions `lea disp(%rip)` make.

    Nearly all lead elsewhere, and which do the two high bytes of the distance tell: they are compared for a whole
    window of code at once, so that few patterns have to be made.
    """
    window = address - address % _WINDOW
    low, high = within
    pattern = leading(0x8D, low - window - _WINDOW - max(len(code), _LONG), high - window)
    ends = [one.end() for one in pattern.finditer(code, 1)]
    places = [address + end + _DISTANCE(code, end - 4)[0] for end in ends]
    return [place for place in places if low <= place < high]


def _aarch64(code: bytes, address: int, within: tuple[int, int]) -> Iterator[int]:
    """Yield those addresses `within` (start, end) that adrp and the next add to the same register make."""
    low, high = within
    pages: dict[int, int] = {}
    for place in range(0, len(code) - 3, 4):
        word = int.from_bytes(code[place : place + 4], "little")
        if word & 0x9F000000 == 0x90000000:
            number = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
            number -= (number & 1 << 20) << 1
            pages[word & 31] = ((address + place) & -4096) + (number << 12)
        elif word & 0xFFC00000 == 0x91000000 and word >> 5 & 31 in pages:
            reached = pages[word >> 5 & 31] + (word >> 10 & 0xFFF)
            if low <= reached < high:
                yield reached


def _paths(elf: Elf, places: set[int]) -> dict[int, str]:
    """Return address -> path for those of `places` at which a panic location lies."""
    pointers: dict[int, tuple[int, int]] = {}  # address of a location -> pointer as it stands, length
    for load in elf.loads:
        if not load[1] & PF_W:
            continue
        data = elf.view.some(load[2], min(load[5], _LARGEST))
        for place in places:
            at = place - load[3]
            if 0 <= at <= len(data) - _LOCATION.size:
                pointer, length, line, column = _LOCATION.unpack_from(data, at)
                if 0 < length <= _LONGEST_PATH and 0 < line < _MOST_LINES and 0 < column < _MOST_COLUMNS:
                    pointers[place] = (pointer, length)
    addends = _addends(elf, [place for place, (pointer, _) in pointers.items() if not pointer])
    strings = {place: (pointer or addends.get(place, 0), length) for place, (pointer, length) in pointers.items()}
    texts = {}  # many locations have one path
    for address, length in set(strings.values()):
        raw = elf.around(address, length)[:length]
        if len(raw) == length and raw.endswith(b".rs") and raw.isascii() and b"\0" not in raw:
            texts[address, length] = raw.decode()
    return {place: texts[string] for place, string in strings.items() if string in texts}


def _addends(elf: Elf, places: list[int]) -> dict[int, int]:
    """Return address -> addend of the relative relocations at `places`, of tables that linkers sorted by address."""
    from array import array
    from sys import byteorder

    result: dict[int, int] = {}
    for table in tables(elf) if places else ():
        if not table.rela or table.size > _LARGEST:
            continue
        words: array[int] = array("Q", elf.at(table.vaddr, table.size - table.size % 24))
        if byteorder != "little":
            words.byteswap()
        offsets = words[: 3 * table.relative : 3] or words[::3]
        for place in places:
            index = bisect_left(offsets, place)
            if index < len(offsets) and offsets[index] == place:
                result[place] = words[3 * index + 2]
    return result


def _source(told: list[Source | None]) -> Source | None:
    """Return what most paths tell; None when they are of several crates, or all of Rust's own library."""
    found = [one for one in told if one is not None]
    crates = {one.crate for one in found}
    return max(found, key=found.count) if len(crates) == 1 else None


def _read(path: str) -> Source | None:
    """Return what a path tells; None of Rust's own library, whose generic code is everywhere."""
    found = _REGISTRY.search(path)
    if found is not None:
        return Source(found[1].replace("-", "_"), f"{found[1]}-{found[2]}/{found[3]}")
    if _LIBRARY.match(path):
        return None
    found = _CHECKOUT.search(path)
    if found is not None:  # a repository, which may hold several crates
        inside = _SOURCES.fullmatch(found[2])
        name = inside[1] if inside else found[1]
        return Source(name.replace("-", "_"), f"{found[1]}/{found[2]}")
    found = _SOURCES.fullmatch(path)
    if found is not None:
        return Source(found[1].replace("-", "_"), f"{found[1]}/src/{found[2]}")
    return Source(None, path)
