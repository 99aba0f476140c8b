"""One file's answer of `dlwhy tls`, compared piece by piece with what other tools say of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from tests.attribute import real_evidence as evidence
from tests.attribute.access_oracle import compare

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from dlwhy.report_tls import TlsFile, TlsObject, Trigger
    from tests.attribute.real_evidence import Function

NAMED = 100
"""Functions that a report names; of more only the number is compared, and that those are among them."""
NOTHING = "code that nothing names"
"""How accesses are told where no table has a function."""


class Checked(NamedTuple):
    """What was said of a file and agreed, in the words of the table."""

    size: int
    bulk: str
    trigger: str
    functions: str
    path: str
    compared: str
    """The tools."""


def asked(path: Path, map_: str) -> TlsFile:
    """Return the answer for one file; its sum must be right."""
    (found,) = dlwhy.tls([str(path)], map=str(path.parent / map_) if map_ else None).files
    assert found.error is None
    if found.tls is not None:
        bill = found.tls
        assert sum(one.bytes for one in bill.shares) + bill.padding + bill.unattributed == bill.size
    return found


def sizes(found: TlsFile, path: Path) -> int:
    """Compare the segment's size, and of a file with symbols the name of the largest variable."""
    size = evidence.memsz(path)
    assert (found.tls.size if found.tls else 0) == size
    if found.tls is None:
        return size
    names, most = evidence.largest(path)
    if most and evidence.has_symbols(path):
        share = next(one for one in found.tls.shares if one.variable)
        assert share.bytes >= most
        assert any(_tail(share.variable) in name for name in names), (share, names)
    return size


def _tail(name: str | None) -> str:
    """The last part of a variable's name, which all demanglers write alike."""
    return (name or "").rpartition("::")[2]


def triggers(found: TlsFile, path: Path) -> tuple[str, ...]:
    """Compare each initial-exec variable: relocations, accesses and functions. Returns the tools that were asked."""
    slots = evidence.slots(path)
    by_target: dict[tuple[int | None, str | None], list[int]] = {}
    for address, slot in slots.items():
        by_target.setdefault((slot.offset, None if slot.offset is not None else slot.symbol), []).append(address)
    told = {(one.offset, None if one.own else one.variable): one for one in found.triggers}
    assert len(told) == len(found.triggers)
    assert told.keys() == by_target.keys()
    for key, one in told.items():
        assert one.relocations == len(by_target[key])
    compared = compare(str(path))
    assert compared is not None
    assert compared.ours == compared.theirs
    if not told:
        return ("readelf -l, -r, -s", "objdump -d")
    functions = evidence.Functions(path)
    users: dict[int, list[Function]] = {}
    for address, place in compared.theirs:
        if place in slots:
            users.setdefault(place, []).append(functions.at(address))
    go = evidence.go_functions(path) if any(user.kind == "go" for one in told.values() for user in one.users) else None
    names = evidence.readable({name for some in users.values() for one in some for name in one.names})
    for key, one in told.items():
        of = [user for address in by_target[key] for user in users.get(address, [])]
        assert one.accesses == len(of)
        _functions(one, of, names, go)
    return ("readelf -l, -r, -s, -wf", "objdump -d") + (("go tool nm",) if go is not None else ())


def _functions(one: Trigger, of: list[Function], names: dict[str, str], go: set[str] | None) -> None:
    """Compare the functions of one variable, each by any of its names.

    Of what Go's own table names every name must be one that go knows: `readelf -s` may have none of them.
    """
    ours = {name.partition(" (perhaps ")[0] for name in one.functions}
    if go is not None:
        assert {name.removesuffix(".abi0") for name in ours} <= go, {n.removesuffix(".abi0") for n in ours} - go
        return
    theirs = {
        user: {names[name] for name in user.names} or {f"function at {user.start:#x}" if user.start >= 0 else NOTHING}
        for user in of
    }
    assert one.functions_total == len(theirs)
    every = set().union(*theirs.values())
    assert ours <= every, ours - every
    missing = [user for user, called in theirs.items() if not called & ours]
    assert (len(one.functions) >= NAMED - NAMED // 4 and one.functions_total > NAMED) or not missing, missing


def way(bill: TlsObject, expected: tuple[str, ...]) -> None:
    """Assert that one of the ways begins with what another tool says; wheels write "_" for "-"."""
    ways = [tuple(part.replace("_", "-") for part in one.path) for one in bill.provenance]
    wanted = tuple(part.replace("_", "-") for part in expected)
    assert any(one[: len(wanted)] == wanted for one in ways), (ways, wanted)


def row(found: TlsFile, size: int, functions: tuple[str, ...], path: tuple[str, ...], tools: Iterable[str]) -> Checked:
    """Return the words for an answer that agreed."""
    bulk = found.tls.owners[0] if found.tls and found.tls.owners else None
    told = f"{bulk.owner}: {bulk.variable or 'several'}, {bulk.bytes:,}" if bulk else "unnamed"
    if bulk and found.tls and found.tls.unattributed > bulk.bytes:
        told = f"unnamed; {told}"
    forced = ""
    if found.triggers:
        number = sum(one.accesses or 0 for one in found.triggers)
        variables = len(found.triggers)
        owners = list(dict.fromkeys(one.owner for one in found.triggers))
        listed = ", ".join(owners[:2]) + (f" and {len(owners) - 2} more" if len(owners) > 2 else "")
        forced = f"{listed}: {number:,} access{'es' * (number != 1)}"
        forced += f" of {variables:,} variables" if variables > 1 else ""
    total = sum(one.functions_total or 0 for one in found.triggers)
    shown = f"{total:,}" + (f": {', '.join(functions)}" if functions else "") if found.triggers else ""
    return Checked(size, told if size else "", forced or "nobody", shown, " → ".join(path), ", ".join(tools))
