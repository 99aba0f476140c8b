"""Writes the profiles that come with dlwhy, from the packages of distributions: `python -m tools.profiles`.

Each is captured from a root into which packages are unpacked: nothing of them runs, and nothing of this machine gets
into a profile. What is large goes into one blob beside them all.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
from base64 import b64decode, b64encode
from lzma import FORMAT_RAW, PRESET_EXTREME, compress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import compress as compressed
from zlib import decompress

from dlwhy.api import Host, Options
from dlwhy.capturing import Wanted, capture
from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_PLTRELSZ,
    DT_RELA,
    DT_RELASZ,
    DT_STRSZ,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERNEED,
    DT_VERSYM,
    PF_R,
    PF_W,
)
from dlwhy.elf.file import Elf
from dlwhy.errors import ElfError
from dlwhy.files import Files
from dlwhy.hosts.held import LARGEST_PART, LZMA
from tests.oracle.machines import TARGETS, emulator
from tests.oracle.sysroots import Index, cache, make_root
from tools.packing import Piece, Tables, pool_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TARGET = Path(__file__).resolve().parent.parent / "src/dlwhy/profiles"
LIMIT = 5_000_000
"""Bytes of all profiles together, at most."""

BASE = (
    "libc6 libc-bin libstdc\\+\\+6 libgcc-s1 libgomp1 libatomic1 zlib1g libcrypt1 libssl(1.1|3)(t64)? libexpat1 "
    "libglib2.0-0(t64)? libx11-6 libxext6 libxrender1 libice6 libsm6 libgl1 python3 python3-minimal nodejs"
)
"""What libraries made for many systems need of each (PEP 600 and what compilers add), Python and Node.js."""
PROGRAMS = "/usr/bin/python3", "/usr/bin/node"
WITHOUT = (
    r"libglx-mesa0|libgl1-mesa-dri|node-.*|perl.*|.*-(common|data|base)|mime.*|media-types|debconf.*|dpkg|tar"
    r"|install-info|openssl.*|ca-certificates|readline.*|netbase|tzdata|python3-(?!minimal).*|init.*|sensible.*"
    r"|libc-gconv.*|libpython3-stdlib|libpython3.*-stdlib"
)
"""Packages that others depend on and that have no part in a load."""
QUIET = (
    "/usr/share", "/usr/lib/python3", "/packages",
    "/usr/lib/x86_64-linux-gnu/gconv", "/usr/lib/aarch64-linux-gnu/gconv",
)  # fmt: skip
"""Directories that no loader looks into: what is in those below them is not told."""


TABLES = {
    DT_HASH: None, DT_GNU_HASH: None, DT_SYMTAB: None, DT_STRTAB: DT_STRSZ, DT_VERSYM: None, DT_VERDEF: None,
    DT_VERNEED: None, DT_RELA: DT_RELASZ, DT_JMPREL: DT_PLTRELSZ,
}  # fmt: skip
"""Tag of a table -> tag of its size in bytes, where there is one."""
BLOB = "shipped.bin"
_MODELS = (3, 0, 2), (1, 3, 3), (4, 0, 0), (0, 0, 3), (0, 0, 0)
"""lc, lp and pb of lzma that are tried: for text, for records of eight bytes, for columns."""
_MUSL = "ld-musl-"
_TOLD = re.compile(rb"musl libc \([^\0]*\n|Dynamic Program Loader|(?<=\0)[0-9]+\.[0-9]+\.[0-9]+(?=\0)")
"""What tells a loader of musl's and its release (loader.musl.releases, told)."""


class Source(NamedTuple):
    """Where one profile comes from."""

    suite: str
    packages: str
    """Patterns of names, which spaces part."""
    programs: tuple[str, ...]
    """Programs that are hosts, by path."""
    architecture: str = "amd64"
    """Debian's name of the machine."""


SOURCES = {
    "debian11": Source("bullseye", BASE, PROGRAMS),
    "debian12": Source("bookworm", BASE, PROGRAMS),
    "debian13": Source("trixie", BASE, PROGRAMS),
    "debian-sid": Source("sid", BASE, PROGRAMS),
    "musl": Source("trixie", "musl", ()),
}
SOURCES |= {f"{name}-aarch64": one._replace(architecture="arm64") for name, one in SOURCES.items()}
"""Name -> source. Of a system for several machines the names of the others end in the machine's."""


