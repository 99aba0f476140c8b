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
from tests.oracle.sysroots import SUITES, roots

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


def test_all_of_musl_is_in_its_system(tmp_path: Path) -> None:
    """A library that wants everything that musl exports finds it in the system that comes with dlwhy, and no more."""
    root, why = musl.sysroot("trixie")
    if root is None or not known():
        pytest.skip(f"not run: {why or 'no systems come with this build'}")
    names = exported(next(root.glob("usr/lib/*-linux-musl/libc.so")))
    assert len(names) > 1000
    for file, wanted in (("all", names), ("more", [*names, "nobody_defines_this"])):
        source = "".join(f"extern char {name}[];\n" for name in wanted)
        source += "void *all[] = {" + ", ".join(wanted) + "};\n"
        command = ["gcc", "-w", "-fno-builtin", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o"]
        subprocess.run([*command, tmp_path / file], input=source, text=True, check=True)
        ((cell,),) = (row.cells for row in dlwhy.on([tmp_path / file], ["musl"], dlwhy.Host.plain({})).rows)
        last = f"Error relocating {tmp_path}/more: nobody_defines_this: symbol not found"
        assert (cell.outcome, cell.message) == (("loads", None) if file == "all" else ("fails", last))
