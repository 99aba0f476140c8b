"""Changes: what differs in TLS between two files, by owner, by variable, by trigger, each with why it is in there.

A name is compared, never an address: variables as they were written in the source, without the hashes that compilers
put into symbols, so that builds by different compilers compare. Rule 1: the bytes of all lines, padding and unnamed
bytes add up to the difference of the segments. Rule 2: what seems new may have been among bytes without a name; where
there are any, the line says "assumed".
"""

from __future__ import annotations

from dlwhy.pairs import family
from dlwhy.record import Record
from dlwhy.report import ASSUMED, COMPUTED, Finding
from dlwhy.report_diff import ProvenanceChange, ShareChange, TlsSide, TriggerChange

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.report_tls import Provenance, Share, TlsFile, Trigger

_BEST_FIRST = ("crate", "namespace", "go", "archive", "unit", "library")
"""Kinds of owners: one that a name tells before one that only a file symbol tells, the library itself last."""

_FILES = ("archive", "unit", "library")
"""Kinds that are names of files, which are called otherwise in the next build."""


class TlsChange(Record):
    """All that differs between the TLS of two files, as the report has it (`FileChange`)."""

    old: TlsSide | None
    new: TlsSide | None
    bytes: int
    owners: tuple[ShareChange, ...]
    variables: tuple[ShareChange, ...]
    padding: int
    unattributed: int
    triggers: tuple[TriggerChange, ...]
    provenance: tuple[ProvenanceChange, ...]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def changes(old: TlsFile | None, new: TlsFile | None) -> TlsChange:
    """Return what differs; None is a file that is not there."""
    old, new = _without_places(old), _without_places(new)
    before, after = _side(old), _side(new)
    variables, owners = _shares(old, new)
    triggers = _triggers(old, new)
    gap = (after.padding if after else 0) - (before.padding if before else 0)
    unnamed = (after.unattributed if after else 0) - (before.unattributed if before else 0)
    known = {one.rule for one in old.findings} if old is not None else set()
    return TlsChange(
        before, after, (after.size if after else 0) - (before.size if before else 0), owners, variables, gap, unnamed,
        triggers, _provenance(old, new, owners, triggers),
        tuple(one for one in (new.findings if new is not None else ()) if one.rule not in known),
        _notes(old, new),
    )  # fmt: skip


def _without_places(file: TlsFile | None) -> TlsFile | None:
    """Count what only code tells of as without a name: from one build to the next a place means nothing."""
    if file is None or file.tls is None:
        return file
    bill = file.tls
    places = {one.variable: one.bytes for one in bill.shares if one.kind == "place"}
    if not places:
        return file
    shares = tuple(one for one in bill.shares if one.kind != "place")
    owners = tuple(one for one in bill.owners if one.kind != "place")
    triggers = tuple(one.but(variable=None) if one.variable in places else one for one in file.triggers)
    left = bill.but(shares=shares, owners=owners, unattributed=bill.unattributed + sum(places.values()))
    return file.but(tls=left, triggers=triggers)


def _side(file: TlsFile | None) -> TlsSide | None:
    if file is None:
        return None
    bill = file.tls
    if bill is None:
        return TlsSide(0, 0, "none", False, 0, 0)
    static = any(one.own for one in file.triggers) or bill.model.endswith("local-exec")
    return TlsSide(bill.size, bill.align, bill.model, static, bill.padding, bill.unattributed)


def _notes(old: TlsFile | None, new: TlsFile | None) -> tuple[str, ...]:
    """What could not be read of either; what is said of both is said once."""
    found = [one.tls.notes if one is not None and one.tls is not None else () for one in (old, new)]
    return tuple(dict.fromkeys((*found[0], *found[1])))


# -- bytes -------------------------------------------------------------------------------------------------------------


def _shares(
    old: TlsFile | None, new: TlsFile | None
) -> tuple[tuple[ShareChange, ...], tuple[ShareChange, ...]]:
    """What differs by variable, and by owner."""
    bills = [one.tls if one is not None else None for one in (old, new)]
    before, after = (list(bill.shares) if bill is not None else [] for bill in bills)
    unnamed = [bill.unattributed if bill is not None else 0 for bill in bills]
    before, after = _agreed(before, after)

    def compared(key: int) -> tuple[ShareChange, ...]:
        sums = [_sums(side, key) for side in (before, after)]
        lines = []
        for at in dict.fromkeys((*sums[1], *sums[0])):
            was, now = (side.get(at, (0, None, None)) for side in sums)
            share = now[1] or was[1]
            assert share is not None
            presence = "both" if was[1] and now[1] else "new" if now[1] else "gone"
            hidden = {"new": unnamed[0], "gone": unnamed[1]}.get(presence, 0 if key == 3 else sum(unnamed))
            variable = share.variable if key == 3 else (now[2] or was[2])
            lines.append(ShareChange(
                share.owner, share.kind, variable, now[0] - was[0], was[0], now[0], presence,
                ASSUMED if hidden else COMPUTED,
            ))  # fmt: skip
        kept = [one for one in lines if one.bytes]
        return tuple(sorted(kept, key=lambda one: (-one.bytes, one.owner, one.variable or "")))

    return compared(3), compared(2)


