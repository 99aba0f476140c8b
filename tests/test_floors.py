"""`dlwhy.floor`: floors of load sets, what would be next, wheels and their tags, files that are none."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.libraries import gcc

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_systems import FloorSet

VERSIONS = ("GLIBC_2.17", "GLIBC_2.28", "GLIBC_2.34")


class Builder:
    """Builds libraries against a libc.so.6 that has versions of several releases."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        bodies, above = [], ""
        for version in VERSIONS:
            bodies.append(f"{version} {{ global: from_{version[6:].replace('.', '_')}; }} {above};")
            above = version
        (directory / "map").write_text("\n".join(bodies))
        self.libc = self.library("stubs/libc.so.6", self._functions(), f"-Wl,--version-script={directory}/map")

    @staticmethod
    def _functions() -> str:
        return "".join(f"void from_{version[6:].replace('.', '_')}(void) {{}}\n" for version in VERSIONS)

    def library(self, path: str, code: str, *words: str | Path, name: str = "") -> Path:
        """Build one library from C."""
        target = self.directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        (self.directory / "x.c").write_text(code)
        soname = name or target.name
        return gcc(
            target, "-shared", "-fPIC", "-nostdlib", "-Wl,--hash-style=both", f"-Wl,-soname,{soname}",
            "-Wl,-z,noexecstack", self.directory / "x.c", *words,
        )  # fmt: skip

    def user(self, path: str, *minors: int, words: tuple[str | Path, ...] = ()) -> Path:
        """A library that calls functions of these releases of glibc."""
        calls = "".join(f"void from_2_{minor}(void); " for minor in minors)
        body = "".join(f"from_2_{minor}(); " for minor in minors)
        name = path.rpartition("/")[2].partition(".")[0].replace("-", "_")
        return self.library(path, f"{calls}void {name}(void) {{ {body}}}\n", "-Wl,--no-as-needed", self.libc, *words)


@pytest.fixture
def make(tmp_path: Path) -> Builder:
    """Builds libraries in a directory of the test."""
    return Builder(tmp_path)


def one(*files: object) -> FloorSet:
    """The floors of a single file."""
    (found,) = dlwhy.floor([str(file) for file in files]).files
    assert found.error is None
    return found


def test_the_floor_and_what_would_be_next(make: Builder) -> None:
    """The highest version sets the floor, with its symbol; the lower ones say what it would be without."""
    made = make.user("a.so", 17, 28, 34)
    (floor,) = one(made).floors
    assert (floor.what, floor.value, floor.because, floor.objects, floor.file) == (
        "glibc", "2.34", ("from_2_34@GLIBC_2.34",), (str(made),), "libc.so.6",
    )  # fmt: skip
    assert [(lower.value, lower.because) for lower in floor.lower] == [
        ("2.28", ("from_2_28@GLIBC_2.28",)), ("2.17", ("from_2_17@GLIBC_2.17",)),
    ]  # fmt: skip


def test_what_comes_along_counts(make: Builder) -> None:
    """A bundled library sets the floor of the file that brings it, by RUNPATH as by an RPATH of whoever needs it."""
    for flags, dtags in (("run", "--enable-new-dtags"), ("r", "--disable-new-dtags")):
        inner = make.user(f"{flags}/pkg.libs/libinner.so.1", 34)
        middle = make.user(f"{flags}/pkg.libs/libmiddle.so.1", 28, words=(inner,) if flags == "r" else ())
        rpath = f"-Wl,-rpath,$ORIGIN/../pkg.libs,{dtags}"
        made = make.user(f"{flags}/pkg/a.so", 17, words=(middle, inner, rpath) if flags == "run" else (middle, rpath))
        found = one(made)
        (floor,) = found.floors
        assert (floor.value, floor.objects) == ("2.34", (str(inner),))
        assert sorted(found.bundled) == sorted((str(middle), str(inner)))
        assert found.system == ()


def test_what_does_not_come_along(make: Builder) -> None:
    """A library by an absolute run path, and one without any, is the system's: only its name is told."""
    inner = make.user("libs/libinner.so.1", 34)
    made = make.user("pkg/a.so", 17, words=(inner, f"-Wl,-rpath,{make.directory}/libs"))
    found = one(made)
    assert (found.floors[0].value, found.bundled, found.system) == ("2.17", (), ("libinner.so.1",))


def test_versions_of_what_comes_along_are_no_needs(make: Builder) -> None:
    """A version of a bundled library asks nothing of the system."""
    (make.directory / "own").write_text("INNER_9 { global: libinner; };\n")
    inner = make.library(
        "pkg/libinner.so.1", "void libinner(void) {}\n", f"-Wl,--version-script={make.directory}/own"
    )  # fmt: skip
    code = "void libinner(void); void a(void) { libinner(); }\n"
    with_it = make.library("pkg/a.so", code, inner, "-Wl,-rpath,$ORIGIN")
    without = make.library("pkg/b.so", code, inner)
    assert one(with_it).floors == ()
    assert [(floor.what, floor.value) for floor in one(without).floors] == [("libinner.so.1 INNER", "9")]


