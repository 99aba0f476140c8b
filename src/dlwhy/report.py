"""Reports: all that a reader may be told, each part already in the order to show.

The names are the keys of the JSON (docs/reference, `dlwhy.render.json_v1`): what a field is called here is what a
script reads there. Sizes and offsets are bytes. Paths are as the process under examination would show them.
"""

from __future__ import annotations

from dlwhy.record import Record

SCHEMA = 1
"""Version of the JSON: raised when a key changes its meaning or goes away."""

LOADS, FAILS, DIES, UNDECIDED = "loads", "fails", "dies", "undecided"
OBSERVED, COMPUTED, ASSUMED = "observed", "computed", "assumed"

EXIT_LOADS, EXIT_BROKEN, EXIT_USAGE, EXIT_NOTHING, EXIT_FAILS, EXIT_UNDECIDED = 0, 1, 2, 3, 10, 11
_WORST_FIRST = (EXIT_BROKEN, EXIT_FAILS, EXIT_UNDECIDED, EXIT_NOTHING, EXIT_LOADS)
_EXIT_OF = {LOADS: EXIT_LOADS, FAILS: EXIT_FAILS, DIES: EXIT_FAILS, UNDECIDED: EXIT_UNDECIDED}


def worst(statuses: list[int]) -> int:
    """Return the exit status that decides of several: 1, 10, 11, 3, 0 in this order (0 of none)."""
    return next((status for status in _WORST_FIRST if status in statuses), EXIT_LOADS)


class Startup(Record):
    """What becomes of the program itself."""

    outcome: str
    message: str | None
    """What ld.so writes to standard error, lines joined by newlines; None when it writes nothing."""
    exit_status: int | None
    """Exit status of a start that fails; None when it does not."""
    loaded: tuple[str, ...]
    """Link-map names in load order, the program as its path, the vDSO left out."""


class HostReport(Record):
    """The process that was modelled."""

    name: str
    """HOST as written: argv[0] in messages."""
    executable: str | None
    """Path of the program, None for `plain`."""
    loader: str | None
    libc: str | None
    """"glibc" or "musl"; None when no file tells."""
    libc_version: str | None
    machine: str
    environment: dict[str, str]
    """The variables that the loader reads."""
    inferred: str | None
    """Why this host was taken when none was named; None when it was named."""
    startup: Startup


class Try(Record):
    """One place where a file was looked for."""

    path: str
    where: str
    """The list it came from: "RPATH of OBJ", "LD_LIBRARY_PATH", "RUNPATH of OBJ", "ld.so.cache", "default directory"."""
    result: str
    """"found", or why not, in the words of open(2) or of the loader."""


class Search(Record):
    """How one name became a file, or did not."""

    name: str
    needed_by: str | None
    path: str | None
    how: str
    """Where it was found: as `Try.where`, or "already loaded", or "path"."""
    tries: tuple[Try, ...]


class Step(Record):
    """One step of the question and what the loader makes of it."""

    request: str
    mode: str
    """The mode used, e.g. "now-local"."""
    outcome: str
    message: str | None
    """Byte for byte what dlerror() returns (surrogateescape), None when there is none."""
    kind: str | None
    """Which way to fail, e.g. "static-tls-exhausted"; listed in the schema. None for a success."""
    stage: str
    object: str | None
    needed_by: str | None
    loaded: tuple[str, ...]
    unloaded: tuple[str, ...]
    because: str
    basis: str
    assumptions: tuple[str, ...]
    searches: tuple[Search, ...]


class StaticBlock(Record):
    """One object's place in the static TLS block."""

    object: str
    module_id: int
    size: int
    align: int
    offset: int
    """Distance of the block's start from the thread pointer: below it on variant II, from the block's start on variant I."""
    when: str
    """"startup" or "step N"."""
    forced_by: str | None
    """The object whose relocation forced it in; None at start-up."""


class StaticTls(Record):
    """The static TLS block after the last step."""

    size: int
    tcb: int
    used: int
    free: int
    align: int
    surplus: int
    optional_left: int | None
    """Bytes that descriptors may still take; None where the release has no such budget."""
    blocks: tuple[StaticBlock, ...]


class Share(Record):
    """Bytes of a TLS segment and whose they are."""

    owner: str
    kind: str
    bytes: int
    variable: str | None
    unit: str | None
    evidence: str


