"""The relocations that force a TLS segment into the static block.

The trigger is a relocation of the initial-exec kind (TPOFF): one of them, for one variable of a few bytes, takes the
whole segment of the object that defines this variable into the static block (ELF TLS ch. 4; glibc elf/dl-reloc.c,
_dl_allocate_static_tls). That object may be another one: then the variable is undefined here, and this object is a
trigger without being the victim.
"""

from __future__ import annotations

from dlwhy.attribute.evidence import NONE
from dlwhy.attribute.owners import FOREIGN, names, owner
from dlwhy.attribute.variables import collect
from dlwhy.elf.constants import DT_PLTREL, DT_REL, SHN_UNDEF, STT_SECTION
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.accesses import User
    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.variables import Variables
    from dlwhy.elf.file import Elf
    from dlwhy.elf.relocs import Relocation


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
    functions_total: int | None = None
    """How many functions have such a place; None when that was not looked for."""
    users: tuple[User, ...] = ()
    """Whose code uses them, by owner."""
    rewritable: int = 0
    """Places that GNU ld writes for innocent accesses too, when another access in the link is initial-exec."""
    objects: tuple[Part, ...] = ()
    """Which objects of the link have them, as the linker's map tells."""


class Part(Record):
    """An object file or archive member whose code accesses a trigger's variable."""

    file: str
    """OBJECT or ARCHIVE(MEMBER), as the linker was given it."""
    accesses: int
    rewritable: int
    """Those of them that the linker may have made of dynamic ones: with all of them the object may be innocent."""


def triggers(elf: Elf, variables: Variables) -> tuple[Trigger, ...]:
    """Return the initial-exec relocations of an object by variable, those of its own variables first.

    `variables` are the object's own. Raises `ElfError` when a relocation table leaves the file.
    """
    row = elf.row
    if row is None:
        return ()
    targets: dict[tuple[int, int], tuple[str | None, int | None]] = {}
    counts: dict[tuple[str | None, int | None, int], int] = {}  # by target and relocation type
    known: dict[bytes, str] = {}  # many symbols may share one name of a megabyte: it becomes one string
    for relocation, table in tls_relocations(elf).tpoff:
        addend = _addend(elf, relocation, table)
        where = (relocation.symbol, addend)
        if where not in targets:
            targets[where] = _target(elf, relocation.symbol, addend, known)
        key = (*targets[where], relocation.type)
        counts[key] = counts.get(key, 0) + 1
    meant = {key: variables.at(key[1]) if key[1] is not None else () for key in counts}
    titles = names({one[0].name for one in meant.values() if one} | {key[0] for key in counts if key[0]})
    result = []
    for key, count in counts.items():
        symbol, offset, kind = key
        aliases = meant[key]
        written = aliases[0].name if aliases else symbol
        if aliases:
            whose = variables.owner(aliases).name
        else:
            here = variables.library if offset is not None else FOREIGN
            whose = owner(symbol, None, ".dynsym", here).name if symbol else here
        title = titles[written] if written else None
        name = row.names.get(kind, f"relocation {kind}")
        result.append(Trigger(whose, title, name, None, (), elf.path, count, offset is not None, symbol, offset))
    return tuple(sorted(result, key=lambda one: (not one.own, -one.relocations, one.variable or "", one.offset or 0)))


def triggers_into(user: Elf, provider: Elf, evidence: Evidence = NONE) -> tuple[Trigger, ...]:
    """Return those triggers of `user` whose variable `provider` defines, named as the tables of `provider` tell.

    `evidence` is what else is known of `provider`.
    That the loader binds the one to the other is for the caller to know. Raises `ElfError` as `triggers` does.
    """
    wanted = [one for one in triggers(user, collect(user)) if not one.own and one.symbol is not None]
    if not wanted:
        return ()
    variables = collect(provider, evidence)
    places = {symbol.name: symbol.offset for symbol in provider.symbols.tls() if symbol.shndx != SHN_UNDEF}
    result = []
    for one in wanted:
        assert one.symbol is not None
        if one.symbol in places:
            aliases = variables.at(places[one.symbol])
            whose = variables.owner(aliases).name if aliases else variables.library
            result.append(one.but(owner=whose))
    return tuple(result)


def target(elf: Elf, relocation: Relocation, table: str, known: dict[bytes, str]) -> tuple[str | None, int | None]:
    """Return (symbol name, offset in the own segment) of what a relocation of `table` is about.

    The offset is None for another module's variable. `known` keeps the names that were decoded already.
    """
    return _target(elf, relocation.symbol, _addend(elf, relocation, table), known)


def _addend(elf: Elf, relocation: Relocation, table: str) -> int:
    return _stored_addend(elf, relocation) if _in_place(elf, table) else relocation.addend


def _target(elf: Elf, symbol: int, addend: int, known: dict[bytes, str]) -> tuple[str | None, int | None]:
    """Return (symbol name, offset in the own segment); the offset is None for another module's variable."""
    if not symbol:
        return None, addend
    try:
        found = elf.symbols.symbol(symbol)
    except ElfError:  # an index behind the table: the loader would read whatever stands there
        return None, None
    name = known.get(found.name)
    if name is None:
        name = known[found.name] = found.name.decode("utf-8", "surrogateescape")
    if found.shndx == SHN_UNDEF:
        return name, None
    segment = elf.tls
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
