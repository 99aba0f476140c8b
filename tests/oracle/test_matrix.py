"""Cells of `--on` held against real loaders: this machine's libraries, copied to the same path inside each system."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.systems import known
from tests.oracle import musl, real
from tests.oracle.machines import TARGETS, why_not
from tests.oracle.sysroots import SUITES, roots
from tools.profiles import SOURCES, made, opened, write

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.oracle

SAMPLE = 15 if os.environ.get("CI") else 120


@pytest.fixture
def work() -> Iterator[Path]:
    """A directory of this machine, which each system gets too."""
    with tempfile.TemporaryDirectory(prefix="dlwhy-on-", dir="/tmp") as made:
        yield Path(made)


def libraries() -> list[Path]:
    """A seeded sample of this machine's libraries."""
    found = sorted(Path("/usr/lib/x86_64-linux-gnu").glob("*.so.*"))
    found = [path for path in found if path.is_file() and not path.is_symlink()]
    return random.Random(7).sample(found, min(SAMPLE, len(found)))


@pytest.mark.parametrize("suite", SUITES)
def test_cells_are_what_the_real_loader_does(suite: str, work: Path) -> None:
    """For every library of the sample the cell has the verdict and the words of the system's own loader."""
    root = roots().get(suite)
    if not isinstance(root, Path):
        pytest.skip(f"not run: {root}")
    files = []
    for path in libraries():
        shutil.copy(path, work / path.name)
        files.append(work / path.name)
    report = dlwhy.on(files, [f"sysroot:{root}"], dlwhy.Host.plain({}))
    inside = Path(f"{root}{work}")
    shutil.copytree(work, inside)
    wrong = []
    try:
        for row in report.rows:
            (cell,) = row.cells
            (step,) = real.run(root, [row.file], {}, "/", work / "run", None).steps
            said = None if cell.message is None else os.fsencode(cell.message)
            if (cell.outcome, said) != (step.outcome, step.message):
                wrong.append((row.file, cell.outcome, said, step.outcome, step.message))
    finally:
        shutil.rmtree(inside)
    assert wrong == []
    assert len(report.rows) == len(files) > SAMPLE // 2


def exported(libc: Path) -> list[str]:
    """Every function that a C library defines for others, as readelf lists them."""
    table = subprocess.run(["readelf", "-W", "--dyn-syms", libc], capture_output=True, text=True, check=True).stdout
    return re.findall(r"(?m)^ +[0-9]+: [0-9a-f]+ +[0-9]+ FUNC +(?:GLOBAL|WEAK) +DEFAULT +[0-9]+ (\w+)$", table)


def needing(libc: Path, gcc: str, work: Path) -> tuple[Path, Path]:
    """A library that wants everything that a C library exports, and one that wants one symbol more."""
    names = exported(libc)
    assert len(names) > 1000
    for file, wanted in (("all", names), ("more", [*names, "nobody_defines_this"])):
        source = "".join(f"extern char {name}[];\n" for name in wanted)
        source += "void *all[] = {" + ", ".join(wanted) + "};\n"
        command = [gcc, "-w", "-fno-builtin", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o"]
        subprocess.run([*command, work / file], input=source, text=True, check=True)
    return work / "all", work / "more"


def test_all_of_musl_is_in_its_system(tmp_path: Path) -> None:
    """A library that wants everything that musl exports finds it in the system that comes with dlwhy, and no more."""
    root, why = musl.sysroot("trixie")
    if root is None or not known():
        pytest.skip(f"not run: {why or 'no systems come with this build'}")
    both = needing(next(root.glob("usr/lib/*-linux-musl/libc.so")), "gcc", tmp_path)
    first, second = (row.cells[0] for row in dlwhy.on(both, ["musl"], dlwhy.Host.plain({})).rows)
    assert (first.outcome, first.message) == ("loads", None)
    last = f"Error relocating {tmp_path}/more: nobody_defines_this: symbol not found"
    assert (second.outcome, second.message) == ("fails", last)


@pytest.mark.parametrize("name", ["musl", "musl-aarch64"])
def test_a_profile_of_musl_that_is_made_now(name: str, tmp_path: Path) -> None:
    """What tools.profiles leaves out of musl's libc decides nothing: the cells are those of the unpacked package."""
    debian = SOURCES[name].architecture
    root, why = musl.sysroot("trixie", debian)
    if root is None or (why := why_not(TARGETS[debian]) or ""):
        pytest.skip(why)
    (tmp_path / "made").mkdir()
    write({name: opened(made(name, tmp_path / "root"), tmp_path / "root")}, tmp_path / "made")
    both = needing(next(root.glob("usr/lib/*-linux-musl/libc.so")), TARGETS[debian].gcc, tmp_path)
    report = dlwhy.on(both, [f"{tmp_path}/made/{name}.json", f"sysroot:{root}"], dlwhy.Host.plain({}))
    assert [[cell.outcome for cell in row.cells] for row in report.rows] == [["loads"] * 2, ["fails"] * 2]
    for row in report.rows:
        mine, theirs = row.cells
        assert mine.message == theirs.message
        assert (mine.because or "").startswith(theirs.because or "")
