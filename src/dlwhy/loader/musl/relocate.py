"""Relocating one object as musl does: table by table, entry by entry (ldso/dynlink.c, do_relocs and reloc_all)."""

from __future__ import annotations

from struct import Struct

from dlwhy.elf.constants import (
    DT_JMPREL,
    DT_PLTREL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELASZ,
    DT_RELR,
    DT_RELRSZ,
    DT_RELSZ,
    SHN_UNDEF,
    STB_LOCAL,
    STB_WEAK,
)
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.musl.memory import SIGSEGV
from dlwhy.loader.musl.releases import LFS64, PORTS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.loader.musl.dso import Dso, Symbol
    from dlwhy.loader.musl.memory import Memory
    from dlwhy.loader.musl.process import MuslProcess

_WORD = 1 << 64
_MOST_ENTRIES = 1 << 22
_PAIR, _TRIPLE = Struct("<QQ"), Struct("<QQQ")


def text(name: bytes) -> str:
    """Return a name as messages have it."""
    return name.decode("utf-8", "surrogateescape")


class Relocator:
    """Relocates objects of one process; what is reported on the way goes to the process."""

    __slots__ = ("_copy", "_entry_name", "_got", "_keeps_name", "_kinds", "_lookups", "_plt", "_relative", "process")

    def __init__(self, process: MuslProcess) -> None:
        self.process = process
        port = PORTS[process.machine.e_machine, process.machine.elf_class]
        self._kinds = {number: kind for kind, number in port.relocations.items()}
        self._plt, self._got, self._copy = (port.relocations[kind] for kind in ("plt", "got", "copy"))
        self._relative = port.relocations["relative"]
        self._keeps_name = port.keeps_name
        self._lookups: dict[tuple[bytes, bool, bool], tuple[Dso, Symbol] | None] = {}
        """(name, needs a definition, program left out) -> what the global list has."""
        self._entry_name: str | None = None
        """The name of the last entry that had one, of any table before: what messages about entries without one show
        in some builds (releases.Port, keeps_name)."""

    def object(self, of: Dso) -> None:
        """Relocate one object: jump table, REL, RELA, RELR, then RELRO. Raises `Fault`, `Death`, `Unknown`."""
        assert of.tables is not None
        assert of.memory is not None
        tags, get = of.tables.tags, of.tables.tags.get
        of.memory.stage = "relocate"
        stride = 3 if get(DT_PLTREL) == DT_RELA else 2
        self.table(of, get(DT_JMPREL, 0), get(DT_PLTRELSZ, 0), stride)
        self.table(of, get(DT_REL, 0), get(DT_RELSZ, 0), 2)
        self.table(of, get(DT_RELA, 0), get(DT_RELASZ, 0), 3)
        if self.process.libc.relr:
            for place in relr(of.memory, get(DT_RELR, 0), tags.get(DT_RELRSZ, 0)):
                of.memory.write(place, 8)
        self._protect(of)
        of.relocated = True

    def _protect(self, of: Dso) -> None:
        assert of.memory is not None
        start, end = of.mapped.relro if of.mapped is not None else (0, 0)
        if start == end:
            return
        low, high = of.memory.span
        if low <= start < end <= high:
            of.memory.protect(start, end, 4)
            return
        because = f"PT_GNU_RELRO covers {start:#x} to {end:#x}, and the object is mapped from {low:#x} to {high:#x}"
        length = end - start
        if length > 0 and low - (1 << 26) < start < high + (1 << 26):
            raise Unknown(f"what lies in the process beside {of.shown}: {because}", "relocate")
        if self.process.libc.relro_errno:
            self.process.errno = 12
        self.process.report(Fault(
            "bad-segments", "relocate", f"Error relocating {of.shown}: RELRO protection failed: {self.process.words()}",
            because=because,
        ), of)  # fmt: skip

    def table(self, of: Dso, start: int, size: int, stride: int) -> None:
        """Apply one table. Raises `Fault`, `Death`, `Unknown`."""
        assert of.memory is not None
        write, relative = of.memory.write, self._relative
        for place, info, _ in _entries(of.memory, start, size, stride):
            kind = info & 0x7FFFFFFF
            if kind == 0:
                continue
            if kind == relative and not info >> 32 and stride == 3:
                write(place, 8)
                continue
            self._apply(of, place, info, stride)

    def _apply(self, of: Dso, place: int, info: int, stride: int) -> None:
        process, memory, tables = self.process, of.memory, of.tables
        assert memory is not None
        assert tables is not None
        kind = info & 0x7FFFFFFF
        what = self._kinds.get(kind)
        if stride == 2 and what not in ("got", "plt", "copy"):
            memory.read(place, 8)  # the addend
        index = info >> 32
        index = index - (1 << 32) if index >> 31 else index
        symbol: Symbol | None = None
        found: tuple[Dso, Symbol | None] | None = (of, None)
        if index:
            symbol = tables.symbol(index)
            name = tables.name(symbol)
            self._entry_name = text(name)
            found = (of, symbol) if symbol[2] >> 4 == STB_LOCAL else self.definition(name, kind)
            if found is None and (symbol[3] != SHN_UNDEF or symbol[2] >> 4 != STB_WEAK):
                if of.deferred is not None and what in ("plt", "got"):
                    of.deferred.append((place, kind, index))
                    process.open_calls = True
                    return
                process.missing(of, text(name))
                return
        definer = found[0] if found is not None else None
        if what is None:
            words = f"Error relocating {of.shown}: unsupported relocation type {kind}"
            process.report(Fault("bad-relocation", "relocate", words), of)
            return
        if what in ("tpoff", "dtpmod", "tlsdesc") and definer is None:
            assert symbol is not None
            raise memory.killed(
                SIGSEGV, f"it uses the thread-local {self._entry_name}, which nothing defines: the loader reads null",
            )  # fmt: skip
        if what == "tpoff" and definer is not None and definer.tls_id > process.static_count:
            process.refuse_late(of, definer, self._entry_name if index or self._keeps_name else None, kind)
        self._write(memory, place, what, symbol, found)

    def _write(
        self, memory: Memory, place: int, what: str, symbol: Symbol | None, found: tuple[Dso, Symbol | None] | None
    ) -> None:
        if what == "copy":
            if symbol is None:
                raise memory.killed(SIGSEGV, "a copy relocation has no symbol, and the loader reads its size")
            size = symbol[5]
            if size > 1 << 24:
                raise Unknown(f"what a copy of {size} bytes into {memory.path} does", "relocate")
            if size:
                source = found[0].memory if found is not None else None
                if found is None or found[1] is None:
                    raise memory.killed(SIGSEGV, "a copy relocation copies what nothing defines")
                if source is not None:
                    source.read(found[1][4], size)
                memory.write(place, size)
            return
        memory.write(place, 4 if what == "offset32" else 16 if what == "tlsdesc" else 8)

    def definition(self, name: bytes, kind: int) -> tuple[Dso, Symbol] | None:
        """Return what a reference of this type gets, or None. Raises `Death`, `Unknown`."""
        key = name, kind == self._plt, kind == self._copy
        if key not in self._lookups:
            among = self.process.symbols
            found = _find(among[1:] if key[2] else among, name, key[1])
            self._lookups[key] = found if found is not None else self._lfs64(name)
        return self._lookups[key]

    def _lfs64(self, name: bytes) -> tuple[Dso, Symbol] | None:
        """get_lfs64: a name that ends in 64 means the loader's own without it."""
        longest = self.process.libc.longest_lfs64
        own = b"readdir_r" if name == b"readdir64_r" else name[:-2] if name.endswith(b"64") else b""
        if not longest or len(name) > longest or not (name == b"readdir64_r" or text(own) in LFS64):
            return None
        process = self.process
        at = next((i for i, one in enumerate(process.symbols) if one is process.rtld), None)
        assert process.rtld is not None
        return _find([process.rtld] if at is None else process.symbols[at:], own, True)


