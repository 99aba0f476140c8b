"""What packages bring, in the programs that load it: verdict, words, order and static TLS are as predicted."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.oracle import compare, packages, sysroots

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture(scope="module")
def root() -> Path:
    """The root with the packages of the sample; skips where it cannot be had."""
    found, why = packages.packages_root(packages.SAMPLE)
    if found is None:
        pytest.skip(why)
    return found


def test_packages_in_three_hosts(root: Path) -> None:
    """Each file in `plain`, its own program and a wrong one, by path and name, and without a library: as predicted."""
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    runs = list(packages.campaign(packages.SAMPLE, root, 1, 12, seed))
    assert [run for run in runs if run.verdict != "agrees"] == []
    seen = Counter((run.host, run.way.split()[0], run.outcome) for run in runs)
    # the sample shows something: plugins that load only in their own program, names found by LD_LIBRARY_PATH alone,
    # and loads that fail for the library taken away
    assert seen["natural", "path", "loads"] > seen["wrong", "path", "loads"] > 0
    assert seen["natural", "name", "loads"] > seen["plain", "name", "loads"]
    assert seen["natural", "without", "fails"] > 0


def test_a_program_with_the_shim_is_that_program(root: Path) -> None:
    """The process has the program's own libraries, and the shim as the first of the preloaded ones."""
    group = next(one for one in packages.SAMPLE if one.name == "Perl")
    (file,) = [one for one in packages.files(group, root) if one.endswith("/POSIX.so")]
    one = packages.scenario(root, group, "natural", f"now:{file}")
    seen = packages.observe(one, root, None)
    assert seen.start_maps[1] == packages.SHIM
    assert any("libperl.so" in name or "libcrypt.so" in name for name in seen.start_maps)
    assert seen.steps[0].outcome == "loads"


def test_a_wrong_prediction_is_seen(root: Path) -> None:
    """Asked of another program than really ran, dlwhy's answer is told as a difference: the comparison can fail."""
    group = next(one for one in packages.SAMPLE if one.name == "Perl")
    (file,) = [one for one in packages.files(group, root) if one.endswith("/POSIX.so")]
    right = packages.scenario(root, group, "natural", f"now:{file}")
    other = packages.scenario(root, group, "wrong", f"now:{file}")
    seen = packages.observe(right, root, None)
    assert compare.judge(right, seen, packages.predict(right, root), noisy=True).differences == ()
    assert compare.judge(right, seen, packages.predict(other, root), noisy=True).differences


def test_an_archive_out_of_reach_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the sample is told as not run, with the reason, and leaves no half-made root."""
    if os.geteuid() != 0:
        pytest.skip("not run: only root may chroot")
    monkeypatch.setenv("DLWHY_CACHE", str(tmp_path))
    for module in (packages, sysroots):
        monkeypatch.setattr(module, "archive", lambda: "http://127.0.0.1:9/debian")
    root, why = packages.packages_root.__wrapped__(packages.SAMPLE)
    assert root is None
    assert why.startswith("not run: not reachable: ")
    assert [path for path in (tmp_path / "sysroots").iterdir() if path.is_dir()] == []


def test_dependencies_are_read_as_the_policy_writes_them() -> None:
    """Versions, architectures and restrictions are no part of a name; alternatives keep their order."""
    field = "libc6 (>= 2.36), python3:any | python3-minimal, libgcc-s1 (>= 3.0) [amd64], libstdc++6 , "
    expected = [["libc6"], ["python3", "python3-minimal"], ["libgcc-s1"], ["libstdc++6"]]
    assert sysroots._names(field) == expected
