"""What dlwhy itself can fail at. A library that does not load is never an error here: it is a value of the report.

DlwhyError                 base of all
+-- UsageError             the question cannot be asked so (exit status 2)
+-- FilesError             a file cannot be opened or read, with the operating system's reason
+-- ElfError               bytes that break a rule of the format: path, offset, rule
|   +-- OutOfBounds        a read that would leave the file
|   +-- TooLarge           more than an honest file can hold; what it means was not worked out
+-- ProfileError           a profile that cannot be used: damaged, of a newer schema, or none at all
+-- UnsupportedError       a well-formed question that no row of data covers yet
"""

from __future__ import annotations


class DlwhyError(Exception):
    """Base of everything that dlwhy raises on purpose. `str()` is one sentence for the user."""


class UsageError(DlwhyError):
    """The question was not understood: a malformed STEP, an unknown HOST, options that exclude one another."""


class FilesError(DlwhyError):
    """A file could not be opened, read or listed."""

    def __init__(self, path: str, errno: int, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.errno = errno
        """The operating system's number, as in errno(3)."""
        self.reason = reason


class ElfError(DlwhyError):
    """Bytes that break a rule of the format."""

    def __init__(self, path: str, offset: int, rule: str) -> None:
        super().__init__(f"{path}: at offset {offset:#x}: {rule}" if offset >= 0 else f"{path}: {rule}")
        self.path = path
        self.offset = offset
        """File offset in bytes of what is wrong, or -1 when it is the file as a whole."""
        self.rule = rule


class OutOfBounds(ElfError):
    """A read that would leave the file: the file is shorter than its tables claim."""


class Unmapped(ElfError):
    """An address where nothing of the object is mapped."""

    def __init__(self, path: str, rule: str, distance: int) -> None:
        super().__init__(path, -1, rule)
        self.distance = distance
        """Bytes between the object's own range and the address; 0 for a hole in the range."""


class TooLarge(ElfError):
    """More records, names or bytes than an honest file of this size has: dlwhy reads no further, and so does not know.

    Unlike its siblings it says nothing of what a loader would do with these bytes.
    """


class ProfileError(DlwhyError):
    """A file that is no profile, or one that this release cannot read."""


class UnsupportedError(DlwhyError):
    """No row of data covers this machine, release or file yet; the message names what is missing."""
