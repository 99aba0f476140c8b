"""Object files and archives: members, bytes and access models before the link, against readelf and the linked file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from glob import glob
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.object_models import INITIAL_EXEC_NAMES, OBJECTS
from dlwhy.attribute.static_library import MAGIC, members
from dlwhy.elf.file import read
from dlwhy.elf.machine import MACHINES
from dlwhy.files import Files
from dlwhy.view import View
from tests.fixtures.registries import tool

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.elf.file import Elf
    from dlwhy.report_tls import TlsFile

SOURCE = """
static __thread char big[4248]; __thread int exported; extern __thread int foreign;
static __thread long quick __attribute__((tls_model("initial-exec")));
static __thread short first = 7, second; static __thread char small;
char *touch(int i) { first++; second += 2; return &big[i] + small++; }
long hurry(void) { return quick++ + foreign + exported; }
int near(void) { static __thread int own __attribute__((tls_model("local-exec"))); return own++; }
"""
GO = 'package main\nimport "C"\n//export Answer\nfunc Answer() int { return 42 }\nfunc main() {}\n'
# What readelf calls the relocations that begin an access, by machine and model, after the psABIs.
BEGIN = {
    "x86-64": {
        "initial-exec": "R_X86_64_GOTTPOFF", "general-dynamic": "R_X86_64_TLSGD", "local-dynamic": "R_X86_64_TLSLD",
        "local-exec": "R_X86_64_TPOFF32", "TLSDESC": r"R_X86_64_GOTPC32_TLSD\w*",
        "local-dynamic offset": "R_X86_64_DTPOFF32",
    },
    "i386": {
        "initial-exec": "R_386_TLS_(?:GOTIE|IE)", "general-dynamic": "R_386_TLS_GD", "local-dynamic": "R_386_TLS_LDM",
        "local-exec": "R_386_TLS_LE", "TLSDESC": "R_386_TLS_GOTDESC", "local-dynamic offset": "R_386_TLS_LDO_32",
    },
    "aarch64": {
        "initial-exec": "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21", "general-dynamic": "R_AARCH64_TLSGD_ADR_PAGE21",
        "local-exec": "R_AARCH64_TLSLE_ADD_TPREL_HI12", "TLSDESC": "R_AARCH64_TLSDESC_ADR_PAGE21",
    },
    "arm": {
        "initial-exec": "R_ARM_TLS_IE32", "general-dynamic": "R_ARM_TLS_GD32", "local-dynamic": "R_ARM_TLS_LDM32",
        "local-exec": "R_ARM_TLS_LE32", "local-dynamic offset": "R_ARM_TLS_LDO32", "TLSDESC": "R_ARM_TLS_GOTDESC",
    },
    "riscv64": {
        "initial-exec": "R_RISCV_TLS_GOT_HI20", "general-dynamic": "R_RISCV_TLS_GD_HI20",
        "local-exec": "R_RISCV_TPREL_HI20",
    },
    "ppc64": {
        "initial-exec": "R_PPC64_GOT_TPREL16_(?:HA|DS)", "general-dynamic": "R_PPC64_GOT_TLSGD16_HA",
        "local-dynamic": "R_PPC64_GOT_TLSLD16_HA", "local-exec": "R_PPC64_TPREL16_HA",
        "local-dynamic offset": "R_PPC64_DTPREL16_HA",
    },
    "s390x": {
        "initial-exec": "R_390_TLS_(?:IEENT|GOTIE20)", "general-dynamic": "R_390_TLS_GDCALL",
        "local-dynamic": "R_390_TLS_LDCALL", "local-exec": "R_390_TLS_LE64", "local-dynamic offset": "R_390_TLS_LDO64",
    },
}  # fmt: skip
COMPILERS = {
    "x86-64": "x86_64-linux-gnu-gcc", "i386": "i686-linux-gnu-gcc", "aarch64": "aarch64-linux-gnu-gcc",
    "arm": "arm-linux-gnueabihf-gcc", "riscv64": "riscv64-linux-gnu-gcc", "ppc64": "powerpc64le-linux-gnu-gcc",
    "s390x": "s390x-linux-gnu-gcc",
}  # fmt: skip


def build(folder: Path, text: str, name: str, *words: str) -> Path:
    """Return the object file that a compiler makes of `text`."""
    source = folder / f"{name}.c"
    source.write_text(text)
    target = folder / f"{name}.o"
    subprocess.run([tool(words[0]), *words[1:], "-c", str(source), "-o", str(target)], check=True)
    return target


def asked(path: Path | str) -> TlsFile:
    """Return the answer of `tls`, whose sums must be right, member by member and as a whole."""
    (found,) = dlwhy.tls([path]).files
    for one in (found, *found.members):
        if one.tls is not None:
            assert sum(share.bytes for share in one.tls.shares) + one.tls.padding + one.tls.unattributed == one.tls.size
            assert sum(share.bytes for share in one.tls.owners) == sum(share.bytes for share in one.tls.shares)
    if found.members:
        assert sum(one.tls.size for one in found.members if one.tls) == (found.tls.size if found.tls else 0)
    return found


def counts(found: TlsFile) -> dict[str, int]:
    """Return model -> accesses."""
    result: dict[str, int] = {}
    for one in found.accesses:
        result[one.model] = result.get(one.model, 0) + one.sites
    return result


@pytest.mark.parametrize("name", COMPILERS)
@pytest.mark.parametrize("flags", ["-O2 -fPIC", "-O0 -fPIC", "-O2 -fPIC -ftls-model=local-dynamic", "-O1 -fPIE"])
def test_models_are_those_of_the_relocations(tmp_path: Path, name: str, flags: str) -> None:
    """Each model is counted as often as readelf shows the relocation that begins such an access, on every machine."""
    target = build(tmp_path, SOURCE, "a", COMPILERS[name], *flags.split(), "-g", "-fno-section-anchors")
    text = subprocess.run(["readelf", "-rW", str(target)], capture_output=True, text=True, check=True).stdout
    loaded = "".join(part for part in text.split("Relocation section") if not re.match(r" '\.rela?\.debug", part))
    begun = {model: len(re.findall(rf"\b{pattern}\b", loaded)) for model, pattern in BEGIN[name].items()}
    found = asked(target)
    assert found.kind == "object" and found.error is None
    assert counts(found) == {model: number for model, number in begun.items() if number}
    assert counts(found)["initial-exec"] > 0
    assert {one.variable for one in found.triggers} >= {"quick"}
    assert found.tls is not None and found.tls.unattributed == 0


@pytest.mark.parametrize("name", COMPILERS)
def test_relocations_have_the_names_of_readelf(tmp_path: Path, name: str) -> None:
    """Every number of the table is what readelf calls a TLS relocation, by its real name where a report may show it."""
    target = build(tmp_path, SOURCE, "a", COMPILERS[name], "-fPIC", "-O2")
    ((key, row),) = [(key, one) for key, one in OBJECTS.items() if MACHINES[key].name == name]
    data = bytearray(target.read_bytes())
    elf = dlwhy_elf(target)
    table = next(one for one in elf.sections if one.type in (4, 9) and one.name.endswith(".text"))
    step = (elf.layout.rela if table.type == 4 else elf.layout.rel).size
    place = table.offset + elf.layout.word_size
    for number, model in row.items():
        if elf.layout.is64:
            at = place if elf.little else place + 4
            data[at : at + 4] = number.to_bytes(4, "little" if elf.little else "big")
        else:
            data[place] = number
        (tmp_path / "b.o").write_bytes(data)
        words = ["readelf", "-rW", str(tmp_path / "b.o")]
        text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        part = next(part for part in text.split("Relocation section") if part.startswith(f" '{table.name}'"))
        shown = re.search(r"R_\w+|unrecognized", part)
        assert shown is not None and step
        if (name == "x86-64" and number > 42) or (name == "riscv64" and number == 62):  # APX: binutils 2.42; 2.43
            continue
        assert re.search("TLS|TPOFF|TPREL|DTPOFF", shown[0]), (number, shown[0])
        if model == "initial-exec":
            assert INITIAL_EXEC_NAMES[key][number].startswith(shown[0]), number


def dlwhy_elf(path: Path) -> Elf:
    """Return the ELF file at a path."""
    return read(Files().open(str(path)))


@pytest.mark.parametrize("compiler", ["gcc", "aarch64-linux-gnu-gcc"])
def test_the_linked_library_has_as_many(tmp_path: Path, compiler: str) -> None:
    """What the relocations announce is found again in the code of the library that lld links, model by model."""
    text = SOURCE[: SOURCE.index("int near")]
    target = build(tmp_path, text, "a", compiler, "-O2", "-fPIC")
    library = tmp_path / "lib.so"
    subprocess.run([tool("ld.lld"), "-shared", str(target), "-o", str(library)], check=True)
    before, after = counts(asked(target)), counts(dlwhy.tls([library]).files[0])
    plain = [  # places behind an access are counted by relocation before the link, by instruction after it
        {model: number for model, number in one.items() if not model.endswith(" offset")} for one in (before, after)
    ]
    assert plain[0] == plain[1]
    unlinked, linked = asked(target).tls, dlwhy.tls([library]).files[0].tls
    assert unlinked is not None and linked is not None
    bytes_before = {share.variable: share.bytes for share in unlinked.shares}
    assert {share.variable: share.bytes for share in linked.shares} == bytes_before


def test_go_archive(tmp_path: Path) -> None:
    """In a Go c-archive one member forces static TLS: go.o, as often as readelf shows; the others do not."""
    (tmp_path / "main.go").write_text(GO)
    words = [tool("go"), "build", "-buildmode=c-archive", "-o", "libgo.a", "main.go"]
    environment = {**os.environ, "HOME": os.environ.get("HOME", str(tmp_path)), "GO111MODULE": "off"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        pytest.skip(f"not run: go build: {done.stderr.strip()[-160:]}")
    found = asked(tmp_path / "libgo.a")
    words = ["readelf", "-rW", str(tmp_path / "libgo.a")]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    number = len(re.findall("R_X86_64_GOTTPOFF", text))
    (trigger,) = found.triggers
    assert number > 100 and trigger.accesses == number and trigger.own
    assert (trigger.owner, trigger.variable) == ("Go runtime", "runtime.tlsg")
    assert trigger.users[0].owner == "go.o"
    assert found.tls is not None and found.tls.size == 8
    done = subprocess.run(
        [sys.executable, "-m", "dlwhy", "tls", str(tmp_path / "libgo.a")], capture_output=True, text=True, check=True
    )
    assert f"by go.o {number}" in done.stdout
    assert len(done.stdout.splitlines()) < 20


ARCHIVES = [
    "/usr/lib/x86_64-linux-gnu/libc.a", "/usr/lib/gcc/x86_64-linux-gnu/*/lib*.a",
    "/usr/lib/x86_64-linux-gnu/libcrypto.a", "/usr/lib/gcc-cross/*/*/libgomp.a", "/usr/*-linux-gnu*/lib/libc.a",
]  # fmt: skip


@pytest.mark.machine
def test_archives_of_this_machine() -> None:
    """The bytes of each archive are those of the TLS sections, and its initial-exec relocations those of readelf -r."""
    paths = [path for pattern in ARCHIVES for path in sorted(glob(pattern)) if os.path.isfile(path)]
    rustc = shutil.which("rustc")
    if rustc:
        done = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False)
        paths += sorted(glob(f"{done.stdout.strip()}/lib/rustlib/*/lib/libstd-*.rlib"))
    billed = 0
    for path in paths[:: 3 if "CI" in os.environ else 1]:
        with open(path, "rb") as file:
            if file.read(8) != MAGIC:
                continue
        found = asked(path)
        assert not [one.error for one in found.members if one.error], path
        text = subprocess.run(["readelf", "-SW", path], capture_output=True, text=True, check=False).stdout
        row = r"^ +\[ *\d+\] \S+ +\w+ +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) [0-9a-f]+ +\w*T\w* "
        rows = re.findall(row, text, re.MULTILINE)
        assert sum(int(size, 16) for size in rows) == (found.tls.size if found.tls else 0), path
        relocations = subprocess.run(["readelf", "-rW", path], capture_output=True, text=True, check=False).stdout
        begun = BEGIN[_machine(relocations)]["initial-exec"]
        number = len(re.findall(rf"\b{begun}\b", relocations))
        assert sum(one.accesses or 0 for one in found.triggers) == number, path
        assert found.members_total == len(re.findall(r"^File: ", text, re.MULTILINE)) or ".rlib" in path, path
        billed += bool(found.tls)
    print(f"{billed} archives with TLS agree")
    assert billed


def _machine(text: str) -> str:
    """Return the machine whose relocations readelf shows most of."""
    words = {"R_X86_64": "x86-64", "R_386": "i386", "R_AARCH64": "aarch64", "R_ARM": "arm", "R_RISCV": "riscv64",
             "R_PPC64": "ppc64", "R_390": "s390x"}  # fmt: skip
    return words[max(words, key=text.count)]


def test_stripped_objects_keep_the_names_of_their_sections(tmp_path: Path) -> None:
    """With -fdata-sections a section's name is the variable, also where the symbols of local ones are gone."""
    text = "static __thread int one[9]; int *f(int i) { return one + i; }"
    target = build(tmp_path, text, "a", "gcc", "-fPIC", "-fdata-sections")
    data = target.read_bytes()
    symbols = next(one for one in dlwhy_elf(target).sections if one.type == 2)
    shdr = data.index(symbols.offset.to_bytes(8, "little") + symbols.size.to_bytes(8, "little")) - 24
    (tmp_path / "b.o").write_bytes(data[: shdr + 4] + (1).to_bytes(4, "little") + data[shdr + 8 :])
    (found,) = dlwhy.tls([tmp_path / "b.o"]).files
    # the relocations name symbols that are not there any more: said in one sentence
    assert found.error is not None and "no symbol number" in found.error
    plain = build(tmp_path, "__thread int one[9], two;", "c", "gcc", "-fPIC", "-fdata-sections")
    subprocess.run(["strip", "-s", str(plain)], check=True)
    whole = asked(plain).tls
    assert whole is not None and {(one.variable, one.bytes) for one in whole.shares} == {("one", 36), ("two", 4)}
    assert {one.evidence for one in whole.shares} == {"name of the object file"}


