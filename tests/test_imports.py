"""What each command imports, against the allow-lists of imports.toml: start-up is most of a small question's cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

import dlwhy

LISTS = tomllib.loads(Path(__file__).with_name("imports.toml").read_text("utf-8"))

# A real program, small and everywhere: the one that runs this test.
PROGRAM = os.path.realpath(sys.executable)


def imported(code: str, *words: str) -> list[str]:
    """Every module that a fresh Python, without site-packages, imports while it runs this code, in order.

    The interpreter itself tells (-X importtime), so nothing that the code does at its end can hide an import.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-X", "importtime", "-c", code, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split("|") for line in done.stderr.splitlines() if line.startswith("import time:")]
    assert rows, "the interpreter told nothing"
    return [row[2].strip() for row in rows[1:]]


def by_command(*words: str) -> list[str]:
    """Every module that this command line imports beyond Python's own start."""
    site = str(Path(dlwhy.__file__).parent.parent)
    code = f"import sys; sys.path.append({site!r}); from dlwhy.cli.main import main; sys.exit(main(sys.argv[1:]))"
    start = set(imported("pass"))
    return [name for name in imported(code, *words) if name not in start]


@pytest.mark.parametrize("command", LISTS["commands"])
def test_a_command_imports_only_what_is_listed(command: str) -> None:
    """The modules of each command are those of its allow-list, and no other."""
    row = LISTS["commands"][command]
    standard = {name for part in row["standard"] for name in LISTS[part]}
    modules = by_command(*(PROGRAM if word == "PROGRAM" else word for word in row["words"]))
    surplus = []
    for name in modules:
        if name == "dlwhy" or name.startswith("dlwhy."):
            own = name.removeprefix("dlwhy").removeprefix(".") or "__init__"
            if not any(fnmatchcase(own, pattern) for pattern in row["dlwhy"]):
                surplus.append(name)
        elif name not in standard:
            surplus.append(name)
    assert surplus == []
    assert "dlwhy.cli.main" in modules


def test_an_import_is_seen() -> None:
    """A module imported anywhere, even in a function and just before the process ends, is in the list."""
    code = "import os\ndef f():\n    import json\nf(); os._exit(0)"
    assert {"json", "json.decoder"} <= set(imported(code)) - set(imported("pass"))


def test_the_lists_are_tidy() -> None:
    """Each list is sorted and names nothing twice; each command names lists that are there."""
    rows = [row for name, row in LISTS.items() if name != "commands"]
    rows += [row["dlwhy"] for row in LISTS["commands"].values()]
    for row in rows:
        assert row == sorted(set(row))
    for row in LISTS["commands"].values():
        assert set(row["standard"]) <= set(LISTS)
