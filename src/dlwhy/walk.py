"""`check --each`: every file of a list in a fresh process of the host, one report each.

Directories and archives are walked. One bad file never hides another: what cannot be examined has a report, too.
"""

from __future__ import annotations

import os

from dlwhy import archives
from dlwhy.diagnose import check
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.record import Record
from dlwhy.report import CheckReport, FailedReport

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from dlwhy.api import Host, Options

    _T = TypeVar("_T")
    _R = TypeVar("_R")
    Examine = Callable[[str, str], _R]
    Refuse = Callable[[str, str], _R]
    Reports = Iterator[CheckReport | FailedReport]

_EXECUTABLE_TYPES = (2, 3)
"""ET_EXEC and ET_DYN: of what is found in a directory, only these are programs or libraries."""


def each(files: list[str], host: Host | None, options: Options) -> Reports:
    """Yield the report of every file: as named, below a directory in the order of the names, in an archive likewise.

    Raises `UsageError` for a question that cannot be asked of any of them.
    """

    def examine(name: str, step: str) -> CheckReport | FailedReport:
        try:
            return check([step], host, options)
        except UsageError:
            raise
        except DlwhyError as error:
            return FailedReport(name, str(error))

    yield from walk(files, options, examine, FailedReport)


def walk(files: list[str], options: Options, examine: Examine[_R], refuse: Refuse[_R]) -> Iterator[_R]:
    """Yield what `examine` says of every file, in order, and `refuse` of what is not examined.

    `examine` gets the file as it is named, and a path of it that is no other kind of STEP; `refuse` gets the file and
    why, in one sentence.
    """
    walker = _Walker(options, examine, refuse)
    for name in files:
        path = inside(name, options)
        if path is not None and os.path.isdir(path):
            yield from walker.directory(name.rstrip("/") or "/", path)
        elif path is not None and not loadable(path) and archives.kind(path) is not None:
            yield from walker.archive(name, path)
        else:
            # a name without a slash means the file of that name, if there is one; with a colon it is no STEP, either
            step = f"./{name}" if path is not None and not name.startswith(("/", "./", "../")) else name
            yield examine(name, step)


def inside(name: str, options: Options) -> str | None:
    """Return where in this system the file lies that the process knows by `name`; None when there is none."""
    root = options.sysroot or ""
    path = name if name[:1] == "/" else os.path.join(options.cwd or ("/" if root else os.getcwd()), name)
    real = root + path if root else path
    return real if os.path.exists(real) else None


class _Walker:
    """A walk through directories and archives."""

    def __init__(self, options: Options, examine: Examine[Any], refuse: Refuse[Any]) -> None:
        self.options, self.examine, self.refuse = options, examine, refuse

    def directory(self, name: str, path: str) -> Iterator[Any]:
        """Walk `path`, which the process knows as `name`. Links are not followed: what they lead to has a name, too."""
        unread: list[OSError] = []
        shown = name if name.startswith(("/", "./", "../")) or name in (".", "..") else f"./{name}"
        for directory, subdirectories, names in os.walk(path, onerror=unread.append):
            subdirectories.sort()
            within = shown.rstrip("/") + directory[len(path.rstrip("/")) :].rstrip("/")
            for one in sorted(names):
                real = f"{directory}/{one}"
                if os.path.islink(real):
                    continue
                if one.endswith(archives.ENDINGS) and os.path.isfile(real):
                    yield from self.archive(f"{within}/{one}", real)
                elif loadable(real):
                    yield self.examine(f"{within}/{one}", f"{within}/{one}")
            while unread:
                error = unread.pop()
                yield self.refuse(str(error.filename), f"{error.filename}: {error.strerror}")

    def archive(self, name: str, path: str) -> Iterator[Any]:
        """Unpack an archive for as long as its reports are read, and show its members as ARCHIVE!/MEMBER."""
        if self.options.sysroot is not None:
            yield self.refuse(name, f"{name}: an archive is not examined below a sysroot: unpack it there")
            return
        import tempfile

        with tempfile.TemporaryDirectory(prefix="dlwhy-") as made:
            directory = os.path.realpath(made)
            try:
                archives.unpack(path, directory)
            except DlwhyError as error:
                yield self.refuse(name, renamed(str(error), path, name))
                return
            for report in self._members(directory):
                yield renamed(report, directory, f"{name}!")

    def _members(self, directory: str) -> Iterator[Any]:
        for inner, subdirectories, names in os.walk(directory):
            subdirectories.sort()
            for one in sorted(names):
                path = f"{inner}/{one}"
                if os.path.islink(path):
                    continue
                if loadable(path):
                    yield self.examine(path, path)
                elif one.endswith(archives.ENDINGS) and archives.kind(path) is not None:
                    why = "an archive inside an archive is not examined: unpack the outer one"
                    yield self.refuse(path, f"{path}: {why}")


def loadable(path: str) -> bool:
    """Return whether a file is an ELF program or shared object, by its first bytes."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        head = os.pread(descriptor, 18, 0)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    big = head[5:6] == b"\x02"
    return head[:4] == b"\x7fELF" and int.from_bytes(head[16:18], "big" if big else "little") in _EXECUTABLE_TYPES


def renamed(value: _T, old: str, new: str) -> _T:
    """Return a report with a path, that of a directory of our own, replaced by what the reader knows."""
    if isinstance(value, str):
        return value.replace(old, new)  # type: ignore[return-value]
    if isinstance(value, Record):
        return type(value)(*(renamed(part, old, new) for part in value))
    if isinstance(value, tuple | list):
        return type(value)(renamed(part, old, new) for part in value)
    if isinstance(value, dict):
        return {renamed(key, old, new): renamed(part, old, new) for key, part in value.items()}  # type: ignore[return-value]
    return value
