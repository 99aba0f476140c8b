"""Programs as people start them: by the loader itself, and as set-user-ID programs that trust nobody's environment."""

from __future__ import annotations

import os
import secrets

import pytest

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
