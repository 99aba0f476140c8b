"""`check --on` as the library has it: verdicts per system, shared facts, hosts that a system lacks, bad input."""

from __future__ import annotations

import shutil
import zipfile
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.api import Options
from dlwhy.errors import UsageError
from dlwhy.matrix import Matrix
from tests.fixtures.system import LIB, MUSL, MUSL_CODE, Others, System, build_others
from tests.loader.test_cache import new_format

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_systems import Cell, MatrixReport, Row


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Systems of several releases, and files outside of them."""
    return build_others(tmp_path_factory.mktemp("others"))


def ask(others: Others, *files: object, systems: tuple[str, ...] = ("newer", "older"), **more: object) -> MatrixReport:
    """The matrix of files, by default on both systems that have a loader."""
    words = [f"sysroot:{getattr(others, name)}" for name in systems]
    return dlwhy.on([str(one) for one in files], words, **more)  # type: ignore[arg-type]


def outcomes(row: Row) -> list[str | None]:
    """The outcome of each cell."""
    return [cell.outcome for cell in row.cells]


def cell(others: Others, name: str, system: str = "older", **more: object) -> Cell:
    """One file of the package on one system."""
    (row,) = ask(others, others.work / "pkg" / name, systems=(system,), **more).rows
    return row.cells[0]


def test_bundled_libraries_come_along(others: Others) -> None:
    """What a file finds by $ORIGIN beside its directory is there in every system, by file as by directory."""
    (row,) = ask(others, others.work / "pkg/inner/plugin.so").rows
    assert outcomes(row) == ["loads", "loads"]
    report = ask(others, others.work / "pkg")
    assert {row.file.rpartition("/")[2]: outcomes(row) for row in report.rows if row.cells} == {
        "libgood.so": ["loads", "fails"], "newer.node": ["loads", "fails"], "plugin.so": ["loads", "loads"],
        "libbundled.so.1": ["loads", "loads"],
    }  # fmt: skip


def test_the_unpacked_archive_comes_along(others: Others, tmp_path: Path) -> None:
    """The members of a wheel find one another in every system, and are named as ARCHIVE!/MEMBER."""
    wheel = tmp_path / "pkg-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in ("inner/plugin.so", "pkg.libs/libbundled.so.1"):
            archive.write(others.work / "pkg" / name, name)
    first, second = ask(others, wheel).rows
    assert (first.file, outcomes(first)) == (f"{wheel}!/inner/plugin.so", ["loads", "loads"])
    assert first.cells[0].object == first.file
    assert second.file == f"{wheel}!/pkg.libs/libbundled.so.1"


def test_what_a_cache_leads_to_is_whose_it_is_now(others: Others, tmp_path: Path) -> None:
    """A path in a system's cache is this machine's file beside a file under test, and the system's for the next one."""
    root, here = tmp_path / "system", tmp_path / "here"
    shutil.copytree(others.newer, root, symlinks=True)
    system, own = System(root, tmp_path / "scratch"), System(tmp_path, tmp_path / "scratch")
    q, first, second = f"{here}/libq.so.1", "/here/first.so", "/there/second.so"
    shutil.copytree(others.newer / LIB, tmp_path / LIB, symlinks=True)  # to link against
    libc = f"/{LIB}/libc.so.6"
    own.library("/here/libq.so.1", "int q(void) { return 1; }\n", needs=(libc,))
    for name in (first, second):
        own.library(name, "int q(void); int use(void) { return q(); }\n", needs=("/here/libq.so.1", libc))
    shutil.copy(q, system.path(q))
    system.patched(q, q, (18, "H", 183))
    system.path("/etc/ld.so.cache").write_bytes(new_format([(b"libq.so.1", q.encode(), 0x303, 0)]))
    report = dlwhy.on([f"{tmp_path}{first}", f"{tmp_path}{second}", f"{tmp_path}{first}"], [f"sysroot:{root}"])
    assert [outcomes(row) for row in report.rows] == [["loads"], ["fails"], ["loads"]]
    assert report.rows[1].cells[0].message == "libq.so.1: cannot open shared object file: No such file or directory"


def test_the_same_as_within_the_system(others: Others, tmp_path: Path) -> None:
    """The verdict is that of a check of the same file at the same path inside the system, word for word."""
    root = tmp_path / "root"
    shutil.copytree(others.older, root, symlinks=True)
    inside = System(root, tmp_path / "scratch").path(str(others.work / "pkg"))
    shutil.copytree(others.work / "pkg", inside)
    for name in ("libgood.so", "inner/plugin.so", "pkg.libs/libbundled.so.1"):
        path = str(others.work / "pkg" / name)
        (step,) = dlwhy.check([path], dlwhy.Host.plain({}), sysroot=str(root)).steps
        found = cell(others, name)
        assert (found.outcome, found.message, found.kind, found.object, found.because) == (
            step.outcome, step.message, step.kind, step.object, step.because,
        )  # fmt: skip


