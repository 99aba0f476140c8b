"""What a file itself says of how it was made: crates, Go modules, compilers, its own package, its build-id.

All of this survives `strip -s`: none of it is a symbol.

- `.dep-v0` (cargo-auditable) has every crate with its version, and who needs whom.
- Rust's panic locations are paths of source files, those of a registry crate with name and version:
  `.../registry/src/INDEX/rand-0.6.5/src/lib.rs`. They are surely in the file; a crate that cannot panic is not told.
- `.go.buildinfo` (Go: debug/buildinfo) has the toolchain, the main module and its dependencies.
- `.comment` has a line of every compiler and of some linkers.
"""

from __future__ import annotations

from dlwhy.attribute.graph import GraphError, from_dep_v0
from dlwhy.attribute.opened import constants
from dlwhy.elf.constants import PF_W, SHT_NOBITS
from dlwhy.elf.notes import NT_FDO_PACKAGE, build_id, notes
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.graph import Graph
    from dlwhy.elf.file import Elf, Section

_LARGEST = 8 << 20
"""Bytes of a `.dep-v0` or `.comment` section at most."""
_MAX_CRATES = 4096
_MAX_MODULES = 10_000

_GO_MAGIC = b"\xff Go buildinf:"
_GO_INLINE = 2
"""Flag of Go 1.18 and later: the strings follow, and no pointers to them."""
_GO_FRAME = 16
"""Bytes around the module information, by which Go's own tools find it."""

_NAMED = rb"([A-Za-z0-9_][A-Za-z0-9_-]{0,63}?)-([0-9]+\.[0-9]+\.[0-9]+(?:[-+][0-9A-Za-z.+-]{1,60})?)/"
"""A directory of a crate's sources: the name ends where a version begins."""
_CRATES = (rb"/registry/src/[^/\0]{1,120}/" + _NAMED, rb"/rust/deps/" + _NAMED, rb"/vendor/" + _NAMED)
"""Where cargo lays them out, where rustc's own build does, and where `cargo vendor --versioned-dirs` does."""


class GoInfo(Record):
    """`go version -m` of a file, fields as that prints them."""

    version: str
    """Of the toolchain, e.g. "go1.26.8"."""
    path: str | None
    """Import path of the main package."""
    main: tuple[str, str] | None
    """Module path and version of the main package."""
    modules: tuple[tuple[str, str], ...]
    """Every module that it is made of, main one left out; a replaced one is what replaces it."""
    settings: tuple[tuple[str, str], ...]
    """Of the build, e.g. ("-buildmode", "c-shared")."""


class Embedded(Record):
    """All that a file says of itself."""

    build_id: str | None
    compilers: tuple[str, ...]
    """Lines of `.comment`, each once."""
    package: str | None
    """"NAME VERSION" of the note of a distribution (.note.package)."""
    crates: tuple[tuple[str, str], ...]
    """(name, version) in panic locations, sorted."""
    graph: Graph | None
    """Of `.dep-v0`."""
    go: GoInfo | None
    notes: tuple[str, ...]
    """What is there and could not be read, one sentence each."""


def embedded(elf: Elf) -> Embedded:
    """Return what a file says of itself. Never raises: what is damaged, or no part of a profile, is told in `notes`."""
    remarks: list[str] = []
    graph = None
    try:
        data = _section(elf, ".dep-v0")
        graph = from_dep_v0(data) if data else None
    except (GraphError, DlwhyError) as error:
        remarks.append(f".dep-v0 is not read: {error}")
    except Unknown:
        pass  # nothing else is there either
    try:
        return Embedded(build_id(elf), compilers(elf), _package(elf), crates(elf), graph, go_info(elf), tuple(remarks))
    except Unknown:
        remarks.append("the profile does not hold what the file says of itself")
        return Embedded(None, (), None, (), graph, None, tuple(remarks))


def compilers(elf: Elf) -> tuple[str, ...]:
    """Return the lines of `.comment`, each once and in order; empty when there is none."""
    try:
        data = _section(elf, ".comment")
    except DlwhyError:
        return ()
    lines = [line.decode("utf-8", "surrogateescape")[:200] for line in data.split(b"\0") if line.strip()]
    return tuple(dict.fromkeys(lines[:1000]))


