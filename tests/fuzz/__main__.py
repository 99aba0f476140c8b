"""python -m tests.fuzz --runs N --seed S [--jobs J] [--directory DIR]: mutated files put to reader, model and command.

With atheris installed (the dependency group `fuzz`) coverage guides what is mutated further; without, or with --blind,
the seeds are mutated as they are. Findings are made small and written to DIR: the changes to a seed, the file, and what
was said. Exit status 1 when there is any.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import random
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

from .campaign import Tally, blind, pools, reduced, write_down
from .stage import BY_NAME, Finding, Stage, limit_memory


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--runs", type=int, default=100_000, help="mutated files, over all jobs (100000)")
    parser.add_argument("--seed", type=int, help="what the mutations are drawn from (a fresh one, which is printed)")
    parser.add_argument("--jobs", type=int, default=1, help="processes, each with a seed of its own (1)")
    parser.add_argument("--directory", default="fuzz-findings", help="where findings go (fuzz-findings)")
    parser.add_argument("--blind", action="store_true", help="without coverage, though atheris is there")
    parser.add_argument("--built-only", action="store_true", help="no libraries of this machine as seeds")
    return parser.parse_args()


def _guided(runs: int, seed: int, directory: str, with_libraries: bool) -> tuple[str, int]:
    """Run one process of a guided campaign; the end of what it said, and its exit status."""
    os.makedirs(directory)
    words = [sys.executable, "-m", "tests.fuzz.guided", str(runs), str(seed), directory, str(int(with_libraries))]
    with open(os.path.join(directory, "log"), "wb") as log:
        status = subprocess.run(words, stdout=log, stderr=log, check=False).returncode
    with open(os.path.join(directory, "log"), "rb") as log:
        return log.read()[-2000:].decode("utf-8", "replace"), status


def main() -> int:
    """Run a campaign, tell what came of it, and return the exit status."""
    given = _arguments()
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed
    with_guide = not given.blind and importlib.util.find_spec("atheris") is not None
    print(f"seed {seed}, {'guided by coverage' if with_guide else 'blind'}", flush=True)
    tally = Tally()
    with tempfile.TemporaryDirectory() as work:
        stage = Stage(os.path.join(work, "stage"))
        if with_guide:
            places = [os.path.join(work, f"job-{number}") for number in range(given.jobs)]
            with ThreadPoolExecutor(given.jobs) as pool:
                ends = list(pool.map(
                    lambda number: _guided(
                        given.runs // given.jobs, seed + number, places[number], not given.built_only
                    ),
                    range(given.jobs),
                ))  # fmt: skip
            for place, (said, status) in zip(places, ends, strict=True):
                if os.path.exists(os.path.join(place, "result.json")):
                    tally.add(os.path.join(place, "result.json"))
                else:
                    tally.found["died", place] = "reader", b"", Finding("died", f"status {status}", said)
                kept = len(os.listdir(os.path.join(place, "corpus"))) if os.path.isdir(place) else 0
                print(f"{os.path.basename(place)}: exit {status}, {kept} files in its corpus")
            limit_memory()
        else:
            limit_memory()
            tally = blind(stage, given.runs, seed, pools(not given.built_only))
        return _told(tally, stage, given.directory)


def _told(tally: Tally, stage: Stage, directory: str) -> int:
    """Print what came of a campaign and write its findings down; the exit status."""
    for (name, what), count in sorted(tally.statuses.items(), key=str):
        print(f"{name:24} {what!s:16} {count:8}")
    print(f"{tally.runs} files, {tally.seconds:.0f} s of processor time")
    left = 0
    for number, (name, data, one) in enumerate(tally.found.values(), 1):
        way = BY_NAME[name]
        kept = reduced(stage, way, data, one) if one.kind != "died" else None
        if one.kind == "died":
            print(f"a process ended early: {one.where}\n{one.text}")
        elif kept is None:
            print(f"not seen again: {way.name}: {one.kind} at {one.where}")  # it was slow because it was instrumented
            continue
        else:
            os.makedirs(directory, exist_ok=True)
            print(f"{write_down(directory, number, way, data, one, kept)}: {way.name}: {one.kind} at {one.where}")
        left += 1
    print(f"{left} findings")
    return int(left > 0)


if __name__ == "__main__":
    sys.exit(main())
