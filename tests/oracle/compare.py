"""One scenario on one loader: place its files, run the real process, ask dlwhy, and say every difference."""

from __future__ import annotations

import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from dlwhy.elf.machine import MACHINES
from dlwhy.loader.processors import MODELS
from tests.oracle import real
from tests.oracle.machines import target_of
from tests.oracle.scenarios import Scenario, placed

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.oracle.build import Workshop

# the line number in an assertion's text: it is that of the release's source, which dlwhy does not keep
_LINE = re.compile(rb"(Inconsistency detected by ld\.so: [^:]+: )\d+(: )")


class Verdict(NamedTuple):
    """What the comparison of one scenario came to."""

    scenario: Scenario
    differences: tuple[str, ...]
    undecided: int
    """Steps (or the start) that dlwhy left open."""
    steps: int
    refused: int
    """Steps that the real loader refused, deaths included."""
    messages: tuple[bytes, ...]
    """The real messages, to count the rows of the catalogue."""
    other_verdict: bool = False
    """Whether an outcome differs, and not only what is said of it."""


def prepare(one: Scenario, root: Path, workshop: Workshop) -> Scenario:
    """Place a scenario's files inside a root; return it with its paths filled in."""
    full = placed(one)
    directory = Path(f"{root}{full.directory}") if root != Path("/") else Path(full.directory)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for plan in full.plans:
        workshop.place(plan, directory)
    Path(f"{root if root != Path('/') else ''}{full.cwd}").mkdir(parents=True, exist_ok=True)
    return full


def clean(one: Scenario, root: Path) -> None:
    """Remove a scenario's files."""
    shutil.rmtree(f"{root}{one.directory}" if root != Path("/") else one.directory, ignore_errors=True)