class Trigger(Record):
    """Relocations that force a segment into the static block, by variable."""

    owner: str
    variable: str | None
    relocation: str
    accesses: int | None
    """Places in the code; None when the code was not searched."""
    functions: tuple[str, ...]
    object: str
    """The object that holds the relocations."""
    relocations: int
    """How many relocations."""
    own: bool
    """Whether the variable is the object's own; else it lies in another module, which pays."""


class TlsObject(Record):
    """The bill of one object's TLS segment; shares, padding and unattributed sum up to `size`."""

    object: str
    size: int
    align: int
    model: str
    """Access models that the relocations show, e.g. "initial-exec", joined by "+"; "none" without any."""
    shares: tuple[Share, ...]
    padding: int
    unattributed: int
    triggers: tuple[Trigger, ...]
    provenance: tuple[str, ...]
    owners: tuple[Share, ...] = ()
    """The shares added up by owner, the largest first."""
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each: why names are missing."""


class Finding(Record):
    """Something worth knowing, with its rule."""

    rule: str
    severity: str
    object: str
    message: str
    basis: str
    citation: str


class Cure(Record):
    """A change that helps, proven by loading again with it in the model."""

    title: str
    change: dict[str, object]
    """Any of env (dict), steps (list), rebuild (text)."""
    disposition: str
    """"safe", "rebuild" or "risky"."""
    proof: dict[str, str]
    """outcome and basis."""
    cost: str | None
    command: str | None


class NotCure(Record):
    """A change that people try and that cannot help here."""

    title: str
    why: str


class CheckReport(Record):
    """Answer of `check`."""

    host: HostReport
    steps: tuple[Step, ...]
    static_tls: StaticTls | None
    tls: tuple[TlsObject, ...]
    findings: tuple[Finding, ...]
    cures: tuple[Cure, ...]
    not_cures: tuple[NotCure, ...]
    start_searches: tuple[Search, ...]
    """How the objects of the start-up were found."""

    command = "check"

    @property
    def outcome(self) -> str:
        """The worst outcome of start-up and steps."""
        outcomes = [self.host.startup.outcome, *(step.outcome for step in self.steps)]
        return next(one for one in (DIES, FAILS, UNDECIDED, LOADS) if one in outcomes)

    @property
    def exit_status(self) -> int:
        """0, 10 or 11 (interface, Exit status)."""
        return worst([_EXIT_OF[o] for o in (self.host.startup.outcome, *(step.outcome for step in self.steps))])


class TlsFile(Record):
    """One file of `tls`: a bill, or why there is none."""

    path: str
    error: str | None
    tls: TlsObject | None
    """None for a file without a TLS segment, or on error."""
    triggers: tuple[Trigger, ...]
    """Relocations into other modules' TLS count here too, so a file without a segment may have some."""


class TlsReport(Record):
    """Answer of `tls`."""

    files: tuple[TlsFile, ...]

    command = "tls"

    @property
    def exit_status(self) -> int:
        """1 when any file could not be examined, 3 when no file was named, else 0."""
        if not self.files:
            return EXIT_NOTHING
        return worst([EXIT_BROKEN if file.error else EXIT_LOADS for file in self.files])


class TreeNode(Record):
    """One object of the tree."""

    name: str
    """The name by which it was asked for."""
    path: str | None
    how: str
    """Why it was found there, as `Search.how`; for a missing one what the loader would say."""
    state: str
    """"first", "repeat" (drawn in full elsewhere), "cycle" (an ancestor of itself), "missing" or "broken"."""
    tries: tuple[Try, ...]
    """Every place tried; filled for a missing or broken one, and for all with `-v`."""
    soname: str | None
    tls_size: int
    tls_align: int
    tls_model: str | None
    static: bool
    """Whether this object's relocations force static TLS."""
    children: tuple[TreeNode, ...]
    at_startup: bool
    """Whether the host has it already before the first dlopen."""


class TreeReport(Record):
    """Answer of `tree`."""

    host: HostReport | None
    root: TreeNode
    objects: int
    """How many different objects are in the tree."""
    missing: int
    tls_total: int
    """Bytes of TLS of all different objects together."""
    static_total: int
    """Bytes of those that are forced into the static block or start with the program."""
    error: str | None

    command = "tree"

    @property
    def exit_status(self) -> int:
        """1 when FILE itself could not be examined, 10 with a missing object, else 0."""
        return EXIT_BROKEN if self.error else EXIT_FAILS if self.missing else EXIT_LOADS
