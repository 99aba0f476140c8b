"""The matrix of `check --on` as text, Markdown and JSON: golden files, and the rules that every report keeps."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.render import json_v1, markdown, text_matrix
from dlwhy.render.notes import notes, within
from dlwhy.report_systems import Cell, MatrixReport, Row, System
from dlwhy.walk import renamed
from tests.render.test_golden import compare
from tests.render.test_schema import check
from tests.render.test_style import ESCAPE, PLAIN, poisoned

if TYPE_CHECKING:
    from tests.fixtures.system import Others

CELL = Cell("one", "loads", None, None, "/x.so", None, "all checks pass", "computed", (), (), None, "glibc", "2.36")
GONE = CELL.but(outcome="fails", message="a | b `c'", kind="not-found", because="no file")


@pytest.fixture(scope="module")
def report(others: Others) -> MatrixReport:
    """The package asked of three systems, as if it stood in /work."""
    systems = [f"sysroot:{root}" for root in (others.newer, others.older, others.empty)]
    made = dlwhy.on([others.work / "pkg"], systems, cpu="x86-64-v3")
    return renamed(renamed(made, str(others.work), "/work"), str(others.work.parent), "/systems")


def test_text(report: MatrixReport) -> None:
    """The text is that of the golden file: the verdict, the table, then each reason once."""
    compare("matrix.txt", text_matrix.matrix(report, PLAIN))


def test_verbose_text(report: MatrixReport) -> None:
    """With -v it says what was assumed of the loads, too."""
    compare("matrix-verbose.txt", text_matrix.matrix(report, PLAIN.but(verbose=True)))


def test_markdown(report: MatrixReport) -> None:
    """The Markdown is that of the golden file."""
    compare("matrix.md", markdown.matrix(report))


def test_json(report: MatrixReport) -> None:
    """The JSON is that of the golden file, and keeps the schema."""
    compare("matrix.json", json_v1.render(report))
    assert check(json_v1.render(report))["exit_status"] == 10


def matrix(*rows: tuple[Cell, ...]) -> MatrixReport:
    """A matrix of systems named one, two and so on, and files a.so, b.so and so on."""
    names = [cell.system for cell in rows[0]]
    systems = tuple(System(name, name, ("x86-64",)) for name in names)
    made = [Row(f"/d/{chr(97 + place)}.so", "x86-64", "plain", None, cells, None) for place, cells in enumerate(rows)]
    return MatrixReport(systems, tuple(made))


def test_cells_that_say_the_same_share_a_note() -> None:
    """Two systems with the same words have one note, in order; another file has one of its own."""
    two = GONE.but(system="two")
    found = notes(matrix((GONE, two), (GONE, CELL.but(system="two"))))
    assert [(note.number, len(note.cells)) for note in found] == [(1, 2), (2, 1)]
    shown = text_matrix.matrix(matrix((GONE, two)), PLAIN)
    assert re.findall(r"fails \[\d\]", shown) == ["fails [1]", "fails [1]"]
    assert "fails  fails\n" in text_matrix.matrix(matrix((GONE, two)), PLAIN.but(quiet=True))


def test_common_directories_are_told_once() -> None:
    """Files of one directory are shown without it, the directory above the table."""
    several = matrix((CELL,), (CELL,))
    assert within(several) == "/d/"
    assert text_matrix.matrix(several, PLAIN).startswith("2 of 2 files load on one  in /d/\n")
    assert within(MatrixReport((), (Row("a.whl!/x/b.so", None, "plain", None, (), None),))) == "a.whl!/x/"


def test_nothing_in_markdown_is_taken_for_a_mark() -> None:
    """Bars and backticks of a message or a name neither end a cell nor begin a span."""
    drawn = markdown.matrix(matrix((GONE,)).but(rows=(Row("a|`b.so", None, "plain", None, (GONE,), None),)))
    assert "| `` a\\|`b.so `` | **fails** [1] |" in drawn
    assert "`` a \\| b `c' ``" in drawn


@pytest.mark.parametrize("verbose", [False, True])
def test_no_control_character_comes_through(report: MatrixReport, verbose: bool) -> None:
    """Whatever part of a matrix holds an escape code or a line break, text and Markdown show it escaped."""
    for shown in (text_matrix.matrix(poisoned(report), PLAIN.but(verbose=verbose)), markdown.matrix(poisoned(report))):
        assert "owned" in shown
        assert {one for one in shown if one != "\n" and not one.isprintable()} == set()


def test_colour_only_repeats(report: MatrixReport) -> None:
    """With colours the text is the same but for the codes."""
    colored = text_matrix.matrix(report, PLAIN.but(color=True))
    assert ESCAPE.sub("", colored) == text_matrix.matrix(report, PLAIN)
    assert colored != text_matrix.matrix(report, PLAIN)


def test_long_names_are_shortened() -> None:
    """A name gives way to the columns of the systems, its end kept."""
    wide = MatrixReport((System("one", "one", ()),), (Row("x" * 200 + "end.so", None, "plain", None, (CELL,), None),))
    line = text_matrix.matrix(wide, PLAIN).splitlines()[3]
    assert len(line) <= 110
    assert re.fullmatch(r"x+…x+end\.so  loads", line)


def test_the_worst_decides() -> None:
    """The exit status is that of the worst cell: broken, then a failure, undecided, a load; nothing asked is 3."""
    undecided = CELL.but(outcome="undecided")
    assert matrix((CELL, CELL.but(system="two", outcome=None))).exit_status == 0
    assert matrix((CELL, undecided)).exit_status == 11
    assert matrix((undecided, GONE)).exit_status == 10
    assert matrix((GONE, CELL.but(outcome=None, error="x"))).exit_status == 1
    assert MatrixReport((), ()).exit_status == 3
