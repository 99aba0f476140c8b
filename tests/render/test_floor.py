"""The report of `floor` as text and JSON: golden files, and the rules that every report keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.render import json_v1
from dlwhy.render.text_floor import floor
from dlwhy.walk import renamed
from tests.render.test_golden import compare
from tests.render.test_schema import check
from tests.render.test_style import ESCAPE, PLAIN, overflows, poisoned

if TYPE_CHECKING:
    from dlwhy.report_systems import FloorReport
    from tests.fixtures.system import Others


@pytest.fixture(scope="module")
def report(others: Others) -> FloorReport:
    """The floors of the package, as if it stood in /work."""
    return renamed(dlwhy.floor([others.work / "pkg"]), str(others.work), "/work")


def test_text(report: FloorReport) -> None:
    """The text is that of the golden file: a line a file, and below what they need together."""
    compare("floor.txt", floor(report, PLAIN))


def test_json(report: FloorReport) -> None:
    """The JSON is that of the golden file, and keeps the schema."""
    compare("floor.json", json_v1.render(report))
    assert check(json_v1.render(report))["exit_status"] == 0


@pytest.mark.parametrize("verbose", [False, True])
def test_no_control_character_comes_through(report: FloorReport, verbose: bool) -> None:
    """Whatever part of a report holds an escape code or a line break, it is shown escaped."""
    shown = floor(poisoned(report), PLAIN.but(verbose=verbose))
    assert "owned" in shown
    assert {one for one in shown if one != "\n" and not one.isprintable()} == set()


@pytest.mark.parametrize("width", [60, 80, 132])
def test_lines_fit(report: FloorReport, width: int) -> None:
    """No line is wider than the terminal, but for words without a blank."""
    assert overflows(floor(report, PLAIN.but(width=width)), width, set()) == []


def test_colour_only_repeats(report: FloorReport) -> None:
    """With colours the text is the same but for the codes."""
    assert ESCAPE.sub("", floor(report, PLAIN.but(color=True))) == floor(report, PLAIN)
