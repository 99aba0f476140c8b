"""Which package put a file where it lies: what package managers wrote beside it or into their databases.

Only files are read; no package manager is run. `Installed.package` is the package itself, `parts` what it was made of
where it tells (an SBOM). Asked in this order, the nearest first: wheel, npm, conda, dpkg, apk, rpm.

    wheel   SITE/NAME-VERSION.dist-info/RECORD lists the file (PyPA: recording installed projects)
    npm     the nearest package.json with a name and a version
    conda   PREFIX/conda-meta/*.json, "files"
    dpkg    /var/lib/dpkg/info/PACKAGE[:ARCH].list, with and without /usr (merged directories)
    apk     /lib/apk/db/installed, F: and R: lines
    rpm     rpmdb.sqlite; the older databases (Berkeley DB, ndb) are not read
"""

from __future__ import annotations

from dlwhy.attribute.graph import GraphError, from_cyclonedx
from dlwhy.errors import DlwhyError, FilesError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.attribute.graph import Graph
    from dlwhy.files import Files

_DEEPEST = 40
"""Directories above a file that are looked at."""
_LARGEST = 64 << 20
"""Bytes of one database file at most."""
_HASHED = 64 << 20
"""Bytes of a file whose hash is compared with its RECORD; of a larger one only the size is."""
_SBOMS = 16


class Installed(Record):
    """The package that a file belongs to."""

    name: str
    version: str | None
    manager: str
    """wheel, npm, conda, dpkg, apk or rpm."""
    source: str
    """The file that says so, e.g. "scikit_learn-1.9.1.dist-info/RECORD"."""
    graphs: tuple[tuple[str, Graph], ...]
    """(file name, graph) of each SBOM that the package brings."""
    notes: tuple[str, ...]
    """What does not fit or could not be read, one sentence each."""


def installed(path: str, files: Files) -> Installed | None:
    """Return the package of the file at `path` (absolute), or None when nothing tells. Never raises."""
    for name in _both(path, files):
        for ask in (_wheel, _npm, _conda, _dpkg, _apk, _rpm):
            try:
                found = ask(name, files)
            except (DlwhyError, ValueError):  # damaged or unreadable: the next may know
                continue
            if found is not None:
                return found
    return None


def _both(path: str, files: Files) -> tuple[str, ...]:
    """The path and what its links lead to, each once: a link may belong to another package than its target."""
    try:
        return tuple(dict.fromkeys((path, files.resolve(path))))
    except DlwhyError:
        return (path,)


def _above(path: str) -> Iterator[str]:
    """The directories above a file, the nearest first; "" is the root."""
    directory = path.rpartition("/")[0]
    for _ in range(_DEEPEST):
        yield directory
        if not directory:
            return
        directory = directory.rpartition("/")[0]


def _listing(directory: str, files: Files) -> list[str]:
    try:
        return files.listing(directory or "/")
    except DlwhyError:
        return []


def _bytes(path: str, files: Files) -> bytes:
    """A whole file; empty where there is none. Raises `DlwhyError` when it is too large or cannot be read."""
    try:
        view = files.open(path)
    except FilesError:
        if files.kind(path) != "file":
            return b""
        raise
    try:
        return view.read(0, view.size) if view.regular and view.size <= _LARGEST else b""
    finally:
        view.close()


# -- wheels ------------------------------------------------------------------------------------------------------------


def _wheel(path: str, files: Files) -> Installed | None:
    for directory in _above(path):
        names = [name for name in _listing(directory, files) if name.endswith(".dist-info")]
        inner = path[len(directory) + 1 :]
        for name in names:
            row = _recorded(_bytes(f"{directory}/{name}/RECORD", files), inner)
            if row is not None:
                title, _, version = name.removesuffix(".dist-info").partition("-")
                graphs, notes = _sboms(f"{directory}/{name}/sboms", files)
                changed = _changed(path, row, files)
                notes += (changed,) if changed else ()
                return Installed(title, version or None, "wheel", f"{name}/RECORD", graphs, notes)
    return None


def _recorded(record: bytes, inner: str) -> list[str] | None:
    """The row of a RECORD (CSV: path, hash, size) for a file; the text is searched before it is parsed."""
    wanted = inner.encode("utf-8", "surrogateescape")
    if wanted not in record:
        return None
    import csv

    try:
        rows = csv.reader(record.decode("utf-8", "surrogateescape").splitlines())
        return next((row for row in rows if row and row[0] == inner), None)
    except csv.Error:
        return None


