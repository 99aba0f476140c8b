"""Kept files: the tree of a captured system and, of the files in it, the bytes that dlwhy reads of them.

Rule 1: what a profile does not hold is never taken for absent: it raises `Unknown`, and the check is undecided.
Rule 2: the captured system comes first. Of this machine only the files that are examined are there, as if their
directory stood at the same path inside that system, with what lies beside them; where it has that directory itself,
nothing else of this machine is in it.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right

from dlwhy.errors import FilesError
from dlwhy.files import MAX_LINKS, Files, components
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record
from dlwhy.view import LARGEST_READ, View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from dlwhy.hosts.packed import Listed
    from dlwhy.hosts.profile import Profile

FILE, PROGRAM, SET_USER_ID, DIRECTORY, OTHER = "file", "program", "set-user-ID", "directory", "other"
"""What a name in a kept directory stands for; the target of a link begins with `LINK`."""
LINK = ">"


class Place(Record):
    """Where a path leads inside the captured system."""

    path: str
    """Absolute, all links followed."""
    kind: str


class KeptView(View):
    """One kept file: its size and the parts of it that are kept, decoded when they are read."""

    __slots__ = ("_ends", "_held", "_identity", "_place", "_profile", "_starts")

    def __init__(self, path: str, place: str, profile: Profile) -> None:
        """Raises `Unknown` when the profile holds nothing of the file, or damaged bytes."""
        super().__init__(path, b"")
        self._profile = profile.name
        self._held = held = profile.held
        self._place = place
        self._identity = -1, held.number(place)
        self.size, self._starts, self._ends = held.extent(place)
        if self._starts and self._starts[0] == 0:
            self.head = held.part(place, 0)
        elif self.size:
            self._lacks(0, 1)

    @property
    def identity(self) -> tuple[int, int]:  # noqa: D102 -- as in View
        return self._identity

    def around(self, mark: bytes, offset: int, size: int, whole: bool = False) -> list[bytes]:  # noqa: D102 -- as in View
        if mark not in self._held.marks(self._place):
            self._lacks(offset, size)
        end = min(offset + size, self.size)
        found = [self._fetch(start, stop - start) for start, stop in self._runs(offset, end)]
        if not whole:
            return found
        with_mark = [piece for piece in found if mark in piece]
        if with_mark and len(with_mark[0]) < end - offset:
            self._lacks(offset, size)
        return with_mark

    def listed(self) -> Listed | None:  # noqa: D102 -- as in View
        return self._held.listed(self._place)

    def _runs(self, offset: int, end: int) -> list[tuple[int, int]]:
        """The ranges from `offset` to `end` that are kept, those joined that touch."""
        runs: list[tuple[int, int]] = []
        for start, stop in zip(self._starts, self._ends, strict=True):
            low, high = max(offset, start), min(end, stop)
            if low < high and runs and runs[-1][1] == low:
                runs[-1] = runs[-1][0], high
            elif low < high:
                runs.append((low, high))
        return runs

    def _fetch(self, offset: int, size: int) -> bytes:
        end = offset + size
        found: list[bytes] = []
        number = bisect_right(self._starts, offset) - 1
        at = offset
        while at < end:
            if number < 0 or number >= len(self._starts) or not self._starts[number] <= at < self._ends[number]:
                self._lacks(at, end - at)
            start, stop = self._starts[number], min(end, self._ends[number])
            found.append(self._held.part(self._place, number)[at - start : stop - start])
            at = stop
            number += 1
        return found[0] if len(found) == 1 else b"".join(found)

    def _lacks(self, offset: int, size: int) -> NoReturn:
        what = f"what stands in {self._place} from {offset:#x} on ({size} bytes)"
        raise Unknown(f"{what}: {self._profile} does not hold it")


class KeptFiles(Files):
    """The files of a captured system, and of this machine what is examined in it."""

    __slots__ = ("_directories", "_examined", "_ours_first", "_own", "_profile")

    def __init__(self, profile: Profile, examined: tuple[str, ...] = (), ours_first: bool = False) -> None:
        """`examined` are absolute paths, as the process would write them; those count that this machine has.

        With `ours_first` each of them is this machine's even where the captured system has a file of that name.
        """
        super().__init__("/")
        self._profile = profile
        self._own = Files()
        self._own.reads = self.reads
        self._examined = frozenset(path for path in examined if self._own.exists(path) or self._own.link(path))
        self._ours_first = ours_first
        directories = {path.rpartition("/")[0] for path in self._examined}
        self._directories = tuple(sorted(directories | {os.path.normpath(one) for one in directories if one}))

    @property
    def of_packages(self) -> bool:
        """Whether the captured system was made of packages that the profile names."""
        return bool(self._profile.data.get("packages"))

    # -- where a path leads --------------------------------------------------------------------------------------

    def _find(self, path: str) -> Place:
        """Follow a path inside the captured system. Raises `FilesError`, and `Unknown` where that is not kept."""
        done = ""
        todo = components(path)
        links = 0
        while todo:
            part = todo.pop()
            if part == ".":
                continue
            if part == "..":
                done = done.rpartition("/")[0]
                continue
            names, complete = self._profile.directory(done or "/", path)
            kind = names.get(part)
            if kind is None:
                if not complete:
                    raise Unknown(f"whether there is {done}/{part}: {self._profile.name} does not tell", "search")
                raise _failed(path, errno.ENOENT)
            if kind.startswith(LINK):
                links += 1
                if links > MAX_LINKS:
                    raise _failed(path, errno.ELOOP)
                if kind.startswith(LINK + "/"):
                    done = ""
                todo.extend(components(kind[len(LINK) :]))
                continue
            done = f"{done}/{part}"
            if todo and kind != DIRECTORY:
                raise _failed(path, errno.ENOTDIR)
            if not todo:
                return Place(done, kind)
        return Place(done or "/", DIRECTORY)

    def _locate(self, path: str) -> Place | None:
        """Where a path leads in the captured system; None for one of this machine's. Raises `FilesError`, `Unknown`."""
        if self._ours_first and path in self._examined:
            return None
        try:
            place = self._find(path)
        except (FilesError, Unknown):
            if self._comes_along(path):
                return None
            raise
        named_only = path in self._examined and not self._profile.holds(place.path) and place.kind != DIRECTORY
        return None if named_only else place

    def _comes_along(self, path: str) -> bool:
        """Whether a path that the captured system does not have is this machine's.

        It is when it is examined, leads to an examined file's directory, or begins with that directory, as everything
        does that is found through $ORIGIN; but not where it leads into a directory that the captured system has.
        """
        if path in self._examined:
            return True
        if any(one == path or one.startswith(path.rstrip("/") + "/") for one in self._directories):
            return True
        if not any(path.startswith(one + "/") for one in self._directories):
            return False
        real = self._own.resolve(path)
        return not self._profile.lists(real.rpartition("/")[0] or "/")

    # -- what Files does -----------------------------------------------------------------------------------------

    def real(self, path: str) -> str:
        """Return where `path` lies in this system. Raises `FilesError` for what lies in the captured one."""
        if self._locate(path) is not None:
            raise _failed(path, errno.ENOENT)
        return path

    def resolve(self, path: str) -> str:
        """Return `path` with every link followed. Raises `FilesError`, `Unknown`."""
        head, _, tail = path.rstrip("/").rpartition("/")
        try:
            place = self._locate(path)
        except FilesError as error:
            if error.errno != errno.ENOENT or not head:
                raise
            place = self._locate(head)  # the last component need not exist
            return self._own.resolve(path) if place is None else f"{place.path.rstrip('/')}/{tail}"
        return self._own.resolve(path) if place is None else place.path

    def open(self, path: str) -> View:
        """Open `path` as the loader would. Raises `FilesError` with the errno of open(2), and `Unknown`."""
        place = self._locate(path)
        if place is None:
            return self._own.open(path)
        self.reads[path] = self.reads.get(path, 0) + 1
        if place.kind == DIRECTORY:
            view = View(path, b"")
            view.regular, view.read_errno = False, errno.EISDIR
            return view
        if place.kind == OTHER:
            raise Unknown(f"what reading {path} would give, which is no regular file", "header")
        refused = self._profile.held.refused(place.path)
        if refused:
            raise _failed(path, refused)
        return KeptView(path, place.path, self._profile)

    def kind(self, path: str) -> str | None:
        """Return "file", "directory" or "other" for what `path` leads to, None when it leads nowhere."""
        try:
            place = self._locate(path)
        except FilesError:
            return None
        if place is None:
            return self._own.kind(path)
        return place.kind if place.kind in (DIRECTORY, OTHER) else FILE

    def executable(self, path: str) -> bool:
        """Whether `path` is a regular file with an execute permission bit."""
        try:
            place = self._locate(path)
        except FilesError:
            return False
        return self._own.executable(path) if place is None else place.kind in (PROGRAM, SET_USER_ID)

    def set_user_id(self, path: str) -> bool:
        """Whether `path` leads to a file with the set-user-ID bit."""
        try:
            place = self._locate(path)
        except FilesError:
            return False
        return self._own.set_user_id(path) if place is None else place.kind == SET_USER_ID

    def link(self, path: str) -> str | None:
        """Return the target of the symbolic link at `path`, or None when it is none."""
        if self._locate(path) is None:
            return self._own.link(path)
        head, _, tail = path.rpartition("/")
        names, _ = self._profile.directory(self._find(head or "/").path, path)
        kind = names.get(tail, "")
        return kind[len(LINK) :] if kind.startswith(LINK) else None

    def listing(self, path: str) -> list[str]:
        """Return the names in the directory `path`, sorted. Raises `FilesError`, `Unknown`."""
        place = self._locate(path)
        if place is None:
            return self._own.listing(path)
        if place.kind != DIRECTORY:
            raise _failed(path, errno.ENOTDIR)
        names, complete = self._profile.directory(place.path, path)
        if not complete:
            raise Unknown(f"what else is in {path}: {self._profile.name} does not tell", "search")
        return sorted(names)

    def told(self, path: str) -> bytes:
        """Return what the kernel of the captured system says in a file of /proc. Raises `FilesError`."""
        text = self._profile.kernel.get(path)
        if text is None:
            raise _failed(path, errno.ENOENT)
        return text.encode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Give every descriptor back."""
        self._own.close()


def _failed(path: str, number: int) -> FilesError:
    return FilesError(path, number, os.strerror(number))


__all__ = ["DIRECTORY", "FILE", "LARGEST_READ", "LINK", "OTHER", "PROGRAM", "SET_USER_ID", "KeptFiles", "KeptView"]
