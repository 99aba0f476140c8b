"""Reports on systems: the matrix of `check --on`, and what each file needs at the least (`floor`)."""

from __future__ import annotations

from dlwhy.record import Record
from dlwhy.report import _EXIT_OF, EXIT_BROKEN, EXIT_LOADS, EXIT_NOTHING, EXIT_UNDECIDED, worst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import Basis, Kind, Outcome, Unresolved


class System(Record):
    """One system of a matrix: a column."""

    name: str
    """What heads its column; `Cell.system`."""
    given: str
    """What was written for it."""
    machines: tuple[str, ...]
    """Names of the machines that it has a loader for."""


class Cell(Record):
    """What one system makes of one file."""

    system: str
    """Name of the system."""
    outcome: Outcome | None
    """Whether the file would load there; None where it was not asked: the file is of another machine, or `error`."""
    message: str | None
    """Byte for byte what dlerror() returns, or what ld.so writes at a start; None when there is none."""
    kind: Kind | None
    """Which way it fails; None for a success."""
    object: str | None
    """The object to blame, or on success the object that the load gives a handle of."""
    needed_by: str | None
    """The object that needs the one to blame."""
    because: str
    """The decisive comparison or the missing fact, in one sentence."""
    basis: Basis
    """What the outcome rests on."""
    assumptions: tuple[str, ...]
    """What was assumed, one sentence each."""
    unresolved: tuple[Unresolved, ...]
    """All symbols and versions that nothing defines, where `message` tells the first, or lazy binding leaves some."""
    host: str | None
    """Path of the program that loads it there; None of `plain`, and where there is none."""
    libc: str | None
    """"glibc" or "musl" of the process; None when no file tells."""
    libc_version: str | None
    """Release of the C library there; None when no file tells."""
    error: str | None = None
    """Why dlwhy itself failed to examine the file there, in one sentence; None when it did not."""

    @property
    def exit_status(self) -> int:
        """As that of a report; 0 for a system of another machine."""
        if self.error is not None:
            return EXIT_BROKEN
        return EXIT_LOADS if self.outcome is None else _EXIT_OF[self.outcome]


class Row(Record):
    """What the systems make of one file."""

    file: str
    """The file as it was named, or as ARCHIVE!/MEMBER."""
    machine: str | None
    """Name of the machine that the file is for; None when it does not tell."""
    host: str
    """The host that was asked about, as it was named or as the name of the file tells."""
    inferred: str | None
    """Why this host was taken when none was named; None when it was named."""
    cells: tuple[Cell, ...]
    """One for each system, in order; none where `error` says why."""
    error: str | None
    """Why no system was asked about the file, in one sentence; None when one was."""
    missing: bool = False
    """Whether `error` names a fact that is missing, and not a failure of dlwhy."""

    @property
    def exit_status(self) -> int:
        """The worst of the cells."""
        if self.error is not None:
            return EXIT_UNDECIDED if self.missing else EXIT_BROKEN
        return worst([cell.exit_status for cell in self.cells])


class MatrixReport(Record):
    """Answer of `check --on`."""

    systems: tuple[System, ...]
    """The systems in the order in which they were named."""
    rows: tuple[Row, ...]
    """The files in order."""

    command = "check"

    @property
    def exit_status(self) -> int:
        """The worst of the rows; 3 without any."""
        return worst([row.exit_status for row in self.rows]) if self.rows else EXIT_NOTHING


class Lower(Record):
    """What the floor would be if nothing of it and of those above were there."""

    value: str
    """The least release or level then."""
    because: tuple[str, ...]
    """What sets it: symbols with their versions, or a property."""
    objects: tuple[str, ...]
    """The objects that ask for it."""


class Floor(Record):
    """The least release or level of one thing that a system must have."""

    what: str
    """"glibc", "processor", "Linux", or a library and the family of its versions, e.g. "libstdc++ GLIBCXX"."""
    value: str
    """The least release or level, e.g. "2.34" or "x86-64-v3"."""
    because: tuple[str, ...]
    """What sets it: symbols with their versions, e.g. "dlopen@GLIBC_2.34", or a property of the file."""
    objects: tuple[str, ...]
    """The objects that ask for it: the file, or a library that comes with it."""
    file: str | None
    """The library that the version is asked of; None for a property."""
    lower: tuple[Lower, ...]
    """The next lower floors, the highest first."""


class FloorSet(Record):
    """The floors of one file with the libraries that come with it, or of several files together."""

    path: str
    """The file as it was named, or what the files have in common."""
    machine: str | None
    """Name of the machine; None when the file could not be read."""
    libc: str | None
    """"glibc", "musl", or "both"; None where no C library is named."""
    floors: tuple[Floor, ...]
    """What a system must have."""
    pages: int
    """Bytes of the largest page of memory on which all can be mapped; 0 when no page size suits."""
    ceilings: tuple[str, ...]
    """What a system must not have, one sentence each."""
    bundled: tuple[str, ...]
    """The libraries that come along, found by $ORIGIN."""
    system: tuple[str, ...]
    """Names of the libraries that the system must have, those of the C library left out."""
    tag: str | None
    """The lowest manylinux tag that would be true of a wheel with it; None where none follows."""
    remarks: tuple[str, ...]
    """What sets no floor and is worth knowing, one sentence each."""
    error: str | None
    """Why the file was not examined, in one sentence; None when it was."""


class FloorReport(Record):
    """Answer of `floor`."""

    files: tuple[FloorSet, ...]
    """The files in order."""
    together: tuple[FloorSet, ...]
    """All files of one machine and C library together, where there are several."""

    command = "floor"

    @property
    def exit_status(self) -> int:
        """1 when any file could not be examined, 3 when there was none, else 0."""
        if not self.files:
            return EXIT_NOTHING
        return worst([EXIT_BROKEN if one.error else EXIT_LOADS for one in self.files])
