"""Programs as people start them: by the loader itself, and as set-user-ID programs that trust nobody's environment."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

import pytest

import dlwhy
from tests.oracle import real, ways
from tests.oracle.agreement import workshop
from tests.oracle.sysroots import SUITES, roots

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.mark.parametrize("way", ["explicit", "secure"])
@pytest.mark.parametrize("loader", ["this machine", *SUITES])
def test_other_ways_to_start(loader: str, way: str) -> None:
    """`ld.so --library-path DIRS PROG`, and AT_SECURE with its rules for $ORIGIN and preloads, go as predicted."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    if way == "secure" and os.geteuid() != 0:
        pytest.skip("not run: only root makes a set-user-ID program for another user")
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    made, words = workshop(), real.rtld_words(root)
    wrong = []
    for number in range(40):
        verdict = ways.run(way, seed, number, root, made, words, str(os.getpid()))
        wrong += [f"{seed} {number}: {text}" for text in verdict.differences]
    assert wrong == []


@pytest.mark.parametrize("loader", ["this machine", *SUITES])
def test_bind_now_of_a_secure_start(loader: str) -> None:
    """LD_BIND_NOW of a set-user-ID program counts or not, by release: a lazy load without a definition tells."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    if os.geteuid() != 0:
        pytest.skip("not run: only root makes a set-user-ID program for another user")
    verdict = ways.run("secure", 794462488, 0, root, workshop(), real.rtld_words(root), str(os.getpid()))
    assert verdict.differences == ()


@pytest.mark.parametrize("loader", ["this machine", *SUITES])
def test_a_preloaded_copy_of_the_loader(loader: str, tmp_path: Path) -> None:
    """The loader's file under another name comes first in the scope: what libc makes of its empty data is undecided."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    outside = "" if root == Path("/") else str(root)
    copy = Path(f"{outside}{tmp_path}/{Path(ways.LOADER).name}")
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(next(Path(f"{outside}/{real.LIB}").glob("ld-*.so*")), copy)
    env = {"LD_PRELOAD": f"{tmp_path}/{copy.name}"}
    try:
        seen = real.run(root, [], env, "/", tmp_path / "work", None)
        said = dlwhy.check([], dlwhy.Host.plain(env), sysroot=outside or None, cwd="/").host.startup
    finally:
        if outside:
            shutil.rmtree(f"{outside}{tmp_path}", ignore_errors=True)
    assert said.outcome == "undecided"
    assert said.because is not None and f"_rtld_global_ro in {tmp_path}/{copy.name}" in said.because
    assert seen.status < 0  # it dies of a signal: before its first constructor, or in 2.31 of its own calls
