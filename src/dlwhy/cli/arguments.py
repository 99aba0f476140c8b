"""Every option, in one file. Only the parser of the command that is asked for is built: that is what start-up costs."""

from __future__ import annotations

import argparse
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

COMMANDS: dict[str, str] = {
    "check": "would these loads succeed, in this order, in that process, and if not: why, who, what cures it",
    "tls": "whose bytes are in the TLS segment, and which code forces it into the static block",
    "tree": "which objects come along, found where and why; which are missing, tried where",
    "diff": "what changed from one build to the next in loadability and in TLS, by owner",
    "capture": "which facts of a host does a check in it need, written as a profile for other machines",
    "unresolved": "which symbols and versions does nothing define in the load set of each file, as ldd -r lists them",
    "floor": "what is the smallest system that has all a file asks for, and which symbol or property sets it",
}
"""Command -> the question it answers."""

FORMATS = ("text", "json", "markdown")
"""What --format and -o accept; the last of `check --on`."""

_STEP = """\
STEP is a path or soname exactly as dlopen would get it, with flags in front if wanted: FLAGS:NAME, FLAGS being words
joined by '-' out of now lazy global local deepbind nodelete noload newns (global-lazy:./libfoo.so). Further steps:
close:N, sym:N:NAME, call:N:NAME, N being the number of an earlier step. A program given alone, without --host, is taken
as the host: would it start? Without any STEP: would the host start?

With --each every operand is a file, a directory or an archive (zip, wheel, jar, tar); a member of an archive is shown
as ARCHIVE!/MEMBER. With --format json each report is one line."""
_HOST = """\
HOST is an executable (path, or name in PATH) or `plain`, the default. The profile holds what it starts with, libraries
that many others need, and where the process looks for libraries; --with and --with-all add to it. `--host profile:FILE`
then asks of that process, `--host profile:FILE:HOST` of another one in that system."""
_STATUS = """\
exit status: 0 would load; 10 would fail or die; 11 undecided, with the missing fact named; 1 dlwhy itself failed;
2 usage; 3 nothing to examine"""


_DIFF = """\
OLD and NEW are each examined at their own path, in a process of the same host: that of --host, or what the names tell.
The bytes are those of NEW less those of OLD; "?" marks what may have been there without a name. The exit status is 10
when a file loads worse than before (what loaded fails, what failed kills the process, or what is new does not load),
and 11 when that is undecided of OLD or of NEW; that both fail is no change."""


class _Parser(argparse.ArgumentParser):
    """A parser that complains in one sentence and takes no abbreviations, which a later option could make ambiguous."""

    def __init__(self, prog: str, description: str, epilog: str) -> None:
        super().__init__(prog, description=description, epilog=epilog, formatter_class=_Formatter, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Leave with exit status 2."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` tells more\n")


class _Formatter(argparse.HelpFormatter):
    """The text of --help. argparse makes one for every option, and would import shutil (1.2 ms) for the width."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=_width() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Break paragraphs at the width, and each line of a table by itself."""
        import textwrap

        lines: list[str] = []
        for block in text.split("\n\n"):
            rows = block.split("\n") if block.startswith(("  ", "commands:")) else [" ".join(block.split("\n"))]
            for row in rows:
                inner = " " * 14 if row.startswith("  ") else ""
                lines += textwrap.wrap(row, width, subsequent_indent=indent + inner, break_on_hyphens=False)
            lines.append("")
        return "\n".join(lines[:-1])