@pytest.mark.parametrize("name", ["aarch64", "s390x"])
def test_section_anchors_name_no_variable(tmp_path: Path, name: str) -> None:
    """Where gcc reaches several small variables through their section, none of them is said to be the one."""
    found = asked(build(tmp_path, SOURCE, "a", COMPILERS[name], "-O2", "-fPIC"))
    assert {one.variable for one in found.triggers} == {"one of 6 variables in .tbss"}


def test_common_variables(tmp_path: Path) -> None:
    """A variable that only the linker will place counts with its size."""
    assembler = tmp_path / "a.s"
    assembler.write_text(
        ".tls_common shared,24,8\n.text\n.globl f\n.type f,@function\n"
        "f: movq shared@gottpoff(%rip),%rax\nret\n.size f,.-f\n"
    )
    subprocess.run([tool("gcc"), "-c", str(assembler), "-o", str(tmp_path / "a.o")], check=True)
    found = asked(tmp_path / "a.o")
    assert found.tls is not None and found.tls.size == 24
    assert [(one.variable, one.own, one.functions) for one in found.triggers] == [("shared", True, ("f",))]


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """An archive of three members: one that defines, one with a long name that uses it, one that is no ELF file."""
    build(tmp_path, "__thread int v[10];", "defines", "gcc", "-fPIC")
    build(tmp_path, "extern __thread int v[]; int *f(int i) { return v + i; }", "uses_with_a_name_that_is_very_long",
          "gcc", "-fPIC", "-O1", "-ftls-model=initial-exec")  # fmt: skip
    (tmp_path / "lib.rmeta").write_text("no ELF")
    names = ["defines.o", "uses_with_a_name_that_is_very_long.o", "lib.rmeta"]
    subprocess.run(["ar", "rcS", "liba.a", *names], cwd=tmp_path, check=True)
    subprocess.run(["ranlib", "liba.a"], cwd=tmp_path, check=True)
    subprocess.run(["ar", "rcsT", "libthin.a", *names], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize("name", ["liba.a", "libthin.a", "nested.a", "bsd.a"])
def test_kinds_of_archives(archive: Path, name: str) -> None:
    """GNU, thin, thin of thin and BSD archives have the same members, and the trigger is owned by who defines it."""
    if name == "nested.a":
        subprocess.run(["ar", "rcsT", name, "liba.a"], cwd=archive, check=True)
    elif name == "bsd.a":
        words = [tool("llvm-ar"), "--format=bsd", "rcs", name, "defines.o", "uses_with_a_name_that_is_very_long.o"]
        subprocess.run([*words, "lib.rmeta"], cwd=archive, check=True)
    found = asked(archive / name)
    assert (found.kind, found.members_total, found.members_foreign) == ("archive", 3, 1)
    assert [one.path.rpartition("(")[2] for one in found.members] == [
        "defines.o)", "uses_with_a_name_that_is_very_long.o)",
    ]  # fmt: skip
    assert found.tls is not None and found.tls.size == 40
    (trigger,) = found.triggers
    assert (trigger.owner, trigger.variable, trigger.own, trigger.accesses) == ("defines.o", "v", True, 1)
    assert [one.owner for one in trigger.users] == ["uses_with_a_name_that_is_very_long.o"]
    assert dlwhy.tls([archive / name]).exit_status == 0


def test_damaged_archives(archive: Path) -> None:
    """A truncated archive, a broken member and one that is missing cost a sentence each; the others go on."""
    data = (archive / "liba.a").read_bytes()
    place = data.index(b"defines.o/")
    (archive / "cut.a").write_bytes(data[: place + 60 + 300])
    found = asked(archive / "cut.a")
    assert [one.error is not None and "but the file ends at" in one.error for one in found.members] == [True]
    broken = data[: place + 48] + b"zz        " + data[place + 58 :]
    (archive / "bad.a").write_bytes(broken)
    found = asked(archive / "bad.a")
    assert found.members[-1].error is not None and "is no number" in found.members[-1].error
    inner = data.index(b"\x7fELF")
    (archive / "inner.a").write_bytes(data[: inner + 40] + b"\xff" * 8 + data[inner + 48 :])  # e_shoff
    found = asked(archive / "inner.a")
    assert [one.error is None for one in found.members] == [True, False]
    assert "section headers" in str(found.members[1].error) and found.triggers
    assert dlwhy.tls([archive / "inner.a"]).exit_status == 1
    (archive / "defines.o").unlink()
    found = asked(archive / "libthin.a")
    assert [one.error is None for one in found.members] == [True, False]
    assert "is missing" in str(found.members[1].error) and "\n" not in str(found.members[1].error)


def test_every_cut_and_many_changes_are_survived(archive: Path) -> None:
    """However an archive is cut or its bytes are changed, there is an answer or a sentence, and sums are right."""
    import random

    data = (archive / "liba.a").read_bytes()
    generator = random.Random(5)
    for _ in range(300):
        changed = bytearray(data[: generator.randrange(8, len(data) + 1)])
        for _ in range(generator.choice((0, 1, 3, 30))):
            changed[generator.randrange(8, len(changed)) if len(changed) > 8 else 0] = generator.randrange(256)
        changed[:8] = MAGIC
        (archive / "x.a").write_bytes(changed)
        asked(archive / "x.a")


def test_an_empty_archive_and_a_map(tmp_path: Path) -> None:
    """An archive of nothing has nothing; a linker's map cannot be of what is not linked."""
    (tmp_path / "e.a").write_bytes(MAGIC)
    found = asked(tmp_path / "e.a")
    assert (found.error, found.tls, found.members, found.members_total) == (None, None, (), 0)
    (tmp_path / "m").write_text("")
    (refused,) = dlwhy.tls([tmp_path / "e.a"], map=tmp_path / "m").files
    assert refused.error is not None and "not linked yet" in refused.error
    assert list(members(View("x", MAGIC), Files())) == []


def test_code_of_link_time_optimisation_is_said_to_be_undecided(tmp_path: Path) -> None:
    """An object file of -flto has no accesses yet, and a finding says so."""
    target = build(tmp_path, SOURCE, "a", "gcc", "-O1", "-fPIC", "-flto", "-fno-fat-lto-objects")
    assert [one.rule for one in asked(target).findings] == ["not-compiled-yet"]
