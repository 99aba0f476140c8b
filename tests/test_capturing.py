"""A profile answers as the system that it was captured from, and names what it does not hold."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy import capturing
from dlwhy.api import Options
from dlwhy.hosts.profile import load
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE
from tests.fixtures.system import LIB, build
from tests.render.cases import CASES

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report import CheckReport, TreeReport

ASKED = [name for name, case in CASES.items() if case.command in ("check", "tree")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small system."""
    made = tmp_path_factory.mktemp("captured")
    return build(made / "root", made / "scratch").root


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dlwhy.Profile:
    """A profile of all that is in the small system, read back from its file."""
    names = [f"/{one.name}" for one in sorted(root.iterdir())]
    path = tmp_path_factory.mktemp("profile") / "whole.json"
    path.write_text(dlwhy.capture(dlwhy.Host.plain({}), names=names, sysroot=str(root)).text(), "ascii")
    return load(path)


def unnamed(report: CheckReport | TreeReport) -> CheckReport | TreeReport:
    """The report without the name of the profile."""
    assert report.host is not None
    assert report.host.profile is not None
    return report.but(host=report.host.but(profile=None))


def test_without_code_only_what_the_code_tells_is_missing(tmp_path: Path) -> None:
    """Of an object that nobody asked for by name a profile keeps no code: the bill says so, and has all the rest."""
    (tmp_path / "big.c").write_text(
        '__asm__(".text; .skip 100000, 0x90");\n'
        '__thread char big[4000] __attribute__((tls_model("initial-exec")));\nchar *f(void) { return big; }\n'
    )
    big = gcc(tmp_path / "libbig.so", "-shared", "-fPIC", tmp_path / "big.c")
    wanted = (capturing.Wanted(facts=(str(big),)), capturing.Wanted((str(big),)))
    plain = dlwhy.Host.plain(BARE)
    kept = (capturing.capture(plain, Options(), one) for one in wanted)
    bare, full = (dlwhy.check([big], plain.but(captured=one)) for one in kept)
    assert (bare.steps, bare.exit_status) == (full.steps, 10)
    (without,), (with_,) = bare.tls, full.tls
    assert [one.accesses for one in with_.triggers] == [1]
    assert [one.accesses for one in without.triggers] == [None]
    assert not [note for note in with_.notes if "holds no code" in note]
    assert [note for note in without.notes if "holds no code" in note]
    assert (without.shares, without.owners, without.padding) == (with_.shares, with_.owners, with_.padding)


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/opt/none/lib", "fails"), ("/usr/local/none", "fails"), ("/nowhere", "fails"), ("$ORIGIN/../none", "fails"),
        ("/opt/there/lib", "undecided"), ("$ORIGIN/../../a/pkg.libs", "loads"),
    ],
)  # fmt: skip
def test_search_paths_outside_of_the_system(path: str, outcome: str, tmp_path: Path) -> None:
    """Where software is put beside a system a profile knows what is not there; what lies beside a file comes along."""
    root = build(tmp_path / "root", tmp_path / "scratch").root
    for name in ("opt/there", "usr/local/lib"):
        (root / name).mkdir(parents=True)
    image = tmp_path / "image.json"
    image.write_text(dlwhy.capture(dlwhy.Host.plain({}), sysroot=str(root)).text(), "ascii")
    for name in ("a/pkg", "a/pkg.libs"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "x.c").write_text("int x(void) { return 1; }\n")
    (tmp_path / "y.c").write_text("int x(void); int y(void) { return x(); }\n")
    bare = ("-shared", "-fPIC", "-nostdlib")
    dep = gcc(tmp_path / "a/pkg.libs/libdep.so", *bare, "-Wl,-soname,libdep.so", tmp_path / "x.c")
    file = gcc(tmp_path / "a/pkg/file.so", *bare, f"-Wl,-rpath,{path}", tmp_path / "y.c", dep)
    (step,) = dlwhy.check([file], dlwhy.Host.profile(image)).steps
    ((cell,),) = (row.cells for row in dlwhy.on([file], [str(image)], dlwhy.Host.plain({})).rows)
    assert (step.outcome, cell.outcome, cell.message) == (outcome, outcome, step.message)
    assert step.because is not None
    assert ("does not tell what is in /opt/there" in step.because) == (outcome == "undecided")


@pytest.mark.parametrize("name", ASKED)
def test_every_golden_case_is_the_same(name: str, root: Path, whole: dlwhy.Profile) -> None:
    """Of a profile that holds the system each question has the same report, to the last field."""
    case = CASES[name]
    env = dict(case.env)
    host = {"plain": dlwhy.Host.plain(env), "inferred": dlwhy.Host.inferred(env)}.get(case.host)
    host = host or dlwhy.Host.executable(case.host, env)
    there = host.but(captured=whole)

    def ask(host: dlwhy.Host, sysroot: str | None) -> CheckReport | TreeReport:
        if case.command == "tree":
            return dlwhy.tree(case.words[0], host, sysroot=sysroot, libc=case.libc, cwd="/")
        return dlwhy.check(case.words, host, sysroot=sysroot, libc=case.libc, cpu=case.cpu, cwd="/")

    assert unnamed(ask(there, None)) == ask(host, str(root))


