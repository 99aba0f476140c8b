"""Dependency graphs that a build left behind: Cargo.lock, cargo-auditable's `.dep-v0`, CycloneDX documents.

All three become one `Graph`, and one question is asked of it: by which shortest way does a root need this package?
A graph says what *could* be in a file (a lock file lists all platforms, features and tests); that it *is* there the
file itself must say.

Rule 1: every number from a document is bounded before it is used, and a cycle ends where it began.
Rule 2: what cannot be read raises `GraphError` with one sentence; it never becomes an empty graph.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_BYTES = 16 << 20
"""Bytes of one document."""
MAX_LOCK = 4 << 20
"""Bytes of a lock file, which takes longer to read; the largest met has 700,000."""
MAX_PACKAGES = 50_000
MAX_EDGES = 1_000_000
MAX_INFLATED = 8 << 20
"""Bytes of a `.dep-v0` section once inflated."""
_LONGEST = 200
"""Characters of a name or version; longer ones are nobody's."""


class GraphError(Exception):
    """A document that is not what its name says; `str()` is one sentence without the file's name."""


class Package(Record):
    """One node: a package at a version."""

    name: str
    version: str
    kind: str
    """Whose package it is, as in a package URL: cargo, golang, rpm, deb, pypi, npm...; "" where nothing tells."""


class Graph(Record):
    """Who needs whom. `needs[i]` are the indices of what package i needs; all indices are valid."""

    packages: tuple[Package, ...]
    needs: tuple[tuple[int, ...], ...]
    roots: tuple[int, ...]
    """What was built: nothing needs it, or the document names it."""

    def named(self, name: str) -> tuple[int, ...]:
        """Return the packages of a name, a crate's with either dash."""
        wanted = plain(name)
        return tuple(i for i, one in enumerate(self.packages) if plain(one.name) == wanted)

    def path(self, target: int, preferred: Sequence[str] = ()) -> tuple[Package, ...]:
        """Return the shortest way from a root to `target`, both included; empty when no root needs it.

        A root named in `preferred` is taken before any other.
        """
        wanted = {plain(name) for name in preferred}
        favourites = [root for root in self.roots if plain(self.packages[root].name) in wanted]
        for roots in (favourites, self.roots):
            found = self._shortest(roots, target)
            if found:
                return found
        return ()

    def _shortest(self, roots: Iterable[int], target: int) -> tuple[Package, ...]:
        came: dict[int, int] = dict.fromkeys(roots, -1)
        todo = list(came)
        for at in todo:  # breadth first: it grows while it is read, each package once
            if at == target:
                way = [at]
                while came[way[-1]] >= 0:
                    way.append(came[way[-1]])
                return tuple(self.packages[place] for place in reversed(way))
            for to in self.needs[at]:
                if to not in came:
                    came[to] = at
                    todo.append(to)
        return ()


def plain(name: str) -> str:
    """Return a package's name as a crate's symbols have it: no dashes."""
    return name.replace("-", "_")


# -- Cargo.lock --------------------------------------------------------------------------------------------------------


