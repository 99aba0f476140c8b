"""Every block in the pages that could be an output is made by the build, or has a reason to be something else."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from dlwhy.cli.arguments import COMMANDS, build
from tools.examples import examples, pages

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*pages(), ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md"]
GENERATED = re.compile(r"<!-- (\S+): written by [^>]* -->\n.*?<!-- end of \1 -->", re.DOTALL)
"""What a command of its own writes: ./dev docs, ./dev bench --write, tests/oracle/agreement.py, the real inputs."""
FENCE = re.compile(r"^( *)```(.*)$")
TYPED = (
    "./dev", "./dlwhy", "cargo", "cd", "dlwhy", "docker", "done", "examples/run.py", "for", "git", "go", "npm",
    "python3",
)  # fmt: skip
"""What lines of a block of `sh` begin with: commands for the reader, never what they print."""
STATIC_TLS = "docs/explain/static-tls.md"
NO_OUTPUT = {
    (STATIC_TLS, "lower addresses                                                  higher addresses"): "a drawing",
    (STATIC_TLS, "surplus = 288 * (namespaces + auditors) + optional"): "a formula with its numbers",
    (STATIC_TLS, "size = roundup(used at the start + surplus, alignment) + TCB"): "a formula with its numbers",
    (STATIC_TLS, "free                     1712"): "arithmetic that leads to what the example above it prints",
}
"""(page, first line) -> what a block is that is no output, no commands and no code."""


class Block(NamedTuple):
    """A block of code: fenced with the word behind its fence, or indented and None."""

    kind: str | None
    text: str

    @property
    def first(self) -> str:
        """Its first line."""
        return self.text.strip().partition("\n")[0].rstrip()


def blocks(text: str) -> list[Block]:
    """Return the blocks of a page, but those that a command of its own writes."""
    lines = GENERATED.sub("", text).splitlines()
    found, number = [], 0
    while number < len(lines):
        start, fence = number, FENCE.match(lines[number])
        number += 1
        if fence:
            while lines[number].strip() != "```":
                number += 1
            found.append(Block(fence[2], "\n".join(lines[start + 1 : number]) + "\n"))
            number += 1
        elif lines[start].startswith("    ") and not (start and lines[start - 1].strip()):
            while number < len(lines) and (lines[number].startswith("    ") or not lines[number].strip()):
                number += 1
            found.append(Block(None, "\n".join(lines[start:number])))
    return found


def name_of(path: Path) -> str:
    """A page's path in the tree."""
    return str(path.relative_to(ROOT))


def wrong(page: str, text: str) -> list[str]:
    """Return what is no example that the build makes, and nothing else that has a reason; a line each."""
    made = {one.command for one in examples(text)}
    found = []
    for block in blocks(text):
        if block.kind in ("console", "console timed"):
            right = block.text.startswith("$ ") and block.first.removeprefix("$ ") in made
        elif block.kind == "sh":
            right = all(line.startswith((*TYPED, " ")) for line in block.text.splitlines())
        elif block.kind == "python":
            right = _is_python(block.text)
        else:
            right = (page, block.first) in NO_OUTPUT
        if not right:
            found.append(f"{page}: {block.first}")
    return found


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_every_output_is_made_by_the_build(path: Path) -> None:
    """What looks like an output is a block of `console`, which tools.examples runs, whichever way it is written."""
    assert wrong(name_of(path), path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "```\n$ dlwhy tls libfoo.so\nlibfoo.so: 8 bytes of TLS\n```\n",
        "```text\nlibfoo.so: 8 bytes of TLS\n```\n",
        "```console\nlibfoo.so: 8 bytes of TLS\n```\n",
        "```console pasted\n$ dlwhy tls libfoo.so\nlibfoo.so: 8 bytes of TLS\n```\n",
        "```sh\ndlwhy tls libfoo.so\nlibfoo.so: 8 bytes of TLS\n```\n",
        "```python\n>>> dlwhy.tls(['libfoo.so'])\n```\n",
        "Text.\n\n    $ dlwhy tls libfoo.so\n    libfoo.so: 8 bytes of TLS\n",
        "- Item:\n\n  ```\n  libfoo.so: 8 bytes of TLS\n  ```\n",
    ],
)
def test_a_pasted_output_is_seen(text: str) -> None:
    """An output that nobody runs is found, however its block is marked."""
    assert len(wrong("docs/page.md", f"# Page\n\n{text}\nMore.\n")) == 1


def test_the_reasons_are_of_blocks_that_are_there() -> None:
    """No reason outlives its block."""
    there = {(name_of(path), block.first) for path in PAGES for block in blocks(path.read_text("utf-8"))}
    assert set(NO_OUTPUT) <= there


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_commands_for_the_reader_can_be_typed(path: Path) -> None:
    """What a page tells to type is right for the shell, and each command of dlwhy in it for its parser."""
    for block in blocks(path.read_text("utf-8")):
        if block.kind != "sh":
            continue
        subprocess.run(["sh", "-n", "-c", block.text], check=True)
        for line in block.text.splitlines():
            for part in re.split(r"&&|\|\||[|;>](?![^']*' )", line):
                words = shlex.split(part, comments=True)
                if words and words[0] in ("dlwhy", "./dlwhy"):
                    assert words[1] in COMMANDS, line
                    build(words[1]).parse_args(words[2:])


def test_every_kind_of_evidence_is_shown() -> None:
    """Each example of examples/evidence stands on a page."""
    shown = {one.command for path in PAGES for one in examples(path.read_text("utf-8"))}
    kinds = {path.name for path in (ROOT / "examples/evidence").iterdir() if (path / "build.sh").exists()}
    assert kinds
    assert {f"examples/evidence/evidence.py {kind}" for kind in kinds} <= shown
