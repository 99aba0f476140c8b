"""Reports: all that a reader may be told, each part already in the order to show.

The names are the keys of the JSON (docs/reference, `dlwhy.render.json_v1`): what a field is called here is what a
script reads there. Sizes and offsets are bytes. Paths are as the process under examination would show them.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report_tls import Provenance, TlsObject

    Outcome = str  # these are words of VALUES below, and the schema lists them
    Basis = str
    Stage = str
    Severity = str
    Disposition = str
    FileKind = str
    ShareKind = str
    AccessModel = str
    PackageKind = str
    SuspectRole = str
    State = str
    Change = str
    Priority = str
    Presence = str
    Kind = str  # a word of dlwhy.rules.KINDS

SCHEMA = 1
"""Version of the JSON: raised when a key changes its meaning or goes away."""

LOADS, FAILS, DIES, UNDECIDED = "loads", "fails", "dies", "undecided"
OBSERVED, COMPUTED, ASSUMED = "observed", "computed", "assumed"

VALUES: dict[str, dict[str, str]] = {
    "Outcome": {
        LOADS: "it succeeds",
        FAILS: "the loader refuses, and the process goes on",
        DIES: "the process ends",
        UNDECIDED: "a fact is missing, and the report names it",
    },
    "Basis": {
        OBSERVED: "a real loader said so",
        COMPUTED: "it follows from facts and the loader's rules",
        ASSUMED: "a fact is missing and was assumed; the assumptions are listed",
    },
    "Stage": {
        "search": "looking for the file of a name",
        "header": "reading the ELF header",
        "map": "reading the program headers and mapping the segments",
        "depend": "loading what the object needs",
        "version": "comparing symbol versions",
        "property": "reading the GNU properties",
        "relocate": "binding symbols, applying relocations, giving out static TLS",
        "init": "running constructors",
        "none": "no stage: the step succeeds, or never reaches the loader",
    },
    "Severity": {
        "error": "it makes the load fail",
        "warning": "it may make this or another load fail",
        "note": "worth knowing",
    },
    "Disposition": {
        "safe": "changes nothing else",
        "rebuild": "an object must be built anew",
        "risky": "helps here and may harm elsewhere; `cost` says what",
    },
    "AccessModel": {
        "initial-exec": "the offset from the thread pointer stands in a slot: forces static TLS",
        "TLSDESC": "a function that a descriptor names tells the address: static when there is room",
        "general-dynamic": "__tls_get_addr tells the address of one variable",
        "local-dynamic": "__tls_get_addr tells where the object's own segment is, for all its variables",
        "local-dynamic offset": "where in its object's segment a variable is, behind a local-dynamic access",
        "initial-exec offset": "a variable beside the one that a slot leads to, which the code goes on to (aarch64)",
        "TLSDESC offset": "the same behind a descriptor",
        "general-dynamic offset": "the same behind the address that __tls_get_addr tells",
        "local-exec": "the offset from the thread pointer stands in the code: programs only",
    },
    "FileKind": {
        "linked": "a library or program, or a separate debug file",
        "object": "an object file, by itself or in an archive",
        "archive": "an archive of object files (.a, .rlib)",
    },
    "ShareKind": {
        "crate": "a Rust crate, told by the mangled name or the codegen unit",
        "namespace": "a C++ namespace, told by the mangled name",
        "go": "the Go runtime, or of code a Go package",
        "archive": "a static library, told by the linker's map",
        "unit": "a source file, told by its file symbol, or an object file, by itself or told by the linker's map",
        "library": "the library itself: nothing tells more",
        "place": "bytes of the library without a name: only code tells where they begin",
    },
    "PackageKind": {
        "crate": "a Rust crate",
        "module": "a Go module",
    },
    "SuspectRole": {
        "forces-static": "its initial-exec accesses force a segment into the static TLS block",
        "heavy-dynamic": "it brings much TLS, which is harmless while it is dynamic",
        "victim": "often named in the loader's message, though another object is the cause",
    },
    "State": {
        "first": "drawn in full here",
        "repeat": "drawn in full elsewhere",
        "cycle": "an ancestor of itself",
        "missing": "not found, or refused by the loader",
        "broken": "not examined",
    },
    "Change": {
        "same": "both succeed, or both fail in the same way",
        "worse": "NEW fails where OLD succeeds, or kills the process where OLD fails, or is there alone and fails",
        "better": "NEW succeeds where OLD does not, or fails where OLD kills the process",
        "otherwise": "neither succeeds, each for a reason of its own",
        "undecided": "a fact is missing of one of them at least",
        "none": "not asked: the system is for another machine than both, or only one of them is there",
    },
    "Priority": {
        "required": "without it nothing works",
        "recommended": "an important feature wants it; also where the note does not say",
        "suggested": "a feature wants it that few need",
    },
    "Presence": {
        "both": "in OLD and in NEW",
        "new": "in NEW only",
        "gone": "in OLD only",
    },
}
"""Type of a field -> each word that may stand in it, and what the word means; of a `Kind` see `dlwhy.rules.KINDS`."""

EXIT_LOADS, EXIT_BROKEN, EXIT_USAGE, EXIT_NOTHING, EXIT_FAILS, EXIT_UNDECIDED = 0, 1, 2, 3, 10, 11
_WORST_FIRST = (EXIT_BROKEN, EXIT_FAILS, EXIT_UNDECIDED, EXIT_NOTHING, EXIT_LOADS)
_EXIT_OF = {LOADS: EXIT_LOADS, FAILS: EXIT_FAILS, DIES: EXIT_FAILS, UNDECIDED: EXIT_UNDECIDED}


def worst(statuses: list[int]) -> int:
    """Return the exit status that decides of several: 1, 10, 11, 3, 0 in this order (0 of none)."""
    return next((status for status in _WORST_FIRST if status in statuses), EXIT_LOADS)


class Unresolved(Record):
    """A symbol, or a version of a file, that an object refers to and that nothing in its scope defines."""

    symbol: str | None
    """The name of the symbol, as it stands in the file; None where it is the version that a file lacks."""
    version: str | None
    """The version that is asked for; None of a symbol without one."""
    object: str
    """The object that refers to it, as the loader's messages name it."""
    file: str | None
    """Of a symbol with a version: the file that the reference names; of a version: the path of what lacks it."""
    lazy: bool
    """Whether lazy binding leaves it for the first call, which then ends the process."""


