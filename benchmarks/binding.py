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
from benchmarks.corpus import collect
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


def by_loader(text: str) -> Lacking:
    """Return what the loader's own list says, standard output and error of `ldd -r` in one."""
    symbols = frozenset((name, version or None, whose) for name, version, whose in _SYMBOL.findall(text))
    return Lacking(symbols, frozenset(_VERSION.findall(text)), frozenset(_ABSENT.findall(text)))


def by_dlwhy(report: dlwhy.UnresolvedReport) -> Lacking:
    """Return what dlwhy says."""
    found = report.unresolved
    symbols = frozenset((one.symbol, one.version, one.object) for one in found if one.symbol is not None)
    versions = frozenset((one.file or "", one.version or "", one.object) for one in found if one.symbol is None)
    return Lacking(symbols, versions, frozenset(report.missing))


def rows(paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the lines for the directory and for the program."""
    ldd = shutil.which("ldd")
    if ldd is None:
        lacking = ("ldd is not installed",)
        return [Row("binding.directory", MANY, "", "", None, lacking), Row("binding.program", ONE, "", "", None, lacking)]
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
        return elf.type == ET_DYN and elf.dynamic is not None
    except DlwhyError:
        return False
    finally:
        files.close()


def listed(ldd: str, path: str) -> str:
    """Return all that `ldd -r` writes."""
    done = subprocess.run([ldd, "-r", path], env=environment(), capture_output=True, check=False)
    return (done.stdout + b"\n" + done.stderr).decode("utf-8", "surrogateescape")


def contradictions(ldd: str, paths: Sequence[str]) -> list[str]:
    """Return what the two do not agree on, one line a file."""
    lines = []
    for report in dlwhy.unresolved(paths, env=environment()):
        ours, theirs = by_dlwhy(report), by_loader(listed(ldd, report.path))
        if report.error is not None or report.because is not None or ours != theirs:
            told = report.error or report.because or f"ours {_few(ours, theirs)}, theirs {_few(theirs, ours)}"
            lines.append(f"no ratio, {report.path}: {told}")
    return lines


def _few(one: Lacking, other: Lacking) -> str:
    alone = [repr(item) for mine, its in zip(one, other, strict=True) for item in sorted(mine - its, key=repr)]  # type: ignore[operator]
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
            turns = [
                lambda: ours.append(run((sys.executable, command, "unresolved", "-q", *paths), env, statuses)),
                lambda: theirs.append(sum(run((ldd, "-r", path), env, (0, 1)) for path in paths)),
            ]
            random.shuffle(turns)
            for turn in turns:
                turn()
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