def _package(elf: Elf) -> str | None:
    """The package that a `.note.package` names (systemd, ELF_PACKAGE_METADATA)."""
    found = next((n.desc for n in notes(elf) if n.owner == b"FDO" and n.type == NT_FDO_PACKAGE), None)
    if found is None:
        return None
    import json

    try:
        value = json.loads(found.rstrip(b"\0"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    words = [value.get(key) for key in ("name", "version")]
    return " ".join(word[:200] for word in words if isinstance(word, str)) or None


# -- Rust --------------------------------------------------------------------------------------------------------------


def crates(elf: Elf) -> tuple[tuple[str, str], ...]:
    """Return (name, version) of the registry crates whose panic locations are in a file, sorted."""
    import re

    patterns = [re.compile(pattern) for pattern in _CRATES]
    found: set[tuple[bytes, bytes]] = set()
    try:
        for data in constants(elf):
            found.update((one[1], one[2]) for pattern in patterns for one in pattern.finditer(data))
            if len(found) > _MAX_CRATES:
                break
    except DlwhyError:
        pass  # what was found until there is still there
    return tuple(sorted((name.decode(), version.decode()) for name, version in found))


# -- Go ----------------------------------------------------------------------------------------------------------------


def go_info(elf: Elf) -> GoInfo | None:
    """Return what `go version -m` says of a file, None where there is no Go or its information cannot be read.

    The strings follow since Go 1.18; before, they stand behind pointers, which relocations of a shared object fill.
    """
    try:
        data, offset = _go_blob(elf)
    except DlwhyError:
        return None
    if len(data) < 32:
        return None
    if not data[15] & _GO_INLINE:
        return _go_pointers(elf, data, offset)
    version, at = _go_string(data, 32)
    modules, _ = _go_string(data, at)
    return _go(version, modules)


def _go_blob(elf: Elf) -> tuple[bytes, int]:
    """Return what begins with the magic bytes, and where in the file; nothing without."""
    section = next((s for s in elf.sections if s.name == ".go.buildinfo"), None)
    places = (
        [(section.offset, section.size)] if section else [(r[2], min(r[5], 1 << 20)) for r in elf.loads if r[1] & PF_W]
    )
    for offset, size in places:
        data = elf.view.some(offset, min(size, _LARGEST))
        at = data.find(_GO_MAGIC)
        while at >= 0 and at % 16:  # it is aligned
            at = data.find(_GO_MAGIC, at + 1)
        if at >= 0:
            return data[at:], offset + at
    return b"", 0


def _go_string(data: bytes, at: int) -> tuple[bytes, int]:
    """The bytes behind a varint length, and where they end."""
    length = shift = 0
    for byte in data[at : at + 9]:
        at += 1
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return data[at : at + length], at + length


def _go_pointers(elf: Elf, data: bytes, offset: int) -> GoInfo | None:
    """Up to Go 1.17: two pointers to strings {pointer, length}."""
    from dlwhy.attribute.go_table import pointer_at

    size, order = data[14], "big" if data[15] & 1 else "little"
    if size not in (4, 8):
        return None
    found = []
    try:
        here = next((row[3] + offset - row[2] for row in elf.loads if row[2] <= offset < row[2] + row[5]), 0)
        moved = here if (size, order) == (8, "little") else 0
        for at in (16, 16 + size):
            where = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
            where = pointer_at(elf, moved + at) if moved else where
            words = elf.at(where, 2 * size) if where else bytes(2 * size)
            pointer, length = (int.from_bytes(words[i : i + size], order) for i in (0, size))  # type: ignore[arg-type]
            pointer = pointer_at(elf, where) if moved and where else pointer
            found.append(elf.at(pointer, length) if pointer and length <= _LARGEST else b"")
    except DlwhyError:
        return None
    return _go(*found)


def _go(version: bytes, modules: bytes) -> GoInfo | None:
    if not version.startswith((b"go", b"devel")):
        return None
    if len(modules) >= 2 * _GO_FRAME + 1 and modules[-_GO_FRAME - 1 : -_GO_FRAME] == b"\n":
        modules = modules[_GO_FRAME:-_GO_FRAME]
    path: str | None = None
    main: tuple[str, str] | None = None
    deps: list[tuple[str, str]] = []
    settings: list[tuple[str, str]] = []
    for line in modules.decode("utf-8", "replace").split("\n")[:_MAX_MODULES]:
        words = line.split("\t")
        if words[0] == "path" and len(words) > 1:
            path = words[1]
        elif words[0] in ("mod", "dep", "=>") and len(words) > 2:
            one = (words[1], words[2])
            if words[0] == "mod":
                main = one
            elif words[0] == "=>" and deps:
                deps[-1] = one
            else:
                deps.append(one)
        elif words[0] == "build" and len(words) > 1:
            key, _, value = words[1].partition("=")
            settings.append((key, value))
    return GoInfo(version.decode("utf-8", "replace")[:100], path, main, tuple(deps), tuple(settings))


# -- sections ----------------------------------------------------------------------------------------------------------


def _section(elf: Elf, name: str) -> bytes:
    """The bytes of a section, empty without one. Raises `DlwhyError` when it leaves the file or is too large."""
    found: Section | None = next((s for s in elf.sections if s.name == name and s.type != SHT_NOBITS), None)
    return elf.view.read(found.offset, min(found.size, _LARGEST)) if found is not None and found.size else b""
