"""Start-up: `dlwhy --version` and `check /bin/ls`, whole processes, against `python -c pass` of the same binary.

And what the profile of a system costs before anything is asked of it.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

import dlwhy.cli.main
from benchmarks.measure import PLAIN, Row, environment, milliseconds, running, script

ROOT = Path(__file__).resolve().parent.parent
PIP = """\
# -*- coding: utf-8 -*-
import re
import sys
from dlwhy.cli.main import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
"""The script that older pips write, those of Debian 12 and Ubuntu 24.04 among them."""


LOAD = "import sys; from dlwhy.hosts.profile import load; load(sys.argv[1])"


def rows(_paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return a line for each way to start."""
    python = sys.executable
    other = next(one for one in ("/usr/bin/python3", shutil.which("python3") or python) if os.path.exists(one))
    with script(PLAIN) as plain, script(PIP) as pip, tempfile.NamedTemporaryFile("w", suffix=".json") as profile:
        profile.write(dlwhy.capture(dlwhy.Host.plain({})).text())
        profile.flush()
        taken = running(
            {
                "pass": (python, "-c", "pass"),
                "checkout pass": (other, "-c", "pass"),
                "version": (python, plain, "--version"),
                "version_pip": (python, pip, "--version"),
                "version_checkout": (str(ROOT / "dlwhy"), "--version"),
                "check": (python, pip, "check", "/bin/ls"),
                "profile": (python, "-c", LOAD, profile.name),
                "profile_shipped": (python, "-c", LOAD, "debian12"),
            },
            4 * rounds, environment(),
        )  # fmt: skip
    told = {
        "version": "dlwhy --version",
        "version_pip": "dlwhy --version, script of an older pip",
        "version_checkout": "./dlwhy --version, nothing installed",
        "check": "dlwhy check /bin/ls, script of an older pip",
        "profile": "load what dlwhy capture writes of this machine",
        "profile_shipped": "load the profile debian12",
    }
    notes = () if _has_byte_code() else ("no byte code could be written: every start compiles dlwhy anew",)
    result = []
    for name, what in told.items():
        base = taken["checkout pass" if name == "version_checkout" else "pass"]
        figures = milliseconds(taken[name]), f"python -c pass {milliseconds(base)}"
        result.append(Row(f"start.{name}", what, *figures, taken[name] / base, notes if name == "version" else ()))
    return result


def _has_byte_code() -> bool:
    cached = dlwhy.cli.main.__spec__.cached
    return cached is not None and os.path.exists(cached)
