"""Overlay: whose file a path means when a directory of this machine stands in another system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlwhy.errors import FilesError
from dlwhy.files import Files
from dlwhy.overlay import Overlay

DEFAULTS = frozenset(("/lib", "/usr/lib"))


def put(root: Path, **files: str) -> Path:
    """Write files below a directory, `__` standing for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory of this machine with a file, its neighbour, and a bundle beside the directory."""
    return put(tmp_path / "here", pkg__x="file", pkg__beside="neighbour", libs__bundled="bundle", other__y="else")


def overlay(tmp_path: Path, *paths: str, **files: str) -> Overlay:
    """A system with these files, and these paths of this machine examined in it."""
    made = Overlay(Files(str(put(tmp_path / "root", etc__system="system", **files))), Files(), DEFAULTS)
    made.examine(*paths)
    return made


def read(files: Files, path: str | Path) -> str:
    """What stands in a file."""
    return files.open(str(path)).head.decode()


def test_the_directory_of_a_file_comes_along(tmp_path: Path, here: Path) -> None:
    """The file, its neighbours, and what is reached from its directory are this machine's; the rest is the system's."""
    made = overlay(tmp_path, f"{here}/pkg/x")
    assert read(made, here / "pkg/x") == "file"
    assert read(made, here / "pkg/beside") == "neighbour"
    assert read(made, f"{here}/pkg/../libs/bundled") == "bundle"
    assert read(made, "/etc/system") == "system"
    with pytest.raises(FilesError, match="No such file"):
        made.open(f"{here}/other/y")


def test_nothing_else_of_this_machine_is_there(tmp_path: Path, here: Path) -> None:
    """A path that both have is the system's, and one that only this machine has is nowhere."""
    made = overlay(tmp_path, f"{here}/pkg/x", bin__sh="the system's")
    assert read(made, "/bin/sh") == "the system's"
    assert not made.exists("/usr/bin/env")


def test_the_system_has_its_own_default_directories(tmp_path: Path) -> None:
    """Of a directory in which the loader looks by default only the examined file itself is this machine's."""
    mine = next(path for path in sorted(Path("/usr/lib").iterdir()) if path.is_file() or path.is_dir())
    made = overlay(tmp_path, f"/usr/lib/{mine.name}", usr__lib__libz="the system's")
    assert made.exists(f"/usr/lib/{mine.name}")
    assert read(made, "/usr/lib/libz") == "the system's"
    assert made.listing("/usr/lib") == ["libz"]


def test_a_link_into_a_default_directory_means_the_systems(tmp_path: Path, here: Path) -> None:
    """A neighbour that is a link into a default directory leads to the system's file of that name."""
    (here / "pkg/libz").symlink_to("/usr/lib/libz")
    made = overlay(tmp_path, f"{here}/pkg/x", usr__lib__libz="the system's")
    assert read(made, here / "pkg/libz") == "the system's"
    assert made.resolve(f"{here}/pkg/libz") == "/usr/lib/libz"


def test_what_stands_above_is_a_directory(tmp_path: Path, here: Path) -> None:
    """The directories above an examined one are there, whatever the system has."""
    made = overlay(tmp_path, f"{here}/pkg/x")
    assert {made.kind(str(here)), made.kind(f"{here}/pkg"), made.kind("/etc")} == {"directory"}
    assert made.kind(f"{here}/libs") is None


def test_the_other_questions_go_to_the_same_place(tmp_path: Path, here: Path) -> None:
    """Modes, links, listings and real places are those of whoever has the file."""
    os.chmod(here / "pkg/x", 0o4755)
    (here / "pkg/link").symlink_to("x")
    made = overlay(tmp_path, f"{here}/pkg/x")
    assert made.executable(f"{here}/pkg/x")
    assert made.set_user_id(f"{here}/pkg/x")
    assert not made.set_user_id("/etc/system")
    assert made.link(f"{here}/pkg/link") == "x"
    assert made.listing(f"{here}/pkg") == ["beside", "link", "x"]
    assert made.real(f"{here}/pkg/x") == f"{here}/pkg/x"
    assert made.real("/etc/system") == f"{tmp_path}/root/etc/system"
    made.close()


def test_the_next_file_takes_its_place(tmp_path: Path, here: Path) -> None:
    """Turning to another file leaves nothing of the one before."""
    made = overlay(tmp_path, f"{here}/pkg/x")
    made.examine(f"{here}/other/y")
    assert read(made, here / "other/y") == "else"
    assert not made.exists(f"{here}/pkg/x")
    made.examine()
    assert not made.exists(f"{here}/other/y")
