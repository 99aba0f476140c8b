"""The ledger of a TLS segment: every byte of p_memsz has exactly one place.

Symbols say where variables are; they may overlap, repeat, run past the segment or lie. The ledger sweeps once over
the segment and writes each byte down once: for the first variable that covers it, as padding, or as unattributed.

Rule 1: the lines always add up to p_memsz, whatever the file claims.
Rule 2: a gap is padding only when something says so: it lies between two TLS sections, or all variables are known (a
full symbol table), one stands before it, and alignment explains it. Otherwise a variable without a name may be in it.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TAIL = 16
"""Bytes that linkers round a TLS segment up to, when its own alignment asks for less."""

MAX_SECTIONS = 64
"""TLS sections that are believed; a linked file has two or three."""


class Variable(Record):
    """One thread-local variable as a symbol table describes it."""

    offset: int
    """Bytes from the start of the TLS segment."""
    size: int
    """Bytes, as st_size says."""
    name: str
    """As written in the symbol table."""
    source: str
    """Where the name comes from: `.symtab`, `.dynsym`, or a weaker source by a few words."""
    unit: str | None
    """The STT_FILE symbol before it, as written; of a weaker source what it names as the source file or object."""


class Line(Record):
    """One entry of the ledger: a variable and the bytes that are billed to it."""

    offset: int
    """Where the bytes billed here start: behind the variable's own start where an earlier one covers that."""
    bytes: int
    """What the variable adds to the segment: less than its size where it overlaps an earlier one or the end."""
    variables: tuple[Variable, ...]
    """The variable and its aliases, the one to show first; all have this offset and the same size."""


class Ledger(Record):
    """Where every byte of a TLS segment went. All figures in bytes."""

    memsz: int
    lines: tuple[Line, ...]
    """In order of offset."""
    padding: int
    unattributed: int
    unnamed: tuple[tuple[int, int], ...] = ()
    """The (start, end) of the bytes counted as unattributed, in order."""


class Claims(Record):
    """What one weaker source says of bytes that no symbol covers."""

    variables: tuple[Variable, ...]
    """Variables, or pieces of an object file (a section without a name of its own: then `Variable.name` is empty)."""
    whole: bool
    """Whether these are all there are: then what lies between them, and alignment explains it, is padding."""


def balance(
    memsz: int,
    vaddr: int,
    align: int,
    variables: Iterable[Variable],
    sections: Sequence[tuple[int, int]] = (),
    complete: bool = False,
    weaker: Sequence[Claims] = (),
) -> Ledger:
    """Return the ledger of a TLS segment of `memsz` bytes linked at `vaddr` with alignment `align`.

    `sections` are the (address, size) of the SHF_TLS sections, empty when not known. `complete` says whether
    `variables` come from a full symbol table, so that what no variable covers is not merely unnamed. `weaker` are
    further sources, the best first; each says something of those bytes only that all before it leave without a name.
    """
    covered = _merged((address - vaddr, size) for address, size in sections) if len(sections) <= MAX_SECTIONS else []
    covered = _clipped(covered, 0, memsz)
    lines, gaps = _sweep(_aliases(variables, memsz), 0, memsz)
    padding = 0
    unnamed: list[tuple[int, int]] = []
    for start, end in gaps:
        need = max(TAIL, align) if end == memsz else _alignment(vaddr + end, align)
        pad = _padding(start, end, covered, need, align, complete)
        padding += sum(high - low for low, high in pad)
        unnamed += _without(start, end, pad)
    for claims in weaker:
        groups = _aliases(claims.variables, memsz, unnamed_too=True)
        more, unnamed = _fill(groups, unnamed)
        lines += more
        if claims.whole and groups:
            left = [piece for piece in unnamed if piece[1] - piece[0] >= max(TAIL, align)]
            padding += sum(high - low for low, high in unnamed) - sum(high - low for low, high in left)
            unnamed = left
    lines.sort(key=lambda line: line.offset)
    unattributed = sum(high - low for low, high in unnamed)
    assert sum(line.bytes for line in lines) + padding + unattributed == memsz
    return Ledger(memsz, tuple(lines), padding, unattributed, tuple(unnamed))


def disorder(variables: Iterable[Variable], memsz: int) -> tuple[list[Variable], list[Variable]]:
    """Return the variables that reach beyond a segment of `memsz` bytes, and of the others those that begin in one.

    Of variables at one place with one size, and of those without a size or a name, nothing is said.
    """
    beyond: list[Variable] = []
    inside: list[Variable] = []
    for one in variables:
        if one.size > 0 and one.name:
            (inside if 0 <= one.offset <= memsz - one.size else beyond).append(one)
    across: list[Variable] = []
    before = (0, 0)
    end = 0
    for one in sorted(inside, key=lambda one: (one.offset, -one.size)):
        if one.offset < end and (one.offset, one.size) != before:
            across.append(one)
        before, end = (one.offset, one.size), max(end, one.offset + one.size)
    return beyond, across


