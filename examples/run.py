#!/usr/bin/env python3
"""Runs the examples and prints what the real loader said to each question beside what dlwhy had said before.

    examples/run.py [EXAMPLE...]

Exit status: 0 when all are equal, 10 when one is not, 1 when an example could not be run.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from lab import MissingError, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

EXAMPLES = {
    "who-wants-tls": "who-wants-tls/counters.py",
    "static-tls-murder": "static-tls-murder/murder.py",
    "detective-work": "detective-work/detective.py",
    "ways-to-fail": "ways-to-fail/ways.py",
    "evidence": "evidence/evidence.py",
}
"""Name -> the script, whose `rows` yields its rows."""


def rows_of(name: str) -> Callable[[], Iterator[Row | MissingError]]:
    """Return the function that runs an example; what it cannot run it yields as an error, and goes on."""
    path = HERE / EXAMPLES[name]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise MissingError(f"no script {path}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows: Callable[[], Iterator[Row | MissingError]] = module.rows
    return rows


def show(names: Iterable[str]) -> int:
    """Run examples and print a line for each question; one that cannot run says why, and the others go on."""
    status = 0
    number = equal = 0
    print(_line("example", "asked", "the real loader says", "dlwhy said"))
    for name in names:
        try:
            for row in rows_of(name)():
                if isinstance(row, MissingError):
                    print(f"{name}\n  not run: {row}", flush=True)
                    status = 1
                    continue
                number += 1
                equal += row.equal
                status = status or 10 * (not row.equal)
                print(_line(name, row.question, _short(row.real), "equal" if row.equal else "DIFFERENT"), flush=True)
                if not row.equal:
                    print(f"{row.real}\n{row.predicted}", flush=True)
        except MissingError as missing:
            print(f"{name}\n  not run: {missing}", flush=True)
            status = 1
    print(f"{equal} of {number} predictions equal what the real loader said")
    return status


def _line(example: str, question: str, real: str, dlwhy: str) -> str:
    return f"{example:<18} {dlwhy:<10} {question:<62} {real}"


def _short(message: str) -> str:
    """Return a message with the directories of its paths left out; they were compared all the same."""
    return re.sub(r"(?:/[\w.+-]+)+/(?=[\w.+-])", "", message)


def main(words: list[str]) -> int:
    """Run the examples that are named, or all."""
    unknown = [word for word in words if word not in EXAMPLES]
    if unknown:
        print(f"no example {unknown[0]}; there are {', '.join(EXAMPLES)}", file=sys.stderr)
        return 2
    return show(words or EXAMPLES)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
