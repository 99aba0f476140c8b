"""Panic locations of Rust code whose names were stripped, against the names before."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.functions import locate
from dlwhy.attribute.panics import sources
from dlwhy.attribute.sites import sites
from dlwhy.elf.file import read
from dlwhy.files import Files
from dlwhy.view import View
from tests.fixtures import registries

if TYPE_CHECKING:
    from pathlib import Path

COOK = """
use std::cell::Cell;
thread_local! { static POT: Cell<[u32; 64]> = const { Cell::new([0; 64]) }; }
#[inline(never)] pub fn stir(i: usize, n: u32) -> u32 {
    POT.with(|p| { let mut all = p.get(); all[i] += n; p.set(all); all[(i * 7) % 99] })
}
#[inline(never)] pub fn quiet() -> u32 { POT.with(|p| p.get()[0]) }
"""
HALL = """
#[no_mangle] pub extern "C" fn serve(i: usize) -> u32 { cook::stir(i, 3) + cook::quiet() }
"""


@pytest.fixture(scope="module", params=["x86_64", "aarch64"])
def kitchen(request: pytest.FixtureRequest) -> Path:
    """A cdylib of two crates, one of which has initial-exec variables (an unstable option of rustc)."""
    words = ["env", "RUSTC_BOOTSTRAP=1", "rustc", "--edition=2021", "-O", "-Ztls-model=initial-exec"]
    if request.param == "aarch64":
        words += ["--target=aarch64-unknown-linux-gnu", "-Clinker=aarch64-linux-gnu-gcc"]
        registries.tool("aarch64-linux-gnu-gcc")
    registries.tool("rustc")
    return registries.made(
        f"kitchen-{request.param}", {"cook/src/lib.rs": COOK, "hall/src/lib.rs": HALL},
        (*words, "--crate-type=rlib", "--crate-name=cook", "cook/src/lib.rs"),
        (*words, "--crate-type=cdylib", "--crate-name=hall", "--extern=cook=libcook.rlib", "hall/src/lib.rs"),
        result="libhall.so",
    )  # fmt: skip


@pytest.mark.oracle
def test_a_stripped_function_tells_its_crate(kitchen: Path, tmp_path: Path) -> None:
    """Code that can panic is told by its source file, as assumed; code that cannot is told by its address only."""
    (before,) = (one for one in dlwhy.tls([kitchen]).files[0].triggers if one.variable == "cook::POT")
    assert set(before.functions) == {"cook::stir", "cook::quiet"}
    bare = tmp_path / "libbare.so"
    shutil.copy(kitchen, bare)
    strip = "aarch64-linux-gnu-strip" if "aarch64" in kitchen.parent.name else "strip"
    subprocess.run([registries.tool(strip), "-s", bare], check=True)
    (after,) = (one for one in dlwhy.tls([bare]).files[0].triggers if one.offset == before.offset)
    assert after.accesses == before.accesses
    told = sorted(name.partition(" (")[2] for name in after.functions)
    assert told == ["", "perhaps cook/src/lib.rs)"]
    users = {user.owner: user.basis for user in after.users}
    assert users == {"cook": "assumed", "libbare.so": "computed"}
    done = subprocess.run(
        [sys.executable, "-m", "dlwhy", "tls", bare], capture_output=True, text=True, check=True
    )
    assert "perhaps cook " in done.stdout and "(perhaps cook/src/lib.rs)" in done.stdout


def test_damaged_locations_are_left_out(kitchen: Path) -> None:
    """Whatever bytes change, no claim names what is no path, and nothing raises."""
    data = kitchen.read_bytes()
    elf = read(View("x", data))
    bounds = {(one.start, one.end) for one in locate(elf, [site.address for site in sites(elf).found]).values()}
    assert any(one.crate == "cook" for one in sources(elf, bounds).values())
    rng = random.Random(5)
    for _ in range(60):
        broken = bytearray(data)
        for _ in range(64):
            broken[rng.randrange(0x400, len(data))] = rng.randrange(256)
        for one in sources(read(View("x", bytes(broken))), bounds).values():
            assert one.file.isascii() and one.file.endswith(".rs")


@pytest.mark.oracle
def test_c_says_nothing() -> None:
    """A library of C has no panic locations: nothing is claimed."""
    path = registries.debian("libglvnd0", "usr/lib/x86_64-linux-gnu/libGLdispatch.so.0", "amd64")
    elf = read(Files().open(str(path)))
    bounds = {(one.start, one.end) for one in locate(elf, [site.address for site in sites(elf).found]).values()}
    assert bounds and sources(elf, bounds) == {}
