"""How text is drawn: nothing that a file says reaches the terminal as a command, and every width is used well."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import pytest

from dlwhy.record import Record
from dlwhy.render import text, text_diff, text_tls, text_tree, text_unresolved
from dlwhy.render.style import Style, bar, columns, printable, shortened, wrapped
from dlwhy.report import CheckReport, Startup, TreeReport, Try, UnresolvedReport
from dlwhy.report_diff import DiffReport
from dlwhy.report_tls import Provenance, TlsReport
from tests.render.cases import CASES

PLAIN = Style(width=110, color=False, unicode=True, verbose=False, quiet=False)
HOSTILE = "\x1b]0;owned\x07\x9b31m\udc9b\u202e\r\n\t\x7f\u2028é漢"
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


def drawn(report: object, style: Style) -> str:
    """A report as text."""
    if isinstance(report, CheckReport):
        return text.check(report, style)
    if isinstance(report, TlsReport):
        return text_tls.tls(report, style)
    if isinstance(report, UnresolvedReport):
        return text_unresolved.unresolved(report, style)
    if isinstance(report, DiffReport):
        return text_diff.diff(report, style)
    assert isinstance(report, TreeReport)
    return text_tree.tree(report, style)


@pytest.fixture(scope="module")
def reports(system) -> dict[str, Any]:
    """The reports of all golden cases."""
    return {name: case.ask(system) for name, case in CASES.items()}


WORDS = ("basis", "change", "command", "disposition", "kind", "mode", "outcome", "presence", "startup", "state")
"""Fields that are words of dlwhy's own."""


def poisoned(value: Any) -> Any:
    """The report with hostile characters at the end of every text in it that comes from outside."""
    if isinstance(value, str):
        return value + HOSTILE if value else value
    if isinstance(value, Record):
        return type(value)(*(
            part if field in WORDS and isinstance(part, str) else poisoned(part)
            for field, part in zip(value._fields, value, strict=True)
        ))  # fmt: skip
    if isinstance(value, tuple):
        return tuple(poisoned(part) for part in value)
    if isinstance(value, dict):
        return {key: part if key in WORDS else poisoned(part) for key, part in value.items()}
    return value


@pytest.mark.parametrize("name", CASES)
def test_no_control_character_comes_through(reports, name: str) -> None:
    """Whatever part of a report holds an escape code, a line break or a byte that is no UTF-8, it is shown escaped."""
    bad = poisoned(reports[name])
    for verbose in (False, True):
        shown = drawn(bad, PLAIN.but(verbose=verbose))
        assert "owned" in shown
        wrong = {one for one in shown if one != "\n" and not one.isprintable()}
        assert wrong == set()
        assert "\u202e" not in shown
        assert "\\x1b]0;owned\\x07\\x9b31m\\x9b\\u202e\\r" in shown.replace("\n", "")


def test_bytes_are_shown_as_bytes() -> None:
    """A byte that is no UTF-8 is shown by its number, a letter beyond ASCII as itself; only messages keep lines."""
    assert printable("a\udcffé漢\x00") == "a\\xffé漢\\x00"
    assert printable(Try("a\nb", "\t", "c")) == Try("a\\nb", "\\t", "c")
    assert printable(Startup("fails", "a\nb\tc", 1, ())).message == "a\nb\\tc"


def overflows(shown: str, width: int, unbreakable: set[str]) -> list[str]:
    """Lines that are wider than the width although they have a blank to break at."""
    found = []
    for line in shown.splitlines():
        told = line.strip().removeprefix("said of OLD").strip()
        indented = len(line) - len(line.lstrip(" │├└─|`-"))
        if columns(line) <= max(width, indented + 24) or told.removeprefix("ld.so says").strip() in unbreakable:
            continue
        told = told.removeprefix("ld.so notes").removeprefix("cures").removeprefix("no cure").strip()
        body = re.sub(r"^([│├└─|`\- ]*(tried |[a-z ]{0,11}  +)?|\d+ +[█▏▎▍▌▋▊▉]* +)", "", told)
        if told in unbreakable or " " not in body:
            continue
        found.append(line)
    return found


@pytest.mark.parametrize("width", [40, 47, 60, 72, 80, 100, 132, 160, 200])
@pytest.mark.parametrize("verbose", [False, True])
def test_lines_fit(reports, width: int, verbose: bool) -> None:
    """No line is wider than the terminal, but for the loader's message, commands to copy, and words without a blank."""
    for name, report in reports.items():
        if verbose and isinstance(report, TlsReport):
            continue  # with -v names are never shortened, so a table is as wide as its widest name
        whole: set[str] = set()
        if isinstance(report, CheckReport):
            messages = [report.host.startup.message, *(step.message for step in report.steps)]
            messages += [one.message for one in report.findings]
            whole |= {line for one in messages if one for line in one.split("\n")}
            whole |= {cure.command or cure.title for cure in report.cures}
        if isinstance(report, DiffReport):
            verdicts = [side for file in report.files for one in file.verdicts for side in (one.old, one.new)]
            whole |= {line for side in verdicts if side and side.message for line in side.message.split("\n")}
        assert overflows(drawn(report, PLAIN.but(width=width, verbose=verbose)), width, whole) == [], name


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_message_is_never_broken(reports, width: int) -> None:
    """The loader's words stand in one line each, however narrow the terminal is."""
    seen = 0
    for report in reports.values():
        for step in report.steps if isinstance(report, CheckReport) else ():
            if step.message:
                assert step.message in drawn(report, PLAIN.but(width=width))
                seen += 1
    assert seen > 15


