"""What single objects need, each fact held against binutils or made by a compiler for the purpose."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.file import Elf
from dlwhy.files import Files
from dlwhy.needs import Need, c_library, executable_stack, needs, of_the_c_library, pages, release
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import need

if TYPE_CHECKING:
    from collections.abc import Sequence

LIBRARIES = sorted(path for path in Path("/usr/lib/x86_64-linux-gnu").glob("lib[cgs]*.so.*") if not path.is_symlink())


def elf(path: Path) -> Elf:
    """The facts of a file."""
    return Elf(Files().open(str(path)))


def built(directory: Path, code: str, *words: str) -> Elf:
    """A library out of a line of C."""
    (directory / "x.c").write_text(code + "\n")
    return elf(gcc(directory / "x.so", "-shared", "-fPIC", *words, directory / "x.c"))


def properties(found: Sequence[Need]) -> dict[str, str]:
    """The first word of each property -> the least value."""
    return {one.property.split()[0].rstrip(":,"): one.value for one in found if one.property is not None}


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("GLIBC_2.34", ("GLIBC", (2, 34))), ("GLIBC_2.2.5", ("GLIBC", (2, 2, 5))),
        ("OPENSSL_1_1_0", ("OPENSSL", (1, 1, 0))), ("CXXABI_TM_1", ("CXXABI_TM", (1,))),
        ("GLIBC_PRIVATE", None), ("CXXABI_FLOAT128", None), ("V1", None), ("_1", None), ("", None), ("A_1.", None),
    ],
)  # fmt: skip
def test_releases_in_names(version: str, told: object) -> None:
    """A version's name tells a family and a release, or nothing."""
    assert release(version) == told


@pytest.mark.oracle
@pytest.mark.parametrize("path", LIBRARIES[::5], ids=lambda path: path.name)
def test_versions_are_those_of_objdump(path: Path) -> None:
    """Each symbol with a version of another file is that of `objdump -T`, and the version is asked of that file."""
    told = subprocess.run(
        [need("objdump"), "-T", "-p", str(path)], capture_output=True, text=True, check=True, env={"LC_ALL": "C"}
    ).stdout  # fmt: skip
    asked: set[tuple[str, str]] = set()
    for part in told.partition("Version References:")[2].partition("SYMBOL TABLE")[0].split("required from ")[1:]:
        file, _, rest = part.partition(":")
        asked |= {(file, version) for version in re.findall(r"0x[0-9a-f]+ 0x[0-9a-f]{2} \d+ (\S+)", rest)}
    used = set(re.findall(r"\*UND\*\s+[0-9a-f]+\s+\(?([\w.]+)\)?\s+(?:\.\w+ )?(\S+)$", told, re.MULTILINE))
    mine = needs(elf(path))
    assert {(one.file, one.version) for one in mine if one.version} == {
        (file, version) for file, version in asked if release(version) or version.startswith("GLIBC_ABI_")
    }
    versions = {version for _, version in asked}
    assert {(one.version, name) for one in mine for name in one.symbols} == {
        (version, name) for version, name in used if version in versions and release(version)
    }


def test_a_library_of_gcc_has_versions_of_glibcs_name(tmp_path: Path) -> None:
    """GLIBC_2.0 of libgcc_s is libgcc's, and says nothing about glibc."""
    (tmp_path / "map").write_text("GLIBC_2.0 { global: frame; };\n")
    (tmp_path / "gcc.c").write_text("void frame(void) {}\n")
    gcc(
        tmp_path / "libgcc_s.so.1", "-shared", "-nostdlib", "-Wl,-soname,libgcc_s.so.1",
        f"-Wl,--version-script={tmp_path}/map", tmp_path / "gcc.c",
    )  # fmt: skip
    code = "void frame(void); void f(void) { frame(); }"
    found = built(tmp_path, code, "-nostdlib", "-Wl,--no-as-needed", f"{tmp_path}/libgcc_s.so.1")
    assert [(one.what, one.value) for one in needs(found) if one.version] == [("libgcc_s.so.1 GLIBC", "2.0")]


def test_packed_relocations(tmp_path: Path) -> None:
    """DT_RELR needs the first release that reads it, with the linker's mark and without."""
    code = "static int x; int *p[] = {&x, &x, &x};"
    made = built(tmp_path, code, "-nostdlib", "-Wl,-z,pack-relative-relocs", "-Wl,--hash-style=both")
    assert properties(needs(made)) == {"DT_RELR": "2.36"}
    assert properties(needs(built(tmp_path, code, "-nostdlib", "-Wl,--hash-style=both"))) == {}


