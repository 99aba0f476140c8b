"""The report of `diff`: what changed from one build to the next, file by file."""

from __future__ import annotations

from dlwhy.record import Record
from dlwhy.report import EXIT_BROKEN, EXIT_FAILS, EXIT_LOADS, EXIT_NOTHING, EXIT_UNDECIDED, worst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import (
        Basis,
        Change,
        CheckReport,
        FailedReport,
        FileKind,
        Finding,
        Kind,
        Outcome,
        Presence,
        ShareKind,
        TreeReport,
        Unresolved,
        UnresolvedReport,
    )
    from dlwhy.report_systems import FloorReport, MatrixReport
    from dlwhy.report_tls import Provenance, TlsReport, Trigger


class Verdict(Record):
    """What one process makes of one file."""

    outcome: Outcome
    """Whether the file would load there, or start if it is a program."""
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
    free: int | None
    """Bytes of static TLS that are left behind it; None where no load tells."""
    host: str
    """The host as it was named, or as the name of the file tells."""
    libc: str | None
    """"glibc" or "musl" of the process; None when no file tells."""
    libc_version: str | None
    """Release of the C library there; None when no file tells."""


class VerdictChange(Record):
    """What one process, or one system's, makes of OLD and of NEW."""

    system: str | None
    """Name of the system of `--on`; None where none was named."""
    change: Change
    """How the two compare."""
    old: Verdict | None
    """Of OLD, at its own path; None where it was not asked."""
    new: Verdict | None
    """Of NEW, at its own path; None where it was not asked."""
    error: str | None = None
    """Why dlwhy itself failed to examine one of them, in one sentence; None when it did not."""

    @property
    def exit_status(self) -> int:
        """1, 10 when it got worse, 11 when a fact is missing, else 0."""
        if self.error is not None:
            return EXIT_BROKEN
        return {"worse": EXIT_FAILS, "undecided": EXIT_UNDECIDED}.get(self.change, EXIT_LOADS)


class ShareChange(Record):
    """Bytes of an owner or a variable in the TLS segments of OLD and NEW."""

    owner: str
    """The crate, namespace, runtime, source file or library; where only the evidence differs, as in NEW."""
    kind: ShareKind
    """What sort of owner it is."""
    variable: str | None
    """The variable, demangled; in `owners` that of NEW which has most of the bytes. None without a name."""
    bytes: int
    """How many bytes more in NEW; negative for less."""
    old: int
    """Bytes in OLD."""
    new: int
    """Bytes in NEW."""
    presence: Presence
    """In which of the two it is."""
    basis: Basis
    """"assumed" where bytes without a name in OLD or NEW may be its own as well."""


class TriggerChange(Record):
    """A trigger that only one of OLD and NEW has, or that has other accesses."""

    presence: Presence
    """In which of the two it is."""
    trigger: Trigger
    """As NEW has it; as OLD had it when it is gone."""
    accesses: int | None
    """How many accesses more in NEW; None where the code of one of them was not searched."""
    basis: Basis
    """"assumed" where a trigger without a name in the other file may be the same."""


class ProvenanceChange(Record):
    """How an owner whose bytes, triggers or version differ came into NEW, and into OLD."""

    owner: str
    """The owner, as in `Share`."""
    old: tuple[Provenance, ...]
    """What tells it of OLD; empty when nothing does."""
    new: tuple[Provenance, ...]
    """What tells it of NEW; empty when nothing does."""


class TlsSide(Record):
    """The TLS segment of one of the two."""

    size: int
    """Bytes (p_memsz), 0 without a segment."""
    align: int
    """Alignment in bytes, 0 without a segment."""
    model: str
    """Access models that the relocations show, joined by "+"; "none" without any."""
    static: bool
    """Whether it is forced into the static TLS block by the file itself, or is a program's own."""
    padding: int
    """Bytes between variables that alignment explains."""
    unattributed: int
    """Bytes that no symbol covers."""


class FileChange(Record):
    """What changed from one file to the other; the bytes of `variables`, padding and unattributed add up to `bytes`."""

    name: str
    """What both are called: NEW as it was named, or the path inside of both directories or archives."""
    presence: Presence
    """Whether there is a file of that name in OLD and in NEW."""
    old: str | None
    """OLD as it was named; None when there is none."""
    new: str | None
    """NEW as it was named; None when there is none."""
    equal: bool
    """Whether both have the same bytes, or are one file."""
    error: str | None
    """Why one of them was not examined, in one sentence; None when both were."""
    verdicts: tuple[VerdictChange, ...] = ()
    """One for each system of `--on`, else one; none for one and the same file, and for what is not linked yet."""
    tls_old: TlsSide | None = None
    """The TLS segment of OLD; None without OLD."""
    tls_new: TlsSide | None = None
    """The TLS segment of NEW; None without NEW."""
    bytes: int = 0
    """How many bytes of TLS more in NEW; negative for less."""
    owners: tuple[ShareChange, ...] = ()
    """By owner, what grew most first; without those whose bytes are the same."""
    variables: tuple[ShareChange, ...] = ()
    """By variable, what grew most first; without those whose bytes are the same."""
    padding: int = 0
    """How many bytes of padding more in NEW; negative for less."""
    unattributed: int = 0
    """How many bytes without a name more in NEW; negative for less."""
    triggers: tuple[TriggerChange, ...] = ()
    """New ones first, then gone ones, then those with other accesses; the same ones are left out."""
    provenance: tuple[ProvenanceChange, ...] = ()
    """Why what differs is in there."""
    findings: tuple[Finding, ...] = ()
    """What `tls` finds in NEW and not in OLD."""
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each."""
    kind: FileKind = "linked"
    """Whether the files are linked: object files and archives of them are compared by their TLS alone."""

    @property
    def exit_status(self) -> int:
        """1 when a file could not be examined, else the worst of the verdicts."""
        return EXIT_BROKEN if self.error is not None else worst([one.exit_status for one in self.verdicts])


class DiffReport(Record):
    """Answer of `diff`."""

    old: str
    """OLD as it was named."""
    new: str
    """NEW as it was named."""
    files: tuple[FileChange, ...]
    """The files, by their names."""

    command = "diff"

    @property
    def exit_status(self) -> int:
        """10 when the loadability of a file got worse, 1, 11 and 0 as elsewhere; 3 when there was no file in either."""
        return worst([one.exit_status for one in self.files]) if self.files else EXIT_NOTHING


if TYPE_CHECKING:
    Report = (
        CheckReport | DiffReport | FailedReport | FloorReport | MatrixReport | TlsReport | TreeReport | UnresolvedReport
    )
    """The answer of any command."""
