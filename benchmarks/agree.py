"""Whether two readers returned equal facts of every file: without that there is no ratio."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from dlwhy.elf.file import Elf
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.own import Reader


class Agreement(NamedTuple):
    """What became of a comparison, file by file."""

    equal: tuple[str, ...]
    """Files of which both readers returned equal facts: only these are timed."""
    excused: tuple[str, ...]
    """One line for each file that the peer cannot read, or that has no facts to agree on, and why."""
    unequal: tuple[str, ...]
    """One line for each file on which the readers contradict one another. Any suppresses the ratio."""


@cache
def compare(ours: Reader, theirs: Reader, paths: tuple[str, ...]) -> Agreement:
    """Read every file with both and compare fact by fact. What is kept of it is which files may be timed, no facts."""
    equal, excused, unequal = [], [], []
    for path in paths:
        try:
            own = ours(path)
        except Exception as error:  # noqa: BLE001 -- a reader that fails on an honest file has lost, whatever it raised
            unequal.append(f"{path}: ours raised {type(error).__name__}: {error}")
            continue
        try:
            peer = theirs(path)
        except Exception as error:  # noqa: BLE001 -- whatever a peer raises is its way to say that it cannot read this
            excused.append(f"{path}: it raised {type(error).__name__}: {_short(error)}")
            continue
        different = [name for name in sorted(own.keys() | peer.keys()) if own.get(name) != peer.get(name)]
        if not different:
            equal.append(path)
            continue
        excuse = excuse_of(path, different, own, peer)
        if excuse is not None:
            excused.append(f"{path}: {excuse}")
        else:
            name = different[0]
            unequal.append(f"{path}: {name}: ours {_short(own.get(name))}, theirs {_short(peer.get(name))}")
    return Agreement(tuple(equal), tuple(excused), tuple(unequal))


def excuse_of(path: str, different: Sequence[str], own: dict[str, Any], peer: dict[str, Any]) -> str | None:
    """Return why readers may differ on a file, or None when one of them is wrong."""
    for why, holds in EXCUSES.items():
        if holds(path, different, own, peer):
            return why
    return None


def _in_debug_file(path: str, different: Sequence[str], _own: dict[str, Any], _peer: dict[str, Any]) -> bool:
    return list(different) == ["interp"] and Elf(Files().open(path)).debug_only


EXCUSES: dict[str, Callable[[str, Sequence[str], dict[str, Any], dict[str, Any]], bool]] = {
    "a separate debug file: what lies where PT_INTERP points is not its interpreter": _in_debug_file,
}
"""Reason -> whether it applies. Each was looked into by hand; none is a fact that a loader or dlwhy's reports use."""


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:160]}..."
