"""The agreement of dlwhy with real loaders, counted: `python -m tests.oracle.agreement [--seed N] [--scenarios N] ...`.

Runs random scenarios of every family on every loader that can be had, prints a table with a row for each, and every
difference with the scenario that shows it. `--libraries` opens the shared objects of whole systems too, `--packages`
those of Debian packages, wheels and npm packages in the programs that load them. `--only N` runs one scenario again and
keeps its files. `--write` puts the tables into docs/agreement.md; what was not measured stays there as it is, so that
`--scenarios 0 --packages --write` renews one table.
"""

from __future__ import annotations

import argparse
import datetime as dt
import re
import secrets
import shutil
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from dlwhy.files import Files
from dlwhy.loader.objects import Objects
from tests.oracle import catalogue, compare, libraries, musl, packages, real
from tests.oracle.build import NotBuilt, Workshop
from tests.oracle.machines import AMD64, TARGETS, target_of
from tests.oracle.scenarios import FAMILIES, TIMES, adapted, placed, scenario
from tests.oracle.sysroots import SUITES, cache, roots

if TYPE_CHECKING:
    from tests.oracle.scenarios import Scenario

PAGE = Path(__file__).parent.parent.parent / "docs/agreement.md"
BEGIN, END = "<!-- tables: written by tests/oracle/agreement.py -->", "<!-- end of tables -->"

MUSL = {"musl": "amd64", "musl-arm64": "arm64"}
"""What --machine calls musl -> Debian's name of the machine that it runs on."""
_OFTEN = 10
"""How often each loader is to be heard saying each sentence."""


def workshop(debian: str = "amd64", root: Path | None = None) -> Workshop:
    """The workshop that all scenarios of a machine share, its programs linked against the oldest C library at hand.

    Or against that of a `root`, where no other is asked for.
    """
    if root is not None:
        return Workshop(cache() / "plans", real.program_libraries(root), TARGETS[debian])
    found = [root for name, root in roots(debian).items() if name != "this machine" and isinstance(root, Path)]
    if not found and debian != "amd64":
        raise OSError("no C library to link with")
    return Workshop(cache() / "plans", real.program_libraries((*found, Path("/"))[0]), TARGETS[debian])


def release(root: Path) -> str:
    """What the loader of a root says it is."""
    target = target_of(root)
    facts = Objects(Files(str(root))).loader_facts(target.loader)
    told = facts.release or (Objects(Files(str(root))).libc_release(f"/{target.lib}/libc.so.6") or [None])[0]
    return ".".join(map(str, told)) if told else "?"


def one(
    chosen: Scenario, root: Path, made: Workshop, words: tuple[int, int] | None, *, keep: bool = False, tag: str = ""
) -> compare.Verdict:
    """Run one scenario on one loader, in a directory of its own when a tag tells it apart from others' runs of it."""
    chosen = adapted(chosen, made.target)
    if tag:
        chosen = chosen._replace(name=f"{chosen.name}-{tag}")
    full = compare.prepare(chosen, root, made)
    try:
        return compare.judge(full, compare.observe(full, root, words), compare.predict(full, root))
    finally:
        if not keep:
            compare.clean(full, root)


def built(made: Workshop, chosen: list[Scenario]) -> list[Scenario]:
    """Build the files of scenarios; return those whose files could be built, which on x86-64 must be all of them."""

    def build(each: Scenario) -> bool:
        try:
            for plan in placed(adapted(each, made.target)).plans:
                if plan.raw is None and plan.link is None:
                    made.make(plan)
        except NotBuilt:
            if made.target is AMD64:
                raise
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        return [each for each, good in zip(chosen, pool.map(build, chosen), strict=True) if good]


OWN = ("this machine", *SUITES)
"""The loaders of x86-64."""


