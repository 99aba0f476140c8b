"""Binding: what references find nothing, in every library of the system's directory and in one program of many objects.

`ldd -r` has the real loader bind each load set, and tells what it did not find; dlwhy must tell the same, set by set.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from benchmarks.measure import PLAIN, Row, environment, milliseconds, run, running, script
from dlwhy.elf.constants import ET_DYN
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ENOUGH = 250
"""Objects that the program must have."""
MANY = "unresolved symbols and versions of every library"
ONE = "unresolved symbols and versions of a program"

_SYMBOL = re.compile(r"(?m)^undefined symbol: (.*?)(?:, version (.*?))?\t\((.*)\)$")
_VERSION = re.compile(r"(?m)^.*?: ([^:\n]*): version `(.*?)' not found \(required by (.*)\)$")
_ABSENT = re.compile(r"(?m)^\t(.*) => not found$")


class Lacking(NamedTuple):
    """What a load set lacks: the same sets by whoever tells them."""

    symbols: frozenset[tuple[str, str | None, str]]
    """(symbol, version, who refers to it)."""
    versions: frozenset[tuple[str, str, str]]
    """(path of the file, version, who needs it)."""
    absent: frozenset[str]
    """Names of files that are not found."""


def by_dlwhy(report: dlwhy.UnresolvedReport) -> Lacking:
    """Return what dlwhy says; versions of files that are not found are left out, as `by_loader` has to."""
    found, absent = report.unresolved, frozenset(report.missing)
    symbols = frozenset(
        (one.symbol, None if one.file in absent else one.version, one.object)
        for one in found if one.symbol is not None
    )  # fmt: skip
    versions = frozenset((one.file or "", one.version or "", one.object) for one in found if one.symbol is None)
    return Lacking(symbols, versions, absent)


def by_loader(text: str, report: dlwhy.UnresolvedReport) -> Lacking:
    """Return what the loader's own list says, standard output and error of `ldd -r` in one.

    The loader keeps no room for versions of files that it does not find (elf/dl-version.c, _dl_check_map_versions,
    ndx_high): it takes such symbols for ones without a version, and even finds some elsewhere. Which these are the
    report says; they count as told, without their versions.
    """
    absent = set(report.missing)
    forgotten = {(one.symbol, one.object) for one in report.unresolved if one.symbol and one.file in absent}
    symbols: frozenset[tuple[str, str | None, str]] = frozenset(
        (name, version or None, whose)
        for name, version, whose in _SYMBOL.findall(text) if (name, whose) not in forgotten
    ) | {(name, None, whose) for name, whose in forgotten}  # fmt: skip
    return Lacking(symbols, frozenset(_VERSION.findall(text)), frozenset(_ABSENT.findall(text)))


def rows(paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the lines for the directory and for the program."""
    ldd = shutil.which("ldd")
    if ldd is None:
        lacking = ("ldd is not installed",)
        each = (("binding.directory", MANY), ("binding.program", ONE))
        return [Row(budget, what, "", "", None, lacking) for budget, what in each]
    chosen = libraries(paths)
    return [directory(ldd, chosen, rounds), program(ldd, chosen, rounds)]


def libraries(paths: Iterable[str]) -> list[str]:
    """Return the shared objects of the largest library directory among the corpus, and below it."""
    shared = [path for path in paths if ".so" in path.rpartition("/")[2]]
    roots = ["/usr/lib/" + path.split("/")[3] for path in shared if re.match(r"/usr/lib/[^/]*-linux-gnu/", path)]
    root = max(set(roots), key=roots.count) if roots else "/"
    return [path for path in shared if path.startswith(root.rstrip("/") + "/") and _is_shared(path)]


def _is_shared(path: str) -> bool:
    files = Files()
    try:
        elf = Elf(files.open(path))
        shared = elf.type == ET_DYN and elf.dynamic is not None
    except DlwhyError:
        shared = False
    files.close()
    return shared


def listed(ldd: str, path: str) -> str:
    """Return all that `ldd -r` writes."""
    done = subprocess.run([ldd, "-r", path], env=environment(), capture_output=True, check=False)
    return (done.stdout + b"\n" + done.stderr).decode("utf-8", "surrogateescape")


