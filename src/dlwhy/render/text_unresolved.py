"""The report of `unresolved` -> text, and the lines of `check` that list what a load lacks."""

from __future__ import annotations

from dlwhy.render.style import LABEL, block, count, label, parts, printable, room, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.render.style import Piece, Style
    from dlwhy.report import Unresolved, UnresolvedReport

_FEW = 10
"""Lines without -v."""


def unresolved(report: UnresolvedReport, style: Style) -> str:
    """Return the text of `unresolved` for one file."""
    objects, lacking = len(report.loaded), len(report.unresolved)
    quiet = {"unresolved": ()} if style.quiet else {}
    report = printable(report.but(loaded=(), **quiet))  # what is counted, and not told, needs no look
    if report.error is not None:
        return "\n".join(style.paint(line, "yellow") for line in wrapped(report.error, room(style, 0))) + "\n"
    found = report.unresolved
    told = [] if report.because is None else ["not examined to its end"]
    if report.missing:
        told.append(f"{count(len(report.missing), 'file')} not found")
    if lacking or report.because is None:
        told.append(f"{lacking} unresolved" if lacking else "nothing unresolved")
    color = {"loads": "green", "undecided": "yellow"}.get(report.outcome, "red")
    pieces: list[Piece] = [(report.path, ("bold",)), (", ".join(told), (color,))]
    if objects:
        pieces.append((f"in {count(objects, 'object')}", ("dim",)))
    lines = parts(style, "", "  ", pieces)
    if style.quiet:
        return "\n".join(lines) + "\n"
    if report.because is not None:
        lines += block(style, "because", report.because)
    for index, name in enumerate(report.missing):
        lines += block(style, "" if index else "not found", name)
    lines += listed(found, style, style.verbose)
    if any(one.symbol is not None for one in found):
        lines += block(style, "by itself", "a program that loads it may define them: `dlwhy check` asks in its host")
    return "\n".join(lines) + "\n"


def listed(found: Sequence[Unresolved], style: Style, whole: bool) -> list[str]:
    """Return one line for each thing that nothing defines; without `whole` the first few, and how many more."""
    shown = found if whole or len(found) <= _FEW else found[: _FEW - 1]
    lines: list[str] = []
    for index, one in enumerate(shown):
        if one.symbol is None:
            what = f"version {one.version} of {one.file}"
        else:
            what = one.symbol + (f", version {one.version}" if one.version else "")
        pieces: list[Piece] = [(what, ()), (f"for {one.object}", ("dim",))]
        if one.symbol is not None and one.file is not None:
            pieces.append((f"expected of {one.file}", ("dim",)))
        if one.lazy:
            pieces.append(("when it is first called", ("dim",)))
        lead = label(style, "" if index else "undefined")
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, lead)
    if len(shown) < len(found):
        lines += block(style, "", f"and {len(found) - len(shown)} more (-v lists them)")
    return lines
