"""main: arguments -> library -> text. The only print and the only exit status."""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

    from dlwhy.api import Host
    from dlwhy.report import CheckReport, TlsReport, TreeReport

    Report = CheckReport | TlsReport | TreeReport

_PIPE_CLOSED = 141
"""As a shell reports a process that SIGPIPE ended."""
_INTERRUPTED = 130


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status (interface, Exit status).

    Without `argv` it is the process's own, and the process ends here: to take every object of an analysis apart costs
    a tenth of the time of `check`, and nobody is left who could use the memory.
    """
    status = _guarded(sys.argv[1:] if argv is None else argv)
    if argv is None:
        import os

        os._exit(status)
    return status


def _guarded(words: list[str]) -> int:
    try:
        status = _run(words)
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


def _run(words: list[str]) -> int:
    _tolerant_output()
    if words in (["--version"], ["-V"]):
        from dlwhy import __version__

        sys.stdout.write(f"dlwhy {__version__}\n")
        return 0
    import gc

    from dlwhy.errors import DlwhyError, UsageError

    gc.disable()  # one short run that frees everything at its end: collecting on the way costs up to half of the time
    try:
        command, arguments = _parse(words)
    except SystemExit as stop:  # argparse has said why
        return stop.code if isinstance(stop.code, int) else 2
    try:
        return _command(command, arguments)
    except UsageError as error:
        sys.stderr.write(f"dlwhy {command}: {error}\n")
        return 2
    except DlwhyError as error:
        sys.stderr.write(f"dlwhy {command}: {error}\n")
        return 1


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


def _parse(words: list[str]) -> tuple[str, argparse.Namespace]:
    from dlwhy.cli.arguments import COMMANDS, build

    if not words or words[0] not in COMMANDS:
        if words and not words[0].startswith("-"):
            from os.path import exists

            if exists(words[0]):
                sys.stderr.write(f"dlwhy: name a command first, e.g. `dlwhy check {words[0]}`\n")
                raise SystemExit(2)
        build(None).parse_args(words)
        raise SystemExit(2)
    return words[0], build(words[0]).parse_args(words[1:])


def _command(command: str, arguments: argparse.Namespace) -> int:
    from dlwhy.errors import UsageError

    formats = [arguments.format, *(item.partition("=")[0] for item in arguments.outputs)]
    for name in formats:
        if name not in ("text", "json"):
            raise UsageError(f"format {name!r} is not built yet; text and json are")
    for item in arguments.outputs:
        if not item.partition("=")[2]:
            raise UsageError(f"-o {item}: write FORMAT=PATH")
    statuses: list[int] = []
    sinks = _Sinks(arguments)
    for report in _reports(command, arguments):
        sinks.write(report)
        statuses.append(report.exit_status)
    sinks.close()
    if not statuses:
        sys.stderr.write(f"dlwhy {command}: nothing to examine: no file was named\n")
        return 3
    from dlwhy.report import worst

    return worst(statuses)


def _reports(command: str, arguments: argparse.Namespace) -> Iterator[Report]:
    from dlwhy import api

    if command == "tls":
        if arguments.files:
            yield api.tls(arguments.files, sysroot=arguments.sysroot)
        return
    host = _host(arguments)
    options = {
        "sysroot": arguments.sysroot, "loader": arguments.loader, "library_path": arguments.library_path, "libc": arguments.libc,
        "cwd": arguments.cwd, "secure": arguments.secure, "caller": arguments.caller,
    }  # fmt: skip
    if command == "tree":
        yield api.tree(arguments.file, host, **options)
    elif arguments.each:
        for path in _each(arguments.steps):
            yield api.check([path], host, **options)
    elif arguments.steps or host is not None:
        yield api.check(arguments.steps, host, **options)


def _each(paths: list[str]) -> Iterator[str]:
    """Every file named, directories walked in the order of their names; only what may be a library or program."""
    import os

    for path in paths:
        if not os.path.isdir(path):
            yield path if "/" in path or not os.path.exists(path) else f"./{path}"
            continue
        for directory, subdirectories, names in os.walk(path):
            subdirectories.sort()
            for name in sorted(names):
                full = f"{directory}/{name}"
                if not os.path.islink(full) and _is_elf(full):
                    yield full


def _is_elf(path: str) -> bool:
    from dlwhy.errors import DlwhyError
    from dlwhy.files import Files

    files = Files()
    try:
        view = files.open(path)
        return view.regular and view.head[:4] == b"\x7fELF"
    except DlwhyError:
        return False
    finally:
        files.close()


def _host(arguments: argparse.Namespace) -> Host | None:
    from dlwhy.api import Host
    from dlwhy.errors import UsageError

    changes: dict[str, str] = {}
    for item in arguments.env:
        name, equals, value = item.partition("=")
        if not equals or not name:
            raise UsageError(f"--env {item}: write NAME=VALUE")
        changes[name] = value
    if not changes and not arguments.clear_env:
        return Host.named(arguments.host) if arguments.host is not None else None
    import os

    env = {} if arguments.clear_env else dict(os.environ)
    env.update(changes)
    if arguments.host is None:
        return Host.inferred(env)
    return Host.named(arguments.host, env)


class _Sinks:
    """Where reports go: standard output in the format asked for, and a file for each -o."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._files: list[tuple[str, str, list[str]]] = []
        for item in arguments.outputs:
            name, _, path = item.partition("=")
            self._files.append((name, path, []))

    def write(self, report: Report) -> None:
        """Render one report everywhere."""
        arguments = self._arguments
        sys.stdout.write(_rendered(report, arguments.format, arguments, sys.stdout))
        sys.stdout.flush()
        for name, _, parts in self._files:
            parts.append(_rendered(report, name, arguments, None))

    def close(self) -> None:
        """Write the files. Raises `FilesError`."""
        from dlwhy.errors import FilesError

        for _, path, parts in self._files:
            try:
                with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
                    file.write("".join(parts))
            except OSError as error:
                raise FilesError(path, error.errno or 0, error.strerror or str(error)) from None


def _rendered(report: Report, name: str, arguments: argparse.Namespace, stream: object) -> str:
    if name == "json":
        from dlwhy.render.json_v1 import render

        return render(report)
    from dlwhy.render import text

    style = text.Style(
        width=_width(stream), color=_colored(arguments.color, stream), unicode=_unicode(stream), verbose=arguments.verbose,
        quiet=arguments.quiet,
    )  # fmt: skip
    functions: dict[str, Callable[..., str]] = {"check": text.check, "tls": text.tls, "tree": text.tree}
    return functions[report.command](report, style)


def _width(stream: object) -> int:
    import os

    try:
        return os.get_terminal_size(stream.fileno()).columns  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        columns = os.environ.get("COLUMNS", "")
        return int(columns) if columns.isdigit() and int(columns) > 0 else 120


def _colored(wish: str, stream: object) -> bool:
    import os

    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or stream is None:
        return False
    return bool(stream.isatty())  # type: ignore[attr-defined]


def _unicode(stream: object) -> bool:
    return stream is None or (getattr(stream, "encoding", "") or "").lower().replace("-", "").startswith("utf")
