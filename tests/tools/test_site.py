"""The pages make a site without a warning."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tools import site

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def test_no_warning(tmp_path: Path) -> None:
    """The generator finds every page, heading and link; that the examples are true is tested in test_docs.py."""
    assert site.build(tmp_path / "site", run=False) == []
    assert (tmp_path / "site/index.html").exists()


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that leads nowhere, and a page that the index does not name, are told."""
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    for name in site.OUTSIDE:
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "docs/broken.md").write_text("# Broken\n\n[nowhere](nowhere.md)\n", "utf-8")
    monkeypatch.setattr("tools.site.ROOT", tmp_path)
    told = "\n".join(site.build(tmp_path / "site", run=False))
    assert "cross-reference target not found: 'nowhere.md'" in told
    assert "document isn't included in any toctree" in told
