"""The TLS variables of one object: as its symbol tables have them, and as debug files and linker maps do."""

from __future__ import annotations

from bisect import bisect_right

from dlwhy.attribute.companions import Remark, has_all_names
from dlwhy.attribute.evidence import NONE, Evidence
from dlwhy.attribute.ledger import Ledger, Variable, balance, disorder
from dlwhy.attribute.owners import Owner, names, owner, trusted
from dlwhy.elf.constants import ET_REL, SHF_TLS, SHN_UNDEF
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dlwhy.attribute.declarations import Declaration
    from dlwhy.attribute.linker_map import LinkerMap
    from dlwhy.attribute.type_chain import Part
    from dlwhy.elf.file import Elf
    from dlwhy.elf.symbols import TlsSymbol

_MARKER = "_TLS_MODULE_BASE_"
"""A linker's own symbol for the start of the segment: no variable."""


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
    remarks: tuple[Remark, ...] = ()
    """What was found out about evidence that is not the object's own."""
    map: LinkerMap | None = None
    """The linker's map, when it is of this object."""
    file: str | None = None
    """OBJECT or ARCHIVE(MEMBER) that all of it comes from: of what is not linked yet."""
    spans: Mapping[int, Owner] = {}
    """Offset -> whose the bytes from there on are, of those that only code tells of (dlwhy.attribute.spans)."""
    insides: Mapping[int, tuple[Part, ...]] = {}
    """Offset -> what is inside a big variable, where debug information tells (dlwhy.attribute.dwarf)."""
    declared: Mapping[int, Declaration] = {}
    """Offset -> where the source declares a variable, where debug information tells."""

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
        if aliases[0].offset in self.spans:
            return self.spans[aliases[0].offset]
        return owner(aliases[0].name, unit(aliases), aliases[0].source, self.library, self.origin(aliases[0].offset))

    def origin(self, offset: int) -> str | None:
        """Return the object file or archive member whose piece lies at `offset`; None where nothing tells."""
        if self.file is not None:
            return self.file
        pieces = self.map.pieces if self.map is not None else ()
        index = bisect_right(pieces, offset, key=lambda piece: piece.offset) - 1
        if index < 0 or offset >= pieces[index].offset + pieces[index].size:
            return None
        return pieces[index].file


def unit(aliases: tuple[Variable, ...]) -> str | None:
    """Return the file symbol before a variable, or None when there is none that can be trusted."""
    return next((one.unit for one in aliases if one.unit and trusted(one.unit)), None)


def collect(elf: Elf, evidence: Evidence = NONE) -> Variables:
    """Return the TLS variables of an object. Raises `ElfError` when its program headers leave the file."""
    segment = elf.tls
    if segment is None or elf.type == ET_REL:
        return Variables(library_name(elf), balance(0, 0, 0, ()), {}, False, ())
    found, complete, notes, remarks = _read(elf, evidence)
    sections = [(s.addr, s.size) for s in elf.sections if s.flags & SHF_TLS]
    map_, more = _map(elf, evidence, found)
    more = (*_disorder(found, segment.memsz), *more)
    weaker = map_.claims() if map_ is not None else ()
    ledger = balance(segment.memsz, segment.vaddr, segment.align, found, sections, complete, weaker)
    starts: dict[int, tuple[Variable, ...]] = {one.offset: (one,) for one in found if one.name}
    starts.update((line.variables[0].offset, line.variables) for line in reversed(ledger.lines))
    return Variables(library_name(elf), ledger, starts, complete, notes, (*remarks, *more), map_)


def _disorder(found: list[Variable], memsz: int) -> tuple[Remark, ...]:
    """Return a remark when symbols say what cannot be: of each byte the first one that covers it is believed."""
    beyond, across = disorder(found, memsz)
    told = [f"{_first(beyond)} beyond the end of the segment"] if beyond else []
    told += [f"{_first(across)} inside of another"] if across else []
    if not told:
        return ()
    where = " and ".join(dict.fromkeys(one.source for one in (*beyond, *across)))
    return (Remark("unread-evidence", f"the names of {where} are damaged: {', '.join(told)}"),)


def _first(those: list[Variable]) -> str:
    """The first variable and where it is said to be, and how many more there are."""
    one, more = those[0], f" (and {len(those) - 1} more)" if len(those) > 1 else ""
    return f"{names((one.name,))[one.name]} of {one.size} bytes at {one.offset}{more} would lie"


def _map(elf: Elf, evidence: Evidence, found: list[Variable]) -> tuple[LinkerMap | None, tuple[Remark, ...]]:
    """Return the linker's map when it is of this object, else what is wrong with it."""
    if evidence.map is None:
        return None, ()
    from dlwhy.attribute.linker_map import settled

    names: dict[str, set[int]] = {}
    for one in found:
        names.setdefault(one.name, set()).add(one.offset)
    known = {name: offsets.pop() for name, offsets in names.items() if len(offsets) == 1}
    try:
        return settled(evidence.map, elf, known), ()
    except ElfError as error:
        return None, (Remark("other-build", str(error)),)


def library_name(elf: Elf) -> str:
    """Return what to call an object: its soname, else the last part of its path."""
    try:
        soname = elf.dynamic.soname if elf.dynamic else None
    except ElfError:
        soname = None
    return soname or elf.path.rpartition("/")[2]


def _read(elf: Elf, evidence: Evidence) -> tuple[list[Variable], bool, tuple[str, ...], tuple[Remark, ...]]:
    """Return the TLS variables, whether a full symbol table was seen, and what could not be read."""
    static = StaticSymbols(elf)
    notes: tuple[str, ...] = ()
    remarks = evidence.remarks
    complete = False
    found = []
    try:
        found = list(_defined(static.tls(), ".symtab"))
        complete = static.complete and has_all_names(elf)
    except ElfError as error:
        notes = (f"names are missing: {error}",)
    for companion in () if complete else evidence.companions:
        try:
            more = list(_defined(StaticSymbols(companion.elf).tls(), f".symtab of {companion.label}"))
            whole = bool(more) and has_all_names(companion.elf)
        except ElfError as error:
            remarks += (Remark("unread-evidence", f"names are missing: {error}"),)
            continue
        found = more + found
        complete = complete or whole
    if not complete:
        found.extend(_defined(elf.symbols.tls(), ".dynsym"))
    return found, complete, notes, remarks


def _defined(symbols: Iterable[TlsSymbol], source: str) -> Iterable[Variable]:
    for symbol in symbols:
        if symbol.shndx != SHN_UNDEF and symbol.name != _MARKER:
            yield Variable(symbol.offset, symbol.size, symbol.name, source, symbol.unit)
