"""Symbol tables in columns, and how the loader looks a name up in them.

A table of a million symbols stays bytes: what is wanted is found by strided slices and `re`, and names are cut last.
Lookup is a join: the hashes of all wanted names are held against the hash chains at once (DT_GNU_HASH), and of what
is found the symbols count that the loader's walk bucket by bucket would reach (glibc elf/dl-lookup.c, do_lookup_x).
"""

from __future__ import annotations

from _operator import mul
from itertools import compress, count

from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_REL,
    DT_RELA,
    DT_RELR,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERNEED,
    DT_VERSYM,
    SHN_ABS,
    SHN_UNDEF,
    SHT_SYMTAB,
    STB_LOCAL,
    STT_FILE,
    STT_TLS,
)
from dlwhy.elf.records import NATIVE_LITTLE, arrays
from dlwhy.errors import ElfError, OutOfBounds, TooLarge
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Literal

    from dlwhy.elf.file import Elf

COUNTING_TYPES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 10
"""STT_* that may be a definition: NOTYPE OBJECT FUNC COMMON TLS GNU_IFUNC (check_match)."""
_TABLES = (DT_STRTAB, DT_VERSYM, DT_VERNEED, DT_VERDEF, DT_HASH, DT_GNU_HASH, DT_RELA, DT_REL, DT_JMPREL, DT_RELR)
"""Tags of what linkers put behind a symbol table."""
_MOST_STEPS = 1 << 18
"""Words of chains that are looked at where they must be followed one by one."""
_NAME_BUDGET = 16
"""Total bytes of names cut from a table: at most this many times its string table (honest files stay below 2)."""
_NAME_SLACK = 1 << 16
_WIDE = 16 << 20
"""Bytes up to the next table that are read where no count is asked for."""
_LONG = 256
"""Names beyond this many bytes are cut once and kept, and hashed in parts: many symbols may share one of a megabyte."""
_ONE_BY_ONE = 8
"""Names up to which each is looked for along its own chain, instead of all of them in all chains."""
_ONE_IN = 24
"""So many symbols for each name: the same. The filter turns nearly all names away."""
_FEW = 64
"""Entries read one by one before the whole tables are: TLS relocations, say, want two or three of most libraries."""
_PIECE = 24 * 16 * 2048
"""Bytes of a `.symtab` read at a time: a multiple of both record sizes."""

_POWERS: dict[int, tuple[tuple[int, ...], int]] = {}
"""Length of a name -> (33 to the power of how many bytes follow, byte by byte; that of how many there are)."""


def gnu_hash(name: bytes) -> int:
    """Return the DT_GNU_HASH hash of a name (32 bits): h = 33 h + c from 5381 on, as a sum of products."""
    if len(name) > _LONG:
        h = 5381
        for start in range(0, len(name), _LONG):
            part = name[start : start + _LONG]
            factors, power = _POWERS.get(len(part)) or _powers(len(part))
            h = h * power + sum(map(mul, part, factors)) & 0xFFFFFFFF
        return h
    factors, power = _POWERS.get(len(name)) or _powers(len(name))
    whole: int = 5381 * power + sum(map(mul, name, factors)) & 0xFFFFFFFF
    return whole


def chain_words(hashes: dict[bytes, int]) -> frozenset[int]:
    """Return the words by which DT_GNU_HASH may have these names in its chains: the low bit tells the end of one."""
    values = set(hashes.values())
    return frozenset([h | 1 for h in values] + [h & 0xFFFFFFFE for h in values])


def _powers(length: int) -> tuple[tuple[int, ...], int]:
    power, factors = 1, [0] * length
    for place in range(length - 1, -1, -1):
        factors[place] = power
        power = power * 33 & 0xFFFFFFFF
    row = _POWERS[length] = tuple(factors), power
    return row


