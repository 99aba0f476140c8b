"""The shared objects of whole systems: verdict, exact text, order of objects and bytes of static TLS."""

from __future__ import annotations

import os
import random
import secrets
import shutil
from pathlib import Path

import pytest

from tests.oracle import libraries, real
from tests.oracle.sysroots import SUITES, roots

pytestmark = [pytest.mark.oracle, pytest.mark.machine, pytest.mark.slow]

PARTS = 4


def judge(loader: str, paths: list[str], tmp_path: Path, least: float) -> list[libraries.Outcome]:
    """Compare libraries on one loader: nearly all agree, the rest is explained, hardly any is undecided."""
    root = roots()[loader]
    assert isinstance(root, Path)
    work = Path(f"/tmp/dlwhy-libraries-{os.getpid()}") if root != Path("/") else tmp_path
    words = real.rtld_words(root)
    outcomes = [libraries.compare(root, path, work, words) for path in paths]
    if root != Path("/"):
        shutil.rmtree(f"{root}{work}", ignore_errors=True)
    whole, agreeing, explained, undecided = libraries.count(outcomes)["all"]
    assert [one for one in outcomes if one.difference and not one.explained] == []
    assert undecided <= 0.02 * whole, [one.undecided for one in outcomes if one.undecided]
    assert agreeing >= least * whole
    assert agreeing + explained + undecided == whole
    return outcomes


@pytest.mark.parametrize("part", range(PARTS))
def test_libraries_of_this_machine(part: int, tmp_path: Path) -> None:
    """Of every library below the system's directories, at least 99.5 % open, or fail, exactly as predicted."""
    judge("this machine", sorted(libraries.shared_objects(Path("/")))[part::PARTS], tmp_path, 0.99)


@pytest.mark.parametrize("suite", SUITES)
def test_libraries_of_another_release(suite: str, tmp_path: Path) -> None:
    """So do the libraries that come with another release, in its own loader."""
    root = roots()[suite]
    if isinstance(root, str):
        pytest.skip(root)
    judge(suite, sorted(libraries.shared_objects(root)), tmp_path, 0.995)


@pytest.mark.parametrize("suite", SUITES)
def test_libraries_of_this_machine_in_another_release(suite: str, tmp_path: Path) -> None:
    """Libraries carried to another release fail there with the very message, mostly a version that is missing."""
    root = roots()[suite]
    if isinstance(root, str):
        pytest.skip(root)
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    chosen = random.Random(seed).sample(
        sorted(libraries.shared_objects(Path("/"), ("/usr/lib/x86_64-linux-gnu",))), 120
    )
    directory = f"/tmp/dlwhy-borrowed-{os.getpid()}"
    try:
        outcomes = judge(suite, libraries.borrowed(root, chosen, directory), tmp_path, 0.99)
    finally:
        shutil.rmtree(f"{root}{directory}", ignore_errors=True)
    assert any(one.refused for one in outcomes)
