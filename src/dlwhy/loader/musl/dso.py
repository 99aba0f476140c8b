"""Dso: one object as musl keeps it (ldso/dynlink.c, struct dso), and how a name is looked up in it.

The tables are read in memory, where the dynamic section says that they are, with no look at their sizes.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_NEEDED,
    DT_RPATH,
    DT_RUNPATH,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERSYM,
    STT_TLS,
)
from dlwhy.elf.symbols import gnu_hash, sysv_hash
from dlwhy.loader.faults import Death, Unknown
from dlwhy.loader.link_map import LinkMap
from dlwhy.loader.musl.memory import SIGFPE, SIGSEGV, signed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.musl.mapping import Mapped
    from dlwhy.loader.musl.memory import Memory

_MOST_TAGS = 1 << 16
_MOST_NEEDED = 4096
_MOST_STEPS = 1 << 18
"""Words of chains that are looked at in one search, and 16 times as many in all searches of one object."""
_TYPES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6
"""NOTYPE OBJECT FUNC COMMON TLS: what can be a definition (OK_TYPES); an indirect function is none."""
_BINDS = 1 << 1 | 1 << 2 | 1 << 10
"""GLOBAL WEAK GNU_UNIQUE (OK_BINDS)."""
Symbol = tuple[int, int, int, int, int, int]
"""(index, st_name, st_info, st_shndx, st_value, st_size)."""


class Tables:
    """What decode_dyn takes out of a dynamic section."""

    __slots__ = ("_entries", "_found", "_gnu", "_memory", "_steps", "_symbols", "ghash", "hash", "rpath", "strings",
                 "syms", "tags", "versym")  # fmt: skip

    def __init__(self, memory: Memory, dyn: int, count: int) -> None:
        """Read the dynamic section. `count` is how many tags are kept (DYN_CNT). Raises `Death`, `Unknown`."""
        self._memory = memory
        self._entries: list[tuple[int, int]] = []
        for place in range(_MOST_TAGS):
            tag = memory.u64(dyn + 16 * place)
            if not tag:
                break
            self._entries.append((tag, memory.u64(dyn + 16 * place + 8)))
        else:
            raise Unknown(f"what stands behind {_MOST_TAGS} entries of the dynamic section of {memory.path}", "map")
        self.tags = {tag: value for tag, value in self._entries if tag < count}
        self.syms = self.tags.get(DT_SYMTAB, 0)
        self.strings = self.tags.get(DT_STRTAB, 0)
        self.hash = self.tags.get(DT_HASH)
        rpath = self.tags.get(DT_RUNPATH, self.tags.get(DT_RPATH))
        self.rpath = None if rpath is None else self.strings + rpath
        """Address of the search path; RUNPATH stands in for RPATH."""
        self.ghash = self.first(DT_GNU_HASH)
        self.versym = self.first(DT_VERSYM)
        self._gnu: tuple[int, int, int, int] | None = None
        self._steps = 0
        self._found: dict[bytes, Symbol | None] = {}
        self._symbols: dict[int, Symbol] = {}

    def first(self, wanted: int) -> int | None:
        """Return the value of the first entry of a tag (search_vec)."""
        return next((value for tag, value in self._entries if tag == wanted), None)

    def needed(self) -> list[bytes]:
        """Return every DT_NEEDED in order. Raises `Death`, `Unknown`."""
        places = [self.strings + value for tag, value in self._entries if tag == DT_NEEDED]
        if len(places) > _MOST_NEEDED:
            raise Unknown(f"what {self._memory.path} is, which needs {len(places)} files", "depend")
        return [self._memory.text(place) for place in places]

    def symbol(self, index: int) -> Symbol:
        """Return the symbol of an index, which may be negative. Raises `Death`, `Unknown`."""
        found = self._symbols.get(index)
        if found is None:
            raw = self._memory.read(self.syms + 24 * index, 24)
            number = int.from_bytes
            found = self._symbols[index] = (
                index, number(raw[:4], "little"), raw[4], number(raw[6:8], "little"), number(raw[8:16], "little"),
                number(raw[16:], "little"),
            )  # fmt: skip
        return found

    def name(self, symbol: Symbol) -> bytes:
        """Return the name of a symbol. Raises `Death`, `Unknown`."""
        return self._memory.text(self.strings + symbol[1])

    def look_up(self, name: bytes) -> Symbol | None:
        """Return what the hash table leads to, whatever it is worth. Raises `Death`, `Unknown`."""
        if name not in self._found:
            self._found[name] = self._gnu_lookup(name) if self.ghash is not None else self._sysv_lookup(name)
        return self._found[name]

    def _is(self, index: int, name: bytes) -> bool:
        if self.versym is not None and self._memory.u16(self.versym + 2 * index) & 0x8000:
            return False
        return self._same(self.strings + self.symbol(index)[1], name)

    def _same(self, at: int, name: bytes) -> bool:
        """strcmp: no byte is read behind the first that differs."""
        memory = self._memory
        at = signed(at)
        done, whole = 0, name + b"\0"
        while done < len(whole):
            start, data = memory.window(at + done)
            part = data[at + done - start : at + len(whole) - start]
            if not whole.startswith(part, done):
                return False
            done += len(part)
        return True

    def _gnu_lookup(self, name: bytes) -> Symbol | None:
        memory, table = self._memory, self.ghash
        assert table is not None
        value = gnu_hash(name)
        if self._gnu is None:
            raw = memory.read(table, 16)
            self._gnu = tuple(int.from_bytes(raw[at : at + 4], "little") for at in (0, 4, 8, 12))  # type: ignore[assignment]
        buckets_count, offset, words, shift = self._gnu  # type: ignore[misc]
        word = memory.u64(table + 16 + 8 * (value // 64 & (words - 1) & 0xFFFFFFFF))
        if not word >> value % 64 & 1 or not word >> (value >> (shift & 31)) % 64 & 1:
            return None
        if not buckets_count:
            raise memory.killed(SIGFPE, "the loader divides by the number of buckets of DT_GNU_HASH, 0")
        buckets = table + 16 + 8 * words
        index = memory.u32(buckets + 4 * (value % buckets_count))
        if not index:
            return None
        chain = buckets + 4 * buckets_count + 4 * ((index - offset) & 0xFFFFFFFF)
        for _ in range(_MOST_STEPS):
            self._steps += 1
            if self._steps > 16 * _MOST_STEPS:
                break
            here = memory.u32(chain)
            if (here ^ value) >> 1 == 0 and self._is(index, name):
                return self.symbol(index)
            if here & 1:
                return None
            chain += 4
            index = (index + 1) & 0xFFFFFFFF
        raise Unknown(f"where a chain of DT_GNU_HASH of {memory.path} ends", memory.stage)

    def _sysv_lookup(self, name: bytes) -> Symbol | None:
        memory, table = self._memory, self.hash
        if table is None:
            raise memory.killed(SIGSEGV, "it has no hash table, and the loader reads one through a null pointer")
        value = sysv_hash(name)
        count = memory.u32(table)
        if not count:
            raise memory.killed(SIGFPE, "the loader divides by the number of buckets of DT_HASH, 0")
        index = memory.u32(table + 4 * (2 + value % count))
        seen = set()
        while index:
            self._steps += 1
            if self._steps > 16 * _MOST_STEPS:
                raise Unknown(f"where the chains of DT_HASH of {memory.path} end", memory.stage)
            if self._is(index, name):
                return self.symbol(index)
            if index in seen:
                raise Unknown(f"what ends the search in DT_HASH of {memory.path}, whose chain leads back", memory.stage)
            seen.add(index)
            index = memory.u32(table + 4 * (2 + self._first_word() + index))
        return None

    def _first_word(self) -> int:
        assert self.hash is not None
        return self._memory.u32(self.hash)


def counts(symbol: Symbol | None, need_definition: bool) -> bool:
    """Whether what a hash table leads to is a definition (find_sym2)."""
    if symbol is None:
        return False
    _, _, info, section, value, _ = symbol
    kind = info & 15
    if not section and (need_definition or kind == STT_TLS):
        return False
    if not value and kind != STT_TLS:
        return False
    return bool(_TYPES >> kind & 1 and _BINDS >> (info >> 4) & 1)


class Dso(LinkMap):
    """One loaded object. `name` is "" for the program, whose path is `program_name`."""

    __slots__ = ("_needed", "bfs_built", "deferred", "deps", "direct", "globally", "mapped", "memory", "rpath",
                 "shortname", "tables", "tls_id")  # fmt: skip

    def __init__(self, name: str, elf: Elf | None, type_: str, needed_by: Dso | None) -> None:
        super().__init__(name, name, None, type_, needed_by)
        self.elf = elf
        self.memory: Memory | None = None
        self.mapped: Mapped | None = None
        self.tables: Tables | None = None
        self.tls_id = 0
        self.shortname: str | None = None
        """The name by which a search found it; None for what was only ever named by a path."""
        self.rpath: str | None = None
        """The search path once its tokens are filled in."""
        self.deps: list[Dso] | None = None
        """What it needs, and what that needs in turn, breadth-first; the direct needs only until it is opened."""
        self.direct = 0
        self.bfs_built = False
        self.globally = False
        """Whether its symbols are in the global list."""
        self.deferred: list[tuple[int, int, int]] | None = None
        """(address, type, symbol index) of functions that nothing defined when it was opened lazily; None: none may."""
        self._needed: tuple[str, ...] | None = None

    @property
    def needed_names(self) -> tuple[str, ...] | None:  # type: ignore[override]
        """What it needs, as it is written there; nothing for the loader itself, which is libc."""
        if self._needed is None:
            try:
                raw = self.tables.needed() if self.tables is not None and self.type != "ldso" else []
            except (Death, Unknown):
                raw = []
            self._needed = tuple(name.decode("utf-8", "surrogateescape") for name in raw)
        return self._needed

    def find(self, name: bytes, need_definition: bool) -> Symbol | None:
        """Return the definition of a name that this object has. Raises `Death`, `Unknown`."""
        if self.tables is None:  # the program `plain`, of which nothing is there to be found
            return None
        symbol = self.tables.look_up(name)
        return symbol if counts(symbol, need_definition) else None
