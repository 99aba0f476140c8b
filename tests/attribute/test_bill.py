"""Bills of objects that compilers made, and of objects that nobody should have made."""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from dlwhy.attribute.bill import Bill, bill
from dlwhy.attribute.triggers import triggers_into
from dlwhy.elf.file import read
from dlwhy.errors import ElfError
from dlwhy.files import Files
from dlwhy.view import View
from tests.elf_writer import tls_object

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_tls import TlsObject

TLS_LOCAL, TLS_GLOBAL, FILE_SYMBOL = 0x06, 0x16, 0x04

TRIGGER_C = """
static __thread char big[4248];
__thread int exported;
__thread long quick __attribute__((tls_model("initial-exec")));
static __thread short counter = 7;
char *touch(int i) { counter++; exported++; return &big[i]; }
long hurry(void) { return quick++; }
long again(void) { return quick + 1; }
"""
OTHER_C = """
static __thread int counter __attribute__((aligned(64)));
int other(void) { return ++counter; }
"""
USER_C = """
extern __thread long quick __attribute__((tls_model("initial-exec")));
long use(void) { return quick; }
"""
CXX = """
#include <string>
namespace outer { namespace inner { thread_local std::string text = "x"; }
  struct Holder { static thread_local long count; };
  thread_local long Holder::count;
  long &once() { static thread_local long slot = 3; return slot; } }
namespace { thread_local int hidden = 5; }
inline namespace v1 { thread_local char plain[100]; }
char *touch() { outer::once()++; outer::Holder::count++; hidden++; outer::inner::text += "y"; return plain; }
"""
RUST = """
use std::cell::{Cell, RefCell};
pub mod engine {
    use std::cell::RefCell;
    thread_local! { pub static STATE: RefCell<[u64; 512]> = const { RefCell::new([0; 512]) }; }
}
thread_local! { static COUNT: Cell<u32> = Cell::new(0); static LIST: RefCell<Vec<u8>> = RefCell::new(Vec::new()); }
#[no_mangle] pub extern "C" fn touch() -> u64 {
    COUNT.with(|c| c.set(c.get() + 1));
    LIST.with(|l| l.borrow_mut().push(1));
    engine::STATE.with(|s| { s.borrow_mut()[3] += 1; s.borrow()[4] })
}
"""
GO = """
package main

import "C"

//export Answer
func Answer() int { return 42 }

func main() {}
"""


def by_name(found: Bill | TlsObject | None) -> set[str | None]:
    """Return the variables that something names; the others are told by a place that code reaches."""
    assert found is not None
    return {one.variable for one in found.shares if not (one.variable or "").startswith("variable at offset 0x")}


def nameless(found: Bill | TlsObject | None) -> int:
    """Return the bytes without a name, whether or not code reaches them."""
    assert found is not None
    return found.size - found.padding - sum(one.bytes for one in found.shares if one.variable in by_name(found))


def billed(path: Path | str) -> Bill:
    """Return the bill of a file, checked against the one law that always holds."""
    found = bill(read(Files().open(str(path))))
    balanced(found)
    return found


def balanced(found: Bill) -> None:
    """Hold a bill to its law: shares, and owners, with padding and unattributed bytes are the whole segment."""
    assert sum(share.bytes for share in found.shares) + found.padding + found.unattributed == found.size
    assert sum(share.bytes for share in found.owners) + found.padding + found.unattributed == found.size


