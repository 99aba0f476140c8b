"""The notes of a matrix: cells that say the same share one, numbered in the order of the table."""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import Cell, MatrixReport, Row


class Note(Record):
    """What one or more cells say."""

    number: int
    rows: tuple[Row, ...]
    """The files that it is about."""
    cells: tuple[Cell, ...]
    """Of the first of them those that say so, then of the others."""

    @property
    def systems(self) -> str:
        """The systems that say so, each with its C library."""
        return ", ".join(dict.fromkeys(f"{one.system}{libc(one)}" for one in self.cells))

    def about(self, cut: int) -> str:
        """The file, or how many they are; of its name `cut` characters at the beginning are left out."""
        return self.rows[0].file[cut:] if len(self.rows) == 1 else f"{len(self.rows)} files"


def libc(cell: Cell) -> str:
    """Return the C library of a cell in brackets, nothing when no file tells."""
    return f" ({cell.libc} {cell.libc_version})" if cell.libc_version else ""


def notes(report: MatrixReport, whole: bool = False) -> list[Note]:
    """Return the notes, those of loads with assumptions only when `whole`."""
    groups: dict[tuple[object, ...], list[tuple[Row, Cell]]] = {}
    for row in report.rows:
        for cell in row.cells:
            if _worth(cell, whole):
                own = (id(row), cell.unresolved) if cell.outcome != "undecided" else None
                said = cell.outcome, cell.message, cell.because, cell.error, own
                groups.setdefault(said, []).append((row, cell))
    return [
        Note(number, tuple({id(row): row for row, _ in pairs}.values()), tuple(cell for _, cell in pairs))
        for number, pairs in enumerate(groups.values(), 1)
    ]


def _worth(cell: Cell, whole: bool) -> bool:
    if cell.error is not None:
        return True
    if cell.outcome is None:
        return False
    return cell.outcome != "loads" or bool(cell.unresolved) or (whole and bool(cell.assumptions))


def within(report: MatrixReport) -> str:
    """Return the directory or archive that all files lie in, with a slash behind; nothing for a single file."""
    names = [row.file for row in report.rows]
    if not names or (len(names) < 2 and "!/" not in names[0]):
        return ""
    first, last = min(names), max(names)
    same = next((place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    cut = first.rfind("/", 0, same) + 1
    return first[:cut] if cut > 1 else ""


def lacking(note: Note, most: int) -> list[str]:
    """Return the symbols and versions that nothing defines, at most so many and then how many more."""
    cell = note.cells[0]
    if any(one.unresolved != cell.unresolved for one in note.cells):
        return []
    names = [
        f"version {one.version} of {one.file}" if one.symbol is None else one.symbol + _of(one.version)
        for one in cell.unresolved
    ]
    names = list(dict.fromkeys(names))
    return names if len(names) <= most else [*names[: most - 1], f"and {len(names) - most + 1} more"]


def _of(version: str | None) -> str:
    return f"@{version}" if version else ""


def word(cell: Cell) -> str:
    """Return the verdict of a cell in one word; "-" where the file is of another machine."""
    return "broken" if cell.error is not None else cell.outcome or "-"


def numbers(found: list[Note]) -> dict[int, int]:
    """Return id of a cell -> number of its note."""
    return {id(cell): note.number for note in found for cell in note.cells}


def summary(report: MatrixReport) -> str:
    """Return the verdict over all in one sentence."""
    asked = [row for row in report.rows if row.error is None]
    loads = sum(all(cell.outcome in ("loads", None) and cell.error is None for cell in row.cells) for row in asked)
    systems = len(report.systems)
    where = f"on {report.systems[0].name}" if systems == 1 else f"on all {systems} systems"
    of = f"{loads} of {len(report.rows)} files load" if len(report.rows) > 1 else "loads" if loads else "does not load"
    fitting = " of their machine" if any(cell.outcome is None for row in asked for cell in row.cells) else ""
    return f"{of} {where}{fitting}"
