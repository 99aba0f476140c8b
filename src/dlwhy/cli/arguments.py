"""Every option, in one file. Only the parser of the command that is asked for is built: that is what start-up costs."""

from __future__ import annotations

import argparse
import os
import sys

COMMANDS: dict[str, str] = {
    "check": "would these loads succeed, in this order, in that process, and if not: why, who, what cures it",
    "tls": "whose bytes are in the TLS segment, and which relocations force it into the static block",
    "tree": "which objects come along, found where and why; which are missing, tried where",
}
"""Command -> the question it answers."""

_STEP = """\
STEP is a path or soname exactly as dlopen would get it, with flags in front if wanted: FLAGS:NAME, FLAGS being words joined by '-'
out of now lazy global local deepbind nodelete noload newns (global-lazy:./libfoo.so). Further steps: close:N, sym:N:NAME,
call:N:NAME, N being the number of an earlier step. A program given alone, without --host, is taken as the host: would it start?"""
_STATUS = """\
exit status: 0 would load; 10 would fail or die; 11 undecided, with the missing fact named; 1 dlwhy itself failed; 2 usage;
3 nothing to examine"""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """The text of --help. argparse makes one for every option, and would import shutil (1.2 ms) to ask for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width() - 2)


def _width() -> int:
    """Columns, as shutil.get_terminal_size finds them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdigit() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # closed, or none, or no terminal
        return 80


def build(command: str | None) -> argparse.ArgumentParser:
    """Return the parser of one command, or of `dlwhy` itself for None."""
    if command is None:
        lines = "\n".join(f"  {name:8}{text}" for name, text in COMMANDS.items())
        parser = argparse.ArgumentParser(
            prog="dlwhy",
            formatter_class=_Formatter,
            description="The dynamic-linker detective: will a native library load in a given process, and if not, why?",
            epilog=f"commands:\n{lines}\n\n`dlwhy COMMAND --help` tells more. Nothing under examination is executed or loaded.",
        )
        parser.add_argument("--version", action="store_true", help="print the version and exit")
        parser.add_argument("command", metavar="COMMAND", choices=tuple(COMMANDS), help="check, tls or tree")
        return parser
    parser = argparse.ArgumentParser(
        prog=f"dlwhy {command}",
        formatter_class=_Formatter,
        description=COMMANDS[command][0].upper() + COMMANDS[command][1:] + "?",
        epilog=f"{_STEP}\n\n{_STATUS}" if command == "check" else _STATUS,
    )
    if command == "check":
        parser.add_argument("steps", metavar="STEP", nargs="*", help="what to load, in this order, in one process")
        parser.add_argument(
            "--each", action="store_true", help="every FILE (directories are walked) in a fresh process, one report each"
        )
    elif command == "tls":
        parser.add_argument("files", metavar="FILE", nargs="*", help="ELF files")
        parser.add_argument("--sysroot", metavar="DIR", help="look everything up inside DIR, as chroot would")
    else:
        parser.add_argument("file", metavar="FILE", help="a library, as dlopen would get it, or a program")
    if command != "tls":
        _process(parser)
    _output(parser)
    return parser


def _process(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the process")
    group.add_argument(
        "--host", metavar="HOST", help="an executable (path, or name in PATH) or `plain`, a C program that needs only libc; inferred without"
    )
    group.add_argument(
        "--env", metavar="NAME=VALUE", action="append", default=[], help="set a variable of its environment (repeatable)"
    )
    group.add_argument("--clear-env", action="store_true", help="start from an empty environment")
    group.add_argument("--cwd", metavar="DIR", help="its working directory")
    group.add_argument("--sysroot", metavar="DIR", help="look everything up inside DIR, as chroot would")
    group.add_argument("--loader", metavar="FILE", help="the loader to use, as `ld.so PROG`")
    group.add_argument("--library-path", metavar="DIRS", help="as `ld.so --library-path DIRS PROG`")
    group.add_argument("--libc", metavar="RELEASE", help="override what the files say, e.g. glibc-2.31")
    group.add_argument("--secure", action="store_true", help="AT_SECURE: as a set-user-ID program")
    group.add_argument("--caller", metavar="FILE", help="the object that calls dlopen")


def _output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=("text", "json", "sarif", "html"), default="text", help="default: text")
    group.add_argument(
        "-o", dest="outputs", metavar="FORMAT=PATH", action="append", default=[], help="write FORMAT to PATH as well (repeatable)"
    )
    group.add_argument("--color", choices=("auto", "always", "never"), default="auto", help="NO_COLOR is honoured")
    group.add_argument("-v", "--verbose", action="store_true", help="the block drawn, every search, every assumption")
    group.add_argument("-q", "--quiet", action="store_true", help="the verdict and the loader's words only")
