"""Spans: bytes without a name, told by the places in them that code reaches. For stripped files.

A span goes from one known place to the next, and to the end of its section. Where a place is surely the start of a
variable its span is, if nobody is between that the code never reaches, the variable; where it is only touched, it may
be a member of the variable before it. So the sum of a file's spans is right, and each is a lower bound of something.
"""

from __future__ import annotations

from bisect import bisect_right

from dlwhy.attribute.functions import locate
from dlwhy.attribute.ledger import Claims, Variable, filled
from dlwhy.attribute.owners import RUNTIME, Owner, owner, package
from dlwhy.attribute.slots import slots
from dlwhy.attribute.touched import START, places
from dlwhy.elf.constants import SHF_TLS
from dlwhy.errors import ElfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.functions import Function
    from dlwhy.attribute.sites import Sites
    from dlwhy.attribute.variables import Variables
    from dlwhy.elf.file import Elf, TlsSegment

SEEN = "the code"
"""Source of what only places that code reaches tell."""
_MOST_LOCATED = 256
"""Accesses of one place whose functions are asked whose they are."""
_SURE = "begins here by a slot of the GOT, and its bytes go at least to the next known place"
_TOUCHED = "code touches this place: a variable or a member of the one before, counted to the next known place"


def span_name(offset: int) -> str:
    """Return what to call the bytes that begin at `offset` of the segment."""
    return f"variable at offset {offset:#x}"


def with_spans(elf: Elf, variables: Variables, found: Sites | None) -> Variables:
    """Return the variables with the bytes that had no name given to the places that code reaches.

    `found` are the access sites; None when the code was not searched. Raises `ElfError` when relocation tables leave
    the file.
    """
    segment, ledger = elf.tls, variables.ledger
    if segment is None or not ledger.unattributed or variables.complete:
        return variables  # where all symbols are left, what has none was made so, and no access is needed to see it
    known = places(elf, found.slots if found is not None else slots(elf), found, ledger.memsz)
    inside = [offset for offset in known if _contains(ledger.unnamed, offset)]
    if not inside:
        return variables
    cuts = sorted({*known, *_borders(elf, segment), ledger.memsz})
    made = []
    whose = {offset: _whose(elf, *known[offset], variables.library) for offset in inside}
    for offset in inside:
        # All that Go's compiler makes thread-local is the pointer to the running goroutine (cmd/internal/obj).
        name = "runtime.tlsg" if whose[offset].name == RUNTIME else span_name(offset)
        made.append(Variable(offset, cuts[bisect_right(cuts, offset)] - offset, name, SEEN, None))
    starts = {**{one.offset: (one,) for one in made}, **variables.by_start}
    after = filled(ledger, Claims(tuple(made), False))
    told = "code reaches them at one place" if len(made) == 1 else f"code reaches them at {len(made)} places"
    number = ledger.unattributed - after.unattributed
    note = f"{number} bytes have no name: {told}, counted up to the next or to the end"
    return variables.but(ledger=after, spans=whose, by_start=starts, notes=(*variables.notes, note))


def _contains(pieces: tuple[tuple[int, int], ...], offset: int) -> bool:
    index = bisect_right(pieces, (offset, 1 << 64)) - 1
    return index >= 0 and offset < pieces[index][1]


def _borders(elf: Elf, segment: TlsSegment) -> list[int]:
    """Return where in the segment a section begins, which no variable reaches across."""
    sections = [one.addr - segment.vaddr for one in elf.sections if one.flags & SHF_TLS and one.size]
    return [one for one in (*sections, segment.filesz) if 0 < one < segment.memsz]


def _whose(elf: Elf, sure: str, sites: list[int], library: str) -> Owner:
    """Return whose a span is: that of most functions that reach it, where they have a name that tells."""
    what = _SURE if sure == START else _TOUCHED
    step = -(-len(sites) // _MOST_LOCATED) or 1
    try:
        functions = locate(elf, sites[::step])
    except ElfError:
        functions = {}
    counts: dict[tuple[str, str], int] = {}
    for function in functions.values():
        told = _owner(function, library)
        if told is not None:
            counts[told] = counts.get(told, 0) + 1
    if not counts:
        return Owner(library, "place", what)
    (name, kind), number = max(counts.items(), key=lambda item: item[1])
    if 2 * number <= len(functions):
        return Owner(library, "place", what)
    return Owner(name, kind, f"{what}; {number} of {len(functions)} accesses looked at are in code of {name}")


def _owner(function: Function, library: str) -> tuple[str, str] | None:
    if function.name is None:
        return None
    told = package(function.name) if function.source == ".gopclntab" else owner(function.name, None, "", library)
    return None if told.kind == "library" and told.name == library else (told.name, told.kind)