def filled(ledger: Ledger, claims: Claims) -> Ledger:
    """Return a ledger in which one more source speaks of the bytes that had no name."""
    more, unnamed = _fill(_aliases(claims.variables, ledger.memsz), list(ledger.unnamed))
    lines = sorted((*ledger.lines, *more), key=lambda line: line.offset)
    unattributed = sum(high - low for low, high in unnamed)
    assert sum(line.bytes for line in lines) + ledger.padding + unattributed == ledger.memsz
    return Ledger(ledger.memsz, tuple(lines), ledger.padding, unattributed, tuple(unnamed))


def _sweep(
    groups: list[tuple[Variable, ...]], low: int, high: int, first: int = 0
) -> tuple[list[Line], list[tuple[int, int]]]:
    """Go over [low, high) once; the lines of what covers it first, and the (start, end) of what nothing covers.

    No group before number `first` reaches into it.
    """
    lines, gaps = [], []
    position = low
    for index in range(first, len(groups)):
        group = groups[index]
        start = group[0].offset
        if start >= high or position >= high:
            break
        if start > position:
            gaps.append((position, start))
            position = start
        end = min(start + group[0].size, high)
        if end > position:
            lines.append(Line(position, end - position, group))
            position = end
    if high > position:
        gaps.append((position, high))
    return lines, gaps


def _fill(
    groups: list[tuple[Variable, ...]], pieces: list[tuple[int, int]]
) -> tuple[list[Line], list[tuple[int, int]]]:
    """Write `groups` into disjoint `pieces`, both in order; the lines, and what of the pieces is left."""
    lines: list[Line] = []
    left: list[tuple[int, int]] = []
    ends: list[int] = []  # how far the groups up to each one reach
    for group in groups:
        ends.append(max(ends[-1] if ends else 0, group[0].offset + group[0].size))
    first = 0
    for low, high in pieces:
        while first < len(groups) and ends[first] <= low:
            first += 1
        more, gaps = _sweep(groups, low, high, first)
        lines += more
        left += gaps
    return lines, left


def _without(start: int, end: int, pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return what of [start, end) lies outside of disjoint `pieces`, which are inside it and in order."""
    result = []
    for low, high in pieces:
        if low > start:
            result.append((start, low))
        start = high
    return [*result, (start, end)] if end > start else result


def _aliases(variables: Iterable[Variable], memsz: int, unnamed_too: bool = False) -> list[tuple[Variable, ...]]:
    """Return the variables inside the segment, equal (offset, size) together, by offset and longest first."""
    groups: dict[tuple[int, int], list[Variable]] = {}
    for variable in variables:
        if variable.size > 0 and 0 <= variable.offset < memsz and (variable.name or unnamed_too):
            groups.setdefault((variable.offset, -variable.size), []).append(variable)
    return [tuple(sorted(groups[key], key=_plainest)) for key in sorted(groups)]


def _plainest(variable: Variable) -> tuple[bool, bool, bool, int, int, str]:
    """Sort key among aliases: with a name and unit, without version, without leading underscores, short."""
    name = variable.name
    return (not name, not variable.unit, "@" in name, len(name) - len(name.lstrip("_")), len(name), name[:256])


def _alignment(address: int, most: int) -> int:
    """Return the alignment that an address shows: its lowest set bit, but no more than the segment has."""
    return min(address & -address or most, max(most, 1))


def _padding(
    start: int, end: int, covered: list[tuple[int, int]], align: int, most: int, complete: bool
) -> list[tuple[int, int]]:
    """Return which of the bytes [start, end), which no variable covers, are surely padding, in order.

    `align` is what the variable behind the gap (or the end of the segment) asks for, `most` what the segment does.
    """
    limit = max(TAIL, most)
    padding = []
    place = start
    for low, high in _clipped(covered, start, end):
        if place < low < place + limit:  # between sections
            padding.append((place, low))
        first = not low or any(low == section for section, _ in covered)  # no variable before it: no reason to pad
        if complete and not first and high - low < (align if high == end else limit):
            padding.append((low, high))
        place = high
    if covered:
        return [*padding, (place, end)] if place < end < place + limit else padding
    return [(start, end)] if complete and start and end - start < align else []


def _merged(pieces: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (offset, size) pieces as disjoint (start, end) in order; those that only touch stay two."""
    result: list[tuple[int, int]] = []
    for start, size in sorted(pieces):
        if size <= 0:
            continue
        if result and start < result[-1][1]:
            result[-1] = (result[-1][0], max(result[-1][1], start + size))
        else:
            result.append((start, start + size))
    return result


def _clipped(pieces: list[tuple[int, int]], low: int, high: int) -> list[tuple[int, int]]:
    """Return what of the disjoint `pieces` lies in [low, high)."""
    return [(max(a, low), min(b, high)) for a, b in pieces if a < high and b > low]
