"""Tree: `dlwhy tree` against lddtree on a program with many dependencies, whole processes of the same interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import dlwhy
from benchmarks.measure import PLAIN, Row, environment, milliseconds, running, script
from dlwhy.elf.constants import DF_1_PIE, ET_EXEC
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlwhy.report import TreeNode

ENOUGH = 50
"""Dependencies that the program must have."""
CANDIDATES = 12
"""Programs whose whole tree is looked at: those that name the most dependencies themselves."""
WHAT = "dependency tree of a program"


def rows(paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the line for lddtree."""
    lddtree = shutil.which("lddtree")
    if lddtree is None:
        return [Row("tree.lddtree", WHAT, "", "", None, ("lddtree is not installed (Debian: pax-utils)",))]
    program = program_with_many(paths)
    if program is None:
        lacking = f"no program here has {ENOUGH} dependencies (./dev bench installs gdb for that)"
        return [Row("tree.lddtree", WHAT, "", "", None, (lacking,))]
    theirs = _command(lddtree)
    ours_found, theirs_found = found_by_dlwhy(program), found_by_lddtree(theirs, program)
    what = f"{WHAT}: {program}, {len(ours_found) - 1} dependencies"
    if ours_found != theirs_found:
        different = ", ".join(sorted(ours_found ^ theirs_found)[:5])
        return [Row("tree.lddtree", what, "", "lddtree", None, (f"no ratio, the files found differ: {different}",))]
    with script(PLAIN) as command:
        commands = {"dlwhy": (sys.executable, command, "tree", program), "lddtree": (*theirs, program)}
        taken = running(commands, 4 * rounds, environment())
    return [Row(
        "tree.lddtree", what, milliseconds(taken["dlwhy"]), f"lddtree {milliseconds(taken['lddtree'])}",
        taken["lddtree"] / taken["dlwhy"],
    )]  # fmt: skip


def _command(lddtree: str) -> tuple[str, ...]:
    """Return how to start lddtree: by this interpreter, which has pyelftools, when it is written in Python."""
    with open(lddtree, "rb") as file:
        first = file.readline()
    return (sys.executable, lddtree) if b"python" in first else (lddtree,)


def program_with_many(paths: Sequence[str]) -> str | None:
    """Return the program with the most dependencies among the corpus, None when that is fewer than 50."""
    named = []
    for path in paths:
        files = Files()
        try:
            elf = Elf(files.open(path))
            dynamic = elf.dynamic
            if dynamic is not None and elf.interp and (elf.type == ET_EXEC or dynamic.flags_1 & DF_1_PIE):
                named.append((-len(dynamic.needed), path))
        except DlwhyError:
            pass
        finally:
            files.close()
    counts = [(len(found_by_dlwhy(path)) - 1, path) for _, path in sorted(named)[:CANDIDATES]]
    most, program = max(counts, default=(0, ""))
    return program if most >= ENOUGH else None


def found_by_dlwhy(program: str) -> frozenset[str]:
    """Return the files of a program's tree, links followed."""
    return frozenset(os.path.realpath(path) for path in _paths(dlwhy.tree(program).root))


def _paths(node: TreeNode) -> Iterator[str]:
    if node.path is not None:
        yield node.path
    for child in node.children:
        yield from _paths(child)


def found_by_lddtree(command: Sequence[str], program: str) -> frozenset[str]:
    """Return the files that lddtree lists, links followed."""
    done = subprocess.run([*command, "-l", program], env=environment(), capture_output=True, text=True, check=True)
    return frozenset(os.path.realpath(line) for line in done.stdout.splitlines())
