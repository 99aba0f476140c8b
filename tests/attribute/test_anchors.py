"""Variables behind an access that serves several: against relocations on aarch64, and where there are many of them."""

from __future__ import annotations

import random
import re
import shutil
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.bill import bill
from dlwhy.attribute.sites import sites
from dlwhy.attribute.touched import START, Left, displacements, places, shared
from dlwhy.elf.file import read
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.files import Files
from tests.attribute.anchors import CLANG, GCC, LINKERS, X86_CLANG, X86_GCC, agreement, compared

if TYPE_CHECKING:
    from pathlib import Path

RUNS = 12
"""Sources of a small run; `python -m tests.attribute.anchors` takes as many as are asked for."""
VARIABLES = {"first": 4, "second": 400, "third": 9, "fourth": 5000, "fifth": 8}


def need(*tools: str) -> None:
    """Skip the test without one of the tools."""
    for one in tools:
        if shutil.which(one) is None:
            pytest.skip(f"not run: no {one} here")


@pytest.mark.oracle
@pytest.mark.parametrize(
    "compiler", [GCC, CLANG, X86_GCC, X86_CLANG], ids=["gcc", "clang", "x86-64 gcc", "x86-64 clang"]
)
def test_functions_use_what_their_relocations_name(tmp_path: Path, compiler: tuple[str, ...]) -> None:
    """Of what compilers make of random sources, function by function: nothing is told that no relocation names."""
    linker = LINKERS[compiler][0]
    need(compiler[0], linker, "objdump", linker.removesuffix("gcc") + "objdump")
    found = [compared(tmp_path, seed, compiler) for seed in range(RUNS)]
    same = sum(one.same for one in found)
    print(f"{same} uses agree, {sum(len(one.only_theirs) for one in found)} are not seen")
    assert [one.only_ours for one in found if one.only_ours] == []
    assert sum(len(one.only_theirs) for one in found) * 500 <= same > 100


def assembled(chance: random.Random) -> str:
    """Return local-dynamic code as the ABI has it, traditional and by descriptors: 64 functions of some variables."""
    lines = [".text"]
    for number in range(64):
        lines += [f".type f{number}, %function", f"f{number}:", "stp x29, x30, [sp, #-32]!", "str x19, [sp, #16]"]
        traditional = chance.random() < 0.5
        if traditional:
            lines += ["adrp x0, :tlsldm:first", "add x0, x0, :tlsldm_lo12_nc:first", "bl __tls_get_addr", "nop"]
        else:
            module = "_TLS_MODULE_BASE_"
            lines += [f"adrp x0, :tlsdesc:{module}", f"ldr x1, [x0, :tlsdesc_lo12:{module}]",
                      f"add x0, x0, :tlsdesc_lo12:{module}", f".tlsdesccall {module}", "blr x1"]  # fmt: skip
            lines += ["mrs x1, tpidr_el0", "add x0, x0, x1"]
        for variable in chance.sample(list(VARIABLES), chance.randrange(1, 4)):
            lines += [f"add x2, x0, :dtprel_hi12:{variable}, lsl 12"]
            lines += chance.choice([
                [f"add x2, x2, :dtprel_lo12_nc:{variable}", "ldrb w3, [x2]"],
                [f"add x2, x2, :dtprel_lo12_nc:{variable}", "ldr x3, [x2, x4, lsl 3]"],
                [f"add x2, x2, :dtprel_lo12_nc:{variable}", "str x2, [x5]"],
                [f"ldrb w3, [x2, :dtprel_lo12_nc:{variable}]"],
            ])  # fmt: skip
        lines += ["ldr x19, [sp, #16]", "ldp x29, x30, [sp], #32", "ret", f".size f{number}, .-f{number}"]
    lines.append('.section .tbss, "awT", %nobits')
    for name, size in VARIABLES.items():
        lines += [".balign 8", f".type {name}, %object", f".size {name}, {size}", f"{name}: .zero {size}"]
    return "\n".join(lines) + "\n"


@pytest.mark.oracle
def test_local_dynamic_code_as_the_abi_has_it(tmp_path: Path) -> None:
    """Of local-dynamic sequences, which gcc never writes on aarch64, each function's variables are those it names."""
    need(*GCC, "aarch64-linux-gnu-objdump")
    text, object_, library = tmp_path / "a.s", tmp_path / "a.o", tmp_path / "a.so"
    text.write_text(assembled(random.Random(7)))
    subprocess.run([*GCC, "-c", text, "-o", object_], check=True)
    subprocess.run([*GCC, "-shared", object_, "-o", library], check=True)
    one = agreement(object_, library)
    assert (one.only_ours, one.only_theirs) == (frozenset(), frozenset()) and one.same > 64
    (file,) = dlwhy.tls([library]).files
    models = {(access.variable, access.model) for access in file.accesses}
    assert (None, "local-dynamic") in models
    assert {name for name, model in models if model == "local-dynamic offset"} == set(VARIABLES)
    assert {name for name, model in models if model == "TLSDESC offset"} == set(VARIABLES)


