"""REL, RELA and RELR as columns (gABI ch. 4; generic ABI proposal for RELR).

Relocation tables run to millions of entries, nearly all of them relative. They are read through one buffer and
filtered by the strided low byte of r_info; only what is not relative becomes Python objects.
"""

from __future__ import annotations

from itertools import chain, compress

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
from dlwhy.elf.records import NATIVE_LITTLE, arrays
from dlwhy.errors import ElfError, TooLarge
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
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


_NEW = tuple.__new__
"""Makes a record of the tuple of its fields, as calling its class does, at a third of the time."""
_TABLES = (
    ("DT_REL", DT_REL, DT_RELSZ, DT_RELCOUNT, False),
    ("DT_RELA", DT_RELA, DT_RELASZ, DT_RELACOUNT, True),
)


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
    for name, start, size, counted, rela in _TABLES:
        length = tags.get(size, 0) if start in tags else 0
        if length:
            if jump_size and tags[start] + length == jump + jump_size and (tags.get(DT_PLTREL) == DT_RELA) == rela:
                length -= jump_size
            if length > 0:
                result.append(_NEW(Table, (name, tags[start], length, rela, tags.get(counted, 0))))
    if jump_size:
        result.append(_NEW(Table, ("DT_JMPREL", jump, jump_size, tags.get(DT_PLTREL, DT_RELA) == DT_RELA, 0)))
    return tuple(result)


def _pieces(elf: Elf, table: Table, skip: int, step: int) -> Iterator[bytes | bytearray]:
    """The entries behind the first `skip`, piece by piece; what was yielded is void when the next piece is asked for.

    Raises `ElfError` where the table leaves what is mapped, after all that lies before.
    """
    size = table.size - table.size % step
    done = min(skip * step, size)
    offset = elf.offset_of(table.vaddr) if size - done > _PIECE else None
    if offset is not None and elf.offset_of(table.vaddr + size - 1) == offset + size - 1:
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
            data = elf.mapped(table.vaddr + done, part)  # all that is there
            if len(data) >= step:
                yield data[: len(data) - len(data) % step]
            elf.at(table.vaddr + done + len(data), 1)  # tells where it breaks
            raise
        yield data
        done += part
        if done > most:
            raise TooLarge(elf.path, -1, f"{table.name} of {size} bytes, in a file of {elf.view.size}")


def _small(elf: Elf, table: Table, step: int) -> tuple[bytes, ...]:
    """All entries behind the relative ones, as `_pieces` yields them, where they are few and nothing is wrong."""
    _, vaddr, size, _, skip = table
    done = skip * step
    size -= size % step + done
    if 0 < size <= _PIECE:
        try:
            return (elf.at(vaddr + done, size),)
        except ElfError:
            pass
    return ()


def _column(elf: Elf, data: bytes | bytearray, rela: bool) -> bytes | bytearray:
    """The low byte of each relocation's type."""
    if elf.class_ == 2:
        return data[8 if elf.data == 1 else 15 :: 24 if rela else 16]
    return data[4 if elf.data == 1 else 7 :: 12 if rela else 8]


class Survey:
    """What one pass over a table shows of it. Filled piece by piece, so an error leaves what lies before it."""

    __slots__ = ("high", "infos", "low", "relative_wrong")

    def __init__(self) -> None:
        self.infos: list[array[int]] = []
        """r_info of every entry, piece by piece; those of the kinds to skip left out."""
        self.low = self.high = -1
        """The least and the largest r_offset of all entries; -1 of none."""
        self.relative_wrong = False
        """Whether one of the first `Table.relative` entries is not relative."""

    @property
    def references(self) -> dict[int, None]:
        """The distinct r_info, in the order of their first entry, as keys."""
        return dict.fromkeys(chain.from_iterable(self.infos))

    def __iter__(self) -> Iterator[int]:
        return iter(self.references)

    def highest(self) -> int:
        """Return the largest r_info, which is one of the last symbol; 0 without any."""
        return max(map(max, self.infos), default=0)

    def has_type(self, elf: Elf, kind: int) -> bool:
        """Whether a reference is of a type."""
        size, low = elf.layout.word_size, kind & 0xFF
        first = 0 if NATIVE_LITTLE else size - 1
        some = [infos for infos in self.infos if low in infos.tobytes()[first::size]]  # nearly always none
        return any(split_info(elf, info)[1] == kind for infos in some for info in infos)


