"""Cures by another release: one is named exactly where a library with the smaller variable really loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, open_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle

RAND = "_ZN4rand4rngs6thread14THREAD_RNG_KEY7__getit5__KEY17h5d2b1cbf3a0e9f41E"


def compiled(target: Path, source: str) -> Path:
    """A library of this source."""
    text = target.with_suffix(".c")
    text.write_text(source)
    return gcc(target, "-O1", "-shared", "-fPIC", text)


def library(folder: Path, rand: int, others: int) -> Path:
    """A library that forces its segment into the static block, with rand's variable and others of so many bytes."""
    return compiled(folder / f"librand-{rand}-{others}.so", f"""
        static __thread long rng[{rand // 8}] __asm__("{RAND}") __attribute__((used, tls_model("initial-exec")));
        static __thread long others[{others // 8}] __attribute__((tls_model("initial-exec")));
        long touch(int i) {{ return rng[i] + others[i]; }}
        """)


@pytest.mark.parametrize("others", [8, 800, 1664, 1680, 1696, 1704, 1712, 1720, 2400])
def test_what_would_fit(tmp_path: Path, others: int) -> None:
    """The rebuild is proposed if, and only if, the real loader takes the library of that size."""
    now = library(tmp_path, 4248, others)
    report = dlwhy.check([str(now)], dlwhy.Host.plain(BARE))
    assert report.steps[0].kind == "static-tls-exhausted"
    (opened,) = open_in("plain", [str(library(tmp_path, 16, others))]).opened
    cures = [one for one in report.cures if one.disposition == "rebuild"]
    assert [one.title for one in cures] == ["rand >= 0.8: 16 bytes instead of 4248"] * (opened.outcome == "loads")
    assert all(one.proof == {"outcome": "loads", "basis": "assumed"} for one in cures)


def test_none_is_needed(tmp_path: Path) -> None:
    """A library that loads needs none, and one whose variables no data knows gets none."""
    fits = dlwhy.check([str(library(tmp_path, 800, 8))], dlwhy.Host.plain(BARE))
    assert fits.steps[0].outcome == "loads"
    source = '__thread char big[5000] __attribute__((tls_model("initial-exec"))); char *touch(void) { return big; }'
    unknown = dlwhy.check([str(compiled(tmp_path / "libbig.so", source))], dlwhy.Host.plain(BARE))
    assert unknown.steps[0].outcome == "fails"
    assert [one for one in (*fits.cures, *unknown.cures) if one.disposition == "rebuild"] == []
