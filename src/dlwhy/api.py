"""The library: what one can ask, in the words of the command line (interface, section 4)."""

from __future__ import annotations

import os

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dlwhy.hosts.profile import Profile
    from dlwhy.report import CheckReport, FailedReport, TreeReport, UnresolvedReport
    from dlwhy.report_diff import DiffReport
    from dlwhy.report_systems import FloorReport, MatrixReport
    from dlwhy.report_tls import TlsReport


class Host(Record):
    """Of which process the question is. Made by `Host.executable`, `Host.plain` or `Host.profile`."""

    kind: str
    """"executable", "plain", "inferred" from what is loaded, or "profile": the process that was captured."""
    target: str
    env: dict[str, str] | None
    """The whole environment; None for this process's own, or the captured one's."""
    captured: Profile | str | None = None
    """The captured system that the process runs in, or where its profile is; None for this system or a sysroot."""
    ours: bool = False
    """Whether the files that steps name are this machine's also where the captured system has files of these names."""

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
    def profile(
        cls, path: str | os.PathLike[str] | Profile, env: Mapping[str, str] | None = None, host: str | None = None
    ) -> Host:
        """The process that a profile captured, or another `host` of the captured system, as `named` takes it.

        `path` is a file that `dlwhy capture` wrote, the name of a profile that comes with dlwhy (`debian12`), or what
        `capture` returned. `env` is the whole environment, by default that of the captured process.
        """
        from dlwhy.hosts.profile import Profile

        captured = path if isinstance(path, Profile) else os.fspath(path)
        if host is None:
            return cls("profile", "", None if env is None else dict(env), captured)
        return cls.named(host, env).but(captured=captured)

    @classmethod
    def named(cls, host: str, env: Mapping[str, str] | None = None) -> Host:
        """The HOST of the command line: `plain`, `profile:…`, or an executable.

        Raises `UsageError` for kinds not built yet.
        """
        if host == "plain":
            return cls.plain(env)
        kind, colon, rest = host.partition(":")
        if kind == "profile" and colon:
            from dlwhy.hosts.profile import split

            where, within = split(rest)
            return cls.profile(where, env, within)
        if kind in ("pid", "core") and colon:
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
    """A release such as "glibc-2.31" or "musl-1.2.3", instead of what the files say."""
    cwd: str | None = None
    """The working directory, this process's by default."""
    secure: bool = False
    """AT_SECURE."""
    caller: str | None = None
    """The object that calls dlopen; the program by default."""
    cpu: str | None = None
    """The processor: "x86-64" to "x86-64-v4", or one of Intel's as glibc up to 2.36 tells them apart ("haswell",
    "xeon_phi", "avx512_1"); of other machines as --cpu lists them. The one that dlwhy runs on by default."""
    interp: str | None = None
    """PT_INTERP of a `plain` host, which tells its machine; by default the first of the psABIs' that is there."""
    lock: str | None = None
    """The Cargo.lock that the files were built with (a path of this system); looked for near each file by default."""
    code: bool = True
    """Whether the instructions behind TLS relocations are looked for, which reads all code of a file."""
    debug_dirs: tuple[str, ...] = ()
    """Directories of separate debug files, searched before /usr/lib/debug; with a sysroot inside of it, for a host of a
    profile in this system."""
    map: str | None = None
    """The linker's map of the one file."""
    debuginfod: bool = False
    """Whether debug files that are not here may be asked of the servers that DEBUGINFOD_URLS names."""
    guesses: bool = True
    """Whether constants are looked for that may be opened by dlopen in what comes along with a file, too."""
    triggers: int | None = None
    """Of how many triggers of a file it is told whose code is behind them; None: of all."""