def _sums(shares: list[Share], key: int) -> dict[tuple[object, ...], tuple[int, Share, str | None]]:
    """Bytes of each owner (`key` 2) or variable (3), with a share of it and the largest variable."""
    found: dict[tuple[object, ...], tuple[int, Share, str | None]] = {}
    for one in shares:  # the largest first
        at = (family(one.owner) if one.kind == "library" else one.owner, one.kind, one.variable)[:key]
        size, first, variable = found.get(at, (0, one, one.variable))
        found[at] = (size + one.bytes, first, variable)
    return found


def _agreed(old: list[Share], new: list[Share]) -> tuple[list[Share], list[Share]]:
    """Both lists with one owner for a variable that only the evidence gives to different ones: the one told better."""
    names = [{}, {}]  # type: list[dict[str, list[Share]]]
    for shares, found in zip((old, new), names, strict=True):
        for one in shares:
            if one.variable is not None:
                found.setdefault(one.variable, []).append(one)
    better = {}
    for name, (here, *more) in names[0].items():
        there = names[1].get(name, ())
        if more or len(there) != 1 or (here.owner, here.kind) == (there[0].owner, there[0].kind):
            continue
        ranks = [_BEST_FIRST.index(one.kind) for one in (there[0], here)]
        if ranks[0] != ranks[1] or here.kind in _FILES:
            better[name] = here if ranks[1] < ranks[0] else there[0]
    return tuple(  # type: ignore[return-value]
        [one.but(owner=better[one.variable].owner, kind=better[one.variable].kind) if one.variable in better else one
         for one in shares]
        for shares in (old, new)
    )  # fmt: skip


# -- triggers ----------------------------------------------------------------------------------------------------------


def _triggers(old: TlsFile | None, new: TlsFile | None) -> tuple[TriggerChange, ...]:
    sides = [_by_variable(one.triggers if one is not None else ()) for one in (old, new)]
    lines = []
    for at in dict.fromkeys((*sides[1], *sides[0])):
        was, now = (side.get(at) for side in sides)
        shown = now or was
        assert shown is not None
        presence = "both" if was and now else "new" if now else "gone"
        counts = [one.accesses if one is not None else 0 for one in (was, now)]
        more = counts[1] - counts[0] if counts[0] is not None and counts[1] is not None else None
        if presence == "both" and not more:
            continue
        other = sides[0] if presence == "new" else sides[1] if presence == "gone" else {}
        nameless = (at[0] is None and bool(other)) or (None, shown.own) in other
        lines.append(TriggerChange(presence, shown, more, ASSUMED if nameless else COMPUTED))
    order = {"new": 0, "gone": 1, "both": 2}
    return tuple(sorted(lines, key=lambda one: (order[one.presence], not one.trigger.own, -abs(one.accesses or 0))))


def _by_variable(found: Iterable[Trigger]) -> dict[tuple[str | None, bool], Trigger]:
    """Triggers by variable; those that share a name, or have none, are added up."""
    sums: dict[tuple[str | None, bool], Trigger] = {}
    for one in found:
        at = (one.variable, one.own)
        known = sums.get(at)
        if known is not None:
            places = None if known.accesses is None or one.accesses is None else known.accesses + one.accesses
            sums[at] = known.but(accesses=places, relocations=known.relocations + one.relocations)
        else:
            sums[at] = one
    return sums


# -- provenance --------------------------------------------------------------------------------------------------------


def _provenance(
    old: TlsFile | None, new: TlsFile | None, owners: tuple[ShareChange, ...], triggers: tuple[TriggerChange, ...]
) -> tuple[ProvenanceChange, ...]:
    """Why what differs is in there, in the order of the bytes; then owners whose way or version alone differs."""
    told = [_told(one) for one in (old, new)]
    differ = [one.owner for one in owners] + [one.trigger.owner for one in triggers]
    lines = []
    for owner in dict.fromkeys((*differ, *told[1], *told[0])):
        was, now = (side.get(owner, ()) for side in told)
        if (was or now) and (owner in differ or _ways(was) != _ways(now)):
            lines.append(ProvenanceChange(owner or (now or was)[0].owner, was, now))
    return tuple(lines)


def _told(file: TlsFile | None) -> dict[str, tuple[Provenance, ...]]:
    """What tells of each owner; what is said of the file itself goes by "", since files are called differently."""
    found: dict[str, tuple[Provenance, ...]] = {}
    bill = file.tls if file is not None else None
    if bill is None:
        return found
    itself = bill.object.rpartition("/")[2]
    for one in bill.provenance:
        owner = "" if one.owner == itself else one.owner
        found[owner] = (*found.get(owner, ()), one)
    return found


def _ways(found: tuple[Provenance, ...]) -> list[tuple[str | None, tuple[str, ...]]]:
    return [(one.version, one.path) for one in found]
