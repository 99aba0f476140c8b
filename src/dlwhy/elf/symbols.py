"""Symbol tables in columns, and how the loader looks a name up in them.

A table of a million symbols stays bytes: what is wanted is found by strided slices and `re`, and names are cut last.
Lookup is a join: the hashes of all wanted names are held against the hash chains at once (DT_GNU_HASH), which gives
exactly the symbols that the loader's walk bucket by bucket would reach (glibc elf/dl-lookup.c, do_lookup_x).
"""

from __future__ import annotations

import re
from array import array
from itertools import compress, count

from dlwhy.elf.constants import DT_GNU_HASH, DT_HASH, DT_STRSZ, DT_STRTAB, DT_SYMTAB, SHT_DYNSYM, SHT_SYMTAB, STT_FILE, STT_TLS
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf

_TLS_LITTLE_HUGE = 1 << 16
_NAME_BUDGET = 16
"""Total bytes of names cut from a table: at most this many times its string table (honest files stay below 2)."""


def gnu_hash(name: bytes) -> int:
    """Return the DT_GNU_HASH hash of a name (32 bits)."""
    h = 5381
    for c in name:
        h = h * 33 + c & 0xFFFFFFFF
    return h


def sysv_hash(name: bytes) -> int:
    """Return the DT_HASH hash of a name, also used for version names (gABI ch. 5)."""
    h = 0
    for c in name:
        h = (h << 4) + c
        h = (h ^ (h & 0xF0000000) >> 24) & 0x0FFFFFFF
    return h


class Symbol(Record):
    """One symbol table entry; fields as in <elf.h>."""

    index: int
    name: bytes
    value: int
    size: int
    info: int
    other: int
    shndx: int

    @property
    def type(self) -> int:
        """STT_*."""
        return self.info & 15

    @property
    def binding(self) -> int:
        """STB_*."""
        return self.info >> 4

    @property
    def visibility(self) -> int:
        """STV_*."""
        return self.other & 3


class TlsSymbol(Record):
    """One STT_TLS symbol."""

    name: str
    offset: int
    """Bytes from the start of the TLS segment (section-relative in ET_REL)."""
    size: int
    binding: int
    visibility: int
    shndx: int
    unit: str | None
    """Name of the last STT_FILE before it, as written; None when there is none."""
    index: int


