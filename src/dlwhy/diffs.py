"""`diff`: what changed in loadability and in TLS from one build to another, file by file.

OLD and NEW are each checked at their own path, in processes of the same host: where only the name of one tells a host
(index.node against index.node.orig) it is taken for both.
"""

from __future__ import annotations

from contextlib import ExitStack

from dlwhy.bills import tls
from dlwhy.changes import changes
from dlwhy.diagnose import host_report
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.files import Files
from dlwhy.hosts.executable import is_program
from dlwhy.hosts.known import inferred
from dlwhy.loader.faults import Unknown
from dlwhy.loader.objects import Objects
from dlwhy.pairs import pairs, sides
from dlwhy.question import ask
from dlwhy.report import ASSUMED, DIES, FAILS, LOADS, UNDECIDED
from dlwhy.report_diff import DiffReport, FileChange, Verdict, VerdictChange
from dlwhy.verdict import model
from dlwhy.walk import renamed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Host, Options
    from dlwhy.matrix import Matrix
    from dlwhy.pairs import Place
    from dlwhy.report_systems import Cell, Row
    from dlwhy.report_tls import TlsFile

_RANK = {LOADS: 2, FAILS: 1, DIES: 0}
_CHUNK = 1 << 20


def diff(old: str, new: str, host: Host | None, options: tuple[Options, Options], systems: list[str]) -> DiffReport:
    """Return the report of `diff`; `options` are those of OLD and of NEW, which have their own lock file and map.

    Raises `UsageError` for a question that cannot be asked, `UnsupportedError` for an archive that cannot be read.
    """
    with ExitStack() as stack:
        both = sides((old, new), options[1], stack)
        if (options[0].map or options[1].map) and not both[0].single:
            raise UsageError("a map tells of one file: name two files with it")
        matrix = None
        if systems:
            from dlwhy.matrix import Matrix

            matrix = Matrix(systems, host, options[1])
            stack.callback(matrix.close)
        compare = _Comparison(host, options, matrix)
        stack.callback(compare.files.close)
        report = DiffReport(old, new, tuple(compare.file(*pair) for pair in pairs(*both)))
        for one in both:
            if one.unpacked is not None:
                report = renamed(report, *one.unpacked)
        return report


class _Comparison:
    """Compares one pair of files after the other."""

    def __init__(self, host: Host | None, options: tuple[Options, Options], matrix: Matrix | None) -> None:
        self.host = host
        self.options = options
        self.matrix = matrix
        self.files = Files(options[1].sysroot or "/")

    def file(self, name: str, old: Place | None, new: Place | None) -> FileChange:
        """Return what differs between two files; None is a file that is not there."""
        presence = "both" if old and new else "new" if new else "gone"
        was, now = (place.shown if place is not None else None for place in (old, new))
        head = FileChange(name, presence, was, now, False, None)
        found = [self._tls(place, options) for place, options in zip((old, new), self.options, strict=True)]
        errors = [one.error for one in found if one is not None and one.error is not None]
        if errors:
            return head.but(error="; ".join(dict.fromkeys(errors)))
        one = self._one_file(old, new)
        kind = next((side.kind for side in found if side is not None and side.kind != "linked"), "linked")
        verdicts = self._verdicts(name, old, new) if kind == "linked" and not one else ()
        differ = changes(*found)
        return head.but(
            equal=one or self._equal(old, new), verdicts=verdicts, tls_old=differ.old, tls_new=differ.new,
            bytes=differ.bytes, owners=differ.owners, variables=differ.variables, padding=differ.padding,
            unattributed=differ.unattributed, triggers=differ.triggers, provenance=differ.provenance,
            findings=differ.findings, notes=differ.notes, kind=kind,
        )  # fmt: skip

    def _tls(self, place: Place | None, options: Options) -> TlsFile | None:
        if place is None:
            return None
        (found,) = tls([place.path], options).files
        return renamed(found, place.path, place.shown)

    def _one_file(self, old: Place | None, new: Place | None) -> bool:
        """Whether both names are of one and the same file."""
        return old is not None and new is not None and self.files.resolve(old.path) == self.files.resolve(new.path)

    def _equal(self, old: Place | None, new: Place | None) -> bool:
        """Whether both have the same bytes."""
        if old is None or new is None:
            return False
        here, there = (self.files.open(one.path) for one in (old, new))
        try:
            if here.size != there.size:
                return False
            pieces = range(0, here.size, _CHUNK)
            return all(here.some(at, _CHUNK) == there.some(at, _CHUNK) for at in pieces)
        finally:
            self.files.close()

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def _verdicts(self, name: str, old: Place | None, new: Place | None) -> tuple[VerdictChange, ...]:
        if new is None:  # what is gone is loaded by nobody; whoever needs it has a verdict of its own
            return ()
        hosts = self._hosts(old, new)
        if self.matrix is not None:
            rows = [self._row(self.matrix, name, at, host) for at, host in zip((old, new), hosts, strict=True)]
            return _by_system(self.matrix, rows[0], rows[1], (old, new))
        found: list[Verdict | None] = []
        for place, host, options in zip((old, new), hosts, self.options, strict=True):
            try:
                lent = host is not self.host
                found.append(_verdict(place, host, options, lent) if place is not None else None)
            except UsageError:
                raise
            except DlwhyError as error:
                return (VerdictChange(None, "undecided", None, None, str(error)),)
        return (_compared(None, found[0], found[1], (old, new)),)

    def _hosts(self, old: Place | None, new: Place) -> tuple[Host | None, Host | None]:
        """The hosts of both: the one that was named; else what their names tell, or the name of the one that tells."""
        from dlwhy.api import Host

        asked = self.host
        hits = [inferred(one.path) if one is not None else None for one in (old, new)]
        if (asked is not None and asked.kind != "inferred") or old is None or bool(hits[0]) == bool(hits[1]):
            return asked, asked
        if any(self._program(one) for one in (old, new)):
            return asked, asked
        word = (hits[0] or hits[1] or ("plain",))[0]
        other = Host("executable", word, None)
        if asked is not None:
            other = other.but(env=asked.env, captured=asked.captured, ours=asked.ours)
        return (asked, other) if hits[0] else (other, asked)

    def _program(self, place: Place) -> bool:
        try:
            return is_program(Objects(self.files).elf(place.path))
        except DlwhyError:
            return False

    def _row(self, matrix: Matrix, name: str, place: Place | None, host: Host | None) -> Row | None:
        if place is None:
            return None
        return matrix.examine(name, place.step, None if host is self.host else host)