def made(name: str, root: Path) -> dict[str, Any]:
    """Return the profile of a source, unpacked into `root`."""
    source = SOURCES[name]
    index = Index(source.suite, source.architecture)
    packages = index.closure(index.matching(source.packages), WITHOUT)
    make_root(root, index, packages, emulator=_emulator(source) if "libc-bin" in packages else ())
    there = tuple(f"/{path.relative_to(root)}" for path in _directories(root))
    wanted = Wanted(facts=(*source.programs, *_loaders(root), *_libraries(root)), directories=there)
    profile = capture(Host.plain({}), Options(sysroot=str(root)), wanted)
    data = profile.data
    data["process"]["shell"] = {}
    data["kernel"] = {}  # this machine's
    for path in _loaders(root):
        _blank(data["files"], root, Files(str(root)).resolve(path))
    data["packages"] = {one: index.version(one) for one in sorted(packages)}
    return data


def _emulator(source: Source) -> tuple[Path, ...]:
    """What runs the ldconfig of another machine, which this machine's does not stand for. Raises `OSError`."""
    qemu = TARGETS[source.architecture].qemu if source.architecture in TARGETS else None
    found, why = emulator(qemu) if qemu is not None else (None, "")
    if qemu is not None and found is None:
        raise OSError(why)
    return (found,) if found is not None else ()


def _directories(root: Path) -> Iterator[Path]:
    """Every directory of a root that a search may lead into."""
    for at, names, _ in os.walk(root):
        names[:] = sorted(one for one in names if not at.removeprefix(str(root)).startswith(QUIET))
        yield Path(at)


def _libraries(root: Path) -> list[str]:
    """What is in the directories of libraries, links left out."""
    found = sorted(path for place in ("usr/lib", "usr/lib/*-linux-*") for path in root.glob(f"{place}/*.so*"))
    kept = (path for path in found if path.is_file() and not path.is_symlink())
    return [f"/{path.relative_to(root)}" for path in kept]


def _loaders(root: Path) -> list[str]:
    """The loaders of other C libraries."""
    return [f"/lib/{path.name}" for path in sorted((root / "lib").glob(f"{_MUSL}*"))]


def _blank(kept: dict[str, Any], root: Path, path: str) -> None:
    """Leave zeros of the constants of another C library, which are most of it, but for what tells its release.

    Where one segment has tables, code and constants it is all that stands behind the tables.
    """
    files = Files(str(root))
    elf = Elf(files.open(path))
    dull = [one for row in elf.loads if (one := _dull(elf, row[1], row[2], row[2] + row[5])) is not None]
    pieces = []
    for start, data in _joined(kept[path]["parts"]):
        changed = bytearray(data)
        for low, high in dull:
            first, last = max(low - start, 0), min(high - start, len(data))
            if first < last:
                told = _TOLD.findall(data, first, last)
                words = b"\0/lib\0" + b"\0".join(told) + b"\0" if b"/lib" in data[first:last] else b""
                changed[first:last] = words.ljust(last - first, b"\0")
        pieces.append([start, len(changed), b64encode(compressed(bytes(changed))).decode("ascii")])
    kept[path]["parts"] = pieces
    files.close()


def _dull(elf: Elf, flags: int, first: int, last: int) -> tuple[int, int] | None:
    """The part of a segment, as offsets, that has neither tables nor is written to; None where it has none."""
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    starts = {elf.offset_of(tags[tag]) or 0: size for tag, size in TABLES.items() if tag in tags}
    here = {start: size for start, size in starts.items() if first <= start < last}
    if flags & PF_W or (not here and flags != PF_R) or (here and here[max(here)] is None):
        return None
    return max([first, *(start + tags[size] for start, size in here.items() if size is not None)]), last


