"""What `--on` names: sysroots and profiles, their loaders, and words that name nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.errors import DlwhyError, UsageError
from dlwhy.files import Files
from dlwhy.systems import named
from tests.fixtures.system import Others, build_others

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Systems of several releases."""
    return build_others(tmp_path_factory.mktemp("others"))


def test_a_sysroot(others: Others) -> None:
    """A sysroot is headed by its directory's name and has the machines of the loaders in it."""
    one, two = named([f"sysroot:{others.newer}", f"sysroot:{others.empty}/"], Files())
    assert (one.name, one.machines, two.name, two.machines) == ("newer", ("x86-64",), "empty", ())


def test_names_stay_apart(tmp_path: Path) -> None:
    """Of two directories of one name the second is headed by all that was written; a word twice is one system."""
    for name in ("a/root", "b/root"):
        (tmp_path / name).mkdir(parents=True)
    words = [f"sysroot:{tmp_path}/{name}/root" for name in ("a", "b", "a")]
    assert [one.name for one in named(words, Files())] == ["root", words[1]]


def test_a_loader_of_musl(tmp_path: Path, others: Others) -> None:
    """A system whose only loader is musl's is one of that loader's machine."""
    (tmp_path / "lib").mkdir()
    loader = (others.newer / "lib64/ld-linux-x86-64.so.2").read_bytes()
    (tmp_path / "lib/ld-musl-x86_64.so.1").write_bytes(loader)
    (tmp_path / "lib/ld-musl-broken.so.1").write_bytes(b"no loader")
    (one,) = named([f"sysroot:{tmp_path}"], Files())
    assert one.first.loaders == {(62, 2): "/lib/ld-musl-x86_64.so.1"}


def test_a_system_for_two_machines() -> None:
    """What comes with dlwhy has a tree for each machine, read when a file of that machine is asked about."""
    (one,) = named(["debian12"], Files())
    assert one.machines == ("x86-64", "aarch64")
    assert one.tree((62, 2)) is one.first is one.tree(None) is one.tree((8, 1))
    assert one.trees == (one.first,)
    assert one.tree((183, 2)) is one.tree((183, 2)) is not one.first
    assert one.tree((183, 2)).loaders == {(183, 2): "/lib/ld-linux-aarch64.so.1"}
    assert [tree.machines[0] for tree in named(["all"], Files()) if tree.name == "musl"] == ["x86-64"]
    (alone,) = named(["debian12-aarch64"], Files())
    assert alone.machines == ("aarch64",)


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sysroot:/nowhere", "--on sysroot:/nowhere: no such directory"),
        ("/", "--on /: a directory: write sysroot:/"),
        ("nowhere", "--on nowhere: no such system: "),
    ],
)
def test_words_that_name_nothing(word: str, told: str) -> None:
    """What is no system is said in one sentence, with what to write instead."""
    with pytest.raises(UsageError, match="^" + told):
        named([word], Files())
    with pytest.raises(UsageError, match="names no system"):
        named([], Files())


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    """A damaged profile is told before anything is examined."""
    (tmp_path / "cut.json").write_text('{"format": "dlwhy profile", "schema": 1, "process"')
    with pytest.raises(DlwhyError, match="cut off"):
        named([str(tmp_path / "cut.json")], Files())
