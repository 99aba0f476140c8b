"""A process that starts as an earlier one did is told alike, though few of its references are resolved again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import dlwhy
from dlwhy.api import Options
from dlwhy.loader import resolving
from dlwhy.question import ask
from dlwhy.verdict import model
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, host_program
from tests.oracle import compare
from tests.oracle.agreement import workshop
from tests.oracle.scenarios import scenario

if TYPE_CHECKING:
    from dlwhy.verdict import Run

SEED = 20261124
FAMILIES = ("tls", "graph", "versions", "flags", "marks", "spaces")


def told(run: Run) -> tuple[object, ...]:
    """All that a run says, and what it left in the process."""
    process = run.process
    kept: tuple[object, ...] = ()
    if process is not None:
        maps = [one for space in process.namespaces for one in space.maps]
        kept = (
            tuple(process.notices),
            tuple(tuple(sorted(space.unique)) for space in process.namespaces),
            tuple((one.name, one.static_since, one.tls_offset, one.nodelete, one.relocated) for one in maps),
        )
    return (*tuple(run)[1:], kept)


@pytest.mark.oracle
@pytest.mark.parametrize("family", FAMILIES)
def test_the_second_start_is_as_the_first(family: str) -> None:
    """Of random scenarios: the same question put twice to the same objects."""
    made = workshop()
    seen = 0
    for number in range(25):
        chosen = scenario(SEED, number, family)
        one = compare.prepare(chosen._replace(name=f"{chosen.name}-starts"), Path("/"), made)
        try:
            env = compare.environment(one)
            program = f"{one.directory}/{one.program}"
            host = dlwhy.Host.executable(program, env) if one.program else dlwhy.Host.plain(env)
            question = ask(list(one.steps), host, Options(cwd=one.cwd))
            first, second = told(model(question)), told(model(question))
            question.objects.files.close()
        finally:
            compare.clean(one, Path("/"))
        assert first == second, f"{SEED}-{number}-{family}"
        seen += bool(question.objects.starts)
    assert seen > 5


def test_little_is_resolved_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the start of this machine's python3 nearly no reference is resolved a second time."""
    question = ask([], dlwhy.Host.executable(str(host_program("python3")), BARE), Options())
    applied = 0

    def apply(*words: Any) -> bool:
        nonlocal applied
        applied += 1
        return real(*words)

    real = resolving._apply
    monkeypatch.setattr(resolving, "_apply", apply)
    model(question)
    first = applied
    model(question)
    question.objects.files.close()
    assert first > 500
    assert applied - first < first / 10


def test_unique_symbols_are_known_again(tmp_path: Path) -> None:
    """What a start enters into the table of unique symbols stands there in each process."""
    (tmp_path / "u.c").write_text(
        'extern int u; int *f(void) { return &u; }\n'
        '__asm__(".globl u\\n.type u, @gnu_unique_object\\n.data\\n.size u, 4\\nu: .long 1\\n.text");\n'
    )
    library = gcc(tmp_path / "libu.so", "-shared", "-fPIC", tmp_path / "u.c")
    question = ask([], dlwhy.Host.plain(BARE | {"LD_PRELOAD": str(library)}), Options())
    runs = [model(question) for _ in range(2)]
    question.objects.files.close()
    assert all(run.process is not None and b"u" in run.process.base.unique for run in runs)