class Startup(Record):
    """What becomes of the program itself."""

    outcome: Outcome
    """Whether the program starts."""
    message: str | None
    """What ld.so writes to standard error, lines joined by newlines; None when it writes nothing."""
    exit_status: int | None
    """Exit status of a start that fails, minus the number for a signal; None when it does not fail."""
    loaded: tuple[str, ...]
    """Link-map names in load order, the program as its path, the vDSO left out."""
    kind: Kind | None = None
    """Which way it fails; None for a success."""
    because: str | None = None
    """The decisive comparison or the missing fact, in one sentence; None for a success."""
    assumptions: tuple[str, ...] = ()
    """What was taken for granted of the objects that start with the program, one sentence each."""
    unresolved: tuple[Unresolved, ...] = ()
    """All symbols and versions that nothing defines, where `message` tells of one, or lazy binding leaves some."""


class HostReport(Record):
    """The process that was modelled."""

    name: str
    """HOST as written: argv[0] in messages."""
    executable: str | None
    """Path of the program, None for `plain`."""
    loader: str | None
    """Path of the dynamic loader, as the program names it."""
    libc: str | None
    """"glibc" or "musl"; None when no file tells."""
    libc_version: str | None
    """Release of the C library, e.g. "2.36"; None when no file tells."""
    machine: str
    """Name of the machine, as in `uname -m` with a dash, e.g. "x86-64"."""
    environment: dict[str, str]
    """The variables that the loader reads."""
    inferred: str | None
    """Why this host was taken when none was named; None when it was named."""
    startup: Startup
    """What becomes of the program itself."""
    profile: str | None = None
    """The profile that told of the system, e.g. "profile debian12"; None where its files themselves were read."""


class Try(Record):
    """One place where a file was looked for."""

    path: str
    """The path that was tried."""
    where: str
    """The list it came from: RPATH of OBJ, LD_LIBRARY_PATH, RUNPATH of OBJ, ld.so.cache, default directory..."""
    result: str
    """"found", or why not, in the words of open(2) or of the loader."""


class Search(Record):
    """How one name became a file, or did not."""

    name: str
    """The name that was asked for."""
    needed_by: str | None
    """The object that needs it; None for what the step itself asks for."""
    path: str | None
    """The file found; None for none."""
    how: str
    """Where it was found: as `Try.where`, or "already loaded", or "path"."""
    tries: tuple[Try, ...]
    """Every place that was tried, in the loader's order."""


