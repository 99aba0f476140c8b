#!/usr/bin/env python3
"""Each kind of evidence that dlwhy has for whose bytes they are and why: what it is built from, and what dlwhy says.

    examples/evidence/evidence.py [KIND]     builds it and lets dlwhy tell; without: all, beside readelf

A directory below this one holds the sources of each, and build.sh, which begins with what it is; the table below has
what is asked of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
TOP = HERE.parent.parent
sys.path[:0] = [str(one) for one in (HERE.parent, HERE.parent / "static-tls-murder", TOP, TOP / "src")]

from lab import (
    MissingError,
    Row,
    built,
    foretold,
    need,
    prediction,
    python_says,
    registry,
    run,
    tls_by_dlwhy,
    tls_by_readelf,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "evidence"
DLWHY = 'dlwhy() { "$PYTHON" -m dlwhy "$@"; }\n'
_OWN = {"PYTHON": sys.executable, "PYTHONPATH": str(TOP / "src")}
"""What it needs. This Python may have modules that ./dlwhy does without."""


class Kind(NamedTuple):
    """One kind of evidence, and what is asked to show it."""

    commands: tuple[str, ...]
    """Of a shell, each run in the directory where it was built; dlwhy is this checkout's."""
    files: tuple[str, ...] = ()
    """Patterns of those whose TLS readelf has to see as dlwhy does."""
    loads: tuple[str, ...] = ()
    """What a real Python opens in one process, to be compared with what dlwhy foretells."""
    tools: tuple[str, ...] = ("gcc", "objcopy")
    addons: tuple[str, ...] = ()
    """Variants of the crime scene that it is made from; build.sh finds RAND_08 where that of rand-0.8 was built."""
    package: str = ""
    """The file of a registry that it is taken from, and ..."""
    members: tuple[str, ...] = ()
    """... patterns of what is taken."""
    module: str = ""
    """A module of Python that dlwhy needs for it."""


_SCIKIT_LEARN = "scikit_learn-1.9.1-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl"
KINDS = {
    "symbols": Kind(("dlwhy tls libhouse.so",), ("libhouse.so",), ("libhouse.so",), ("g++", "gcc")),
    "debug-file": Kind(("dlwhy tls libhouse.so", "dlwhy tls libhouse.so --debug-dir debug"), ("libhouse.so",)),
    "minidebug": Kind(("dlwhy tls libhouse.so",), ("libhouse.so",)),
    "map": Kind(("dlwhy tls libdemo.so | grep -A 3 bulk", "dlwhy tls libdemo.so --map libdemo.map"), ("libdemo.so",)),
    "other-build": Kind(("dlwhy tls libhouse.so --map libhouse.map",), ("libhouse.so",)),
    "stripped": Kind(
        ("nm -CS named.node | grep ' b .*THREAD_RNG_KEY'", "dlwhy tls index.node",
         "dlwhy tls -v index.node | grep -A 2 4224"),
        ("index.node",), tools=("objcopy",), addons=("without-go",),
    ),
    "inside": Kind(
        ("dlwhy tls index.node",
         "dlwhy tls -v index.node | grep -o 'rand-[0-9.]*/src/rngs/thread.rs:[0-9]*'"),
        ("index.node",), tools=("cargo",), addons=("without-go",), module="elftools",
    ),
    "origin": Kind(
        ("readelf -rW cellar.o tally.o | grep -E 'File|tally'", "dlwhy tls linked.so --map linked.map"),
        ("linked.so",), ("linked.so",), ("gcc", "readelf"),
    ),
    "unlinked": Kind(("dlwhy tls libbutler.a", "dlwhy tls libstd.rlib"), tools=("cargo",), addons=("story",)),
    "openblas": Kind(
        ("dlwhy tls numpy.libs/libscipy_openblas64_-32a4b2a6.so",), ("numpy.libs/*.so",), tools=("readelf",),
        package="numpy-2.4.6-cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        members=("numpy.libs/*", "*.dist-info/*"),
    ),
    "two-copies": Kind(
        ("dlwhy check --host /usr/bin/python3 libgomp.so.1 sklearn/utils/_openmp_helpers.*.so",),
        ("scikit_learn.libs/*",), tools=("readelf",), package=_SCIKIT_LEARN,
        members=("sklearn/utils/_openmp_helpers.*.so", "scikit_learn.libs/*", "*.dist-info/*"),
    ),
    "auditable": Kind(
        ("dlwhy tls index.node",), ("index.node",), tools=("cargo", "objcopy"), addons=("without-go",),
    ),
    "made-by": Kind(("dlwhy tls -v libhouse.so | grep -A 2 build-id",), ("libhouse.so",)),
    "vendored": Kind(
        ("dlwhy tls --no-code scikit_learn.libs/libgomp-e985bcbb.so.1.0.0",), ("scikit_learn.libs/*",),
        tools=("readelf",), package=_SCIKIT_LEARN, members=("scikit_learn.libs/*", "*.dist-info/*"),
    ),
    "opens": Kind(("dlwhy tree ./libdoor.so",), loads=("libdoor.so",)),
    "opaque": Kind(
        ("dlwhy tls swc.linux-x64-gnu.node",), ("*.node",), tools=("readelf",),
        package="swc-core-linux-x64-gnu-1.16.22.tgz", members=("package/*",),
    ),
    "diff": Kind(
        ("dlwhy diff yesterday/index.node today/index.node", "dlwhy diff without-go/index.node today/index.node"),
        ("*/index.node",), tools=(), addons=("rand-0.8", "story", "without-go"),
    ),
    "floor": Kind(("dlwhy floor libfoo.so",), loads=("libfoo.so",)),
}  # fmt: skip
"""Name of a directory -> what is asked of what is built there."""


