"""The report of `tls`, and the bills that explain why static TLS did not suffice: who fills it, who forces it."""

from __future__ import annotations

from dlwhy.record import Record
from dlwhy.report import COMPUTED, EXIT_BROKEN, EXIT_LOADS, EXIT_NOTHING, worst

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import AccessModel, Basis, FileKind, Finding, PackageKind, ShareKind, SuspectRole


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