def _width() -> int:
    """Columns, as shutil.get_terminal_size finds them."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and len(columns) < 5 and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80  # type: ignore[union-attr]
    except (AttributeError, OSError, ValueError):  # closed, or none, or no terminal
        return 80


def build(command: str | None) -> argparse.ArgumentParser:
    """Return the parser of one command, or of `dlwhy` itself for None."""
    if command is None:
        lines = "\n".join(f"  {name:12}{text}" for name, text in COMMANDS.items())
        more = "`dlwhy COMMAND --help` tells more. Nothing under examination is executed or loaded."
        parser = _Parser(
            "dlwhy",
            "The dynamic-linker detective: will a native library load in a given process, and if not, why?",
            f"commands:\n{lines}\n\n{more}",
        )
        parser.add_argument("--version", action="store_true", help="print the version and exit")
        names = ", ".join(COMMANDS)
        parser.add_argument("command", metavar="COMMAND", choices=tuple(COMMANDS), help=f"one of {names}")
        return parser
    question = COMMANDS[command]
    parser = _Parser(
        f"dlwhy {command}",
        question[0].upper() + question[1:] + "?",
        {"check": f"{_STEP}\n\n{_STATUS}", "capture": _HOST, "diff": f"{_DIFF}\n\n{_STATUS}"}.get(command, _STATUS),
    )
    if command == "check":
        parser.add_argument("steps", metavar="STEP", nargs="*", help="what to load, in this order, in one process")
        parser.add_argument(
            "--each", action="store_true",
            help="every file in a fresh process, one report each; directories and archives are walked",
        )  # fmt: skip
        _on(parser, "; as with --each every operand is a file, and it stands in the system with its directory")
    elif command == "tls":
        told = "ELF files; object files and archives of them, too (.o, .a, .rlib)"
        parser.add_argument("files", metavar="FILE", nargs="*", help=told)
        parser.add_argument("--sysroot", metavar="DIR", help="look everything up inside DIR, as chroot would")
        _no_code(parser)
        parser.add_argument(
            "--map", metavar="MAP", help="the map that the linker (GNU ld, gold, lld or mold) wrote of the one FILE"
        )
        told = "ask the servers that DEBUGINFOD_URLS names for debug files that are not here: the network is used"
        parser.add_argument("--debuginfod", action="store_true", help=told)
    elif command == "diff":
        _diff(parser)
    elif command == "floor":
        told = "libraries and programs, each with what comes with it; directories and archives are walked"
        parser.add_argument("files", metavar="FILE", nargs="*", help=told)
    elif command == "unresolved":
        told = "libraries or programs, each taken by itself; directories and archives are walked"
        parser.add_argument("files", metavar="FILE", nargs="*", help=told)
    elif command == "capture":
        _capture(parser)
        return parser
    else:
        parser.add_argument("file", metavar="FILE", nargs="?", help="a library, as dlopen would get it, or a program")
    if command in ("check", "tls"):
        told = "the Cargo.lock that it was built with, to tell why a crate is in there; looked for near the file"
        parser.add_argument("--lock", metavar="FILE", help=told)
        _debug_dir(parser)
    if command not in ("tls", "floor"):
        _process(parser, command != "unresolved")
    _output(parser, FORMATS if command == "check" else FORMATS[:2])
    return parser


def _diff(parser: argparse.ArgumentParser) -> None:
    told = "a library or program, or a directory or archive (zip, wheel, jar, tar) of them"
    parser.add_argument("old", metavar="OLD", nargs="?", help=told)
    parser.add_argument("new", metavar="NEW", nargs="?", help="the same of another build; files are paired by name")
    _on(parser, ", instead of this one")
    _no_code(parser)
    _debug_dir(parser)
    for name, whose in (("", "NEW"), ("old-", "OLD")):
        parser.add_argument(
            f"--{name}lock", metavar="FILE", help=f"the Cargo.lock that {whose} was built with; looked for near it"
        )
        parser.add_argument(f"--{name}map", metavar="MAP", help=f"the linker's map of {whose}")


def _on(parser: argparse.ArgumentParser, more: str) -> None:
    parser.add_argument(
        "--on", metavar="SYSTEMS", action="append", default=[],
        help="ask other systems, a column each: names that come with dlwhy (all: every one), profiles, sysroot:DIR,"
        f" joined by commas (repeatable){more}",
    )  # fmt: skip


def _no_code(parser: argparse.ArgumentParser) -> None:
    told = "do not look for the instructions that use the relocations: much faster on big files"
    parser.add_argument("--no-code", dest="code", action="store_false", help=told)


def _debug_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--debug-dir", metavar="DIR", action="append", default=[],
        help="look for separate debug files in DIR before /usr/lib/debug (repeatable)",
    )  # fmt: skip


def _capture(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("host", metavar="HOST", nargs="?", help="the process to describe; `plain` without")
    parser.add_argument(
        "--with", dest="names", metavar="NAME", action="append", default=[],
        help="a soname, a file, or a directory with all its files, to be held as well (repeatable)",
    )  # fmt: skip
    parser.add_argument("--with-all", action="store_true", help="every library in the search directories as well")
    _process(parser, True, False)
    parser.add_argument("-o", dest="output", metavar="PATH", help="write to PATH instead of standard output")


def _process(parser: argparse.ArgumentParser, hosted: bool, asked: bool = True) -> None:
    from dlwhy.loader.processors import every_name

    add = parser.add_argument_group("the process").add_argument
    if hosted and asked:
        add(
            "--host", metavar="HOST",
            help="an executable (path, or name in PATH); `plain`, a C program that needs only libc; or"
            " profile:FILE[:HOST], FILE being what `dlwhy capture` wrote, or debian11, debian12, debian13, debian-sid"
            " or musl; inferred without",
        )  # fmt: skip
    add("--env", metavar="NAME=VALUE", action="append", default=[], help="a variable of its environment (repeatable)")
    add("--clear-env", action="store_true", help="start from an empty environment")
    add("--cwd", metavar="DIR", help="its working directory")
    add("--sysroot", metavar="DIR", help="look everything up inside DIR, as chroot would")
    add("--loader", metavar="FILE", help="the loader to use, as `ld.so PROG`")
    add("--library-path", metavar="DIRS", help="as `ld.so --library-path DIRS PROG`")
    add("--libc", metavar="RELEASE", help="override what the files say, e.g. glibc-2.31 or musl-1.2.3")
    add("--secure", action="store_true", help="AT_SECURE: as a set-user-ID program")
    if hosted:
        add("--caller", metavar="FILE", help="the object that calls dlopen")
    add(
        "--cpu", metavar="LEVEL", choices=every_name(),
        help="another processor than the one that dlwhy runs on: x86-64 or x86-64-v2 to -v4; haswell, xeon_phi and"
        " avx512_1 are Intel's, as glibc up to 2.36 tells them apart; of other machines i586, i686, i686-sse2; armv8-a,"
        " armv8.1-a; armv7-a, armv7-a-neon, armv8-a; power8 to power10; z196, zEC12, z13 to z17; rv64gc",
    )  # fmt: skip


def _output(parser: argparse.ArgumentParser, formats: tuple[str, ...]) -> None:
    add = parser.add_argument_group("output").add_argument
    more = "; markdown is for --on" if "markdown" in formats else ""
    add("--format", choices=formats, default="text", help=f"default: text{more}")
    add(
        "-o", dest="outputs", metavar="FORMAT=PATH", action="append", default=[],
        help="write FORMAT to PATH as well (repeatable)",
    )  # fmt: skip
    add("--color", choices=("auto", "always", "never"), default="auto", help="NO_COLOR is honoured")
    add("-v", "--verbose", action="store_true", help="the static TLS block drawn, every search, variable and constant")
    add("-q", "--quiet", action="store_true", help="the verdict and the loader's words only")
