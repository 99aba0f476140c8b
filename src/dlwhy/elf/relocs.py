"""REL, RELA and RELR as columns (gABI ch. 4; generic ABI proposal for RELR).

Relocation tables run to millions of entries, nearly all of them relative. They are read through one buffer and
filtered by the strided low byte of r_info; only what is not relative becomes Python objects.
"""

from __future__ import annotations

import re
from functools import cache

from dlwhy.elf.constants import (
    DT_JMPREL,
    DT_PLTREL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELACOUNT,
    DT_RELASZ,
    DT_RELCOUNT,
    DT_RELR,
    DT_RELRSZ,
    DT_RELSZ,
)
from dlwhy.errors import ElfError, TooLarge
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf

_PIECE = 24 * 8 * 2048
"""Bytes read at a time: a multiple of every record size."""


class Table(Record):
    """One range of relocations."""

    name: str
    """DT_RELA, DT_REL or DT_JMPREL."""
    vaddr: int
    size: int
    rela: bool
    """Whether entries carry an addend."""
    relative: int
    """How many entries at the start the loader takes for relative without looking (DT_RELACOUNT)."""


class Relocation(Record):
    """One relocation."""

    offset: int
    type: int
    symbol: int
    addend: int
    """0 for REL, whose addend stands at `offset` in the segment."""


def tables(elf: Elf) -> tuple[Table, ...]:
    """Return the relocation tables in the order in which the loader applies them: REL, RELA, then JMPREL.

    A JMPREL range that lies at the end of REL or RELA is a table of its own here, and cut off there.
    """
    dynamic = elf.dynamic
    if dynamic is None:
        return ()
    tags = dynamic.tags
    jump = tags.get(DT_JMPREL, 0)
    jump_size = tags.get(DT_PLTRELSZ, 0) if jump else 0
    result = []
    for name, start, size, count, rela in (
        ("DT_REL", DT_REL, DT_RELSZ, DT_RELCOUNT, False),
        ("DT_RELA", DT_RELA, DT_RELASZ, DT_RELACOUNT, True),
    ):
        if start in tags and tags.get(size, 0):
            length = tags[size]
            if jump_size and tags[start] + length == jump + jump_size and (tags.get(DT_PLTREL) == DT_RELA) == rela:
                length -= jump_size
            if length > 0:
                result.append(Table(name, tags[start], length, rela, tags.get(count, 0)))
    if jump_size:
        result.append(Table("DT_JMPREL", jump, jump_size, tags.get(DT_PLTREL, DT_RELA) == DT_RELA, 0))
    return tuple(result)


def _pieces(elf: Elf, table: Table, skip: int, step: int) -> Iterator[bytes | bytearray]:
    """The entries behind the first `skip`, piece by piece; what was yielded is void when the next piece is asked for.

    Raises `ElfError` where the table leaves what is mapped, after all that lies before.
    """
    size = table.size - table.size % step
    done = min(skip * step, size)
    offset = elf.offset_of(table.vaddr)
    if offset is not None and size - done > _PIECE and elf.offset_of(table.vaddr + size - 1) == offset + size - 1:
        buffer = bytearray(_PIECE)
        while size - done >= _PIECE:
            elf.view.read_into(buffer, offset + done)
            yield buffer
            done += _PIECE
    most = done + elf.view.size + _PIECE
    while done < size:
        part = min(_PIECE, size - done)
        try:
            data = elf.at(table.vaddr + done, part)
        except ElfError:
            rest = elf.around(table.vaddr + done, part)
            if len(rest) >= step:
                yield rest[: len(rest) - len(rest) % step]
            raise
        yield data
        done += part
        if done > most:
            raise TooLarge(elf.path, -1, f"{table.name} of {size} bytes, in a file of {elf.view.size}")


def _column(elf: Elf, data: bytes | bytearray, rela: bool) -> bytes | bytearray:
    """The low byte of each relocation's type."""
    lay = elf.layout
    step = lay.rela.size if rela else lay.rel.size
    if lay.is64:
        return data[8::step] if elf.little else data[15::step]
    return data[4::step] if elf.little else data[7::step]


