"""Recording: files that remember what was asked of them, so that a profile holds exactly that.

What a check reads of a file, and which names it looks for, it asks through `Files` and `View`; whoever writes both down
has all that the same check needs on another machine.
"""

from __future__ import annotations

import os
import stat as stat_bits

from dlwhy.errors import FilesError
from dlwhy.files import MAX_LINKS, Files, components
from dlwhy.hosts.kept import DIRECTORY, FILE, OTHER, PROGRAM, SET_USER_ID
from dlwhy.view import MARGIN, FileView

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from dlwhy.view import View

FIRST = 1024
"""Bytes at the start of a file that are always kept: headers, and the first line of a script."""
_MOST_NAMES = 1 << 15
"""Names of one directory that are written down; of a larger one only those that were asked for."""


class RecordedView(FileView):
    """A file that remembers which of its bytes were read."""

    __slots__ = ("marks", "ranges")
    window = 1 << 12

    def __init__(self, path: str, fd: int, reopen: Callable[[FileView], int]) -> None:
        super().__init__(path, fd, reopen)
        self.ranges: list[tuple[int, int]] = [(0, min(FIRST, self.size))]
        """(start, end) of each read."""
        self.marks: set[bytes] = set()
        """What was looked for in whole segments."""

    def read(self, offset: int, size: int) -> bytes:  # noqa: D102 -- as in View
        self._note(offset, size)
        return super().read(offset, size)

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> None:  # noqa: D102 -- as in View
        self._note(offset, len(buffer))
        super().read_into(buffer, offset)

    def some(self, offset: int, size: int) -> bytes:  # noqa: D102 -- as in View
        self._note(offset, size)
        return super().some(offset, size)

    def around(self, mark: bytes, offset: int, size: int, whole: bool = False) -> list[bytes]:  # noqa: D102 -- as in View
        data = super().some(offset, size)
        self.marks.add(mark)
        at = data.find(mark)
        if at >= 0 and whole:
            self._note(offset, size)
        while at >= 0 and not whole:
            self._note(max(offset + at - MARGIN, offset), min(at, MARGIN) + len(mark) + MARGIN)
            at = data.find(mark, at + len(mark))
        return [data]

    def _note(self, offset: int, size: int) -> None:
        start, end = max(offset, 0), min(offset + size, self.size)
        if start < end:
            self.ranges.append((start, end))


class RecordedFiles(Files):
    """The files of this system or a sysroot, with what was asked of them."""

    __slots__ = ("_tree", "kernel", "opened", "refused")

    def __init__(self, root: str = "/") -> None:
        super().__init__(root)
        self._tree = Tree(self.root)
        self.opened: dict[str, list[RecordedView]] = {}
        """Path, links followed -> the views of the regular files that were opened there."""
        self.refused: dict[str, int] = {}
        """Path, links followed -> errno, of what is there and does not open."""
        self.kernel: dict[str, str] = {}
        """Path -> text of the files in /proc that were asked for."""

    def note(self, path: str) -> None:
        """Write down what there is on the way to a path."""
        self._tree.note(path)

    def tree(self) -> tuple[dict[str, Any], list[list[str]]]:
        """Return the directories that were come by, as a profile has them, and the names of files with several."""
        return self._tree.written()

    def open(self, path: str) -> View:  # noqa: D102 -- as in Files
        self.note(path)
        try:
            view = RecordedView(path, self._descriptor(path), self._again)
        except FilesError as error:
            place = self._tree.follow(path) if "\0" not in path else None
            if place is not None and place[1] in (FILE, PROGRAM, SET_USER_ID):
                self.refused[place[0]] = error.errno
            raise
        self._open_views.append(view)
        place = self._tree.follow(path)
        if view.regular and place is not None:
            self.opened.setdefault(place[0], []).append(view)
        return view

    def kind(self, path: str) -> str | None:  # noqa: D102 -- as in Files
        self.note(path)
        return super().kind(path)

    def executable(self, path: str) -> bool:  # noqa: D102 -- as in Files
        self.note(path)
        return super().executable(path)

    def set_user_id(self, path: str) -> bool:  # noqa: D102 -- as in Files
        self.note(path)
        return super().set_user_id(path)

    def link(self, path: str) -> str | None:  # noqa: D102 -- as in Files
        self.note(path)
        return super().link(path)

    def resolve(self, path: str) -> str:  # noqa: D102 -- as in Files
        self.note(path)
        return super().resolve(path)

    def told(self, path: str) -> bytes:  # noqa: D102 -- as in Files
        data = super().told(path)
        self.kernel[path] = _shortened(path, data.decode("utf-8", "surrogateescape"))
        return data


