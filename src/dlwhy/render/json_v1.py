"""Report -> JSON of schema 1: the records by their field names, in their order."""

from __future__ import annotations

import json

from dlwhy.record import Record
from dlwhy.report import SCHEMA, CheckReport, TlsReport, TreeReport


def render(report: CheckReport | TlsReport | TreeReport) -> str:
    """Return the report as JSON, two spaces deep, ASCII only: bytes that are no UTF-8 stay as lone surrogates."""
    value = {"schema": SCHEMA, "command": report.command, "exit_status": report.exit_status, **_plain(report)}
    return json.dumps(value, indent=2) + "\n"


def _plain(value: object) -> object:
    if isinstance(value, Record):
        return {name: _plain(part) for name, part in zip(value._fields, value, strict=True)}  # noqa: SLF001 -- its own reader
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    return value
