"""Every shared object of a system, opened from `plain` with `now`, one fresh process each: dlwhy against the loader."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from tests.oracle import real
from tests.oracle.compare import without_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ENV = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
DIRECTORIES = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/gcc")


class Outcome(NamedTuple):
    """What came of one library."""

    path: str
    refused: bool
    """Whether the real loader refused it, or died of it."""
    undecided: str | None
    """The fact that dlwhy missed."""
    difference: str | None
    explained: str | None
    """Why a difference is none of the loader's work."""


def shared_objects(root: Path, directories: Iterable[str] = DIRECTORIES) -> Iterator[str]:
    """The paths, as seen inside the root, of every regular ELF file with ".so" in its name."""
    top = "" if root == Path("/") else str(root)
    for directory in directories:
        for where, below, names in os.walk(top + directory):
            below.sort()
            for name in sorted(names):
                path = f"{where}/{name}"
                if ".so" in name and not os.path.islink(path):
                    with open(path, "rb") as file:
                        if file.read(4) == b"\x7fELF":
                            yield path.removeprefix(top)


def borrowed(root: Path, paths: Iterable[str], directory: str) -> list[str]:
    """Put files of this machine into another root, below `directory`; their paths inside."""
    place = Path(f"{root}{directory}")
    place.mkdir(parents=True, exist_ok=True)
    result = []
    for path in paths:
        target = place / Path(path).name
        if not target.exists():
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)
        result.append(f"{directory}/{target.name}")
    return result


def compare(root: Path, path: str, work: Path, words: tuple[int, int] | None) -> Outcome:
    """Open one library for real and ask dlwhy about it."""
    steps = [f"now:{path}"]
    seen = real.run(root, steps, ENV, "/tmp", work, words)
    said = dlwhy.check(steps, dlwhy.Host.plain(ENV), sysroot=None if root == Path("/") else str(root), cwd="/tmp")
    mine = said.steps[0]
    assert seen.started, seen.stderr
    step = seen.steps[0]
    refused = step.outcome != "loads"
    if mine.outcome == "undecided":
        return Outcome(path, refused, mine.because, None, None)
    message = None if mine.message is None else mine.message.encode("utf-8", "surrogateescape")
    block = said.static_tls
    facts: list[tuple[str, object, object]] = [
        ("outcome", mine.outcome, step.outcome),
        ("message", message, _last_words(message, seen.stderr) if step.outcome == "dies" else step.message),
        ("loaded", mine.loaded, step.loaded),
    ]
    if seen.tls is not None and block is not None:
        facts.append(("static TLS", (block.size, block.align, block.used), seen.tls[:3]))
    wrong = "; ".join(f"{what} {ours!r}, really {theirs!r}" for what, ours, theirs in facts if ours != theirs)
    if not wrong:
        return Outcome(path, refused, None, None, None)
    return Outcome(path, refused, None, wrong, _explanation(root, path, work, mine.outcome, step.outcome))


def _last_words(message: bytes | None, stderr: bytes) -> bytes | None:
    """What a process that died wrote last, as far as it matters: an assertion, its line number aside."""
    if message is None or not stderr.endswith(b"!\n"):
        return message if message is None and not stderr.startswith(b"Inconsistency") else stderr
    return without_line(stderr[-len(message) - 20 :]).strip().rpartition(b"\n")[2]


def _explanation(root: Path, path: str, work: Path, ours: str, theirs: str) -> str | None:
    """Whether the loader had done its work when the process died: then it was running a constructor."""
    if (ours, theirs) != ("loads", "dies"):
        return None
    seen = real.run(root, [f"now:{path}"], {**ENV, "LD_DEBUG": "files"}, "/tmp", work, None)
    initialised = b"calling init: " + os.fsencode(path)
    return "its own constructor ends the process" if initialised in seen.stderr else None


def count(outcomes: list[Outcome]) -> dict[str, tuple[int, int, int, int]]:
    """(all, agreeing, explained, undecided) of "all" and of "refused" loads."""
    table = {}
    for name, chosen in (("all", outcomes), ("refused", [one for one in outcomes if one.refused])):
        undecided = sum(one.undecided is not None for one in chosen)
        explained = sum(one.explained is not None for one in chosen)
        agreeing = sum(one.undecided is None and one.difference is None for one in chosen)
        table[name] = (len(chosen), agreeing, explained, undecided)
    return table
