"""Facts: header, program headers, dynamic section and versions of every file, against pyelftools and LIEF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import lief_reader, own, pyelftools_reader
from benchmarks.agree import compare
from benchmarks.measure import Row, milliseconds, reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from benchmarks.own import Reader

WHAT = "header, segments, dynamic section, versions"


def rows(paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return a line for each peer."""
    peers = {"pyelftools": pyelftools_reader.pyelftools_facts, "LIEF": lief_reader.lief_facts}
    return against("facts", WHAT, own.own_facts, peers, paths, rounds)


def against(
    budget: str, what: str, ours: Reader, peers: Mapping[str, Reader], paths: tuple[str, ...], rounds: int
) -> list[Row]:
    """Return a line for each peer: the time of both over the files of which both returned equal facts."""
    result = []
    for name, theirs in peers.items():
        agreed = compare(ours, theirs, paths)
        notes = [f"{name} left out: {line}" for line in agreed.excused]
        if agreed.unequal or not agreed.equal:
            notes += [f"{name} no ratio, facts differ: {line}" for line in agreed.unequal or ("no file was read",)]
            result.append(Row(f"{budget}.{name}", what, "", name, None, tuple(notes)))
            continue
        taken = reading({"dlwhy": ours, name: theirs}, agreed.equal, rounds)
        figures = [f"{seconds / len(agreed.equal) * 1e6:.0f} µs a file" for seconds in (taken["dlwhy"], taken[name])]
        result.append(Row(
            f"{budget}.{name}", f"{what}: {len(agreed.equal)} files", f"{figures[0]} ({milliseconds(taken['dlwhy'])})",
            f"{name} {figures[1]} ({milliseconds(taken[name])})", taken[name] / taken["dlwhy"], tuple(notes),
        ))  # fmt: skip
    return result
