"""From a bill to why its owners are in the file: what the file says, what lies beside it, what a lock file could tell.

A chain of dependencies is `computed` when the file itself shows its end at that version (or brings the chain, as
`.dep-v0` does), and `assumed` when only a lock file or SBOM has it: such a document lists what could be in there, for
all platforms and features, and may be another build's. That it is of another build is said where the file shows it.
"""

from __future__ import annotations

import os

from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record
from dlwhy.report import ASSUMED, COMPUTED
from dlwhy.report_tls import Identity, Package, Provenance, Suspect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.attribute.embedded import Embedded
    from dlwhy.attribute.graph import Graph
    from dlwhy.attribute.installed import Installed
    from dlwhy.elf.file import Elf
    from dlwhy.files import Files
    from dlwhy.report_tls import TlsObject

_LOCK = "Cargo.lock"
_DEEPEST = 40
"""Directories above a file in which a lock file is looked for."""
_WAYS = 4
"""Versions of one crate that are told, where the file does not show which one it has."""
_STD = frozenset(("alloc", "core", "panic_abort", "panic_unwind", "proc_macro", "std", "test"))
_WITH_STD = frozenset((
    "addr2line", "adler", "adler2", "cfg-if", "compiler_builtins", "fortanix-sgx-abi", "getopts", "gimli", "hashbrown",
    "hermit-abi", "libc", "memchr", "miniz_oxide", "object", "rustc-demangle", "unwinding",
))  # fmt: skip
"""Crates that the standard library brings along, at versions that no lock file has."""
_SYMBOLS_WITH_STD = frozenset(name.replace("-", "_") for name in _WITH_STD)


class Lock(Record):
    """A lock file: its graph, or why there is none."""

    name: str
    """As shown."""
    graph: Graph | None
    note: str | None


def read_lock(path: str, files: Files, shown: str | None = None) -> Lock:
    """Return the lock file at `path`. Raises `FilesError` when there is none; what is no lock file has a note."""
    from dlwhy.attribute.graph import MAX_LOCK, GraphError, from_lock

    name = shown or path
    view = files.open(path)
    try:
        if view.read_errno:
            return Lock(name, None, f"{name} is not read: no lock file of cargo")
        if view.size > MAX_LOCK:
            told = f"no lock file of cargo has {view.size} bytes, dlwhy reads at most {MAX_LOCK}"
            return Lock(name, None, f"{name} is not read: {told}")
        return Lock(name, from_lock(view.read(0, view.size)), None)
    except GraphError as error:
        return Lock(name, None, f"{name} is not read: {error}")
    finally:
        view.close()


def _near(path: str, files: Files) -> Lock | None:
    """The lock file beside a file, or that of the package or workspace above it (cargo: a Cargo.toml stands there)."""
    directory = path
    for level in range(_DEEPEST):
        directory = directory.rpartition("/")[0]
        here = f"{directory}/{_LOCK}"
        if files.kind(here) == "file" and (level == 0 or files.kind(f"{directory}/Cargo.toml") == "file"):
            try:
                return read_lock(here, files, _LOCK)
            except DlwhyError:
                return None
        if not directory:
            break
    return None


def explained(bill: TlsObject, elf: Elf, files: Files, lock: Lock | None = None) -> TlsObject:
    """Return a bill with its provenance and the identity of its file; what could not be read goes to its notes.

    `files` are those among which the file lies, `lock` is the lock file that was named; without one it is looked for.
    """
    from dlwhy.attribute.embedded import embedded
    from dlwhy.attribute.installed import installed

    path = os.path.normpath(elf.path if elf.path.startswith("/") or files.root else os.path.abspath(elf.path))
    inside = embedded(elf)
    package = None
    try:
        package = installed(path, files)
        lock = lock or _near(path, files)
    except Unknown:  # a profile holds no more than the loader reads
        pass
    graphs: list[tuple[str, Graph]] = [(".dep-v0", inside.graph)] if inside.graph is not None else []
    notes = [*inside.notes, *(package.notes if package is not None else ())]
    foreign = None
    if lock is not None:
        notes += [lock.note] if lock.note else []
        if lock.graph is not None:
            graphs.append((lock.name, lock.graph))
            foreign = _other_build(lock, inside, [owner for owner, kind in _owners(bill) if kind == "crate"])
            notes += [foreign] if foreign else []
    graphs += package.graphs if package is not None else ()
    asker = _Asker(inside, tuple(graphs), _names(path, bill), lock.name if lock is not None and foreign else None)
    lines: list[Provenance] = []
    for owner, kind in _owners(bill):
        lines += asker.owner(owner, kind)
    if package is not None:
        lines.append(_of_package(path, package))
    return bill.but(
        provenance=tuple(dict.fromkeys(lines)), identity=_identity(inside, package), notes=(*bill.notes, *notes),
        suspects=_suspects(bill, elf, path),
    )  # fmt: skip


