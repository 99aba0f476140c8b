"""The command line as data: what `src/dlwhy/cli/arguments.py` tells argparse, as man page and completions need it."""

from __future__ import annotations

import argparse
from typing import NamedTuple

from dlwhy.cli import arguments

# What a value is, told by the name it has in --help: this decides what the completions offer.
VALUES = {
    "DIR": "directory", "DIRS": "directory", "FILE": "file", "FORMAT=PATH": "text", "HOST": "host", "MAP": "file",
    "NAME": "file", "NAME=VALUE": "text", "NEW": "file", "OLD": "file", "PATH": "file", "RELEASE": "text",
    "STEP": "file", "SYSTEMS": "text",
}  # fmt: skip
"""Value name -> what the completions offer for it; a new one has to be added, or generating stops with its name."""


class Argument(NamedTuple):
    """One option or operand."""

    flags: tuple[str, ...]
    """Empty for an operand."""
    value: str
    """The name of its value as --help shows it, "" for a switch."""
    kind: str
    """What the value is: file, directory, host, program, choice, text, or "" for a switch."""
    choices: tuple[str, ...]
    help: str
    repeats: bool
    """It may be given more than once."""


class Group(NamedTuple):
    """Options under one title of --help."""

    title: str
    description: str
    arguments: tuple[Argument, ...]


class Command(NamedTuple):
    """One subcommand, or the bare command."""

    name: str
    summary: str
    description: str
    usage: str
    """In one line, all options as one word: they are listed below it."""
    groups: tuple[Group, ...]
    epilog: str

    def options(self) -> list[Argument]:
        """Return everything that begins with a dash."""
        return [one for group in self.groups for one in group.arguments if one.flags]

    def operands(self) -> list[Argument]:
        """Return everything else."""
        return [one for group in self.groups for one in group.arguments if not one.flags]


def read() -> tuple[Command, list[Command]]:
    """Return the bare command and its subcommands, in the order of --help."""
    commands = [_command(name, told, arguments.build(name)) for name, told in arguments.COMMANDS.items()]
    return _command("", "", arguments.build(None)), commands


def _command(name: str, summary: str, parser: argparse.ArgumentParser) -> Command:
    # argparse has no public way to list what a parser was given; argcomplete and shtab read the same attributes.
    groups = []
    for group in parser._action_groups:  # noqa: SLF001
        members = [
            _argument(one, parser)
            for one in group._group_actions  # noqa: SLF001
            if one.help != argparse.SUPPRESS and one.dest != "command"
        ]
        if members:
            groups.append(Group(group.title or "", group.description or "", tuple(members)))
    operands = [one for group in groups for one in group.arguments if not one.flags]
    usage = " ".join([parser.prog, "[options]", *(one.value + "..." * one.repeats for one in operands)])
    return Command(name, summary, parser.description or "", usage, tuple(groups), parser.epilog or "")


def _argument(action: argparse.Action, parser: argparse.ArgumentParser) -> Argument:
    takes = action.nargs != 0
    metavar = action.metavar[0] if isinstance(action.metavar, tuple) else action.metavar
    choices = tuple(map(str, action.choices or ()))
    value = "" if not takes else metavar or "|".join(choices) or action.dest.upper()
    kind = "" if not takes else "choice" if choices else VALUES[value.split("|")[0].split(":")[0]]
    told = {"prog": parser.prog, "default": action.default, "choices": ", ".join(choices), "metavar": value}
    repeats = isinstance(action, argparse._AppendAction) or action.nargs in {"*", "+", argparse.REMAINDER}  # noqa: SLF001
    return Argument(tuple(action.option_strings), value, kind, choices, (action.help or "") % told, repeats)
