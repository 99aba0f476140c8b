"""Golden files: what each case looks like as text and as JSON. DLWHY_UPDATE=1 rewrites them; read the diff."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

import dlwhy
from dlwhy.render import json_v1, text, text_diff, text_tls, text_tree, text_unresolved
from dlwhy.render.style import Style
from dlwhy.report import CheckReport, UnresolvedReport
from dlwhy.report_diff import DiffReport
from dlwhy.report_tls import TlsReport
from dlwhy.rules import KINDS, RULES
from tests.render.cases import CASES

GOLDEN = Path(__file__).parent.parent / "golden"

UNREACHED = {
    "static-tls-dynamic-in-use": "needs a host whose threads have used the segment before",
    "version-table-missing": "needs a library whose version table was cut out of it",
    "audit": "an auditor that cannot be loaded is left out with a notice",
    "no-dlopen": "statically linked hosts are undecided so far",
    "no-interpreter": "the kernel is asked in tests/hosts/test_executable.py",
}
"""Kinds that no golden case shows, with the reason."""


def drawn(report: object, verbose: bool) -> str:
    """The report as text, as for a file: no colours, 110 columns."""
    style = Style(width=110, color=False, unicode=True, verbose=verbose, quiet=False)
    if isinstance(report, CheckReport):
        return text.check(report, style)
    if isinstance(report, DiffReport):
        return text_diff.diff(report, style)
    if isinstance(report, UnresolvedReport):
        return text_unresolved.unresolved(report, style)
    return text_tls.tls(report, style) if isinstance(report, TlsReport) else text_tree.tree(report, style)  # type: ignore[arg-type]


def compare(name: str, made: str) -> None:
    """Compare with the golden file, or write it; which compiler made the small system is not compared."""
    made = re.sub(r"GCC: \([^)\n]*(?:\([^)\n]*\)[^)\n]*)*\) [0-9][^\s\"]*", "GCC: (a build) 1.2.3", made)
    path = GOLDEN / name
    if os.environ.get("DLWHY_UPDATE"):
        path.write_text(made, "utf-8")
    assert path.exists(), f"no {path.name}: DLWHY_UPDATE=1 ./dev test tests/render writes it"
    assert made == path.read_text("utf-8")


@pytest.mark.parametrize("name", CASES)
def test_text(name: str, system) -> None:
    """The text of the case is that of its golden file."""
    compare(f"{name}.txt", drawn(CASES[name].ask(system), CASES[name].verbose))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.verbose])
def test_json(name: str, system) -> None:
    """The JSON of the case is that of its golden file."""
    compare(f"{name}.json", json_v1.render(CASES[name].ask(system)))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.command == "tls" and not case.verbose])
def test_what_is_not_printed_is_not_needed(name: str, system) -> None:
    """The text says the same when the code behind those triggers that it leaves out was not looked for."""
    case = CASES[name]
    short = dlwhy.tls(case.words, sysroot=str(system.root), map=case.map, triggers=text_tls.TRIGGERS)
    assert drawn(short, False) == drawn(case.ask(system), False)


def test_no_golden_file_is_left_over() -> None:
    """Each golden file belongs to a case."""
    wanted = {f"{name}.txt" for name in CASES} | {f"{name}.json" for name, case in CASES.items() if not case.verbose}
    wanted |= {f"matrix{ending}" for ending in (".txt", "-verbose.txt", ".json", ".md")}  # test_matrix.py
    wanted |= {"floor.txt", "floor.json"}  # test_floor.py
    assert {path.name for path in GOLDEN.iterdir()} == wanted


def test_every_kind_of_failure_has_a_case() -> None:
    """Each way to fail is shown by a golden case, or listed as out of reach with its reason."""
    shown = set()
    for name, case in CASES.items():
        if case.command == "check" and not case.verbose:
            report = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
            shown |= {step["kind"] for step in [*report["steps"], report["host"]["startup"]]}
    assert set(KINDS) - shown == set(UNREACHED)


def test_golden_files_hold_nothing_of_this_machine(system) -> None:
    """No golden file names the directory that the system was built in, or this machine's home."""
    for path in GOLDEN.iterdir():
        held = path.read_text("utf-8")
        assert str(system.root) not in held
        assert os.path.expanduser("~") + "/" not in held


def test_every_finding_has_a_case() -> None:
    """Each finding is shown by a golden case, or listed with its reason."""
    elsewhere = {
        "static-flag-disagrees": "no linker here sets it wrongly; tests/attribute/test_accesses.py patches a file",
        "host-script": "needs a script on PATH, which is of this machine",
        "not-in-current-directory": "needs a working directory; tests/cli/test_main.py shows it",
    }
    shown = set()
    for path in GOLDEN.glob("*.json"):
        report = json.loads(path.read_text("utf-8"))
        for part in (report, *report.get("files", ())):
            shown |= {one["rule"] for one in part.get("findings", ())}
    assert set(RULES) - shown == set(elsewhere)
