"""View: bounded bytes at an offset, of a file or of a literal.

A file is read by small `pread`s: never mapped (a file truncated meanwhile would kill the process with SIGBUS) and
never read whole. The first bytes are kept, because header, program headers and most strings that a check needs stand
there. A view may lose its descriptor when too many are open; the next read opens the same file again, and notices
when it is no longer the same.
"""

from __future__ import annotations

import os
import stat as stat_bits

from dlwhy.errors import FilesError, OutOfBounds, TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HEAD = 8192
"""Bytes read when a file is opened."""
MARGIN = 1024
"""Bytes around a mark that are looked at together with it."""
LARGEST_READ = 1 << 28
"""Bytes of one read at most. Larger tables are read in pieces; a single table beyond this is no honest one."""


class View:
    """Bytes that can be read at an offset. `size` is in bytes and fixed when the view is made."""

    __slots__ = ("head", "path", "read_errno", "regular", "size")
    window = 1 << 16
    """Bytes that are well read at once by whoever reads page by page."""

    def __init__(self, path: str, data: bytes) -> None:
        self.read_errno = 0
        """errno of the very first read (EISDIR for a directory), 0 when it went well."""
        self.regular = True
        """False for a FIFO, socket or device: such a thing is never read on."""
        self.path = path
        """What to call these bytes in a message."""
        self.size = len(data)
        self.head = data

    @property
    def identity(self) -> tuple[int, int]:
        """(device, inode): the loader takes two paths with the same identity for one object."""
        return 0, id(self)

    @property
    def unread(self) -> str:
        """What is not known of bytes that were not read for fear of waiting; "" of all others."""
        return ""

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes at `offset`.

        Raises `OutOfBounds` naming offset, size and limit, `TooLarge`, and `FilesError` when reading fails.
        """
        end = offset + size
        if end <= len(self.head) and offset >= 0 <= size:
            return self.head[offset:end]
        if offset < 0 or size < 0 or end > self.size:
            raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file ends at {self.size:#x}")
        if size > LARGEST_READ:
            raise TooLarge(self.path, offset, f"one table of {size} bytes, where dlwhy reads at most {LARGEST_READ}")
        return self._fetch(offset, size)

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> None:
        """Fill `buffer` from `offset`, without a new object where that can be. Raises `OutOfBounds`."""
        buffer[:] = self.read(offset, len(buffer))

    def some(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes at `offset`: fewer at the end of the file, none behind it."""
        end = offset + size
        if 0 <= offset <= end <= len(self.head):
            return self.head[offset:end]
        if offset < 0 or offset >= self.size:
            return b""
        if end <= self.size and 0 <= size <= LARGEST_READ:
            return self._fetch(offset, size)
        return self.read(offset, min(size, self.size - offset))

    def around(self, mark: bytes, offset: int, size: int, whole: bool = False) -> list[bytes]:  # noqa: ARG002
        """Return pieces of up to `size` bytes at `offset` that hold every place of `mark` with `MARGIN` bytes around.

        It is one piece with all of them, except of a captured file. With `whole` it is one piece there, too, or none.
        """
        return [self.some(offset, size)]

    def listed(self) -> tuple[int, list[bytes], bytes] | None:
        """Return how the names of its symbols are kept; None of all but files that came along without hash tables.

        It is (the first symbol that the hash table leads to, the names of the symbols from there on, sorted, the
        string table in which st_name is a place).
        """
        return None

    def _fetch(self, offset: int, size: int) -> bytes:  # of a literal everything is in the head
        raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but only {len(self.head)} are kept")

    def close(self) -> None:
        """Release what the view holds. Reading again opens the file again."""


class Part(View):
    """Some bytes of another view, by themselves: a member of an archive."""

    __slots__ = ("_start", "_whole")

    def __init__(self, path: str, whole: View, start: int, size: int) -> None:
        """Take `size` bytes of `whole` at `start`, which lie inside of it. Raises `FilesError`."""
        super().__init__(path, whole.some(start, min(size, HEAD)))
        self._whole = whole
        self._start = start
        self.size = size

    def _fetch(self, offset: int, size: int) -> bytes:
        return self._whole.read(self._start + offset, size)


_MEM_MAJOR = 1
"""Device number of null, zero and full (kernel Documentation/admin-guide/devices.txt): they answer at once."""


def _answers(stat: os.stat_result) -> bool:
    """Whether reading what is no regular file returns at once and takes nothing away from anybody."""
    if stat_bits.S_ISCHR(stat.st_mode):
        return os.major(stat.st_rdev) == _MEM_MAJOR and os.minor(stat.st_rdev) in (3, 5, 7)
    return stat_bits.S_ISDIR(stat.st_mode)


class FileView(View):
    """A file by descriptor."""

    __slots__ = ("_fd", "_reopen", "_stat")

    def __init__(self, path: str, fd: int, reopen: Callable[[FileView], int]) -> None:
        self.path = path
        self._fd = fd
        self._reopen = reopen
        self._stat = stat = os.fstat(fd)
        self.size = size = stat.st_size
        self.regular = regular = stat_bits.S_ISREG(stat.st_mode)
        self.read_errno = 0
        self.head = head = b""
        if regular or _answers(stat):
            try:
                self.head = head = os.pread(fd, HEAD, 0)
            except OSError as error:
                self.read_errno = error.errno or 0
        if len(head) < HEAD or not regular:
            self.size = min(len(head), size) if regular else len(head)

    @property
    def identity(self) -> tuple[int, int]:  # noqa: D102 -- as above
        return self._stat.st_dev, self._stat.st_ino

    @property
    def unread(self) -> str:  # noqa: D102 -- as above
        if self.regular or _answers(self._stat):
            return ""
        if stat_bits.S_ISFIFO(self._stat.st_mode):
            return "whether anybody writes into {path}, a FIFO: to open one waits for a writer"
        return "what reading {path} would give, which is no regular file"

    def _fetch(self, offset: int, size: int) -> bytes:
        try:
            data = os.pread(self._fd if self._fd >= 0 else self._descriptor(), size, offset)
            while len(data) < size:
                more = os.pread(self._descriptor(), size - len(data), offset + len(data))
                if not more:
                    raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file shrank meanwhile")
                data += more
        except OSError as error:
            raise FilesError(self.path, error.errno or 0, f"cannot be read: {error.strerror}") from None
        return data

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> None:  # noqa: D102 -- as above
        size = len(buffer)
        if offset >= 0 and offset + size <= len(self.head):
            buffer[:] = self.head[offset : offset + size]
            return
        if offset < 0 or offset + size > self.size:
            raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file ends at {self.size:#x}")
        with memoryview(buffer) as window:
            done = 0
            while done < size:
                try:
                    got = os.preadv(self._descriptor(), [window[done:]], offset + done)
                except OSError as error:
                    raise FilesError(self.path, error.errno or 0, f"cannot be read: {error.strerror}") from None
                if not got:
                    raise OutOfBounds(self.path, offset, f"{size} bytes wanted, but the file shrank meanwhile")
                done += got

    def _descriptor(self) -> int:
        if self._fd < 0:
            fd = self._reopen(self)
            stat = os.fstat(fd)
            if (stat.st_dev, stat.st_ino) != self.identity or stat.st_mtime_ns != self._stat.st_mtime_ns:
                os.close(fd)
                raise FilesError(self.path, 0, "the file was replaced while it was being examined")
            self._fd = fd
        return self._fd

    def close(self) -> None:  # noqa: D102 -- as above
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
