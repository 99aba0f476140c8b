"""`tree` against the loader's own list of what it would load (LD_TRACE_LOADED_OBJECTS), on files of this machine."""

from __future__ import annotations

import os
import random
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.real_hosts import BARE

if TYPE_CHECKING:
    from dlwhy.report import TreeNode, TreeReport

LOADER = Path("/lib64/ld-linux-x86-64.so.2")
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
PROGRAMS = Path("/usr/bin")
MANY = 60

pytestmark = [
    pytest.mark.oracle, pytest.mark.machine,
    pytest.mark.skipif(not LOADER.exists(), reason="not run: this machine has no x86-64 glibc loader"),
]  # fmt: skip


def sample(directory: Path, pattern: str) -> list[Path]:
    """A seeded sample of the ELF files of this machine's own packages (trusted: the loader is run on them)."""
    found = []
    for path in sorted(directory.glob(pattern)):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
            continue
        with path.open("rb") as file:
            head = file.read(20)
        if head[:6] == b"\x7fELF\x02\x01" and head[18:20] == b"\x3e\x00":
            found.append(path)
    return random.Random(7).sample(found, min(MANY, len(found)))


def traced(path: Path) -> tuple[set[str], set[str]]:
    """(paths, missing names) as the loader lists them; it leaves the file out, we leave out the vDSO and itself."""
    env = {**BARE, "LD_TRACE_LOADED_OBJECTS": "1"}
    done = subprocess.run([LOADER, path], env=env, capture_output=True, text=True, timeout=60, check=False)
    if "statically linked" in done.stdout + done.stderr or (done.returncode and not done.stdout):
        pytest.skip(f"not run: the loader lists nothing: {done.stderr.strip()}")
    paths, missing = set(), set()
    for line in done.stdout.splitlines():
        if found := re.match(r"\t(\S+) => not found", line):
            missing.add(found[1])
        elif found := re.match(r"\t(?:\S+ => )?(\S+) \(0x", line):
            paths.add(found[1])
    return {one for one in paths if "/" in one and one != str(LOADER)}, missing


def nodes(node: TreeNode) -> list[TreeNode]:
    """A node and all below it."""
    return [node, *(one for child in node.children for one in nodes(child))]


def told(report: TreeReport) -> tuple[set[str], set[str]]:
    """The same of a tree. The loader is in it only where an object names it; libc, which does, is the host's here."""
    every = nodes(report.root)[1:]
    paths = {one.path for one in every if one.path is not None}
    assert report.objects == len({id(report.root), *paths})
    return paths - {str(LOADER)}, {one.name for one in every if one.state == "missing"}


@pytest.mark.parametrize("path", sample(LIBRARIES, "*.so*"), ids=lambda path: path.name)
def test_libraries(path: Path) -> None:
    """The tree of a library has the objects, at the paths, and the missing names that the loader lists."""
    assert told(dlwhy.tree(path, dlwhy.Host.plain(BARE))) == traced(path)


@pytest.mark.parametrize("path", sample(PROGRAMS, "*"), ids=lambda path: path.name)
def test_programs(path: Path) -> None:
    """The tree of a program has the objects, at the paths, and the missing names that the loader lists."""
    want = traced(path)
    report = dlwhy.tree(path, dlwhy.Host.inferred(BARE))
    assert report.root.path == str(path)
    assert told(report) == want


def test_a_missing_library(tmp_path: Path) -> None:
    """A library that needs what is not there, directly and one level down: the loader lists the same names."""
    from tests.fixtures.libraries import gcc

    (tmp_path / "empty.c").write_text("")
    flags = ("-shared", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN", str(tmp_path / "empty.c"))
    chain = {"libgone.so": [], "libinner.so": ["libgone.so"], "libouter.so": ["libinner.so", "libgone.so"]}
    for name, needs in chain.items():
        gcc(tmp_path / name, *flags, f"-Wl,-soname,{name}", *(tmp_path / one for one in needs))
    (tmp_path / "libgone.so").unlink()
    got = told(dlwhy.tree(tmp_path / "libouter.so", dlwhy.Host.plain(BARE)))
    assert got == traced(tmp_path / "libouter.so")
    assert got[1] == {"libgone.so"}