def _changed(path: str, row: list[str], files: Files) -> str | None:
    """Whether the file is not the one that was installed: by its size, and by its hash where that is quick."""
    told = f"{path} is not the file that its RECORD lists"
    view = files.open(path)
    if len(row) > 2 and row[2].isdecimal() and len(row[2]) < 16 and int(row[2]) != view.size:
        return f"{told}: {view.size} bytes, and {row[2]} there"
    algorithm, _, digest = row[1].partition("=") if len(row) > 1 else ("", "", "")
    if algorithm != "sha256" or view.size > _HASHED:
        return None
    import base64
    import hashlib

    have = base64.urlsafe_b64encode(hashlib.sha256(view.read(0, view.size)).digest()).rstrip(b"=").decode()
    return None if have == digest.rstrip("=") else f"{told}: another SHA-256"


def _sboms(directory: str, files: Files) -> tuple[tuple[tuple[str, Graph], ...], tuple[str, ...]]:
    """The CycloneDX documents of a wheel (PEP 770); what is none of them is passed by."""
    graphs, notes = [], []
    for name in _listing(directory, files)[:_SBOMS]:
        if not name.endswith(".json"):
            continue
        try:
            graphs.append((name, from_cyclonedx(_bytes(f"{directory}/{name}", files))))
        except (GraphError, DlwhyError) as error:
            notes.append(f"{name} is not read: {error}")
    return tuple(graphs), tuple(notes)


# -- npm, conda --------------------------------------------------------------------------------------------------------


def _npm(path: str, files: Files) -> Installed | None:
    for directory in _above(path):
        found = _object(_bytes(f"{directory}/package.json", files))
        name, version = found.get("name"), found.get("version")
        if isinstance(name, str) and isinstance(version, str):
            return Installed(name[:200], version[:200], "npm", "package.json", (), ())
        if directory.endswith("/node_modules"):
            break
    return None


def _conda(path: str, files: Files) -> Installed | None:
    for directory in _above(path):
        inner = path[len(directory) + 1 :]
        for name in _listing(f"{directory}/conda-meta", files):
            if not name.endswith(".json"):
                continue
            data = _bytes(f"{directory}/conda-meta/{name}", files)
            if inner.encode("utf-8", "surrogateescape") not in data:
                continue
            found = _object(data)
            listed = found.get("files")
            if isinstance(listed, list) and inner in listed:
                title, version = found.get("name"), found.get("version")
                return Installed(
                    title if isinstance(title, str) else name.removesuffix(".json"),
                    version if isinstance(version, str) else None, "conda", f"conda-meta/{name}", (), (),
                )  # fmt: skip
    return None


def _object(data: bytes) -> dict[str, object]:
    if not data:
        return {}
    import json

    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# -- dpkg, apk ---------------------------------------------------------------------------------------------------------


def _spellings(path: str) -> list[str]:
    """The names under which a database may have a file: as written, with and without /usr (merged directories)."""
    return [path, path.removeprefix("/usr") if path.startswith("/usr/") else f"/usr{path}"]


def _dpkg(path: str, files: Files) -> Installed | None:
    base = "/var/lib/dpkg/info"
    wanted = [b"\n%s\n" % name.encode("utf-8", "surrogateescape") for name in _spellings(path)]
    tail = path.rpartition("/")[2].encode("utf-8", "surrogateescape")
    for name in _listing(base, files):
        if not name.endswith(".list"):
            continue
        data = _bytes(f"{base}/{name}", files)
        if tail in data and any(one in b"\n" + data for one in wanted):
            package = name.removesuffix(".list").partition(":")[0]
            return Installed(package, _dpkg_version(package, files), "dpkg", f"dpkg/info/{name}", (), ())
    return None


def _dpkg_version(package: str, files: Files) -> str | None:
    status = b"\n" + _bytes("/var/lib/dpkg/status", files)
    at = status.find(b"\nPackage: %s\n" % package.encode())
    paragraph = status[at + 1 : status.find(b"\n\n", at + 1)] if at >= 0 else b""
    lines = [line for line in paragraph.split(b"\n") if line.startswith(b"Version: ")]
    return lines[0][9:].decode("utf-8", "replace")[:200] if lines else None


