"""The layers: which file may import which. The list itself is tools/layers.py."""

from __future__ import annotations

import pytest

from tools import layers

FILES = layers.sources()
IMPORTS = {name: layers.imports(name, path.read_text("utf-8"), set(FILES)) for name, path in FILES.items()}


def test_every_file_has_one_place() -> None:
    """Each file of the package is listed exactly once, and nothing is listed that is not there."""
    assert sorted(layers.order()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_imports_look_back_only(name: str) -> None:
    """A file imports only what stands before it, also inside its functions."""
    assert layers.faults(name, IMPORTS[name]) == []


@pytest.mark.parametrize("pair", layers.AHEAD, ids=" to ".join)
def test_each_look_ahead_is_needed(pair: tuple[str, str]) -> None:
    """An exception that nothing uses any more is struck from the list."""
    name, module = pair
    assert any(one.module == module and one.inside for one in IMPORTS[name])


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("elf.file", "from dlwhy.loader.host import Host", "comes later"),
        ("elf.file", "def f():\n    from dlwhy.loader import host", "comes later"),
        ("elf.file", "if TYPE_CHECKING:\n    from dlwhy.loader import host", "even types"),
        ("elf.file", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    import dlwhy.elf.tls", "comes later"),
        ("elf.file", "import dlwhy.elf.nowhere", "in no layer"),
        ("errors", "import dlwhy.errors", "comes later"),
        ("hosts.known", "if TYPE_CHECKING:\n    from dlwhy.attribute.ledger import Share", "stand apart"),
        ("attribute.bill", "class A:\n    from dlwhy.hosts.known import Known", "stand apart"),
        ("render.text", "from dlwhy.verdict import verdict", "nothing that computes"),
        ("api", "from dlwhy.diagnose import check", "comes later"),
        ("elf.nowhere", "", "in no layer"),
    ],
)
def test_a_breach_is_seen(name: str, text: str, word: str) -> None:
    """Each rule finds the import that breaks it."""
    found = layers.faults(name, layers.imports(name, text, set(FILES)))
    assert found
    assert word in found[0]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("elf.dynamic", "if TYPE_CHECKING:\n    from dlwhy.elf.file import Elf"),
        ("api", "def check():\n    from dlwhy.diagnose import check"),
        ("cli.main", "from dlwhy import __version__"),
        ("elf.file", "import os, struct"),
    ],
)
def test_what_is_allowed_passes(name: str, text: str) -> None:
    """Types of the own layer, the listed look-ahead, and everything that comes before are no breach."""
    assert layers.faults(name, layers.imports(name, text, set(FILES))) == []


@pytest.mark.parametrize("name", [name for name in FILES if name.partition(".")[0] in layers.PURE])
def test_what_computes_does_not_touch_the_world(name: str) -> None:
    """Reading facts, modelling the loader, judging and rendering neither open, run, print, nor ask the environment."""
    assert layers.touches(FILES[name].read_text("utf-8")) == []


@pytest.mark.parametrize(
    "text",
    ["import subprocess", "from os import environ", "import os\nos.stat('x')", "open('x')", "from sys import argv"],
)
def test_touching_the_world_is_seen(text: str) -> None:
    """Each way out of the process is found."""
    assert layers.touches(text)


def test_relative_imports_are_refused() -> None:
    """A relative import is an error, because it hides which layer is meant."""
    with pytest.raises(ValueError, match="relative"):
        layers.imports("elf.file", "from . import tls", set(FILES))