class DynamicSymbols:
    """The dynamic symbol table as the loader sees it."""

    __slots__ = ("_chain", "_count", "_data", "_elf", "_hash", "_names", "_searched", "_symoffset", "_hits")

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._data: bytes | None = None
        self._names: bytes | None = None
        self._count = -1
        self._chain: array[int] | None = None
        self._symoffset = 0
        self._hits: dict[bytes, tuple[int, ...]] = {}
        self._searched: set[bytes] = set()
        tags = elf.dynamic.tags if elf.dynamic else {}
        self._hash = DT_GNU_HASH if DT_GNU_HASH in tags else DT_HASH if DT_HASH in tags else 0

    # -- size and raw bytes --------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many symbols the hash table reaches; without one, as many as fit before DT_STRTAB."""
        if self._count < 0:
            self._count = self._find_count()
        return self._count

    def _tags(self) -> dict[int, int]:
        return self._elf.dynamic.tags if self._elf.dynamic else {}

    def _find_count(self) -> int:
        elf, tags = self._elf, self._tags()
        if DT_SYMTAB not in tags:
            return 0
        limit = elf.view.size // elf.layout.sym.size
        if DT_HASH in tags:
            _, chains = self._words(tags[DT_HASH], 2)
            return min(chains, limit)
        if self._hash == DT_GNU_HASH:
            self._load_chain()
            reached = self._symoffset + len(self._chain or ())
            if reached > self._symoffset:
                return min(reached, limit)
        gap = tags.get(DT_STRTAB, 0) - tags[DT_SYMTAB]
        return min(gap // elf.layout.sym.size, limit) if gap > 0 else 0

    def _words(self, vaddr: int, number: int) -> tuple[int, ...]:
        from struct import unpack

        raw = self._elf.at(vaddr, 4 * number)
        return unpack(f"{self._elf.layout.prefix}{number}I", raw)

    def _array(self, data: bytes) -> array[int]:
        words = array("I", data)
        if (self._elf.data == 1) != (_NATIVE == 1):
            words.byteswap()
        return words

    def _load_chain(self) -> None:
        # DT_GNU_HASH: nbuckets symoffset bloom_size bloom_shift, bloom words, buckets, chain
        elf = self._elf
        vaddr = self._tags()[DT_GNU_HASH]
        nbuckets, self._symoffset, bloom_size, _ = self._words(vaddr, 4)
        start = vaddr + 16 + bloom_size * elf.layout.word_size
        if nbuckets * 4 > elf.view.size or bloom_size * elf.layout.word_size > elf.view.size:
            raise ElfError(elf.path, -1, f"DT_GNU_HASH with {nbuckets} buckets and {bloom_size} filter words leaves the file")
        buckets = self._array(elf.at(start, 4 * nbuckets))
        top = max(buckets, default=0)
        self._chain = array("I")
        if top < self._symoffset or not top:
            return
        chain_at = start + 4 * nbuckets
        known = top - self._symoffset  # words before the last chain; its end has the low bit set
        data = elf.around(chain_at, 4 * known + 1024)
        size = 1024
        while True:
            words = self._array(data[: len(data) - len(data) % 4])
            end = next((i for i in range(known, len(words)) if words[i] & 1), -1)
            if end >= 0:
                self._chain = words[: end + 1]
                return
            size *= 8
            more = elf.around(chain_at, 4 * known + size)
            if len(more) <= len(data):
                raise ElfError(elf.path, -1, "the last chain of DT_GNU_HASH has no end in the file")
            data = more

    @property
    def data(self) -> bytes:
        """The raw table, `count` entries."""
        if self._data is None:
            size = self.count * self._elf.layout.sym.size
            self._data = self._elf.at(self._tags()[DT_SYMTAB], size) if size else b""
        return self._data

    @property
    def names(self) -> bytes:
        """DT_STRTAB, as long as DT_STRSZ says and the file allows."""
        if self._names is None:
            tags = self._tags()
            self._names = self._elf.around(tags[DT_STRTAB], tags.get(DT_STRSZ, 0)) if DT_STRTAB in tags else b""
        return self._names

    def name_at(self, offset: int) -> bytes:
        """Return the name at `offset` of the string table."""
        names = self.names
        end = names.find(b"\0", offset)
        return names[offset:end] if end >= 0 else names[offset:]

    def symbol(self, index: int) -> Symbol:
        """Return one entry. Raises `ElfError` when the table does not reach it in the file."""
        lay = self._elf.layout
        if 0 <= index < self.count:
            row = lay.sym.unpack_from(self.data, index * lay.sym.size)
        else:  # an index behind the hashed part: the loader reads it all the same
            tags = self._tags()
            if DT_SYMTAB not in tags:
                raise ElfError(self._elf.path, -1, f"symbol {index} wanted, but there is no DT_SYMTAB")
            row = lay.sym.unpack(self._elf.at(tags[DT_SYMTAB] + index * lay.sym.size, lay.sym.size))
        if lay.is64:
            name, info, other, shndx, value, size = row
        else:
            name, value, size, info, other, shndx = row
        return Symbol(index, self.name_at(name), value, size, info, other, shndx)

    # -- lookup --------------------------------------------------------------------------------------------------

    def look_up(self, hashes: dict[bytes, int]) -> dict[bytes, tuple[int, ...]]:
        """Return name -> symbol indexes in chain order, for every name of `hashes` that the hash table reaches.

        `hashes` is name -> `gnu_hash(name)`. Names already looked up are not looked up again; the answer holds
        every name ever found in this table.
        """
        searched = self._searched
        if not hashes.keys() <= searched:
            new = {name: h for name, h in hashes.items() if name not in searched}
            searched.update(new)
            if self._hash == DT_GNU_HASH:
                self._join(new)
            elif self._hash == DT_HASH:
                self._scan(new)
        return self._hits

    def _join(self, wanted: dict[bytes, int]) -> None:
        if self._chain is None:
            self._load_chain()
        assert self._chain is not None
        bits = {h | 1 for h in wanted.values()} | {h & 0xFFFFFFFE for h in wanted.values()}
        if len(self._chain) < 64 or len(bits) * 8 > len(self._chain):
            hits: Iterable[int] = compress(count(self._symoffset), map(bits.__contains__, self._chain))
        else:
            hits = compress(count(self._symoffset), map(bits.__contains__, self._chain))
        self._keep(hits, wanted)

    def _scan(self, wanted: dict[bytes, int]) -> None:
        # DT_HASH: chains start at the bucket and are linked; order within a chain is the order of lookup
        buckets, chains = self._words(self._tags()[DT_HASH], 2)
        if 4 * (buckets + chains) > self._elf.view.size or not buckets:
            return
        words = self._words(self._tags()[DT_HASH] + 8, buckets + chains)
        for name in wanted:
            index = words[sysv_hash(name) % buckets]
            found = []
            for _ in range(chains):
                if not index or index >= chains:
                    break
                if self.symbol(index).name == name:
                    found.append(index)
                index = words[buckets + index]
            if found:
                self._hits[name] = tuple(found)

    def _keep(self, hits: Iterable[int], wanted: dict[bytes, int]) -> None:
        names, data, size, u32 = self.names, self.data, self._elf.layout.sym.size, self._elf.layout.u32
        kept = self._hits
        for index in hits:
            (offset,) = u32.unpack_from(data, index * size)
            end = names.find(b"\0", offset)
            name = names[offset:end]
            if name in wanted:
                kept[name] = (*kept.get(name, ()), index)

    # -- the TLS symbols -----------------------------------------------------------------------------------------

    def tls(self) -> list[TlsSymbol]:
        """Return the defined and undefined STT_TLS symbols of the dynamic table."""
        try:
            return tls_symbols(self._elf, self.data, self.name_at, len(self.names))
        except ElfError:
            return []


_NATIVE = array("H", [1]).tobytes()[0]
_TLS_INFO = re.compile(rb"[\x06\x16\x26\x36\x46\x56\x66\x76\x86\x96\xa6\xb6\xc6\xd6\xe6\xf6]")
_FILE_INFO = re.compile(rb"\x04")
assert STT_TLS == 6 and STT_FILE == 4  # noqa: PT018 -- what the two patterns above spell


def tls_symbols(elf: Elf, data: bytes, name_at: object, names_size: int) -> list[TlsSymbol]:
    """Return the STT_TLS symbols of a raw table with the file symbol before each.

    `name_at(offset) -> bytes` cuts a name. Names past a bound of 16 string tables are cut to nothing.
    """
    lay = elf.layout
    step = lay.sym.size
    column = data[4::step] if lay.is64 else data[12::step]
    places = [m.start() for m in _TLS_INFO.finditer(column)]
    if not places:
        return []
    files = [m.start() for m in _FILE_INFO.finditer(column)]
    from bisect import bisect_left

    budget = _NAME_BUDGET * names_size + 65536
    units: dict[int, str] = {}
    result = []
    for index in places:
        row = lay.sym.unpack_from(data, index * step)
        if lay.is64:
            name, info, other, shndx, value, size = row
        else:
            name, value, size, info, other, shndx = row
        raw = name_at(name) if budget > 0 else b""  # type: ignore[operator]
        budget -= len(raw)
        unit = None
        if info >> 4 == 0 and files:
            before = bisect_left(files, index) - 1
            if before >= 0:
                file_index = files[before]
                if file_index not in units:
                    (offset,) = lay.u32.unpack_from(data, file_index * step)
                    raw_unit = name_at(offset) if budget > 0 else b""  # type: ignore[operator]
                    budget -= len(raw_unit)
                    units[file_index] = raw_unit.decode("utf-8", "surrogateescape")
                unit = units[file_index]
        result.append(TlsSymbol(raw.decode("utf-8", "surrogateescape"), value, size, info >> 4, other & 3, shndx, unit, index))
    return result


class StaticSymbols:
    """`.symtab` (or a `.dynsym` section), for attribution: found through section headers, read in large pieces."""

    __slots__ = ("_elf", "_section", "_strings", "complete")

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._section = next((s for s in elf.sections if s.type == SHT_SYMTAB), None)
        self.complete = self._section is not None
        """Whether the file has a `.symtab` at all."""
        strings = elf.sections[self._section.link] if self._section and self._section.link < len(elf.sections) else None
        self._strings = strings

    def name_at(self, offset: int) -> bytes:
        """Return the name at `offset` of the linked string table, found in a growing window."""
        if self._strings is None or offset >= self._strings.size:
            return b""
        size = 128
        while True:
            window = self._elf.view.some(self._strings.offset + offset, min(size, self._strings.size - offset))
            end = window.find(b"\0")
            if end >= 0:
                return window[:end]
            if len(window) < size:
                return window
            size *= 8

    def tls(self) -> list[TlsSymbol]:
        """Return the STT_TLS symbols. Raises `OutOfBounds` when the table leaves the file."""
        section = self._section
        if section is None or section.entsize not in (0, self._elf.layout.sym.size):
            return []
        size = section.size - section.size % self._elf.layout.sym.size
        data = self._elf.view.read(section.offset, size)
        return tls_symbols(self._elf, data, self.name_at, self._strings.size if self._strings else 0)


def has_dynsym_section(elf: Elf) -> bool:
    """Whether section headers show a dynamic symbol table with bytes in the file."""
    return any(section.type == SHT_DYNSYM for section in elf.sections)
