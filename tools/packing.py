"""Packs the tables of an object for the profiles that come with dlwhy; `hosts/packed.py` reads them.

An object whose tables are not what a linker writes (a name that its own hash table does not lead to, entries that are
no plain RELA) is left as it is. What was packed is unpacked again here, and every answer that a table gives compared.
"""

from __future__ import annotations

from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_INIT_ARRAY,
    DT_INIT_ARRAYSZ,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DT_TEXTREL,
    DT_VERSYM,
    PF_X,
    SHN_ABS,
    STT_FUNC,
    STT_NOTYPE,
    STT_OBJECT,
)
from dlwhy.elf.dynamic import Dynamic
from dlwhy.elf.relocs import Table, tables
from dlwhy.elf.symbols import gnu_hash
from dlwhy.hosts import packed
from dlwhy.hosts.held import LARGEST_PART

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf

_PLAIN = {62: (1, 6, 7, 8), 183: (257, 1025, 1026, 1027)}
"""e_machine -> the relocations of which nobody asks where they apply: an address, a slot of the global offset or jump
table, a relative one (x86-64 psABI, table 4.9; AArch64 psABI, chapter 5.7)."""
_ADDRESSES = frozenset((STT_NOTYPE, STT_OBJECT, STT_FUNC))
_HASH_HEAD = 16
"""Bytes of a hash table that are kept: of the filter's size something is asserted when an object is mapped."""


class Piece(NamedTuple):
    """A table as it is kept in place of the file's bytes."""

    start: int
    """Offset in the file."""
    size: int
    data: bytes
    how: str
    """One of `packed`, or "" for bytes as they are."""