@pytest.mark.oracle
@pytest.mark.parametrize("dialect", ["-mtls-dialect=trad", "-mtls-dialect=desc", "-ftls-model=initial-exec"])
def test_variables_behind_an_anchor(tmp_path: Path, dialect: str) -> None:
    """`tls` has the variables that gcc reaches through another one's slot, and stripped they begin where they began."""
    need(*GCC, "aarch64-linux-gnu-strip")
    text, library, bare = tmp_path / "a.c", tmp_path / "a.so", tmp_path / "bare.so"
    text.write_text(
        "static __thread long first, second; static __thread char third[40]; static __thread int fourth = 4;\n"
        "long one(void) { return first++; } long two(int i) { return second += third[i]; }\n"
        "int four(void) { return ++fourth; } char *address(void) { return third; }\n"
    )
    subprocess.run([*GCC, "-O2", "-fPIC", dialect, "-shared", text, "-o", library], check=True)
    (file,) = dlwhy.tls([library]).files
    behind = {one.variable: one.sites for one in file.accesses if one.model.endswith(" offset")}
    assert {"first": 1, "second": 1, "third": 2}.items() <= behind.items() and behind.keys() <= {
        "first", "second", "third", "fourth"
    }  # fmt: skip
    subprocess.run(["aarch64-linux-gnu-strip", "-s", library, "-o", bare], check=True)
    elf, whole = read(Files().open(str(bare))), read(Files().open(str(library)))
    known = places(elf, sites(elf).slots, sites(elf), bill(elf).size)
    variables = {one.offset: one.size for one in StaticSymbols(whole).tls() if one.size}
    assert variables.keys() <= known.keys()
    for offset, (sure, _) in known.items():
        assert any(start <= offset < start + size for start, size in variables.items()), hex(offset)
        assert sure != START or offset in variables


@pytest.mark.oracle
def test_thousands_of_local_dynamic_accesses(tmp_path: Path) -> None:
    """Of a file with 6000 local-dynamic accesses each variable has as many as its functions: none is left out."""
    need("gcc")
    chance = random.Random(5)
    uses = [chance.randrange(6) for _ in range(6000)]
    lines = [f"static __thread int v{number};" for number in range(6)]
    lines += [f"int f{number}(void) {{ return ++v{variable}; }}" for number, variable in enumerate(uses)]
    text, library = tmp_path / "a.c", tmp_path / "a.so"
    text.write_text("\n".join(lines))
    options = ("-O1", "-fPIC", "-ftls-model=local-dynamic", "-shared")
    subprocess.run(["gcc", *options, text, "-o", library], check=True)
    (file,) = dlwhy.tls([library]).files
    counted = {one.variable: one.sites for one in file.accesses if one.model == "local-dynamic offset"}
    assert counted == {f"v{number}": uses.count(number) for number in range(6)}
    assert sum(one.sites for one in file.accesses if one.model == "local-dynamic") == 6000


def test_code_that_is_no_code(tmp_path: Path) -> None:
    """Whatever words stand behind an access of aarch64 code, following them ends, and raises nothing."""
    need(*GCC)
    text, library = tmp_path / "a.c", tmp_path / "a.so"
    text.write_text("static __thread long a, b; long f(int i) { return i ? a++ : b++; }\n")
    subprocess.run([*GCC, "-O1", "-fPIC", "-mtls-dialect=desc", "-shared", text, "-o", library], check=True)
    elf = read(Files().open(str(library)))
    address, model, _ = next(shared(elf, sites(elf).slots, sites(elf)))
    place = elf.offset_of(address)
    assert place is not None
    data, chance = library.read_bytes(), random.Random(4)
    for _ in range(300):
        words = [chance.getrandbits(32) & ~(chance.getrandbits(1) * 0x3FFFC00) for _ in range(chance.randrange(1, 120))]
        noise = struct.pack(f"<{len(words)}I", *words)
        (tmp_path / "b.so").write_bytes(data[: place + 12] + noise + data[place + 12 + len(noise) :])
        displacements(read(Files().open(str(tmp_path / "b.so"))), address, model, Left())


@pytest.mark.oracle
def test_a_real_library_of_aarch64() -> None:
    """In libgomp, whose settings of a thread lie behind one anchor, the places behind it are told, all inside."""
    path = "/usr/aarch64-linux-gnu/lib/libgomp.so.1"
    try:
        (file,) = dlwhy.tls([path]).files
    except dlwhy.FilesError:
        pytest.skip("not run: no libgomp of aarch64 here")
    assert file.tls is not None
    behind = [one for one in file.accesses if one.model == "initial-exec offset"]
    assert len(behind) > 10 and all(one.offset is not None and one.offset < file.tls.size for one in behind)
    assert all(re.fullmatch(r"variable at offset 0x[0-9a-f]+", one.variable or "") for one in behind)
