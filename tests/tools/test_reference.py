"""What is written from the definitions: reference pages, man page, completions."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import dlwhy
from dlwhy import report
from dlwhy.rules import KINDS, RULES
from tools import command, completions, man, reference, schema

ROOT = Path(__file__).resolve().parent.parent.parent
STATUSES = {
    report.EXIT_LOADS, report.EXIT_BROKEN, report.EXIT_USAGE, report.EXIT_NOTHING, report.EXIT_FAILS,
    report.EXIT_UNDECIDED,
}  # fmt: skip


def test_every_exit_status_is_told() -> None:
    """The help of each command, and so the man page and the docs, tell every exit status that the code can give."""
    _, commands = command.read()
    rows = dict(man.exit_rows(commands))
    assert {int(number) for number in rows} == STATUSES
    page = reference.exit_status()
    assert all(f"| {number} | {meaning} |" in page for number, meaning in rows.items())


def test_the_library_page_names_everything_public() -> None:
    """Each public name of the library is on its page, functions with their whole signature."""
    page = reference.library()
    for name in set(dlwhy.__all__) - {"__version__"}:
        assert re.search(rf"\b{name}\b", page), name
    for name in ("sysroot", "loader", "library_path", "libc", "cwd", "secure", "caller"):
        assert page.count(f"{name}: ") >= 3, name
    assert "def check(\n    steps: Sequence[str | os.PathLike[str]], host: Host | None = None, *," in page


def test_tables_have_a_row_for_each() -> None:
    """Kinds, findings and the records of the report are all in their tables."""
    assert all(f"| `{kind}` | {meaning} |" in reference.kinds() for kind, meaning in KINDS.items())
    assert all(f"| `{name}` | {rule.severity} | {rule.title} |" in reference.rules() for name, rule in RULES.items())
    page = schema.as_markdown()
    for name in schema.schema()["$defs"]:
        assert name == "Kind" or f"## {name}\n" in page


def test_tables_are_tables() -> None:
    """Every line of a generated table has as many cells as its head: nothing in a cell breaks the row."""
    pages = [reference.commands(), reference.kinds(), reference.rules(), reference.exit_status(), schema.as_markdown()]
    for text in pages:
        width = 0
        for line in text.splitlines():
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert cells in (width, 0) or width == 0, line
            width = cells


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ch",), {"check"}),
        (("",), {"check", "tls", "tree"}),
        (("check", "--ea"), {"--each"}),
        (("check", "--format", ""), {"text", "json"}),
        (("tree", "--color", "a"), {"auto", "always"}),
        (("tls", "--host"), set()),
    ],
)
def test_bash_completes(words: tuple[str, ...], offered: set[str]) -> None:
    """bash offers the commands, the options of the command that is written, and the words that an option takes."""
    script = ROOT / "completions/dlwhy.bash"
    line = ["dlwhy", *words]
    given = " ".join(f"'{word}'" for word in line)
    code = f"""source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words)}
cur='{words[-1]}' prev='{line[-2]}'; _dlwhy; printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "--norc", "-c", code], capture_output=True, text=True, check=True)
    got = {word.strip() for word in done.stdout.splitlines() if word.strip()}
    if words == ("",):
        assert offered <= got
    else:
        assert got == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_read_theirs(shell: str) -> None:
    """The completion of each other shell is read by it without a complaint."""
    if not shutil.which(shell):
        pytest.skip(f"not run: {shell} is not installed")
    path = ROOT / {"zsh": "completions/_dlwhy", "fish": "completions/dlwhy.fish"}[shell]
    done = subprocess.run([shell, "-n", path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_completions_know_every_option() -> None:
    """Each option of each command is in all three completions."""
    top, commands = command.read()
    for made in (completions.bash(top, commands), completions.zsh(top, commands), completions.fish(top, commands)):
        for one in commands:
            for option in one.options():
                for flag in option.flags:
                    assert flag in made or f"-l {flag.lstrip('-')}" in made or f"-s {flag.lstrip('-')}" in made, flag


def test_the_man_page_is_sound() -> None:
    """groff reads the man page without a warning, and the name section is as apropos wants it."""
    text = (ROOT / "man/dlwhy.1").read_text("utf-8")
    assert "\n.SH NAME\ndlwhy \\- " in text
    if not shutil.which("groff"):
        pytest.skip("not run: groff is not installed")
    done = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", "-z", ROOT / "man/dlwhy.1"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