def environment(one: Scenario) -> dict[str, str]:
    """The whole environment of the process."""
    return {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", **one.env}


def observe(one: Scenario, root: Path, words: tuple[int, int] | None) -> real.RealRun:
    """Run a prepared scenario in the real loader."""
    program = f"{one.directory}/{one.program}" if one.program else None
    return real.run(root, list(one.steps), environment(one), one.cwd, Path(one.directory), words, program)


@contextmanager
def as_here(root: Path) -> Generator[None]:
    """Let dlwhy take pages and the processor to be what programs of a root's machine find here."""
    target = target_of(root)
    key, row = next((key, row) for key, row in MACHINES.items() if row.name == target.name)
    models = MODELS.get(key[0])
    MACHINES[key] = row.but(page=target.page or row.page)
    if target.model is not None:
        MODELS[key[0]] = {"here": target.model}
    try:
        yield
    finally:
        MACHINES[key] = row
        if models is not None:
            MODELS[key[0]] = models


def predict(one: Scenario, root: Path) -> dlwhy.CheckReport:
    """Ask dlwhy of a prepared scenario."""
    env = environment(one)
    host = dlwhy.Host.executable(f"{one.directory}/{one.program}", env) if one.program else dlwhy.Host.plain(env)
    with as_here(root):
        return dlwhy.check(list(one.steps), host, sysroot=None if root == Path("/") else str(root), cwd=one.cwd)


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8", "surrogateescape")


def without_line(stderr: bytes) -> bytes:
    """Return what the loader wrote, the line numbers of assertions as 0."""
    return _LINE.sub(rb"\g<1>0\2", stderr)


def judge(one: Scenario, seen: real.RealRun, said: dlwhy.CheckReport, *, noisy: bool = False) -> Verdict:
    """Compare what was seen with what was said, step by step.

    A `noisy` host or library writes to standard error of its own accord; the loader's notices must be in it.
    """
    wrong: list[str] = []
    undecided = steps = refused = 0
    messages: list[bytes] = []
    start = said.host.startup
    if not seen.started:
        messages.append(seen.stderr)
        steps, refused = 1, 1
        if start.outcome == "undecided" or (start.outcome == "loads" and start.assumptions):
            return Verdict(one, (), 1, 1, 1, tuple(messages))
        expected = b"".join(
            f.message.encode("utf-8", "surrogateescape") + b"\n" for f in said.findings if f.rule == "loader-notice"
        )
        expected += (_bytes(start.message) or b"") + (b"\n" if start.message is not None else b"")
        if start.outcome not in ("fails", "dies"):
            wrong.append(f"start: {start.outcome}, really exit {seen.status}: {seen.stderr!r}")
            other = True
        else:
            other = start.exit_status != seen.status
            if start.exit_status != seen.status:
                wrong.append(f"start: exit status {start.exit_status}, really {seen.status}: {seen.stderr!r}")
            if without_line(seen.stderr) != without_line(expected):
                wrong.append(f"start: {expected!r}, really {seen.stderr!r}")
        return Verdict(one, tuple(wrong), 0, 1, 1, tuple(messages), other)
    if start.outcome == "undecided":
        return Verdict(one, (), 1, 1, 0, ())
    if start.outcome != "loads":
        return Verdict(one, (f"start: {start.outcome} ({start.message!r}), really it starts",), 0, 1, 0, (), True)
    loaded = tuple("" if index == 0 else name for index, name in enumerate(start.loaded))
    if loaded != seen.start_maps:
        wrong.append(f"start: loaded {loaded}, really {seen.start_maps}")
    notices = b"".join(
        f.message.encode("utf-8", "surrogateescape") + b"\n" for f in said.findings if f.rule == "loader-notice"
    )
    left_open = other = False
    for number, (mine, step) in enumerate(zip(said.steps, seen.steps, strict=False), 1):
        steps += 1
        refused += step.outcome != "loads"
        if step.message is not None:
            messages.append(step.message)
        if mine.outcome == "undecided":
            undecided += 1
            left_open = True
            break  # what comes after depends on what is not known
        if mine.outcome == "loads" and mine.assumptions and step.outcome == "dies":
            undecided += 1
            left_open = True
            break
        name = f"step {number} {mine.request}"
        if mine.outcome != step.outcome:
            other = True
            wrong.append(
                f"{name}: {mine.outcome} ({mine.message or mine.because!r}), really {step.outcome}"
                f" ({step.message!r}, {seen.stderr[-300:]!r}, {seen.status})"
            )
            break
        if step.outcome == "dies":
            messages.append(seen.stderr)
            said_last = b"" if mine.message is None else without_line(mine.message.encode() + b"\n")
            written = without_line(seen.stderr)
            if not written.endswith(said_last) if noisy else written != without_line(notices) + said_last:
                wrong.append(f"{name}: dies of {mine.message!r}, really {seen.stderr[-300:]!r}")
            left_open = True
            break
        if _bytes(mine.message) != step.message:
            wrong.append(f"{name}: says {mine.message!r}, really {step.message!r}")
        if mine.loaded != step.loaded:
            wrong.append(f"{name}: loaded {mine.loaded}, really {step.loaded}")
        if set(mine.unloaded) != set(step.unloaded):
            wrong.append(f"{name}: unloaded {mine.unloaded}, really {step.unloaded}")
    else:
        if len(said.steps) != len(seen.steps):
            wrong.append(f"{len(said.steps)} steps, really {len(seen.steps)}: exit {seen.status} {seen.stderr!r}")
    if not left_open and not wrong and seen.tls is not None and said.static_tls is not None:
        block = said.static_tls
        mine_tls = (block.size, block.align, block.used)
        if mine_tls != seen.tls[:3]:
            wrong.append(f"static TLS (size, align, used) {mine_tls}, really {seen.tls[:3]}")
        if block.optional_left is not None and block.optional_left != seen.tls[3]:
            wrong.append(f"static TLS optional {block.optional_left}, really {seen.tls[3]}")
    messages += [seen.stderr] if seen.stderr and not left_open else []
    if not left_open and not wrong and (notices not in seen.stderr if noisy else seen.stderr != notices):
        wrong.append(f"standard error {notices!r}, really {seen.stderr!r}")
    return Verdict(one, tuple(wrong), undecided, steps, refused, tuple(messages), other)