class Step(Record):
    """One step of the question and what the loader makes of it."""

    request: str
    """The step as it was asked for."""
    mode: str
    """The mode used, e.g. "now-local"; empty for a step that has none (close, sym, call)."""
    outcome: Outcome
    """Whether the step succeeds; a step that the process does not reach fails."""
    message: str | None
    """Byte for byte what dlerror() returns (bytes that are no UTF-8 as lone surrogates), None when there is none."""
    kind: Kind | None
    """Which way it fails, e.g. "static-tls-exhausted"; None for a success."""
    stage: Stage
    """How far the loader came."""
    object: str | None
    """The object to blame, or on success the object that the step gives a handle of."""
    needed_by: str | None
    """The object that needs the one to blame."""
    loaded: tuple[str, ...]
    """Link-map names of what this step loads and keeps, in load order."""
    unloaded: tuple[str, ...]
    """Link-map names of what this step unloads."""
    because: str
    """The decisive comparison, in one sentence."""
    basis: Basis
    """What the outcome rests on."""
    assumptions: tuple[str, ...]
    """What was assumed, one sentence each."""
    searches: tuple[Search, ...]
    """How each name that this step asks for became a file, or did not."""
    unresolved: tuple[Unresolved, ...] = ()
    """All symbols and versions that nothing defines, where `message` tells the first, or lazy binding leaves some."""


class StaticBlock(Record):
    """One object's place in the static TLS block."""

    object: str
    """Link-map name of the object."""
    module_id: int
    """TLS module ID, counted from 1."""
    size: int
    """Bytes of its TLS segment (p_memsz)."""
    align: int
    """Alignment of its TLS segment in bytes."""
    offset: int
    """Bytes from its start to the thread pointer (variant II), or from the start of the static block (variant I)."""
    when: str
    """"startup" or "step N"."""
    forced_by: str | None
    """The object whose relocation forced it in; None at start-up."""
    others_may_take: int | None = None
    """Bytes that others may take before the step that placed it, which then still succeeds; None where it need not."""


class StaticTls(Record):
    """The static TLS block after the last step."""

    size: int
    """Bytes of the whole block: tcb, used and free."""
    tcb: int
    """Bytes of the thread control block; 0 on variant I, where `used` counts it."""
    used: int
    """Bytes given out: dl_tls_static_used."""
    free: int
    """Bytes that are left."""
    align: int
    """Alignment of the block in bytes; an object that asks for more cannot come in any more."""
    surplus: int
    """Bytes that were set aside at start-up for objects loaded later."""
    optional_left: int | None
    """Bytes that descriptors may still take; None where the release has no such budget."""
    blocks: tuple[StaticBlock, ...]
    """The objects in the block, in order of their offsets."""


class Finding(Record):
    """Something worth knowing, with its rule."""

    rule: str
    """Name of the rule, one of `dlwhy.rules.RULES`."""
    severity: Severity
    """How much it matters."""
    object: str
    """The object that it is about."""
    message: str
    """What was found, in one sentence."""
    basis: Basis
    """What it rests on."""
    citation: str
    """Where the rule stands."""


class LibraryCopy(Record):
    """One of several files of a library in one process."""

    object: str
    """Its link-map name."""
    soname: str | None
    """Its own name (DT_SONAME), with the hash that auditwheel wrote into it."""
    exports: int
    """How many names it exports."""
    provenance: Provenance | None
    """The package that it belongs to; None when nothing tells."""


class Copies(Record):
    """A library that is more than once in one process: each of the files has its own code and data."""

    library: str
    """Its soname without a hash and with the first number of its release, e.g. "libgomp.so.1"."""
    copies: tuple[LibraryCopy, ...]
    """The files in load order."""
    common: int
    """How many names all of them export."""


class Cure(Record):
    """A change that helps, proven by loading again with it in the model."""

    title: str
    """The change in one line."""
    change: dict[str, object]
    """Any of env (variables to set), steps (the steps to take instead), rebuild (what to build anew)."""
    disposition: Disposition
    """What the change may harm."""
    proof: dict[str, str]
    """The outcome with the change made, and its basis."""
    cost: str | None
    """What it costs; None for nothing."""
    command: str | None
    """A command line to try it with."""


class NotCure(Record):
    """A change that people try and that cannot help here."""

    title: str
    """The change in one line."""
    why: str
    """Why it does not help."""


