"""A profile against its original: `python -m tests.oracle.captured [--seed N] [--scenarios N] [--libraries] ...`.

Each scenario is asked of its files, captured, and asked again of the profile, while none of the files can be opened any
more; the two reports must be equal. Twice: with the scenario's own files in the profile, and with them on this machine,
as whoever checks a file of his own against another system has it (scenarios with a program of their own are not: its
directory is the captured system's). `--libraries` does the same with every library of
each system, whose tables are kept, not the files.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from unittest.mock import patch

import dlwhy
from dlwhy.api import Options
from dlwhy.capturing import Wanted, capture
from dlwhy.errors import DlwhyError
from dlwhy.files import Files
from dlwhy.hosts.profile import load
from tests.oracle import compare
from tests.oracle.agreement import workshop
from tests.oracle.libraries import shared_objects
from tests.oracle.scenarios import FAMILIES, scenario
from tests.oracle.sysroots import roots
from tools.profiles import opened, write

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.report import CheckReport
    from tests.oracle.build import Workshop
    from tests.oracle.scenarios import Scenario

_OF_DIRECTORY = "not-in-current-directory"
LEAST = ("libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0")
"""All that a scenario may need of its system."""
INSIDE, BESIDE = "in the profile", "on this machine"


class Pair(NamedTuple):
    """What the files said, and what the profile says."""

    original: CheckReport
    captured: CheckReport


@contextmanager
def nothing_but(*allowed: str) -> Iterator[None]:
    """Files below these paths only can be opened, whoever asks for others has failed."""
    real = Files._descriptor

    def guarded(self: Files, path: str) -> int:
        place = self.real(path)
        if not any(place == one or place.startswith(one + "/") for one in allowed) and Path(place).exists():
            raise AssertionError(f"{place} was opened")
        return real(self, path)

    with patch.object(Files, "_descriptor", guarded):
        yield


def _profile(work: Path, profile: dlwhy.Profile) -> Path:
    path = work / "profile.json"
    path.write_text(profile.text(), "ascii")
    return path


def of_scenario(one: Scenario, root: Path, made: Workshop, where: str) -> Pair:
    """Ask of a scenario's files, capture its host, and ask again of the profile."""
    full = compare.prepare(one, root, made)
    here = Path(full.directory)
    sysroot = None if root == Path("/") else str(root)
    env = compare.environment(full)
    host = dlwhy.Host.executable(f"{full.directory}/{full.program}", env) if full.program else dlwhy.Host.plain(env)
    with tempfile.TemporaryDirectory() as work:
        try:
            original = compare.predict(full, root)
            names = (full.directory,) if where == INSIDE else ()
            options = Options(sysroot=sysroot, cwd=full.cwd)
            profile = _profile(Path(work), capture(host, options, Wanted(names, common=LEAST)))
            if where == BESIDE and sysroot is not None:
                shutil.rmtree(here, ignore_errors=True)
                shutil.copytree(f"{root}{here}", here, symlinks=True)
            allowed = (str(profile),) if where == INSIDE else (str(profile), full.directory)
            if where == INSIDE:
                compare.clean(full, root)
            with nothing_but(*allowed):
                captured = dlwhy.check(list(full.steps), dlwhy.Host.profile(profile), cwd=full.cwd)
        finally:
            compare.clean(full, root)
            shutil.rmtree(here, ignore_errors=True)
    if where == BESIDE:  # whose current directory it is, is not told there
        original = original.but(findings=tuple(one for one in original.findings if one.rule != _OF_DIRECTORY))
    return Pair(original, captured)


def difference(pair: Pair) -> str | None:
    """Return the first place in which two reports differ; None for equal ones, but for the name of the profile."""
    return _first(pair.original, pair.captured.but(host=pair.captured.host.but(profile=None)), "")


