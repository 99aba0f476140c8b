"""Profiles of the oracle's systems: the reports are those of the files, scenario by scenario and library by library.

A sample; `python -m tests.oracle.captured` takes as many as are wanted.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

import pytest

from tests.oracle import musl
from tests.oracle.agreement import workshop
from tests.oracle.captured import BESIDE, INSIDE, difference, of_libraries, of_scenario, undecided
from tests.oracle.libraries import shared_objects
from tests.oracle.scenarios import FAMILIES, scenario
from tests.oracle.sysroots import SUITES, foreign, roots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.oracle.build import Workshop

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

LOADERS = ("this machine", *SUITES)
FIXED, EACH = 20261124, 1
LIBRARIES = 8


@pytest.fixture(scope="module")
def made() -> Workshop:
    """The workshop that the scenarios of this module share."""
    return workshop()


def root_of(loader: str) -> Path:
    """The root of a loader, if it can be had."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    return root


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("loader", LOADERS)
def test_scenarios_in_the_profile(
    loader: str, family: str, made: Workshop, record_property: Callable[[str, object], None]
) -> None:
    """Each scenario has the same report of a profile, with all its files gone: a fixed seed and a fresh one."""
    root, fresh = root_of(loader), secrets.randbelow(1 << 31)
    record_property("seed", fresh)
    for seed in (FIXED, fresh):
        for number in range(EACH):
            one = scenario(seed, number, family)._replace(name=f"{seed}-{number}-captured-{os.getpid()}")
            assert difference(of_scenario(one, root, made, INSIDE)) is None, (seed, number)


@pytest.mark.parametrize("loader", LOADERS)
def test_files_of_this_machine_in_a_profile(loader: str, made: Workshop) -> None:
    """With its files on this machine a scenario has the same report, or a missing fact is named."""
    root, equal = root_of(loader), 0
    chosen = [scenario(FIXED, number, family) for family in ("tls", "graph", "versions") for number in range(3)]
    for one in chosen:
        if one.program is None:
            pair = of_scenario(one._replace(name=f"{one.name}-beside-{os.getpid()}"), root, made, BESIDE)
            equal += difference(pair) is None
            assert difference(pair) is None or undecided(pair.captured), one.name
    assert equal >= 0.8 * sum(one.program is None for one in chosen)


@pytest.mark.parametrize("packed", [False, True], ids=["captured", "packed"])
@pytest.mark.parametrize("loader", LOADERS)
def test_libraries_by_their_tables(loader: str, packed: bool) -> None:
    """Libraries of which a profile keeps the tables have the same reports as the files, in either form."""
    root = root_of(loader)
    paths = sorted(shared_objects(root))
    count = 0
    for path, pair in of_libraries(root, paths[:: max(len(paths) // LIBRARIES, 1)], packed):
        assert difference(pair) is None, path
        count += 1
    assert count >= LIBRARIES // 2


@pytest.mark.parametrize("family", ["tls", "graph", "search", "versions"])
def test_musl_in_a_profile(family: str) -> None:
    """Under musl a scenario has the same report of a profile, too."""
    root = musl.roots()["musl trixie"]
    if isinstance(root, str):
        pytest.skip(root)
    for number in range(2):
        one = musl.make(FIXED, number, family)._replace(name=f"musl-{family}-{number}-captured-{os.getpid()}")
        if musl.fits(one):
            assert difference(of_scenario(one, root, musl.workshop(), INSIDE)) is None, number


@pytest.mark.parametrize("machine", ["arm64", "s390x"])
def test_libraries_of_other_machines(machine: str) -> None:
    """So have the libraries of another machine, of either byte order."""
    root, why = foreign("trixie", machine)
    if root is None:
        pytest.skip(why)
    found = sorted(path for path in root.glob("usr/lib/*-linux-*/*.so*") if not path.is_symlink())
    paths = [f"/{one.relative_to(root)}" for one in found[::3]]
    for path, pair in [*of_libraries(root, paths), *of_libraries(root, paths, True)]:
        assert difference(pair) is None, path
