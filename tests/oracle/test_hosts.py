"""Cells of `--on` for real packages, held against python3 and node of each system, and against its unpacked packages.

A sample; `python -m tests.oracle.hosts` takes fifty packages, or those that are named.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.oracle.hosts import Seen, compare, is_of, libraries, root_of, told, unpacked
from tests.oracle.packages import fetch_npm, fetch_wheel
from tools.profiles import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

_FEW = (("debian11", "python3"), ("debian11", "node"), ("debian13", "node"), ("debian12-aarch64", "python3"),
        ("musl", "node"))  # fmt: skip
_ALL = tuple((system, kind) for system in SOURCES for kind in ("python3", "node"))


def _root(name: str) -> Path:
    root, why = root_of(name)
    if root is None:
        pytest.skip(why)
    return root


def _package(kind: str, machine: str) -> Path:
    """The packages whose matrices the README shows; skips where they cannot be had."""
    try:
        return fetch_npm("zeromq") if kind == "node" else fetch_wheel("cryptography", "3.11", machine)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not run: {error}")


@pytest.mark.parametrize(("system", "kind"), _FEW if os.environ.get("CI") else _ALL)
def test_the_matrices_of_the_readme(system: str, kind: str) -> None:
    """Each cell has the verdict and the words of that system's own program, from profile and packages alike."""
    root = _root(system)
    machine = "aarch64" if SOURCES[system].architecture == "arm64" else "x86_64"
    host = None if SOURCES[system].programs else "plain"
    with unpacked(_package(kind, machine)) as place:
        rows = list(compare(place, libraries(place), host, {system: root}))
    assert [told(row) for row in rows if row.verdict != "agrees"] == []
    assert rows
    assert all(row.seen is not None for row in rows)
    assert all(row.profile is not None for row in rows) or not is_of(system, root)
    if (system, kind) == ("debian11", "node"):  # the comparison shows something
        assert {row.sysroot.outcome for row in rows} == {"loads", "fails"}


def test_packages_that_belong_together() -> None:
    """What a package finds in another one of its node_modules comes along, and loads in node as in the cell."""
    root = _root("debian13")
    names = ("@img/sharp-linux-x64", "@img/sharp-libvips-linux-x64")
    try:
        archives = [fetch_npm(name) for name in names]
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not run: {error}")
    with unpacked(*archives) as place:
        (addon,) = (one for one in libraries(place) if one.endswith(".node"))
        (row,) = compare(place, [addon], None, {"debian13": root})
        shutil.rmtree(place / "node_modules" / names[1])
        (without,) = compare(place, [addon], None, {"debian13": root})
    assert (row.verdict, without.verdict) == ("agrees", "agrees"), (told(row), told(without))
    assert (row.sysroot.outcome, without.sysroot.outcome) == ("loads", "fails")


def test_a_wrong_prediction_is_seen() -> None:
    """What a program really said and a cell does not say is a difference, and so are two cells that differ."""
    root = _root("musl")
    with unpacked(_package("node", "x86_64")) as place:
        (row,) = compare(place, libraries(place)[-1:], "plain", {"musl": root})
    assert row.verdict == "agrees"
    assert row._replace(seen=Seen("fails", "other words")).verdict == "differs"
    assert row.profile is not None
    assert row._replace(profile=row.profile.but(message="other words")).verdict == "profile differs"
    assert row._replace(profile=None, sysroot=row.sysroot.but(outcome="undecided")).verdict == "undecided"