def _apk(path: str, files: Files) -> Installed | None:
    data = _bytes("/lib/apk/db/installed", files) or _bytes("/usr/lib/apk/db/installed", files)
    if not data:
        return None
    wanted = {tuple(name[1:].rpartition("/")[::2]) for name in _spellings(path)}
    for paragraph in data.decode("utf-8", "surrogateescape").split("\n\n"):
        directory = ""
        fields: dict[str, str] = {}
        for line in paragraph.split("\n"):
            key, _, value = line.partition(":")
            fields.setdefault(key, value)
            if key == "F":
                directory = value
            elif key == "R" and (directory, value) in wanted:
                return Installed(fields.get("P", "?")[:200], fields.get("V"), "apk", "apk/db/installed", (), ())
    return None


# -- rpm ---------------------------------------------------------------------------------------------------------------

_RPM_DATABASES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
_NAME, _VERSION, _RELEASE, _DIRINDEXES, _BASENAMES, _DIRNAMES = 1000, 1001, 1002, 1116, 1117, 1118
"""Tags of a header (rpm: include/rpm/rpmtag.h)."""
_RPM_ENTRIES = 4096


def _rpm(path: str, files: Files) -> Installed | None:
    database = next((one for one in _RPM_DATABASES if files.kind(one) == "file"), None)
    if database is None:
        return None
    import sqlite3
    from urllib.parse import quote

    spelled = _spellings(path)
    uri = f"file:{quote(files.real(database))}?mode=ro&immutable=1"  # nothing is written, not even a journal
    try:
        connection = sqlite3.connect(uri, uri=True)
    except sqlite3.Error:
        return None
    try:
        names = {name.rpartition("/")[2] for name in spelled}
        for name in names:
            query = "SELECT p.blob FROM Basenames b JOIN Packages p ON p.hnum = b.hnum WHERE b.key = ? LIMIT 64"
            for (blob,) in connection.execute(query, (name,)):
                header = _rpm_header(blob) if isinstance(blob, bytes) else {}
                if _rpm_has(header, spelled):
                    words = [(header.get(tag) or [""])[0] for tag in (_NAME, _VERSION, _RELEASE)]
                    title, version, release = (str(word) for word in words)
                    return Installed(title, f"{version}-{release}", "rpm", "rpmdb.sqlite", (), ())
    except sqlite3.Error:
        return None
    finally:
        connection.close()
    return None


def _rpm_header(blob: bytes) -> dict[int, list[str | int]]:
    """The tags of a header that are asked for: count and size of data, entries of four words, data (rpm: header.c)."""
    entries, size = int.from_bytes(blob[:4], "big"), int.from_bytes(blob[4:8], "big")
    if entries > _RPM_ENTRIES or len(blob) < 8 + 16 * entries + size:
        return {}
    store = blob[8 + 16 * entries :]
    found: dict[int, list[str | int]] = {}
    for at in range(8, 8 + 16 * entries, 16):
        tag, kind, offset, count = (int.from_bytes(blob[at + i : at + i + 4], "big") for i in (0, 4, 8, 12))
        if tag not in (_NAME, _VERSION, _RELEASE, _DIRINDEXES, _BASENAMES, _DIRNAMES) or offset > len(store):
            continue
        if kind == 4:  # RPM_INT32_TYPE
            words = store[offset : offset + 4 * count]
            found[tag] = [int.from_bytes(words[i : i + 4], "big") for i in range(0, len(words), 4)]
        elif kind in (6, 8, 9):  # strings, arrays of them, and those that are translated
            texts = store[offset:].split(b"\0", count)[:count] if count < 1 << 20 else []
            found[tag] = [text.decode("utf-8", "surrogateescape") for text in texts]
    return found


def _rpm_has(header: dict[int, list[str | int]], spelled: list[str]) -> bool:
    directories = header.get(_DIRNAMES, [])
    for name, index in zip(header.get(_BASENAMES, []), header.get(_DIRINDEXES, []), strict=False):
        if isinstance(index, int) and index < len(directories) and f"{directories[index]}{name}" in spelled:
            return True
    return False