def test_facts_are_read_once(others: Others) -> None:
    """Files under test and those that come with them are opened once for all systems, a system's once for all files."""
    words = [f"sysroot:{root}" for root in (others.newer, others.older)]
    run = Matrix([*words, f"sysroot:{others.newer}/."], None, Options())
    rows = list(run.rows([str(others.work / "pkg")]))
    assert len(rows) == 5
    mine = run.files.reads
    assert {name.rpartition("/")[2] for name in mine} >= {"plugin.so", "libgood.so", "newer.node", "libarm.so"}
    assert max(count for name, count in mine.items() if "libbundled" not in name) == 1
    for system in run.systems:
        (tree,) = system.trees
        assert max(tree.objects.overlay.system.reads.values()) == 1
        assert tree.objects.own.held() == (set(), set())
    kept = {number for system in run.systems for number in system.first.objects.system.held()[1]}
    assert run.systems[0].first.objects.bindings.keys() <= kept
    run.close()


def test_a_host_that_the_system_has(others: Others) -> None:
    """An addon is asked of the system's own Node, whose path the cell tells."""
    found = cell(others, "newer.node", "newer")
    assert (found.outcome, found.host) == ("loads", "/usr/bin/node")


def test_a_refusal_without_the_host(others: Others) -> None:
    """Without a Node, what its C library lacks is still said, as resting on an assumption."""
    found = cell(others, "newer.node")
    assert (found.outcome, found.kind, found.basis, found.host) == ("fails", "missing-version", "assumed", None)
    assert "version `GLIBC_2.34' not found" in (found.message or "")
    assert any("the system has no program node" in text for text in found.assumptions)


def test_nothing_else_is_said_without_the_host(others: Others) -> None:
    """What a C program there would open, or lacks symbols of, is undecided: the host could change it."""
    work = others.work / "pkg"
    shutil.copy(work / "inner/plugin.so", work / "inner/plugin.abi3.so")
    found = cell(others, "inner/plugin.abi3.so")
    assert (found.outcome, found.message) == ("undecided", None)
    assert found.because == (
        "a fact is missing: its host: the system has no program python3; a C program there opens it"
    )
    shutil.copy(work / "libgood.so", work / "libgood.abi3.so")
    assert "in a C program there: libdep.so.1: cannot open" in cell(others, "libgood.abi3.so").because
    for name in ("inner/plugin.abi3.so", "libgood.abi3.so"):
        (work / name).unlink()


def test_symbols_of_the_host(others: Others, tmp_path: Path) -> None:
    """An extension whose only wants are its host's is undecided, and the symbols are listed."""
    system = System(tmp_path, tmp_path / "scratch")
    shutil.copy(others.older / LIB / "libc.so.6", system.path(f"/{LIB}/libc.so.6"))
    system.library("/x.abi3.so", "extern int PyThing; int *p = &PyThing;\n", needs=(f"/{LIB}/libc.so.6",))
    (row,) = ask(others, tmp_path / "x.abi3.so", systems=("older",)).rows
    assert row.cells[0].because.endswith("all else is there but symbols that it would have to define")
    assert [one.symbol for one in row.cells[0].unresolved] == ["PyThing"]


def test_a_named_host(others: Others) -> None:
    """A host that is named is looked up in each system; `plain` is in all of them."""
    assert cell(others, "libgood.so", "newer", host=dlwhy.Host.executable("node")).host == "/usr/bin/node"
    assert cell(others, "newer.node", host=dlwhy.Host.plain()).basis == "computed"
    missing = cell(others, "inner/plugin.so", host=dlwhy.Host.executable("/opt/none"))
    assert (missing.outcome, "no program /opt/none" in missing.because) == ("undecided", True)


def test_another_machine(others: Others) -> None:
    """A file that no system has a loader for says so, is not asked, and hides no other."""
    report = ask(others, others.work / "pkg/libarm.so", others.work / "pkg/libgood.so")
    first, second = report.rows
    assert first.cells == ()
    assert first.error == "no system here is of machine aarch64, only of x86-64"
    assert (first.exit_status, outcomes(second), report.exit_status) == (11, ["loads", "fails"], 10)


def test_a_system_without_a_loader(others: Others) -> None:
    """A sysroot without a loader leaves its cells undecided, naming the loader; the others go on."""
    (row,) = ask(others, others.work / "pkg/libgood.so", systems=("empty", "newer")).rows
    assert outcomes(row) == ["undecided", "loads"]
    assert row.cells[0].because == "a fact is missing: the loader: the system has no /lib64/ld-linux-x86-64.so.2"


def test_releases_that_no_row_covers(others: Others, tmp_path: Path) -> None:
    """Between releases that were measured it is said what is assumed; beyond all the cell is undecided and says so."""
    loader = (others.newer / "lib64/ld-linux-x86-64.so.2").read_bytes()
    assert (found := cell(others, "libgood.so", "newer")).assumptions == ()
    assert found.basis == "computed"
    for release in ("2.34", "2.99"):
        root = tmp_path / release
        shutil.copytree(others.newer, root, symlinks=True)
        (root / "lib64/ld-linux-x86-64.so.2").write_bytes(
            loader.replace(b"version 2.36", b"version " + release.encode())
        )
    words = [f"sysroot:{tmp_path}/{release}" for release in ("2.34", "2.99")]
    (row,) = dlwhy.on([others.work / "pkg/libgood.so"], words).rows
    between, beyond = row.cells
    assert (between.outcome, between.basis) == ("loads", "assumed")
    assert between.assumptions == ("how glibc 2.34 decides is taken from its sources: 2.31 and 2.36 were measured",)
    assert beyond.outcome == "undecided"
    assert "how glibc 2.99 decides: its sources were not read" in beyond.because


