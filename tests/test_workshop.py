"""The workshop keeps its own rules: lint, strict types, generated files, ./dev, and a sentence on each test."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the checkout and return what came of it."""
    return subprocess.run(
        [os.fspath(word) for word in command], cwd=ROOT, env=os.environ | more, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


def test_lint() -> None:
    """ruff finds nothing in the whole tree; each exception is explained in pyproject.toml."""
    done = run(sys.executable, "-m", "ruff", "check", "--output-format", "concise")
    assert done.returncode == 0, f"./dev lint:\n{done.stdout}{done.stderr}"


def test_types() -> None:
    """mypy, strict, finds nothing in package, tools and tests."""
    done = run(sys.executable, "-m", "mypy", "--no-error-summary")
    assert done.returncode == 0, f"./dev types:\n{done.stdout}{done.stderr}"


def test_generated_files() -> None:
    """Man page, completions and the generated blocks of the docs are those of this source."""
    done = run(sys.executable, "-B", "-m", "tools.docs", "--check")
    assert done.returncode == 0, f"./dev docs --check:\n{done.stdout}{done.stderr}"


def test_a_stale_block_is_seen() -> None:
    """The generator replaces what stands between the marks, and nothing else."""
    from tools import docs, layers

    page = "a\n<!-- layers: written by ./dev docs -->\nstale words\n<!-- end of layers -->\nb\n"
    filled = docs.fill(page)
    assert layers.as_markdown() in filled
    assert "stale words" not in filled
    assert filled.startswith("a\n")
    assert filled.endswith("\nb\n")
    assert docs.fill(filled) == filled


@pytest.mark.parametrize("path", ["dev", ".ci/run", "dlwhy", "completions/dlwhy.bash"])
def test_shell_syntax(path: str) -> None:
    """The shell reads each script without a complaint."""
    text = (ROOT / path).read_text("utf-8")
    shell = text.partition("\n'''\n")[0] if path == "dlwhy" else text
    done = subprocess.run(["bash", "-n"], input=shell, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("path", ["dev", ".ci/run", "dlwhy"])
def test_scripts_can_be_run(path: str) -> None:
    """What one starts by its name is executable."""
    assert os.access(ROOT / path, os.X_OK)


def test_dev_tells_its_commands() -> None:
    """`./dev --help` names every command that the script knows, and an unknown one is a usage error."""
    text = (ROOT / "dev").read_text("utf-8")
    known = re.findall(r"^    ([a-z]+)\)$", text.partition("case $command in")[2], re.MULTILINE)
    told = re.findall(r"^  ([a-z]+) ", run("./dev", "--help").stdout, re.MULTILINE)
    assert known == told
    assert run("./dev", "nonsense").returncode == 2


def test_ci_runs_what_everybody_runs() -> None:
    """CI is `./dev test` with CI set, and nothing after it."""
    lines = [line for line in (ROOT / ".ci/run").read_text("utf-8").splitlines() if line and not line.startswith("#")]
    assert lines[-1].startswith("exec ")
    assert lines[-1].endswith('/dev" test "$@"')


@pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/usr/bin/apt-get"), reason="not run: only root can act another user"
)
def test_dev_without_root_prints_the_one_command(tmp_path: Path) -> None:
    """Without root, a missing package is answered with one line, the command that installs it, and exit status 1."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for directory in ("/usr/bin", "/bin"):
        for path in Path(directory).iterdir():
            if path.name not in {"g++", "readelf"} and not os.path.lexists(programs / path.name):
                (programs / path.name).symlink_to(path)
    script = tmp_path / "dev"
    script.write_bytes((ROOT / "dev").read_bytes())
    for path in [*tmp_path.resolve().parents[:3], tmp_path, programs]:
        if path != Path("/tmp"):
            path.chmod(path.stat().st_mode | 0o755)
    done = subprocess.run(
        ["bash", script, "test"], env={"PATH": str(programs)}, user=65534, group=65534, extra_groups=[], cwd="/",
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(
        r"(sudo apt-get update && )?sudo apt-get install --yes --no-install-recommends g\+\+ binutils\n", done.stderr
    )


def test_dev_refuses_a_directory_that_is_no_environment(tmp_path: Path) -> None:
    """An environment is never made in a directory that holds something else."""
    (tmp_path / "thesis.txt").write_text("dear")
    done = run("./dev", "lint", DLWHY_VENV=str(tmp_path))
    assert done.returncode == 1
    assert "DLWHY_VENV" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_dev_says_when_it_cannot_write(tmp_path: Path) -> None:
    """Where the environment cannot be made, one sentence says so and what helps."""
    (tmp_path / "file").write_text("")
    done = run("./dev", "lint", DLWHY_VENV=str(tmp_path / "file/venv"))
    assert done.returncode == 1
    assert re.fullmatch(r"dev: cannot write .*DLWHY_VENV\n", done.stderr)


TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_each_test_says_what_it_shows(path: Path) -> None:
    """Every test has a docstring that is a sentence."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            told = ast.get_docstring(node) or ""
            assert told.rstrip().endswith("."), f"line {node.lineno}: {node.name} does not say what it shows"