def check(
    steps: Sequence[str | os.PathLike[str]], host: Host | None = None, *, sysroot: str | None = None,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, caller: str | None = None, cpu: str | None = None, lock: str | None = None,
    debug_dirs: Sequence[str | os.PathLike[str]] = (),
) -> CheckReport:  # fmt: skip
    """Return whether these loads succeed, in this order, in one process of the host; without steps: whether it starts.

    Each step is `[FLAGS:]NAME`, `close:N`, `sym:N:NAME` or `call:N:NAME`. A library that does not load is a value of
    the report. Raises `UsageError` for a question that cannot be asked, other `DlwhyError` when dlwhy itself fails.
    Where static TLS is what fails, `debug_dirs` and `lock` help to say who, as in `tls`.
    """
    from dlwhy.diagnose import check as run

    options = Options(
        _path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu, lock=_path(lock),
        debug_dirs=tuple(os.fspath(one) for one in debug_dirs),
    )  # fmt: skip
    return run([os.fspath(step) for step in steps], host, options)


def each(
    files: Sequence[str | os.PathLike[str]], host: Host | None = None, *, sysroot: str | None = None,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, caller: str | None = None, cpu: str | None = None, lock: str | None = None,
    debug_dirs: Sequence[str | os.PathLike[str]] = (),
) -> Iterator[CheckReport | FailedReport]:  # fmt: skip
    """Yield a report for every file, each in a fresh process of the host; directories and archives are walked.

    What dlwhy itself fails to examine has a `FailedReport`, and the others go on. Members of an archive are named
    ARCHIVE!/MEMBER; it is unpacked into a temporary directory, which is removed when the iterator is closed.
    Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.walk import each as run

    options = Options(
        _path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu, lock=_path(lock),
        debug_dirs=tuple(os.fspath(one) for one in debug_dirs),
    )  # fmt: skip
    return run([os.fspath(file) for file in files], host, options)


def on(
    files: Sequence[str | os.PathLike[str]], systems: Sequence[str | os.PathLike[str]], host: Host | None = None, *,
    loader: str | None = None, library_path: str | None = None, libc: str | None = None, cwd: str | None = None,
    secure: bool = False, caller: str | None = None, cpu: str | None = None,
) -> MatrixReport:  # fmt: skip
    """Return what each of several systems makes of every file, each in a fresh process of that system's host.

    `systems` are as `--on` takes them: names that come with dlwhy, `all`, paths of profiles, `sysroot:DIR`. Directories
    and archives are walked. Each file is examined as if its directory stood at the same path inside the system, so
    that what it finds by $ORIGIN comes along. The host is looked up in the system; its environment is empty unless it
    is given. Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.matrix import on as run

    if host is not None and host.env is None:
        host = host.but(env={})
    options = Options(None, _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu)
    return run([os.fspath(file) for file in files], [os.fspath(one) for one in systems], host, options)


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


def capture(
    host: Host | None = None, *, names: Sequence[str | os.PathLike[str]] = (), everything: bool = False,
    sysroot: str | None = None, loader: str | None = None, library_path: str | None = None, libc: str | None = None,
    cwd: str | None = None, secure: bool = False, caller: str | None = None, cpu: str | None = None,
) -> Profile:  # fmt: skip
    """Return the profile of a host (by default `Host.plain`): all that a check in it needs, on whatever machine.

    It holds the start of the process, libraries that many others need, and what `names` asks for: sonames, files, and
    directories, whose files are all taken; with `everything` every library in the search directories.
    `Profile.text` is the file that `Host.profile` reads. Raises `UsageError`, `DlwhyError`.
    """
    from dlwhy.capturing import Wanted
    from dlwhy.capturing import capture as run

    options = Options(_path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu)
    return run(host, options, Wanted(tuple(os.fspath(name) for name in names), everything))


def floor(files: Sequence[str | os.PathLike[str]]) -> FloorReport:
    """Return what each file, with the libraries that come with it, needs a system to have at the least.

    Each floor has the symbol or property that sets it, and what the next lower ones would be. Directories and archives
    are walked, and their files also taken together. A file that cannot be examined has its reason in the report.
    """
    from dlwhy.floors import floor as run

    return run([os.fspath(file) for file in files], Options())


