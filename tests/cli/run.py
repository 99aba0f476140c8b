"""Runs the installed command, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.fixtures.real_hosts import BARE

COMMAND = Path(sys.prefix) / "bin/dlwhy"
ENVIRONMENT = {**BARE, "LC_ALL": "C.UTF-8"}
if "PYTHONPATH" in os.environ:
    ENVIRONMENT["PYTHONPATH"] = os.path.abspath(os.environ["PYTHONPATH"])
SOMEWHERE = "/usr/lib/x86_64-linux-gnu/libm.so.6"
"""A library that every such machine has."""


class Done(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str


def dlwhy(*words: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> Done:
    """Run the command with these words in an environment that holds next to nothing."""
    done = subprocess.run(
        [COMMAND, *words], cwd=cwd, env={**ENVIRONMENT, **(env or {})}, stdin=subprocess.DEVNULL, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    text = (part.decode("utf-8", "surrogateescape") for part in (done.stdout, done.stderr))
    return Done(done.returncode, *text)
