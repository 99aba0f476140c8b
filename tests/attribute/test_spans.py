"""Stripped files: the places that code reaches, against the symbols of the same file before it was stripped."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from glob import glob
from typing import TYPE_CHECKING

import pytest

from dlwhy.attribute.bill import Bill, bill
from dlwhy.attribute.sites import sites
from dlwhy.attribute.touched import START, Left, displacements, places
from dlwhy.elf.file import Elf, read
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.errors import ElfError
from dlwhy.files import Files
from tests.fixtures.registries import tool, valet

if TYPE_CHECKING:
    from pathlib import Path

MODELS = ("global-dynamic", "local-dynamic", "initial-exec")
C = """
#define N %d
static __thread char big[4248]; static __thread long counter; static __thread short first = 7; __thread int seen;
struct s { long a, b; char c[100]; }; static __thread struct s one; static __thread double last[3] = {1, 2, 3};
long *a(void) { return &counter; } char *b(int i) { return big + i; } int c(void) { return first++ + seen; }
long d(long v) { one.a = v; one.b += v; return one.c[v]; } double e(int i) { return last[i] * N; }
long f(long n) { long t = 0; for (long i = 0; i < n; i++) t += one.a * counter + (long)last[i]; return t; }
"""
CXX = """
#include <string>
#include <vector>
namespace cook { thread_local std::string pot("soup"); thread_local std::vector<int> spoons; }
extern "C" int stir(int n) { cook::spoons.push_back(n); cook::pot += 'x'; return cook::spoons.size() + n; }
"""
RUST = """
use std::cell::{Cell, RefCell};
thread_local! { static STATE: RefCell<[u64; 300]> = RefCell::new([1; 300]); }
thread_local! { static N: Cell<u32> = const { Cell::new(1) }; }
#[no_mangle] pub extern "C" fn touch(i: usize) -> u64 {
    N.with(|n| n.set(n.get() + 1)); STATE.with(|s| { s.borrow_mut()[i] += 1; s.borrow()[i] })
}
"""


def built(folder: Path, name: str, text: str, *words: str) -> Path:
    """Return what a compiler makes of a text."""
    source = folder / name
    source.write_text(text)
    target = folder / f"{name}.so"
    full = [tool(words[0]), *words[1:], "-o", str(target), str(source)]
    done = subprocess.run(full, capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"not run: {words[0]}: {done.stderr.decode()[-160:]}")
    return target


def opened(path: Path | str) -> Elf:
    """Return the ELF file at a path."""
    return read(Files().open(str(path)))


def stripped(path: Path) -> Path:
    """Return a copy without any symbol."""
    target = path.with_name(f"{path.name}.stripped")
    subprocess.run([tool("strip"), "-s", "-o", str(target), str(path)], check=True)
    return target


def compared(path: Path) -> tuple[Bill, Bill, dict[int, tuple[str, list[int]]]]:
    """Return the bills of a file before and after it is stripped, and the places that its code reaches.

    Every place must lie in a variable, each sure start must be one, and the sums must be right.
    """
    bare = stripped(path)
    before, after = bill(opened(path)), bill(opened(bare))
    assert before.complete and not after.complete
    for one in (before, after):
        assert sum(share.bytes for share in one.shares) + one.padding + one.unattributed == one.size
    elf = opened(bare)
    found = sites(elf)
    known = places(elf, found.slots, found, after.size)
    variables = [(one.offset, one.size) for one in StaticSymbols(opened(path)).tls() if one.size and one.shndx]
    for offset, (sure, _) in known.items():
        assert any(start <= offset < start + size for start, size in variables), (hex(offset), sure)
        if sure == START:
            assert any(start == offset for start, _ in variables), hex(offset)
    return before, after, known


def starts(path: Path) -> set[int]:
    """Return where the symbol table has variables."""
    return {one.offset for one in StaticSymbols(opened(path)).tls() if one.size and one.shndx}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
def test_c(tmp_path: Path, compiler: str, level: str, model: str) -> None:
    """Of a stripped C library every variable's start is found, whatever the compiler, optimisation and model."""
    flags = (level, "-shared", "-fPIC", f"-ftls-model={model}", "-fvisibility=hidden")
    path = built(tmp_path, "a.c", C % 3, compiler, *flags)
    before, after, known = compared(path)
    assert starts(path) <= set(known)
    assert after.unattributed == 0 and after.size == before.size
    spans = {share.variable: share.bytes for share in after.shares}
    (start,) = [one.offset for one in StaticSymbols(opened(path)).tls() if one.name == "big"]
    assert spans[f"variable at offset {start:#x}"] >= 4248
    assert all("next known place" in share.evidence for share in after.shares)


