"""The bill of one object: who owns which bytes of its TLS segment, and what forces the segment into the static block.

Bulk and trigger are two questions. The bulk is every variable's size, whoever uses it. The trigger is a relocation of
the initial-exec kind (TPOFF): one of them, for one variable of a few bytes, takes the whole segment of the object that
defines this variable into the static block (ELF TLS ch. 4; glibc elf/dl-reloc.c, _dl_allocate_static_tls). That object
may be another one: then the variable is undefined here, and this object is a trigger without being the victim.
"""

from __future__ import annotations

from bisect import bisect_right

from dlwhy.attribute.ledger import Variable, balance
from dlwhy.attribute.owners import FOREIGN, Owner, names, owner
from dlwhy.elf.constants import (
    DF_1_PIE,
    DT_PLTREL,
    DT_REL,
    ET_EXEC,
    ET_REL,
    SHF_TLS,
    SHN_UNDEF,
    SHT_SYMTAB,
    STT_FILE,
    STT_SECTION,
)
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from dlwhy.attribute.ledger import Ledger
    from dlwhy.elf.file import Elf, TlsSegment
    from dlwhy.elf.relocs import Relocation
    from dlwhy.elf.symbols import TlsSymbol

_MARKER = "_TLS_MODULE_BASE_"
"""A linker's own symbol for the start of the segment: no variable."""

_PIECE = 1024
"""Symbols looked at in one read."""
_FILE_OR_SECTION = bytes((STT_SECTION, STT_FILE))


class Share(Record):
    """Bytes of a TLS segment and whose they are."""

    owner: str
    kind: str
    """crate, namespace, go, unit or library."""
    bytes: int
    variable: str | None
    """Demangled; in `Bill.owners` None when no single variable has half of the owner's bytes."""
    unit: str | None
    """The source file or codegen unit that the symbol table names, as written."""
    evidence: str


class Trigger(Record):
    """Relocations that force one variable's segment into the static block."""

    owner: str
    variable: str | None
    """Demangled; None when the symbol tables have no name for it."""
    relocation: str
    """As in <elf.h>, e.g. R_X86_64_TPOFF64."""
    accesses: int | None
    functions: tuple[str, ...]
    object: str
    """The object that holds the relocations."""
    relocations: int
    """How many there are: each is one slot, which any number of instructions may use."""
    own: bool
    """Whether the object defines the variable; else another module does, and its segment is what must move."""
    symbol: str | None
    """The symbol that the relocations name, as written; None when they name none (a local variable)."""
    offset: int | None
    """Of an own variable: bytes from the start of the segment."""


class Bill(Record):
    """One object's TLS segment: the bytes of `shares` (or of `owners`), padding and unattributed add up to `size`."""

    object: str
    size: int
    """p_memsz in bytes; 0 without a TLS segment."""
    align: int
    model: str
    """Access models that leave a trace in the relocations, joined by "+"; "none" without any."""
    shares: tuple[Share, ...]
    """One per variable, the largest first."""
    padding: int
    unattributed: int
    triggers: tuple[Trigger, ...]
    """Initial-exec relocations by variable, own ones first."""
    owners: tuple[Share, ...]
    """The shares added up by owner, the largest first."""
    complete: bool
    """Whether a full symbol table was seen: then only padding can be without a name."""
    notes: tuple[str, ...]
    """What could not be read, one sentence each."""


def bill(elf: Elf) -> Bill:
    """Return the bill of an object, also of one without a TLS segment (its size is 0, and it may have triggers).

    Raises `ElfError` when headers or relocation tables leave the file. A damaged `.symtab` only costs names; `notes`
    tells.
    """
    segment = elf.tls
    library = library_name(elf)
    variables, complete, notes = _variables(elf) if segment else ([], False, ())
    ledger = _ledger(elf, segment, variables, complete)
    shares = _shares(ledger, library)
    triggers = _triggers(elf, segment, _by_offset(ledger, variables), library)
    align = segment.align if segment else 0
    return Bill(
        elf.path, ledger.memsz, align, "+".join(models(elf)) or "none", shares, ledger.padding, ledger.unattributed,
        triggers, by_owner(shares), complete, notes,
    )  # fmt: skip


def library_name(elf: Elf) -> str:
    """Return what to call an object: its soname, else the last part of its path."""
    try:
        soname = elf.dynamic.soname if elf.dynamic else None
    except ElfError:
        soname = None
    return soname or elf.path.rpartition("/")[2]


def models(elf: Elf) -> tuple[str, ...]:
    """Return the access models of an object: those its relocations show, and local-exec for a program's own variables.

    A program reaches its own variables at offsets that the linker knew (ELF TLS 4.1.4), so nothing but the segment
    itself tells. Raises `ElfError` when a relocation table leaves the file.
    """
    found = tls_relocations(elf).models
    if elf.tls and (elf.type == ET_EXEC or (elf.dynamic is not None and elf.dynamic.flags_1 & DF_1_PIE)):
        return (*found, "local-exec")
    return found


def by_owner(shares: Sequence[Share]) -> tuple[Share, ...]:
    """Return the shares added up by owner, the largest first; of each the variable that has at least half of it."""
    groups: dict[tuple[str, str], list[Share]] = {}
    for share in shares:
        groups.setdefault((share.owner, share.kind), []).append(share)
    result = []
    for (name, kind), group in groups.items():
        total = sum(share.bytes for share in group)
        first = max(group, key=lambda share: share.bytes)
        main = first if 2 * first.bytes >= total else None
        unit = main.unit if main else group[0].unit if len({share.unit for share in group}) == 1 else None
        result.append(Share(name, kind, total, main.variable if main else None, unit, first.evidence))
    return tuple(sorted(result, key=_order))