def build(folder: Path, name: str, *command: str, **sources: str) -> Path:
    """Write `sources` (suffix after two underscores) and run a compiler on them; skip where it cannot work."""
    compiler = shutil.which(command[0])
    if compiler is None:
        pytest.skip(f"not run: no {command[0]} here")
    files = []
    for key, text in sources.items():
        file = folder / key.replace("__", ".")
        file.write_text(text)
        files.append(str(file))
    done = subprocess.run(
        [compiler, *command[1:], *files, "-o", str(folder / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.fixture(scope="module")
def trigger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a big variable, and one initial-exec variable that drags it along."""
    return build(
        tmp_path_factory.mktemp("c"), "libtrigger.so", "gcc", "-O1", "-shared", "-fPIC", "-Wl,-soname,libtrigger.so.1",
        trigger__c=TRIGGER_C, other__c=OTHER_C,
    )  # fmt: skip


def test_bulk_of_c(trigger: Path) -> None:
    """Static variables go to their source file, exported ones to the library; nothing but padding is left over."""
    found = billed(trigger)
    shares = {(share.owner, share.variable): share for share in found.shares}
    assert found.complete and found.unattributed == 0
    assert found.align == 64
    assert found.shares[0].variable == "big" and found.shares[0].bytes == 4248
    assert shares["trigger.c", "big"].kind == "unit"
    assert shares["trigger.c", "counter"].bytes == 2
    assert shares["other.c", "counter"].bytes == 4
    assert shares["libtrigger.so.1", "exported"].kind == "library"
    assert shares["libtrigger.so.1", "quick"].bytes == 8
    assert found.owners[0].owner == "trigger.c" and found.owners[0].bytes == 4250 and found.owners[0].variable == "big"


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
def test_file_symbols_are_believed_where_linkers_keep_them_right(tmp_path: Path, linker: str) -> None:
    """Static variables have their source file under every linker; a hidden global's is right or not claimed."""
    if not any(shutil.which(name) for name in (f"ld.{linker}", linker)):
        pytest.skip(f"not run: no {linker} here")
    source = """
    static __thread int plain[10]; __attribute__((visibility("hidden"))) __thread int hidden[3];
    int *touch(int i) { plain[i]++; return &hidden[i]; }
    """
    library = build(tmp_path, "lib.so", "gcc", "-shared", "-fPIC", f"-fuse-ld={linker}", a__c=source, b__c="int other;")
    found = {share.variable: share for share in billed(library).shares}
    assert (found["plain"].owner, found["plain"].unit) == ("a.c", "a.c")
    assert (found["hidden"].owner, found["hidden"].unit) in (("lib.so", None), ("a.c", "a.c"))


def test_link_time_optimisation_claims_no_source_file(tmp_path: Path) -> None:
    """Behind GCC's LTO no source file is named: the variables belong to the library, by their own names."""
    source = "static __thread int plain[10]; int touch(int i) { return plain[i]++; }"
    found = billed(build(tmp_path, "lib.so", "gcc", "-O2", "-flto", "-shared", "-fPIC", a__c=source))
    assert [(share.owner, share.variable) for share in found.shares] == [("lib.so", "plain")]


def test_trigger_of_c(trigger: Path) -> None:
    """The one initial-exec variable is named with its relocation; the general-dynamic ones are no triggers."""
    found = billed(trigger)
    (one,) = found.triggers
    assert (one.owner, one.variable, one.relocation, one.relocations, one.own) == (
        "libtrigger.so.1", "quick", "R_X86_64_TPOFF64", 1, True,
    )  # fmt: skip
    assert one.accesses == 2 and set(one.functions) == {"hurry", "again"} and one.object == str(trigger)
    assert found.model.split("+")[0] == "initial-exec" and "dynamic" in found.model


def test_trigger_into_another_library(trigger: Path, tmp_path: Path) -> None:
    """A library whose initial-exec code uses another's variable has no segment, and a trigger that is not its own."""
    user = build(tmp_path, "libuser.so", "gcc", "-O1", "-shared", "-fPIC", f"-L{trigger.parent}", user__c=USER_C)
    found = billed(user)
    assert (found.size, found.shares, found.padding, found.unattributed) == (0, (), 0, 0)
    (one,) = found.triggers
    assert (one.own, one.variable, one.symbol, one.offset) == (False, "quick", "quick", None)
    assert one.owner == "another library"
    (settled,) = triggers_into(read(Files().open(str(user))), read(Files().open(str(trigger))))
    assert settled.owner == "libtrigger.so.1" and settled.accesses is None
    assert settled == bill(read(Files().open(str(user))), code=False).triggers[0].but(owner="libtrigger.so.1")
    assert triggers_into(read(Files().open(str(trigger))), read(Files().open(str(user)))) == ()


@pytest.mark.parametrize("how", ["-s", "-x", "--strip-debug"])
def test_stripped(trigger: Path, tmp_path: Path, how: str) -> None:
    """Without local symbols what is not exported has no name, and is never called padding; --strip-debug keeps all."""
    strip = shutil.which("strip")
    if strip is None:
        pytest.skip("not run: no strip here")
    copy = tmp_path / "libtrigger.so"
    subprocess.run([strip, how, "-o", str(copy), str(trigger)], check=True)
    found = billed(copy)
    if how == "--strip-debug":
        assert {(s.variable, s.bytes) for s in found.shares} >= {("big", 4248), ("exported", 4), ("quick", 8)}
        assert found.unattributed == 0
        return
    assert not found.complete
    assert by_name(found) == {"exported", "quick"}
    assert nameless(found) >= 4248 + 2 + 4
    assert found.triggers[0].variable == "quick"


def test_program_is_local_exec(tmp_path: Path) -> None:
    """A program's own variables leave no relocation: its model is local-exec."""
    main = "static __thread int mine[5]; int main(int n, char **v) { mine[n] = n; return mine[0]; }"
    for flags in (("-pie", "-fPIE"), ("-no-pie",)):
        program = build(tmp_path, "program", "gcc", *flags, main__c=main)
        found = billed(program)
        assert found.model == "local-exec"
        assert not found.triggers
        assert [(s.owner, s.variable, s.bytes) for s in found.shares if s.variable == "mine"] == [
            ("main.c", "mine", 20)
        ]


def test_bulk_of_cxx(tmp_path: Path) -> None:
    """C++ variables belong to their outermost namespace; without one, to the source file."""
    found = billed(build(tmp_path, "libcxx.so", "g++", "-O1", "-shared", "-fPIC", x__cc=CXX))
    owners = {share.variable: (share.owner, share.kind) for share in found.shares}
    assert owners["outer::inner::text[abi:cxx11]"] == ("outer", "namespace")
    assert owners["outer::Holder::count"] == ("outer", "namespace")
    assert owners["outer::once()::slot"] == ("outer", "namespace")
    assert owners["(anonymous namespace)::hidden"] == ("x.cc", "unit")
    assert owners["v1::plain"] == ("v1", "namespace")
    assert found.unattributed == 0


def test_rel_addends_of_i386(tmp_path: Path) -> None:
    """On i386 the addend of a local variable stands in the slot itself; it names the variable all the same."""
    source = """
    static __thread int first[3] __attribute__((tls_model("initial-exec"))) = {1};
    static __thread int second __attribute__((tls_model("initial-exec"))) = 2;
    int touch(int i) { return first[i] + ++second; }
    """
    gcc = shutil.which("gcc")
    probe = subprocess.run(
        [gcc or "false", "-m32", "-shared", "-nostdlib", "-fPIC", "-x", "c", "-", "-o", str(tmp_path / "probe.so")],
        input="int x;", text=True, capture_output=True, check=False,
    )  # fmt: skip
    if probe.returncode:
        pytest.skip("not run: this gcc makes no i386 code")
    found = billed(build(tmp_path, "lib32.so", "gcc", "-m32", "-O1", "-shared", "-nostdlib", "-fPIC", a__c=source))
    assert {(one.variable, one.relocation) for one in found.triggers} == {
        ("first", "R_386_TLS_TPOFF"), ("second", "R_386_TLS_TPOFF"),
    }  # fmt: skip


def test_bulk_of_rust(tmp_path: Path) -> None:
    """A Rust cdylib's thread_local!s belong to their crate and are called what the author called them."""
    library = build(
        tmp_path, "libengine.so", "rustc", "--crate-name", "mylib", "--crate-type", "cdylib", "-O", lib__rs=RUST
    )
    found = billed(library)
    assert found.unattributed == 0
    names = {share.variable: share for share in found.shares}
    assert names["mylib::engine::STATE"].owner == "mylib"
    assert names["mylib::engine::STATE"].kind == "crate"
    assert names["mylib::engine::STATE"].bytes >= 4096
    assert names["mylib::LIST"].bytes >= 24
    assert found.owners[0].owner == "mylib" and found.owners[0].variable == "mylib::engine::STATE"
    assert "std" in {share.owner for share in found.owners}
    assert not found.triggers


@pytest.mark.slow
def test_bulk_and_trigger_of_go(tmp_path: Path) -> None:
    """A Go c-shared library has one variable, which is also its trigger."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("not run: no go here")
    (tmp_path / "go.mod").write_text("module example\n")
    (tmp_path / "main.go").write_text(GO)
    import os

    done = subprocess.run(
        [go, "build", "-buildmode=c-shared", "-o", "libgo.so", "."], cwd=tmp_path, check=False,
        capture_output=True, text=True,
        env={**os.environ, "GOFLAGS": "-mod=mod", "CGO_ENABLED": "1", "GOTOOLCHAIN": "local"},
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"not run: go cannot build a c-shared library here: {done.stderr[-200:]}")
    found = billed(tmp_path / "libgo.so")
    assert ("Go runtime", "go", "runtime.tlsg") in {(s.owner, s.kind, s.variable) for s in found.shares}
    assert found.triggers[0].owner == "Go runtime" and found.triggers[0].own


# -- files that nobody should have made --------------------------------------------------------------------------------


def made(*args: object, **named: object) -> Bill:
    """Return the bill of bytes made by `tls_object`."""
    found = bill(read(View("made", tls_object(*args, **named))))  # type: ignore[arg-type]
    balanced(found)
    return found


def test_fifty_thousand_symbols_sharing_one_huge_name() -> None:
    """2 MB of symbols that all bear the same name of one megabyte cost neither time nor memory, nor a huge report."""
    symbols = [(1, TLS_LOCAL, 0, 4, 8 * n, 8) for n in range(50_000)]
    data = tls_object(400_000, symbols, b"\0" + b"_ZN1a" * 209_715 + b"\0")
    start = time.process_time()
    found = bill(read(View("bomb", data)))
    assert time.process_time() - start < 3.0
    balanced(found)
    assert all(len(share.variable or "") < 3000 for share in found.shares)


def test_hostile_symbols() -> None:
    """Symbols that overlap, repeat, lie outside, have no name or claim more than the segment leave the sum intact."""
    strings = b"\0a\0b\0c\0_TLS_MODULE_BASE_\0\xff\xfe\0f.c\0"
    top = (1 << 64) - 1
    found = made(
        100,
        [
            (strings.index(b"f.c"), FILE_SYMBOL, 0, 0xFFF1, 0, 0),
            (1, TLS_LOCAL, 0, 4, 0, 8), (3, TLS_LOCAL, 0, 4, 0, 8), (1, TLS_LOCAL, 0, 4, 4, 8),
            (5, TLS_LOCAL, 0, 4, 90, top),
            (5, TLS_GLOBAL, 0, 4, top, top), (5, TLS_GLOBAL, 0, 4, 100, 1), (0, TLS_LOCAL, 0, 4, 20, 4),
            (7, TLS_LOCAL, 0, 4, 0, 100), (strings.index(b"\xff"), TLS_LOCAL, 0, 4, 30, 2), (1, TLS_LOCAL, 0, 0, 40, 4),
            (1 << 31, TLS_LOCAL, 0, 4, 50, 4), (1, TLS_LOCAL, 0, 4, 60, 0),
        ],
        strings,
    )  # fmt: skip
    assert {(share.variable, share.bytes) for share in found.shares} == {("a", 12), ("c", 10), ("\udcff\udcfe", 2)}
    assert all(share.unit == "f.c" for share in found.shares)
    assert found.unattributed == 76


def test_a_damaged_symbol_table_costs_names_only() -> None:
    """A `.symtab` that leaves the file is told in a note; the segment is billed as unattributed."""
    data = tls_object(64, [(1, TLS_LOCAL, 0, 4, 0, 64)], b"\0a\0")
    whole = read(View("whole", data))
    assert bill(whole).unattributed == 0
    at = whole.shoff + 64 * next(i for i, section in enumerate(whole.sections) if section.name == ".symtab")
    damaged = data[: at + 32] + (len(data) * 3 // 24 * 24).to_bytes(8, "little") + data[at + 40 :]
    found = bill(read(View("damaged", damaged)))
    balanced(found)
    assert found.unattributed == 64 and not found.complete
    assert len(found.notes) == 1 and "damaged" in found.notes[0]


def test_a_table_without_local_symbols_is_not_complete() -> None:
    """After `strip -x` a gap may hold a static variable: it is not called padding."""
    strings = b"\0a\0"
    some, other = (1, TLS_GLOBAL, 0, 4, 0, 4), (1, TLS_GLOBAL, 0, 4, 8, 8)
    local, file, section = (1, 2, 0, 1, 0, 4), (1, FILE_SYMBOL, 0, 0xFFF1, 0, 0), (0, 3, 0, 4, 0, 0)
    for symbols, padding in (([local, some, other], 4), ([file, section, some, other], 0), ([some, other], 0)):
        found = made(16, symbols, strings, tls_sections=((0x1000, 16),))
        assert (found.padding, found.unattributed, found.complete) == (padding, 4 - padding, padding > 0)


def test_flipped_bits_and_cuts_give_a_bill_or_one_error(trigger: Path) -> None:
    """Thousands of damaged copies of a real library: a bill that adds up, or `ElfError`, and never anything else."""
    data = trigger.read_bytes()
    seed = 20260
    chance = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(2000):
        bad = bytearray(data)
        for _ in range(chance.choice((1, 4, 16))):
            place = chance.choice(
                (chance.randrange(1024), chance.randrange(len(bad)), len(bad) - 1 - chance.randrange(2048))
            )
            bad[place] ^= 1 << chance.randrange(8)
        if chance.random() < 0.3:
            del bad[chance.randrange(len(bad)) :]
        try:
            balanced(bill(read(View("bad", bytes(bad)))))
            outcomes[True] += 1
        except ElfError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 50, f"seed {seed}"
