"""Mutated files: a fixed thousand of them, every finding that was ever kept, and the instruments themselves."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError, ElfError
from dlwhy.view import HEAD, View
from tests.elf.images import FORMS

from . import campaign, mutators, seeds, stage
from .stage import BY_NAME, WAYS, Finding, Stage

KEPT = sorted(Path(__file__).parent.glob("kept/*.json"))
RUNS = 1260


@pytest.fixture(scope="module")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    """A place where files are put to dlwhy."""
    return Stage(str(tmp_path_factory.mktemp("fuzz") / "stage"))


@pytest.mark.slow
def test_a_thousand_files(staged: Stage) -> None:
    """Each way gets sixty mutated seeds of a fixed choice, and nothing is wrong with any answer."""
    staged.statuses.clear()
    tally = campaign.blind(staged, RUNS, 20261124, campaign.pools(with_libraries=False))
    assert tally.runs == RUNS
    assert [one for _, _, one in tally.found.values()] == []
    answered = {what for _, what in staged.statuses}
    assert {0, 1, 10, 11} <= answered
    assert {way for way, _ in staged.statuses} == {way.name for way in WAYS if way.words}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.stem)
def test_kept(staged: Stage, path: Path) -> None:
    """What once was a finding is none any more."""
    way, data = campaign.rebuilt(json.loads(path.read_text("utf-8")))
    assert staged.findings(way, data) == []


@pytest.mark.parametrize("name", seeds.built())
def test_seeds(staged: Stage, name: str) -> None:
    """Nothing is wrong with the answers about a seed itself, whichever way it takes."""
    for way in WAYS:
        if name.startswith(way.seeds):
            assert staged.findings(way, seeds.built()[name]) == []


@pytest.mark.parametrize("name", [f"elf-{bits}-{'le' if little else 'be'}" for bits, little in FORMS])
def test_the_reader_answers_about_a_seed(name: str) -> None:
    """Of a sound file no question of the reader ends in an error, so that the mutations begin behind every check."""
    answers, _ = stage.read_all(seeds.built()[name])
    assert len(answers) == len(stage.READER)
    assert [answer for answer in answers if isinstance(answer, tuple) and isinstance(answer[1], str)] == []


# -- the instruments: each sees what it is there for -------------------------------------------------------------------


def _with(monkeypatch: pytest.MonkeyPatch, staged: Stage, wrong: object, way: str = "step") -> list[Finding]:
    """What is found when the reader's dynamic section does something wrong."""
    monkeypatch.setattr(Elf, "dynamic", property(wrong))  # type: ignore[arg-type]
    return staged.findings(BY_NAME[way], seeds.built()["elf-library"])


def test_sees_an_exception(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exception that is not dlwhy's is found, with its place."""
    found = _with(monkeypatch, staged, lambda _: int("x"))
    assert [one.kind for one in found] == ["exception"] and "ValueError" in found[0].where


def test_sees_an_error_instead_of_a_report(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of dlwhy's own is found where a report is due."""

    def wrong(_: Elf) -> None:
        raise DlwhyError("told")

    assert [one.kind for one in _with(monkeypatch, staged, wrong)] == ["status"]


def test_sees_a_loop(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes on without end is stopped and found."""

    def wrong(_: Elf) -> None:
        while True:
            pass

    monkeypatch.setattr(Elf, "dynamic", property(wrong))
    found = staged.findings(BY_NAME["step"], seeds.built()["elf-library"], 0.05)
    assert [one.kind for one in found] == ["time"]


@pytest.mark.parametrize(("offset", "size"), [(-1, 4), (1 << 20, 4), (HEAD, 1 << 20)])
def test_sees_a_read_outside(staged: Stage, monkeypatch: pytest.MonkeyPatch, offset: int, size: int) -> None:
    """A read that leaves the file is found, of a file as of a literal, though the system would only return less."""

    def wrong(elf: Elf) -> object:
        return elf.view._fetch(offset, size)

    for way in ("step", "reader"):
        assert [one.kind for one in _with(monkeypatch, staged, wrong, way)] == ["read"]


def test_sees_that_too_much_is_read(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that is read over and over is found."""

    def wrong(elf: Elf) -> object:
        for _ in range(3000):
            elf.view.read(0, elf.view.size)
        return None

    assert [one.kind for one in _with(monkeypatch, staged, wrong, "reader")] == ["read"]


def test_sees_two_answers(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that depends on something else than the file is found."""
    number = itertools.count()
    monkeypatch.setitem(stage.READER, "header", lambda _: next(number))
    monkeypatch.setattr(stage, "_ASKED_TWICE", 1)
    assert [one.kind for one in staged.findings(BY_NAME["reader"], seeds.built()["elf-bare"])] == ["differs"]


def test_a_finding_is_made_small(staged: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many changes to a seed those are kept that the finding needs, and they give the file again."""
    real = View.read

    def wrong(view: View, offset: int, size: int) -> bytes:
        made = real(view, offset, size)
        if view.head[48:50] == b"\xab\xcd":
            raise KeyError("a fault that needs two bytes")
        return made

    monkeypatch.setattr(View, "read", wrong)
    base = seeds.built()["elf-library"]
    data = campaign.patched(base, len(base), [(48, b"\xab\xcd"), (500, b"xyz"), (900, b"q")])
    (one,) = staged.findings(BY_NAME["reader"], data)
    kept = campaign.reduced(staged, BY_NAME["reader"], data, one)
    assert kept is not None and kept["patches"] == {"0x30": "abcd"}
    way, again = campaign.rebuilt(json.loads(json.dumps(kept)))
    assert staged.findings(way, again)[0].key == one.key


@pytest.mark.parametrize("name", seeds.built())
def test_mutations(name: str) -> None:
    """Mutations are the same for one seed, hardly ever leave a file as it is, and are bounded."""
    data, others = seeds.built()[name], list(seeds.built().values())
    made = [mutators.mutate(data, random.Random(number), others) for number in range(60)]
    assert made == [mutators.mutate(data, random.Random(number), others) for number in range(60)]
    assert len(set(made)) > 45 and max(map(len, made)) <= mutators.LARGEST


def test_mutations_go_beyond_the_header() -> None:
    """Most mutated libraries still have a header that is read, many a dynamic section: what lies behind is reached."""
    data = seeds.built()["elf-library"]
    read = sound = 0
    for number in range(400):
        try:
            elf = Elf(View("made", mutators.mutate(data, random.Random(number), [data])))
            read += 1
            sound += elf.dynamic is not None and elf.dynamic.soname == "libwhole.so.1"
        except ElfError:
            continue
    assert read > 250 and sound > 150
