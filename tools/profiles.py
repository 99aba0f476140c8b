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
from itertools import pairwise
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
    DT_RELA,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERNEED,
    DT_VERSYM,
    PF_R,
)
from dlwhy.elf.file import Elf
from dlwhy.errors import ElfError
from dlwhy.files import Files
from dlwhy.hosts.profile import LARGEST_PART, LZMA
from tests.oracle.sysroots import Index, cache, make_root

if TYPE_CHECKING:
    from collections.abc import Iterator

TARGET = Path(__file__).resolve().parent.parent / "src/dlwhy/profiles"
LIMIT = 5_000_000
"""Bytes of all profiles together, at most."""

BASE = (
    "libc6 libc-bin libstdc\\+\\+6 libgcc-s1 libgomp1 libatomic1 zlib1g libcrypt1 libssl(1.1|3)(t64)? libexpat1 "
    "libglib2.0-0(t64)? libx11-6 libxext6 libxrender1 libice6 libsm6 libgl1 python3 python3-minimal"
)
"""What libraries made for many systems need of each (PEP 600 and what compilers add), and Python."""
WITHOUT = (
    r"libglx-mesa0|libgl1-mesa-dri|node-.*|perl.*|.*-(common|data|base)|mime.*|media-types|debconf.*|dpkg|tar"
    r"|install-info|openssl.*|ca-certificates|readline.*|netbase|tzdata|python3-(?!minimal).*|init.*|sensible.*"
    r"|libc-gconv.*|libpython3-stdlib|libpython3.*-stdlib"
)
"""Packages that others depend on and that have no part in a load."""
QUIET = ("/usr/share", "/usr/lib/python3", "/packages", "/usr/lib/x86_64-linux-gnu/gconv")
"""Directories that no loader looks into: what is in them is not told."""


NAMES_ONLY = (
    r"lib(gio|icu(test|tu|io)|memusage|pcprofile|mount|blkid|selinux|pcre2?|BrokenLocale|thread_db|c_malloc_debug"
    r"|nss_.*|systemd)\b"
)
"""Libraries that are there and whose facts are left out: seldom needed, or by such only."""
TABLES = (
    DT_HASH, DT_GNU_HASH, DT_SYMTAB, DT_STRTAB, DT_VERSYM, DT_VERDEF, DT_VERNEED, DT_RELA, DT_JMPREL,
)  # fmt: skip
BLOB = "shipped.bin"
_TOLD = re.compile(rb"musl libc \([^\0]*\n|Dynamic Program Loader|(?<=\0)[0-9]+\.[0-9]+\.[0-9]+(?=\0)")
"""What tells a loader of musl's and its release (loader.musl.releases, told)."""
_LARGE = 1 << 16
"""Bytes from which on tables are packed one by one; small ones fare better together."""


class Source(NamedTuple):
    """Where one profile comes from."""

    suite: str
    packages: str
    """Patterns of names, which spaces part."""
    programs: tuple[str, ...]
    """Programs that are hosts, by path."""


SOURCES = {
    "debian11": Source("bullseye", BASE, ("/usr/bin/python3",)),
    "debian12": Source("bookworm", f"{BASE} nodejs", ("/usr/bin/python3", "/usr/bin/node")),
    "debian13": Source("trixie", BASE, ("/usr/bin/python3",)),
    "debian-sid": Source("sid", f"{BASE} nodejs", ("/usr/bin/python3", "/usr/bin/node")),
    "musl": Source("trixie", "musl", ()),
}
"""Name -> source. Node.js is in two of them: its tables of names have a megabyte, packed, in each."""


def made(name: str, root: Path) -> dict[str, Any]:
    """Return the profile of a source, unpacked into `root`."""
    source = SOURCES[name]
    index = Index(source.suite)
    packages = index.closure(index.matching(source.packages), WITHOUT)
    make_root(root, index, packages)
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


def _directories(root: Path) -> Iterator[Path]:
    """Every directory of a root that a search may lead into."""
    for at, names, _ in os.walk(root):
        names[:] = sorted(one for one in names if not f"{at}/{one}".removeprefix(str(root)).startswith(QUIET))
        yield Path(at)


def _libraries(root: Path) -> list[str]:
    """What is in the directories of libraries, links left out."""
    found = sorted(path for place in ("usr/lib", "usr/lib/*-linux-*") for path in root.glob(f"{place}/*.so*"))
    kept = (path for path in found if path.is_file() and not path.is_symlink())
    return [f"/{path.relative_to(root)}" for path in kept if not re.match(NAMES_ONLY, path.name)]