def place_of(name: str) -> Path:
    """Return the directory in which a kind is built. Raises `MissingError` when it cannot be."""
    from murder import addon

    kind = KINDS[name]
    need(*kind.tools)
    if kind.module and find_spec(kind.module) is None:
        raise MissingError(f"needs the Python module {kind.module}: apt-get install python3-pyelftools")
    places = {one.upper().replace("-", "_").replace(".", ""): str(addon(one).parent.parent) for one in kind.addons}
    package = registry(kind.package) if kind.package else None

    def make(place: Path) -> None:
        if package is not None:
            _unpack(package, kind.members, place)
        run(["sh", "-eu", "build.sh"], place, PYTHON=sys.executable, **places)

    told = [version(one, "--version") for one in kind.tools]
    return built(f"{NAME}-{name}", HERE / name, make, *told, *places.values(), kind.package)


def _unpack(package: Path, patterns: tuple[str, ...], place: Path) -> None:
    """Take members out of a wheel, as pip would put them, or files out of the one directory of an archive of npm."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            names = [one for one in wheel.namelist() if any(fnmatch(one, pattern) for pattern in patterns)]
            wheel.extractall(place, names)
        return
    with tarfile.open(package) as archive:
        for member in archive:
            if member.isfile() and any(fnmatch(member.name, pattern) for pattern in patterns):
                target = place / Path(member.name).name
                data = archive.extractfile(member)
                assert data is not None
                target.write_bytes(data.read())


def rows() -> Iterator[Row | MissingError]:
    """Yield what readelf and the real loader say of each kind, beside what dlwhy says."""
    for name, kind in KINDS.items():
        try:
            place = place_of(name)
            for path in sorted(path for pattern in kind.files for path in place.glob(pattern)):
                told = f"{name}: {path.relative_to(place)}: bytes of TLS"
                yield Row(NAME, told, tls_by_readelf(path), tls_by_dlwhy(path))
            for file in kind.loads:
                path = place / file
                yield Row(NAME, f"{name}: {file}", python_says(path), prediction(foretold([path], sys.executable)))
        except MissingError as missing:
            yield MissingError(f"{name}: {missing}")


def main(words: list[str]) -> int:
    """Show one kind, or all of them as a table."""
    if not words:
        from run import show

        return show([NAME])
    if words not in ([name] for name in KINDS):
        print(f"no kind {' '.join(words)}; there are {', '.join(KINDS)}", file=sys.stderr)
        return 2
    (name,) = words
    try:
        place = place_of(name)
    except MissingError as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return 1
    for line in (HERE / name / "build.sh").read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        print(line[2:])
    for command in KINDS[name].commands:
        print(f"\n$ {command}", flush=True)
        subprocess.run(["sh", "-c", DLWHY + command], cwd=place, env={**os.environ, **_OWN}, check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
