"""Report -> JSON of schema 1: the records by their field names, in their order (docs/reference/report.md)."""

from __future__ import annotations

import json

from dlwhy.record import Record
from dlwhy.report import SCHEMA

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report_diff import Report


def render(report: Report, line: bool = False) -> str:
    """Return the report as JSON, two spaces deep or in one `line`.

    ASCII only, so that every stream can carry it: bytes that are no UTF-8 stay as lone surrogates (os.fsencode in
    Python gives them back).
    """
    value = {"schema": SCHEMA, "command": report.command, "exit_status": report.exit_status, **_object(report)}
    return json.dumps(value, indent=None if line else 2) + "\n"


def _object(record: Record) -> dict[str, object]:
    return {name: _plain(part) for name, part in zip(record._fields, record, strict=True)}


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return _object(value)
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value
