"""Latent danger of files by themselves: big dynamic segments, and what initial-exec ones take of the surplus."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.loader.glibc import FEATURES, default_surplus
from tests.fixtures.libraries import initial_exec, thread_local
from tests.fixtures.registries import wheel

if TYPE_CHECKING:
    from pathlib import Path


def told(path: Path | str) -> list[tuple[str, str]]:
    """Return (rule, message) of what `tls` finds of static TLS."""
    (found,) = dlwhy.tls([path]).files
    return [(one.rule, one.message) for one in found.findings if one.rule in ("big-dynamic-tls", "static-tls-taker")]


def test_the_surplus_is_that_of_the_releases() -> None:
    """All releases set the same number of bytes aside by default, and that is the number which is told."""
    assert default_surplus() == (1664, "2.17 to 2.43")
    assert {row(4, 0, 512) for _, row, _ in FEATURES["surplus"]} == {1664}


@pytest.mark.parametrize(("size", "word"), [
    (100, "no more than 1564 before it"), (1664, "no more than 0 before it"), (1665, "rounded up by 1 bytes or more"),
    (1727, "rounded up by 63 bytes or more"), (1728, "has to be there from the start"),
])  # fmt: skip
def test_initial_exec(tmp_path: Path, size: int, word: str) -> None:
    """A library that forces static TLS is told what others may take, or that it does not fit."""
    ((rule, message),) = told(initial_exec(tmp_path, "x", size))
    assert rule == "static-tls-taker" and word in message and f" {size} " in message


def test_dynamic(tmp_path: Path) -> None:
    """A dynamic segment is told to be too big only when it surely is: the end of the block may be rounded up."""
    assert told(thread_local(tmp_path, "x", 1727, 8)) == []
    ((rule, message),) = told(thread_local(tmp_path, "y", 1728, 8))
    assert rule == "big-dynamic-tls" and "1728 bytes is dynamic" in message


def test_programs_and_the_c_library_are_not_meant() -> None:
    """What starts the process, or starts with it, takes nothing of the surplus."""
    report = dlwhy.check([])
    for path in (report.host.loader, *report.host.startup.loaded[1:]):
        assert path is not None and (told(path) == [] or "libc.so" not in path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("numpy", 2), ("pyarrow", 1)])
def test_wheels(name: str, least: int) -> None:
    """The big segments of numpy, its OpenBLAS and Arrow are dynamic, and each is said to have to stay so."""
    found = {}
    for path in sorted(wheel(name).rglob("*.so*")):
        (one,) = dlwhy.tls([path], code=False).files
        rules = [finding.rule for finding in one.findings]
        if one.tls is not None and "big-dynamic-tls" in rules:
            found[path.name] = one.tls.size
    print(found)
    assert len(found) >= least and all(size > 1664 for size in found.values())
