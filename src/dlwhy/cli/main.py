"""main: arguments -> library -> text. The only print and the only exit status."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Generator, Sequence
    from types import SimpleNamespace
    from typing import Any, TextIO

    from dlwhy.api import Host
    from dlwhy.render.style import Style
    from dlwhy.report_diff import Report

    Arguments = argparse.Namespace | SimpleNamespace

_PROCESS = ("sysroot", "loader", "library_path", "libc", "cwd", "secure", "cpu")
"""The options that every command with a process has."""
_PIPE_CLOSED = 141
"""As a shell reports a process that SIGPIPE ended."""
_INTERRUPTED = 130
_WIDTH = 120
"""Columns where nothing tells."""
_WIDEST = 160
"""Columns that are used at most: what stands at the right end of a line belongs to its left end."""


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status (interface, Exit status).

    Without `argv` it is the process's own, and the process ends here: to take every object of an analysis apart costs
    a tenth of the time of `check`, and nobody is left who could use the memory.
    """
    status = _guarded(sys.argv[1:] if argv is None else argv, argv is None)
    if argv is None:
        import os

        os._exit(status)
    return status


def _guarded(words: list[str], last: bool) -> int:
    """Run a command line; `last`: nothing comes after it in this process."""
    try:
        status = _run(words, last)
        sys.stdout.flush()
        sys.stderr.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except OSError as error:  # of our own output only: what cannot be read is a DlwhyError or part of the report
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still in the buffer has no other place to go
        if isinstance(error, BrokenPipeError):
            return _PIPE_CLOSED  # whoever read us has gone; nothing is left to say
        sys.stderr.write(f"dlwhy: cannot write to standard output: {error.strerror}\n")
        return 1
    return status


def _run(words: list[str], last: bool) -> int:
    _tolerant_output()
    if words in (["--version"], ["-V"]):
        from dlwhy import __version__

        sys.stdout.write(f"dlwhy {__version__}\n")
        return 0
    import gc

    collects = gc.isenabled()
    gc.disable()  # one short run that frees everything at its end: collecting on the way costs up to half of the time
    try:
        return _attempt(words)
    finally:
        if collects and not last:
            gc.enable()


def _attempt(words: list[str]) -> int:
    from dlwhy.errors import DlwhyError, UsageError

    try:
        command, arguments = _parse(words)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return _command(command, arguments)
    except DlwhyError as error:
        _complain(command, str(error))
        return 2 if isinstance(error, UsageError) else 1
    except RecursionError:
        _complain(command, "libraries need one another more levels deep than dlwhy follows")
        return 1


def _complain(command: str, text: str) -> None:
    """Say one sentence; what names a file may hold is made harmless for a terminal."""
    from dlwhy.render.style import printable

    sys.stderr.write(f"dlwhy {command}: {printable(text)}\n")


