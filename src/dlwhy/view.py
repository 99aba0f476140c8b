"""View: bounded bytes at an offset, of a file or of a literal.

A file is read by small `pread`s: never mapped (a file truncated meanwhile would kill the process with SIGBUS) and
never read whole. The first bytes are kept, because header, program headers and most strings that a check needs stand
there. A view may lose its descriptor when too many are open; the next read opens the same file again, and notices
when it is no longer the same.
"""

from __future__ import annotations

import os
import stat as stat_bits

from dlwhy.errors import FilesError, OutOfBounds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = 8192
"""Bytes read when a file is opened."""


class View:
    """Bytes that can be read at an offset. `size` is in bytes and fixed when the view is made."""

    __slots__ = ("head", "identity", "path", "read_errno", "regular", "size")

    def __init__(self, path: str, data: bytes) -> None:
        self.read_errno = 0
        """errno of the very first read (EISDIR for a directory), 0 when it went well."""
        self.regular = True
        """False for a FIFO, socket or device: such a thing is never read on."""
        self.identity: tuple[int, int] = (0, id(self))
        """(device, inode): the loader takes two paths with the same identity for one object."""
        self.path = path
        """What to call these bytes in a message."""
        self.size = len(data)
        self.head = data

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`. Raises `OutOfBounds` naming offset, size and limit."""
        end = offset + size
        if end <= len(self.head) and offset >= 0 <= size:
            return self.head[offset:end]
        if offset < 0 or size < 0 or end > self.size:
            raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file ends at {self.size:#x}")
        return self._fetch(offset, size)

    def some(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`: fewer at the end of the file, none behind it."""
        if offset < 0 or offset >= self.size:
            return b""
        return self.read(offset, min(size, self.size - offset))

    def _fetch(self, offset: int, size: int) -> bytes:  # of a literal everything is in the head
        raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but only {len(self.head)} are kept")

    def close(self) -> None:
        """Release what the view holds. Reading again opens the file again."""


class FileView(View):
    """A file by descriptor."""

    __slots__ = ("_fd", "_reopen", "mtime_ns")

    def __init__(self, path: str, fd: int, reopen: Callable[[], int]) -> None:
        self.path = path
        self._fd = fd
        self._reopen = reopen
        stat = os.fstat(fd)
        self.identity = (stat.st_dev, stat.st_ino)
        self.size = stat.st_size
        self.mtime_ns = stat.st_mtime_ns
        self.regular = stat_bits.S_ISREG(stat.st_mode)
        self.read_errno = 0
        try:
            self.head = os.pread(fd, HEAD, 0)
        except OSError as error:
            self.head = b""
            self.read_errno = error.errno or 0
        if not self.regular or len(self.head) < min(HEAD, self.size):
            self.size = len(self.head)

    def _fetch(self, offset: int, size: int) -> bytes:
        data = os.pread(self._descriptor(), size, offset)
        while len(data) < size:
            more = os.pread(self._descriptor(), size - len(data), offset + len(data))
            if not more:
                raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file shrank meanwhile")
            data += more
        return data

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` from `offset` without a new object. Raises `OutOfBounds` when the file is too short."""
        done = 0
        while done < len(buffer):
            got = os.preadv(self._descriptor(), [buffer[done:]], offset + done)
            if not got:
                raise OutOfBounds(self.path, offset, f"{len(buffer)} bytes wanted, but the file ends before")
            done += got

    def _descriptor(self) -> int:
        if self._fd < 0:
            fd = self._reopen()
            stat = os.fstat(fd)
            if (stat.st_dev, stat.st_ino) != self.identity or stat.st_mtime_ns != self.mtime_ns:
                os.close(fd)
                raise FilesError(self.path, 0, "the file was replaced while it was being examined")
            self._fd = fd
        return self._fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()
