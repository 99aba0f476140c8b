"""The man page, dlwhy(1), written from the command line's own definitions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.command import Argument, Command


def page(top: Command, commands: list[Command], version: str) -> str:
    """Return the man page as roff."""
    lines = [
        '.\\" Written by ./dev docs from src/dlwhy/cli/arguments.py; do not edit.',
        f'.TH DLWHY 1 "" "dlwhy {version}" "User Commands"',
        ".SH NAME",
        "dlwhy \\- will a native library load in a given process, and if not, why?",
        ".SH SYNOPSIS",
        *(line for one in commands for line in (".nf", f".B {_text(one.usage)}", ".fi")),
        ".SH DESCRIPTION",
        *_paragraphs(top.description),
        ".SH OPTIONS",
        *(line for one in top.options() for line in _argument(one)),
        ".SH COMMANDS",
    ]
    shared = [option for option in commands[0].options() if all(option in one.options() for one in commands)]
    for one in commands:
        lines += [f".SS dlwhy {one.name}", *_paragraphs(one.description or one.summary)]
        own = [argument for argument in [*one.operands(), *one.options()] if argument not in shared]
        lines += [line for argument in own for line in _argument(argument)]
        lines += _paragraphs("\n\n".join(text for text in _blocks(one.epilog) if not text.startswith("exit status:")))
    lines += [".SS Options of every command", *(line for option in shared for line in _argument(option))]
    lines += [".SH EXIT STATUS", *_exit_status(commands)]
    lines += [".SH SEE ALSO", ".BR ld.so (8),", ".BR dlopen (3),", ".BR ldd (1),", ".BR readelf (1)"]
    return "\n".join(lines) + "\n"


def _argument(one: Argument) -> list[str]:
    if one.flags:
        value = f" \\fI{_text(one.value)}\\fR" if one.value else ""
        heading = ", ".join(f"\\fB{_text(flag)}\\fR" for flag in one.flags) + value
    else:
        heading = f"\\fI{_text(one.value)}\\fR" + (" ..." if one.repeats else "")
    return [".TP", heading, *_lines(one.help)]


def exit_rows(commands: list[Command]) -> list[tuple[str, str]]:
    """Return the sentence "exit status: 0 would load; ..." of the help of every command as (number, meaning)."""
    blocks = [" ".join(text.split()) for one in commands for text in _blocks(one.epilog)]
    [told] = {text for text in blocks if text.startswith("exit status:")}
    rows = [row.split(" ", 1) for row in told.removeprefix("exit status: ").split("; ")]
    return [(number, meaning) for number, meaning in rows]


def _exit_status(commands: list[Command]) -> list[str]:
    return [line for number, meaning in exit_rows(commands) for line in (".TP", f"\\fB{number}\\fR", _text(meaning))]


def _blocks(text: str) -> list[str]:
    return [block for block in re.split(r"\n\s*\n", text.strip("\n")) if block.strip()]


def _paragraphs(text: str) -> list[str]:
    """Text as running paragraphs; indented lines, such as a table of exit codes, stay as they are."""
    lines: list[str] = []
    for block in _blocks(text):
        verbatim = any(line[:1] == " " for line in block.splitlines())
        lines.append(".PP")
        lines += [".nf", *_lines(block), ".fi"] if verbatim else _lines(" ".join(block.split()))
    return lines


def _lines(text: str) -> list[str]:
    return [_text(line) for line in text.splitlines()]


def _text(text: str) -> str:
    """Plain text as roff: backslashes and dashes are themselves, and no line begins with a request."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in {".", "'"} else text