def test_rust_and_cxx(tmp_path: Path) -> None:
    """So of stripped Rust and C++ libraries: the big variable keeps its bytes together."""
    rust = built(tmp_path, "a.rs", RUST, "rustc", "--crate-type", "cdylib", "-C", "opt-level=2")
    before, after, known = compared(rust)
    assert max(share.bytes for share in before.shares if share.variable) >= 2400
    assert max(share.bytes for share in after.shares) >= 2392  # the first word is its own place: the borrow flag
    print(f"Rust: {len(starts(rust) & set(known))} of {len(starts(rust))} starts")
    cxx = built(tmp_path, "a.cc", CXX, "g++", "-O2", "-shared", "-fPIC")
    _, after, known = compared(cxx)
    assert known and after.unattributed == 0


def test_the_library_of_the_story() -> None:
    """In the stripped library with rand 0.6.5 one place has nearly all bytes, and the places are rand's and std's."""
    path = valet()
    if not StaticSymbols(opened(path)).tls():
        pytest.skip("not run: the cached library has no symbols")
    _, after, _ = compared(path)
    assert after.shares[0].bytes > 4200 and after.shares[0].variable is not None


def test_go(tmp_path: Path) -> None:
    """In a stripped Go library the eight bytes are the Go runtime's: its own table names the code that uses them."""
    source = tmp_path / "main.go"
    source.write_text('package main\nimport "C"\n//export Answer\nfunc Answer() int { return 42 }\nfunc main() {}\n')
    words = [tool("go"), "build", "-buildmode=c-shared", "-o", "libgo.so", "main.go"]
    environment = {**os.environ, "GO111MODULE": "off"}
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, check=False, env=environment)
    if done.returncode:
        pytest.skip(f"not run: go build: {done.stderr.decode()[-160:]}")
    subprocess.run(["strip", "-s", str(tmp_path / "libgo.so")], check=True)
    found = bill(opened(tmp_path / "libgo.so"))
    (share,) = found.shares
    assert (share.owner, share.kind, share.variable, share.bytes) == ("Go runtime", "go", "runtime.tlsg", 8)
    assert "accesses looked at are in code of Go runtime" in share.evidence
    assert [one.variable for one in found.triggers] == ["runtime.tlsg"]


@pytest.mark.machine
def test_files_of_this_machine_with_symbols(tmp_path: Path) -> None:
    """Of libraries of this machine that have their symbols each place lies in a variable, and how many are found."""
    patterns = ("/usr/lib/gcc/x86_64-linux-gnu/*/*.so", "/usr/lib/x86_64-linux-gnu/*san.so*")
    every = touched = 0
    for path in sorted({os.path.realpath(one) for pattern in patterns for one in glob(pattern)}):
        try:
            elf = opened(path)
            if elf.tls is None or not StaticSymbols(elf).complete or not StaticSymbols(elf).tls():
                continue
        except ElfError:  # a linker script
            continue
        copy = tmp_path / "copy.so"
        shutil.copy(path, copy)
        if not bill(opened(copy), code=False).complete:
            continue
        _, _, known = compared(copy)
        every += len(starts(copy))
        touched += len(starts(copy) & set(known))
    print(f"{touched} of {every} starts")


def test_code_that_is_no_code(tmp_path: Path) -> None:
    """Whatever bytes stand behind a local-dynamic access, following them ends, and raises nothing."""
    path = built(tmp_path, "a.c", C % 3, "gcc", "-O2", "-shared", "-fPIC", "-ftls-model=local-dynamic")
    data = path.read_bytes()
    (at, *_) = [one.address for one in sites(opened(path)).found if one.model == "local-dynamic"]
    place = opened(path).offset_of(at)
    assert place is not None
    generator = random.Random(4)
    for _ in range(300):
        length = generator.randrange(1, 120)
        noise = bytes(generator.randrange(256) for _ in range(length))
        (tmp_path / "b.so").write_bytes(data[: place + 12] + noise + data[place + 12 + length :])
        displacements(opened(tmp_path / "b.so"), at, "local-dynamic", Left())
