"""Files: how a path becomes bytes, in this system, below a sysroot, or in a dict made for a test.

Only here does dlwhy touch a file system. Paths are `str` with surrogateescape, as the process under examination
would write them: below a sysroot `/lib/libc.so.6` means ROOT/lib/libc.so.6, and an absolute link stays inside, as
after chroot(2).
"""

from __future__ import annotations

import errno
import os
import stat as stat_bits

from dlwhy.errors import FilesError
from dlwhy.view import FileView, View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
MAX_LINKS = 40
"""Links followed in one path before ELOOP, as the kernel counts (path_resolution(7))."""


def components(path: str) -> list[str]:
    """The components of a path, the first one last; "." where it ends as only a directory's can."""
    parts = [part for part in reversed(path.split("/")) if part and part != "."]
    return [".", *parts] if path.endswith(("/", "/.")) and parts else parts


class Files:
    """The files of this system, or of the tree below `root` as chroot(2) would show them."""

    __slots__ = ("_open_views", "reads", "root")

    def __init__(self, root: str = "/") -> None:
        self.root = "" if os.path.abspath(root) == "/" else os.path.abspath(root)
        self._open_views: list[FileView] = []
        self.reads: dict[str, int] = {}
        """Path -> how often it was opened; a test holds dlwhy to once."""

    def real(self, path: str) -> str:
        """Return where `path` lies in this system. Raises `FilesError` (ELOOP, ENOENT, ENOTDIR) below a sysroot."""
        if not self.root:
            return path
        return self.root + self.resolve(path)

    def resolve(self, path: str) -> str:
        """Return `path` (absolute) with every link followed, still as seen from inside the root.

        The last component need not exist. Raises `FilesError` for ELOOP and ENOTDIR.
        """
        if not self.root:
            return os.path.realpath(path)
        done = ""
        todo = components(path)
        links = 0
        while todo:
            part = todo.pop()
            if part in (".", ".."):
                if not os.path.isdir(self.root + done + "/"):
                    raise FilesError(path, errno.ENOTDIR, os.strerror(errno.ENOTDIR))
                done = done.rpartition("/")[0] if part == ".." else done
                continue
            here = f"{done}/{part}"
            try:
                target = os.readlink(self.root + here)
            except ValueError:  # an embedded NUL byte; no such name can exist
                raise FilesError(path, errno.ENOENT, os.strerror(errno.ENOENT)) from None
            except OSError as error:
                if error.errno == errno.EINVAL or (error.errno == errno.ENOENT and not todo):
                    done = here
                    continue
                raise FilesError(path, error.errno or 0, os.strerror(error.errno or 0)) from None
            links += 1
            if links > MAX_LINKS:
                raise FilesError(path, errno.ELOOP, os.strerror(errno.ELOOP))
            if target.startswith("/"):
                done = ""
            todo.extend(components(target))
        return done or "/"

    def open(self, path: str) -> View:
        """Open `path` for reading as the loader would. Raises `FilesError` with the errno of open(2).

        A directory opens (reading it is what fails, with EISDIR); a FIFO or device opens without blocking.
        """
        self.reads[path] = self.reads.get(path, 0) + 1
        view = FileView(path, self._descriptor(path), self._again)
        self._open_views.append(view)
        return view

    def _again(self, view: FileView) -> int:
        fd = self._descriptor(view.path)
        self._open_views.append(view)
        return fd

    def _descriptor(self, path: str) -> int:
        try:
            return os.open(self.real(path) if self.root else path, _FLAGS)
        except ValueError:  # an embedded NUL byte; no such name can exist
            raise FilesError(path, errno.ENOENT, os.strerror(errno.ENOENT)) from None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._release():
                return self._descriptor(path)
            raise FilesError(path, error.errno or 0, error.strerror or str(error)) from None

    def _release(self) -> bool:
        """Close the descriptors of older views (they open again when read); whether there were any."""
        held, self._open_views = self._open_views, []
        for view in held:
            view.close()
        return bool(held)

    def exists(self, path: str) -> bool:
        """Whether stat(2) of `path` succeeds."""
        return self.kind(path) is not None

    def kind(self, path: str) -> str | None:
        """Return "file", "directory" or "other" for what `path` leads to, None when stat(2) fails."""
        try:
            mode = os.stat(self.real(path)).st_mode
        except (OSError, FilesError, ValueError):
            return None
        return "file" if stat_bits.S_ISREG(mode) else "directory" if stat_bits.S_ISDIR(mode) else "other"

    def executable(self, path: str) -> bool:
        """Whether `path` is a regular file with an execute permission bit."""
        try:
            mode = os.stat(self.real(path)).st_mode
        except (OSError, FilesError, ValueError):
            return False
        return stat_bits.S_ISREG(mode) and bool(mode & 0o111)

    def set_user_id(self, path: str) -> bool:
        """Whether `path` leads to a file with the set-user-ID bit."""
        try:
            return bool(os.stat(self.real(path)).st_mode & stat_bits.S_ISUID)
        except (OSError, FilesError, ValueError):
            return False

    def link(self, path: str) -> str | None:
        """Return the target of the symbolic link at `path`, or None when it is none."""
        try:
            return os.readlink(self.root + path)
        except (OSError, ValueError):
            return None

    def listing(self, path: str) -> list[str]:
        """Return the names in the directory `path`, sorted. Raises `FilesError`."""
        try:
            return sorted(os.listdir(self.real(path)))
        except OSError as error:
            raise FilesError(path, error.errno or 0, error.strerror or str(error)) from None

    def told(self, path: str) -> bytes:
        """Return what the kernel of this machine says in a file of /proc, its first bytes. Raises `FilesError`.

        A sysroot has no kernel of its own.
        """
        own = Files()
        try:
            return own.open(path).head
        finally:
            own.close()

    def close(self) -> None:
        """Give every descriptor back."""
        self._release()

    def __del__(self) -> None:
        """Every open view is in the list: none of them needs to look after itself."""
        for view in getattr(self, "_open_views", ()):
            view.close()