@pytest.mark.parametrize("name", CASES)
def test_colour_only_repeats(reports, name: str) -> None:
    """With colours the text is the same but for the codes, each of which is ended in its line."""
    for verbose in (False, True):
        style = PLAIN.but(verbose=verbose)
        colored = drawn(reports[name], style.but(color=True))
        assert ESCAPE.sub("", colored) == drawn(reports[name], style)
        for line in colored.splitlines():
            codes = ESCAPE.findall(line)
            assert codes[1::2] == ["\x1b[0m"] * (len(codes) // 2)


@pytest.mark.parametrize("name", CASES)
def test_ascii_fallback(reports, name: str) -> None:
    """Where the terminal knows no more than ASCII, guides, bars and dashes are drawn with ASCII."""
    for width in (40, 110):
        shown = drawn(reports[name], PLAIN.but(unicode=False, width=width))
        assert shown.isascii()


def test_quiet_is_short(reports) -> None:
    """-q leaves the verdict and the loader's words: for a success one line a step."""
    quiet = PLAIN.but(quiet=True)
    assert drawn(reports["loads"], quiet).count("\n") == 1
    assert drawn(reports["static-tls-exhausted"], quiet).count("\n") == 2
    assert drawn(reports["tls"], quiet).count("\n") == 5
    assert drawn(reports["tree"], quiet).splitlines()[0].startswith("libc-missing.so: cannot open")


def test_columns() -> None:
    """East Asian wide characters take two columns, combining marks none."""
    assert columns("漢字") == 4
    assert columns("e\u0301") == 1
    assert columns("plain") == 5
    assert unicodedata.east_asian_width("漢") == "W"


@pytest.mark.parametrize("width", range(8, 40))
def test_shortened_fits(width: int) -> None:
    """A shortened name fits, keeps both its ends, and says that something is missing."""
    for name in ("/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30", "漢字" * 20):
        short = shortened(name, width, PLAIN)
        assert columns(short) <= width
        assert "…" in short
        assert short[0] == name[0]
        assert short[-1] == name[-1]
    assert shortened("short", width, PLAIN) == "short"


def test_wrapped_loses_nothing() -> None:
    """Breaking a text at its blanks keeps every word, and a word that is too long stays whole."""
    words = "one two three four-and-a-very-long-word five"
    assert " ".join(wrapped(words, 10)) == words
    assert "four-and-a-very-long-word" in wrapped(words, 10)


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.004, 0.5, 1.0, 7.0])
def test_bars_stay_inside(share: float) -> None:
    """A bar is never longer than its room, and never negative, whatever the numbers say."""
    for style in (PLAIN, PLAIN.but(unicode=False)):
        assert 0 <= len(bar(share, style, 20)) <= 20


def test_origins_and_accesses_are_drawn(reports) -> None:
    """Where a bill knows how an owner came in, and how often the code uses a relocation, both are shown."""
    report = reports["static-tls-exhausted"]
    bill = report.tls[0]
    here = Provenance("rand", "0.6.5", ("valet 1.2.0", "selfupdate", "backoff 0.1.6", "rand"), "Cargo.lock")
    trigger = bill.triggers[0].but(accesses=344, functions=("runtime.rt0_go",), functions_total=1)
    changed = report.but(tls=(bill.but(provenance=(here,), triggers=(trigger,)),))
    shown = drawn(changed, PLAIN)
    assert "  why here    valet 1.2.0 → selfupdate → backoff 0.1.6 → rand  Cargo.lock\n" in shown
    assert "initial-exec: 344 accesses, R_X86_64_TPOFF64" in shown
    assert "in runtime.rt0_go" in shown
    assert "valet 1.2.0 -> selfupdate" in drawn(changed, PLAIN.but(unicode=False))


def test_many_owners_are_added_up(reports) -> None:
    """Beyond six owners the rest is one line with its sum; with -v each has its own."""
    bill = reports["tls"].files[1].tls
    owners = tuple(bill.owners[0].but(owner=f"owner{number}", bytes=100 - number) for number in range(9))
    many = TlsReport((reports["tls"].files[1].but(tls=bill.but(owners=owners)),))
    assert re.search(rf"3 more owners \(-v\) +{94 + 93 + 92} ", drawn(many, PLAIN))
    assert "owner8" not in drawn(many, PLAIN)
    assert "owner8" in drawn(many, PLAIN.but(verbose=True))
