"""The benchmarks' comparing code, on a handful of files: unequal facts have no ratio. No time is judged here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import dlwhy
from benchmarks import __main__ as bench
from benchmarks import agree, binding, corpus, facts, lief_reader, memory, own, pyelftools_reader, start, tls_facts
from benchmarks.measure import PLAIN, Row, script

ROOT = Path(__file__).resolve().parent.parent
GATES = tomllib.loads((ROOT / "benchmarks/budgets.toml").read_text("utf-8"))


def mapped() -> tuple[str, ...]:
    """The files that this very process has loaded: its program, the C library and some more."""
    maps = Path("/proc/self/maps").read_text("utf-8").splitlines()
    paths = {line.split()[5] for line in maps if len(line.split()) == 6 and line.split()[5].startswith("/")}
    return tuple(sorted(path for path in paths if Path(path).is_file() and Path(path).read_bytes()[:4] == b"\x7fELF"))


MAPPED = mapped()
LIBC = next(path for path in MAPPED if path.endswith("/libc.so.6"))
FILES = (LIBC, *(path for path in MAPPED if path != LIBC))[:12]
"""The C library has TLS relocations, whatever else is there."""


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (own.own_facts, pyelftools_reader.pyelftools_facts), (own.own_facts, lief_reader.lief_facts),
        (own.own_tls, lief_reader.lief_tls),
    ],
)  # fmt: skip
def test_readers_agree(ours: own.Reader, theirs: own.Reader) -> None:
    """On the files that this process has loaded, every peer returns the same facts, and they are not empty."""
    agreed = agree.compare(ours, theirs, FILES)
    assert agreed == (FILES, (), ())
    assert any(any(ours(path).values()) for path in FILES)
    assert len(FILES) > 3


def test_equal_facts_have_a_ratio() -> None:
    """Rows on equal facts have a ratio, and each has its gate."""
    rows = [*facts.rows(FILES[:3], 1), *tls_facts.rows(FILES[:3], 1), *memory.rows(FILES[:3], 1)]
    assert [row.budget for row in rows] == ["facts.pyelftools", "facts.LIEF", "tls_facts.LIEF", "memory.LIEF"]
    for row in rows:
        assert row.ratio is not None and row.ratio > 0
        assert row.notes == ()
        bench.gate(row.budget, GATES)


def test_unequal_facts_have_none() -> None:
    """One fact of one file that differs suppresses the ratio and is told with both answers."""

    def liar(path: str) -> dict[str, object]:
        found = lief_reader.lief_facts(path)
        return found | {"interp": "/lib/liar.so"} if path == FILES[1] else found

    (row,) = facts.against("facts", "facts", own.own_facts, {"LIEF": liar}, FILES[:3], 1)
    assert row.ratio is None
    (note,) = row.notes
    assert note.startswith(f"LIEF no ratio, facts differ: {FILES[1]}: interp: ours ")
    assert note.endswith("theirs /lib/liar.so")
    assert not bench.met(row, "at_least", 0.0)
    assert "**none**" in bench.table([row], GATES)[2]


def test_a_fact_that_one_side_lacks_differs() -> None:
    """A fact that a reader leaves out is not equal to one that it has."""

    def silent(path: str) -> dict[str, object]:
        return {name: value for name, value in own.own_facts(path).items() if name != "needed"}

    assert agree.compare(own.own_facts, silent, FILES[:2]).unequal
    assert agree.compare(silent, own.own_facts, FILES[:2]).unequal


def test_what_a_peer_cannot_read_is_left_out() -> None:
    """A file that the peer cannot read is in no time, and is listed with the peer's words."""

    def broken(path: str) -> dict[str, object]:
        if path == FILES[0]:
            raise ValueError("what is this")
        return own.own_facts(path)

    (row,) = facts.against("facts", "facts", own.own_facts, {"LIEF": broken}, FILES[:3], 1)
    assert row.what == "facts: 2 files"
    assert row.notes == (f"LIEF left out: {FILES[0]}: it raised ValueError: what is this",)
    assert row.ratio is not None


def test_what_we_cannot_read_is_a_defeat() -> None:
    """A file that dlwhy cannot read suppresses the ratio."""

    def broken(_path: str) -> dict[str, object]:
        raise ValueError("what is this")

    assert len(agree.compare(broken, own.own_facts, FILES[:2]).unequal) == 2


def test_no_file_no_ratio() -> None:
    """Without any file on which both agree there is no ratio."""
    (row,) = tls_facts.rows((), 1)
    assert row.ratio is None


