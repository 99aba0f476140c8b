"""Measuring: turns in shuffled order, CPU time, medians; and what one line of the table says."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

ROUNDS = 5
"""At least so many rounds; the median counts."""


class Row(NamedTuple):
    """One line of the table."""

    budget: str
    """Name of the gate in budgets.toml, as "start.check"."""
    what: str
    """What was done."""
    ours: str
    theirs: str
    """Figures with their unit; the peer's name in front of its own."""
    ratio: float | None
    """None when there is none to tell: `notes` says why."""
    notes: tuple[str, ...] = ()
    """What was left out and why, one line each."""


def reading(readers: Mapping[str, Callable[[str], object]], paths: Sequence[str], rounds: int) -> dict[str, float]:
    """Return the CPU seconds in which each reader reads all files: medians of rounds, in shuffled order.

    Nothing is kept between two rounds but what a reader's module keeps for good.
    """
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    order, files = list(readers), list(paths)
    for _ in range(rounds):
        random.shuffle(order)
        random.shuffle(files)
        for name in order:
            read = readers[name]
            start = time.process_time()
            for path in files:
                read(path)
            seconds[name].append(time.process_time() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def running(
    commands: Mapping[str, Sequence[str]], rounds: int, env: Mapping[str, str], statuses: Sequence[int] = (0,)
) -> dict[str, float]:
    """Return the CPU seconds of each command, children included, output to nowhere: medians, in shuffled order.

    Each runs once before, so that files are in the page cache and byte code is written. Raises `RuntimeError` for one
    that ends with none of the exit statuses.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    order = list(commands)
    for turn in range(rounds + 1):
        random.shuffle(order)
        for name in order:
            taken = run(commands[name], env, statuses)
            if turn:
                seconds[name].append(taken)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def run(command: Sequence[str], env: Mapping[str, str], statuses: Sequence[int] = (0,)) -> float:
    """Return the CPU seconds of one command, children included, output to nowhere. Raises as `running`."""
    nowhere = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1, 2)]
    child = os.posix_spawn(command[0], list(command), env, file_actions=nowhere)
    _, status, used = os.wait4(child, 0)
    if os.waitstatus_to_exitcode(status) not in statuses:
        raise RuntimeError(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return used.ru_utime + used.ru_stime


def environment() -> dict[str, str]:
    """Return the environment that the measured commands get: nothing that changes what Python or the loader does."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}  # ./dev clears the latter
    return kept | {"HOME": "/", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


@contextmanager
def script(text: str) -> Iterator[str]:
    """Yield the path of a script, as an installer would write it for a command."""
    with tempfile.TemporaryDirectory() as scratch:
        path = os.path.join(scratch, "dlwhy")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        yield path


PLAIN = """\
import sys
from dlwhy.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""
"""The script that an installer writes for the command: today's pip, and uv."""


def milliseconds(seconds: float) -> str:
    """Return a time as the table has it."""
    return f"{1000 * seconds:.1f} ms" if seconds < 10 else f"{seconds:.1f} s"
