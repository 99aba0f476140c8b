"""Floors held against real loaders: an older release refuses what a floor forbids, and a newer one takes it."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

import dlwhy
from dlwhy.files import Files
from tests.oracle.sysroots import roots

pytestmark = pytest.mark.oracle

LIBRARY = Path("/usr/lib/x86_64-linux-gnu")
SAMPLE = 12 if os.environ.get("CI") else 60
_RUNTIME = ("glibc", "libstdc++ GLIBCXX", "libstdc++ CXXABI", "libgcc GCC")
_HAS = {
    # what Debian's release has at the most: (glibc, GLIBCXX, CXXABI, GCC); gcc 10, 12, 14 and 15
    "bullseye": ((2, 31), (3, 4, 28), (1, 3, 12), (7, 0, 0)),
    "trixie": ((2, 41), (3, 4, 33), (1, 3, 15), (14, 0, 0)),
}


def libraries() -> list[Path]:
    """A seeded sample of this machine's libraries that need nothing but the C and C++ runtime."""
    found = sorted(path for path in LIBRARY.glob("*.so.*") if path.is_file() and not path.is_symlink())
    random.Random(5).shuffle(found)
    kept = []
    for path in found:
        (one,) = dlwhy.floor([path]).files
        if one.libc == "glibc" and not one.error and set(one.system) <= {"libstdc++.so.6", "libgcc_s.so.1"}:
            kept.append(path)
        if len(kept) == SAMPLE:
            break
    return kept


def allowed(path: Path, suite: str) -> bool:
    """Whether the floors of a file leave the suite in."""
    (one,) = dlwhy.floor([path]).files
    most = dict(zip(_RUNTIME, _HAS[suite], strict=True))
    return all(
        tuple(map(int, floor.value.split("."))) <= most[floor.what] for floor in one.floors if floor.what in most
    )


def refused(path: Path, root: Path) -> bool:
    """Whether the loader of a root misses a version for the file, as `ld.so --list` says it; nothing of it is run."""
    done = subprocess.run(
        [Files(str(root)).real("/lib64/ld-linux-x86-64.so.2"), "--inhibit-cache", "--library-path",
         f"{root}/lib/x86_64-linux-gnu:{root}/usr/lib/x86_64-linux-gnu", "--list", path],
        capture_output=True, text=True, check=False, env={},
    )  # fmt: skip
    return "not found (required by" in done.stdout + done.stderr


@pytest.mark.parametrize("suite", _HAS)
def test_the_loader_draws_the_same_line(suite: str) -> None:
    """For a sample of libraries the loader of an older and of a newer suite refuses exactly what the floors forbid."""
    root = roots().get(suite)
    if not isinstance(root, Path):
        pytest.skip(f"not run: {root}")
    sample = libraries()
    wrong = [path.name for path in sample if allowed(path, suite) == refused(path, root)]
    assert wrong == []
    assert len(sample) == SAMPLE
    assert suite != "bullseye" or any(refused(path, root) for path in sample)
