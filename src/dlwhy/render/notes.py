"""The notes of a matrix: cells that say the same share one, numbered in the order of the table."""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report_systems import Cell, MatrixReport, Row


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


def errors(report: MatrixReport, cut: int) -> list[str]:
    """Return why files were not asked about, a sentence for each reason; of names `cut` characters are left out."""
    reasons: dict[str, list[str]] = {}
    for row in report.rows:
        if row.error is not None:
            reasons.setdefault(row.error, []).append(row.file)
    told = []
    for reason, names in reasons.items():
        about = names[0][cut:] if len(names) == 1 else f"{len(names)} files"
        told.append(reason if reason.startswith(names[0]) else f"{about}: {reason}")
    return told


def summary(report: MatrixReport) -> str:
    """Return the verdict over all in one sentence."""
    fitting = [[cell for cell in row.cells if cell.outcome or cell.error] for row in report.rows]
    systems = len(report.systems)
    if len(report.rows) == 1:
        loads = sum(cell.outcome == "loads" for cell in fitting[0])
        if not fitting[0]:
            return "not asked on any system"
        return f"loads on {loads} of {len(fitting[0])} {'system' if len(fitting[0]) == 1 else 'systems'}"
    everywhere = sum(bool(cells) and all(cell.outcome == "loads" for cell in cells) for cells in fitting)
    where = f"on {report.systems[0].name}" if systems == 1 else f"on all {systems} systems"
    own = " of their machine" if any(len(cells) < systems for cells in fitting) else ""
    return f"{everywhere} of {len(report.rows)} files load {where}{own}"