def test_corpus(tmp_path: Path) -> None:
    """The corpus is every regular ELF file: hard links once, links and other files left out."""
    data = Path(FILES[0]).read_bytes()
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/one.so").write_bytes(data)
    os.link(tmp_path / "deep/er/one.so", tmp_path / "two.so")
    (tmp_path / "three.so").symlink_to("two.so")
    (tmp_path / "text").write_text("ELF")
    os.mkfifo(tmp_path / "fifo")
    found = corpus.collect([str(tmp_path), str(tmp_path / "nowhere")])
    assert [Path(path).name for path in found.paths] == ["one.so"]
    assert found.size == len(data)


def test_gates_and_files() -> None:
    """Every gate has a file that measures it, and one bound each."""
    assert set(GATES) == set(bench.BUDGETS)
    for group, rows in GATES.items():
        assert (ROOT / f"benchmarks/{group}.py").is_file()
        for name in rows:
            kind, ratio = bench.gate(f"{group}.{name}", GATES)
            assert kind in ("at_least", "at_most")
            assert ratio > 0


def test_gates_decide() -> None:
    """A ratio at its gate is met, one beyond it is missed, from either side."""
    assert bench.met(Row("", "", "", "", 50.0), "at_least", 50.0)
    assert not bench.met(Row("", "", "", "", 49.9), "at_least", 50.0)
    assert bench.met(Row("", "", "", "", 1.2), "at_most", 1.2)
    assert not bench.met(Row("", "", "", "", 1.21), "at_most", 1.2)


def test_the_page_is_written(tmp_path: Path) -> None:
    """`--write` replaces what stands between the marks of docs/performance.md, and nothing else."""
    page = tmp_path / "page.md"
    text = (ROOT / "docs/performance.md").read_text("utf-8")
    page.write_text(text, "utf-8")
    bench.write(page, ["new words"])
    new = page.read_text("utf-8")
    assert new.partition(bench.BEGIN)[0] == text.partition(bench.BEGIN)[0]
    assert new.partition(bench.END)[2] == text.partition(bench.END)[2]
    assert new.partition(bench.BEGIN)[2].partition(bench.END)[0].split() == ["new", "words"]
    page.write_text("no marks", "utf-8")
    with pytest.raises(ValueError, match="no block"):
        bench.write(page, ["new words"])


@pytest.mark.parametrize("words", [["nonsense"], ["--rounds", "4"], ["--write", "facts"], ["--write", "--corpus", "/"]])
def test_usage(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What makes no sense is a usage error before anything is measured."""
    with pytest.raises(SystemExit) as stopped:
        bench.main(words)
    assert stopped.value.code == 2
    assert "./dev bench: error: " in capsys.readouterr().err


def test_start_scripts() -> None:
    """The two scripts of the start-up rows start dlwhy."""
    for text in (PLAIN, start.PIP):
        env = os.environ | {"PYTHONPATH": str(Path(dlwhy.__file__).parent.parent)}
        with script(text) as path:
            command = [sys.executable, path, "--version"]
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, f"dlwhy {dlwhy.__version__}\n", "")


def test_binding_rows(tmp_path: Path) -> None:
    """Libraries whose unresolved symbols are the same by the loader have a ratio; too small a program has none."""
    if shutil.which("ldd") is None:
        pytest.skip("not run: ldd is not installed")
    source = "int f(void) { return missing_one() + missing_two(); }"
    command = ["gcc", "-w", "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "liblacking.so")]
    subprocess.run(command, input=source, text=True, check=True)
    ldd = shutil.which("ldd") or ""
    paths = [str(tmp_path / "liblacking.so"), LIBC]
    row = binding.directory(ldd, paths, 1)
    assert (row.budget, row.notes) == ("binding.directory", ())
    assert row.ratio is not None and row.ratio > 0
    (report,) = dlwhy.unresolved(paths[:1])
    told = binding.by_loader(binding.listed(ldd, paths[0]), report)
    assert {symbol for symbol, _, _ in told.symbols} == {"missing_one", "missing_two"}
    few = binding.program(ldd, [], 1)
    assert few.ratio is None
    assert "and 250 are wanted" in few.notes[0]


def test_binding_contradictions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of which the loader says anything else suppresses the ratio, and is told."""
    monkeypatch.setattr(binding, "listed", lambda _ldd, path: f"undefined symbol: liar\t({path})\n")
    row = binding.directory("/usr/bin/ldd", [LIBC], 1)
    assert row.ratio is None
    assert row.notes == (f"no ratio, {LIBC}: ours nothing more, theirs ('liar', None, '{LIBC}')",)
