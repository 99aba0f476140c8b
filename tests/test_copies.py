"""Two files of one library in one process: found where they are, compared with what a real process has mapped."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures import registries
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, host_program

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report import CheckReport, Copies

GOMP = "/usr/lib/x86_64-linux-gnu/libgomp.so.1"
_MAPPED = """\
import ctypes, sys
for name in sys.argv[1:]:
    ctypes.CDLL(name)
print("".join({line[line.index("/"):] for line in open("/proc/self/maps") if "/" in line}), end="")
"""


def mapped(*libraries: Path | str) -> set[str]:
    """The files that a real Python process has mapped after it opened these libraries."""
    words = ["python3", "-I", "-S", "-c", _MAPPED, *map(str, libraries)]
    done = subprocess.run(
        words, executable=host_program("python3"), env=BARE, capture_output=True, text=True, check=True, cwd="/"
    )
    return set(done.stdout.splitlines())


def checked(*libraries: Path | str) -> CheckReport:
    """What dlwhy says of the same process."""
    report = dlwhy.check([str(one) for one in libraries], host=dlwhy.Host.executable("python3", BARE), cwd="/")
    assert {step.outcome for step in report.steps} == {"loads"}
    return report


def real_copies(files: set[str], stem: str) -> int:
    """How many of the files are of the library `stem`, with a hash or without."""
    pattern = re.compile(rf"/{re.escape(stem)}(?:-[0-9a-f]{{8}})*\.so[.0-9]*")
    return len({path for path in files if pattern.search(path)})


def files_of(one: Copies) -> list[str]:
    """The base names of the copies."""
    return [copy.object.rpartition("/")[2] for copy in one.copies]


@pytest.mark.oracle
def test_the_systems_libgomp_and_that_of_a_wheel() -> None:
    """Debian's libgomp and scikit-learn's are both mapped, and each is told its package."""
    site = registries.wheel("scikit-learn")
    extension = site / "sklearn/utils/_openmp_helpers.cpython-311-x86_64-linux-gnu.so"
    report = checked(GOMP, extension)
    (found,) = report.copies
    assert found.library == "libgomp.so.1"
    assert found.common > 200
    assert len(found.copies) == real_copies(mapped(GOMP, extension), "libgomp") == 2
    ways = [copy.provenance.path for copy in found.copies if copy.provenance]
    assert ways[0][0].startswith("libgomp1 ")
    assert ways[1][0].startswith("scikit_learn ")
    assert ways[1][1].startswith("libgomp ")
    (told,) = [one for one in report.findings if one.rule == "library-twice"]
    assert "libgomp.so.1 is twice in this process" in told.message
    assert checked(extension).copies == ()


@pytest.mark.oracle
def test_one_wheel_with_two_of_one_library() -> None:
    """An extension of scipy brings libgfortran as often as a real process has it, in `check` and in `tree`."""
    site = registries.wheel("scipy")
    extension = site / "scipy/linalg/_fblas.cpython-311-x86_64-linux-gnu.so"
    real = mapped(extension)
    for report in (checked(extension), dlwhy.tree(extension, dlwhy.Host.executable("python3", BARE))):
        found = {one.library: len(one.copies) for one in report.copies}
        for library, stem in (("libgfortran.so.5", "libgfortran"), ("libquadmath.so.0", "libquadmath")):
            number = real_copies(real, stem)
            assert found.get(library, 1) == number
        assert {one.rule for one in report.findings} >= ({"library-twice"} if found else set())


OMP = "int omp_a(void) { return 1; } int omp_b(void) { return 2; }"


def library(place: Path, soname: str | None, code: str = OMP) -> Path:
    """A library of this name and soname."""
    place.parent.mkdir(parents=True, exist_ok=True)
    source = place.parent / "source.c"
    source.write_text(code)
    given = [f"-Wl,-soname,{soname}"] if soname else []
    return gcc(place, "-shared", "-fPIC", *given, source)


@pytest.mark.oracle
def test_what_is_one_file_or_one_name_is_once(tmp_path: Path) -> None:
    """The same file by another path is one; two files of one soname are two, as in a real process."""
    one = library(tmp_path / "one/libomp.so.1", "libomp.so.1")
    two = library(tmp_path / "two/libomp.so.1", "libomp.so.1")
    link = tmp_path / "link.so"
    link.symlink_to(one)
    for opened, number in (((one, link), 1), ((one, two), 2), ((one, two, link), 2)):
        found = checked(*opened).copies
        assert [len(each.copies) for each in found] == ([number] if number > 1 else [])
        assert len({path for path in mapped(*opened) if "libomp" in path}) == number
    (pair,) = checked(two, one).copies
    assert [copy.object for copy in pair.copies] == [str(two), str(one)]
    assert [(copy.exports, copy.provenance) for copy in pair.copies] == [(2, None)] * 2


def test_a_name_alone_proves_nothing(tmp_path: Path) -> None:
    """Neither other exports, another first number, an extension without soname nor another namespace is a copy."""
    one = library(tmp_path / "a/libomp-11111111.so.1.0", "libomp-11111111.so.1.0")
    same = library(tmp_path / "b/libomp-22222222.so.1.2", "libomp-22222222.so.1.2")
    other = library(tmp_path / "c/libomp-33333333.so.1", "libomp-33333333.so.1", "int else_a(void) { return 1; }")
    later = library(tmp_path / "d/libomp.so.2", "libomp.so.2")
    bare = [library(tmp_path / f"{name}/mod.so", None) for name in "ef"]
    assert [files_of(found) for found in checked(one, same).copies] == [[one.name, same.name]]
    assert checked(one, other, later, *bare).copies == ()
    plain = dlwhy.Host.plain({})
    assert dlwhy.check([str(one), f"newns:{same}"], plain).copies == ()
    assert dlwhy.check([str(one), str(same), "close:1"], plain).copies == ()
    assert len(dlwhy.check([str(one), "close:1", str(same), str(one)], plain).copies) == 1


def test_old_hash_tables_tell_exports_too(tmp_path: Path) -> None:
    """DT_HASH alone serves as well."""
    paths = []
    for name in "ab":
        source = tmp_path / "source.c"
        source.write_text("int omp_a(void) { return 1; }")
        paths.append(gcc(
            tmp_path / f"{name}.so", "-shared", "-fPIC", "-Wl,--hash-style=sysv", "-Wl,-soname,libomp.so.1", source
        ))  # fmt: skip
    assert len(checked(*paths).copies) == 1
