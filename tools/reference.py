"""The generated blocks of docs/reference: commands, exit status, findings, the library; each from its definition."""

from __future__ import annotations

import ast
import inspect
import re
from itertools import pairwise
from pathlib import Path

from dlwhy import _HOME, api
from dlwhy.attribute.suspects import rows_of
from dlwhy.rules import KINDS, RULES
from tools import command
from tools.man import exit_rows

SOURCE = Path(__file__).resolve().parent.parent / "src/dlwhy"


def commands() -> str:
    """Return the table of commands and, for each, its operands, options and notes."""
    _, all_commands = command.read()
    lines = ["| command | question it answers |", "|---|---|"]
    lines += [f"| [`{one.usage}`](#dlwhy-{one.name}) | {one.summary} |" for one in all_commands]
    for one in all_commands:
        lines += ["", f"## dlwhy {one.name}", "", f"    {one.usage}", "", one.description, ""]
        for group in one.groups:
            members = [argument for argument in group.arguments if argument.flags != ("-h", "--help")]
            if members:
                lines += [f"{group.title[:1].upper()}{group.title[1:]}:", ""]
                lines += [f"- {_heading(argument)}: {_code(argument.help)}" for argument in members] + [""]
        notes = [block for block in re.split(r"\n\s*\n", one.epilog) if not block.startswith("exit status:")]
        lines += [line for block in notes for line in (_code(" ".join(block.split())), "")]
    return "\n".join(lines).rstrip()


def exit_status() -> str:
    """Return the exit codes as a table."""
    _, all_commands = command.read()
    rows = exit_rows(all_commands)
    return "\n".join(["| status | meaning |", "|---|---|", *(f"| {number} | {meaning} |" for number, meaning in rows)])


def kinds() -> str:
    """Return every way to fail as a table."""
    return "\n".join(["| kind | meaning |", "|---|---|", *(f"| `{kind}` | {told} |" for kind, told in KINDS.items())])


def rules() -> str:
    """Return every finding as a table."""
    lines = ["| finding | severity | what it says | where that stands |", "|---|---|---|---|"]
    lines += [f"| `{one.name}` | {one.severity} | {one.title} | {one.citation} |" for one in RULES.values()]
    return "\n".join(lines)


def suspects() -> str:
    """Return every known suspect: what it is told by, why it is as it is, and what upstream offers."""
    lines = []
    for row in rows_of():
        told = [f"name `{one}`" for one in row["sonames"]] + [f"export `{one}`" for one in row["exports"]]
        least = f" of {row['least']} bytes or more" if row["least"] else ""
        told += [f"variable `{one}`{least}" for one in row["variables"]]
        told += [f"constant `{one}`" for one in row["strings"]]
        told += [
            f"{one['bytes']} bytes with {one['relocations']} relocations on {one['machine']} ({one['measured']})"
            for one in row["signatures"]
        ]
        lines += [f"## {row['name']}", "", f"`{row['id']}`, {row['role']}. Told by {', '.join(told)}.", ""]
        lines += [f"Why: {row['why']}.", ""] * bool(row["why"])
        lines += [f"- {one['release']}: {one['bytes']} bytes ({one['measured']})" for one in row.get("smaller", ())]
        lines += [f"- built otherwise: {one}" for one in row["build"]] + [f"- at run time: {one}" for one in row["run"]]
        lines += [f"- releases: {row['since']}"] * bool(row["since"]) + [f"- <{one}>" for one in row["references"]]
        lines.append("")
    return "\n".join(lines).rstrip()


def library() -> str:
    """Return the functions of the library, and the records and errors it deals in, from their docstrings."""
    lines: list[str] = []
    for name in ("check", "each", "tls", "tree", "diff", "unresolved", "capture"):
        function = getattr(api, name)
        lines += [f"## dlwhy.{name}", "", "```python", _signature("api", name), "```", "", _text(function.__doc__), ""]
    lines += ["## dlwhy.Host", "", _text(api.Host.__doc__), ""]
    for name in ("executable", "plain", "profile", "inferred", "named"):
        made = _signature("api", name, "Host").removeprefix("def ")
        lines.append(f"- `Host.{made}`: {' '.join(_text(getattr(api.Host, name).__doc__).split())}")
    others = "`tls` takes `sysroot`, `unresolved` all but `caller`"
    lines += ["", "## dlwhy.Profile", "", _docstring("hosts/profile", "Profile"), ""]
    lines += ["", "## Options", "", f"The keywords of `check`, `each`, `tree` and `capture` ({others}):", ""]
    lines += ["| keyword | what it is |", "|---|---|"]
    lines += [f"| `{name}` | {_line(told)} |" for name, told in _fields("api", "Options")]
    lines += ["", "## Errors", "", "```", _docstring("errors"), "```", ""]
    reports = [(name, home) for name, home in _HOME.items() if home.startswith("report")]
    lines += ["## Reports", "", "The fields are the keys of the JSON: [the report](report.md).", ""]
    lines += [f"- `dlwhy.{name}`: {_line(_docstring(home, name))}" for name, home in reports]
    return "\n".join(lines).rstrip()


def _heading(one: command.Argument) -> str:
    value = f" {one.value}" if one.value else ""
    return ", ".join(f"`{flag}{value}`" for flag in one.flags) or f"`{one.value}`"


def _code(text: str) -> str:
    """Plain text as Markdown: words in capitals that stand for a value, and quoted options, are left as they are."""
    return text.replace("<", "\\<").replace("*", "\\*")


def _tree(module: str) -> ast.Module:
    return ast.parse((SOURCE / f"{module}.py").read_text("utf-8"))


def _class(module: str, name: str) -> ast.ClassDef:
    return next(node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)


def _docstring(module: str, name: str | None = None) -> str:
    return ast.get_docstring(_class(module, name) if name else _tree(module)) or ""


def _fields(module: str, name: str) -> list[tuple[str, str]]:
    body = _class(module, name).body
    return [
        (one.target.id, after.value.value)
        for one, after in pairwise(body)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
    ]  # fmt: skip


def _signature(module: str, name: str, class_: str | None = None) -> str:
    """The head of a function as it is written, its arguments one after the other in as few lines as they fit."""
    body = _class(module, class_).body if class_ else _tree(module).body
    node = next(one for one in body if isinstance(one, ast.FunctionDef) and one.name == name)
    if class_:
        node.args.args = node.args.args[1:]
    written = re.sub(r"=(?=None|False)", " = ", ast.unparse(node.args))
    words = [word.strip() for word in re.split(r",(?![^\[(]*[\])])", written)]
    returns = f" -> {ast.unparse(node.returns)}" if node.returns and not class_ else ""
    if class_:
        return f"def {name}({', '.join(words)})"
    lines = [f"def {name}("]
    line = "   "
    for word in words:
        if len(line) + len(word) > 98:
            lines.append(line)
            line = "   "
        line += f" {word},"
    return "\n".join([*lines, line.rstrip(","), f"){returns}"])


def _text(docstring: str | None) -> str:
    return inspect.cleandoc(docstring or "")


def _line(docstring: str | None) -> str:
    return " ".join((docstring or "").split()).replace("|", "\\|")