def _first(one: object, two: object, where: str) -> str | None:
    if one == two:
        return None
    if isinstance(one, tuple) and isinstance(two, tuple) and len(one) == len(two):
        names = getattr(one, "_fields", range(len(one)))
        each = zip(names, one, two, strict=True)
        return next((found for name, a, b in each if (found := _first(a, b, f"{where}.{name}"))), None)
    return f"{where}: {one!r}\n    profile: {two!r}"


def undecided(report: CheckReport) -> bool:
    """Whether a report says of the start, or of a step, that the profile does not hold what decides it."""
    said = [report.host.startup.because or "", *(step.because for step in report.steps)]
    return any("a fact is missing" in one and "profile " in one for one in said)


def of_libraries(root: Path, paths: list[str], packed: bool = False) -> Iterator[tuple[str, Pair]]:
    """Ask of each library of a system, once of its files and once of one profile that has the tables of all.

    With `packed` that profile is packed as those that come with dlwhy are.
    """
    sysroot = None if root == Path("/") else str(root)
    host = dlwhy.Host.plain({})
    with tempfile.TemporaryDirectory() as work:
        made = capture(host, Options(sysroot=sysroot), Wanted(facts=tuple(paths)))
        print(f"{root}: {len(paths)} libraries, {len(made.text())} bytes")
        if packed:
            write({"profile": opened(made.data, root)}, Path(work))
        profile = load(Path(work) / "profile.json" if packed else _profile(Path(work), made))
        for path in paths:
            try:
                original = dlwhy.check([path], host, sysroot=sysroot)
            except DlwhyError:
                continue
            with nothing_but(work):
                captured = dlwhy.check([path], dlwhy.Host.profile(profile))
            yield path, Pair(original, captured)


class Count:
    """What one run came to."""

    def __init__(self, most: int) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()
        self._most = most

    def add(self, row: str, name: str, pair: Pair) -> None:
        """Count one pair; say what differs, up to as many as are wanted."""
        found = difference(pair)
        word = "equal" if found is None else "undecided" if undecided(pair.captured) else "differ"
        self.counts[row, word] += 1
        if found is not None and self.counts[row, "differ"] + self.counts[row, "undecided"] <= self._most:
            print(f"{row} {name}: {found}"[:1500])

    def table(self) -> str:
        """One line a row."""
        rows = sorted({row for row, _ in self.counts})
        words = ("equal", "undecided", "differ")
        return "\n".join(f"{row}: " + ", ".join(f"{self.counts[row, one]} {one}" for one in words) for row in rows)


def main(argv: list[str] | None = None) -> int:
    """Compare, print a table; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="captured", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="a fresh one, printed, without")
    parser.add_argument("--scenarios", type=int, default=30, help="of each family")
    parser.add_argument("--family", choices=sorted(FAMILIES), action="append", default=[])
    parser.add_argument("--loader", action="append", default=[])
    parser.add_argument("--only", type=int, default=None)
    parser.add_argument("--show", type=int, default=10, help="differences printed, of each row")
    parser.add_argument("--libraries", action="store_true")
    parser.add_argument("--packed", action="store_true", help="--libraries in the form of the profiles of dlwhy's own")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    made, count = workshop(), Count(arguments.show)
    for loader, root in roots().items():
        if isinstance(root, str) or (arguments.loader and loader not in arguments.loader):
            continue
        if arguments.libraries:
            for path, pair in of_libraries(root, sorted(shared_objects(root)), arguments.packed):
                count.add(f"{loader} libraries", path, pair)
            continue
        for family in arguments.family or sorted(FAMILIES):
            numbers = [arguments.only] if arguments.only is not None else range(arguments.scenarios)
            for number in numbers:
                one = scenario(seed, number, family)
                for where in (INSIDE, BESIDE) if one.program is None else (INSIDE,):
                    pair = of_scenario(one, root, made, where)
                    count.add(f"{loader}, files {where}", f"{family} {number}", pair)
    print(count.table())
    return 1 if any(word != "equal" for (_, word), amount in count.counts.items() if amount) else 0


if __name__ == "__main__":
    sys.exit(main())