def tls(
    files: Sequence[str | os.PathLike[str]], *, sysroot: str | None = None, code: bool = True,
    debug_dirs: Sequence[str | os.PathLike[str]] = (), map: str | os.PathLike[str] | None = None,  # noqa: A002
    lock: str | os.PathLike[str] | None = None, debuginfod: bool = False, triggers: int | None = None,
) -> TlsReport:  # fmt: skip
    """Return whose bytes are in the TLS segment of each file, and which code forces it into the static block.

    Without `code` the instructions behind the relocations are not looked for, which reads all code of the file. With
    `triggers` it is told whose they are of so many triggers, the first of each file; of the others they are counted.
    Names also come from separate debug files, found by build-id or `.gnu_debuglink` in `debug_dirs` and in
    /usr/lib/debug, with `debuginfod` from the servers that DEBUGINFOD_URLS names (nothing else of dlwhy uses the
    network), and from `map`, the linker's map of the only file. `lock` is the Cargo.lock that they were built
    with, looked for near each file by default; it tells why a crate is in there. A file that cannot be examined, or a
    map that cannot be opened, has its reason in the report. Raises `UsageError` for a map with several files,
    `FilesError` without such a lock file.
    """
    from dlwhy.bills import tls as run

    debug = tuple(os.fspath(one) for one in debug_dirs)
    options = Options(
        sysroot=_path(sysroot), code=code, debug_dirs=debug, map=_path(map), lock=_path(lock), debuginfod=debuginfod,
        triggers=triggers,
    )  # fmt: skip
    return run([os.fspath(file) for file in files], options)


def diff(
    old: str | os.PathLike[str], new: str | os.PathLike[str], host: Host | None = None, *,
    systems: Sequence[str | os.PathLike[str]] = (), sysroot: str | None = None, loader: str | None = None,
    library_path: str | None = None, libc: str | None = None, cwd: str | None = None, secure: bool = False,
    caller: str | None = None, cpu: str | None = None, code: bool = True,
    debug_dirs: Sequence[str | os.PathLike[str]] = (), lock: str | os.PathLike[str] | None = None,
    old_lock: str | os.PathLike[str] | None = None, map: str | os.PathLike[str] | None = None,  # noqa: A002
    old_map: str | os.PathLike[str] | None = None,
) -> DiffReport:  # fmt: skip
    """Return what changed from OLD to NEW in loadability and in TLS: bytes by owner and variable, triggers, verdicts.

    Both are files, or both directories or archives, whose files are paired by name. Each file is checked at its own
    path in a process of the host, or with `systems` (as `on` takes them) in one of each system. `lock` and `map` are
    the Cargo.lock and the linker's map of NEW, `old_lock` and `old_map` those of OLD. A file that cannot be examined
    has its reason in the report. Raises `UsageError` for a question that cannot be asked, `DlwhyError` for an archive
    that cannot be read.
    """
    from dlwhy.diffs import diff as run

    if systems and host is not None and host.env is None:
        host = host.but(env={})
    options = Options(
        _path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu, None, _path(lock),
        code, tuple(os.fspath(one) for one in debug_dirs), _path(map),
    )  # fmt: skip
    both = (options.but(lock=_path(old_lock), map=_path(old_map)), options)
    return run(os.fspath(old), os.fspath(new), host, both, [os.fspath(one) for one in systems])


def tree(
    file: str | os.PathLike[str], host: Host | None = None, *, sysroot: str | None = None, loader: str | None = None,
    library_path: str | None = None, libc: str | None = None, cwd: str | None = None, secure: bool = False,
    caller: str | None = None, cpu: str | None = None, guesses: bool = True,
) -> TreeReport:  # fmt: skip
    """Return which objects come along with a file, found where and why, and which are missing, tried where.

    Without `guesses` constants that may be opened by dlopen are looked for in the file alone, not in what comes along.
    Raises `UsageError` for a question that cannot be asked.
    """
    from dlwhy.trees import tree as run

    options = Options(
        _path(sysroot), _path(loader), library_path, libc, _path(cwd), secure, _path(caller), cpu, guesses=guesses
    )
    return run(os.fspath(file), host, options)


def _path(value: str | os.PathLike[str] | None) -> str | None:
    return None if value is None else os.fspath(value)