def contradictions(ldd: str, paths: Sequence[str]) -> list[str]:
    """Return what the two do not agree on, one line a file."""
    lines = []
    for report in dlwhy.unresolved(paths, env=environment()):
        ours, theirs = by_dlwhy(report), by_loader(listed(ldd, report.path), report)
        if report.error is not None or report.because is not None or ours != theirs:
            told = report.error or report.because or f"ours {_few(ours, theirs)}, theirs {_few(theirs, ours)}"
            lines.append(f"no ratio, {report.path}: {told}")
    return lines


def _few(one: Lacking, other: Lacking) -> str:
    alone = [repr(item) for mine, its in zip(one, other, strict=True) for item in sorted(mine - its, key=repr)]
    return ", ".join(alone[:3]) or "nothing more"


def directory(ldd: str, paths: Sequence[str], rounds: int) -> Row:
    """Return the line for the directory: one process of dlwhy for all files against one of `ldd -r` for each."""
    what = f"{MANY}: {len(paths)} libraries"
    if not paths:
        return Row("binding.directory", what, "", "", None, ("no library was found",))
    different = contradictions(ldd, paths)
    if different:
        return Row("binding.directory", what, "", "ldd -r", None, tuple(different[:10]))
    env, statuses = environment(), (0, 10)
    ours: list[float] = []
    theirs: list[float] = []
    with script(PLAIN) as command:
        for _ in range(rounds):
            for turn in random.sample(("dlwhy", "ldd"), 2):
                if turn == "ldd":
                    theirs.append(sum(run((ldd, "-r", path), env, (0, 1)) for path in paths))
                else:
                    ours.append(run((sys.executable, command, "unresolved", "-q", *paths), env, statuses))
    mine, its = statistics.median(ours), statistics.median(theirs)
    each = f"{1000 * mine / len(paths):.2f} ms a library ({milliseconds(mine)})"
    return Row(
        "binding.directory", what, each, f"ldd -r {1000 * its / len(paths):.2f} ms a library ({milliseconds(its)})",
        its / mine,
    )  # fmt: skip


def program(ldd: str, paths: Sequence[str], rounds: int) -> Row:
    """Return the line for a program of many objects, linked for this out of the libraries that are here."""
    with tempfile.TemporaryDirectory() as scratch:
        made = linked(paths, Path(scratch))
        if isinstance(made, str):
            return Row("binding.program", ONE, "", "", None, (made,))
        path = str(made)
        (report,) = dlwhy.unresolved([path], env=environment())
        what = f"{ONE}: {len(report.loaded)} objects"
        different = contradictions(ldd, [path])
        if different or len(report.loaded) < ENOUGH:
            why = different or [f"the program has {len(report.loaded)} objects, and {ENOUGH} are wanted"]
            return Row("binding.program", what, "", "ldd -r", None, tuple(why))
        with script(PLAIN) as command:
            commands = {"dlwhy": (sys.executable, command, "unresolved", path), "ldd": (ldd, "-r", path)}
            taken = running(commands, 2 * rounds, environment(), (0, 1, 10))
    return Row(
        "binding.program", what, milliseconds(taken["dlwhy"]), f"ldd -r {milliseconds(taken['ldd'])}",
        taken["dlwhy"] / taken["ldd"],
    )  # fmt: skip


def linked(paths: Sequence[str], scratch: Path) -> Path | str:
    """Link a program that needs all libraries which the loader finds by their names; why not, if it cannot be done."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return "gcc is not installed"
    named: dict[str, str] = {}
    files = Files()
    for path in paths:
        dynamic = Elf(files.open(path)).dynamic
        soname = dynamic.soname if dynamic is not None else None
        if soname and os.path.realpath(f"{os.path.dirname(path)}/{soname}") == path:
            named.setdefault(soname, f"{os.path.dirname(path)}/{soname}")
    files.close()
    found = {one.path for one in dlwhy.unresolved(list(named.values()), env=environment()) if not one.missing}
    chosen = [path for path in named.values() if path in found and _default(path)][: 2 * ENOUGH]
    (scratch / "main.c").write_text("int main(void) { return 0; }\n", "utf-8")
    made = scratch / "many"
    command = [gcc, "-o", str(made), str(scratch / "main.c"), "-Wl,--no-as-needed,--unresolved-symbols=ignore-all"]
    done = subprocess.run([*command, *chosen], capture_output=True, text=True, check=False)
    return made if done.returncode == 0 else f"gcc does not link it: {done.stderr.strip().splitlines()[-1]}"


def _default(path: str) -> bool:
    """Whether the loader finds the library by its name alone."""
    return bool(re.fullmatch(r"/usr/lib/[^/]*-linux-gnu/[^/]*", path))