class Tally:
    """Counts of one run, and the differences it showed."""

    def __init__(self, most: int, said: dict[str, str] = catalogue.ROWS) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.heard: Counter[tuple[str, str]] = Counter()
        """(row of the catalogue, loader) -> how often the real loader said so."""
        self.differences = 0
        self.told: list[str] = []
        """What was told of loaders of other machines."""
        self._most = most
        self._said = said

    def _tabled(self, loader: str) -> bool:
        """Whether a loader has a row for each family, and a column for what it says."""
        return loader in OWN or self._said is not catalogue.ROWS

    def add(self, loader: str, family: str, verdict: compare.Verdict) -> None:
        """Count one scenario."""
        for word, amount in (
            ("scenarios", 1), ("steps", verdict.steps), ("refused", verdict.refused), ("undecided", verdict.undecided),
            ("differ", bool(verdict.differences)), ("otherwise", verdict.other_verdict),
        ):  # fmt: skip
            self.counts[loader, family, word] += amount
        for row, amount in catalogue.count(list(verdict.messages), self._said).items():
            self.heard[row, loader] += amount
        if verdict.differences:
            self.tell(f"{loader} {verdict.scenario.name} ({family}):", *verdict.differences)
            if not self._tabled(loader):
                self.told.append(f"{loader}, scenario {verdict.scenario.name}: {_short(verdict.differences[0])}")

    def rows(self) -> list[list[str]]:
        """How often each sentence of the catalogue was heard, by loader of x86-64."""
        loaders = sorted({loader for _, loader in self.heard if self._tabled(loader)})
        table = [["what the loader says", *loaders]]
        return table + [[row, *(str(self.heard[row, loader]) for loader in loaders)] for row in self._said]

    def seldom(self) -> list[str]:
        """The sentences that some loader was heard to say fewer than ten times, and why."""
        loaders = {loader for _, loader in self.heard if self._tabled(loader)}
        rows = [row for row in self._said if any(self.heard[row, loader] < _OFTEN for loader in loaders)]
        return [f"{row}: {catalogue.SELDOM.get(row, 'no reason is known')}" for row in rows]

    def tell(self, head: str, *lines: str) -> None:
        """Print a difference, up to as many as are wanted."""
        self.differences += 1
        if self.differences <= self._most:
            print(head, *(f"    {line}"[:1500] for line in lines), sep="\n")

    def foreign(self) -> list[list[str]]:
        """Rows for loaders of other machines: all families together, and how many of a hundred scenarios agree."""
        rows = [["loader", "scenarios", "steps", "refused", "undecided", "verdicts agree", "texts agree"]]
        for loader in dict.fromkeys(key[0] for key in self.counts if not self._tabled(key[0])):
            count: Counter[str] = Counter()
            for (of, _, word), amount in self.counts.items():
                count[word] += amount if of == loader else 0
            whole = count["scenarios"]
            agree = [f"{100 * (whole - count[word]) / whole:.2f} %" for word in ("otherwise", "differ")]
            rows.append([loader, *(str(count[one]) for one in ("scenarios", "steps", "refused", "undecided")), *agree])
        return rows

    def table(self) -> list[list[str]]:
        """Rows of text, the head first."""
        columns = ("scenarios", "steps", "refused", "undecided", "differ")
        pairs = sorted({key[:2] for key in self.counts if self._tabled(key[0])})
        rows = [[*pair, *(str(self.counts[*pair, word]) for word in columns)] for pair in pairs]
        of = {word: [key for key in self.counts if key[2] == word and self._tabled(key[0])] for word in columns}
        total = [sum(self.counts[key] for key in of[word]) for word in columns]
        return [["loader", "family", *columns], *rows, ["all", "", *map(str, total)]]


def _libraries(loader: str, root: Path, paths: list[str], tally: Tally) -> list[libraries.Outcome]:
    work = Path("/tmp/dlwhy-agreement")
    words = real.rtld_words(root)
    outcomes = [libraries.compare(root, path, work, words) for path in paths]
    for each in outcomes:
        if each.difference:
            tally.tell(f"{loader} {each.path}:", each.difference, each.explained or "NOT EXPLAINED")
    return outcomes


def library_rows(tally: Tally, names: list[str]) -> tuple[list[list[str]], list[str]]:
    """Rows of the libraries of whole systems, and the explained rest."""
    rows = [["loader", "libraries", "loads", "agree", "explained", "undecided", "refused", "of these agree"]]
    rest = []
    here = sorted(libraries.shared_objects(Path("/")))
    for loader, root in roots().items():
        if isinstance(root, str) or (names and loader not in names):
            continue
        groups = [("its own", sorted(libraries.shared_objects(root)))]
        directory = "/tmp/dlwhy-borrowed"
        if root != Path("/"):
            groups.append(("this machine's", libraries.borrowed(root, here, directory)))
        for group, paths in groups:
            outcomes = _libraries(loader, root, paths, tally)
            table = libraries.count(outcomes)
            whole, agree, explained, undecided = table["all"]
            refused, refused_agree = table["refused"][:2]
            rows.append([loader, group, *map(str, (whole, agree, explained, undecided, refused, refused_agree))])
            rest += [f"{loader}: `{Path(each.path).name}`: {each.explained}" for each in outcomes if each.explained]
        if root != Path("/"):
            shutil.rmtree(f"{root}{directory}", ignore_errors=True)
    return rows, rest


