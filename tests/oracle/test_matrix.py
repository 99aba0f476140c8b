"""Cells of `--on` held against real loaders: this machine's libraries, copied to the same path inside each system."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.oracle import real
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