def test_abi_versions(tmp_path: Path) -> None:
    """EI_ABIVERSION 3 of a file of GNU needs the release that knows it; one that no release knows sets no floor."""
    made = built(tmp_path, "int x;", "-nostdlib", "-Wl,--hash-style=both")
    data = bytearray(Path(made.path).read_bytes())
    for version, told in ((2, {}), (3, {"EI_ABIVERSION": "2.28"}), (200, {})):
        data[7:9] = bytes((3, version))
        (tmp_path / "abi.so").write_bytes(data)
        assert properties(needs(elf(tmp_path / "abi.so"))) == told


def test_hash_tables(tmp_path: Path) -> None:
    """A file with DT_GNU_HASH alone needs glibc 2.5; one with both tables does not."""
    assert properties(needs(built(tmp_path, "int x;", "-nostdlib", "-Wl,--hash-style=gnu"))) == {"DT_GNU_HASH": "2.5"}
    assert properties(needs(built(tmp_path, "int x;", "-nostdlib", "-Wl,--hash-style=sysv"))) == {}


@pytest.mark.parametrize(
    ("level", "value"), [("baseline", None), ("v2", "x86-64-v2"), ("v3", "x86-64-v3"), ("v4", "x86-64-v4")]
)
def test_processor_levels(tmp_path: Path, level: str, value: str | None) -> None:
    """The level that the linker writes down as needed is told; what every processor has is not."""
    flag = f"-Wl,-z,x86-64-{level}"
    found = properties(needs(built(tmp_path, "int x;", "-nostdlib", flag, "-Wl,--hash-style=both")))
    assert found.get("GNU_PROPERTY_X86_ISA_1_NEEDED") == value


def test_the_kernel_of_a_program(tmp_path: Path) -> None:
    """The release of Linux in a program's ABI note is that of `file` and readelf."""
    (tmp_path / "p.c").write_text("int main(void) { return 0; }\n")
    program = gcc(tmp_path / "p", tmp_path / "p.c")
    told = subprocess.run([need("readelf"), "-n", str(program)], capture_output=True, text=True, check=True).stdout
    (release_there,) = re.findall(r"OS: Linux, ABI: ([\d.]+)", told)
    assert [one.value for one in needs(elf(program)) if one.what == "Linux"] == [release_there]


@pytest.mark.parametrize("size", [4096, 16384, 65536, 1 << 21])
def test_page_sizes(tmp_path: Path, size: int) -> None:
    """A file can be mapped on pages up to what the linker kept its segments apart by, 64 KiB at the most."""
    made = built(tmp_path, "int x = 1;", "-nostdlib", f"-Wl,-z,max-page-size={size}", f"-Wl,-z,common-page-size={size}")
    assert pages(made) == min(size, 65536)


def test_executable_stacks(tmp_path: Path) -> None:
    """A file asks for an executable stack by its segment, or by having none where that is the default."""
    assert executable_stack(built(tmp_path, "int x;", "-nostdlib", "-Wl,-z,noexecstack")) is None
    assert executable_stack(built(tmp_path, "int x;", "-nostdlib", "-Wl,-z,execstack")) == "PT_GNU_STACK is executable"


@pytest.mark.parametrize(
    ("names", "libc"),
    [
        ((), None), (("libc.so.6",), "glibc"), (("libc.musl-x86_64.so.1",), "musl"), (("libc.so",), "musl"),
        (("libc.so.6", "libc.so"), "both"), (("libz.so.1",), None),
    ],
)  # fmt: skip
def test_whose_c_library(tmp_path: Path, names: tuple[str, ...], libc: str | None) -> None:
    """The C library is told by the names of what a file needs."""
    stubs = []
    (tmp_path / "e.c").write_text("")
    for number, name in enumerate(names):
        soname = f"-Wl,-soname,{name}"
        stubs.append(str(gcc(tmp_path / f"s{number}.so", "-shared", "-nostdlib", soname, tmp_path / "e.c")))
    assert c_library(built(tmp_path, "int x;", "-nostdlib", "-Wl,--no-as-needed", *stubs)) == libc
    assert all(of_the_c_library(name) for name in names if name != "libz.so.1")
