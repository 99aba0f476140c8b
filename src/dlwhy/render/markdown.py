"""The matrix of `check --on` -> Markdown: a table for a README or a comment, below it a list of the reasons."""

from __future__ import annotations

from dlwhy.render.notes import errors, lacking, libc, notes, numbers, within, word
from dlwhy.render.style import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.notes import Note
    from dlwhy.report_systems import MatrixReport

_SHOWN = 6


def matrix(report: MatrixReport) -> str:
    """Return the matrix as a table, with the notes below it."""
    report = printable(report)
    found = notes(report)
    number = numbers(found)
    cut = len(within(report))
    heads = "".join(f" {_plain(_head(report, place))} |" for place in range(len(report.systems)))
    lines = [f"| file |{heads}", "|---|" + "---|" * len(report.systems)]
    for row in report.rows:
        cells = []
        for cell in row.cells:
            text, note = word(cell), number.get(id(cell))
            text = text if text in ("loads", "-") else f"**{text}**"
            cells.append(f"{text} [{note}]" if note else text)
        cells = cells or ["not asked"] + [""] * (len(report.systems) - 1)
        lines.append(f"| {_code(row.file[cut:])} | " + " | ".join(cells) + " |")
    lines += [f"\n{_plain(text)}" for text in errors(report, cut)]
    if found:
        lines += ["", *(_note(note, cut) for note in found)]
    return "\n".join(lines) + "\n"


def _head(report: MatrixReport, place: int) -> str:
    """The name of a system, with its C library where every file that was asked meets the same."""
    known = {libc(row.cells[place]) for row in report.rows if row.cells} - {""}
    return report.systems[place].name + (known.pop() if len(known) == 1 else "")


def _note(note: Note, cut: int) -> str:
    cell = note.cells[0]
    name = note.about(cut) if len(note.rows) > 1 else _code(note.about(cut))
    words = _code(" / ".join(cell.message.split("\n"))) if cell.message else _plain(cell.error or cell.because)
    lines = [f"{note.number}. {name} on {_plain(note.systems)}: {words}"]
    names = lacking(note, _SHOWN)
    if names:
        lines.append(f"   - undefined: {', '.join(name if name[:4] == 'and ' else _code(name) for name in names)}")
    lines += [f"   - assumed: {_plain(text)}" for text in cell.assumptions]
    return "\n".join(lines)


def _code(text: str) -> str:
    """A code span, which holds backticks when it begins with more of them; `|` would end a table's cell."""
    longest = run = 0
    for character in text:
        run = run + 1 if character == "`" else 0
        longest = max(longest, run)
    ticks, blank = "`" * (longest + 1), " " if longest else ""
    return f"{ticks}{blank}{text}{blank}{ticks}".replace("|", "\\|")


def _plain(text: str) -> str:
    """Running text in which nothing is taken for a mark."""
    return "".join(f"\\{one}" if one in "\\`*_{}[]<>|#~" else one for one in text)