class Blob:
    """Where the parts of all profiles are: what two of them have in common is there once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, piece: bytes) -> tuple[int, int]:
        """Return (place, size) of a part, packed the way that makes it smallest."""
        found = self._places.get(piece)
        if found is None:
            small = min((_small(piece, *one) for one in _MODELS), key=len)
            found = self._places[piece] = len(self.data), len(small)
            self.data += small
        return found


def _small(piece: bytes, lc: int, lp: int, pb: int) -> bytes:
    reach = min(max(1 << len(piece).bit_length(), 1 << 12), LZMA["dict_size"])  # to have a large one ready takes long
    how = {**LZMA, "dict_size": reach, "preset": 9 | PRESET_EXTREME, "lc": lc, "lp": lp, "pb": pb}
    return compress(piece, FORMAT_RAW, filters=[how])


class Making(NamedTuple):
    """A profile whose parts are still to be packed."""

    data: dict[str, Any]
    parts: dict[str, list[tuple[int, bytes]]]
    """Path -> what is kept of the file, as (offset, bytes)."""
    tables: dict[str, Tables]
    """Path -> the tables of an object that has some to be packed."""


def opened(data: dict[str, Any], root: Path) -> Making:
    """Return a captured profile with its parts unpacked and its tables read."""
    files, parts, tables = Files(str(root)), {}, {}
    musl = data["libc"].startswith("musl ")  # whose model reads memory as it finds it, hash tables too
    for path, row in data["files"].items():
        if "parts" in row:
            parts[path] = list(_joined(row["parts"]))
            if musl:
                continue
            try:
                tables[path] = Tables(Elf(files.open(path)), [(at, at + len(one)) for at, one in parts[path]])
            except (ElfError, ValueError):  # no object, or one that is no ordinary one: kept as it is
                continue
    return Making(data, parts, tables)


def family(path: str) -> str:
    """What the same library of several systems has in common: its name up to where a release begins."""
    return re.split(r"[-.0-9]", path.rpartition("/")[2])[0]


def packed(one: Making, blob: Blob, pools: dict[str, list[bytes]]) -> str:
    """Return a profile as text, its parts moved into the blob."""
    for path, parts in one.parts.items():
        row, tables = one.data["files"][path], one.tables.get(path)
        pieces: list[Piece] = []
        if tables is not None:
            pool = pools[family(path)]
            names = b"\0".join(pool)
            row["names"] = [*blob.add(names), len(names)]
            pieces = list(tables.pieces(pool))
        row["parts"] = sorted(_rows(parts, pieces, blob))
    return json.dumps(one.data | {"blob": BLOB}, separators=(",", ":"), sort_keys=True) + "\n"


def _rows(parts: list[tuple[int, bytes]], pieces: list[Piece], blob: Blob) -> Iterator[list[Any]]:
    """What is kept of a file, as a profile has it: the tables, and the bytes between them as they are."""
    for piece in pieces:
        if piece.how:
            yield [piece.start, piece.size, *blob.add(piece.data), len(piece.data), piece.how]
        else:
            yield from _cut(piece.start, piece.data, blob)
    gone = sorted((piece.start, piece.start + piece.size) for piece in pieces)
    for start, data in parts:
        at, end = start, start + len(data)
        for low, high in [*gone, (end, end)]:
            yield from _cut(at, data[at - start : max(min(low, end) - start, 0)], blob)
            at = max(at, high)


def _cut(start: int, data: bytes, blob: Blob) -> Iterator[list[Any]]:
    """Bytes as they are, in parts that a reader takes."""
    for at in range(0, len(data), LARGEST_PART):
        part = data[at : at + LARGEST_PART]
        yield [start + at, len(part), *blob.add(part)]


def _joined(parts: list[list[Any]]) -> Iterator[tuple[int, bytes]]:
    start, pieces, end = 0, bytearray(), -1
    for at, size, text in parts:
        if at != end:
            if pieces:
                yield start, bytes(pieces)
            start, pieces = at, bytearray()
        pieces += decompress(b64decode(text))
        end = at + size
    if pieces:
        yield start, bytes(pieces)


def write(every: dict[str, Making], target: Path) -> None:
    """Write profiles into an empty directory, and beside them what they have in common."""
    blob, pools = Blob(), _pools(every.values())
    for name, one in every.items():
        before = len(blob.data)
        text = packed(one, blob, pools)
        (target / f"{name}.json").write_text(text, "ascii")
        print(f"{name}: {len(text)} bytes, and {len(blob.data) - before} in {BLOB}")
    (target / BLOB).write_bytes(blob.data)


def _pools(every: Iterable[Making]) -> dict[str, list[bytes]]:
    """The names of each family of objects, of all profiles."""
    families: dict[str, list[Tables]] = {}
    for one in every:
        for path, tables in one.tables.items():
            families.setdefault(family(path), []).append(tables)
    return {name: pool_of(tables) for name, tables in families.items()}


def main(argv: list[str] | None = None) -> int:
    """Write all profiles; 1 when they are too large."""
    argparse.ArgumentParser(prog="profiles", description=__doc__).parse_args(argv)
    work = Path(tempfile.mkdtemp(prefix="profiles-", dir=cache()))
    try:
        every = {name: opened(made(name, work / name), work / name) for name in SOURCES}
        shutil.rmtree(TARGET, ignore_errors=True)
        TARGET.mkdir()
        write(every, TARGET)
    finally:
        shutil.rmtree(work)
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{size} bytes together, of {LIMIT} at most")
    return 1 if size > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
