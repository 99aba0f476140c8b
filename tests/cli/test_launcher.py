"""./dlwhy of a checkout: runs with nothing installed, and leaves byte code only where the user lets it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the launcher and the sources, without byte code."""
    shutil.copy(ROOT / "dlwhy", tmp_path / "dlwhy")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def run(checkout: Path, **more: str) -> str:
    done = subprocess.run(
        [checkout / "dlwhy", "--version"], env=os.environ | more, cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_byte_code_is_kept(checkout: Path) -> None:
    """The first start leaves byte code beside the sources, so that the next is quicker."""
    assert run(checkout).startswith("dlwhy ")
    assert list(checkout.rglob("main.cpython-*.pyc"))


def test_no_byte_code_where_none_is_wanted(checkout: Path) -> None:
    """PYTHONDONTWRITEBYTECODE is honoured, although all other PYTHON* variables are ignored."""
    assert run(checkout, PYTHONDONTWRITEBYTECODE="1").startswith("dlwhy ")
    assert not list(checkout.rglob("__pycache__"))


def test_byte_code_elsewhere(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """PYTHONPYCACHEPREFIX puts the byte code of a checkout that cannot be written somewhere else."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    run(checkout, PYTHONPYCACHEPREFIX=str(elsewhere))
    assert not list(checkout.rglob("__pycache__"))
    assert list(elsewhere.rglob("main.cpython-*.pyc"))


def test_no_variable_reaches_in(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """PYTHONPATH and the working directory cannot put a module into dlwhy."""
    trap = tmp_path_factory.mktemp("trap")
    (trap / "os.py").write_text("raise SystemExit('trapped')")
    (trap / "dlwhy.py").write_text("raise SystemExit('trapped')")
    assert run(checkout, PYTHONPATH=str(trap)).startswith("dlwhy ")