def _plain(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def _markdown(rows: list[list[str]]) -> str:
    head, *rest = rows
    lines = [head, ["---"] * len(head), *rest]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(argv: list[str] | None = None) -> int:
    """Run the scenarios and print what came out; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="agreement", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="a fresh one, printed, without")
    parser.add_argument("--scenarios", type=int, default=300, help="of each family")
    parser.add_argument("--family", choices=sorted({*FAMILIES, *musl.FITTING}), action="append", default=[])
    parser.add_argument("--loader", action="append", default=[])
    parser.add_argument(
        "--machine",
        choices=[*sorted(TARGETS), *MUSL],
        action="append",
        default=[],
        help="by Debian's name; musl stands for that C library on amd64, musl-arm64 on another",
    )
    parser.add_argument("--only", type=int, default=None, help="one scenario by number, its files kept")
    parser.add_argument("--show", type=int, default=40, help="differences printed")
    parser.add_argument("--libraries", action="store_true", help="the shared objects of whole systems too")
    parser.add_argument("--packages", action="store_true", help="the files of packages in their own programs too")
    parser.add_argument("--package", action="append", default=[], help="only these rows of --packages")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/agreement.md")
    arguments = parser.parse_args(argv)
    seed = arguments.seed if arguments.seed is not None else secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    tally = Tally(arguments.show)
    not_run: list[str] = []
    machines = arguments.machine or ["amd64"]
    for debian in machines:
        if debian not in MUSL:
            not_run += _scenarios(debian, seed, arguments, tally)
    heard = Tally(arguments.show, catalogue.MUSL)
    for word in (one for one in machines if one in MUSL):
        not_run += _musl(MUSL[word], seed, arguments, heard)
    if heard.counts:
        print(_plain(heard.table()), _plain(heard.rows()), sep="\n")
    if tally.counts:
        print(_plain(tally.table()), _plain(tally.foreign()), *sorted(set(not_run)), sep="\n")
        print(_plain(tally.rows()))
    rows, rest = library_rows(tally, arguments.loader) if arguments.libraries else ([], [])
    if rows:
        print(_plain(rows), *rest, sep="\n")
    measured = _measured(seed, tally, sorted(set(not_run)), machines) if tally.counts else {}
    if rows:
        measured["Libraries of whole systems"] = "\n\n".join((_markdown(rows), _bullets(rest)))
    if heard.counts:
        measured["musl"] = _measured_musl(seed, heard, [MUSL[one] for one in machines if one in MUSL])
    if arguments.packages:
        measured["Packages in the programs that load them"] = package_rows(tally, arguments.package)
    if arguments.write:
        _write(measured)
    return 1 if tally.differences + heard.differences > len(rest) else 0


def _scenarios(debian: str, seed: int, arguments: argparse.Namespace, tally: Tally) -> list[str]:
    """Run the scenarios of one machine; what could not be run."""
    have = roots(debian)
    not_run = [f"{loader}: {root}" for loader, root in have.items() if isinstance(root, str)]
    wanted = arguments.loader or list(have)
    chosen_roots = {name: root for name, root in have.items() if isinstance(root, Path) and name in wanted}
    if not chosen_roots:
        return not_run
    made = workshop(debian)
    for family in arguments.family or sorted(FAMILIES):
        count = arguments.scenarios * TIMES.get(family, 1)
        numbers = [arguments.only] if arguments.only is not None else range(count)
        chosen = [scenario(seed, number, family) for number in numbers]
        chosen = built(made, chosen)
        for loader, root in chosen_roots.items():
            words = real.rtld_words(root)
            for each in chosen:
                tally.add(loader, family, one(each, root, made, words, keep=arguments.only is not None))
    return not_run


def _musl(debian: str, seed: int, arguments: argparse.Namespace, tally: Tally) -> list[str]:
    """Run the scenarios that fit musl under the musl of every suite of a machine; what could not be run."""
    have = musl.roots(debian)
    wanted = arguments.loader or list(have)
    chosen_roots = {name: root for name, root in have.items() if isinstance(root, Path) and name in wanted}
    if chosen_roots:
        made = musl.workshop(debian)
        for family in arguments.family or musl.FITTING:
            numbers = [arguments.only] if arguments.only is not None else range(arguments.scenarios)
            chosen = [one for one in (musl.make(seed, number, family, debian) for number in numbers) if musl.fits(one)]
            for each in built(made, chosen):
                for loader, root in chosen_roots.items():
                    tally.add(loader, family, musl.one(each, root, made, keep=arguments.only is not None))
    return [f"{loader}: {root}" for loader, root in have.items() if isinstance(root, str)]


def _measured_musl(seed: int, tally: Tally, machines: list[str]) -> str:
    """What stands below musl's heading."""
    releases = ", ".join(
        f"{name}: {musl.release(root)}"
        for debian in machines
        for name, root in musl.roots(debian).items()
        if isinstance(root, Path)
    )
    head = f"{dt.datetime.now(tz=dt.UTC).date()}, seed {seed}; {releases}."
    return "\n\n".join((head, _markdown(tally.table()), _markdown(tally.rows()), _bullets(tally.seldom())))


def package_rows(tally: Tally, names: list[str]) -> str:
    """The files of packages in three hosts each, as the page has them."""
    root, why = packages.packages_root(packages.GROUPS)
    if root is None:
        print(why)
        return f"Not run: {why}"
    groups = [one for one in packages.GROUPS if not names or one.name in names]
    runs = []
    for each in packages.campaign(groups, root):
        runs.append(each)
        if each.verdict == "differs":
            tally.tell(f"{each.group} {each.file} in {each.host} by {each.way}:", each.words)
    rows, causes = packages.table(groups, runs, root), packages.causes(runs)
    print(_plain(rows), *causes, sep="\n")
    about = f"{dt.datetime.now(tz=dt.UTC).date()}; glibc {release(root)}. Versions: {packages.taken(groups, root)}."
    return "\n\n".join((about, _markdown(rows), _bullets(causes)))


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {one}" for one in lines)


def _short(difference: str) -> str:
    """A difference as a line of the page: what is said of paths is the same for all."""
    return re.sub(r"/tmp/dlwhy-oracle/[^/' ]*/", "", difference).replace("|", "/")[:300]


def _measured(seed: int, tally: Tally, not_run: list[str], machines: list[str]) -> dict[str, str]:
    """Heading -> what stands below it; the first has none."""
    result = _measured_here(seed, tally, not_run) if "amd64" in machines else {}
    others = [one for one in machines if one != "amd64"]
    if others:
        made = ", ".join(
            f"{name}: glibc {release(root)}"
            for one in others for name, root in roots(one).items() if isinstance(root, Path)
        )  # fmt: skip
        rest = [f"Not run: {one}" for one in not_run if one.partition(" ")[0] in {TARGETS[o].name for o in others}]
        head = f"{dt.datetime.now(tz=dt.UTC).date()}, seed {seed}; {made}."
        parts = (head, _markdown(tally.foreign()), _bullets(tally.told), *rest)
        result["Other machines"] = "\n\n".join(part for part in parts if part)
    return result


def _measured_here(seed: int, tally: Tally, not_run: list[str]) -> dict[str, str]:
    loaders = ", ".join(f"{name}: glibc {release(root)}" for name, root in roots().items() if isinstance(root, Path))
    head = f"{dt.datetime.now(tz=dt.UTC).date()}, seed {seed}; {loaders}."
    first = [head, _markdown(tally.table()), *(f"Not run: {one}" for one in not_run)]
    said = "\n\n".join((_markdown(tally.rows()), _bullets(tally.seldom())))
    return {"": "\n\n".join(first), "What the loaders were heard to say": said}


def _write(measured: dict[str, str]) -> None:
    text = PAGE.read_text("utf-8")
    head, tail = text.split(BEGIN)[0], text.split(END)[1]
    first, *more = re.split(r"(?m)^### (.*)$", text.split(BEGIN)[1].split(END)[0])
    sections = {"": first, **dict(zip(more[::2], more[1::2], strict=True))} | measured
    parts = [f"### {title}\n\n{body.strip()}" if title else body.strip() for title, body in sections.items()]
    PAGE.write_text(f"{head}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{tail}", "utf-8")


if __name__ == "__main__":
    sys.exit(main())
