"""The bill of one object: who owns which bytes of its TLS segment, and what forces the segment into the static block.

Bulk and trigger are two questions. The bulk is every variable's size, whoever uses it; the trigger is any variable, be
it of one byte, that is accessed as initial-exec.
"""

from __future__ import annotations

from dlwhy.attribute.accesses import accesses, explained
from dlwhy.attribute.companions import Remark
from dlwhy.attribute.evidence import NONE
from dlwhy.attribute.owners import names, shown
from dlwhy.attribute.sites import sites
from dlwhy.attribute.spans import with_spans
from dlwhy.attribute.triggers import Trigger, triggers
from dlwhy.attribute.variables import collect, unit
from dlwhy.elf.constants import DF_1_PIE, ET_EXEC
from dlwhy.elf.tls import tls_relocations
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.attribute.accesses import Access
    from dlwhy.attribute.declarations import Declaration
    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.ledger import Line
    from dlwhy.attribute.sites import Sites
    from dlwhy.attribute.type_chain import Part
    from dlwhy.attribute.variables import Variables
    from dlwhy.elf.file import Elf


LEAST = 512
"""Bytes of a variable from which on it is looked into."""


class Share(Record):
    """Bytes of a TLS segment and whose they are."""

    owner: str
    kind: str
    """crate, namespace, go, archive, unit or library."""
    bytes: int
    variable: str | None
    """Demangled; in `Bill.owners` None when no single variable has half of the owner's bytes."""
    unit: str | None
    """The source file, codegen unit, object or archive member that is named, as written; None where none is trusted."""
    evidence: str
    inside: tuple[Part, ...] = ()
    """Of a big variable: its type, then that of the largest member and so on, from debug information."""
    declared: Declaration | None = None
    """Where the source declares it, by debug information."""


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
    remarks: tuple[Remark, ...] = ()
    """What was found out about evidence that is not the object's own."""
    accesses: tuple[Access, ...] = ()
    """How the code reaches each variable; empty when it was not searched."""
    searched: int | None = None
    """Bytes of code that were searched; None when the code was not searched."""


def bill(elf: Elf, evidence: Evidence = NONE, code: bool = True, most: int | None = None) -> Bill:
    """Return the bill of an object, also of one without a TLS segment (its size is 0, and it may have triggers).

    Without `code` the instructions behind the relocations are not looked for. With `most` it is told whose they are of
    so many triggers, the first, and where it matters otherwise; of the others they are counted. Raises `ElfError` when
    headers or relocation tables leave the file. A damaged `.symtab` only costs names; `notes` tells.
    """
    found = sites(elf) if code else None
    variables = _with_insides(elf, evidence, with_spans(elf, collect(elf, evidence), found))
    ledger = variables.ledger
    shares = shares_of(variables)
    align = elf.tls.align if elf.tls else 0
    made = Bill(
        elf.path, ledger.memsz, align, "+".join(models(elf)) or "none", shares, ledger.padding, ledger.unattributed,
        triggers(elf, variables), by_owner(shares), variables.complete, variables.notes, variables.remarks,
    )  # fmt: skip
    return _with_code(made, elf, variables, evidence, found, most) if found is not None else made


def _with_insides(elf: Elf, evidence: Evidence, variables: Variables) -> Variables:
    """Return the variables with what debug information tells of them."""
    lines = [line for line in variables.ledger.lines if line.offset not in variables.spans]
    named = [line.variables[0] for line in lines if "sym" in line.variables[0].source]
    holders = (elf, *(one.elf for one in evidence.companions))
    if not named or not any(one.name == ".debug_info" for holder in holders for one in holder.sections):
        return variables
    from dlwhy.attribute.dwarf import insides

    told = insides(elf, evidence, named, LEAST)
    notes = variables.notes if told.note is None else (*variables.notes, told.note)
    remarks = variables.remarks if told.unknown is None else (
        *variables.remarks, Remark("unread-evidence", told.unknown)
    )  # fmt: skip
    return variables.but(insides=told.parts, declared=told.declared, notes=notes, remarks=remarks)


def _with_code(
    made: Bill, elf: Elf, variables: Variables, evidence: Evidence, found: Sites, most: int | None
) -> Bill:
    """Return the bill with the code behind its relocations, of the triggers that `bill` says."""
    if found.missing is not None:
        return made.but(notes=(*made.notes, f"the accesses behind the relocations are not counted: {found.missing}"))
    only = None if most is None else _telling(made, most)
    forced = explained(elf, made.triggers, found, variables.library, evidence.but(map=variables.map), only)
    return made.but(triggers=forced, accesses=accesses(elf, found, variables), searched=found.searched)


def _telling(made: Bill, most: int) -> set[Trigger] | None:
    """Return the first triggers and those whose own name the code tells; None, all, where their users decide more.

    That is with crates of which no variable is a trigger (remarks, flag-cannot-help).
    """
    owners = {one.owner for one in made.triggers if one.own}
    crates = {share.owner for share in made.shares if share.kind == "crate"}
    if owners and crates and not crates & owners:
        return None
    return {*made.triggers[:most], *(one for one in made.triggers if one.variable is None)}


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


def shares_of(variables: Variables) -> tuple[Share, ...]:
    """Return one share per variable; the parts of one `thread_local!` (value and state) are one variable."""
    lines = variables.ledger.lines
    titles: dict[str, str | None] = dict(names({line.variables[0].name for line in lines} - {""}))
    merged: dict[tuple[str, str, str | None, str | None], Share] = {}
    counts: dict[tuple[str, str, str | None, str | None], int] = {}
    for line in lines:
        share = _share(line, variables, titles.get(line.variables[0].name))
        key = (share.owner, share.kind, share.variable, share.unit)
        known = merged.get(key)
        merged[key] = share if known is None else known.but(
            bytes=known.bytes + share.bytes, inside=known.inside or share.inside,
            declared=known.declared or share.declared,
        )  # fmt: skip
        counts[key] = counts.get(key, 0) + 1
    for key, count in counts.items():
        if count > 1:
            merged[key] = merged[key].but(
                evidence=f"{merged[key].evidence}, {count} {'symbols' if key[2] else 'pieces'}"
            )
    return tuple(sorted(merged.values(), key=_order))


def _share(line: Line, variables: Variables, title: str | None) -> Share:
    whose = variables.owner(line.variables)
    file = unit(line.variables)
    evidence = whose.evidence
    origin = variables.origin(line.offset)
    if origin is not None and variables.map is not None:
        file = file or shown(origin.rpartition("/")[2])
        where = f"{shown(origin.rpartition('/')[2])} in the {variables.map.linker} map"
        evidence = f"{evidence}, {where}" if evidence else where
    first = line.variables[0].offset
    inside, declared = variables.insides.get(first, ()), variables.declared.get(first)
    return Share(whose.name, whose.kind, line.bytes, title, file, evidence, inside, declared)
