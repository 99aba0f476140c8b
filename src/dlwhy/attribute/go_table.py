"""The names of Go functions, from the table that the Go runtime itself needs: no stripping removes it.

Its header is pcHeader, its rows are functab (Go runtime/symtab.go; internal/abi/symtab.go, PCLnTabMagic; of the older
ones debug/gosym/pclntab.go and golang.org/s/go12symtab). Since Go 1.18 rows hold distances from runtime.text, whose
address the header held until Go 1.25; module data that points to the header tells it in all of them, through the
address of the first function. Until Go 1.17 rows hold addresses, which the loader of a shared object relocates: what
relative relocations put there counts, and what stands in the file only where there is none.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from dlwhy.elf.constants import DT_PLTREL, DT_RELA, PF_X
from dlwhy.elf.machine import MACHINES
from dlwhy.elf.relocs import tables
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Iterator

    from dlwhy.elf.file import Elf


class _Form(Record):
    """How the tables of some releases are laid out: numbers of words of the header, of 8 bytes, behind its 8 bytes."""

    text: int | None
    """Of the address of runtime.text; None where rows hold addresses."""
    names: int | None
    """Of the distance to the names; None where they are counted from the header."""
    records: int | None
    """Of the distance to the rows, from which records are counted too; None where rows follow the number of functions,
    and records are counted from the header."""
    row: str
    """Type code of the two words of a row."""
    record: struct.Struct
    """The address of a function, as in its row, and the distance of its name."""


_OFFSETS, _ADDRESSES = struct.Struct("<Ii"), struct.Struct("<Qi")
_FORMS = {
    b"\xf1\xff\xff\xff\0\0": _Form(2, 3, 7, "I", _OFFSETS),  # Go 1.20 and later
    b"\xf0\xff\xff\xff\0\0": _Form(2, 3, 7, "I", _OFFSETS),  # 1.18 and 1.19
    b"\xfa\xff\xff\xff\0\0": _Form(None, 2, 6, "Q", _ADDRESSES),  # 1.16 and 1.17
    b"\xfb\xff\xff\xff\0\0": _Form(None, None, None, "Q", _ADDRESSES),  # 1.2 to 1.15
}
"""First bytes -> form (Go internal/abi/symtab.go, PCLnTabMagic)."""
_COMMON = b"\xff\xff\xff\0\0"
"""What all of them end in."""
_HEADER = struct.Struct("<6xBB8Q")
"""Quantum, pointer size; then how many functions, and what the form says. The shortest header is followed by rows."""
_MIN_PC = 20
"""Word of the module data that holds the address of the first function (runtime/symtab.go, moduledata)."""
_NAME = 512
_PIECE = 1 << 20


class GoTable(Record):
    """One Go runtime's function table."""

    address: int
    text: int
    """Address of runtime.text; 0 where `starts` are addresses."""
    starts: array[int]
    """Distances of the functions from it, ascending; the last is the end."""
    places: array[int]
    """Distances of the functions' records from `records`."""
    records: int
    names: int
    """Addresses that distances of records and of names are counted from."""
    record: struct.Struct
    """The address of a function, as in `starts`, and the distance of its name."""


def go_table(elf: Elf) -> GoTable | None:
    """Return the table of the Go runtime in an object; None without one, or when it is damaged."""
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

    rows = {address: bisect_right(table.starts, address - table.text) - 1 for address in addresses}
    wanted = {index for index in rows.values() if 0 <= index < len(table.starts) - 1}
    moved: dict[int, int] = {}
    if table.record is _ADDRESSES:
        records = {table.records + table.places[index] for index in wanted}
        moved = dict(_relocated(elf, records.__contains__))
    names = {index: _name(elf, table, index, moved) for index in wanted}
    return {
        address: (table.text + table.starts[index], table.text + table.starts[index + 1], names[index])
        for address, index in rows.items()
        if names.get(index)
    }


