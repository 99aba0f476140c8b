"""Dynamic: the dynamic section as the loader reads it (gABI ch. 5; glibc elf/get-dynamic-info.h).

Read from the PT_DYNAMIC address up to the first DT_NULL, whatever p_filesz says; of a tag that stands twice the last
one counts, except DT_NEEDED, DT_AUXILIARY and DT_FILTER, which are lists.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DF_1_NOW,
    DF_BIND_NOW,
    DF_SYMBOLIC,
    DT_AUXILIARY,
    DT_BIND_NOW,
    DT_FILTER,
    DT_FLAGS,
    DT_FLAGS_1,
    DT_GNU_HASH,
    DT_HASH,
    DT_NEEDED,
    DT_PLTGOT,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMBOLIC,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERNEED,
    DT_VERSYM,
)
from dlwhy.elf.machine import ADDRESS_MASKS
from dlwhy.errors import ElfError, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf

_LISTS = (DT_NEEDED, DT_AUXILIARY, DT_FILTER)
_ADDRESSES = frozenset((DT_PLTGOT, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_GNU_HASH, DT_VERSYM, DT_VERDEF, DT_VERNEED))
"""Tags whose value is an address and nothing else."""
_MAX_SIZE = 1 << 20
"""Bytes of entries looked at before DT_NULL (honest dynamic sections stay below a few KiB)."""
_MOST_NEEDED = 4096
_MAX_STRING = 1 << 20
_BEFORE, _BEHIND = 1024, 1024
"""Bytes read before and behind the start of a string that is in no window yet."""
_STRING_BUDGET = 16
"""All strings together: at most this many times DT_STRSZ, and a megabyte."""


def _beyond(elf: Elf, vaddr: int, done: int) -> Iterator[tuple[int, int]]:
    """Yield (tag, value) from `done` bytes on: no DT_NULL so far, and the loader goes on.

    Raises `ElfError` where nothing is mapped any more.
    """
    dyn = elf.layout.dyn
    while elf.loads:
        if done >= _MAX_SIZE:
            raise TooLarge(elf.path, -1, f"the dynamic section has no DT_NULL within {_MAX_SIZE} bytes")
        yield dyn.unpack(elf.at(vaddr + done, dyn.size))
        done += dyn.size


class Dynamic:
    """Tags and strings of one object's dynamic section."""

    __slots__ = ("_budget", "_elf", "_strtab", "_texts", "_window", "_window_at", "lists", "tags")

    def __init__(self, elf: Elf, vaddr: int, offset: int, filesz: int) -> None:
        self._elf = elf
        self.tags: dict[int, int] = {}
        """Tag -> value; of a repeated tag the last."""
        self.lists: list[tuple[int, int]] = []
        """(tag, string offset) of DT_NEEDED, DT_AUXILIARY and DT_FILTER, in file order."""
        dyn, size = elf.layout.dyn, min(filesz, _MAX_SIZE)
        data = elf.around(vaddr, size) if elf.loads else elf.view.some(offset, size)
        done = len(data) - len(data) % dyn.size
        if not self._take(dyn.iter_unpack(data if done == len(data) else data[:done])):
            self._take(_beyond(elf, vaddr, done))
        tags, mask = self.tags, ADDRESS_MASKS.get((elf.machine, elf.class_))
        if mask is not None:
            tags.update({tag: tags[tag] & mask for tag in _ADDRESSES & tags.keys()})
        self._strtab = tags.get(DT_STRTAB, 0)
        self._texts: dict[int, str] = {}
        self._window = ""
        """Bytes of the string table, each as the character of its number: a name cut from it mostly is the text."""
        self._window_at = 0
        """Offset in DT_STRTAB of the first byte of the window."""
        self._budget = _STRING_BUDGET * min(tags.get(DT_STRSZ, 0), elf.view.size) + _MAX_STRING

    def _take(self, entries: Iterable[tuple[int, int]]) -> bool:
        """Keep the entries up to DT_NULL; whether there was one."""
        tags, lists = self.tags, self.lists
        for tag, value in entries:
            if not DT_NEEDED < tag < DT_AUXILIARY:  # nearly all tags lie between
                if tag == 0:
                    return True
                if tag in _LISTS:
                    lists.append((tag, value))
                if len(lists) > _MOST_NEEDED:
                    raise TooLarge(self._elf.path, -1, f"the dynamic section needs more than {_MOST_NEEDED} files")
            tags[tag] = value
        return False

    def get(self, tag: int, default: int = 0) -> int:
        """Return the value of `tag`, or `default`."""
        return self.tags.get(tag, default)

    def raw_string(self, offset: int) -> bytes:
        """Return the NUL-terminated string at `offset` of DT_STRTAB.

        Raises `ElfError` when it leaves what is mapped of the file, `TooLarge` when strings go beyond an honest total.
        """
        return self.string(offset).encode("utf-8", "surrogateescape")

    def _cut(self, offset: int) -> str:
        offset = (self._strtab + offset) % (1 << 8 * self._elf.layout.word_size) - self._strtab  # the sum wraps round
        if DT_STRTAB not in self.tags:
            raise ElfError(self._elf.path, -1, "a string is wanted, but there is no DT_STRTAB")
        start, window = self._move_window(offset)
        end = window.find("\0", start)
        return window[start:end] if end >= 0 else self._cut_long(offset)

    def _move_window(self, offset: int) -> tuple[int, str]:
        """Read the neighbourhood of a string; where in it the string starts, and the window, all of one segment."""
        vaddr = self._strtab + offset
        for row in self._elf.loads:
            if row[3] <= vaddr < row[3] + row[5]:
                before = min(_BEFORE, offset, vaddr - row[3]) if offset > 0 else 0
                size = min(before + _BEHIND, row[3] + row[5] - vaddr + before)
                self._window = str(self._elf.view.some(vaddr - before - row[3] + row[2], size), "latin-1")
                self._window_at = offset - before
                return before, self._window
        return 0, ""

    def _cut_long(self, offset: int) -> str:
        place = self._strtab + offset
        size = 64
        while True:
            window = self._elf.around(place, size)
            end = window.find(b"\0")
            if end >= 0:
                return str(window[:end], "latin-1")
            if len(window) < size:
                rule = f"the string at {offset:#x} of DT_STRTAB has no end in the file"
                raise self._elf.unmapped(place + len(window), 1, rule)
            if size > _MAX_STRING:
                raise TooLarge(self._elf.path, -1, f"the string at {offset:#x} of DT_STRTAB is longer than {size}")
            size *= 8

    def string(self, offset: int) -> str:
        """Return the string at `offset` of DT_STRTAB, decoded with surrogateescape. Raises as `raw_string`."""
        found = self._texts.get(offset)
        if found is None:
            # Strings that are asked for stand close together: a window serves most of them with one read.
            start = offset - self._window_at
            end = self._window.find("\0", start) if start >= 0 else -1
            found = self._window[start:end] if end >= 0 else self._cut(offset)
            self._budget -= len(found)
            if self._budget < 0:
                raise TooLarge(self._elf.path, -1, f"strings overlap to more than {_STRING_BUDGET} times DT_STRSZ")
            if not found.isascii():
                found = found.encode("latin-1").decode("utf-8", "surrogateescape")
            self._texts[offset] = found
        return found

    def _one(self, tag: int) -> str | None:
        offset = self.tags.get(tag)
        return None if offset is None else self.string(offset)

    @property
    def soname(self) -> str | None:
        """DT_SONAME."""
        return self._one(DT_SONAME)

    @property
    def needed(self) -> tuple[str, ...]:
        """Every DT_NEEDED, in file order, tokens unexpanded."""
        return tuple([self.string(offset) for tag, offset in self.lists if tag == DT_NEEDED])

    @property
    def filters(self) -> tuple[tuple[int, str], ...]:
        """(tag, name) of DT_NEEDED, DT_AUXILIARY and DT_FILTER in file order: what is loaded with this object."""
        return tuple((tag, self.string(offset)) for tag, offset in self.lists)

    @property
    def rpath(self) -> str | None:
        """DT_RPATH as written; void when there is a DT_RUNPATH."""
        return self._one(DT_RPATH)

    @property
    def runpath(self) -> str | None:
        """DT_RUNPATH as written."""
        return self._one(DT_RUNPATH)

    @property
    def flags(self) -> int:
        """DT_FLAGS."""
        return self.tags.get(DT_FLAGS, 0)

    @property
    def flags_1(self) -> int:
        """DT_FLAGS_1."""
        return self.tags.get(DT_FLAGS_1, 0)

    @property
    def bind_now(self) -> bool:
        """Whether the object itself asks for immediate binding."""
        return DT_BIND_NOW in self.tags or bool(self.flags & DF_BIND_NOW) or bool(self.flags_1 & DF_1_NOW)

    @property
    def symbolic(self) -> bool:
        """DT_SYMBOLIC or DF_SYMBOLIC."""
        return DT_SYMBOLIC in self.tags or bool(self.flags & DF_SYMBOLIC)