class Tables:
    """The tables of one object, ready to be packed when the names of all objects are known."""

    def __init__(self, elf: Elf, kept: list[tuple[int, int]]) -> None:
        """`kept` are the ranges of the file that the profile has. Raises `ElfError`; `ValueError` for odd tables."""
        self.elf = elf
        tags = elf.dynamic.tags if elf.dynamic is not None else {}
        if elf.machine not in _PLAIN or elf.class_ != 2 or DT_GNU_HASH not in tags:
            raise ValueError("another kind of object")
        self.first, end = elf.symbols.hashed
        if not self.first or end != elf.symbols.count or end * 24 > LARGEST_PART:
            raise ValueError("another kind of hash table, or one that is too large")
        self._tags = tags
        names = [elf.symbols.name_at(elf.symbols.fields(number)[0]) for number in range(end)]
        if elf.symbols.reached((at, gnu_hash(names[at])) for at in range(self.first, end)) != {*range(self.first, end)}:
            raise ValueError("names that the hash table does not lead to")
        self._order = [*sorted(range(self.first), key=names.__getitem__)]
        self._order += sorted(range(self.first, end), key=names.__getitem__)
        self._place = {old: new for new, old in enumerate(self._order)}
        if self._place[0]:
            raise ValueError("a first symbol with a name")
        self.names = [names[number] for number in self._order]
        self._where = self._nowhere(kept)

    def _hashes(self) -> Iterator[Piece]:
        """The hash tables, which follow from the names: nothing in them but how they begin.

        Nobody looks into them, but what stands before is read in windows that may reach so far.
        """
        symbols, tags = self.elf.symbols, self._tags
        words, first, filters, _ = self.elf.layout.u32.iter_unpack(self.elf.at(tags[DT_GNU_HASH], 16))
        size = 16 + 8 * filters[0] + 4 * words[0] + 4 * (symbols.count - first[0])
        yield self._emptied(tags[DT_GNU_HASH], size)
        if DT_HASH in tags:
            heads, chains = self.elf.layout.u32.iter_unpack(self.elf.at(tags[DT_HASH], 8))
            yield self._emptied(tags[DT_HASH], 8 + 4 * (heads[0] + chains[0]))

    def _emptied(self, vaddr: int, size: int) -> Piece:
        start, end = self._range(vaddr, size)
        return Piece(start, end - start, self.elf.view.read(start, min(_HASH_HEAD, size)).ljust(size, b"\0"), "")

    def _range(self, vaddr: int, size: int) -> tuple[int, int]:
        start = self.elf.offset_of(vaddr)
        if start is None or self.elf.offset_of(vaddr + max(size, 1) - 1) != start + max(size, 1) - 1:
            raise ValueError("a table outside the segments")
        return start, start + max(size, 0)

    def pieces(self, pool: list[bytes]) -> Iterator[Piece]:
        """Yield the tables, in no order."""
        yield from self._hashes()
        start, end = self._range(self._tags[DT_SYMTAB], 24 * len(self.names))
        yield Piece(start, end - start, self._symbols(pool), packed.SYMBOLS)
        start, end = self._range(self._tags[DT_STRTAB], self._tags.get(DT_STRSZ, 0))
        yield Piece(start, end - start, self._strings(end - start), "")
        if DT_VERSYM in self._tags:
            start, end = self._range(self._tags[DT_VERSYM], 2 * len(self.names))
            entries = array("H", self.elf.view.read(start, end - start))
            yield Piece(start, end - start, array("H", map(entries.__getitem__, self._order)).tobytes(), "")
        for table in tables(self.elf):
            if table.rela and not table.size % 24:
                start, end = self._range(table.vaddr, table.size)
                data, how = self._entries(table)
                yield Piece(start, end - start, data, how)

    def _strings(self, size: int) -> bytes:
        """The string table with nothing in it but what the dynamic section and the versions name."""
        found: dict[int, bytes] = {}
        cut = Dynamic.string

        def noting(one: Dynamic, offset: int) -> str:
            text = cut(one, offset)
            found[offset] = text.encode("utf-8", "surrogateescape")
            return text

        from dlwhy.elf.file import Elf

        with patch.object(Dynamic, "string", noting):
            fresh = Elf(self.elf.view)
            dynamic, versions = fresh.dynamic, fresh.versions
            assert dynamic is not None
            _ = dynamic.needed, dynamic.soname, dynamic.rpath, dynamic.runpath, dynamic.filters
            _ = versions.needs, versions.defined
        made = bytearray(size)
        for offset, text in found.items():
            made[offset : offset + len(text)] = text
        return bytes(made)

    def _symbols(self, pool: list[bytes]) -> bytes:
        rows = [self.elf.symbols.fields(number) for number in self._order]
        kinds, values, sizes = bytearray(), [], []
        for _, value, size, info, _, section in rows:
            kind = {0: 0, SHN_ABS: 2}.get(section, 1)
            if value and info & 15 in _ADDRESSES and kind != 2:
                kind |= packed.SOMEWHERE
            elif value:
                kind |= packed.EXACT
                values.append(value)
            if size and info & 15 != STT_FUNC:
                kind |= packed.SIZED
                sizes.append(size)
            kinds.append(kind)
        head = packed.SYMBOLS_HEAD.pack(len(rows), self.first, len(pool), self._where)
        undefined, defined = Counter(self.names[: self.first]), Counter(self.names[self.first :])
        uses = bytes(undefined[name] for name in pool) + bytes(defined[name] for name in pool)
        columns = bytes(row[3] for row in rows) + bytes(row[4] for row in rows) + bytes(kinds)
        return head + uses + columns + array("Q", values).tobytes() + _planes(sizes, 4)

    def _nowhere(self, kept: list[tuple[int, int]]) -> int:
        """An address of the object, code if it has any, of which nothing is kept: who wants to read there is told."""
        for row in sorted(self.elf.loads, key=lambda row: not row[1] & PF_X):
            for vaddr in range(row[3], row[3] + row[5] - 64, 64):
                at = vaddr - row[3] + row[2]
                if vaddr and all(end <= at or start >= at + 64 for start, end in kept):
                    return vaddr
        raise ValueError("all of it is kept")

    def _entries(self, table: Table) -> tuple[bytes, str]:
        elf = self.elf
        rows = [(at, info, addend) for at, info, addend in elf.layout.rela.iter_unpack(elf.at(table.vaddr, table.size))]
        rows = [(at, self._place[info >> 32] << 32 | info & 0xFFFFFFFF, addend) for at, info, addend in rows]
        raw = b"".join(elf.layout.rela.pack(*row) for row in rows)
        plain = _PLAIN[elf.machine]
        low, high = min(row[0] for row in rows), max(row[0] for row in rows)
        first = self._tags.get(DT_INIT_ARRAY, 0)
        start = high - 8 * (len(rows) - 1)
        counted = rows[: table.relative]
        if (
            len(raw) > LARGEST_PART or DT_TEXTREL in self._tags or len({row[1] for row in counted}) > 1 or start < low
            or (start < first + self._tags.get(DT_INIT_ARRAYSZ, 0) and start + 8 * len(rows) > first)
        ):  # fmt: skip
            return raw, ""
        rest = rows[table.relative :]
        types = sorted({row[1] & 0xFFFFFFFF for row in rest})
        exact = [row for row in rest if row[1] & 0xFFFFFFFF not in plain]
        info = counted[0][1] if counted else 0
        data = packed.ENTRIES_HEAD.pack(len(rows), len(counted), len(types), info, low, high, start)
        data += array("I", [one | (packed.PLAIN if one in plain else 0) for one in types]).tobytes()
        data += bytes(types.index(row[1] & 0xFFFFFFFF) for row in rest) + _planes([row[1] >> 32 for row in rest], 3)
        data += array("Q", [row[0] for row in exact]).tobytes() + array("q", [row[2] for row in exact]).tobytes()
        made = packed.entries(data, len(rows))
        again = list(elf.layout.rela.iter_unpack(made))
        same = [row[1] for row in again] == [row[1] for row in rows]
        same &= (min(row[0] for row in again), max(row[0] for row in again)) == (low, high)
        same &= [row for row in again[table.relative :] if row[1] & 0xFFFFFFFF not in plain] == exact
        return (data, packed.ENTRIES) if same else (raw, "")


def _planes(numbers: list[int], width: int) -> bytes:
    raw = array("I", numbers).tobytes()
    return b"".join(raw[place::4] for place in range(width))


def pool_of(every: Iterable[Tables]) -> list[bytes]:
    """The names of several objects, sorted, each once."""
    return sorted({name for one in every for name in one.names})

