"""Completions for bash, zsh and fish, written from the command line's own definitions.

They offer files, directories, hosts and fixed words by what a value is called; nothing is run to find candidates.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tools.command import Argument, Command

QUOTE = "\N{RIGHT SINGLE QUOTATION MARK}"  # instead of an apostrophe within quotes, which each shell escapes in its way

NOTE = "# Written by ./dev docs from src/dlwhy/cli/arguments.py; do not edit."


def bash(top: Command, commands: list[Command]) -> str:
    """Return the completion of bash; it needs no bash-completion."""
    by_kind: dict[str, list[str]] = {}
    choices: dict[str, str] = {}
    for option in [option for one in [top, *commands] for option in one.options()]:
        if option.kind == "choice":
            choices["|".join(option.flags)] = " ".join(option.choices)
        elif option.kind:
            by_kind.setdefault(option.kind, []).extend(option.flags)
    names = " ".join(one.name for one in commands)
    actions = {"directory": "directories", "file": "files", "host": "hosts", "program": "hosts", "text": "nothing"}
    lines = [
        NOTE,
        "",
        "_dlwhy() {",
        '    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command="" word',
        "    # bash cuts --format=json into three words.",
        '    if [[ $cur == = ]]; then cur=""; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        "        case $word in",
        f"            {'|'.join(one.name for one in commands)}) command=$word; break ;;",
        "        esac",
        "    done",
        "    COMPREPLY=()",
        "    compopt -o filenames 2>/dev/null",
        "    case $prev in",
        *(
            f'        {flags}) mapfile -t COMPREPLY < <(compgen -W "{words}" -- "$cur"); return ;;'
            for flags, words in choices.items()
        ),
        *(
            f"        {'|'.join(dict.fromkeys(flags))}) _dlwhy_{actions[kind]}; return ;;"
            for kind, flags in sorted(by_kind.items())
        ),
        "    esac",
        "    if [[ $cur == -* ]]; then",
        "        case $command in",
        *(f'            {one.name}) word="{_flags(one)}" ;;' for one in commands),
        f'            *) word="{_flags(top)}" ;;',
        "        esac",
        "    elif [[ -z $command ]]; then",
        f'        word="{names}"',
        "    else",
        "        _dlwhy_files",
        "        return",
        "    fi",
        '    mapfile -t COMPREPLY < <(compgen -W "$word" -- "$cur")',
        "}",
        '_dlwhy_files() { mapfile -t COMPREPLY < <(compgen -f -- "$cur"); }',
        '_dlwhy_directories() { mapfile -t COMPREPLY < <(compgen -d -- "$cur"); }',
        '_dlwhy_hosts() { mapfile -t COMPREPLY < <(compgen -W plain -c -f -- "$cur" | sort -u); }',
        "_dlwhy_nothing() { :; }",
        "complete -F _dlwhy dlwhy",
    ]
    return "\n".join(lines) + "\n"


def zsh(top: Command, commands: list[Command]) -> str:
    """Return the completion of zsh."""
    lines = [
        "#compdef dlwhy",
        NOTE,
        "",
        "_dlwhy_hosts() {",
        "    _alternative 'words:word:(plain)' 'commands:program:_command_names -e' 'files:file:_files'",
        "}",
        "",
        "_dlwhy() {",
        "    local context state state_descr line",
        "    typeset -A opt_args",
        "    _arguments -C \\",
        *(f"        {spec} \\" for option in top.options() for spec in _zsh(option)),
        "        '1:command:->command' \\",
        "        '*::argument:->argument' && return",
        "    case $state in",
        "        command)",
        "            local -a commands=(",
        *(f"                {_single(one.name + ':' + one.summary)}" for one in commands),
        "            )",
        "            _describe command commands",
        "            ;;",
        "        argument)",
        "            case $line[1] in",
    ]
    for one in commands:
        specs = [spec for argument in [*one.options(), *one.operands()] for spec in _zsh(argument)]
        lines += [f"                {one.name})", "                    _arguments \\"]
        lines += [f"                        {spec} \\" for spec in specs[:-1]]
        lines += [f"                        {specs[-1]}", "                    ;;"]
    lines += ["            esac", "            ;;", "    esac", "}", "", '_dlwhy "$@"']
    return "\n".join(lines) + "\n"


def fish(top: Command, commands: list[Command]) -> str:
    """Return the completion of fish."""
    lines = [NOTE, "", "complete -c dlwhy -f"]
    lines += [_fish("__fish_use_subcommand", option) for option in top.options()]
    lines += [
        f"complete -c dlwhy -n __fish_use_subcommand -a {one.name} -d {_single(one.summary)}" for one in commands
    ]
    for one in commands:
        seen = f"__fish_seen_subcommand_from {one.name}"
        lines += [_fish(seen, option) for option in one.options()]
        if any(operand.kind == "file" for operand in one.operands()):
            lines.append(f"complete -c dlwhy -n {_single(seen)} -F")
    return "\n".join(lines) + "\n"


def _flags(one: Command) -> str:
    return " ".join(flag for option in one.options() for flag in option.flags)


def _summary(text: str) -> str:
    """The first sentence of a help text, in one line."""
    return re.split(r"(?<=[a-z)])[.;:](?:\s|$)", " ".join(text.split()))[0]


def _single(text: str) -> str:
    """A word in single quotes, for a POSIX shell and for fish alike."""
    return "'" + text.replace("\\", "\\\\").replace("'", QUOTE) + "'"


def _zsh(one: Argument) -> list[str]:
    """The specification of `_arguments` for one option (one for each spelling) or operand."""
    actions = {
        "directory": "_files -/", "file": "_files", "host": "_dlwhy_hosts", "program": "_command_names -e", "text": " ",
        "choice": f"({' '.join(one.choices)})",
    }  # fmt: skip
    value = f":{one.value.replace(':', chr(92) + ':')}:{actions[one.kind]}" if one.kind else ""
    if not one.flags:
        return [f"'*{value}'" if one.repeats else f"'{value}'"]
    told = re.sub(r"([\[\]:])", r"\\\1", _summary(one.help)).replace("'", QUOTE)
    rest = "" if one.repeats or len(one.flags) == 1 else f"({' '.join(one.flags)})"
    return [f"'{'*' if one.repeats else rest}{flag}[{told}]{value}'" for flag in one.flags]


def _fish(condition: str, one: Argument) -> str:
    words = ["complete -c dlwhy -n", _single(condition)]
    for flag in one.flags:
        words += ["-l" if flag.startswith("--") else "-s", flag.lstrip("-")]
    match one.kind:
        case "":
            pass
        case "choice":
            words += ["-x -a", _single(" ".join(one.choices))]
        case "directory":
            words.append("-x -a '(__fish_complete_directories)'")
        case "host":
            words.append("-r -F -a 'plain (__fish_complete_command)'")
        case "program":
            words.append("-x -a '(__fish_complete_command)'")
        case "file":
            words.append("-r -F")
        case _:
            words.append("-x")
    return " ".join([*words, "-d", _single(_summary(one.help))])
