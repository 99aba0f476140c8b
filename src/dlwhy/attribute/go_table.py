"""The names of Go functions, from the table that the Go runtime itself needs: no stripping removes it.

Its header is pcHeader, its rows are functab (Go runtime/symtab.go; internal/abi/symtab.go, PCLnTabMagic). Rows hold
distances from runtime.text, whose address the header held until Go 1.25; module data that points to the header tells
it in every release since 1.18, through the address of the first function. Older tables are not read.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from dlwhy.elf.constants import DT_PLTREL, DT_RELA, PF_X
from dlwhy.elf.relocs import tables
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf

_MAGICS = (b"\xf1\xff\xff\xff\0\0", b"\xf0\xff\xff\xff\0\0")
"""Go 1.20 and later, Go 1.18 and 1.19."""
_COMMON = b"\xff\xff\xff\0\0"
"""What all of them end in."""
_HEADER = struct.Struct("<6xBB8Q")
"""Quantum, pointer size; then how many functions, files, text start, and the places of five tables."""
_MIN_PC = 20
"""Word of the module data that holds the address of the first function (runtime/symtab.go, moduledata)."""
_NAME = 512
_PIECE = 1 << 20


class GoTable(Record):
    """One Go runtime's function table."""

    address: int
    text: int
    """Address of runtime.text."""
    starts: array[int]
    """Distances of the functions from it, ascending; the last is the end."""
    places: array[int]
    """Distances of the functions' records from `records`."""
    records: int
    names: int
    """Addresses of the records and of the names."""


def go_table(elf: Elf) -> GoTable | None:
    """Return the table of the Go runtime in an object; None without one, or when it is damaged or too old."""
    try:
        for address in _candidates(elf):
            found = _read(elf, address)
            if found is not None:
                return found
    except ElfError:
        pass
    return None


def go_functions(elf: Elf, table: GoTable, addresses: Iterable[int]) -> dict[int, tuple[int, int, str]]:
    """Return address -> (start, end, name) for those of `addresses` that lie in a Go function."""
    from bisect import bisect_right

    result: dict[int, tuple[int, int, str]] = {}
    names: dict[int, str] = {}
    for address in addresses:
        index = bisect_right(table.starts, address - table.text) - 1
        if not 0 <= index < len(table.starts) - 1:
            continue
        if index not in names:
            names[index] = _name(elf, table, index)
        if names[index]:
            result[address] = (table.text + table.starts[index], table.text + table.starts[index + 1], names[index])
    return result


def _name(elf: Elf, table: GoTable, index: int) -> str:
    try:
        entry, name = struct.unpack("<Ii", elf.at(table.records + table.places[index], 8))
    except ElfError:
        return ""
    if entry != table.starts[index] or name < 0:
        return ""
    text, end, _ = elf.around(table.names + name, _NAME).partition(b"\0")
    return text.decode("utf-8", "surrogateescape") if end else ""


def _candidates(elf: Elf) -> Iterator[int]:
    """Yield addresses at which the table may begin: of its section, else wherever its first bytes stand."""
    for section in elf.sections:
        if section.name.endswith(".gopclntab"):
            yield section.addr
    for row in elf.loads:
        size = min(row[5], elf.view.size - row[2])
        for done in range(0, 0 if row[1] & PF_X else size, _PIECE):
            data = elf.view.some(row[2] + done, min(_PIECE + 8, size - done))
            at = data.find(_COMMON, 1)
            while at >= 0:
                if not (row[3] + done + at - 1) % 8 and data[at - 1 : at + 5] in _MAGICS:
                    yield row[3] + done + at - 1
                at = data.find(_COMMON, at + 1)


def _read(elf: Elf, address: int) -> GoTable | None:
    from array import array
    from sys import byteorder

    try:
        head = elf.at(address, _HEADER.size)
        quantum, pointer, count, _, text, names, _, _, _, records = _HEADER.unpack(head)
        if head[:6] not in _MAGICS or pointer != 8 or quantum not in (1, 2, 4) or not 0 < count < elf.view.size // 8:
            return None
        words = array("I", elf.at(address + records, 8 * count + 4))
    except ElfError:
        return None
    if byteorder != "little":
        words.byteswap()
    starts = words[::2]
    text = _first_function(elf, address) - starts[0] or text
    if text <= 0 or any(a > b for a, b in pairwise(starts)):
        return None
    return GoTable(address, text, starts, words[1::2], address + records, address + names)


def _first_function(elf: Elf, header: int) -> int:
    """Return the address of the first function, from module data that begins with a pointer to `header`; else 0."""
    for place in _pointers_to(elf, header):
        found = _pointer_at(elf, place + 8 * _MIN_PC)
        if any(row[1] & PF_X and row[3] <= found < row[3] + row[5] for row in elf.loads):
            return found
    return 0


def _pointers_to(elf: Elf, address: int) -> Iterator[int]:
    """Yield where pointers to `address` stand: by relative relocations, and as words of the data itself."""
    wanted = struct.pack("<Q", address)
    for row, at in _rows(elf, wanted, 16):
        yield int.from_bytes(row[at - 16 : at - 8], "little")
    for load in elf.loads:
        size = min(load[5], elf.view.size - load[2])
        for done in range(0, 0 if load[1] & PF_X else size, _PIECE):
            data = elf.view.some(load[2] + done, min(_PIECE, size - done))
            at = data.find(wanted)
            while at >= 0:
                yield load[3] + done + at
                at = data.find(wanted, at + 1)


def _pointer_at(elf: Elf, place: int) -> int:
    """Return the pointer at an address: what a relative relocation puts there, else what stands there; 0 for none."""
    for row, at in _rows(elf, struct.pack("<Q", place), 0):
        return int.from_bytes(row[at + 16 : at + 24], "little")
    try:
        return int.from_bytes(elf.at(place, 8), "little")
    except ElfError:
        return 0


def _rows(elf: Elf, word: bytes, column: int) -> Iterator[tuple[bytes, int]]:
    """Yield (table, place) of `word` in one column of the RELA tables: 0 is r_offset, 16 is r_addend."""
    tags = elf.dynamic.tags if elf.dynamic else {}
    for table in tables(elf):
        if table.rela and (table.name != "DT_JMPREL" or tags.get(DT_PLTREL) == DT_RELA):
            data = elf.at(table.vaddr, table.size)
            at = data.find(word)
            while at >= 0:
                if at % 24 == column:
                    yield data, at
                at = data.find(word, at + 1)