def sysv_hash(name: bytes) -> int:
    """Return the DT_HASH hash of a name, also used for version names (gABI ch. 5)."""
    h = 0
    for c in name:
        h = (h << 4) + c
        h = (h ^ (h & 0xF0000000) >> 24) & 0x0FFFFFFF
    return h


class Symbol(Record):
    """One symbol table entry; fields as in <elf.h>."""

    index: int  # type: ignore[assignment]  # not the method of tuples
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
    index: int  # type: ignore[assignment]  # not the method of tuples


class Columns(Record):
    """A table column by column."""

    names: Sequence[int]
    """st_name."""
    infos: bytes
    """st_info."""
    others: bytes
    """st_other."""
    sections: Sequence[int]
    """st_shndx."""
    values: Sequence[int]
    """st_value."""


class DynamicSymbols:
    """The dynamic symbol table as the loader sees it."""

    __slots__ = (
        "_bloom", "_buckets", "_budget", "_chain", "_chains_at", "_count", "_data", "_elf", "_ends", "_hash", "_heads",
        "_hits", "_kept", "_long", "_names", "_places", "_raw", "_searched", "_shift", "_singles", "_symoffset",
        "_table", "astray",
    )  # fmt: skip

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self._data: bytes | None = None
        self._raw: bytes | None = None
        self._table: bytes | None = None
        self._names: bytes | None = None
        self._kept: tuple[int, list[bytes], bytes] | Literal[False] | None = False
        self._places: dict[bytes, int] | None = None
        self._singles = 0
        self._long: dict[int, bytes] = {}
        self._budget: int | None = None
        self._count = -1
        self._chain: Sequence[int] | None = None
        self._buckets: Sequence[int] = ()
        self._bloom: Sequence[int] = ()
        self._shift = 0
        self._symoffset = 0
        self._chains_at = 0
        """Address of the chains where some bucket leads to before them, which no linker writes; else 0."""
        self.astray: ElfError | None = None
        """Why the walk along a chain leaves the file, once one does: its places end with -1."""
        self._ends: dict[int, int] = {}
        """Bucket of DT_GNU_HASH -> the last symbol of its chain, of those that were looked into."""
        self._heads: dict[int, dict[bytes, list[int]]] = {}
        self._hits: dict[bytes, tuple[int, ...]] = {}
        self._searched: set[bytes] = set()
        tags = elf.dynamic.tags if elf.dynamic else {}
        self._hash = DT_GNU_HASH if DT_GNU_HASH in tags else DT_HASH if DT_HASH in tags else 0

    # -- names that a captured file keeps without their hash table -----------------------------------------------

    def _listed(self) -> tuple[int, list[bytes], bytes] | None:
        """As `View.listed` has them."""
        if self._kept is False:
            self._kept = self._elf.view.listed()
        return self._kept

    def _in_list(self, first: int, names: list[bytes], wanted: Iterable[bytes]) -> dict[bytes, tuple[int, ...]]:
        """Return name -> indexes of the symbols in a sorted list, for those that are in it."""
        found = {}
        size = len(names)
        places = self._places
        if places is None:
            places = self._places = dict(zip(reversed(names), range(size - 1, -1, -1), strict=True))
        for name in filter(places.__contains__, wanted):
            at = end = places[name]
            while end < size and names[end] == name:
                end += 1
            found[name] = tuple(range(first + at, first + end))
        return found

    # -- size and raw bytes --------------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """How many symbols the hash table reaches; without one that tells, as many as fit before the next table.

        GNU ld's and lld's DT_GNU_HASH of an object that exports nothing does not tell.

        Raises `ElfError` where the hash table leaves the file.
        """
        if self._count < 0:
            self._count = self._find_count()
        return self._count

    def _tags(self) -> dict[int, int]:
        return self._elf.dynamic.tags if self._elf.dynamic else {}

    def _find_count(self) -> int:
        elf, tags = self._elf, self._tags()
        if DT_SYMTAB not in tags:
            return 0
        listed = self._listed()
        if listed is not None:
            return listed[0] + len(listed[1])
        limit = elf.view.size // elf.layout.sym.size
        if DT_HASH in tags:
            try:
                return min(self._hash_words(tags[DT_HASH], 2)[1], limit)
            except ElfError:
                if self._hash == DT_HASH:  # with DT_GNU_HASH beside it the loader never looks at this one
                    raise
        if self._hash == DT_GNU_HASH:
            chain = self._load_chain()
            if chain:
                return min(self._symoffset + len(chain), limit)
        return min(self._gap() // elf.layout.sym.size, limit)

    def _gap(self) -> int:
        """Bytes from DT_SYMTAB to the next table."""
        tags = self._tags()
        start = tags[DT_SYMTAB]
        return min((tags[tag] for tag in _TABLES if tags.get(tag, 0) > start), default=start) - start

    def lacks(self, name: int) -> bool:
        """Return whether an undefined symbol has this st_name; the table is searched raw, and no hash table is read.

        Raises `ElfError` when the table leaves the file.
        """
        tags, sym, layout = self._tags(), self._elf.layout.sym, self._elf.layout
        if self._raw is None:
            gap = self._gap() if self._data is None and DT_SYMTAB in tags and self._listed() is None else 0
            self._raw = self._elf.around(tags[DT_SYMTAB], gap) if 0 < gap <= _WIDE else self.data
        word, raw = layout.u32.pack(name), self._raw
        at = raw.find(word, sym.size)
        while 0 <= at <= len(raw) - sym.size:
            if at % sym.size == 0 and self._ordered(sym.unpack_from(raw, at))[5] == SHN_UNDEF:
                return True
            at = raw.find(word, (at // sym.size + 1) * sym.size)
        return False

    def _words(self, vaddr: int, number: int) -> array[int]:
        return self._array(self._elf.at(vaddr, 4 * number))

    def _array(self, data: bytes, code: str = "I") -> array[int]:
        words = arrays()(code, data)
        if (self._elf.data == 1) != NATIVE_LITTLE:
            words.byteswap()
        return words

    def _load_chain(self) -> Sequence[int]:
        # DT_GNU_HASH: nbuckets symoffset bloom_size bloom_shift, bloom words, buckets, chain
        if self._chain is not None:
            return self._chain
        elf = self._elf
        word = elf.layout.word_size
        vaddr = self._tags()[DT_GNU_HASH]
        nbuckets, self._symoffset, bloom_size, self._shift = self._words(vaddr, 4)
        filter_size = bloom_size * word
        if not nbuckets:  # an object without buckets is passed over (elf/dl-lookup.c, do_lookup_x)
            self._chain = ()
            return self._chain
        if filter_size + 4 * nbuckets > elf.view.size:
            counts = f"{nbuckets} buckets and {bloom_size} filter words"
            raise elf.unmapped(vaddr + 16, filter_size + 4 * nbuckets, f"DT_GNU_HASH with {counts} leaves the file")
        data = elf.at(vaddr + 16, filter_size + 4 * nbuckets)
        self._bloom = self._array(data[:filter_size], elf.layout.word_code)
        self._buckets = buckets = self._array(data[filter_size:])
        chains_at = vaddr + 16 + len(data)
        top = max(buckets)
        if not top:
            self._chain = ()
        elif min(filter(None, buckets)) < self._symoffset:
            self._chain, self._chains_at = (), chains_at
        else:
            self._chain = self._read_chain(chains_at, top - self._symoffset)
        return self._chain

    def _read_chain(self, vaddr: int, known: int) -> array[int]:
        """Return the chain words up to the end of the last chain, which starts at `known`: its low bit is set."""
        elf = self._elf
        if 4 * known > elf.view.size:
            raise TooLarge(elf.path, -1, f"a bucket of DT_GNU_HASH points {known} symbols behind the first one")
        last = 0 if elf.little else 3
        size = 1024
        while True:
            data = elf.around(vaddr, 4 * known + size)
            end = data[last::4].translate(_ODD).find(1, known)
            if end >= 0:
                return self._array(data[: 4 * end + 4])
            if len(data) < 4 * known + size:
                raise TooLarge(elf.path, -1, "the last chain of DT_GNU_HASH has no end in the file")
            size *= 8

    @property
    def hashed(self) -> tuple[int, int]:
        """(first, end) of the symbols that DT_GNU_HASH leads to; (0, 0) with another table, or a crooked one.

        Raises `ElfError` where the table leaves the file.
        """
        listed = self._listed()
        if listed is not None:
            return listed[0], self.count
        if self._hash != DT_GNU_HASH or not self._load_chain() or self._chains_at:
            return 0, 0
        return self._symoffset, min(self._symoffset + len(self._load_chain()), self.count)

    def hashed_as(self, words: frozenset[int], names: Callable[[], Iterable[bytes]]) -> list[int]:
        """Return which of the `hashed` symbols have one of these words, as `chain_words` makes them, in their chain.

        `names` returns the names that the words were made of. Raises `ElfError` where the table leaves the file.
        """
        listed = self._listed()
        if listed is not None:
            return sorted(index for places in self._in_list(*listed[:2], names()).values() for index in places)
        first, end = self.hashed
        return list(compress(range(first, end), map(words.__contains__, self._load_chain()))) if end > first else []

    def reached(self, places: Iterable[tuple[int, int]]) -> set[int]:
        """Return which of these `hashed` symbols, (index, `gnu_hash` of its name), a lookup by their name comes to.

        Raises `ElfError` where the table leaves the file.
        """
        if self._listed() is not None:
            return {index for index, _ in places}
        chain, first, buckets, bloom = self._load_chain(), self._symoffset, self._buckets, self._bloom
        number, mask, bits, shift = len(buckets), len(bloom) - 1, 8 * self._elf.layout.word_size, self._shift & 31
        ends, last_of = self._ends, self._last_of
        found = set()
        for index, h in places:
            if (chain[index - first] ^ h) > 1:
                continue
            if mask < 0:
                self._passes(h)  # raises
            word = bloom[h // bits & mask]
            if word >> h % bits & word >> (h >> shift) % bits & 1:
                bucket = h % number
                start = buckets[bucket]
                if start and start <= index <= (ends.get(bucket) or last_of(bucket)):
                    found.add(index)
        return found

    @property
    def data(self) -> bytes:
        """The raw table, `count` entries. Raises `ElfError`."""
        if self._data is None:
            size = self.count * self._elf.layout.sym.size
            self._data = self._elf.at(self._tags()[DT_SYMTAB], size) if size else b""
        return self._data

    @property
    def names(self) -> bytes:
        """DT_STRTAB, as long as DT_STRSZ says and the file allows."""
        if self._names is None:
            listed = self._listed()
            if listed is not None:
                self._names = listed[2]
                return self._names
            tags = self._tags()
            self._names = self._elf.around(tags[DT_STRTAB], tags.get(DT_STRSZ, 0)) if DT_STRTAB in tags else b""
        return self._names

    def name_at(self, offset: int) -> bytes:
        """Return the name at `offset` of the string table, like the loader without regard to DT_STRSZ.

        Raises `ElfError` where it has no end, `TooLarge` where long names overlap beyond any honest total.
        """
        if offset in self._long:
            return self._long[offset]
        names = self.names
        end = names.find(b"\0", offset)
        if end < 0:
            dynamic = self._elf.dynamic
            return dynamic.raw_string(offset) if dynamic else b""
        name = names[offset:end]
        if len(name) > _LONG:
            if self._budget is None:
                self._budget = _NAME_BUDGET * len(names) + _NAME_SLACK
            self._budget -= len(name)
            if self._budget < 0:
                raise TooLarge(self._elf.path, -1, f"names of DT_STRTAB overlap to more than {_NAME_BUDGET} times it")
            self._long[offset] = name
        return name

    def _row(self, index: int) -> tuple[int, ...]:
        """One entry as it stands; an index behind the hashed part too, as the loader reads it all the same."""
        sym = self._elf.layout.sym
        if self._table is None:
            try:
                self._table = self.data
            except ElfError:  # then entry by entry: what the loader never touches does not matter
                self._table = b""
        if (index + 1) * sym.size <= len(self._table):
            return sym.unpack_from(self._table, index * sym.size)
        return self._at(index)

    def _at(self, index: int) -> tuple[int, ...]:
        """One entry, read by itself."""
        sym, tags = self._elf.layout.sym, self._tags()
        if DT_SYMTAB not in tags:
            raise ElfError(self._elf.path, -1, f"symbol {index} wanted, but there is no DT_SYMTAB")
        return sym.unpack(self._elf.at(tags[DT_SYMTAB] + index * sym.size, sym.size))

    def symbol(self, index: int) -> Symbol:
        """Return one entry; the first few cost no look at the rest of the tables.

        Raises `ElfError` when the file has nothing at its place.
        """
        dynamic = self._elf.dynamic
        self._singles += 1
        few = self._table is None and self._names is None and self._singles <= _FEW
        if few and dynamic is not None and self._listed() is None:
            name, value, size, info, other, shndx = self._ordered(self._at(index))
            return Symbol(index, dynamic.raw_string(name), value, size, info, other, shndx)
        name, value, size, info, other, shndx = self.fields(index)
        return Symbol(index, self.name_at(name), value, size, info, other, shndx)

    def fields(self, index: int) -> tuple[int, ...]:
        """Return (st_name, st_value, st_size, st_info, st_other, st_shndx), the name uncut. Raises `ElfError`."""
        return self._ordered(self._row(index))

    @property
    def columns(self) -> Columns | None:
        """The table column by column; None for one that is not of this machine's own width and byte order.

        Raises `ElfError` where the table leaves the file.
        """
        elf = self._elf
        if not elf.layout.is64 or elf.little != NATIVE_LITTLE:
            return None
        data, array = self.data, arrays()
        return Columns(
            array("I", data)[::6], data[4::24], data[5::24], array("H", data)[3::12], array("Q", data)[1::3]
        )  # fmt: skip

    def rows(self, indexes: Sequence[int]) -> Columns | None:
        """The columns of some symbols only, all below `count`; otherwise as `columns`."""
        elf = self._elf
        if not elf.layout.is64 or elf.little != NATIVE_LITTLE:
            return None
        data, unpack, size = self.data, elf.layout.sym.unpack_from, elf.layout.sym.size
        found = [unpack(data, size * index) for index in indexes]
        names, infos, others, sections, values, _ = zip(*found, strict=True) if found else [()] * 6
        return Columns(names, bytes(infos), bytes(others), sections, values)

    def _ordered(self, row: tuple[int, ...]) -> tuple[int, ...]:
        if self._elf.layout.is64:
            name, info, other, shndx, value, size = row
            return name, value, size, info, other, shndx
        return row

    # -- lookup --------------------------------------------------------------------------------------------------

    def look_up(self, hashes: dict[bytes, int], words: frozenset[int] | None = None) -> dict[bytes, tuple[int, ...]]:
        """Return name -> symbol indexes in chain order, for every name of `hashes` that the hash table reaches.

        `hashes` is name -> `gnu_hash(name)`, and `words` what `chain_words` makes of them, for those who ask many
        tables. A last index of -1 says that the walk for this name goes on to what `astray` tells. Raises `ElfError`
        where the table leaves the file.
        """
        listed = self._listed()
        if listed is not None:
            return self._in_list(*listed[:2], hashes)
        if self._hash == DT_GNU_HASH:
            return self._join(hashes, words)
        searched = self._searched
        if self._hash == DT_HASH and not hashes.keys() <= searched:
            new = [name for name in hashes if name not in searched]
            self._walk(new)
            searched.update(new)
        hits = self._hits
        return {name: hits[name] for name in hits.keys() & hashes.keys()}

    def _join(self, wanted: dict[bytes, int], words: frozenset[int] | None) -> dict[bytes, tuple[int, ...]]:
        chain = self._load_chain()
        if self._chains_at:
            return self._follow(wanted)
        found: dict[bytes, list[int]] = {}
        if len(wanted) <= max(_ONE_BY_ONE, len(chain) // _ONE_IN):
            for name, h in wanted.items():
                for index in self._along(h) if chain else ():
                    if (chain[index - self._symoffset] ^ h) < 2 and self._name_of(index) == name:
                        found.setdefault(name, []).append(index)
            return {name: tuple(places) for name, places in found.items()}
        words = words if words is not None else chain_words(wanted)
        for index in compress(count(self._symoffset), map(words.__contains__, chain)):
            name = self._name_of(index)
            found_hash = wanted.get(name)
            if found_hash is not None and self._reaches(found_hash, index):
                found.setdefault(name, []).append(index)
        return {name: tuple(places) for name, places in found.items()}

    def _name_of(self, index: int) -> bytes:
        """The name of a symbol that a walk comes to; b"" of one that cannot count and whose name cannot be read.

        The loader reads the name last of all (elf/dl-lookup.c, check_match). Raises `ElfError`.
        """
        try:
            return self.name_at(self._row(index)[0])
        except ElfError:
            _, value, _, info, _, shndx = self.fields(index)
            counts = COUNTING_TYPES >> (info & 15) & 1 and (value or shndx == SHN_ABS or info & 15 == STT_TLS)
            if counts:
                raise
            return b""

    def _along(self, h: int) -> range:
        """The symbols that the walk for a hash passes by."""
        if not self._passes(h):
            return range(0)
        bucket = h % len(self._buckets)
        start = self._buckets[bucket]
        return range(start, (self._ends.get(bucket) or self._last_of(bucket)) + 1) if start else range(0)

    def _follow(self, wanted: dict[bytes, int]) -> dict[bytes, tuple[int, ...]]:
        """Walk along the chain of each name by itself, word by word, wherever it leads."""
        left = _MOST_STEPS
        hits: dict[bytes, tuple[int, ...]] = {}
        for name, h in wanted.items():
            places: list[int] = []
            try:
                index = self._buckets[h % len(self._buckets)] if self._passes(h) else 0
                while index:
                    (word,) = self._words(self._chains_at + 4 * (index - self._symoffset), 1)
                    if (word ^ h) < 2 and self._name_of(index) == name:
                        places.append(index)
                    if word & 1:
                        break
                    index += 1
                    left -= 1
                    if left < 0:
                        raise TooLarge(self._elf.path, -1, f"chains of DT_GNU_HASH go on for {_MOST_STEPS} words")
            except ElfError as error:
                self.astray = self.astray or error
                places.append(-1)
            if places:
                hits[name] = tuple(places)
        return hits

    def _passes(self, h: int) -> bool:
        """Whether the filter lets this hash through."""
        bloom, bits = self._bloom, 8 * self._elf.layout.word_size
        if not bloom:
            raise self._elf.unmapped(0, 1 << 29, "DT_GNU_HASH has a filter of no words")
        word = bloom[h // bits & len(bloom) - 1]
        return bool(word >> (h % bits) & word >> ((h >> (self._shift & 31)) % bits) & 1)

    def _reaches(self, h: int, index: int) -> bool:
        """Whether the loader's walk for this hash comes to this symbol: past the filter, and along its bucket."""
        if not self._passes(h):
            return False
        bucket = h % len(self._buckets)
        start = self._buckets[bucket]
        if not start or start > index:
            return False
        return index <= (self._ends.get(bucket) or self._last_of(bucket))

    def _last_of(self, bucket: int) -> int:
        """The last symbol of a bucket's chain."""
        assert self._chain is not None
        last = max(self._buckets[bucket], self._symoffset)
        while not self._chain[last - self._symoffset] & 1:
            last += 1
        self._ends[bucket] = last
        return last

    def _walk(self, wanted: Iterable[bytes]) -> None:
        # DT_HASH: nbucket nchain, buckets, chains; the order along a chain is the order of lookup
        table = self._tags()[DT_HASH]
        buckets, chains = self._hash_words(table, 2)
        if not buckets:
            return
        words = self._hash_words(table, 2 + buckets + chains)[2:]
        left = 2 * len(words)
        for name in wanted:
            place = sysv_hash(name) % buckets
            index = words[place] if place < len(words) else self._hash_word(table, place)
            if index not in self._heads:
                self._heads[index] = self._chain_from(index, table, buckets, words)
                left -= sum(map(len, self._heads[index].values()))
                if left < 0:
                    raise TooLarge(self._elf.path, -1, "chains of DT_HASH share their symbols")
            if name in self._heads[index]:
                self._hits[name] = tuple(self._heads[index][name])

    def _hash_words(self, vaddr: int, number: int) -> array[int]:
        """Up to `number` words of DT_HASH, two at least. Raises `ElfError`."""
        elf = self._elf
        size = elf.row.hash_word if elf.row is not None else 4
        data = elf.around(vaddr, size * min(number, elf.view.size // size + 2))
        if len(data) < 2 * size:
            data = elf.at(vaddr, 2 * size)
        return self._array(data[: len(data) - len(data) % size], "Q" if size == 8 else "I")

    def _hash_word(self, vaddr: int, place: int) -> int:
        """One word of DT_HASH wherever it lies: the loader looks at no count. Raises `ElfError`."""
        size = self._elf.row.hash_word if self._elf.row is not None else 4
        (word,) = self._array(self._elf.at(vaddr + size * (2 + place), size), "Q" if size == 8 else "I")
        return word

    def _chain_from(self, index: int, table: int, buckets: int, words: array[int]) -> dict[bytes, list[int]]:
        """Return name -> indexes of one chain of DT_HASH, which ends at index 0 (STN_UNDEF)."""
        found: dict[bytes, list[int]] = {}
        seen: set[int] = set()
        while index:
            if index in seen:
                raise TooLarge(self._elf.path, -1, "a chain of DT_HASH has no end, so a search in it may have none")
            seen.add(index)
            found.setdefault(self._name_of(index), []).append(index)
            place = buckets + index
            index = words[place] if place < len(words) else self._hash_word(table, place)
        return found

    # -- the TLS symbols -----------------------------------------------------------------------------------------

    def tls(self) -> list[TlsSymbol]:
        """Return the defined and undefined STT_TLS symbols of the dynamic table."""
        try:
            return tls_symbols(self._elf, ((0, self.data),), self.name_at, len(self.names))
        except ElfError:
            return []


_ODD = b"\0\1" * 128
_TLS_INFO = (b"\0" * STT_TLS + b"\1" + b"\0" * (15 - STT_TLS)) * 16
"""Tables for `translate`: what is looked for becomes 1, all else 0. The type is the low half of st_info."""
_FILE_INFO = bytes([STT_FILE])


def tls_symbols(
    elf: Elf, pieces: Iterable[tuple[int, bytes | bytearray]], name_at: Callable[[int], bytes], names_size: int
) -> list[TlsSymbol]:
    """Return the STT_TLS symbols of a raw table with the file symbol before each.

    `pieces` are (index of the first symbol, bytes), in order; `name_at` cuts a name. Names past a bound of 16 string
    tables are cut to nothing.
    """
    lay = elf.layout
    step = lay.sym.size
    info_at = 4 if lay.is64 else 12
    budget = _NAME_BUDGET * names_size + _NAME_SLACK

    def cut(offset: int) -> str:
        nonlocal budget
        raw = name_at(offset) if budget > 0 else b""
        budget -= len(raw)
        return raw.decode("utf-8", "surrogateescape")

    units: dict[int, str] = {}
    unit_at: int | None = None
    result = []
    for first, data in pieces:
        column = data[info_at::step]
        done = 0
        marks = column.translate(_TLS_INFO)
        at = -1
        while (at := marks.find(1, at + 1)) >= 0:
            row = lay.sym.unpack_from(data, at * step)
            if lay.is64:
                name, info, other, shndx, value, size = row
            else:
                name, value, size, info, other, shndx = row
            file_at = column.rfind(_FILE_INFO, done, at)
            if file_at >= 0:
                (unit_at,) = lay.u32.unpack_from(data, file_at * step)
            done = at
            unit = None
            if info >> 4 == STB_LOCAL and unit_at is not None:
                if unit_at not in units:
                    units[unit_at] = cut(unit_at)
                unit = units[unit_at]
            result.append(TlsSymbol(cut(name), value, size, info >> 4, other & 3, shndx, unit, first + at))
        file_at = column.rfind(_FILE_INFO, done)
        if file_at >= 0:
            (unit_at,) = lay.u32.unpack_from(data, file_at * step)
    return result


class StaticSymbols:
    """`.symtab` (or a `.dynsym` section), for attribution: found through section headers, read in large pieces."""

    __slots__ = ("_elf", "_section", "_strings", "complete", "info_at", "step")

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        self.step = elf.layout.sym.size
        """Bytes of one symbol."""
        self.info_at = 4 if elf.layout.is64 else 12
        """Where st_info stands in it."""
        found = elf.section_of_type(SHT_SYMTAB)
        self._section = found[0] if found is not None else None
        self._strings = found[1] if found is not None else None
        self.complete = self._section is not None
        """Whether the file has a `.symtab` at all."""

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

    def row(self, index: int) -> tuple[int, int, int, int, int]:
        """Return (st_name, st_info, st_shndx, st_value, st_size) of a symbol. Raises `ElfError` when there is none."""
        section, lay = self._section, self._elf.layout
        step = lay.sym.size
        if section is None or not 0 <= index < section.size // step:
            raise ElfError(self._elf.path, -1, f".symtab has no symbol number {index}")
        row = lay.sym.unpack(self._elf.view.read(section.offset + index * step, step))
        if lay.is64:
            name, info, _, shndx, value, size = row
        else:
            name, value, size, info, _, shndx = row
        return name, info, shndx, value, size

    def tls(self) -> list[TlsSymbol]:
        """Return the STT_TLS symbols. Raises `OutOfBounds` when the table leaves the file."""
        section = self._section
        if section is None or section.entsize not in (0, self._elf.layout.sym.size):
            return []
        names_size = min(self._strings.size, self._elf.view.size) if self._strings else 0
        return tls_symbols(self._elf, self._pieces(section.offset, section.size), self.name_at, names_size)

    def pieces(self) -> Iterator[tuple[int, bytearray]]:
        """Yield (index of the first symbol, bytes) piece by piece; a piece is void when the next one is asked for.

        Raises `OutOfBounds` when the table leaves the file.
        """
        section = self._section
        if section is None or section.entsize not in (0, self._elf.layout.sym.size):
            return iter(())
        return self._pieces(section.offset, section.size)

    def _pieces(self, offset: int, size: int) -> Iterator[tuple[int, bytearray]]:
        """The table piece by piece, all through one buffer: that of a compiler's own library has many megabytes."""
        view, step = self._elf.view, self._elf.layout.sym.size
        size -= size % step
        if offset + size > view.size:
            raise OutOfBounds(view.path, offset, f"a .symtab of {size} bytes, but the file ends at {view.size:#x}")
        buffer = bytearray(min(_PIECE, size))
        for done in range(0, size, _PIECE):
            del buffer[size - done :]
            view.read_into(buffer, offset + done)
            yield done // step, buffer