def _suspects(bill: TlsObject, elf: Elf, path: str) -> tuple[Suspect, ...]:
    from dlwhy.attribute.suspects import suspects
    from dlwhy.attribute.variables import library_name

    names = dict.fromkeys((library_name(elf), *(unhashed(name.rpartition("/")[2]) for name in (path, elf.path))))
    variables = {one.variable: 0 for one in bill.triggers if one.variable is not None}
    variables |= {one.variable: one.bytes for one in bill.shares if one.variable is not None}
    relocations = sum(one.relocations for one in bill.triggers if one.own)
    return tuple(
        Suspect(
            one.id, one.name, one.role, one.evidence, COMPUTED if one.sure else ASSUMED, one.why, one.build, one.since,
            one.references,
        )
        for one in suspects(elf, names, variables, relocations)
    )  # fmt: skip


def _owners(bill: TlsObject) -> list[tuple[str, str]]:
    """(owner, kind) of all that the bill names, the largest first; a trigger's own kind is not known."""
    found = dict.fromkeys((one.owner, one.kind) for one in (bill.owners or bill.shares))
    known = {owner for owner, _ in found}
    found.update(dict.fromkeys((one.owner, "") for one in bill.triggers if one.own and one.owner not in known))
    return list(found)


def _names(path: str, bill: TlsObject) -> tuple[str, ...]:
    """What the crate may be called that was built into this file: libvalet.so and valet.node are of `valet`."""
    stems = [name.rpartition("/")[2].partition(".")[0] for name in (path, bill.object)]
    return tuple(dict.fromkeys(name for stem in stems for name in (stem, stem.removeprefix("lib"))))


def _identity(inside: Embedded, package: Installed | None) -> Identity:
    listed = [Package(name, version, "crate", "panic locations") for name, version in inside.crates]
    if inside.graph is not None:
        listed = [Package(one.name, one.version, "crate", ".dep-v0") for one in inside.graph.packages]
    if inside.go is not None:
        modules = [*([inside.go.main] if inside.go.main else []), *inside.go.modules]
        listed += [Package(name, version, "module", ".go.buildinfo") for name, version in modules]
    told = inside.package
    if told is None and package is not None:
        told = f"{package.name} {package.version or ''}".rstrip()
    return Identity(inside.build_id, inside.compilers, told, tuple(listed))


def _of_package(path: str, package: Installed) -> Provenance:
    """The line of the file's own package, with the distribution's package that a wheel took a vendored library from."""
    name = path.rpartition("/")[2]
    top = f"{package.name} {package.version or ''}".rstrip()
    stem = unhashed(name).partition(".so")[0]
    for document, graph in package.graphs:
        for one in graph.packages:
            if one.kind in ("rpm", "deb", "apk", "generic") and one.name == stem:
                from_ = f"{one.name} {one.version} ({one.kind})"
                return Provenance(name, one.version or None, (top, from_), f"{package.source}, {document}", COMPUTED)
    return Provenance(name, package.version, (top,), package.source, COMPUTED)


def origin(path: str, files: Files) -> Provenance | None:
    """Return the package that the file at `path` (absolute) belongs to, and what that took it from; None if unknown.

    Raises `Unknown` where the files of a profile do not tell.
    """
    from dlwhy.attribute.installed import installed

    package = installed(path, files)
    return _of_package(path, package) if package is not None else None


def unhashed(name: str) -> str:
    """Return the file name that a library had before auditwheel put eight digits of its hash before its first dot."""
    stem, dot, rest = name.partition(".")
    while len(stem) > 9 and stem[-9] == "-" and all(c in "0123456789abcdef" for c in stem[-8:]):
        stem = stem[:-9]
    return stem + dot + rest