def test_a_system_of_musl(others: Others, tmp_path: Path) -> None:
    """A system whose only loader is musl's is asked by musl's rules, and the cell says so."""
    system = System(tmp_path, tmp_path / "scratch")
    system.library(f"/{MUSL}", MUSL_CODE, soname=False)
    system.library("/own.so", "int x;\n", needs=("libc.so",))
    words = [f"sysroot:{tmp_path}", f"sysroot:{others.newer}"]
    mine, other = dlwhy.on([tmp_path / "own.so", others.work / "pkg/libgood.so"], words).rows
    assert outcomes(mine) == ["loads", "fails"]
    assert (mine.cells[0].libc, mine.cells[0].libc_version, mine.cells[1].libc) == ("musl", "1.2.3", "glibc")
    assert (other.cells[0].message or "").startswith("Error loading shared library libdep.so.1: No such file")


def test_files_that_are_none(others: Others, tmp_path: Path) -> None:
    """A missing file, a text and a cut-off library are predictions; a damaged archive is told; the others go on."""
    (tmp_path / "notes.txt").write_text("no library, though long enough for a header of sixty-four bytes or more\n")
    (tmp_path / "cut.so").write_bytes((others.work / "pkg/libgood.so").read_bytes()[:100])
    (tmp_path / "bad.whl").write_bytes(b"PK\x03\x04 damaged")
    names = [tmp_path / name for name in ("none.so", "notes.txt", "cut.so", "bad.whl")]
    report = ask(others, *names, others.work / "pkg/libgood.so")
    assert [outcomes(row) for row in report.rows] == [
        ["fails"] * 2,
        ["fails"] * 2,
        ["fails"] * 2,
        [],
        ["loads", "fails"],
    ]
    assert report.rows[0].cells[0].message == (
        f"{tmp_path}/none.so: cannot open shared object file: No such file or directory"
    )
    assert "a damaged archive" in (report.rows[3].error or "")
    assert report.exit_status == 1


def test_a_soname_is_the_systems(others: Others) -> None:
    """A name without a slash, of no file here, is searched in each system."""
    (row,) = ask(others, "libdep.so.1").rows
    assert outcomes(row) == ["loads", "fails"]
    assert (row.machine, row.cells[0].object) == (None, f"/{LIB}/libdep.so.1")


def test_a_relative_name(others: Others) -> None:
    """A relative name means the file in the working directory, and is examined by its whole path."""
    (row,) = ask(others, "pkg/libgood.so", cwd=str(others.work)).rows
    assert (row.file, row.cells[0].object) == ("pkg/libgood.so", f"{others.work}/pkg/libgood.so")


def test_a_program(others: Others, tmp_path: Path) -> None:
    """A program is asked whether it starts, with that system's loader and libraries."""
    shutil.copy(others.newer / "usr/bin/node", tmp_path / "prog")
    (row,) = ask(others, tmp_path / "prog").rows
    assert outcomes(row) == ["loads", "loads"]
    assert (row.inferred, row.cells[0].host) == ("the file itself is a program", str(tmp_path / "prog"))


def test_a_library_in_a_default_directory(others: Others) -> None:
    """Of a library in this machine's own library directory only that file is taken along, not its neighbours."""
    (row,) = ask(others, f"/usr/{LIB}/libstdc++.so.6", systems=("older",)).rows
    assert row.cells[0].message == "libm.so.6: cannot open shared object file: No such file or directory"


def test_questions_that_cannot_be_asked(others: Others) -> None:
    """A sysroot beside --on, a host of this machine's processes, and a malformed release are refused as usage."""
    with pytest.raises(UsageError, match="write --on sysroot:DIR"):
        Matrix([f"sysroot:{others.newer}"], None, Options(sysroot="/"))
    with pytest.raises(UsageError, match="write a release such as"):
        ask(others, others.work / "pkg/libgood.so", libc="nonsense")


def test_what_a_small_system_lacks(others: Others) -> None:
    """Where a system that comes with dlwhy has no such library the cell says that a larger one may; of a file not."""
    (name, file), unpacked = dlwhy.on(["libnone.so.1", "/none/x.so"], ["debian12"]).rows, others.newer
    assert name.cells[0].because == (
        "no file of that name in 5 places tried; this is a small system: a larger one of its release may have it"
    )
    assert file.cells[0].because == "/none/x.so cannot be opened"
    ((cell,),) = (row.cells for row in dlwhy.on(["libnone.so.1"], [f"sysroot:{unpacked}"]).rows)
    assert cell.kind == "not-found"
    assert "larger" not in cell.because
