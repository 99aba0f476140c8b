"""The library: what one can ask, in the words of the command line (interface, section 4)."""

from __future__ import annotations

import os

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlwhy.report import CheckReport, FailedReport, TlsReport, TreeReport, UnresolvedReport


class Host(Record):
    """Of which process the question is. Made by `Host.executable` or `Host.plain`."""

    kind: str
    """"executable", "plain", or "inferred" from what is loaded."""
    target: str
    env: dict[str, str] | None
    """The whole environment; None for this process's own."""

    @classmethod
    def executable(cls, path: str | os.PathLike[str], env: Mapping[str, str] | None = None) -> Host:
        """A program by path, or by name as PATH finds it. `env` is its whole environment, this process's by default."""
        return cls("executable", os.fspath(path), None if env is None else dict(env))

    @classmethod
    def plain(cls, env: Mapping[str, str] | None = None) -> Host:
        """A C program that needs only libc and calls dlopen itself; its argv[0] is `plain`."""
        return cls("plain", "plain", None if env is None else dict(env))

    @classmethod
    def inferred(cls, env: Mapping[str, str] | None = None) -> Host:
        """The host that the names of the files suggest; what `None` means, with an environment of its own."""
        return cls("inferred", "", None if env is None else dict(env))

    @classmethod
    def named(cls, host: str, env: Mapping[str, str] | None = None) -> Host:
        """The HOST of the command line: `plain`, or an executable. Raises `UsageError` for kinds not built yet."""
        if host == "plain":
            return cls.plain(env)
        kind = host.partition(":")[0]
        if kind in ("pid", "core", "profile") and ":" in host:
            from dlwhy.errors import UsageError

            raise UsageError(f"host {host!r}: hosts of kind {kind!r} are not built yet")
        return cls.executable(host, env)


class Options(Record):
    """The options that every model of a process takes; paths as the process would see them."""

    sysroot: str | None = None
    """Everything is looked up inside this directory, as chroot(2) would."""
    loader: str | None = None
    """The loader to use instead of the program's PT_INTERP."""
    library_path: str | None = None
    """As ld.so --library-path."""
    libc: str | None = None
    """A release such as "glibc-2.31", instead of what the files say."""
    cwd: str | None = None
    """The working directory, this process's by default."""
    secure: bool = False
    """AT_SECURE."""
    caller: str | None = None
    """The object that calls dlopen; the program by default."""
    cpu: str | None = None
    """The processor: "x86-64" to "x86-64-v4", or one of Intel's as glibc up to 2.36 tells them apart ("haswell",
    "xeon_phi", "avx512_1"); of other machines as --cpu lists them. The one that dlwhy runs on by default."""


def check(
    steps: Sequence[str | os.PathLike[str]], host: Host | None = None, *, sysroot: str | None = None,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, caller: str | None = None, cpu: str | None = None,
) -> CheckReport:  # fmt: skip
    """Return whether these loads succeed, in this order, in one process of the host; without steps: whether it starts.

    Each step is `[FLAGS:]NAME`, `close:N`, `sym:N:NAME` or `call:N:NAME`. A library that does not load is a value of
    the report. Raises `UsageError` for a question that cannot be asked, other `DlwhyError` when dlwhy itself fails.
    """
    from dlwhy.diagnose import check as run

    options = Options(_path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu)
    return run([os.fspath(step) for step in steps], host, options)


def each(
    files: Sequence[str | os.PathLike[str]], host: Host | None = None, *, sysroot: str | None = None,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, caller: str | None = None, cpu: str | None = None,
) -> Iterator[CheckReport | FailedReport]:  # fmt: skip
    """Yield a report for every file, each in a fresh process of the host; directories and archives are walked.

    What dlwhy itself fails to examine has a `FailedReport`, and the others go on. Members of an archive are named
    ARCHIVE!/MEMBER; it is unpacked into a temporary directory, which is removed when the iterator is closed.
    Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.walk import each as run

    options = Options(_path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu)
    return run([os.fspath(file) for file in files], host, options)


def unresolved(
    files: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None, sysroot: str | None = None,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, cpu: str | None = None,
) -> Iterator[UnresolvedReport]:  # fmt: skip
    """Yield for every file all symbols and versions that nothing in its load set defines, as `ldd -r` lists them.

    Each file is taken by itself, as `ld.so FILE` would start it, with everything that it needs; what else a host may
    have loaded is not there, and `check` knows of it. Directories and archives are walked. `env` is the whole
    environment, this process's by default. What is read of a file serves all load sets that have it.
    Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.load_sets import unresolved as run

    options = Options(_path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, None, cpu)
    return run([os.fspath(file) for file in files], dict(os.environ if env is None else env), options)


def tls(files: Sequence[str | os.PathLike[str]], *, sysroot: str | None = None) -> TlsReport:
    """Return whose bytes are in the TLS segment of each file, and which relocations force it into the static block.

    A file that cannot be examined has its reason in the report.
    """
    from dlwhy.diagnose import tls as run

    return run([os.fspath(file) for file in files], Options(sysroot=_path(sysroot)))


def tree(
    file: str | os.PathLike[str], host: Host | None = None, *, sysroot: str | None = None, loader: str | None = None,
    library_path: str | None = None, libc: str | None = None, cwd: str | None = None, secure: bool = False,
    caller: str | None = None, cpu: str | None = None,
) -> TreeReport:  # fmt: skip
    """Return which objects come along with a file, found where and why, and which are missing, tried where.

    Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.diagnose import tree as run

    options = Options(_path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu)
    return run(os.fspath(file), host, options)


def _path(value: str | os.PathLike[str] | None) -> str | None:
    return None if value is None else os.fspath(value)