def _find(among: list[Dso], name: bytes, need_definition: bool) -> tuple[Dso, Symbol] | None:
    for one in among:
        found = one.find(name, need_definition)
        if found is not None:
            return one, found
    return None


def _entries(memory: Memory, start: int, size: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Yield (address, r_info, index) of a table, up to where so many bytes have been taken off that none are left.

    A size that is no multiple of an entry is never used up: the loader then goes on to the end of what is mapped.
    """
    step = 8 * stride
    endless = size % step != 0
    count = 0
    while endless or count * step < size:
        first, data = memory.window(start + count * step)
        at = (start + count * step - first) % _WORD
        layout = _TRIPLE if stride == 3 else _PAIR
        if at + step > len(data):
            yield (*layout.unpack(memory.read(start + count * step, step))[:2], count)
            count += 1
        while at + step <= len(data) and (endless or count * step < size):
            row = layout.unpack_from(data, at)
            yield row[0], row[1], count
            at += step
            count += 1
        if count > _MOST_ENTRIES:
            raise Unknown(f"what ends a table of more than {_MOST_ENTRIES} relocations in {memory.path}", "relocate")


def relr(memory: Memory, start: int, size: int) -> Iterator[int]:
    """Yield the address of every word that DT_RELR relocates (do_relr_relocs). Raises `Death`, `Unknown`."""
    here = done = given = 0
    while done * 8 != size:
        entry = memory.u64(start + 8 * done)
        done += 1
        if entry & 1:
            for bit in range(1, 64):
                if entry >> bit & 1:
                    given += 1
                    yield here + 8 * (bit - 1)
            here += 8 * 63
        else:
            yield entry
            here = entry + 8
        if max(done, given) > _MOST_ENTRIES:
            raise Unknown(f"what ends DT_RELR in {memory.path}", "relocate")


__all__ = ["Death", "Relocator", "text"]