def _name(elf: Elf, table: GoTable, index: int, moved: dict[int, int]) -> str:
    """Return the name of a function; "" where its record is of another one. `moved` are the words relocated there."""
    place = table.records + table.places[index]
    try:
        entry, name = table.record.unpack(elf.at(place, table.record.size))
    except ElfError:
        return ""
    if moved.get(place, entry) != table.starts[index] or name < 0:
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
                if not (row[3] + done + at - 1) % 8 and data[at - 1 : at + 5] in _FORMS:
                    yield row[3] + done + at - 1
                at = data.find(_COMMON, at + 1)


def _read(elf: Elf, address: int) -> GoTable | None:
    try:
        quantum, pointer, count, *_ = words = _HEADER.unpack(elf.at(address, _HEADER.size))
        form = _FORMS.get(elf.at(address, 6))
        if form is None or pointer != 8 or quantum not in (1, 2, 4) or not 0 < count < elf.view.size // 8:
            return None
        records = address + (words[2 + form.records] if form.records is not None else 0)
        names = address + (words[2 + form.names] if form.names is not None else 0)
        starts, places = _rows_of(elf, form, records if form.records is not None else address + 16, count)
    except ElfError:
        return None
    text = 0 if form.text is None else _first_function(elf, address) - starts[0] or words[2 + form.text]
    if text < 0 or text + starts[0] <= 0 or any(a > b for a, b in pairwise(starts)):
        return None
    return GoTable(address, text, starts, places, records, names, form.record)


def _rows_of(elf: Elf, form: _Form, at: int, count: int) -> tuple[array[int], array[int]]:
    """Return the two columns of the rows at an address, behind the last of which the end stands."""
    from array import array
    from sys import byteorder

    words = array(form.row)
    width = words.itemsize
    words.frombytes(elf.at(at, (2 * count + 1) * width))
    if byteorder != "little":
        words.byteswap()
    starts = words[::2]
    if form.text is None:
        rows = range(at, at + (2 * count + 1) * width, 2 * width)
        for place, value in _relocated(elf, rows.__contains__):
            starts[(place - at) // (2 * width)] = value
    return starts, words[1::2]


def _relocated(elf: Elf, wanted: Callable[[int], bool]) -> Iterator[tuple[int, int]]:
    """Yield (address, value) of the words that relative relocations with an addend fill, where `wanted` says so."""
    from array import array
    from sys import byteorder

    kind = MACHINES[elf.machine, elf.class_].relative
    for data in _addends(elf):
        words = array("Q", data[: len(data) - len(data) % 24])
        if byteorder != "little":
            words.byteswap()
        for place, info, value in zip(words[::3], words[1::3], words[2::3], strict=True):
            if info == kind and wanted(place):
                yield place, value


def _first_function(elf: Elf, header: int) -> int:
    """Return the address of the first function, from module data that begins with a pointer to `header`; else 0."""
    for place in _pointers_to(elf, header):
        found = pointer_at(elf, place + 8 * _MIN_PC)
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


def pointer_at(elf: Elf, place: int) -> int:
    """Return the pointer at an address: what a relative relocation puts there, else what stands there; 0 for none."""
    for row, at in _rows(elf, struct.pack("<Q", place), 0):
        return int.from_bytes(row[at + 16 : at + 24], "little")
    try:
        return int.from_bytes(elf.at(place, 8), "little")
    except ElfError:
        return 0


def _rows(elf: Elf, word: bytes, column: int) -> Iterator[tuple[bytes, int]]:
    """Yield (table, place) of `word` in one column of the RELA tables: 0 is r_offset, 16 is r_addend."""
    for data in _addends(elf):
        at = data.find(word)
        while at >= 0:
            if at % 24 == column:
                yield data, at
            at = data.find(word, at + 1)


def _addends(elf: Elf) -> Iterator[bytes]:
    """Yield the tables whose relocations have addends."""
    tags = elf.dynamic.tags if elf.dynamic else {}
    for table in tables(elf):
        if table.rela and (table.name != "DT_JMPREL" or tags.get(DT_PLTREL) == DT_RELA):
            yield elf.at(table.vaddr, table.size)