def test_the_process_is_as_it_was(root: Path, tmp_path: Path) -> None:
    """Program, environment, working directory and options of the captured process hold for each question of it."""
    elsewhere = tmp_path / "root"
    shutil.copytree(root, elsewhere, symlinks=True)
    (elsewhere / "opt").mkdir()
    shutil.move(elsewhere / LIB / "libdep.so.1", elsewhere / "opt/libdep.so.1")
    host = dlwhy.Host.executable("/bin/host", {"LD_LIBRARY_PATH": "opt", "HOME": "/secret"})
    profile = dlwhy.capture(host, names=["/app/libgood.so", "libdep.so.1"], sysroot=str(elsewhere), cwd="/")
    original = dlwhy.check(["libgood.so", "/app/libgood.so"], host, sysroot=str(elsewhere), cwd="/")
    shutil.rmtree(elsewhere)
    told = dlwhy.check(["libgood.so", "/app/libgood.so"], dlwhy.Host.profile(profile))
    assert unnamed(told) == original
    assert told.steps[1].outcome == "loads"
    assert told.steps[1].loaded == ("/app/libgood.so", "opt/libdep.so.1")
    assert "secret" not in profile.text()
    other = dlwhy.check(["/app/libgood.so"], dlwhy.Host.profile(profile, env={}))
    assert other.steps[0].outcome == "fails"


def test_a_library_without_facts_is_undecided(root: Path) -> None:
    """Of a library whose name only is known nothing is said but that."""
    profile = dlwhy.capture(dlwhy.Host.plain({}), sysroot=str(root))
    step = dlwhy.check(["libdep.so.1"], dlwhy.Host.profile(profile)).steps[0]
    assert step.outcome == "undecided"
    assert step.because == (
        f"a fact is missing: what is in /{LIB}/libdep.so.1: profile plain has its name only, no facts"
    )


def test_what_is_not_told_is_not_absent(root: Path) -> None:
    """Whether a file is in a directory that nobody looked into is a missing fact; elsewhere it is known."""
    profile = dlwhy.capture(dlwhy.Host.plain({}), sysroot=str(root))
    steps = dlwhy.check(["/app/deep/x.so", "/nowhere/x.so", "libx.so"], dlwhy.Host.profile(profile)).steps
    assert [step.outcome for step in steps] == ["undecided", "fails", "fails"]
    assert "does not tell what is in /app" in steps[0].because


def test_the_file_of_this_machine_brings_its_directory(root: Path, tmp_path: Path) -> None:
    """A library of this machine finds its neighbours, and everything else in the captured system."""
    profile = dlwhy.capture(dlwhy.Host.plain({}), names=["libdep.so.1"], sysroot=str(root))
    shutil.copytree(root / "app/tree", tmp_path / "tree")
    shutil.copy(root / "app/libgood.so", tmp_path / "libgood.so")
    good = dlwhy.check([tmp_path / "libgood.so"], dlwhy.Host.profile(profile)).steps[0]
    assert (good.outcome, good.loaded) == ("loads", (str(tmp_path / "libgood.so"), f"/{LIB}/libdep.so.1"))
    tree = dlwhy.tree(tmp_path / "tree/liba.so", dlwhy.Host.profile(profile)).root
    assert tree.children[0].path == str(tmp_path / "tree/libb.so")


def test_the_same_system_has_the_same_profile(root: Path) -> None:
    """Nothing of the time, or of an order that may change, is in a profile."""
    texts = {dlwhy.capture(dlwhy.Host.plain({}), names=["/app"], sysroot=str(root)).text() for _ in range(2)}
    assert len(texts) == 1


def test_what_cannot_be_captured_is_said(root: Path, whole: dlwhy.Profile) -> None:
    """A profile, a file that is not there, and a missing host are refused in one sentence."""
    with pytest.raises(dlwhy.UsageError, match="captured already"):
        dlwhy.capture(dlwhy.Host.profile(whole))
    with pytest.raises(dlwhy.UsageError, match="--with /no/such: no such file or directory"):
        dlwhy.capture(dlwhy.Host.plain({}), names=["/no/such"], sysroot=str(root))
    with pytest.raises(dlwhy.UsageError, match="no program of that name"):
        dlwhy.capture(dlwhy.Host.executable("nosuch", {}), sysroot=str(root))
    with pytest.raises(dlwhy.UsageError, match="hosts of kind 'pid' are not built yet"):
        dlwhy.Host.named("pid:7")
    with pytest.raises(dlwhy.UsageError, match="only one can be meant"):
        dlwhy.check([], dlwhy.Host.profile(whole), sysroot=str(root))


def test_all_of_the_search_directories(root: Path) -> None:
    """With everything asked for, each library in a search directory has its facts."""
    profile = dlwhy.capture(dlwhy.Host.plain({}), everything=True, sysroot=str(root))
    held = {path for path, row in profile.data["files"].items() if "parts" in row}
    assert {f"/{LIB}/{path.name}" for path in (root / LIB).iterdir() if not path.is_symlink()} <= held
