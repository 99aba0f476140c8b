"""Every example from end to end: what the real loader says is what dlwhy said before."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.real_hosts import need
from tools.examples import UNREACHED

ROOT = Path(__file__).resolve().parent.parent.parent
SCRIPT = ROOT / "examples/run.py"
EXAMPLES = re.findall(r'(?m)^    "([\w-]+)": "[\w/-]+\.py",$', SCRIPT.read_text("utf-8"))


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script that runs examples."""
    env = {**os.environ, **environment}
    return subprocess.run([sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False, env=env)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example(name: str) -> None:
    """All predictions of an example are equal to what was seen."""
    done = run(name)
    unreached = re.search("not run: " + UNREACHED.pattern, done.stdout)
    if unreached:
        pytest.skip(unreached[0])
    assert done.returncode == 0, done.stdout + done.stderr
    number, of = re.findall(r"(\d+) of (\d+) predictions equal", done.stdout)[-1]
    assert int(number) == int(of) > 0


def test_every_directory_is_an_example() -> None:
    """No example is left out of the one command."""
    folders = {path.name for path in (ROOT / "examples").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(EXAMPLES)


def test_a_tool_is_missing(tmp_path: Path) -> None:
    """Without a compiler each example says in one line what it needs and how to get it; the others go on."""
    done = run(PATH=str(tmp_path), DLWHY_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1
    assert {line for line in done.stdout.splitlines() if line in EXAMPLES} == set(EXAMPLES)
    told = [line for line in done.stdout.splitlines() if line.startswith("  not run: ")]
    assert len(told) > len(EXAMPLES), "each way to fail says so for itself"
    assert all("which is not installed: " in line for line in told)
    assert "Traceback" not in done.stderr


def test_nowhere_to_build(tmp_path: Path) -> None:
    """A cache that cannot be written is one sentence too."""
    (tmp_path / "file").write_text("")
    done = run("ways-to-fail", DLWHY_CACHE=str(tmp_path / "file"))
    assert (done.returncode, done.stderr) == (1, "")
    assert "cannot write below" in done.stdout
    assert "Traceback" not in done.stdout


def test_no_such_example() -> None:
    """A name that is none is a wrong use."""
    done = run("nonsense")
    assert done.returncode == 2
    assert "no example nonsense" in done.stderr


def test_what_is_built_has_a_name_without_a_digest(tmp_path: Path) -> None:
    """So that a page can name it; it leads to what was built for the sources as they are."""
    need("gcc")
    script = ROOT / "examples/ways-to-fail/ways.py"
    env = {**os.environ, "DLWHY_CACHE": str(tmp_path)}
    done = subprocess.run([sys.executable, script, "pie"], capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    named = tmp_path / "examples/ways-to-fail-pie"
    assert re.fullmatch(r"ways-to-fail-pie-[0-9a-f]{12}", str(named.readlink()))
    assert (named / "pie.so").exists()
