"""Dynamic: the dynamic section as the loader reads it (gABI ch. 5; glibc elf/get-dynamic-info.h).

Read from the PT_DYNAMIC address up to the first DT_NULL; of a tag that stands twice the last one counts, except
DT_NEEDED, DT_AUXILIARY and DT_FILTER, which are lists.
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
    DT_NEEDED,
    DT_RPATH,
    DT_RUNPATH,
    DT_SONAME,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMBOLIC,
)
from dlwhy.errors import ElfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf

_LISTS = (DT_NEEDED, DT_AUXILIARY, DT_FILTER)
_CHUNK = 4096
_MAX_ENTRIES = 65536
_MAX_STRING = 1 << 20


class Dynamic:
    """Tags and strings of one object's dynamic section."""

    __slots__ = ("_elf", "_strtab", "entries", "lists", "tags")

    def __init__(self, elf: Elf, vaddr: int, offset: int, filesz: int) -> None:
        self._elf = elf
        self.tags: dict[int, int] = {}
        """Tag -> value; of a repeated tag the last."""
        self.lists: list[tuple[int, int]] = []
        """(tag, string offset) of DT_NEEDED, DT_AUXILIARY and DT_FILTER, in file order."""
        lay = elf.layout
        if elf.offset_of(vaddr) is None and not elf.loads:
            data = elf.view.some(offset, min(filesz, 1 << 20))
        else:
            data = elf.at(vaddr, min(filesz - filesz % lay.dyn.size, 1 << 20))
        tags, lists = self.tags, self.lists
        for tag, value in lay.dyn.iter_unpack(data[: len(data) - len(data) % lay.dyn.size]):
            if tag in _LISTS:
                lists.append((tag, value))
            elif tag == 0:
                break
            tags[tag] = value
        self._strtab: tuple[int, int] = (tags.get(DT_STRTAB, 0), tags.get(DT_STRSZ, 0))

    def get(self, tag: int, default: int = 0) -> int:
        """Return the value of `tag`, or `default`."""
        return self.tags.get(tag, default)

    def raw_string(self, offset: int) -> bytes:
        """Return the NUL-terminated string at `offset` of DT_STRTAB. Raises `ElfError` when it leaves the file."""
        place = self._strtab[0] + offset
        size = 64
        while True:
            window = self._elf.around(place, size)
            end = window.find(b"\0")
            if end >= 0:
                return window[:end]
            if len(window) < size or size > _MAX_STRING:
                raise ElfError(self._elf.path, -1, f"the string at {offset:#x} of DT_STRTAB has no end in the file")
            size *= 8

    def string(self, offset: int) -> str:
        """Return the string at `offset` of DT_STRTAB, decoded with surrogateescape."""
        return self.raw_string(offset).decode("utf-8", "surrogateescape")

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
        return tuple(self.string(offset) for tag, offset in self.lists if tag == DT_NEEDED)

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
