"""The agreement of dlwhy with real loaders, counted: `python -m tests.oracle.agreement [--seed N] [--scenarios N] ...`.

Prints a table, one row a loader and family, and every difference with the scenario that shows it. `--only NAME` runs one
scenario again and keeps its files.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.oracle import compare, real
from tests.oracle.build import Workshop
from tests.oracle.scenarios import FAMILIES, scenario
from tests.oracle.sysroots import cache, roots

if TYPE_CHECKING:
    from tests.oracle.scenarios import Scenario


def workshop() -> Workshop:
    """The workshop that all scenarios share, its programs linked against the oldest C library at hand."""
    oldest = next((root for name, root in roots().items() if name == "bullseye" and isinstance(root, Path)), Path("/"))
    return Workshop(cache() / "plans", real.program_libraries(oldest))


def one(
    chosen: Scenario, root: Path, made: Workshop, words: tuple[int, int] | None, keep: bool = False, tag: str = ""
) -> compare.Verdict:
    """Run one scenario on one loader, in a directory of its own when a tag tells it apart from others' runs of it."""
    if tag:
        chosen = chosen._replace(name=f"{chosen.name}-{tag}")
    full = compare.prepare(chosen, root, made)
    try:
        return compare.judge(full, compare.observe(full, root, words), compare.predict(full, root))
    finally:
        if not keep:
            compare.clean(full, root)


def main(argv: list[str] | None = None) -> int:
    """Run the scenarios and print what came out; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="agreement", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="a fresh one, printed, without")
    parser.add_argument("--scenarios", type=int, default=300)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--family", choices=sorted(FAMILIES), default=None)
    parser.add_argument("--loader", action="append", default=[])
    parser.add_argument("--only", type=int, default=None, help="one scenario by number, its files kept")
    parser.add_argument("--show", type=int, default=40, help="differences printed")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    made = workshop()
    numbers = [arguments.only] if arguments.only is not None else range(arguments.start, arguments.start + arguments.scenarios)
    chosen = [scenario(seed, number, arguments.family) for number in numbers]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda plan: made.make(plan) if plan.raw is None and plan.link is None else None,
                      [plan for each in chosen for plan in compare.placed(each).plans]))  # fmt: skip
    total: Counter[tuple[str, str, str]] = Counter()
    shown = 0
    for name, root in roots().items():
        if arguments.loader and name not in arguments.loader:
            continue
        if isinstance(root, str):
            print(f"{name}: {root}")
            continue
        words = real.rtld_words(root)
        for each in chosen:
            try:
                verdict = one(each, root, made, words, arguments.only is not None)
            except Exception:
                print(f"{name} {each.name} {each.family}")
                raise
            key = (name, each.family)
            total[(*key, "scenarios")] += 1
            total[(*key, "steps")] += verdict.steps
            total[(*key, "refused")] += verdict.refused
            total[(*key, "undecided")] += verdict.undecided
            if verdict.differences:
                total[(*key, "differ")] += 1
                shown += 1
                if shown <= arguments.show:
                    print(f"{name} {each.name} ({each.family}):")
                    for text in verdict.differences:
                        print(f"    {text}"[:1500])
    print(f"{'loader':14}{'family':10}{'scenarios':>10}{'steps':>8}{'refused':>9}{'undecided':>11}{'differ':>8}")
    for key in sorted({key[:2] for key in total}):
        cells = [total[(*key, word)] for word in ("scenarios", "steps", "refused", "undecided", "differ")]
        print(f"{key[0]:14}{key[1]:10}{cells[0]:>10}{cells[1]:>8}{cells[2]:>9}{cells[3]:>11}{cells[4]:>8}")
    return 1 if shown else 0


if __name__ == "__main__":
    sys.exit(main())