def _order(share: Share) -> tuple[int, str, str]:
    return (-share.bytes, share.owner, share.variable or "")


# -- the bulk ----------------------------------------------------------------------------------------------------------


def _variables(elf: Elf) -> tuple[list[Variable], bool, tuple[str, ...]]:
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


def _ledger(elf: Elf, segment: TlsSegment | None, variables: list[Variable], complete: bool) -> Ledger:
    if segment is None or elf.type == ET_REL:
        return balance(0, 0, 0, ())
    sections = [(s.addr, s.size) for s in elf.sections if s.flags & SHF_TLS]
    return balance(segment.memsz, segment.vaddr, segment.align, variables, sections, complete)


def _owner(aliases: tuple[Variable, ...], library: str) -> Owner:
    first = aliases[0]
    unit = next((one.unit for one in aliases if one.unit), None)
    return owner(first.name, unit, first.source, library)


def _shares(ledger: Ledger, library: str) -> tuple[Share, ...]:
    """Return one share per variable; the parts of one `thread_local!` (value and state) are one variable."""
    titles = names({line.variables[0].name for line in ledger.lines})
    merged: dict[tuple[str, str, str, str | None], Share] = {}
    counts: dict[tuple[str, str, str, str | None], int] = {}
    for line in ledger.lines:
        whose = _owner(line.variables, library)
        title = titles[line.variables[0].name]
        unit = line.variables[0].unit or None
        key = (whose.name, whose.kind, title, unit)
        share = merged.get(key) or Share(whose.name, whose.kind, 0, title, unit, whose.evidence)
        merged[key] = share.but(bytes=share.bytes + line.bytes)
        counts[key] = counts.get(key, 0) + 1
    for key, count in counts.items():
        if count > 1:
            merged[key] = merged[key].but(evidence=f"{merged[key].evidence}, {count} symbols")
    return tuple(sorted(merged.values(), key=_order))


# -- the trigger -------------------------------------------------------------------------------------------------------


def _triggers(
    elf: Elf, segment: TlsSegment | None, variable_at: Callable[[int], tuple[Variable, ...]], library: str
) -> tuple[Trigger, ...]:
    row = elf.row
    if row is None:
        return ()
    targets: dict[tuple[int, int], tuple[str | None, int | None]] = {}
    counts: dict[tuple[str | None, int | None, int], int] = {}  # by target and relocation type
    for relocation, table in tls_relocations(elf).tpoff:
        addend = _stored_addend(elf, relocation) if _in_place(elf, table) else relocation.addend
        where = (relocation.symbol, addend)
        if where not in targets:
            targets[where] = _target(elf, segment, relocation.symbol, addend)
        key = (*targets[where], relocation.type)
        counts[key] = counts.get(key, 0) + 1
    meant = {key: variable_at(key[1]) if key[1] is not None else () for key in counts}
    titles = names({one[0].name for one in meant.values() if one} | {key[0] for key in counts if key[0]})
    result = []
    for key, count in counts.items():
        symbol, offset, kind = key
        aliases = meant[key]
        known = aliases[0].name if aliases else symbol
        if aliases:
            whose = _owner(aliases, library).name
        else:
            here = library if offset is not None else FOREIGN
            whose = owner(symbol, None, ".dynsym", here).name if symbol else here
        title = titles[known] if known else None
        name = row.names.get(kind, f"relocation {kind}")
        result.append(Trigger(whose, title, name, None, (), elf.path, count, offset is not None, symbol, offset))
    return tuple(sorted(result, key=lambda one: (not one.own, -one.relocations, one.variable or "", one.offset or 0)))


def _by_offset(ledger: Ledger, variables: list[Variable]) -> Callable[[int], tuple[Variable, ...]]:
    """Return how to find the variable at an offset: the one that starts there, else the one that covers it."""
    starts: dict[int, tuple[Variable, ...]] = {one.offset: (one,) for one in variables if one.name}
    starts.update((line.variables[0].offset, line.variables) for line in reversed(ledger.lines))
    places = [line.offset for line in ledger.lines]

    def find(offset: int) -> tuple[Variable, ...]:
        if offset in starts:
            return starts[offset]
        line = ledger.lines[bisect_right(places, offset) - 1] if places else None
        return line.variables if line is not None and line.offset <= offset < line.offset + line.bytes else ()

    return find


def _target(elf: Elf, segment: TlsSegment | None, symbol: int, addend: int) -> tuple[str | None, int | None]:
    """Return (symbol name, offset in the own segment); the offset is None for another module's variable."""
    if not symbol:
        return None, addend
    try:
        found = elf.symbols.symbol(symbol)
    except ElfError:  # an index behind the table: the loader would read whatever stands there
        return None, None
    name = found.name.decode("utf-8", "surrogateescape")
    if found.shndx == SHN_UNDEF:
        return name, None
    base = segment.vaddr if segment and found.type == STT_SECTION else 0
    return name, found.value - base + addend


def _in_place(elf: Elf, table: str) -> bool:
    """Whether the entries of a relocation table leave their addend where they apply (gABI ch. 4, REL)."""
    tags = elf.dynamic.tags if elf.dynamic else {}
    return table == "DT_REL" or (table == "DT_JMPREL" and tags.get(DT_PLTREL) == DT_REL)


def _stored_addend(elf: Elf, relocation: Relocation) -> int:
    """Return the addend of a REL entry, which stands where it applies; 0 when nothing of the file is there."""
    word = elf.layout.word
    try:
        (addend,) = word.unpack(elf.at(relocation.offset, word.size))
    except ElfError:
        return 0
    return int(addend)
