"""Reading code along: lengths and targets against objdump, answers against what the code was compiled from."""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from dlwhy.attribute import calls as module
from dlwhy.attribute.calls import Calls, calls
from dlwhy.elf.file import Elf
from dlwhy.elf.relocs import of_types
from dlwhy.files import Files
from dlwhy.view import View
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import need

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"\s+([0-9a-f]+):\t(.*)")
_TARGET = re.compile(r"(?:bnd )?(call|j\w+)\s+([0-9a-f]+) <")
_KINDS = {"call": "call", "jmp": "jump"}

SOURCE = """
extern void gone(void), also_gone(void); extern void *malloc(unsigned long); extern void free(void *);
void direct(void) { gone(); }
void second(void) { also_gone(); gone(); }
void guarded(int x) { if (x == 12345) gone(); }
void either(int x) { if (x) gone(); else also_gone(); }
void fine(void) { free(malloc(3)); }
void after(void) { free(malloc(3)); gone(); }
int leaf(int x) { int s = 0; for (int i = 0; i < x; i++) s += i * x; return s; }
static __attribute__((noinline)) void inner(void) { gone(); __asm__ volatile(""); }
void nested(void) { inner(); __asm__ volatile(""); }
void through(void (*f)(void)) { f(); }
int recursive(int x) { return x ? 1 + recursive(x - 1) : 0; }
"""


@pytest.mark.machine
def test_lengths_and_targets_are_objdumps() -> None:
    """Each instruction of this system's libraries that is read has objdump's length and target."""
    checked = unread = 0
    listed = subprocess.run([need("ldconfig"), "-p"], capture_output=True, text=True, check=True).stdout
    paths = re.findall(r"lib(?:c|z|m|stdc\+\+|gcc_s)\.so\.\d+ \(libc6,x86-64[^)]*\) => (\S+)", listed)
    assert paths
    files = Files()
    for path in paths:
        elf = Elf(files.open(path))
        text = subprocess.run(
            [need("objdump"), "-dw", "-j", ".text", "--no-show-raw-insn", path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        rows = [(int(found[1], 16), found[2]) for found in map(_LINE.match, text.splitlines()) if found]
        for (place, words), (following, _) in list(pairwise(rows))[:60_000]:
            try:
                read = module._instruction(elf, place)
            except module._UnknownError:
                unread += 1
                continue
            if "(bad)" in words:
                continue
            checked += 1
            assert read.length == following - place, words
            target = _TARGET.match(words)
            if target:
                kind = _KINDS.get(target[1], "branch")
                assert (read.kind, read.target) == (kind, int(target[2], 16)), words
    files.close()
    print(f"{checked} instructions read, {unread} not")
    assert checked > 50_000 and unread < checked / 10  # vector instructions of libm are the most


def answers(library: Path, tool: str) -> dict[str, Calls | None]:
    """Function -> what it calls of `gone` and `also_gone`, their slots and its start told by other tools."""
    table = subprocess.run(
        [need(tool), "-D", "--defined-only", str(library)], capture_output=True, text=True, check=True
    )
    starts = {
        name: int(value, 16) for value, kind, name in re.findall(r"(?m)^(\w+) (\w) (\w+)$", table.stdout) if kind == "T"
    }
    slots = subprocess.run([need("readelf"), "-rW", str(library)], capture_output=True, text=True, check=True).stdout
    open_ = {int(m[1], 16): m[2] for m in re.finditer(r"(?m)^(\w+) .*R_X86_64_JUMP_SLO.* (gone|also_gone) ", slots)}
    files = Files()
    elf = Elf(files.open(str(library)))
    assert {relocation.offset for relocation, _ in of_types(elf, (7,))} >= set(open_)
    found = {name: calls(elf, start, open_) for name, start in starts.items()}
    files.close()
    return found


@pytest.mark.parametrize("flags", [("-O0",), ("-O1",), ("-O2",), ("-Os",), ("-O1", "-fcf-protection")], ids=" ".join)
def test_what_code_calls(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """Calls that are certain, that depend on something, and that are not there are told apart at every optimisation."""
    source = tmp_path / "code.c"
    source.write_text(SOURCE)
    found = answers(gcc(tmp_path / "code.so", "-shared", "-fPIC", "-Wl,-z,lazy", *flags, source), "nm")
    for name in ("direct", "nested"):
        assert found[name] == Calls("gone", ("gone",), False), name
    second = found["second"]
    assert second is not None and second.surely == "also_gone"
    for name, open_ in (("guarded", {"gone"}), ("either", {"gone", "also_gone"})):
        one = found[name]
        assert one is not None and one.surely is None and set(one.perhaps) == open_, name
    for name, leaves in (("fine", True), ("leaf", False), ("recursive", False)):
        one = found[name]
        assert one is not None and (one.surely, one.perhaps) == (None, ()), name
        assert one.leaves == leaves or name == "fine", name
    after = found["after"]
    assert after is not None and after.perhaps == ("gone",)
    assert found["through"] is None


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_stubs_of_each_linker(tmp_path: Path, linker: str) -> None:
    """Each linker's procedure linkage table is read through to the slot."""
    if not any(shutil.which(name) for name in (f"ld.{linker}", linker)):
        pytest.skip(f"not run: no {linker} here")
    source = tmp_path / "code.c"
    source.write_text(SOURCE)
    library = gcc(tmp_path / "code.so", "-O1", "-shared", "-fPIC", "-Wl,-z,lazy", f"-fuse-ld={linker}", source)
    found = answers(library, "nm")
    assert found["direct"] == Calls("gone", ("gone",), False)
    assert found["leaf"] == Calls(None, (), False)


def test_code_that_cannot_be_read(tmp_path: Path) -> None:
    """A start outside the file, bytes that are no known instruction and another machine give no answer."""
    source = tmp_path / "code.c"
    source.write_text(SOURCE)
    data = bytearray(gcc(tmp_path / "code.so", "-shared", "-fPIC", source).read_bytes())
    elf = Elf(View("code", bytes(data)))
    for start in (0x7FFF_0000, -1, 0):
        assert calls(elf, start, {1: "x"}) is None
    data[18] = 183  # aarch64
    assert calls(Elf(View("code", bytes(data))), elf.entry, {1: "x"}) is None
