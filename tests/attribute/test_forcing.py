"""Trigger, victim and bulk that are not the same: libraries of ours, and libGL with libGLdispatch."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.libraries import gcc, initial_exec

if TYPE_CHECKING:
    from pathlib import Path

GL = "/usr/lib/x86_64-linux-gnu/libGL.so.1"
VICTIM = """
__thread int shared __attribute__((tls_model("initial-exec")));
static __thread char bulk[3000];
char *use(int i) { shared = i; return bulk + i; }
"""
OTHER = 'extern __thread int shared __attribute__((tls_model("initial-exec"))); int %s(void) { return shared; }\n'
OPEN = """
import ctypes, sys
for path in sys.argv[1:]:
    ctypes.CDLL(path)
"""


def really(*paths: Path | str) -> str:
    """Return what the loader says when this Python opens files, one after another; empty when all load."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, *paths], capture_output=True, text=True, check=False, env={"LC_ALL": "C"}
    )
    return done.stderr.strip().splitlines()[-1].removeprefix("OSError: ") if done.returncode else ""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two libraries that reach into a third one, of which the third is relocated first."""
    folder = tmp_path_factory.mktemp("three")
    for name, text in (("victim", VICTIM), ("one", OTHER % "one"), ("two", OTHER % "two")):
        (folder / f"{name}.c").write_text(text)
    here = ("-shared", "-fPIC", "-L", folder, "-Wl,-rpath,$ORIGIN,--no-as-needed")
    gcc(folder / "libvictim.so", *here, folder / "victim.c")
    gcc(folder / "libone.so", *here, folder / "one.c", "-lvictim")
    gcc(folder / "libtwo.so", *here, folder / "two.c", "-lone", "-lvictim")
    return folder


@pytest.mark.oracle
def test_all_that_force_the_victim_are_named(three: Path) -> None:
    """The loader stops at the victim's own access; those of the others, which it had not come to, are told as well."""
    host = dlwhy.Host.named(sys.executable)
    report = dlwhy.check([three / "libtwo.so"], host)
    assert report.steps[0].message == really(three / "libtwo.so") != ""
    (bill,) = report.tls
    assert os.path.basename(bill.object) == "libvictim.so"
    assert bill.owners[0].variable == "bulk"
    told = {(os.path.basename(one.object), one.variable): one.functions for one in bill.triggers}
    assert told == {
        ("libvictim.so", "shared"): ("use",), ("libone.so", "shared"): ("one",), ("libtwo.so", "shared"): ("two",),
    }  # fmt: skip


@pytest.mark.oracle
def test_another_definition_is_not_mistaken(three: Path, tmp_path: Path) -> None:
    """Where another object of the load defines the same variable, nobody is said to reach into the victim."""
    (tmp_path / "second.c").write_text("__thread int shared; int second(void) { return shared; }\n")
    second = gcc(tmp_path / "libsecond.so", "-shared", "-fPIC", tmp_path / "second.c")
    (tmp_path / "top.c").write_text("int top(void) { return 1; }\n")
    top = gcc(
        tmp_path / "libtop.so", "-shared", "-fPIC", f"-Wl,-rpath,{three}:{tmp_path},--no-as-needed", tmp_path / "top.c",
        second, three / "libtwo.so",
    )  # fmt: skip
    report = dlwhy.check([top], dlwhy.Host.named(sys.executable))
    assert (report.steps[0].message or "") == really(top)
    for bill in report.tls:
        assert {os.path.basename(one.object) for one in bill.triggers} <= {os.path.basename(bill.object), "libone.so"}


@pytest.mark.oracle
def test_libgl_and_libgldispatch(tmp_path: Path) -> None:
    """With the block nearly full libGL fails in the name of libGLdispatch; both triggers are told, as `tls` does."""
    if not os.path.exists(GL):
        pytest.skip("not run: no libGL.so.1 here")
    host = dlwhy.Host.named(sys.executable)
    free = dlwhy.check([], host).static_tls
    assert free is not None and free.free is not None
    full = initial_exec(tmp_path, "full", free.free - 4)
    report = dlwhy.check([full, GL], host)
    assert report.steps[1].message == really(full, GL) != ""
    (bill,) = report.tls
    assert os.path.basename(bill.object) == "libGLdispatch.so.0"
    assert {os.path.basename(one.object) for one in bill.triggers} == {"libGLdispatch.so.0", "libGL.so.1"}
    assert {one.variable for one in bill.triggers} == {"_glapi_tls_Current"}
    (alone,) = dlwhy.tls([GL]).files
    assert alone.tls is None
    assert [(one.variable, one.own, one.accesses) for one in alone.triggers] == [
        (one.variable, False, one.accesses) for one in bill.triggers if one.object.endswith("libGL.so.1")
    ]
