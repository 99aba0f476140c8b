"""The documentation is true: examples are run and compared, links lead somewhere, every command has its section."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlwhy.cli.arguments import COMMANDS
from tests.cli.run import COMMAND, ENVIRONMENT, dlwhy
from tests.fixtures.real_hosts import need
from tests.oracle.sysroots import cache
from tools.examples import CASE, Example, Stage, examples, pages, recorded, stage, versions
from tools.registries import UnreachedError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
EXAMPLES = [
    pytest.param(page, one, id=f"{page.name}: {one.command}")
    for page in pages()
    for one in examples(page.read_text("utf-8"))
]


@pytest.fixture(scope="module")
def place() -> Iterator[Stage]:
    """Where the examples are run, with the installed command."""
    need("gcc")
    with stage(cache(), COMMAND) as made:
        yield made


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.parametrize(("page", "example"), EXAMPLES)
def test_examples(place: Stage, page: Path, example: Example) -> None:
    """Each example prints what its page shows, where all it needs is of the releases that it was made with."""
    if recorded() != versions() and not example.anywhere:
        pytest.skip("not run: the pages were made with other releases of what they show")
    try:
        made = place.output(example.command)
    except UnreachedError as error:
        pytest.skip(f"not run: {error}")
    assert made == example.shown or (example.timed and made), f"{page}: run python -m tools.examples"


def test_the_picture_is_one_of_a_failure(place: Stage) -> None:
    """Whatever releases this machine has, the story's library fails as in the picture, and the same bytes are told."""
    need("node")
    made = place.output(f"./dlwhy check {CASE}/index.node")
    assert "cannot allocate memory in static TLS block" in made
    assert "its TLS segment of 4720 bytes" in " ".join(made.split())
    assert re.search(r"rand \(crate\) +4248 +90 %", made)
    assert re.search(r"trigger +Go runtime \(runtime\.tlsg\)", made)


@pytest.mark.parametrize("path", [README, ROOT / "docs/reference/library.md"], ids=lambda path: path.name)
def test_python_examples_run(path: Path) -> None:
    """The Python examples run as they stand and print something."""
    found = re.findall(r"```python\n(import dlwhy\n.*?)```", path.read_text("utf-8"), re.DOTALL)
    assert found
    for code in found:
        ready = re.sub(r'executable\("[^"]*"', f"executable({sys.executable!r}", code)
        done = subprocess.run(
            [sys.executable, "-c", ready], env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("loads None")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link of a page names a file that is there, and a heading that it has."""
    for target in re.findall(r"(?<!!)\[[^\]]+\]\(([^)\s]+)\)", path.read_text("utf-8")):
        name, _, anchor = target.partition("#")
        assert not name.startswith(("http:", "https:")), "pages are read without a network"
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{path.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}, target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_in_prose_exist(path: Path) -> None:
    """A file of this tree that a page names in code is there."""
    for name in re.findall(r"`((?:src|tests|tools|docs|examples|benchmarks)/[\w./-]+)`", path.read_text("utf-8")):
        if "NAME" not in name:
            assert (ROOT / name).exists(), name


def test_every_command_has_its_section() -> None:
    """The page of commands has a section for each command and a line for each of its options."""
    page = (ROOT / "docs/reference/commands.md").read_text("utf-8")
    for name in COMMANDS:
        section = re.search(rf"^## dlwhy {name}\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
        assert section, name
        told = dlwhy(name, "--help").out
        for flag in set(re.findall(r"(?<![\w-])--[a-z][\w-]+", told)) - {"--help"}:
            assert f"`{flag}" in section[1], f"{name} {flag}"


def test_every_page_is_in_the_index() -> None:
    """The index leads to every page of docs/."""
    index = (ROOT / "docs/index.md").read_text("utf-8")
    for path in (ROOT / "docs").rglob("*.md"):
        if path.name != "index.md":
            assert f"({path.relative_to(ROOT / 'docs')})" in index


def test_the_set_up_commands_are_those_of_the_contract() -> None:
    """The README's first command runs as written, from the checkout, and says that the library would load."""
    assert "\n./dlwhy check libm.so.6 " in README.read_text("utf-8")
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    words = ["./dlwhy", "check", "libm.so.6"]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("libm.so.6 would load in plain (glibc 2.")