def test_weak_versions_set_no_floor(make: Builder) -> None:
    """A version that the loader goes on without is told, and sets no floor."""
    made = make.user("a.so", 17, 34)
    data = bytearray(made.read_bytes())
    from dlwhy.elf.file import Elf
    from dlwhy.files import Files

    elf = Elf(Files().open(str(made)))
    at = elf.offset_of(elf.dynamic.tags[0x6FFFFFFE])  # type: ignore[union-attr]
    assert at is not None
    for place in range(at, at + 96, 4):  # the vernaux of GLIBC_2.34, by its hash: VER_FLG_WEAK
        if int.from_bytes(data[place : place + 4], "little") == next(
            need.hash for need in elf.versions.needs if need.name == "GLIBC_2.34"
        ):
            data[place + 4] |= 2
    made.write_bytes(data)
    found = one(made)
    assert found.floors[0].value == "2.17"
    assert found.remarks == (f"GLIBC_2.34 of libc.so.6 is asked for weakly in {made}: the loader goes on without it",)


def test_an_executable_stack_is_a_ceiling(make: Builder) -> None:
    """A library that wants an executable stack has a release from which on dlopen refuses it."""
    made = make.user("a.so", 17, words=("-Wl,-z,execstack",))
    (ceiling,) = one(made).ceilings
    assert "dlopen refuses it from glibc 2.41 on" in ceiling


def test_a_file_of_musl(make: Builder) -> None:
    """A file of musl has no floor by version, which is said; packed relocations set one."""
    stub = make.library("stubs/libc.so", "int y;\n", name="libc.musl-x86_64.so.1")
    code = "static int x; int *p[] = {&x, &x, &x};\n"
    found = one(make.library("a.so", code, "-Wl,--no-as-needed", stub, "-Wl,-z,pack-relative-relocs"))
    assert (found.libc, found.tag) == ("musl", None)
    assert [(floor.what, floor.value) for floor in found.floors] == [("musl", "1.2.4")]
    assert "musl has no symbol versions" in found.remarks[0]


def test_a_wheel(make: Builder, tmp_path: Path) -> None:
    """The files of a wheel are taken together, and a tag that its name claims and that is too low is told."""
    first, second = make.user("pkg/a.so", 17), make.user("pkg/b.so", 28)
    wheel = tmp_path / "pkg-1-cp311-cp311-manylinux2014_x86_64.manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path in (first, second):
            archive.write(path, f"pkg/{path.name}")
    report = dlwhy.floor([wheel])
    assert [(found.path, found.tag) for found in report.files] == [
        (f"{wheel}!/pkg/a.so", "manylinux_2_17_x86_64"), (f"{wheel}!/pkg/b.so", "manylinux_2_28_x86_64"),
    ]  # fmt: skip
    (together,) = report.together
    assert (together.path, together.tag) == (str(wheel), "manylinux_2_28_x86_64")
    (floor,) = together.floors
    assert (floor.value, floor.objects) == ("2.28", (f"{wheel}!/pkg/b.so",))
    assert [(lower.value, lower.objects) for lower in floor.lower] == [("2.17", (f"{wheel}!/pkg/a.so",))]
    (remark,) = together.remarks
    assert remark.startswith("the name of the wheel says manylinux2014_x86_64, which is too low: manylinux_2_28_x86_64")


@pytest.mark.parametrize(
    ("version", "tag"), [("3.4.8", 17), ("3.4.22", 24), ("3.4.30", 35), ("3.4.33", 39), ("3.4.999", None)]
)
def test_a_tag_promises_the_c_plus_plus_runtime_too(make: Builder, version: str, tag: int | None) -> None:
    """The tag is that of the oldest policy whose libstdc++ has the version; where no policy has it there is none."""
    script = make.directory / "runtime.map"
    script.write_text(f"GLIBCXX_{version} {{ global: runtime; }};\n")
    runtime = make.library("stubs/libstdc++.so.6", "void runtime(void) {}\n", f"-Wl,--version-script={script}")
    plain = make.user("pkg/plain.so", 17)
    code = "void runtime(void); void from_2_17(void); void both(void) { runtime(); from_2_17(); }\n"
    made = make.library("pkg/both.so", code, "-Wl,--no-as-needed", make.libc, runtime)
    wanted = None if tag is None else f"manylinux_2_{tag}_x86_64"
    assert one(made).tag == wanted
    (together,) = dlwhy.floor([plain, made]).together
    assert together.tag == wanted


def test_files_that_bring_what_others_lack(make: Builder) -> None:
    """Together nothing is asked of the system that one of the files is, found by whoever needs it or not."""
    (make.directory / "own").write_text("INNER_9 { global: libinner; };\n")
    inner = make.library("pkg/libinner.so.1", "void libinner(void) {}\n", f"-Wl,--version-script={make.directory}/own")
    make.library("pkg/a.so", "void libinner(void); void a(void) { libinner(); }\n", inner)
    report = dlwhy.floor([make.directory / "pkg"])
    assert [found.system for found in report.files] == [("libinner.so.1",), ()]
    assert [(found.system, found.floors) for found in report.together] == [((), ())]


def test_files_that_are_none(make: Builder, tmp_path: Path) -> None:
    """A missing file, a text and an object file have their reason; the others go on."""
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "x.c").write_text("int x;")
    gcc(tmp_path / "x.o", "-c", tmp_path / "x.c")
    names = [tmp_path / "none.so", tmp_path / "notes.txt", tmp_path / "x.o", make.user("a.so", 17)]
    report = dlwhy.floor(names)
    assert [(found.error or "").removeprefix(f"{names[place]}: ") for place, found in enumerate(report.files)] == [
        "No such file or directory", "not an ELF file",
        "neither a program nor a shared library, so nothing loads it", "",
    ]  # fmt: skip
    assert (report.exit_status, report.together, dlwhy.floor([]).exit_status) == (1, (), 3)
