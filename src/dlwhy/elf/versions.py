"""Symbol versions: verneed, verdef, versym (LSB Core, Symbol Versioning; glibc elf/dl-version.c).

Chains are followed as far as the bytes of the file go, as the loader does: a next offset of zero ends a chain, whatever
the count beside it says. Offsets are unsigned, so no chain loops; tables that share records end at their number.
"""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 -- a class

from dlwhy.elf.constants import DT_VERDEF, DT_VERNEED, DT_VERSYM, VERSYM_HIDDEN
from dlwhy.errors import ElfError, TooLarge
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import Any

    from dlwhy.elf.file import Elf

class Need(Record):
    """One version that an object needs of a file."""

    file: str
    name: str
    hash: int
    weak: bool
    index: int  # type: ignore[assignment]  # not the method of tuples
    """vna_other without its top bit: what versym refers to."""
    hidden: bool


class Definition(Record):
    """One version that an object defines."""

    name: str
    hash: int
    flags: int
    index: int  # type: ignore[assignment]  # not the method of tuples


class Versions:
    """The version tables of one object; all three may be missing."""

    __slots__ = (
        "_by_index", "_defined", "_elf", "_left", "_versym", "defines", "need_files", "verdef_version",
        "verneed_version",
    )  # fmt: skip

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        dynamic = elf.dynamic
        tags = dynamic.tags if dynamic else {}
        self.verneed_version = 1
        """The first vn_version that is not 1, else 1."""
        self.verdef_version = 1
        self.need_files: tuple[tuple[str, tuple[Need, ...]], ...] = ()
        """(file, needs) for each verneed, in file order."""
        self.defines: tuple[Definition, ...] | None = None
        """The versions defined, or None without a verdef section."""
        self._versym: bytes | None = None
        self._left = elf.view.size // 16 + 1
        """Records that may still be read: an honest one has at least sixteen bytes of its own."""
        self._defined: frozenset[tuple[int, str]] | None = None
        self._by_index: dict[int, tuple[str, int, bool, str | None]] | None = None
        if DT_VERNEED in tags:
            self.need_files = self._read_needs(tags[DT_VERNEED])
        if DT_VERDEF in tags:
            self.defines = self._read_defines(tags[DT_VERDEF])

    @property
    def needs(self) -> tuple[Need, ...]:
        """Every need of every file, in file order."""
        return tuple(need for _, needs in self.need_files for need in needs)

    @property
    def defined(self) -> frozenset[tuple[int, str]]:
        """(hash, name) of every version defined."""
        if self._defined is None:
            self._defined = frozenset((one.hash, one.name) for one in self.defines or ())
        return self._defined

    def _read_needs(self, vaddr: int) -> tuple[tuple[str, tuple[Need, ...]], ...]:
        lay, row = self._elf.layout, _Window(self._elf, vaddr).row
        vernaux, hidden, new = lay.vernaux, VERSYM_HIDDEN, tuple.__new__
        assert self._elf.dynamic is not None
        string = self._elf.dynamic.string
        result = []
        offset = 0
        while True:
            version, _, file, aux, following = row(lay.verneed, offset)
            if version != 1 and self.verneed_version == 1:
                self.verneed_version = version
            file_name = string(file)
            needs = []
            place = offset + aux
            for _ in range(self._left):
                hash_, flags, other, name, after = row(vernaux, place)
                values = (file_name, string(name), hash_, flags & 2 != 0, other & 0x7FFF, other & hidden != 0)
                needs.append(new(Need, values))  # as Need(*values), at a third of its time
                if not after:
                    break
                place += after
            else:
                raise self._too_many()
            self._left -= len(needs)
            result.append((file_name, tuple(needs)))
            if not following:
                return tuple(result)
            offset += following
            self._left -= 1

    def _read_defines(self, vaddr: int) -> tuple[Definition, ...]:
        lay, row = self._elf.layout, _Window(self._elf, vaddr).row
        assert self._elf.dynamic is not None
        string = self._elf.dynamic.string
        result = []
        offset = 0
        for _ in range(self._left):
            version, flags, index, _, hash_, aux, following = row(lay.verdef, offset)
            if version != 1 and self.verdef_version == 1:
                self.verdef_version = version
            name, _ = row(lay.verdaux, offset + aux)
            result.append(Definition(string(name), hash_, flags, index & 0x7FFF))
            if not following:
                return tuple(result)
            offset += following
        raise self._too_many()

    def _too_many(self) -> TooLarge:
        return TooLarge(self._elf.path, -1, "the version tables have more records than the file has room for")

    @property
    def has_versym(self) -> bool:
        """Whether the object has a version of each symbol: without, its definitions match any version."""
        return self._elf.dynamic is not None and DT_VERSYM in self._elf.dynamic.tags

    def versym(self) -> bytes:
        """Return the versym table as it stands in the file: two bytes a symbol (empty when there is none)."""
        if self._versym is None:
            dynamic = self._elf.dynamic
            if dynamic is None or DT_VERSYM not in dynamic.tags:
                self._versym = b""
            else:
                self._versym = self._elf.around(dynamic.tags[DT_VERSYM], 2 * self._elf.symbols.count)
        return self._versym

    def index_of(self, symbol: int) -> int:
        """Return the versym entry of a symbol, hidden bit included; 1 (global) when the table does not reach it."""
        raw = self.versym()[2 * symbol : 2 * symbol + 2]
        return int.from_bytes(raw, "little" if self._elf.little else "big") if len(raw) == 2 else 1

    def by_index(self) -> dict[int, tuple[str, int, bool, str | None]]:
        """Return version index -> (name, hash, hidden, file): needs and definitions in one table, as l_versions."""
        if self._by_index is None:
            table: dict[int, tuple[str, int, bool, str | None]] = {}
            for need in self.needs:
                table[need.index] = (need.name, need.hash, need.hidden, need.file)
            for one in self.defines or ():
                table[one.index] = (one.name, one.hash, False, None)
            self._by_index = table
        return self._by_index


_WINDOW = 1 << 20


class _Window:
    """Bytes of a table whose length is not written anywhere: grows as it is read, up to a megabyte."""

    __slots__ = ("_data", "_elf", "_vaddr")

    def __init__(self, elf: Elf, vaddr: int) -> None:
        self._elf, self._vaddr = elf, vaddr
        self._data = elf.around(vaddr, 2048)

    def row(self, kind: Struct, offset: int) -> tuple[Any, ...]:
        """Return the record at `offset`. Raises `ElfError` when it leaves what is mapped of the file."""
        try:
            return kind.unpack_from(self._data, offset)
        except StructError:  # behind the window
            return kind.unpack(self._far(offset, kind.size))

    def _far(self, offset: int, size: int) -> bytes:
        end = offset + size
        if len(self._data) < end <= _WINDOW:
            self._data = self._elf.around(self._vaddr, 2 * end)
        if end <= len(self._data):
            return self._data[offset:end]
        data = self._elf.around(self._vaddr + offset, size)
        if len(data) == size:
            return data
        raise ElfError(self._elf.path, -1, f"a version table at address {self._vaddr:#x} leaves the file")
