"""Reports: all that a reader may be told, each part already in the order to show.

The names are the keys of the JSON (docs/reference, `dlwhy.render.json_v1`): what a field is called here is what a
script reads there. Sizes and offsets are bytes. Paths are as the process under examination would show them.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
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


class TypePart(Record):
    """One step into a big variable: its own type first, then that of the largest member, and so on."""

    member: str | None
    """The member's name in what is around it; None of the variable itself, and of what has no name."""
    type: str
    """The type as the source has it, with namespaces or crate."""
    bytes: int
    """How many bytes."""


class Declaration(Record):
    """Where the source declares a variable, by debug information."""

    file: str | None
    """Path of the source file as the compiler had it; None where it does not tell."""
    line: int | None
    """Line in it."""
    unit: str | None
    """Name of the compilation unit: the file that the compiler was called with, or Rust's codegen unit."""


class Share(Record):
    """Bytes of a TLS segment and whose they are."""

    owner: str
    """The crate, namespace, runtime, source file or library."""
    kind: ShareKind
    """What sort of owner it is."""
    bytes: int
    """How many bytes."""
    variable: str | None
    """The variable, demangled; of several the largest. None without a name."""
    unit: str | None
    """The source file, codegen unit, object or archive member, where the file or the linker's map tells it."""
    evidence: str
    """The fact that the owner follows from."""
    inside: tuple[TypePart, ...] = ()
    """Of a big variable what makes it big, by debug information; empty without, or where no member has half of it."""
    declared: Declaration | None = None
    """Where it is declared, by debug information; None without, and of `owners`."""


class CodeUser(Record):
    """Code of one owner that uses a trigger's variable as initial-exec."""

    owner: str
    """Whose code it is, as in `Share`."""
    kind: ShareKind
    """What sort of owner it is."""
    accesses: int
    """Places in its code."""
    evidence: str
    """The fact that the owner follows from."""
    basis: Basis = COMPUTED
    """"assumed" where nothing names the code and its panic locations tell a crate, which may only be inlined there."""


class CodeObject(Record):
    """An object file or archive member of the link, by the linker's map, whose code uses a trigger's variable."""

    file: str
    """OBJECT or ARCHIVE(MEMBER), as the linker was given it."""
    accesses: int
    """Places in its code."""
    rewritable: int
    """Those of them that GNU ld may have made of dynamic accesses; an object with others was initial-exec by itself."""


class Access(Record):
    """How the code of an object reaches one variable."""

    owner: str | None
    """Owner of the variable, as in `Share`; None of local-dynamic accesses, which serve all variables of the object."""
    variable: str | None
    """The variable, demangled; None when nothing names it."""
    offset: int | None
    """Bytes from the start of the segment; None for another module's variable, for local-dynamic, before the link."""
    model: AccessModel
    """The access model that the instructions show."""
    sites: int
    """Places in the code."""
    rewritable: int
    """Those of them that GNU ld may have made of general-dynamic or TLSDESC accesses."""


class Trigger(Record):
    """Relocations that force a segment into the static block, by variable."""

    owner: str
    """Owner of the variable, as in `Share`."""
    variable: str | None
    """The variable, demangled, or "variable at offset 0x…" where only code tells of it; None when nothing does."""
    relocation: str
    """Type of the relocations, as in <elf.h>, e.g. "R_X86_64_TPOFF64"."""
    accesses: int | None
    """Places in the code that use them; None when the code was not searched."""
    functions: tuple[str, ...]
    """Functions with such a place, demangled."""
    object: str
    """The object that holds the relocations."""
    relocations: int
    """How many relocations."""
    own: bool
    """Whether the variable is the object's own; else it lies in another module, which pays."""
    functions_total: int | None = None
    """How many functions have such a place, which may be more than are named; None when that was not looked for."""
    users: tuple[CodeUser, ...] = ()
    """Whose code has such places, most first."""
    rewritable: int = 0
    """Accesses that GNU ld writes for innocent code too once another access in the link is initial-exec."""
    offset: int | None = None
    """Where an own variable begins, in bytes from the start of the segment; None for another module's."""
    objects: tuple[CodeObject, ...] = ()
    """With a linker's map: which objects of the link have the places, those first that were surely initial-exec."""
    definer: str | None = None
    """Of another module's variable in `tls`: the object that defines it, whose segment must move, where the search of
    `tree` without a host finds it."""


