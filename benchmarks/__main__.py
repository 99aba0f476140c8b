"""`./dev bench`: measure, print the table, say which gates of budgets.toml are met.

Exit status 0 when every gate is met, 1 when one is missed or could not be measured, 2 for a usage error.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import tomllib
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import dlwhy
from benchmarks.corpus import ROOTS, collect
from benchmarks.measure import ROUNDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.corpus import Corpus
    from benchmarks.measure import Row

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs/performance.md"
BUDGETS = ("facts", "tls_facts", "memory", "start", "tree", "bill", "sites", "names", "binding")
"""One file each, in the order of the table."""
BEGIN, END = "<!-- benchmarks: written by ./dev bench --write -->", "<!-- end of benchmarks -->"


def gate(budget: str, gates: dict[str, dict[str, dict[str, float]]]) -> tuple[str, float]:
    """Return ("at_least" or "at_most", ratio) of a budget named "file.row"."""
    group, _, row = budget.partition(".")
    ((kind, ratio),) = gates[group][row].items()
    return kind, ratio


def met(row: Row, kind: str, ratio: float) -> bool:
    """Whether a row's ratio keeps its gate; without a ratio it does not."""
    if row.ratio is None:
        return False
    return row.ratio >= ratio if kind == "at_least" else row.ratio <= ratio


def table(rows: Sequence[Row], gates: dict[str, dict[str, dict[str, float]]]) -> list[str]:
    """Return the lines of the table, in Markdown."""
    lines = ["| what | dlwhy | against | ratio | gate | |", "|---|---|---|---|---|---|"]
    for row in rows:
        kind, ratio = gate(row.budget, gates)
        told = "none" if row.ratio is None else f"{row.ratio:.{1 if row.ratio >= 10 else 2}f}"
        word = "met" if met(row, kind, ratio) else "missed" if row.ratio is not None else "not measured"
        sign = "≥" if kind == "at_least" else "≤"
        lines.append(f"| {row.what} | {row.ours} | {row.theirs} | **{told}** | {sign} {ratio:g} | {word} |")
    return lines


def heading(corpus: Corpus, rounds: int) -> list[str]:
    """Return what was measured where: nothing that names the machine."""
    day, python, libc = f"{datetime.now(UTC):%Y-%m-%d}", platform.python_version(), " ".join(platform.libc_ver())
    peers = f"pyelftools {version('pyelftools')}, LIEF {version('lief')}"
    return [
        f"Measured on {day} with dlwhy {dlwhy.__version__} on CPython {python}, {peers}.",
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {libc}.",
        f"Corpus: {len(corpus.paths)} ELF files, {corpus.size} bytes. Median of {rounds} rounds, CPU time.",
    ]


def write(page: Path, lines: Sequence[str]) -> None:
    """Put the lines between the marks of a page. Raises `ValueError` when it has none."""
    text = page.read_text("utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"{page} has no block for the benchmarks")
    block = "\n".join((BEGIN, "", *lines, "", END))
    page.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: block, text, flags=re.DOTALL), "utf-8")


def main(words: Sequence[str]) -> int:
    """Run the benchmarks that are asked for."""
    parser = argparse.ArgumentParser(prog="./dev bench", description="Ratios taken in one run on the same files.")
    parser.add_argument("budgets", metavar="BUDGET", nargs="*", help=f"only these ({', '.join(BUDGETS)})")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"rounds, at least {ROUNDS} (default: {ROUNDS})")
    parser.add_argument("--corpus", metavar="DIR", action="append", help="read these, not the system's directories")
    parser.add_argument("--write", action="store_true", help=f"put the table into {PAGE.name}")
    options = parser.parse_args(words)
    unknown = [name for name in options.budgets if name not in BUDGETS]
    if unknown or options.rounds < ROUNDS or (options.write and (options.budgets or options.corpus)):
        parser.error(
            f"no such budget: {unknown[0]}" if unknown
            else f"--rounds: the median of fewer than {ROUNDS} is none" if options.rounds < ROUNDS
            else "--write wants everything measured, on the system's files"
        )  # fmt: skip
    corpus = collect(options.corpus or ROOTS)
    head = heading(corpus, options.rounds)
    print(*head, sep="\n", flush=True)
    gates = tomllib.loads((HERE / "budgets.toml").read_text("utf-8"))
    rows: list[Row] = []
    for name in options.budgets or BUDGETS:
        print(f"  measuring {name} ...", file=sys.stderr, flush=True)
        rows += import_module(f"benchmarks.{name}").rows(corpus.paths, options.rounds)
    lines = table(rows, gates)
    print("", *lines, sep="\n")
    notes = list(dict.fromkeys(note for row in rows for note in row.notes))
    if notes:
        print("", *notes, sep="\n")
    if options.write:
        told = ["", *(f"- {note}" for note in notes)] if notes else []
        write(PAGE, ["\n".join(head), "", *lines, *told])
    return 0 if all(met(row, *gate(row.budget, gates)) for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
