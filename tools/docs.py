"""Writes everything that the code itself knows: man page, completions, JSON Schema, generated blocks of docs/.

`python -m tools.docs` writes; with --check it only compares and says what is out of date (exit status 1).
A block of a hand-written page stands between `<!-- NAME: written by ./dev docs -->` and `<!-- end of NAME -->`.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dlwhy
from tools import command, completions, layers, man, reference, schema

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parent.parent

BLOCKS: dict[str, Callable[[], str]] = {
    "commands": reference.commands,
    "exit-status": reference.exit_status,
    "kinds": reference.kinds,
    "layers": layers.as_markdown,
    "library": reference.library,
    "report": schema.as_markdown,
    "rules": reference.rules,
    "suspects": reference.suspects,
}
"""Name of a block -> what it says."""


def generated() -> dict[str, str]:
    """Return path -> text of every file that is generated, whole or in part."""
    top, commands = command.read()
    files = {
        "man/dlwhy.1": man.page(top, commands, dlwhy.__version__),
        "completions/dlwhy.bash": completions.bash(top, commands),
        "completions/_dlwhy": completions.zsh(top, commands),
        "completions/dlwhy.fish": completions.fish(top, commands),
        "docs/reference/report-1.schema.json": schema.text(),
        "src/dlwhy/render/report-1.schema.json": schema.text(),
    }
    for path in [Path("README.md"), *sorted(Path("docs").rglob("*.md"))]:
        if path.exists() and "written by ./dev docs -->" in (text := path.read_text("utf-8")):
            files[str(path)] = fill(text)
    return files


def fill(text: str) -> str:
    """Return a page with every generated block made anew. Raises `KeyError` for a block that nobody writes."""
    return re.sub(
        r"(<!-- (\S+): written by \./dev docs -->\n).*?(<!-- end of \2 -->)",
        lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def main(words: list[str]) -> int:
    """Write the files, or compare them; return the exit status."""
    if words not in ([], ["--check"]):
        print("usage: ./dev docs [--check]", file=sys.stderr)
        return 2
    # Help texts must not depend on who runs this.
    os.environ.pop("LINES", None)
    os.environ["COLUMNS"] = "80"
    os.environ["NO_COLOR"] = "1"
    os.chdir(ROOT)
    stale = [path for path, text in generated().items() if not _same(path, text)]
    for path in stale:
        if words:
            print(f"{path} is out of date: run ./dev docs", file=sys.stderr)
        else:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(generated()[path], "utf-8")
            print(path)
    return 1 if words and stale else 0


def _same(path: str, text: str) -> bool:
    return Path(path).exists() and Path(path).read_text("utf-8") == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