class Provenance(Record):
    """How an owner came into the file, as far as files beside it tell."""

    owner: str
    """The owner, as in `Share`."""
    version: str | None
    """Its release; None when no file tells."""
    path: tuple[str, ...]
    """From what one asked for to the owner, each needing the next."""
    source: str
    """The file that says so, e.g. "Cargo.lock"."""
    basis: Basis = COMPUTED
    """"assumed" where a document lists it and the file itself does not show it."""


class Package(Record):
    """Something that is in a file, as the file itself says."""

    name: str
    """Name of the crate or module."""
    version: str
    """Its version."""
    kind: PackageKind
    """What sort of package it is."""
    source: str
    """What in the file says so, e.g. ".dep-v0"."""


class Identity(Record):
    """What a file says of itself, beside its bytes of TLS."""

    build_id: str | None
    """The build-id in hexadecimal; None without one."""
    compilers: tuple[str, ...]
    """Compilers and linkers that signed it (.comment), each once."""
    package: str | None
    """Name and version of the package it belongs to; None when nothing tells."""
    packages: tuple[Package, ...]
    """Crates and Go modules in it."""


class Suspect(Record):
    """A library known for static TLS trouble that a file is, or contains (docs/reference/suspects.md)."""

    id: str
    """Its short name."""
    name: str
    """Its name."""
    role: SuspectRole
    """What it is known for."""
    evidence: tuple[str, ...]
    """What in the file fits, one clause each."""
    basis: Basis
    """"computed" where a name fits, "assumed" where only a constant or a size does."""
    why: str | None
    """Why it accesses its variables as it does."""
    build: tuple[str, ...]
    """What upstream offers to build it, or its user, otherwise."""
    since: str | None
    """First release that is better; None when there is none."""
    references: tuple[str, ...]
    """Where this is told."""


class TlsObject(Record):
    """The bill of one object's TLS segment; shares, padding and unattributed sum up to `size`."""

    object: str
    """Link-map name or path of the object."""
    size: int
    """Bytes of the segment (p_memsz)."""
    align: int
    """Alignment of the segment in bytes."""
    model: str
    """Access models that the relocations show, e.g. "initial-exec", joined by "+"; "none" without any."""
    shares: tuple[Share, ...]
    """Variable by variable, the largest first."""
    padding: int
    """Bytes between variables that alignment explains."""
    unattributed: int
    """Bytes that no symbol covers."""
    triggers: tuple[Trigger, ...]
    """What forces the segment into the static block."""
    provenance: tuple[Provenance, ...]
    """How the owners came into the file, and whose file it is; empty when nothing tells."""
    owners: tuple[Share, ...] = ()
    """The shares added up by owner, the largest first."""
    notes: tuple[str, ...] = ()
    """What could not be read, one sentence each: why names are missing, or which document does not fit."""
    identity: Identity | None = None
    """What the file says of itself; None when it was not asked."""
    suspects: tuple[Suspect, ...] = ()
    """Known suspects that it is or contains."""


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


class TlsFile(Record):
    """One file of `tls`: a bill, or why there is none."""

    path: str
    """The file as it was named."""
    error: str | None
    """Why it was not examined, in one sentence; None when it was."""
    tls: TlsObject | None
    """None for a file without a TLS segment, or on error."""
    triggers: tuple[Trigger, ...]
    """Relocations into other modules' TLS count here too, so a file without a segment may have some."""
    accesses: tuple[Access, ...] = ()
    """How the code reaches each variable, by variable and model; empty when the code was not searched."""
    searched: int | None = None
    """Bytes of code that were searched; None when the code was not searched."""
    findings: tuple[Finding, ...] = ()
    """What else is worth knowing: evidence that was not believed or not read, dangers that have not come true yet."""
    kind: FileKind = "linked"
    """Whether the file is linked; the bill of one that is not is what it would bring into a link."""
    members: tuple[TlsFile, ...] = ()
    """Of an archive: its object files that define or use thread-local variables, and what could not be examined."""
    members_total: int | None = None
    """How many members an archive has; None of what is no archive."""
    members_foreign: int = 0
    """How many of them are no ELF files: a compiler's own data."""


class TlsReport(Record):
    """Answer of `tls`."""

    files: tuple[TlsFile, ...]
    """The files in the order in which they were named."""

    command = "tls"

    @property
    def exit_status(self) -> int:
        """1 when any file could not be examined, 3 when no file was named, else 0."""
        if not self.files:
            return EXIT_NOTHING
        return worst([EXIT_BROKEN if one.error else EXIT_LOADS for file in self.files for one in (file, *file.members)])


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
