"""One object file, alone or in an archive: its thread-local variables, and how its code reaches whose.

An object file has no TLS segment, only sections that a linker will put into one; its relocations still say which
access model each compiler chose. So they are the best evidence of who forces a library's TLS into the static block: a
linker may take an initial-exec access away (in a program) but never makes the first one of a shared library.
"""

from __future__ import annotations

from dlwhy.attribute.bill import Bill, by_owner, shares_of
from dlwhy.attribute.companions import has_all_names
from dlwhy.attribute.ledger import Claims, Ledger, Line, Variable, balance
from dlwhy.attribute.linker_map import section_variable
from dlwhy.attribute.object_accesses import accesses_of, section_of, targets_of, triggers_of, uses_of
from dlwhy.attribute.object_models import OBJECTS, OFFSET, ORDER
from dlwhy.attribute.owners import origin_owner
from dlwhy.attribute.variables import Variables
from dlwhy.elf.constants import SHF_EXECINSTR, SHF_TLS, SHN_COMMON, SHN_UNDEF
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.bill import Share
    from dlwhy.elf.file import Elf, Section
    from dlwhy.elf.symbols import TlsSymbol

_LTO = ".gnu.lto_"


class ObjectBill(Record):
    """An object file's bill, and what else of it is worth knowing where it is one of many."""

    bill: Bill
    defines: dict[str, str]
    """Thread-local variables, as written, that other objects can refer to -> whose they are."""
    intermediate: bool
    """Whether its code is not machine code yet (link-time optimisation)."""


def object_bill(elf: Elf, name: str, archive: str | None = None) -> ObjectBill:
    """Return the bill of an object file called `name`, a member of `archive` if not None.

    Raises `ElfError` when its section headers, symbols or relocations leave the file.
    """
    if elf.shoff and not elf.sections:
        end = f"{elf.view.size:#x}"
        raise ElfError(elf.path, elf.shoff, f"its section headers lie outside the file, which ends at {end}")
    symbols = StaticSymbols(elf)
    found = symbols.tls()
    notes: tuple[str, ...] = ()
    variables, starts = _variables(elf, found, name, archive)
    shares = tuple(_by_name(one, name) for one in shares_of(variables))
    model = OBJECTS.get((elf.machine, elf.class_))
    if model is None:
        notes = (*notes, "the relocations of this machine are not read")
    uses = uses_of(elf, model or {})
    targets = targets_of(elf, symbols, uses, variables, starts)
    ordered = [one for one in ORDER if any(kind == one for kind, _ in uses) and one != OFFSET]
    align = max((one.addralign for one in elf.sections if one.flags & SHF_TLS and one.size), default=0)
    bill = Bill(
        elf.path, variables.ledger.memsz, align,
        "+".join(one.replace("TLSDESC", "tlsdesc") for one in ordered) or "none",
        shares, variables.ledger.padding, variables.ledger.unattributed,
        triggers_of(elf, symbols, uses, targets, name),
        by_owner(shares), variables.complete, notes, (), accesses_of(uses, targets),
        sum(one.size for one in elf.sections if one.flags & SHF_EXECINSTR) if model else None,
    )  # fmt: skip
    starting = {one.name: line.variables for line in variables.ledger.lines for one in line.variables}
    outside = {
        one.name: variables.owner(starting[one.name]).name
        for one in found
        if one.binding and one.shndx != SHN_UNDEF and one.name in starting
    }
    code = any(one.flags & SHF_EXECINSTR and one.size for one in elf.sections)
    return ObjectBill(bill, outside, not code and any(one.name.startswith(_LTO) for one in elf.sections))


def _by_name(share: Share, name: str) -> Share:
    """Say of a share that only the object file's name tells whose it is."""
    if share.kind == "library" and share.owner == name:
        return share.but(kind="unit", evidence="name of the object file")
    return share if share.evidence else share.but(evidence="name of the archive's member")


def _variables(
    elf: Elf, found: list[TlsSymbol], name: str, archive: str | None
) -> tuple[Variables, dict[int, int]]:
    """Return the variables, and where each TLS section's begin among them (section -> offset).

    The sections are set one behind the other, without the padding that a linker will put between them.
    """
    places = {number: one for number, one in enumerate(elf.sections) if one.flags & SHF_TLS and one.size}
    by_section: dict[int, list[Variable]] = {}
    common = []
    for one in found:
        variable = Variable(one.offset, one.size, one.name, ".symtab", one.unit)
        where = section_of(elf, one.index, one.shndx)
        if where == SHN_COMMON:  # st_value is the alignment of what gets its place from the linker (gABI ch. 4)
            common.append(variable.but(offset=0))
        elif where in places:
            by_section.setdefault(where, []).append(variable)
    try:
        complete = has_all_names(elf)
    except ElfError:
        complete = False
    ledgers = {
        number: balance(
            one.size, 0, max(one.addralign, 1), by_section.get(number, ()), (), complete, _claims(one)
        )
        for number, one in places.items()
    }  # fmt: skip
    starts: dict[int, int] = {}
    lines: list[Line] = []
    size = 0
    for number, ledger in ledgers.items():
        starts[number] = size
        lines += [line.but(offset=line.offset + size, variables=_moved(line.variables, size)) for line in ledger.lines]
        size += ledger.memsz
    for variable in common:
        if variable.size:
            lines.append(Line(size, variable.size, (variable.but(offset=size),)))
            size += variable.size
    whole = Ledger(
        size, tuple(lines), sum(one.padding for one in ledgers.values()),
        sum(one.unattributed for one in ledgers.values()),
    )  # fmt: skip
    by_start = {line.variables[0].offset: line.variables for line in reversed(lines)}
    file = f"{archive}({name})" if archive else name
    whose = origin_owner(file)
    made = Variables(
        name, whole, by_start, complete, (), file=file if whose is not None and whose.kind != "archive" else None
    )
    return made, starts


def _claims(section: Section) -> tuple[Claims, ...]:
    """What the name of a section of -fdata-sections says of its bytes."""
    variable = section_variable(section.name)
    if variable is None:
        return ()
    return (Claims((Variable(0, section.size, variable, "section name", None),), True),)


def _moved(variables: tuple[Variable, ...], by: int) -> tuple[Variable, ...]:
    return tuple(one.but(offset=one.offset + by) for one in variables)