def references(elf: Elf, table: Table, skip_types: frozenset[int]) -> dict[int, None]:
    """Return the distinct r_info of a table, in the order of their first entry, as keys of a dict.

    Entries whose type is in `skip_types` (all below 256), and the first `table.relative`, are left out without being
    decoded.
    """
    lay = elf.layout
    layout = lay.rela if table.rela else lay.rel
    step = layout.size
    result: dict[int, None] = {}
    wanted = re.compile(b"[^" + b"".join(re.escape(bytes([t])) for t in sorted(skip_types) if t < 256) + b"]")
    wide = any(t > 255 for t in skip_types)
    for data in _pieces(elf, table, table.relative, step):
        column = _column(elf, data, table.rela)
        if wide:
            result.update(dict.fromkeys(row[1] for row in layout.iter_unpack(data)))
            continue
        places = [m.start() for m in wanted.finditer(column)]
        if len(places) == len(column):
            result.update(dict.fromkeys(row[1] for row in layout.iter_unpack(data)))
        elif places:
            unpack = layout.unpack_from
            result.update(dict.fromkeys(unpack(data, place * step)[1] for place in places))
    return result


def split_info(elf: Elf, info: int) -> tuple[int, int]:
    """Return (symbol index, type) of an r_info."""
    return (info >> 32, info & 0xFFFFFFFF) if elf.layout.is64 else (info >> 8, info & 0xFF)


@cache
def _low_bytes(kinds: frozenset[int]) -> re.Pattern[bytes]:
    return re.compile(b"[" + b"".join(re.escape(bytes([k & 0xFF])) for k in sorted(kinds)) + b"]")


def of_types(elf: Elf, wanted: Iterable[int]) -> list[tuple[Relocation, str]]:
    """Return the relocations whose type is one of `wanted`, each with the name of its table, in loader order.

    None is looked for among the first `Table.relative`, which the loader applies as relative whatever their type says.
    Raises `ElfError` when a table leaves the file.
    """
    kinds = frozenset(wanted)
    if not kinds:
        return []
    low = _low_bytes(kinds)
    lay = elf.layout
    result = []
    for table in tables(elf):
        layout = lay.rela if table.rela else lay.rel
        step = layout.size
        for data in _pieces(elf, table, table.relative, step):
            for match in low.finditer(_column(elf, data, table.rela)):
                row = layout.unpack_from(data, match.start() * step)
                symbol, kind = split_info(elf, row[1])
                if kind in kinds:
                    result.append((Relocation(row[0], kind, symbol, row[2] if table.rela else 0), table.name))
    return result


def relative_entries_wrong(elf: Elf, table: Table, relative: int) -> bool:
    """Whether DT_RELACOUNT counts an entry that is not relative (the loader asserts that it does not).

    Raises `ElfError` when the table leaves the file.
    """
    if not table.relative:
        return False
    left = table.relative
    step = elf.layout.rela.size if table.rela else elf.layout.rel.size
    for data in _pieces(elf, table, 0, step):
        column = _column(elf, data, table.rela)[:left]
        if column.count(relative & 0xFF) != len(column):
            return True
        left -= len(column)
        if left <= 0:
            return False
    return False


def relr(elf: Elf) -> Iterator[int]:
    """Yield the addresses of DT_RELR's relative relocations, in order.

    An even entry is an address, an odd one a bitmap of the words behind the last address (generic ABI proposal).
    Raises `ElfError` when the table leaves the file.
    """
    tags = elf.dynamic.tags if elf.dynamic else {}
    size, word = tags.get(DT_RELRSZ, 0) if DT_RELR in tags else 0, elf.layout.word
    bits = 8 * word.size
    here = 0
    table = Table("DT_RELR", tags.get(DT_RELR, 0), size - size % word.size, False, 0)
    for data in _pieces(elf, table, 0, word.size):
        for (entry,) in word.iter_unpack(data):
            if entry & 1:
                for bit in range(1, bits):
                    if entry >> bit & 1:
                        yield here + (bit - 1) * word.size
                here += (bits - 1) * word.size
            else:
                yield entry
                here = entry + word.size
