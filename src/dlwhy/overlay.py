"""Overlay: the files of another system, with directories of this machine standing in it at their own paths.

What is examined lies on this machine and is asked about another. Rule 1: the directory of an examined file, of this
machine, stands at the same path inside that system, whatever that system has there; all that is found through $ORIGIN
comes along, since such a path begins with that directory. Rule 2: a directory in which that system's loader looks by
default stays that system's; of this machine only the examined file itself is there. Rule 3: everything else is the
system's.
"""

from __future__ import annotations

from dlwhy.errors import FilesError
from dlwhy.files import Files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.view import View


class Overlay(Files):
    """The files of `system`, and of this machine (`own`) what is examined."""

    __slots__ = ("_defaults", "_directories", "_examined", "own", "system")

    def __init__(self, system: Files, own: Files, defaults: frozenset[str]) -> None:
        """`defaults` are the directories in which the system's loader looks by default, without a slash behind."""
        super().__init__(system.root or "/")
        self.system = system
        self.own = own
        self._defaults = defaults
        self._examined: frozenset[str] = frozenset()
        self._directories: tuple[str, ...] = ()

    def examine(self, *paths: str) -> None:
        """Let these files, absolute paths on this machine, and what comes with them stand in the system."""
        self._examined = frozenset(paths)
        directories = dict.fromkeys(path.rpartition("/")[0] or "/" for path in paths)
        self._directories = tuple(one for one in directories if not self._is_default(one))

    def _is_default(self, directory: str) -> bool:
        """Whether a directory of this machine is one that the system has for itself."""
        return directory == "/" or directory in self._defaults or self.own.resolve(directory) in self._defaults

    def place(self, path: str) -> tuple[Files, str]:
        """Return whose file a path means, and the path there: another one where a link leads back into the system."""
        if path in self._examined:
            return self.own, path
        for one in self._directories:
            if path == one or path.startswith(one + "/"):
                try:
                    real = self.own.resolve(path)
                except FilesError:
                    return self.own, path
                into = real.rpartition("/")[0] in self._defaults or real in self._defaults
                return (self.system, real) if into else (self.own, path)
        return self.system, path

    def _above(self, path: str) -> bool:
        """Whether one of the directories lies below `path`, which therefore is a directory."""
        return any(one.startswith(path.rstrip("/") + "/") for one in self._directories)

    def real(self, path: str) -> str:
        """Return where `path` lies on this machine. Raises `FilesError`."""
        files, there = self.place(path)
        return files.real(there)

    def resolve(self, path: str) -> str:
        """Return `path` with every link followed. Raises `FilesError`."""
        files, there = self.place(path)
        return files.resolve(there)

    def open(self, path: str) -> View:
        """Open `path` for reading as the loader would. Raises `FilesError` with the errno of open(2)."""
        files, there = self.place(path)
        return files.open(there)

    def kind(self, path: str) -> str | None:
        """Return "file", "directory" or "other" for what `path` leads to, None when stat(2) fails."""
        if self._above(path):
            return "directory"
        files, there = self.place(path)
        return files.kind(there)

    def executable(self, path: str) -> bool:
        """Whether `path` is a regular file with an execute permission bit."""
        files, there = self.place(path)
        return files.executable(there)

    def set_user_id(self, path: str) -> bool:
        """Whether `path` leads to a file with the set-user-ID bit."""
        files, there = self.place(path)
        return files.set_user_id(there)

    def link(self, path: str) -> str | None:
        """Return the target of the symbolic link at `path`, or None when it is none."""
        files, there = self.place(path)
        return files.link(there)

    def listing(self, path: str) -> list[str]:
        """Return the names in the directory `path`, sorted. Raises `FilesError`."""
        files, there = self.place(path)
        return files.listing(there)

    def told(self, path: str) -> bytes:
        """Return what the system's kernel says in a file of /proc, as `Files.told`. Raises `FilesError`."""
        return self.system.told(path)

    def close(self) -> None:
        """Give every descriptor back."""
        self.system.close()
        self.own.close()
