"""Files that remember what was asked of them: ranges of bytes, and the directories on the way to a name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dlwhy import recording
from dlwhy.errors import FilesError
from dlwhy.recording import FIRST, RecordedFiles, Tree, united

if TYPE_CHECKING:
    from pathlib import Path


def test_ranges_are_united() -> None:
    """Ranges that touch, overlap or nearly touch become one."""
    assert united([(50, 60), (0, 10), (10, 20), (15, 18), (24, 30)], 4) == [(0, 30), (50, 60)]
    assert united([], 4) == []


def test_reads_are_remembered(tmp_path: Path) -> None:
    """Each way to read leaves its range, up to the end of the file."""
    (tmp_path / "f").write_bytes(bytes(100_000))
    files = RecordedFiles(str(tmp_path))
    view = files.open("/f")
    view.read(50_000, 8)
    view.some(99_990, 50)
    view.some(200_000, 5)
    buffer = bytearray(4)
    view.read_into(buffer, 70_000)
    (record,) = files.opened["/f"]
    assert set(record.ranges) == {(0, FIRST), (50_000, 50_008), (99_990, 100_000), (70_000, 70_004)}


def test_marks_are_remembered(tmp_path: Path) -> None:
    """Of a segment that is looked through, the places of the mark are kept, or the whole where that is wanted."""
    (tmp_path / "f").write_bytes(bytes(10_000) + b"mark" + bytes(10_000))
    files = RecordedFiles(str(tmp_path))
    view = files.open("/f")
    assert view.around(b"mark", 5000, 10_000) == [bytes(5000) + b"mark" + bytes(4996)]
    view.around(b"none", 0, 20_000)
    (record,) = files.opened["/f"]
    assert record.marks == {b"mark", b"none"}
    ((start, end),) = record.ranges[1:]
    assert start <= 10_000 - 1024
    assert end >= 10_004 + 1024
    view.around(b"mark", 5000, 10_000, whole=True)
    assert record.ranges[-1] == (5000, 15_000)


def test_what_does_not_open_is_remembered(tmp_path: Path) -> None:
    """A name that leads nowhere is told by its directory; the directories on the way are all there."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/l").symlink_to("b")
    files = RecordedFiles(str(tmp_path))
    with pytest.raises(FilesError):
        files.open("/a/l/none.so")
    files.note("/elsewhere/x")
    files.note("nul\0byte")
    tree, same = files.tree()
    assert set(tree) == {"/", "/a", "/a/b"}
    assert tree["/a"] == {"complete": True, "directory": ["b"], "link": {"l": "b"}}
    assert same == []


def test_kinds_and_names_of_one_file(tmp_path: Path) -> None:
    """Each kind of name is told, and which names are one file."""
    for name in ("plain", "tool", "s"):
        (tmp_path / name).touch()
    (tmp_path / "tool").chmod(0o755)
    (tmp_path / "s").chmod(0o4755)
    os.link(tmp_path / "plain", tmp_path / "other")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to("round")
    tree = Tree(str(tmp_path))
    assert tree.follow("/plain") == ("/plain", "file")
    assert tree.follow("/round") is None
    assert tree.follow("/plain/x") is None
    rows, same = tree.written()
    assert rows["/"] == {
        "complete": True, "file": ["other", "plain"], "program": ["tool"], "set-user-ID": ["s"], "other": ["pipe"],
        "link": {"round": "round"},
    }  # fmt: skip
    assert same == [["/other", "/plain"]]


def test_of_a_large_directory_only_what_was_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory with very many names is told in part, and says so."""
    for number in range(8):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(recording, "_MOST_NAMES", 5)
    tree = Tree(str(tmp_path))
    tree.note("/3")
    tree.note("/9")
    assert tree.written()[0]["/"] == {"complete": False, "file": ["3"]}


def test_the_kernel_is_asked_for_little(tmp_path: Path) -> None:
    """Of /proc/cpuinfo and /proc/meminfo only the lines are kept that a check looks at."""
    files = RecordedFiles(str(tmp_path))
    assert b"MemTotal" in files.told("/proc/meminfo")
    files.told("/proc/cpuinfo")

    def keys(path: str) -> set[str]:
        return {line.partition(":")[0].strip() for line in files.kernel[path].splitlines()}

    assert keys("/proc/meminfo") == {"MemTotal", "SwapTotal"}
    assert keys("/proc/cpuinfo") <= {"vendor_id", "flags"}
