"""The matrix of `check --on` -> text: systems across, files down, below it why."""

from __future__ import annotations

from dlwhy.render.notes import errors, lacking, notes, numbers, summary, within, word
from dlwhy.render.style import block, columns, message, pad, parts, printable, shortened, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.notes import Note
    from dlwhy.render.style import Piece, Style
    from dlwhy.report_systems import MatrixReport

_COLORS = {"loads": "green", "undecided": "yellow", "-": "dim"}
_LEAST_NAME = 20
_SHOWN = 10
"""Names in a note without -v."""


def matrix(report: MatrixReport, style: Style) -> str:
    """Return the text of a matrix."""
    report = printable(report)
    found = [] if style.quiet else notes(report, style.verbose)
    inside = within(report)
    lines = parts(style, "", "  ", [(summary(report), ("bold",)), *([(f"in {inside}", ("dim",))] if inside else [])])
    lines += ["", *_table(report, found, len(inside), style)]
    lines += [line for text in errors(report, len(inside)) for line in _error(text, style)]
    for note in found:
        lines += ["", *_note(note, len(inside), style)]
    return "\n".join(lines) + "\n"


def _error(text: str, style: Style) -> list[str]:
    return ["", *(style.paint(line, "yellow") for line in wrapped(text, style.width))]


def _table(report: MatrixReport, found: list[Note], cut: int, style: Style) -> list[str]:
    number = numbers(found)
    heads = [one.name for one in report.systems]
    cells = [[(word(cell), number.get(id(cell))) for cell in row.cells] for row in report.rows]
    texts = [[f"{text} [{note}]" if note else text for text, note in line] for line in cells]
    widths = [
        max(columns(head), *(columns(line[place]) for line in texts if line), 0) for place, head in enumerate(heads)
    ]
    names = [row.file[cut:] for row in report.rows]
    room = max(style.width - sum(widths) - 2 * len(widths), _LEAST_NAME)
    names = [shortened(name, room, style) for name in names]
    first = max(map(columns, names), default=0)
    lines = [_line(" " * first, heads, widths, ["dim"] * len(heads), style)]
    for name, row, line in zip(names, cells, texts, strict=True):
        colors = [_COLORS.get(bare, "red") for bare, _ in row]
        lines.append(_line(pad(name, first), line or ["not asked"], widths, colors or ["yellow"], style))
    return lines


def _line(first: str, rest: list[str], widths: list[int], colors: list[str], style: Style) -> str:
    padded = [*(pad(text, size) for text, size in zip(rest[:-1], widths, strict=False)), rest[-1]]
    return "  ".join([first, *(style.paint(text, color) for text, color in zip(padded, colors, strict=False))])


def _note(note: Note, cut: int, style: Style) -> list[str]:
    cell = note.cells[0]
    said = _SAID[word(cell)][len(note.rows) > 1]
    told = f"{note.about(cut)} {said} in {', '.join(dict.fromkeys(row.host for row in note.rows))} on {note.systems}"
    pieces: list[Piece] = [(f"[{note.number}] {told}", ("bold",))]
    if cell.kind is not None and cell.outcome != "undecided":
        pieces.append((cell.kind, ("dim",)))
    lines = parts(style, "", "    ", pieces)
    if cell.message is not None:
        lines += message(style, "ld.so says", cell.message)
    if cell.outcome != "loads":
        lines += block(style, "because", cell.error or cell.because)
    names = lacking(note, len(cell.unresolved) if style.verbose else _SHOWN)
    if names:
        lines += block(style, "undefined", ", ".join(names))
    for index, text in enumerate(cell.assumptions if style.verbose or cell.outcome != "loads" else ()):
        lines += block(style, "" if index else "assumed", text)
    return lines


_SAID = {
    "loads": ("loads", "load"), "fails": ("will not load", "will not load"), "dies": ("dies", "die"),
    "undecided": ("is undecided", "are undecided"), "broken": ("was not examined", "were not examined"),
}  # fmt: skip
"""Verdict -> what is said of one file, and of several."""
