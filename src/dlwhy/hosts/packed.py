"""Packed tables: the symbol and relocation tables of an object as a profile that comes with dlwhy keeps them.

Column by column, the names sorted and shared with the same library of other systems, without what decides nothing:
hashes, which follow from the names; the addresses of functions and data, of which only whether there is one is asked;
the places and addends of plain relocations, of which only the least and the largest are (docs/reference/profile.md).
`tools/packing.py` writes them, and packs nothing that would be told otherwise.
"""

from __future__ import annotations

from array import array
from itertools import accumulate, chain, compress, repeat
from struct import Struct
from struct import error as StructError  # noqa: N812 -- a class

from dlwhy.elf.constants import SHN_ABS
from dlwhy.elf.records import NATIVE_LITTLE

SYMBOLS, ENTRIES = "symbols", "relocations"
SYMBOLS_HEAD = Struct("<3IQ")
"""How many symbols, the first that the hash table leads to, the names of the pool, the address of what is defined."""
ENTRIES_HEAD = Struct("<3I4Q")
"""How many entries, how many of them relative at the start, how many types; r_info of those relative; the least and
the largest r_offset, and where those that are not kept are counted from."""
SECTIONS = 0, 1, SHN_ABS
"""st_shndx: undefined, somewhere in the file, absolute. The low two bits of a symbol's kind."""
NOTHING, SOMEWHERE, EXACT, SIZED = 0, 4, 8, 16
"""Other bits of a kind: st_value is 0, any address of the object, or kept; st_size is kept (else 0)."""
PLAIN = 1 << 31
"""Bit of a relocation's type: neither place nor addend are kept."""
_SYMBOL, _ENTRY, _WORD = 24, 24, 8
Listed = tuple[int, list[bytes], bytes]
"""(first symbol that the hash table leads to, the names from there on, sorted, and the string table of all names)."""


class Damaged(Exception):
    """Packed bytes that are not as they must be; whoever reads a part says of which file."""


class _Reader:
    """Column after column of one stream."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, size: int) -> bytes:
        part = self._data[self._at : self._at + size]
        if len(part) != size:
            raise Damaged
        self._at += size
        return part

    def head(self, layout: Struct) -> tuple[int, ...]:
        return layout.unpack(self.take(layout.size))

    def words(self, number: int, code: str = "Q") -> array[int]:
        words = array(code)
        words.frombytes(self.take(number * words.itemsize))
        if not NATIVE_LITTLE:
            words.byteswap()
        return words

    def planes(self, number: int, width: int) -> array[int]:
        """Numbers of `width` bytes, of which first all lowest bytes stand, then all next ones."""
        raw = bytearray(4 * number)
        for place in range(width):
            raw[place::4] = self.take(number)
        words = array("I", bytes(raw))
        if not NATIVE_LITTLE:
            words.byteswap()
        return words

    def end(self) -> None:
        if self._at != len(self._data):
            raise Damaged


def symbols(data: bytes, pool: bytes, most: int) -> tuple[bytes, Listed]:
    """Return a symbol table of 64-bit little-endian entries and its names, of at most `most` symbols.

    Raises `Damaged`.
    """
    try:
        return _symbols(_Reader(data), pool.split(b"\0"), most)
    except (StructError, ValueError, IndexError, OverflowError):
        raise Damaged from None


def _symbols(reader: _Reader, pool: list[bytes], most: int) -> tuple[bytes, Listed]:
    count, first, size, where = reader.head(SYMBOLS_HEAD)
    if not first <= count <= most or size != len(pool):
        raise Damaged
    undefined = _chosen(pool, reader.take(size), first)
    defined = _chosen(pool, reader.take(size), count - first)
    infos, others, kinds = (reader.take(count) for _ in range(3))
    table = bytearray(_SYMBOL * count)
    names = undefined + defined
    starts = array("I", accumulate(chain((1,), map(len, names[:-1])), lambda at, length: at + length + 1))
    _spread(table, 0, starts[:count])
    table[4::_SYMBOL], table[5::_SYMBOL] = infos, others
    _spread(table, 6, array("H", map((*SECTIONS, 0).__getitem__, kinds.translate(_LOW_TWO))))
    values = array("Q", map((0, where, 0, 0).__getitem__, kinds.translate(_VALUE)))
    exact = [place for place, kind in enumerate(kinds) if kind & EXACT]
    for place, value in zip(exact, reader.words(len(exact)), strict=True):
        values[place] = value
    _spread(table, 8, values)
    sized = list(compress(range(count), kinds.translate(_SIZED)))
    sizes = array("Q", bytes(8 * count))
    for place, value in zip(sized, reader.planes(len(sized), 4), strict=True):
        sizes[place] = value
    _spread(table, 16, sizes)
    reader.end()
    return bytes(table), (first, defined, b"\0" + b"\0".join(names) + b"\0")


_LOW_TWO = bytes(kind & 3 for kind in range(256))
_VALUE = bytes(kind >> 2 & 3 for kind in range(256))
_SIZED = bytes(kind >> 4 & 1 for kind in range(256))


def _chosen(pool: list[bytes], uses: bytes, number: int) -> list[bytes]:
    """So many names of a pool, each as often as `uses` says."""
    if sum(uses) != number:
        raise Damaged
    if not uses or max(uses) < 2:
        return list(compress(pool, uses))
    return list(chain.from_iterable(map(repeat, pool, uses)))


def _spread(table: bytearray, at: int, column: array[int]) -> None:
    """Write a column into each record of a table, from byte `at` of it on."""
    if not NATIVE_LITTLE:
        column.byteswap()
    raw = column.tobytes()
    for place in range(column.itemsize):
        table[at + place :: _SYMBOL] = raw[place :: column.itemsize]


def entries(data: bytes, most: int) -> bytes:
    """Return a table of at most `most` 64-bit little-endian RELA entries. Raises `Damaged`."""
    try:
        return _entries(_Reader(data), most)
    except (StructError, ValueError, IndexError, OverflowError):
        raise Damaged from None


def _entries(reader: _Reader, most: int) -> bytes:
    count, relative, types, info, low, high, start = reader.head(ENTRIES_HEAD)
    if not relative <= count <= most or start + _WORD * count >= 1 << 63 or types > 256:
        raise Damaged
    known = reader.words(types, "I")
    rest = count - relative
    kinds = reader.take(rest)
    infos = array("Q", [info]) * relative
    numbers = [one & ~PLAIN for one in known]
    infos.extend([symbol << 32 | numbers[kind] for kind, symbol in zip(kinds, reader.planes(rest, 3), strict=True)])
    offsets = array("Q", range(start, start + _WORD * count, _WORD))
    if count:
        offsets[0], offsets[-1] = low, high
    addends = array("Q", bytes(8 * count))
    exact = bytes(0 if number < types and known[number] & PLAIN else 1 for number in range(256))
    places = list(compress(range(relative, count), kinds.translate(exact)))
    for column in (offsets, addends):
        for place, value in zip(places, reader.words(len(places)), strict=True):
            column[place] = value
    reader.end()
    table = array("Q", bytes(_ENTRY * count))
    table[::3], table[1::3], table[2::3] = offsets, infos, addends
    if not NATIVE_LITTLE:
        table.byteswap()
    return table.tobytes()
