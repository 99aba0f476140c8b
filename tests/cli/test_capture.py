"""`dlwhy capture`, and a profile as HOST, from the command line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cli.run import dlwhy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.system import System


@pytest.fixture(scope="module")
def profile(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `capture` writes of the small system."""
    path = tmp_path_factory.mktemp("capture") / "host.json"
    done = dlwhy("capture", "--sysroot", str(system.root), "--clear-env", "--with", "/app", "-o", str(path))
    assert (done.status, done.out, done.err) == (0, "", "")
    return path


def test_check_and_tree_of_a_profile(profile: Path) -> None:
    """A profile answers as HOST, says so, and the exit status is that of the answer."""
    done = dlwhy("check", "/app/libgood.so", "--host", f"profile:{profile}")
    assert done.status == 0
    told = " ".join(done.out.split())
    assert f"/app/libgood.so would load in plain (glibc 2.36, x86-64, profile {profile})" in told
    assert dlwhy("check", "/app/libnone.so", "--host", f"profile:{profile}").status == 10
    assert dlwhy("check", "/opt/x.so", "--host", f"profile:{profile}").status == 10
    tree = dlwhy("tree", "/app/libgood.so", "--host", f"profile:{profile}", "--format", "json")
    assert json.loads(tree.out)["host"]["profile"] == f"profile {profile}"


def test_another_host_of_the_system(profile: Path, system: System) -> None:
    """Behind a second colon stands a host in the captured system; without facts of it nothing is said."""
    done = dlwhy("check", "libdep.so.1", "--host", f"profile:{profile}:/bin/host")
    assert done.status == 11
    assert "/bin/host: profile" in done.out
    written = dlwhy("capture", "/bin/host", "--sysroot", str(system.root), "--clear-env")
    assert json.loads(written.out)["process"]["program"] == "/bin/host"


def test_the_environment_of_the_captured_process_is_changed(profile: Path) -> None:
    """--env changes one variable of the captured process, not of this one."""
    words = ("check", "/app/libgood.so", "--host", f"profile:{profile}", "--format", "json")
    done = dlwhy(*words, "--env", "LD_BIND_NOW=1", env={"LD_LIBRARY_PATH": "/here"})
    assert json.loads(done.out)["host"]["environment"] == {"LD_BIND_NOW": "1"}


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (("capture", "pid:1"), 2, "hosts of kind 'pid' are not built yet"),
        (("capture", "profile:debian12"), 2, "captured already"),
        (("capture", "--with", "/no/such"), 2, "--with /no/such: no such file or directory"),
        (("capture", "--sysroot", "/no/such"), 2, "no such directory"),
        (("capture", "nosuchprogram"), 2, "no program of that name"),
        (("capture", "-o", "/no/such/place"), 1, "cannot be written"),
        (("check", "x.so", "--host", "profile:/no/such"), 2, "profile /no/such: No such file or directory"),
        (("check", "x.so", "--host", "profile:/etc/passwd"), 1, "profile /etc/passwd: no JSON text"),
        (("check", "x.so", "--host", "profile:"), 2, "profile : No such file or directory"),
        (("check", "x.so", "--host", "profile:debian12", "--sysroot", "/"), 2, "only one can be meant"),
    ],
)
def test_mistakes(words: tuple[str, ...], status: int, told: str) -> None:
    """Each mistake is told in one line, with the status of its kind."""
    done = dlwhy(*words)
    assert done.status == status
    assert told in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("cut", [2, 40, 700, 5000])
def test_a_profile_that_is_cut_off(profile: Path, tmp_path: Path, cut: int) -> None:
    """A truncated profile is one sentence, also in a process that has imported nothing of json."""
    (tmp_path / "cut.json").write_bytes(profile.read_bytes()[: -cut])
    done = dlwhy("check", "x.so", "--host", f"profile:{tmp_path / 'cut.json'}")
    assert (done.status, done.out) == (1, "")
    assert done.err == f"dlwhy check: profile {tmp_path / 'cut.json'}: no JSON text: it is cut off, or damaged\n"


def test_a_file_of_another_machine(system: System, profile: Path, tmp_path: Path) -> None:
    """A library for another machine than the profile's fails there, in the loader's words."""
    data = bytearray((system.root / "app/libgood.so").read_bytes())
    data[18:20] = (183).to_bytes(2, "little")
    (tmp_path / "arm.so").write_bytes(data)
    done = dlwhy("check", str(tmp_path / "arm.so"), "--host", f"profile:{profile}")
    assert done.status == 10
    assert "cannot open shared object file" in done.out
