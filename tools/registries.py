"""Packages of PyPI and npm for the examples: each by the name of its one file, which says the very release.

They come by pip and npm, as this machine is configured for them, and are kept below the cache.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from fcntl import LOCK_EX, flock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

SCOPES = {"swc-core-": "@swc/core-"}
"""How the names of files of npm's scoped packages begin -> how the package's own name does."""


class UnreachedError(Exception):
    """A package cannot be had here; one sentence says why."""


def package(name: str, folder: Path) -> Path:
    """Return a wheel or an archive of npm, downloaded into a folder once. Raises `UnreachedError`."""
    kept = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / f"{name}.lock", "w") as lock:
            flock(lock, LOCK_EX)
            if not kept.exists():
                fresh = folder / f"{name}.new"
                fresh.mkdir(exist_ok=True)
                _run(_command(name), fresh)
                (fresh / name).rename(kept)
                with contextlib.suppress(OSError):
                    fresh.rmdir()
    except OSError as error:
        raise UnreachedError(f"{name} cannot be had: {error}") from error
    return kept


def _command(name: str) -> list[str]:
    """Return what downloads a file of this name into the working directory."""
    if name.endswith(".whl"):
        project, version, python, abi, platforms = name.removesuffix(".whl").split("-")
        return [
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
            "--disable-pip-version-check", "--implementation=cp", f"--python-version={python.removeprefix('cp')}",
            f"--abi={abi}", *(f"--platform={one}" for one in platforms.split(".")), f"{project}=={version}",
        ]  # fmt: skip
    project, _, version = name.removesuffix(".tgz").rpartition("-")
    for plain, scoped in SCOPES.items():
        project = scoped + project.removeprefix(plain) if project.startswith(plain) else project
    return ["npm", "pack", "--silent", f"{project}@{version}"]


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False, timeout=1200)
    if done.returncode:
        told = done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}"
        raise UnreachedError(f"{words[-1]} cannot be had: {told.splitlines()[-1]}")
