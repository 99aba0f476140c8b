"""`check --on` from the command line: formats, files beside, exit status, words that cannot be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

import dlwhy as library
from dlwhy.render import json_v1
from tests.cli.run import dlwhy
from tests.fixtures.system import Others, build_others

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Systems of several releases, and files outside of them."""
    return build_others(tmp_path_factory.mktemp("others"))


def test_it_is_what_the_library_says(others: Others) -> None:
    """The JSON of the command is that of the library's report, and the status that of the worst cell."""
    systems = [f"sysroot:{others.newer}", f"sysroot:{others.older}"]
    done = dlwhy("check", others.work / "pkg", "--on", ",".join(systems), "--format", "json")
    assert (done.status, done.err) == (10, "")
    assert done.out == json_v1.render(library.on([others.work / "pkg"], systems))


@pytest.mark.parametrize(
    ("name", "system", "status"),
    [
        ("inner/plugin.so", "newer", 0),
        ("libgood.so", "older", 10),
        ("libgood.so", "empty", 11),
        ("libarm.so", "newer", 11),
    ],
)
def test_status(others: Others, name: str, system: str, status: int) -> None:
    """0 where everything loads, 10 where something does not, 11 where a fact is missing."""
    done = dlwhy("check", others.work / "pkg" / name, "--on", f"sysroot:{getattr(others, system)}")
    assert done.status == status


def test_formats_and_files(others: Others, tmp_path: Path) -> None:
    """One run writes text, Markdown and JSON; --on may be repeated."""
    done = dlwhy(
        "check", others.work / "pkg/libgood.so", "--on", f"sysroot:{others.newer}", "--on", f"sysroot:{others.older}",
        "-o", f"markdown={tmp_path}/m.md", "-o", f"json={tmp_path}/m.json",
    )  # fmt: skip
    assert "loads  fails [1]" in done.out
    assert (
        (tmp_path / "m.md")
        .read_text()
        .startswith("| file | newer (glibc 2.36) | older (glibc 2.31) |\n|---|---|---|\n")
    )
    assert len(json.loads((tmp_path / "m.json").read_text())["rows"]) == 1
    quiet = dlwhy("check", others.work / "pkg/libgood.so", "--on", f"sysroot:{others.older}", "-q").out
    assert "ld.so says" in done.out
    assert "ld.so says" not in quiet


def test_the_environment_stays_here(others: Others) -> None:
    """This machine's LD_LIBRARY_PATH does not reach into another system; one that is given does."""
    (others.older / "extra").mkdir()
    library_there = others.newer / "lib/x86_64-linux-gnu/libdep.so.1"
    (others.older / "extra/libdep.so.1").write_bytes(library_there.read_bytes())
    words: list[str | Path] = ["check", others.work / "pkg/libgood.so", "--on", f"sysroot:{others.older}"]
    assert dlwhy(*words, env={"LD_LIBRARY_PATH": "/extra"}).status == 10
    assert dlwhy(*words, "--env", "LD_LIBRARY_PATH=/extra").status == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--on", "sysroot:/none"], "--on sysroot:/none: no such directory"),
        (["--on", ","], "--on: it names no system"),
        (["--on", "sysroot:/", "--sysroot", "/"], "--on with --sysroot: write --on sysroot:DIR"),
        (["--format", "markdown"], "markdown: only the matrix of check --on is drawn so"),
        (["-o", "markdown=/dev/null"], "markdown: only the matrix of check --on is drawn so"),
    ],
)
def test_what_cannot_be_asked(words: list[str], told: str) -> None:
    """A mistake ends in one sentence and exit status 2."""
    done = dlwhy("check", "libm.so.6", *words)
    assert (done.status, done.out) == (2, "")
    assert done.err == f"dlwhy check: {told}\n"


def test_floors(others: Others) -> None:
    """`floor` says what the library says; a file that cannot be examined ends in 1, nothing in 3."""
    done = dlwhy("floor", others.work / "pkg", "--format", "json")
    assert (done.status, done.err) == (0, "")
    assert done.out == json_v1.render(library.floor([others.work / "pkg"]))
    assert "because of later@GLIBC_2.34 in newer.node" in dlwhy("floor", others.work / "pkg").out
    quiet = dlwhy("floor", others.work / "pkg", "-q").out.splitlines()
    assert quiet[2].endswith("newer.node  needs glibc ≥ 2.34  x86-64")
    assert dlwhy("floor", others.work / "none.so").status == 1
    assert dlwhy("floor").status == 3


def test_nothing_to_examine(tmp_path: Path) -> None:
    """A directory without libraries is nothing to examine."""
    done = dlwhy("check", tmp_path, "--on", "sysroot:/")
    assert (done.status, done.out) == (3, "")
    assert "nothing to examine" in done.err