def from_lock(data: bytes) -> Graph:
    """Return the graph of a Cargo.lock, versions 1 to 4 (cargo-util-schemas, lockfile). Raises `GraphError`.

    Roots are the packages without a source (those of the workspace) that nothing else needs.
    """
    import tomllib

    if len(data) > MAX_LOCK:
        raise GraphError(f"a lock file of {len(data)} bytes, where dlwhy reads at most {MAX_LOCK}")
    try:
        document = tomllib.loads(data.decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        raise GraphError(f"no lock file of cargo: {_sentence(error)}") from None
    rows = document.get("package", [])
    old_root = document.get("root")  # up to 2017 the root stood apart
    if isinstance(old_root, dict):
        rows = [old_root, *(rows if isinstance(rows, list) else [])]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise GraphError("no lock file of cargo: it has no packages")
    packages, sources, wants = [], [], []
    for row in rows[: MAX_PACKAGES + 1]:
        packages.append(Package(_word(row.get("name")), _word(row.get("version")), "cargo"))
        sources.append(row.get("source") if isinstance(row.get("source"), str) else None)
        wanted = row.get("dependencies", [])
        wants.append([one for one in wanted if isinstance(one, str)] if isinstance(wanted, list) else [])
    if len(packages) > MAX_PACKAGES:
        raise GraphError(f"more than {MAX_PACKAGES} packages")
    index = _index(packages)
    needs: list[list[int]] = []
    left = MAX_EDGES
    for wanted in wants:
        needs.append([])
        for text in wanted:
            places = _meant(text, index, sources)
            left -= len(places) + 1  # a name alone means all its versions: too many of them are never kept
            if left < 0:
                raise GraphError(f"more than {MAX_PACKAGES} packages or {MAX_EDGES} dependencies")
            needs[-1] += places
    own = [i for i, source in enumerate(sources) if source is None]
    return _graph(packages, needs, own)


def _index(packages: list[Package]) -> dict[str, dict[str, list[int]]]:
    found: dict[str, dict[str, list[int]]] = {}
    for place, one in enumerate(packages):
        found.setdefault(one.name, {}).setdefault(one.version, []).append(place)
    return found


def _meant(text: str, index: dict[str, dict[str, list[int]]], sources: list[str | None]) -> list[int]:
    """The packages that "name", "name version" or "name version (source)" means."""
    name, _, rest = text.partition(" ")
    version, _, source = rest.partition(" ")
    versions = index.get(name, {})
    places = versions.get(version, []) if version else [place for group in versions.values() for place in group]
    exact = [place for place in places if source and sources[place] == source.strip("()")]
    return exact or places


def _graph(packages: list[Package], needs: list[list[int]], own: list[int]) -> Graph:
    """Roots are those of `own` that nothing needs; all of `own` in a cycle; without any, whatever nothing needs."""
    if len(packages) > MAX_PACKAGES or sum(map(len, needs)) > MAX_EDGES:
        raise GraphError(f"more than {MAX_PACKAGES} packages or {MAX_EDGES} dependencies")
    needed = {to for one in needs for to in one}
    roots = [i for i in own if i not in needed] or own or [i for i in range(len(packages)) if i not in needed]
    return Graph(tuple(packages), tuple(tuple(dict.fromkeys(one)) for one in needs), tuple(roots))


# -- cargo-auditable ---------------------------------------------------------------------------------------------------


def from_dep_v0(data: bytes) -> Graph:
    """Return the graph in a `.dep-v0` section: zlib over JSON (cargo-auditable, PARSING.md). Raises `GraphError`."""
    import zlib

    try:
        stream = zlib.decompressobj()
        text = stream.decompress(data, MAX_INFLATED)
        ended = stream.eof
    except zlib.error as error:
        raise GraphError(f"it does not inflate: {_sentence(error)}") from None
    if not ended:
        what = f"it inflates to more than {MAX_INFLATED} bytes" if stream.unconsumed_tail else "it is cut short"
        raise GraphError(what)
    rows = _json(text).get("packages")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise GraphError("it has no packages")
    packages = [Package(_word(row.get("name")), _word(row.get("version")), "cargo") for row in rows[: MAX_PACKAGES + 1]]
    needs, own = [], []
    for place, row in enumerate(rows[: MAX_PACKAGES + 1]):
        wanted = row.get("dependencies", [])
        wanted = wanted if isinstance(wanted, list) else []
        needs.append([to for to in wanted if type(to) is int and 0 <= to < len(packages) and to != place])
        if row.get("root") is True:
            own.append(place)
    return _graph(packages, needs, own)


# -- CycloneDX ---------------------------------------------------------------------------------------------------------


def from_cyclonedx(data: bytes) -> Graph:
    """Return the graph of a CycloneDX document in JSON, 1.2 to 1.6 (ECMA-424). Raises `GraphError`."""
    if len(data) > MAX_BYTES:
        raise GraphError(f"a document of {len(data)} bytes, where dlwhy reads at most {MAX_BYTES}")
    document = _json(data)
    if document.get("bomFormat") != "CycloneDX":
        raise GraphError("no CycloneDX document")
    packages: list[Package] = []
    places: dict[str, int] = {}
    metadata = document.get("metadata")
    top = metadata.get("component") if isinstance(metadata, dict) else None
    # The top's own components are its targets (library, program), which no dependency names.
    bare = {key: value for key, value in top.items() if key != "components"} if isinstance(top, dict) else None
    _components([bare, *_list(document.get("components"))], packages, places)
    if not packages:
        raise GraphError("it has no components")
    needs: list[list[int]] = [[] for _ in packages]
    for row in _list(document.get("dependencies")):
        ref = row.get("ref") if isinstance(row, dict) else None
        at = places.get(ref) if isinstance(ref, str) else None
        if at is not None and isinstance(row, dict):
            wanted = [places.get(one) for one in _list(row.get("dependsOn")) if isinstance(one, str)]
            needs[at] += [to for to in wanted if to is not None and to != at]
    return _graph(packages, needs, [0] if isinstance(top, dict) else [])


def _components(rows: Sequence[object], packages: list[Package], places: dict[str, int]) -> None:
    """Add the components, those inside of others too; of several under one reference the first counts."""
    todo = list(rows)
    for row in todo:
        if len(todo) > 2 * MAX_PACKAGES:
            raise GraphError(f"more than {MAX_PACKAGES} components")
        if not isinstance(row, dict):
            continue
        todo += _list(row.get("components"))
        purl, ref = row.get("purl"), row.get("bom-ref")
        kind = purl[4:].partition("/")[0] if isinstance(purl, str) and purl.startswith("pkg:") else ""
        key = ref if isinstance(ref, str) else f"{row.get('name')}@{row.get('version')}"
        if key not in places:
            places[key] = len(packages)
            packages.append(Package(_word(row.get("name")), _word(row.get("version")), _word(kind)))


# -- JSON --------------------------------------------------------------------------------------------------------------


def _json(data: bytes) -> dict[str, object]:
    import json

    try:
        value = json.loads(data)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise GraphError(f"no JSON: {_sentence(error)}") from None
    if not isinstance(value, dict):
        raise GraphError("no JSON object")
    return value


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _word(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
