"""The TLS variables of one object, as its symbol tables have them."""

from __future__ import annotations

from bisect import bisect_right

from dlwhy.attribute.ledger import Ledger, Variable, balance
from dlwhy.attribute.owners import Owner, owner, trusted
from dlwhy.elf.constants import ET_REL, SHF_TLS, SHN_UNDEF, SHT_SYMTAB, STT_FILE, STT_SECTION
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf
    from dlwhy.elf.symbols import TlsSymbol

_MARKER = "_TLS_MODULE_BASE_"
"""A linker's own symbol for the start of the segment: no variable."""
_PIECE = 1024
"""Symbols looked at in one read."""
_FILE_OR_SECTION = bytes((STT_SECTION, STT_FILE))


class Variables(Record):
    """The variables of one TLS segment and where its bytes went."""

    library: str
    """What to call the object: its soname, else the last part of its path."""
    ledger: Ledger
    by_start: dict[int, tuple[Variable, ...]]
    """Offset in the segment -> the variable that starts there, with its aliases."""
    complete: bool
    """Whether a full symbol table was seen: then only padding can be without a name."""
    notes: tuple[str, ...]
    """What could not be read, one sentence each."""

    def at(self, offset: int) -> tuple[Variable, ...]:
        """Return the variable that starts at `offset` of the segment, else the one that covers it; empty for none."""
        found = self.by_start.get(offset)
        if found is None:
            lines = self.ledger.lines
            index = bisect_right(lines, offset, key=lambda line: line.offset) - 1
            line = lines[index] if index >= 0 else None
            found = line.variables if line is not None and offset < line.offset + line.bytes else ()
        return found

    def owner(self, aliases: tuple[Variable, ...]) -> Owner:
        """Return whose the variable is, given with its aliases."""
        return owner(aliases[0].name, unit(aliases), aliases[0].source, self.library)


def unit(aliases: tuple[Variable, ...]) -> str | None:
    """Return the file symbol before a variable, or None when there is none that can be trusted."""
    return next((one.unit for one in aliases if one.unit and trusted(one.unit)), None)


def collect(elf: Elf) -> Variables:
    """Return the TLS variables of an object. Raises `ElfError` when its program headers leave the file."""
    segment = elf.tls
    if segment is None or elf.type == ET_REL:
        return Variables(library_name(elf), balance(0, 0, 0, ()), {}, False, ())
    found, complete, notes = _read(elf)
    sections = [(s.addr, s.size) for s in elf.sections if s.flags & SHF_TLS]
    ledger = balance(segment.memsz, segment.vaddr, segment.align, found, sections, complete)
    starts: dict[int, tuple[Variable, ...]] = {one.offset: (one,) for one in found if one.name}
    starts.update((line.variables[0].offset, line.variables) for line in reversed(ledger.lines))
    return Variables(library_name(elf), ledger, starts, complete, notes)


def library_name(elf: Elf) -> str:
    """Return what to call an object: its soname, else the last part of its path."""
    try:
        soname = elf.dynamic.soname if elf.dynamic else None
    except ElfError:
        soname = None
    return soname or elf.path.rpartition("/")[2]


def _read(elf: Elf) -> tuple[list[Variable], bool, tuple[str, ...]]:
    """Return the TLS variables, whether a full symbol table was seen, and what could not be read."""
    static = StaticSymbols(elf)
    notes: tuple[str, ...] = ()
    complete = False
    found = []
    try:
        found = list(_defined(static.tls(), ".symtab"))
        complete = static.complete and _has_locals(elf)
    except ElfError as error:
        notes = (f"names are missing: {error}",)
    if not complete:
        found.extend(_defined(elf.symbols.tls(), ".dynsym"))
    return found, complete, notes


def _has_locals(elf: Elf) -> bool:
    """Whether `.symtab` kept its local symbols: after `strip -x` it has none but those of files and sections.

    Raises `ElfError` when the table leaves the file.
    """
    lay = elf.layout
    step = lay.sym.size
    place = 4 if lay.is64 else 12  # of st_info
    for section in elf.sections:
        if section.type == SHT_SYMTAB:  # sh_info: how many symbols are local, the null symbol counted (gABI ch. 4)
            end = min(section.info * step, section.size)
            for start in range(step, end, _PIECE * step):
                infos = elf.view.read(section.offset + start, min(_PIECE * step, end - start))[place::step]
                if infos.translate(None, _FILE_OR_SECTION):
                    return True
    return False


def _defined(symbols: Iterable[TlsSymbol], source: str) -> Iterable[Variable]:
    for symbol in symbols:
        if symbol.shndx != SHN_UNDEF and symbol.name != _MARKER:
            yield Variable(symbol.offset, symbol.size, symbol.name, source, symbol.unit)