class CheckReport(Record):
    """Answer of `check`."""

    host: HostReport
    """The process that was modelled."""
    steps: tuple[Step, ...]
    """The steps in order; empty when the question was whether the host starts."""
    static_tls: StaticTls | None
    """The static TLS block after the last step; None when the process does not come so far."""
    tls: tuple[TlsObject, ...]
    """The bills of the objects whose TLS segment made a step fail."""
    findings: tuple[Finding, ...]
    """What else is worth knowing."""
    cures: tuple[Cure, ...]
    """What helps, the best first."""
    not_cures: tuple[NotCure, ...]
    """What people try in vain."""
    start_searches: tuple[Search, ...]
    """How the objects of the start-up were found."""
    copies: tuple[Copies, ...] = ()
    """Libraries of which several files are in the process after the last step."""

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


class FailedReport(Record):
    """What `--each` tells of a file that dlwhy itself failed to examine."""

    subject: str
    """The file."""
    error: str
    """Why it was not examined, in one sentence."""

    command = "check"
    exit_status = EXIT_BROKEN


class UnresolvedReport(Record):
    """Answer of `unresolved`, of one file."""

    path: str
    """The file as it was named."""
    outcome: Outcome
    """"loads" when nothing is missing and nothing unresolved; that the load then succeeds is not said by it."""
    because: str | None
    """Why the references could not all be looked at, in one sentence; None when they were."""
    loaded: tuple[str, ...]
    """Link-map names of the load set in load order, the file itself first; the vDSO left out."""
    missing: tuple[str, ...]
    """Names of needed files that are not found; the others are looked at all the same."""
    unresolved: tuple[Unresolved, ...]
    """All symbols and versions that nothing in the load set defines."""
    error: str | None
    """Why the file was not examined, in one sentence; None when it was."""

    command = "unresolved"

    @property
    def exit_status(self) -> int:
        """1 when the file could not be examined, else 0, 10 or 11."""
        return EXIT_BROKEN if self.error else _EXIT_OF[self.outcome]


class Opening(Record):
    """Libraries any of which an object opens by dlopen, as it says itself or as its constants suggest."""

    sonames: tuple[str, ...]
    """Their names, in the order in which they are listed."""
    priority: Priority | None
    """How much the object wants it; None for a guess."""
    feature: str | None
    """What it is wanted for, in a word; None when nothing tells."""
    description: str | None
    """What it is wanted for; None when nothing tells."""
    path: str | None
    """Where the loader finds the first of them that is there, for a dlopen by this object; None for none."""
    how: str
    """Why it was found there, as `Search.how`; for a missing one what the loader would say."""
    tries: tuple[Try, ...]
    """Every place that was tried, for one name after the other."""
    source: str
    """".note.dlopen", or "constant"."""
    basis: Basis
    """"assumed" for a constant: it may never be opened."""


class TreeNode(Record):
    """One object of the tree."""

    name: str
    """The name by which it was asked for."""
    path: str | None
    """The file; None for a missing one."""
    how: str
    """Why it was found there, as `Search.how`; for a missing one what the loader would say."""
    state: State
    """How the object is drawn here."""
    tries: tuple[Try, ...]
    """Every place that was tried, in the loader's order; empty for what was loaded already."""
    soname: str | None
    """Its own name (DT_SONAME)."""
    tls_size: int
    """Bytes of its TLS segment, 0 without one."""
    tls_align: int
    """Alignment of its TLS segment in bytes, 0 without one."""
    tls_model: str | None
    """Access models that its relocations show, as `TlsObject.model`; None without any."""
    static: bool
    """Whether this object's relocations force static TLS."""
    children: tuple[TreeNode, ...]
    """What it needs, in the order of its DT_NEEDED; empty where it is drawn in full elsewhere."""
    at_startup: bool
    """Whether the host has it already before the first dlopen."""
    opens: tuple[Opening, ...] = ()
    """What it opens itself, or may open; empty where it is drawn in full elsewhere."""


class TreeReport(Record):
    """Answer of `tree`."""

    host: HostReport | None
    """The process that was modelled."""
    root: TreeNode
    """FILE, with what it needs below it."""
    objects: int
    """How many different objects are in the tree."""
    missing: int
    """How many are missing."""
    tls_total: int
    """Bytes of TLS of all different objects together."""
    static_total: int
    """Bytes of those that are forced into the static block or start with the program."""
    error: str | None
    """Why FILE was not examined, in one sentence; None when it was."""
    copies: tuple[Copies, ...] = ()
    """Libraries of which several files come together."""
    findings: tuple[Finding, ...] = ()
    """What else is worth knowing."""

    command = "tree"

    @property
    def exit_status(self) -> int:
        """1 when FILE itself could not be examined, 10 with a missing object, else 0."""
        return EXIT_BROKEN if self.error else EXIT_FAILS if self.missing else EXIT_LOADS