def _shortened(path: str, text: str) -> str:
    """What dlwhy looks at of a file in /proc."""
    wanted = {"/proc/cpuinfo": ("vendor_id", "flags"), "/proc/meminfo": ("MemTotal", "SwapTotal")}.get(path)
    if wanted is None:
        return text
    found: dict[str, str] = {}
    for line in text.splitlines():
        key = line.partition(":")[0].strip()
        if key in wanted:
            found.setdefault(key, line)
    return "".join(f"{line}\n" for line in found.values())


class Tree:
    """The directories on the way to what was asked for, each with all the names in it."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._rows: dict[str, dict[str, str]] = {}
        """Directory, links followed -> name -> kind, or ">" and the target of a link."""
        self._partial: set[str] = set()
        self._inodes: dict[tuple[int, int], list[str]] = {}

    def note(self, path: str) -> None:
        """Write down every directory on the way to a path."""
        if "\0" not in path:
            self.follow(path)

    def follow(self, path: str) -> tuple[str, str] | None:
        """Return (path with all links followed, kind), or None where it leads nowhere."""
        done, kind = "", DIRECTORY
        todo, links = components(path), 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                done = done.rpartition("/")[0] if part == ".." else done
                continue
            found = self._names(done or "/", part).get(part)
            if found is None:
                return None
            if found[0] == ">":
                links += 1
                if links > MAX_LINKS:
                    return None
                done = "" if found[1:2] == "/" else done
                todo.extend(components(found[1:]))
                continue
            done, kind = f"{done}/{part}", found
            if todo and kind != DIRECTORY:
                return None
        if kind == DIRECTORY:
            self._names(done or "/", "")
        return done or "/", kind

    def _names(self, directory: str, wanted: str) -> dict[str, str]:
        """What is in a directory; of a very large or unreadable one only what was wanted so far."""
        row = self._rows.get(directory)
        if row is None:
            row = self._rows[directory] = {}
            try:
                with os.scandir(self._root + directory) as entries:
                    for entry in entries:
                        row[entry.name] = self._kind(entry.path, directory, entry.name)
                        if len(row) > _MOST_NAMES:
                            break
            except OSError:
                self._partial.add(directory)
            if len(row) > _MOST_NAMES:
                self._partial.add(directory)
                row.clear()
        if wanted and wanted not in row and directory in self._partial:
            path = f"{self._root}{directory.rstrip('/')}/{wanted}"
            if os.path.lexists(path):
                row[wanted] = self._kind(path, directory, wanted)
        return row

    def _kind(self, path: str, directory: str, name: str) -> str:
        try:
            stat = os.lstat(path)
            if stat_bits.S_ISLNK(stat.st_mode):
                return ">" + os.readlink(path)
        except OSError:
            return OTHER
        if stat_bits.S_ISDIR(stat.st_mode):
            return DIRECTORY
        if not stat_bits.S_ISREG(stat.st_mode):
            return OTHER
        if stat.st_nlink > 1:
            self._inodes.setdefault((stat.st_dev, stat.st_ino), []).append(f"{directory.rstrip('/')}/{name}")
        if stat.st_mode & stat_bits.S_ISUID:
            return SET_USER_ID
        return PROGRAM if stat.st_mode & 0o111 else FILE

    def written(self) -> tuple[dict[str, Any], list[list[str]]]:
        """Return the directories as a profile has them, and the names of files that have several."""
        tree: dict[str, Any] = {}
        for directory in sorted(self._rows):
            made: dict[str, Any] = {"complete": directory not in self._partial}
            for name, kind in sorted(self._rows[directory].items()):
                if kind[0] == ">":
                    made.setdefault("link", {})[name] = kind[1:]
                else:
                    made.setdefault(kind, []).append(name)
            tree[directory] = made
        return tree, sorted(sorted(group) for group in self._inodes.values() if len(group) > 1)


def united(ranges: Iterable[tuple[int, int]], gap: int) -> list[tuple[int, int]]:
    """Return ranges in order, joined where less than `gap` bytes are between two."""
    result: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if result and start <= result[-1][1] + gap:
            result[-1] = result[-1][0], max(end, result[-1][1])
        else:
            result.append((start, end))
    return result