def _other_build(lock: Lock, inside: Embedded, owners: list[str]) -> str | None:
    """One sentence when the file has crates, or versions of them, that the lock file does not have."""
    assert lock.graph is not None
    there = {(one.name, one.version) for one in lock.graph.packages}
    listed = [(one.name, one.version) for one in inside.graph.packages] if inside.graph is not None else []
    shown = [*(one for one in listed if all(one)), *(one for one in inside.crates if one[0] not in _WITH_STD)]
    lacking = [one for one in dict.fromkeys(shown) if one not in there]
    if not lacking:
        return _no_crate(lock.name, lock.graph, [name for name in owners if name not in _STD | _SYMBOLS_WITH_STD])
    name, version = lacking[0]
    others = sorted({one.version for one in lock.graph.packages if one.name == name})
    has = f"has {name} {', '.join(others)}" if others else f"has no {name}"
    more = f" (and {len(lacking) - 1} more such)" if len(lacking) > 1 else ""
    return f"{lock.name} is of another build: the file contains {name} {version}, the lock file {has}{more}"


def _no_crate(name: str, graph: Graph, owners: list[str]) -> str | None:
    """One sentence when a lock file has none of the crates whose names are in symbols; a crate may rename itself."""
    if not owners or any(graph.named(owner) for owner in owners):
        return None
    told = ", ".join(owners[:3]) + (f" and {len(owners) - 3} more" if len(owners) > 3 else "")
    return f"{name} has no crate called {told}, as the file has: it is of another build, or has other names for them"


class _Asker:
    """Asks all documents of one file for its owners."""

    def __init__(
        self, inside: Embedded, graphs: tuple[tuple[str, Graph], ...], names: tuple[str, ...], foreign: str | None
    ) -> None:
        self.inside = inside
        self.graphs = graphs
        self.names = names
        self.foreign = foreign
        """Name of the lock file that is of another build."""
        self.versions: dict[str, set[str]] = {}
        for name, version in inside.crates:
            self.versions.setdefault(name.replace("-", "_"), set()).add(version)

    def owner(self, owner: str, kind: str) -> list[Provenance]:
        """Return why this owner is in the file; empty when nothing tells."""
        if kind == "go" or owner == "Go runtime":
            return self._go(owner)
        if owner in _STD and kind in ("crate", ""):
            return self._std(owner)
        if kind == "crate":
            return self._crate(owner)
        return self._native(owner)

    def _go(self, owner: str) -> list[Provenance]:
        go = self.inside.go
        if go is None:
            return []
        main = " ".join(go.main) if go.main else go.path
        way = (*([main] if main else []), f"{owner} {go.version}")
        return [Provenance(owner, go.version, way, ".go.buildinfo", COMPUTED)]

    def _std(self, owner: str) -> list[Provenance]:
        line = next((one for one in self.inside.compilers if one.startswith("rustc version ")), None)
        if line is None:
            return []
        return [Provenance(owner, line.split()[2], (), ".comment", COMPUTED)]

    def _crate(self, owner: str) -> list[Provenance]:
        shown = self.versions.get(owner, set())
        for source, graph in self.graphs:
            places = [at for at in graph.named(owner) if graph.packages[at].kind == "cargo"]
            if shown:
                places = [at for at in places if graph.packages[at].version in shown]
            lines = []
            for at in places[:_WAYS]:
                sure = source == ".dep-v0" or (bool(shown) and source != self.foreign)
                told = f"{source}, panic locations" if shown and sure else source
                lines.append(_line(owner, graph, at, self.names, told, COMPUTED if sure else ASSUMED))
            if lines:
                return lines
        return [Provenance(owner, one, (), "panic locations", COMPUTED) for one in sorted(shown)[:_WAYS]]

    def _native(self, owner: str) -> list[Provenance]:
        """A C library that a crate brings: its `-sys` crate, by its name."""
        wanted = owner.lower().replace("-", "_")
        if len(wanted) < 3 or "." in wanted:
            return []
        for source, graph in self.graphs:
            for at, one in enumerate(graph.packages):
                name = one.name.replace("-", "_")
                if one.kind == "cargo" and name.endswith("_sys") and wanted in name:
                    return [_line(owner, graph, at, self.names, source, ASSUMED)]
        return []


def _line(owner: str, graph: Graph, at: int, names: Iterable[str], source: str, basis: str) -> Provenance:
    one = graph.packages[at]
    way = graph.path(at, tuple(names)) or (one,)
    return Provenance(owner, one.version, tuple(f"{step.name} {step.version}" for step in way), source, basis)
