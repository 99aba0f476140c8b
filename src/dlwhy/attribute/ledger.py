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
    """Where the name comes from: `.symtab` or `.dynsym`."""
    unit: str | None
    """The STT_FILE symbol before it, as written."""


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


def balance(
    memsz: int,
    vaddr: int,
    align: int,
    variables: Iterable[Variable],
    sections: Sequence[tuple[int, int]] = (),
    complete: bool = False,
) -> Ledger:
    """Return the ledger of a TLS segment of `memsz` bytes linked at `vaddr` with alignment `align`.

    `sections` are the (address, size) of the SHF_TLS sections, empty when not known. `complete` says whether
    `variables` come from a full symbol table, so that what no variable covers is not merely unnamed.
    """
    covered = _merged((address - vaddr, size) for address, size in sections) if len(sections) <= MAX_SECTIONS else []
    covered = _clipped(covered, 0, memsz)
    lines = []
    padding = unattributed = position = 0
    for group in _aliases(variables, memsz):
        start = group[0].offset
        if start > position:
            pad = _padding(position, start, covered, _alignment(vaddr + start, align), align, complete)
            padding += pad
            unattributed += start - position - pad
            position = start
        end = min(start + group[0].size, memsz)
        if end > position:
            lines.append(Line(position, end - position, group))
            position = end
    if memsz > position:
        pad = _padding(position, memsz, covered, max(TAIL, align), align, complete)
        padding += pad
        unattributed += memsz - position - pad
    assert sum(line.bytes for line in lines) + padding + unattributed == memsz
    return Ledger(memsz, tuple(lines), padding, unattributed)


def _aliases(variables: Iterable[Variable], memsz: int) -> list[tuple[Variable, ...]]:
    """Return the variables inside the segment, equal (offset, size) together, by offset and longest first."""
    groups: dict[tuple[int, int], list[Variable]] = {}
    for variable in variables:
        if variable.size > 0 and 0 <= variable.offset < memsz and variable.name:
            groups.setdefault((variable.offset, -variable.size), []).append(variable)
    return [tuple(sorted(groups[key], key=_plainest)) for key in sorted(groups)]


def _plainest(variable: Variable) -> tuple[bool, bool, int, int, str]:
    """Sort key among aliases: with a unit, without version, without leading underscores, short."""
    name = variable.name
    return (not variable.unit, "@" in name, len(name) - len(name.lstrip("_")), len(name), name[:256])


def _alignment(address: int, most: int) -> int:
    """Return the alignment that an address shows: its lowest set bit, but no more than the segment has."""
    return min(address & -address or most, max(most, 1))


def _padding(start: int, end: int, covered: list[tuple[int, int]], align: int, most: int, complete: bool) -> int:
    """Return how many of the bytes [start, end), which no variable covers, are surely padding.

    `align` is what the variable behind the gap (or the end of the segment) asks for, `most` what the segment does.
    """
    limit = max(TAIL, most)
    padding = 0
    place = start
    for low, high in _clipped(covered, start, end):
        if low - place < limit:  # between sections
            padding += low - place
        inside = high - low
        first = not low or any(low == section for section, _ in covered)  # no variable before it: no reason to pad
        if complete and not first and inside < (align if high == end else limit):
            padding += inside
        place = high
    if covered:
        return padding + (end - place if end - place < limit else 0)
    return end - start if complete and start and end - start < align else 0


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