class DictFiles(Files):
    """Files held in a dict of path -> bytes: what tests and captured profiles use."""

    __slots__ = ("_data",)

    def __init__(self, data: Mapping[str, bytes]) -> None:
        super().__init__("/")
        self._data = dict(data)

    def resolve(self, path: str) -> str:
        """Return `path` normalised; a dict has no links."""
        return os.path.normpath(path)

    def open(self, path: str) -> View:
        """Return the bytes of `path`. Raises `FilesError` (ENOENT)."""
        self.reads[path] = self.reads.get(path, 0) + 1
        data = self._data.get(os.path.normpath(path))
        if data is None:
            raise FilesError(path, errno.ENOENT, os.strerror(errno.ENOENT))
        return View(path, data)

    def kind(self, path: str) -> str | None:
        """Return "file" or "directory" (of what has files below it), else None."""
        norm = os.path.normpath(path)
        if norm in self._data:
            return "file"
        return "directory" if any(name.startswith(norm.rstrip("/") + "/") for name in self._data) else None

    def executable(self, path: str) -> bool:
        """Whether there is such a file: a dict keeps no modes."""
        return self.kind(path) == "file"

    def set_user_id(self, path: str) -> bool:  # noqa: ARG002 -- the shape of Files
        """Return False: a dict keeps no modes."""
        return False

    def link(self, path: str) -> str | None:  # noqa: ARG002 -- the shape of Files
        """Return None: a dict has no links."""
        return None

    def listing(self, path: str) -> list[str]:
        """Return the names directly below `path`, sorted."""
        prefix = os.path.normpath(path).rstrip("/") + "/"
        return sorted({name[len(prefix) :].split("/")[0] for name in self._data if name.startswith(prefix)})