def _verdict(place: Place, host: Host | None, options: Options, lent: bool) -> Verdict:
    """What one process makes of a file; `lent`: the host is the other file's. Raises `DlwhyError`."""
    try:
        question = ask([place.path if lent else place.step], host, options)
    except UsageError as error:
        if not lent or host is None:  # of the file whose name tells the host, this is a missing fact
            raise
        return Verdict(
            UNDECIDED, None, "unknown", None, None, f"a fact is missing: {error}", ASSUMED, (), (), None, host.target,
            None, None,
        )  # fmt: skip
    try:
        run = model(question)
        told = host_report(question, run)
        free = run.process.static.free if run.process is not None and run.process.static is not None else None
        step = run.steps[0] if run.steps else None
        start = run.startup
        if step is None or start.outcome != LOADS:
            because = run.startup_because or ("it starts" if start.outcome == LOADS else "")
            basis = ASSUMED if start.outcome == UNDECIDED or start.assumptions else "computed"
            return Verdict(
                start.outcome, start.message, run.startup_kind, run.startup_object, None, because, basis,
                start.assumptions, start.unresolved, free, told.name, told.libc, told.libc_version,
            )  # fmt: skip
        return Verdict(
            step.outcome, step.message, step.kind, step.object, step.needed_by, step.because, step.basis,
            step.assumptions, step.unresolved, free, told.name, told.libc, told.libc_version,
        )  # fmt: skip
    except Unknown as unknown:
        return Verdict(
            UNDECIDED, None, "unknown", None, None, f"a fact is missing: {unknown}", ASSUMED, (), (), None,
            question.host_name, None, None,
        )  # fmt: skip
    finally:
        question.objects.files.close()


def _compared(
    system: str | None, old: Verdict | None, new: Verdict | None, places: tuple[Place | None, Place]
) -> VerdictChange:
    """How two verdicts compare."""
    if old is None or new is None:
        change = "none" if new is None or new.outcome == LOADS else "undecided" if new.outcome == UNDECIDED else "worse"
        return VerdictChange(system, change, old, new)
    if UNDECIDED in (old.outcome, new.outcome):
        return VerdictChange(system, "undecided", old, new)
    better = _RANK[new.outcome] - _RANK[old.outcome]
    change = "better" if better > 0 else "worse" if better < 0 else "same"
    if change == "same" and old.outcome != LOADS and _gist(old, places[0]) != _gist(new, places[1]):
        change = "otherwise"
    return VerdictChange(system, change, old, new)


def _gist(verdict: Verdict, place: Place | None) -> tuple[str | None, str | None]:
    """What is said of a failure, wherever the file lies and whatever it is called."""
    message = verdict.message
    if message is not None and place is not None:
        for path in (place.path, place.step):
            message = message.replace(path, "FILE")
        message = message.replace(place.path.rpartition("/")[0] + "/", "")
    return verdict.kind, message


# -- other systems -----------------------------------------------------------------------------------------------------


def _by_system(
    matrix: Matrix, old: Row | None, new: Row | None, places: tuple[Place | None, Place]
) -> tuple[VerdictChange, ...]:
    """The cells of two rows, system by system."""
    found = []
    for at, system in enumerate(matrix.columns):
        cells = [row.cells[at] if row is not None and row.cells else None for row in (old, new)]
        error = next((cell.error for cell in cells if cell is not None and cell.error is not None), None)
        error = error or next((row.error for row in (old, new) if row and row.error and not row.missing), None)
        was, now = (_told(cell, row) for cell, row in zip(cells, (old, new), strict=True))
        if error is not None:
            found.append(VerdictChange(system.name, "undecided", was, now, error))
        elif any(row is not None and row.error is not None for row in (old, new)):
            found.append(VerdictChange(system.name, "undecided", was, now))
        elif old is not None and was is None and now is not None:
            change = {LOADS: "better", UNDECIDED: "undecided"}.get(now.outcome, "otherwise")
            found.append(VerdictChange(system.name, change, was, now))
        elif was is not None and now is None:
            change = {LOADS: "worse", UNDECIDED: "undecided"}.get(was.outcome, "otherwise")
            found.append(VerdictChange(system.name, change, was, now))
        else:
            found.append(_compared(system.name, was, now, places))
    return tuple(found)


def _told(cell: Cell | None, row: Row | None) -> Verdict | None:
    """A cell as a verdict; None for a system of another machine than the file is for."""
    if row is not None and row.error is not None:
        return Verdict(
            UNDECIDED, None, None, None, None, row.error, ASSUMED, (), (), None, row.host, None, None,
        )  # fmt: skip
    if cell is None or cell.outcome is None or row is None:
        return None
    return Verdict(
        cell.outcome, cell.message, cell.kind, cell.object, cell.needed_by, cell.because, cell.basis, cell.assumptions,
        cell.unresolved, None, row.host, cell.libc, cell.libc_version,
    )  # fmt: skip
