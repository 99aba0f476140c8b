"""From a TLS variable to its owner: which crate, namespace, runtime, source file or library it belongs to.

The mangled name is believed first, for it was written by the compiler that defined the variable. The file symbol
before it (STT_FILE) is believed where linkers keep it right:

    GNU ld     right for what was local in the object; hidden globals made local stand behind a nameless one
    gold       right for what was local; hidden globals made local stand behind the last file, crtstuff.c
    lld, mold  right
    GCC LTO    nameless, or names the partition and not the source

so a nameless one, one of the C runtime's start files and one of an LTO partition say nothing.
"""

from __future__ import annotations

import re

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

RUNTIME = "Go runtime"
"""Owner of what the Go runtime defines."""

NO_PACKAGE = "Go code without a package"
"""Owner of functions of Go, often in assembler, whose names do not tell a package."""

NAME_LIMIT = 2000
"""Characters of a name that are shown; no honest name met was longer than 800."""

FOREIGN = "another library"
"""Owner of a variable that the object uses but does not define, when its name does not tell more."""

PREFIXES: tuple[tuple[str, str], ...] = (
    ("_rjem_", "jemalloc"),
    ("je_", "jemalloc"),
    ("_mi_", "mimalloc"),
    ("mi_", "mimalloc"),
    ("s2n_", "s2n"),
)
"""C libraries that mark their symbols: (prefix, owner)."""

_GO_VARIABLES = frozenset(("runtime.tlsg", "runtime.tls_g"))
_GO_MADE = re.compile(r"type[.:]\.(?:eq|hash)\.(?:\[\d+\])*")
_GO_ESCAPE = re.compile(r"%([0-9a-f]{2})")
"""How the last part of an import path writes a dot and what is not printable (Go cmd/internal/objabi, PathToPrefix)."""
_CODEGEN_UNIT = re.compile(r"([A-Za-z_][0-9A-Za-z_]{0,200})\.[0-9a-f]{8,32}-cgu\.\d+")
_MEMBER = re.compile(r"(.+)\(([^()]+)\)")
_CODEGEN_MEMBER = re.compile(r"(?:[^.]{1,200}\.)?([A-Za-z_][0-9A-Za-z_]{0,200})\.[0-9a-f]{8,32}-cgu\.\d+\.")
_RLIB = re.compile(r"lib([A-Za-z_][0-9A-Za-z_]{0,200})-[0-9a-f]{8,32}\.rlib")
_SAYS_NOTHING = re.compile(r"crtstuff\.c|crt[1in]\.[cSs]|<artificial>|.*\.ltrans\d*(?:\.ltrans)?\.o|cc\w{6}\.[a-z.]+")
# _Z, special names of a variable (guard, temporary), local names and internal linkage, then a nested or std:: name
_NAMESPACE = re.compile(r"_Z(?:G[VR])?[ZL]*(?:(N)[rVKRO]*L?)?(?:(St|S[absiod])|([1-9][0-9]{0,3}))")
_SUFFIX = re.compile(r"(?:\.(?:llvm|lto_priv|constprop|isra|part)\.[0-9A-F]+|\.cold|\.warm|\.[0-9]+|@@?[^@]*)+\Z")
_THREAD_LOCAL = re.compile(
    r"::(?:__getit::(?:__KEY|VAL|STATE)"
    r"|(?:\{\{constant\}\}|\{(?:constant|K)#\d+\})::(?:\{\{closure\}\}|\{closure#\d+\})::(?:__RUST_STD_INTERNAL_)?(?:VAL|STATE))\Z"
)


class Owner(Record):
    """Who a variable belongs to, and what says so."""

    name: str
    kind: str
    """crate, namespace, go, archive, unit (a source file or object) or library."""
    evidence: str
    """One clause naming the fact that the owner follows from; empty when it is the place in the linker's map alone."""


def peel(name: str) -> str:
    """Return a symbol's name without what optimisers and linkers append: `.llvm.7`, `.cold`, `.0`, `@VERSION`..."""
    if len(name) > NAME_LIMIT or not ("." in name or "@" in name):
        return name
    return _SUFFIX.sub("", name) or name


