"""Symbol versions: verneed, verdef, versym (LSB Core, Symbol Versioning; glibc elf/dl-version.c).

Chains are followed as far as the bytes of the file go, as the loader does: a next offset of zero ends a chain, whatever
the count beside it says. Offsets are unsigned, so no chain loops; tables that share records end at their number.
"""

from __future__ import annotations

from struct import error as StructError  # noqa: N812 -- a class

from dlwhy.elf.constants import DT_VERDEF, DT_VERNEED, DT_VERSYM, VER_FLG_WEAK
from dlwhy.errors import ElfError, TooLarge
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from struct import Struct
    from typing import Any

    from dlwhy.elf.file import Elf

_FIRST, _WINDOW = 1024, 1 << 20
"""Bytes of a table that are read at first, and at most at once."""
_NEW = tuple.__new__
"""Makes a record of the tuple of its fields, as calling its class does, at a third of the time."""


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
        "_by_index", "_defined", "_elf", "_left", "_need_files", "_versym", "astray", "defines", "need_rows",
        "verdef_version", "verneed_version",
    )  # fmt: skip

    def __init__(self, elf: Elf) -> None:
        self._elf = elf
        dynamic = elf.dynamic
        tags = dynamic.tags if dynamic else {}
        self.verneed_version = 1
        """The first vn_version that is not 1, else 1."""
        self.verdef_version = 1
        self.need_rows: list[tuple[str, list[tuple[str, int, int, int]]]] = []
        """(file, [(name, vna_hash, vna_flags, vna_other)]) for each verneed, in file order."""
        self._need_files: tuple[tuple[str, tuple[Need, ...]], ...] | None = None
        self.astray: ElfError | None = None
        """Why the needs stop short of their end: what stands before is checked by the loader all the same."""
        self.defines: tuple[Definition, ...] | None = None
        """The versions defined, or None without a verdef section."""
        self._versym: bytes | None = None
        self._left = elf.view.size // 16 + 1
        """Records that may still be read: an honest one has at least sixteen bytes of its own."""
        self._defined: frozenset[tuple[int, str]] | None = None
        self._by_index: dict[int, tuple[str, int, bool, str | None]] | None = None
        if DT_VERNEED in tags:
            try:
                self._read_needs(tags[DT_VERNEED])
            except ElfError as error:
                self.astray = error
        if DT_VERDEF in tags:
            self.defines = self._read_defines(tags[DT_VERDEF])

    @property
    def need_files(self) -> tuple[tuple[str, tuple[Need, ...]], ...]:
        """(file, needs) for each verneed, in file order; where `astray` is set only those before."""
        if self._need_files is None:
            self._need_files = tuple([
                (file, tuple([
                    Need(file, name, hash_, flags & VER_FLG_WEAK != 0, other & 0x7FFF, other > 0x7FFF)
                    for name, hash_, flags, other in rows
                ]))
                for file, rows in self.need_rows
            ])  # fmt: skip
        return self._need_files

    @property
    def needs(self) -> tuple[Need, ...]:
        """Every need of every file, in file order. Raises `ElfError` where they leave the file."""
        if self.astray is not None:
            raise self.astray
        return tuple(need for _, needs in self.need_files for need in needs)

    @property
    def defined(self) -> frozenset[tuple[int, str]]:
        """(hash, name) of every version defined."""
        if self._defined is None:
            self._defined = frozenset((one.hash, one.name) for one in self.defines or ())
        return self._defined

    def _read_needs(self, vaddr: int) -> None:
        elf = self._elf
        data, verneed, vernaux = elf.around(vaddr, _FIRST), elf.layout.verneed, elf.layout.vernaux
        unpack, left = vernaux.unpack_from, self._left
        assert elf.dynamic is not None
        string = elf.dynamic.string
        offset = 0
        following = 1
        while following:
            try:
                version, _, file, aux, following = verneed.unpack_from(data, offset)
            except StructError:  # behind the first bytes
                (version, _, file, aux, following), data = self._far(verneed, vaddr, offset, data)
            if version != 1 and self.verneed_version == 1:
                self.verneed_version = version
            file_name = string(file)
            rows: list[tuple[str, int, int, int]] = []
            self.need_rows.append((file_name, rows))
            place = offset + aux
            after = 1
            while after:
                if left <= 0:
                    raise self._too_many()
                left -= 1
                try:
                    hash_, flags, other, name, after = unpack(data, place)
                except StructError:
                    (hash_, flags, other, name, after), data = self._far(vernaux, vaddr, place, data)
                rows.append((string(name), hash_, flags, other))
                place += after
            offset += following
            left -= 1
        self._left = left

    def _read_defines(self, vaddr: int) -> tuple[Definition, ...]:
        elf = self._elf
        data, verdef, verdaux = elf.around(vaddr, _FIRST), elf.layout.verdef, elf.layout.verdaux
        assert elf.dynamic is not None
        string = elf.dynamic.string
        result = []
        offset = 0
        for _ in range(self._left):
            try:
                version, flags, index, _, hash_, aux, following = verdef.unpack_from(data, offset)
                name, _ = verdaux.unpack_from(data, offset + aux)
            except StructError:
                (version, flags, index, _, hash_, aux, following), data = self._far(verdef, vaddr, offset, data)
                (name, _), data = self._far(verdaux, vaddr, offset + aux, data)
            if version != 1 and self.verdef_version == 1:
                self.verdef_version = version
            result.append(_NEW(Definition, (string(name), hash_, flags, index & 0x7FFF)))
            if not following:
                return tuple(result)
            offset += following
        raise self._too_many()

    def _far(self, kind: Struct, vaddr: int, offset: int, data: bytes) -> tuple[tuple[Any, ...], bytes]:
        """The record at `offset` of a table, and `data`, the table's first bytes, with more of them.

        How long the table is stands nowhere. Raises `ElfError` when the record leaves what is mapped of the file.
        """
        elf, end = self._elf, offset + kind.size
        if len(data) < end <= _WINDOW:
            data = elf.around(vaddr, 2 * end)
        if end <= len(data):
            return kind.unpack_from(data, offset), data
        one = elf.mapped(vaddr + offset, kind.size)
        if len(one) == kind.size:
            return kind.unpack(one), data
        rule = f"a version table at address {vaddr:#x} leaves the file"
        raise elf.unmapped(vaddr + offset, kind.size, rule)

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
        """Return the versym entry of a symbol, hidden bit included; 1 (global) without a table. Raises `ElfError`."""
        raw = self.versym()[2 * symbol : 2 * symbol + 2]
        if len(raw) != 2:
            if not self.has_versym:
                return 1
            assert self._elf.dynamic is not None
            raw = self._elf.at(self._elf.dynamic.tags[DT_VERSYM] + 2 * symbol, 2)
        return int.from_bytes(raw, "little" if self._elf.little else "big")

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