def _tolerant_output() -> None:
    """File names are bytes: print them as they are, whatever the locale thinks of them."""
    if sys.stdout is None or sys.stderr is None:  # started with a closed descriptor, which the next open would get
        import os

        while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        sys.stdout = sys.stdout or os.fdopen(nowhere, "w", closefd=False)
        sys.stderr = sys.stderr or os.fdopen(nowhere, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            utf = (stream.encoding or "").lower().startswith("utf")
            stream.reconfigure(errors="surrogateescape" if utf else "backslashreplace")


def _parse(words: list[str]) -> tuple[str, Arguments]:
    from dlwhy.cli.plain import plain

    found = plain(words)
    if found is not None:
        return words[0], found
    from dlwhy.cli.arguments import COMMANDS, build

    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-"):
            from os.path import exists

            if exists(words[0]):
                from dlwhy.render.style import printable

                sys.stderr.write(f"dlwhy: name a command first, e.g. `dlwhy check {printable(words[0])}`\n")
                raise SystemExit(2)
        build(None).parse_args(words)
        raise SystemExit(2)
    return words[0], build(words[0]).parse_args(words[1:])


def _command(command: str, arguments: Arguments) -> int:
    from dlwhy.errors import UsageError

    if command == "capture":
        return _capture(arguments)
    for item in arguments.outputs:
        from dlwhy.cli.arguments import FORMATS

        name, _, path = item.partition("=")
        if name not in FORMATS or not path:
            raise UsageError(f"-o {item}: write FORMAT=PATH, FORMAT being {' or '.join(FORMATS)}")
    wanted = (arguments.format, *(item.partition("=")[0] for item in arguments.outputs))
    if "markdown" in wanted and (command != "check" or not arguments.on):
        raise UsageError("markdown: only the matrix of check --on is drawn so")
    statuses: list[int] = []
    sinks = _Sinks(arguments)
    reports = _reports(command, arguments)
    try:
        for report in reports:
            sinks.write(report)
            statuses.append(report.exit_status)
    finally:
        reports.close()  # an archive that was unpacked is removed, also when whoever reads us has gone
    if not statuses:
        named = arguments.steps if command == "check" else arguments.files if command in ("unresolved", "floor") else []
        named = [arguments.old, arguments.new] if command == "diff" and arguments.old is not None else named
        what = f"no program and no library in {', '.join(named)}" if named else "no file was named"
        _complain(command, f"nothing to examine: {what}")
        return 3
    from dlwhy.report import worst

    return worst(statuses)


def _capture(arguments: Arguments) -> int:
    """Write the profile of a host. Raises `DlwhyError`."""
    from dlwhy import api
    from dlwhy.errors import FilesError

    host = _host(arguments) or api.Host.plain()
    if host.kind == "inferred":
        host = api.Host.plain(host.env)
    options = {name: getattr(arguments, name) for name in (*_PROCESS, "caller")}
    text = api.capture(host, names=arguments.names, everything=arguments.with_all, **options).text()
    if arguments.output is None:
        sys.stdout.write(text)
        return 0
    try:
        with open(arguments.output, "w", encoding="ascii") as file:
            file.write(text)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FilesError(arguments.output, 0, f"cannot be written: {reason}") from None
    return 0


def _short(arguments: Arguments) -> bool:
    """Whether nothing but the short text is wanted: what that does not show is not looked for."""
    return arguments.format == "text" and not (arguments.verbose or arguments.outputs)


def _reports(command: str, arguments: Arguments) -> Generator[Report]:
    from dlwhy import api

    if command == "tls":
        if arguments.files:
            sources = {"code": arguments.code, "debug_dirs": arguments.debug_dir, "map": arguments.map}
            sources["debuginfod"] = arguments.debuginfod
            if _short(arguments):
                from dlwhy.render.text_tls import TRIGGERS

                sources["triggers"] = TRIGGERS
            yield api.tls(arguments.files, sysroot=arguments.sysroot, lock=arguments.lock, **sources)
        return
    if command == "diff":
        yield from _diff(arguments)
        return
    if command == "floor":
        floors = api.floor(arguments.files)
        if floors.files:
            yield floors
        return
    if command == "unresolved":
        if arguments.files:
            common = {name: getattr(arguments, name) for name in _PROCESS}
            yield from api.unresolved(arguments.files, env=_environment(arguments), **common)
        return
    host = _host(arguments)
    options = {name: getattr(arguments, name) for name in (*_PROCESS, "caller")}
    if command == "tree":
        if arguments.file is not None:
            yield api.tree(arguments.file, host, guesses=not _short(arguments), **options)
    elif arguments.on:
        yield from _matrix(arguments, host)
    elif arguments.each:
        import gc

        gc.enable()  # many processes are modelled one after the other, and each is gone when the next begins
        yield from api.each(arguments.steps, host, lock=arguments.lock, debug_dirs=arguments.debug_dir, **options)
    elif arguments.steps or host is not None:
        yield api.check(arguments.steps, host, lock=arguments.lock, debug_dirs=arguments.debug_dir, **options)


def _diff(arguments: Arguments) -> Generator[Report]:
    """The report of diff, if there is anything to compare. Raises `UsageError`."""
    import gc

    from dlwhy import api
    from dlwhy.errors import UsageError

    if arguments.old is None:
        return
    if arguments.new is None:
        raise UsageError("name two: OLD and NEW")
    if arguments.on and arguments.sysroot is not None:
        raise UsageError("--on with --sysroot: write --on sysroot:DIR")
    gc.enable()
    options = {name: getattr(arguments, name) for name in (*_PROCESS, "caller")}
    report = api.diff(
        arguments.old, arguments.new, _host(arguments), systems=_listed(arguments.on), code=arguments.code,
        debug_dirs=arguments.debug_dir, lock=arguments.lock, old_lock=arguments.old_lock, map=arguments.map,
        old_map=arguments.old_map, **options,
    )  # fmt: skip
    if report.files:
        yield report


def _listed(items: Sequence[str]) -> list[str]:
    return [word for item in items for word in item.split(",") if word]


def _matrix(arguments: Arguments, host: Host | None) -> Generator[Report]:
    """The report of --on, if there is anything to report on. Raises `UsageError`."""
    import gc

    from dlwhy import api
    from dlwhy.errors import UsageError

    if arguments.sysroot is not None:
        raise UsageError("--on with --sysroot: write --on sysroot:DIR")
    gc.enable()
    options = {name: getattr(arguments, name) for name in (*_PROCESS, "caller") if name != "sysroot"}
    report = api.on(arguments.steps, _listed(arguments.on), host, **options)
    if report.rows:
        yield report


def _host(arguments: Arguments) -> Host | None:
    from dlwhy.api import Host

    if arguments.host is not None and arguments.host.startswith("profile:"):
        return _in_profile(arguments)
    env = _environment(arguments)
    if env is None:
        return Host.named(arguments.host) if arguments.host is not None else None
    if arguments.host is None:
        return Host.inferred(env)
    return Host.named(arguments.host, env)


def _in_profile(arguments: Arguments) -> Host:
    """A host in a captured system: what --env changes, it changes of that process's environment."""
    from dlwhy.api import Host
    from dlwhy.hosts.profile import load, split

    where, within = split(arguments.host.partition(":")[2])
    profile = load(where)
    own = {} if arguments.clear_env or within is not None else profile.environment
    return Host.profile(profile, own | _changes(arguments), within)


def _environment(arguments: Arguments) -> dict[str, str] | None:
    """The environment that the options ask for; None for this process's own. Raises `UsageError`."""
    changes = _changes(arguments)
    if not changes and not arguments.clear_env:
        return None
    import os

    bare = arguments.clear_env or getattr(arguments, "on", ())  # another system has nothing of this environment
    return ({} if bare else dict(os.environ)) | changes


def _changes(arguments: Arguments) -> dict[str, str]:
    """The variables that --env sets. Raises `UsageError`."""
    from dlwhy.errors import UsageError

    changes: dict[str, str] = {}
    for item in arguments.env:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {item}: write NAME=VALUE")
        changes[name] = value
    return changes


class _Sinks:
    """Where reports go: standard output in the format asked for, and a file for each -o."""

    def __init__(self, arguments: Arguments) -> None:
        """Open the files, before any work is done. Raises `FilesError`."""
        from dlwhy.errors import FilesError

        self._arguments = arguments
        self._written = 0
        self._styles: dict[bool, Style] = {}
        """How text is drawn: into files, and on standard output."""
        self._files: list[tuple[str, str, TextIO]] = []
        for item in arguments.outputs:
            name, _, path = item.partition("=")
            try:
                file = open(path, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115 -- until the process ends
                self._files.append((name, path, file))
            except (OSError, ValueError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                raise FilesError(path, 0, f"cannot be written: {reason}") from None

    def write(self, report: Report) -> None:
        """Render one report everywhere. Raises `FilesError`."""
        from dlwhy.errors import FilesError

        sys.stdout.write(self._rendered(report, self._arguments.format, sys.stdout))
        sys.stdout.flush()
        for name, path, file in self._files:
            try:
                file.write(self._rendered(report, name, None))
                file.flush()
            except OSError as error:
                raise FilesError(path, 0, f"cannot be written: {error.strerror}") from None
        self._written += 1

    def _rendered(self, report: Report, name: str, stream: object) -> str:
        arguments = self._arguments
        alone = report.command == "unresolved"
        many = alone or getattr(arguments, "each", False)
        if name == "json":
            from dlwhy.render.json_v1 import render

            return render(report, line=many)
        if name == "markdown":
            from dlwhy.render.markdown import matrix

            return matrix(report)  # type: ignore[arg-type]  # held by _command
        style = self._styles.get(stream is None)
        if style is None:
            from dlwhy.render.style import Style

            style = self._styles[stream is None] = Style(
                width=_width(stream), color=_colored(arguments.color, stream), unicode=_unicode(stream),
                verbose=arguments.verbose, quiet=arguments.quiet,
            )  # fmt: skip
        between = "\n" if many and self._written and not (arguments.quiet or alone) else ""
        return between + _text(report, style)


def _text(report: Any, style: Style) -> str:
    """Only the renderer that is needed is imported."""
    if report.command == "tls":
        from dlwhy.render.text_tls import tls

        return tls(report, style)
    if report.command == "tree":
        from dlwhy.render.text_tree import tree

        return tree(report, style)
    if report.command == "diff":
        from dlwhy.render.text_diff import diff

        return diff(report, style)
    if report.command == "floor":
        from dlwhy.render.text_floor import floor

        return floor(report, style)
    if report.command == "unresolved":
        from dlwhy.render.text_unresolved import unresolved

        return unresolved(report, style)
    if hasattr(report, "rows"):
        from dlwhy.render.text_matrix import matrix

        return matrix(report, style)
    from dlwhy.render import text

    return text.failed(report, style) if report.exit_status == 1 else text.check(report, style)


def _width(stream: object) -> int:
    import os

    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) < 5 and int(columns) > 0:
        return min(int(columns), _WIDEST)
    try:
        return min(os.get_terminal_size(stream.fileno()).columns or _WIDTH, _WIDEST)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return _WIDTH


def _colored(wish: str, stream: object) -> bool:
    import os

    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or stream is None:
        return False
    return bool(stream.isatty())  # type: ignore[attr-defined]


def _unicode(stream: object) -> bool:
    return stream is None or (getattr(stream, "encoding", "") or "").lower().replace("-", "").startswith("utf")
