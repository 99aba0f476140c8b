"""Files that change while dlwhy looks at them: a report or one sentence, whenever it happens, never a traceback.

Every call to the system from the modules that read files is counted, and the change happens behind one of them: for
each number of calls that the undisturbed command makes.
"""

from __future__ import annotations

import errno
import json
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from dlwhy import archives, files, view, walk
from dlwhy.cli.main import main
from tests.elf.images import everything
from tests.elf_writer import Image
from tests.fuzz.seeds import LOADER

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_READERS = (archives, files, view, walk)
_WATCHED = frozenset((
    "open", "fstat", "stat", "pread", "preadv", "close", "readlink", "listdir", "walk", "makedirs", "unlink", "chmod",
))  # fmt: skip


class Disturbed:
    """What these modules take for `os`: the same, but behind the call number `at` the file changes."""

    def __init__(self, at: int, change: Callable[[], object], no_descriptor: bool) -> None:
        self.calls = 0
        self.at = at
        self.change = change
        self.refuse = False
        self.gone = False
        """Whether nothing can be read any more, as of a server that went away."""
        self.no_descriptor = no_descriptor
        """Whether the next file that is opened then finds no descriptor free: what is open is closed, and opened again
        when it is read on."""

    def __getattr__(self, name: str) -> object:
        real = getattr(os, name)
        if name not in _WATCHED:
            return real

        def called(*words: object, **more: object) -> object:
            if name == "open" and self.refuse:
                self.refuse = False
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            if name in ("pread", "preadv") and self.gone:
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
            try:
                return real(*words, **more)
            finally:
                self.calls += 1
                if self.calls == self.at:
                    self.gone = self.change() is False
                    self.refuse = self.no_descriptor

        return called


def _shrinks(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2)


def _is_emptied(path: Path) -> None:
    os.truncate(path, 0)


def _grows(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"\xff" * 5000)


def _vanishes(path: Path) -> None:
    path.unlink()


def _is_overwritten(path: Path) -> None:
    with open(path, "r+b") as file:
        file.seek(64)
        file.write(b"\xff" * (os.path.getsize(path) - 64))


def _is_replaced(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(Image(needed=["libother.so"], data=bytes(300)).build().data)
    new.rename(path)


def _becomes_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _cannot_be_read_any_more(_path: Path) -> bool:
    return False


CHANGES: dict[str, Callable[[Path], object]] = {
    "shrinks": _shrinks, "is emptied": _is_emptied, "grows": _grows, "vanishes": _vanishes,
    "is overwritten": _is_overwritten, "is replaced": _is_replaced, "becomes a directory": _becomes_a_directory,
    "cannot be read any more": _cannot_be_read_any_more,
}  # fmt: skip


def _library(path: Path) -> None:
    """A library that is larger than what is read at once, so that it is read in several pieces."""
    path.write_bytes(everything(needed=[], data=bytes(40_000)).build().data)


def _program(path: Path) -> None:
    """A program that starts."""
    path.write_bytes(Image(type=2, entry=0x100, interp=LOADER, needed=["libc.so.6"], data=bytes(40_000)).build().data)


def _archive(path: Path) -> None:
    data = everything(needed=[]).build().data
    with zipfile.ZipFile(path, "w") as made:
        for number in range(3):
            made.writestr(f"pkg/lib{number}.so", data)


QUESTIONS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "check": ("lib.so", _library, ["check", "FILE"]),
    "check twice": ("lib.so", _library, ["check", "FILE", "close:1", "FILE"]),
    "tls": ("lib.so", _library, ["tls", "FILE"]),
    "tree": ("lib.so", _library, ["tree", "FILE"]),
    "host": ("program", _program, ["check", "libm.so.6", "--host", "FILE"]),
    "dependency": ("lib.so", _library, ["check", "root.so"]),
    "tree of a dependency": ("lib.so", _library, ["tree", "root.so"]),
    "directory": ("dir/lib.so", _library, ["check", "--each", "dir"]),
    "archive": ("dir/lib.whl", _archive, ["check", "--each", "FILE"]),
}
"""What is asked -> the file that changes, how it is made, the command."""


_ENDS, _BETWEEN = 80, 20
"""Calls behind each of which the file changes, at the beginning and at the end; and how many of those between."""


@pytest.mark.slow
@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(("change", "no_descriptor"), [
    *((change, False) for change in CHANGES), *((change, True) for change in ("shrinks", "vanishes", "is replaced")),
])  # fmt: skip
def test_a_file_changes(
    tmp_path: Path, question: str, change: str, no_descriptor: bool, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Behind whichever call it happens: a report with its status, or status 1 and one sentence about some file."""
    name, make, words = QUESTIONS[question]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "root.so").write_bytes(Image(needed=["lib.so"], runpath="$ORIGIN").build().data)
    words = [str(path) if word == "FILE" else word for word in words]
    at, calls = 0, 1
    seen = set()
    while at <= calls:
        if path.is_dir():
            path.rmdir()
        make(path)
        disturbed = Disturbed(at, lambda: CHANGES[change](path), no_descriptor)
        for module in _READERS:
            monkeypatch.setattr(module, "os", disturbed)
        status = main([*words, "--format", "json"])
        monkeypatch.undo()
        monkeypatch.chdir(tmp_path)
        if at == 0:
            calls = disturbed.calls
            assert calls > 3
        said = capsys.readouterr()
        seen.add(status)
        assert "Traceback" not in said.err
        assert status in (0, 1, 3, 10, 11) or (status == 2 and question == "host")  # which then is no program
        documents = [json.loads(line) for line in said.out.splitlines()] if "--each" in words else []
        if "--each" not in words and said.out:
            documents = [json.loads(said.out)]
        if said.err:
            assert status in (1, 2, 3) and said.err.count("\n") == 1 and said.err.startswith(f"dlwhy {words[0]}: ")
        else:
            assert documents and any(one["exit_status"] == status for one in documents)
        # Between the file's own calls lie those that look through the databases of packages, all alike.
        at += max(1, (calls - 2 * _ENDS) // _BETWEEN) if _ENDS < at < calls - _ENDS else 1
    assert seen