def survey(
    elf: Elf, table: Table, skip_types: frozenset[int], relative: int, result: Survey, bounds: bool = True
) -> None:
    """Survey a table; `skip_types`, all below 256, are left out of the references without being decoded.

    Without `bounds` nobody asks for the least and the largest r_offset, which cost as much as all the rest.
    Raises `ElfError` where the table leaves the file.
    """
    array = arrays()
    lay = elf.layout
    layout = lay.rela if table.rela else lay.rel
    step = layout.size
    wide = any(t > 255 for t in skip_types)
    wanted = _marks(skip_types, 0)
    before = table.relative
    words = step // lay.word_size
    for data in _pieces(elf, table, 0, step):
        column = array(lay.word_code, data)
        if elf.little != NATIVE_LITTLE:
            column.byteswap()
        infos, offsets = column[1::words], column[::words] if bounds else ()
        if offsets:
            low, high = min(offsets), max(offsets)
            result.low = low if result.low < 0 else min(low, result.low)
            result.high = max(high, result.high)
        first = min(before, len(infos))
        if first and infos[:first] != array(lay.word_code, (relative,)) * first:
            result.relative_wrong |= any(split_info(elf, info)[1] != relative for info in infos[:first])
        before -= first
        rest = data[step * first :] if first else data
        if first:
            infos = infos[first:]
        if wide or _has_wide_types(elf, rest, step):
            infos = array(lay.word_code, [info for info in infos if split_info(elf, info)[1] not in skip_types])
        else:
            marks = _column(elf, rest, table.rela).translate(wanted)
            if 0 in marks:  # most linkers sort what is to skip to the front
                infos = array(lay.word_code, compress(infos, marks))
        if infos:
            result.infos.append(infos)


def _has_wide_types(elf: Elf, data: bytes | bytearray, step: int) -> bool:
    """Whether a type is above 255: then its low byte says nothing."""
    if not elf.layout.is64:
        return False
    count = len(data) // step
    return any(data[place::step].count(0) != count for place in ((9, 10, 11) if elf.little else (12, 13, 14)))


def entries(elf: Elf, table: Table) -> Iterator[tuple[int, int]]:
    """Yield (r_offset, r_info) of every entry. Raises `ElfError` where the table leaves the file."""
    layout = elf.layout.rela if table.rela else elf.layout.rel
    for data in _pieces(elf, table, 0, layout.size):
        for row in layout.iter_unpack(data):
            yield row[0], row[1]


def split_info(elf: Elf, info: int) -> tuple[int, int]:
    """Return (symbol index, type) of an r_info."""
    return (info >> 32, info & 0xFFFFFFFF) if elf.layout.is64 else (info >> 8, info & 0xFF)


_TRANSLATIONS: dict[tuple[frozenset[int], int], bytes] = {}


def _marks(kinds: frozenset[int], mark: int) -> bytes:
    """A table for `translate`: of the numbers below 256 these become `mark`, all others its opposite, as 1 and 0."""
    found = _TRANSLATIONS.get((kinds, mark))
    if found is None:
        found = _TRANSLATIONS[kinds, mark] = bytes(mark if n in kinds else 1 - mark for n in range(256))
    return found


def of_types(elf: Elf, wanted: Iterable[int]) -> list[tuple[Relocation, str]]:
    """Return the relocations whose type is one of `wanted`, each with the name of its table, in loader order.

    None is looked for among the first `Table.relative`, which the loader applies as relative whatever their type says.
    Raises `ElfError` when a table leaves the file.
    """
    kinds = frozenset(wanted)
    if not kinds:
        return []
    wide = any(kind > 255 for kind in kinds)  # then their low bytes are looked for
    wanted = _marks(frozenset(kind & 0xFF for kind in kinds) if wide else kinds, 1)
    result = []
    for table in tables(elf):
        layout = elf.layout.rela if table.rela else elf.layout.rel
        step = layout.size
        for data in _small(elf, table, step) or _pieces(elf, table, table.relative, step):
            marks = _column(elf, data, table.rela).translate(wanted)
            place = marks.find(1)
            while place >= 0:
                row = layout.unpack_from(data, place * step)
                symbol, kind = split_info(elf, row[1])
                if kind in kinds:
                    result.append((Relocation(row[0], kind, symbol, row[2] if table.rela else 0), table.name))
                place = marks.find(1, place + 1)
    return result


def _relr_pieces(elf: Elf) -> Iterator[bytes | bytearray]:
    tags, step = elf.dynamic.tags if elf.dynamic else {}, elf.layout.word_size
    size = tags.get(DT_RELRSZ, 0) if DT_RELR in tags else 0
    return _pieces(elf, Table("DT_RELR", tags.get(DT_RELR, 0), size - size % step, False, 0), 0, step)


def read_relr(elf: Elf) -> None:
    """Read DT_RELR as `relr` does, and decode nothing. Raises `ElfError` when the table leaves the file."""
    for _ in _relr_pieces(elf):
        pass


def relr(elf: Elf) -> Iterator[int]:
    """Yield the addresses of DT_RELR's relative relocations, in order.

    An even entry is an address, an odd one a bitmap of the words behind the last address (generic ABI proposal).
    Raises `ElfError` when the table leaves the file.
    """
    word = elf.layout.word
    bits = 8 * word.size
    here = 0
    for data in _relr_pieces(elf):
        for (entry,) in word.iter_unpack(data):
            if entry & 1:
                for bit in range(1, bits):
                    if entry >> bit & 1:
                        yield here + (bit - 1) * word.size
                here += (bits - 1) * word.size
            else:
                yield entry
                here = entry + word.size
