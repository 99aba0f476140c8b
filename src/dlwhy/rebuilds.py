"""What would fit if it were built with another release: of variables whose size in other releases is known.

The size is another build's, so the outcome is assumed; that so many bytes fit is the loader's arithmetic.
"""

from __future__ import annotations

from dlwhy.loader.tls import Layout, StaticTls
from dlwhy.report import ASSUMED, LOADS, Cure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.report_tls import TlsObject
    from dlwhy.verdict import Run


def rebuilds(run: Run, bills: tuple[TlsObject, ...]) -> tuple[Cure, ...]:
    """Return a cure for each known suspect in the object that lacks space, whose other releases are small enough."""
    process = run.process
    if process is None or process.static is None or process.lacking is None:
        return ()
    used, segment = process.lacking
    block = Layout((), used, process.static.align, process.static.size)
    cures = []
    for bill in bills:
        if bill.size != segment.memsz:
            continue
        for title, now, then in _smaller(bill):
            room = StaticTls(block, process.static.variant, None)
            if room.place(segment.but(memsz=segment.memsz - now + then)) is not None:
                told = f"{title}: {then} bytes instead of {now}"
                proof = {"outcome": LOADS, "basis": ASSUMED}
                cures.append(Cure(told, {"rebuild": title}, "rebuild", proof, "its size is assumed", None))
    return tuple(cures)


def _smaller(bill: TlsObject) -> Iterator[tuple[str, int, int]]:
    """Yield (release, bytes now, bytes with it) of each suspect, of the release that is smallest."""
    from dlwhy.attribute.suspects import rows_of

    rows = {row["id"]: row for row in rows_of()}
    for suspect in bill.suspects:
        row = rows[suspect.id]
        now = sum(one.bytes for one in bill.shares if one.variable in row["variables"])
        smaller = [one for one in row.get("smaller", ()) if one["bytes"] < now]
        if smaller:
            best = min(smaller, key=lambda one: one["bytes"])
            yield best["release"], now, best["bytes"]