def _loaders(root: Path) -> list[str]:
    """The loaders of other C libraries."""
    return [f"/lib/{path.name}" for path in sorted((root / "lib").glob("ld-musl-*"))]


def _blank(kept: dict[str, Any], root: Path, path: str) -> None:
    """Leave zeros of the constants of another C library, which are most of it, but for what tells its release."""
    files = Files(str(root))
    elf = Elf(files.open(path))
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    tables = {elf.offset_of(tags[tag]) for tag in TABLES if tag in tags}
    pieces = []
    for start, data in _joined(kept[path]["parts"]):
        changed = bytearray(data)
        for row in elf.loads:
            first, last = max(row[2] - start, 0), min(row[2] + row[5] - start, len(data))
            if row[1] == PF_R and first < last and not any(row[2] <= (one or 0) < row[2] + row[5] for one in tables):
                told = _TOLD.findall(data, first, last)
                words = b"\0/lib\0" + b"\0".join(told) + b"\0"
                changed[first:last] = words.ljust(last - first, b"\0")
        pieces.append([start, len(changed), b64encode(compressed(bytes(changed))).decode("ascii")])
    kept[path]["parts"] = pieces
    files.close()


class Blob:
    """Where the parts of all profiles are: what two of them have in common is there once."""

    def __init__(self) -> None:
        self.data = bytearray()
        self._places: dict[bytes, tuple[int, int]] = {}

    def add(self, piece: bytes) -> tuple[int, int]:
        """Return (place, size) of a part, packed the way that makes it smallest."""
        found = self._places.get(piece)
        if found is None:
            small = min((_small(piece, *one) for one in ((3, 0, 2), (1, 3, 3), (4, 0, 0), (0, 0, 3))), key=len)
            found = self._places[piece] = len(self.data), len(small)
            self.data += small
        return found


def _small(piece: bytes, lc: int, lp: int, pb: int) -> bytes:
    return compress(piece, FORMAT_RAW, filters=[{**LZMA, "preset": 9 | PRESET_EXTREME, "lc": lc, "lp": lp, "pb": pb}])


def packed(data: dict[str, Any], blob: Blob, root: Path) -> str:
    """Return a profile as text, its parts moved into the blob: table by table, for each is packed best by itself."""
    files = Files(str(root))
    for path, row in data["files"].items():
        if "parts" in row:
            edges = _edges(files, path)
            row["parts"] = [
                [start, len(piece), *blob.add(piece)] for start, piece in _pieces(row["parts"], edges)
            ]  # fmt: skip
    files.close()
    return json.dumps(data | {"blob": BLOB}, separators=(",", ":"), sort_keys=True) + "\n"


def _edges(files: Files, path: str) -> set[int]:
    """Where in a file a table begins."""
    try:
        elf = Elf(files.open(path))
        tags = elf.dynamic.tags if elf.dynamic is not None else {}
    except ElfError:
        return set()
    places = [elf.offset_of(tags[tag]) for tag in TABLES if tag in tags]
    return {place for place in places if place is not None}


def _pieces(parts: list[list[Any]], edges: set[int]) -> Iterator[tuple[int, bytes]]:
    """The parts as (start, bytes): joined where they touch, cut at the edges and at the size of one part."""
    for begin, data in _joined(parts):
        edges = edges if len(data) > _LARGE else set()
        cuts = sorted({begin, begin + len(data)} | {edge for edge in edges if begin < edge < begin + len(data)})
        for start, end in pairwise(cuts):
            for at in range(start, end, LARGEST_PART):
                yield at, data[at - begin : min(at + LARGEST_PART, end) - begin]


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


def main(argv: list[str] | None = None) -> int:
    """Write all profiles; 1 when they are too large."""
    argparse.ArgumentParser(prog="profiles", description=__doc__).parse_args(argv)
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir()
    work = Path(tempfile.mkdtemp(prefix="profiles-", dir=cache()))
    blob = Blob()
    try:
        for name in SOURCES:
            before = len(blob.data)
            text = packed(made(name, work / name), blob, work / name)
            (TARGET / f"{name}.json").write_text(text, "ascii")
            print(f"{name}: {len(text)} bytes, and {len(blob.data) - before} in {BLOB}")
    finally:
        shutil.rmtree(work)
    (TARGET / BLOB).write_bytes(blob.data)
    size = sum(path.stat().st_size for path in TARGET.iterdir())
    print(f"{size} bytes together, of {LIMIT} at most")
    return 1 if size > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
