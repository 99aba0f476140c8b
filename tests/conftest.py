"""What holds for every test: a scrubbed environment, and in CI no test that is skipped without an honest reason."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

import dlwhy

if TYPE_CHECKING:
    from collections.abc import Generator

    from pluggy import Result

# The words with which a test says that something cannot be had here (another release's loader without a network, a
# compiler that ./dev does not install). CI lets these pass and lists them; any other skip fails there.
NOT_RUN = "not run: "

SCRUBBED = (
    "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "FORCE_COLOR", "GLIBC_TUNABLES", "LINES", "NO_COLOR", "PYTHONUNBUFFERED",
    "PYTHONWARNINGS", "PYTHONDONTWRITEBYTECODE", "PYTHONIOENCODING", "PYTHONUTF8", "SOURCE_DATE_EPOCH",
)  # fmt: skip

for name in [name for name in os.environ if name in SCRUBBED or name.startswith(("LC_", "LD_"))]:
    del os.environ[name]
os.environ["LANG"] = os.environ["LC_ALL"] = "C.UTF-8"


def pytest_report_header() -> str:
    """Tell which dlwhy is tested."""
    return f"dlwhy: {os.path.dirname(dlwhy.__file__)}, Python {sys.version.split()[0]}"


def _strict(report: pytest.TestReport | pytest.CollectReport) -> None:
    """In CI, turn a skip into a failure unless its reason says that it could not be run here."""
    if not report.skipped or not os.environ.get("CI") or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not reason.removeprefix("Skipped: ").startswith(NOT_RUN):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI, where every test must run: {reason}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Result[pytest.TestReport], None]:
    """Judge the skip of a test."""
    _strict((yield).get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report() -> Generator[None, Result[pytest.CollectReport], None]:
    """Judge the skip of a whole file."""
    _strict((yield).get_result())