def owner(name: str, unit: str | None, source: str, library: str, origin: str | None = None) -> Owner:
    """Return the owner of the variable `name` (as written in `source`), whose object is called `library`.

    `unit` is the STT_FILE symbol before it, or None; `origin` the object file or `archive(member)` that a linker's map
    has at its place. Never fails: what nothing else claims belongs to the library.
    """
    plain = peel(name)
    if plain in _GO_VARIABLES or unit == "go.go":
        return Owner(RUNTIME, "go", f"name in {source}" if plain in _GO_VARIABLES else "file symbol go.go")
    if plain.startswith(("_R", "_ZN")):
        crate = _crate(plain)
        if crate:
            return Owner(crate, "crate", f"mangled name in {source}")
    for prefix, known in PREFIXES:
        if plain.startswith(prefix):
            return Owner(known, "library", f"prefix {prefix} in {source}")
    if plain.startswith("_Z"):
        space = namespace(plain)
        if space:
            return Owner(space, "namespace", f"mangled name in {source}")
    whose = origin_owner(origin) if origin else None
    if whose is not None:
        return whose
    if unit:
        found = _CODEGEN_UNIT.fullmatch(unit)
        if found:
            return Owner(found[1], "crate", "codegen unit in the file symbol")
        if trusted(unit):
            return Owner(shown(unit), "unit", "file symbol")
    if origin:
        return Owner(shown(origin.rpartition("/")[2]), "unit", "")
    return Owner(library, "library", f"defined here, by {source}")


def package(function: str) -> Owner:
    """Return the Go package of a function, whose name in the Go runtime's own table begins with the import path.

    What the compiler makes to compare and hash a type is the type's package's. Assembler functions may have no package.
    """
    made = _GO_MADE.match(function)
    path = function[made.end() if made else 0 :].partition("[")[0]  # arguments of generics are paths, too
    folder, slash, last = path.rpartition("/")
    last, dot, _ = last.partition(".")
    if not dot or " " in path:
        return Owner(NO_PACKAGE, "go", "function name in .gopclntab, which has no package")
    path = folder + slash + _GO_ESCAPE.sub(lambda found: chr(int(found[1], 16)), last)
    runtime = path in ("runtime", "runtime/cgo") or path.startswith(("internal/runtime/", "runtime/internal/"))
    return Owner(RUNTIME if runtime else shown(path), "go", "function name in .gopclntab")


def origin_owner(origin: str) -> Owner | None:
    """Return whose an archive's member is: the crate of a Rust library, the Go runtime, else the archive.

    None for what is no member of an archive.
    """
    found = _MEMBER.fullmatch(origin)
    if found is None:
        return None
    archive, member = found[1].rpartition("/")[2], found[2]
    crate = _CODEGEN_MEMBER.match(member) or _RLIB.fullmatch(archive)
    if crate:
        return Owner(crate[1], "crate", "")
    if member == "go.o":  # what cmd/link calls the object of all Go code in a c-archive
        return Owner("Go runtime", "go", "")
    return Owner(shown(archive), "archive", "")


def trusted(unit: str) -> bool:
    """Whether a file symbol says where the variables behind it come from (see the table above)."""
    return bool(unit) and len(unit) <= NAME_LIMIT and not _SAYS_NOTHING.fullmatch(unit)


def namespace(name: str) -> str | None:
    """Return the outermost C++ namespace (or class) in a mangled name, or None when it has none that tells."""
    found = _NAMESPACE.match(name)
    if not found:
        return None
    if found[2]:
        return "std"
    if not found[1]:
        return None
    length = int(found[3])
    space = name[found.end() : found.end() + length]
    return space if len(space) == length and space.isidentifier() and not space.startswith("_GLOBAL_") else None


def names(symbols: Iterable[str]) -> dict[str, str]:
    """Return symbol -> the variable's name as a reader knows it, for each of `symbols`.

    Demangled, and of Rust's `thread_local!` only the name that its author gave; names too long to be meant are cut.
    """
    result = {}
    mangled = set()
    for symbol in symbols:
        result[symbol] = peel(symbol) if len(symbol) <= NAME_LIMIT else symbol
        if symbol.startswith(("_Z", "_R")) and len(symbol) <= NAME_LIMIT:
            mangled.add(symbol)
    if mangled:
        from dlwhy.attribute.demangle import demangle_all

        result.update(demangle_all(mangled))
    return {symbol: shown(_THREAD_LOCAL.sub("", text)) for symbol, text in result.items()}


def shown(name: str) -> str:
    """Return `name`, cut when it is too long to be meant for a reader."""
    return name if len(name) <= NAME_LIMIT else f"{name[:NAME_LIMIT]}... ({len(name)} characters)"


def _crate(name: str) -> str | None:
    if name.startswith("_ZN") and "17h" not in name[-20:]:  # C++, unless it ends in Rust's hash
        return None
    from dlwhy.attribute.demangle_rust import rust_crate

    return rust_crate(name)
