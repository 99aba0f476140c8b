"""The JSON Schema of the reports, written from the records of `dlwhy.report*`: their annotations and docstrings.

A document has every key that a record has a field for. It may have more: a reader ignores keys that it does not know,
so that a later dlwhy can tell more without breaking it.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import dlwhy
from dlwhy import report
from dlwhy.rules import KINDS

HERE = Path(__file__).resolve().parent.parent / "src/dlwhy"
SOURCES = tuple(HERE / f"{name}.py" for name in ("report", "report_tls", "report_systems", "report_diff"))

# The document of each report, in the order of the commands; its fields come after the keys that all have.
REPORTS = (
    "CheckReport", "FailedReport", "MatrixReport", "TlsReport", "TreeReport", "UnresolvedReport", "FloorReport",
    "DiffReport",
)  # fmt: skip

# Two fields are dictionaries whose keys are part of the contract.
SPECIAL: dict[tuple[str, str], dict[str, Any]] = {
    ("Cure", "change"): {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "env": {"type": "object", "additionalProperties": {"type": "string"}},
            "steps": {"type": "array", "items": {"type": "string"}},
            "rebuild": {"type": "string"},
        },
    },
    ("Cure", "proof"): {
        "type": "object",
        "required": ["outcome", "basis"],
        "properties": {"outcome": {"$ref": "#/$defs/Outcome"}, "basis": {"$ref": "#/$defs/Basis"}},
    },
}

_NAMES = {"str": "text", "int": "number", "bool": "boolean"}
_SIMPLE = {"str": "string", "int": "integer", "bool": "boolean", "None": "null"}


def schema() -> dict[str, Any]:
    """Return the schema of schema 1 as a JSON value. Raises `ValueError` for a field that is not described."""
    records = _records()
    words = {**report.VALUES, "Kind": KINDS}
    definitions = {name: _enumeration(meanings) for name, meanings in words.items()}
    definitions |= {name: _record(node) for name, node in records.items() if name not in REPORTS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"dlwhy report, schema {report.SCHEMA}",
        "description": "What `dlwhy check`, `tls`, `tree`, `unresolved`, `floor` and `diff` print with --format json. "
        "A document may have more keys than are listed: ignore what you do not know.",
        "oneOf": [_document(records[name]) for name in REPORTS],
        "$defs": definitions,
    }


def text() -> str:
    """Return the schema as it is published."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def fields(node: ast.ClassDef) -> list[tuple[str, str, str]]:
    """Return (name, annotation, docstring) of each field of a record. Raises `ValueError` for one without."""
    found = []
    for place, one in enumerate(node.body):
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name):
            after = node.body[place + 1] if place + 1 < len(node.body) else None
            match after:
                case ast.Expr(value=ast.Constant(value=str(told))):
                    told = re.sub(r"\bNone\b", "null", " ".join(told.split()))
                    found.append((one.target.id, ast.unparse(one.annotation), told))
                case _:
                    raise ValueError(f"{node.name}.{one.target.id} has no docstring under it")
    return found


def _document(node: ast.ClassDef) -> dict[str, Any]:
    command = getattr(dlwhy, node.name).command
    made = _record(node)
    statuses = [report.EXIT_LOADS, report.EXIT_BROKEN, report.EXIT_NOTHING, report.EXIT_FAILS, report.EXIT_UNDECIDED]
    head = {
        "schema": {"const": report.SCHEMA, "description": "Version of this format."},
        "command": {"const": command, "description": "The command that was asked."},
        "exit_status": {"enum": statuses, "description": "The exit status that this report alone gives."},
    }
    return {
        "title": node.name, "description": made["description"], "type": "object",
        "required": [*head, *made["required"]], "properties": head | made["properties"],
    }  # fmt: skip


def _record(node: ast.ClassDef) -> dict[str, Any]:
    described = fields(node)
    properties = {
        name: {**(SPECIAL.get((node.name, name)) or _type(annotation)), "description": told}
        for name, annotation, told in described
    }
    return {
        "type": "object", "description": ast.get_docstring(node), "required": [name for name, _, _ in described],
        "properties": properties,
    }  # fmt: skip


def _enumeration(meanings: dict[str, str]) -> dict[str, Any]:
    return {"oneOf": [{"const": word, "description": meaning} for word, meaning in meanings.items()]}


def _type(annotation: str) -> dict[str, Any]:
    """Return the schema of an annotation: simple type, record, tuple of one type, dictionary; each also or None."""
    if annotation.endswith(" | None"):
        inner = _type(annotation.removesuffix(" | None"))
        return {"type": [inner["type"], "null"]} if set(inner) == {"type"} else {"anyOf": [inner, {"type": "null"}]}
    if annotation in _SIMPLE:
        return {"type": _SIMPLE[annotation]}
    if found := re.fullmatch(r"tuple\[(.+), \.\.\.\]", annotation):
        return {"type": "array", "items": _type(found[1])}
    if annotation == "dict[str, str]":
        return {"type": "object", "additionalProperties": {"type": "string"}}
    if re.fullmatch(r"[A-Z]\w*", annotation):
        return {"$ref": f"#/$defs/{annotation}"}
    raise ValueError(f"no schema for the annotation {annotation}")


def _records() -> dict[str, ast.ClassDef]:
    """The class of each record, in the order of the files."""
    bodies = [ast.parse(source.read_text("utf-8")).body for source in SOURCES]
    return {node.name: node for body in bodies for node in body if isinstance(node, ast.ClassDef)}


def as_markdown() -> str:
    """Return the records and their fields as tables, for docs/reference/report.md."""
    records = _records()
    lines = []
    for name in [*REPORTS, *(name for name in records if name not in REPORTS)]:
        node = records[name]
        command = getattr(dlwhy, name).command if name in REPORTS else None
        lines += [f"## {name}", "", (ast.get_docstring(node) or "").splitlines()[0], ""]
        if command:
            lines += [f'Begins with `"schema": {report.SCHEMA}`, `"command": "{command}"` and `"exit_status"`.', ""]
        lines += ["| key | type | what it is |", "|---|---|---|"]
        lines += [f"| `{key}` | {_words(kind)} | {_cell(told)} |" for key, kind, told in fields(node)]
        lines.append("")
    for name, meanings in report.VALUES.items():
        lines += [f"## {name}", "", "| word | meaning |", "|---|---|"]
        lines += [f"| `{word}` | {_cell(meaning)} |" for word, meaning in meanings.items()]
        lines.append("")
    return "\n".join(lines).rstrip()


def _words(annotation: str) -> str:
    """An annotation as a reader of JSON knows it; a record or list of words links to its table."""
    annotation = annotation.replace(" | None", " or null")
    annotation = re.sub(r"tuple\[(.+), \.\.\.\]", r"list of \1", annotation)
    annotation = re.sub(r"dict\[str, \w+\]", "object", annotation)
    annotation = re.sub(r"\b(str|int|bool)\b", lambda found: _NAMES[found[1]], annotation)
    annotation = re.sub(r"\bKind\b", "[Kind](findings.md)", annotation)
    return re.sub(r"(?<!\[)\b([A-Z]\w+)\b", lambda found: f"[{found[1]}](#{found[1].lower()})", annotation)


def _cell(told: str) -> str:
    return told.replace("|", "\\|").replace("<", "\\<")
