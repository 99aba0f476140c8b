"""Which code reaches thread-local variables, and how: against objdump, and on objects that compilers made."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from glob import glob
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.bill import Bill, bill
from dlwhy.attribute.code_x86_64 import through_slots
from dlwhy.attribute.functions import locate
from dlwhy.attribute.sites import sites
from dlwhy.attribute.slots import Slot
from dlwhy.elf.file import read
from dlwhy.files import Files
from dlwhy.view import View

from .access_oracle import compare

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
static __thread char big[4248];
__thread int exported;
extern __thread int foreign;
static __thread long quick __attribute__((tls_model("initial-exec")));
static __thread short counter = 7;
char *touch(int i) { counter++; exported++; return &big[i]; }
long hurry(void) { return quick++; }
long again(int n) { long s = 0; for (int i = 0; i < n; i++) s += quick * i + foreign; return s; }
long *where(void) { return &quick; }
"""
PROGRAM = SOURCE.replace("extern __thread int foreign", "__thread int foreign") + "int main(void) { return !touch(3); }"
GO = """
package main

import "C"

//export Answer
func Answer() int { return 42 }

func main() {}
"""
RUST = """
use std::cell::RefCell;
thread_local! { static STATE: RefCell<Vec<u64>> = RefCell::new(vec![0; 512]); }
#[no_mangle] pub extern "C" fn touch() -> u64 { STATE.with(|s| { s.borrow_mut().push(1); s.borrow().len() as u64 }) }
"""
INNOCENT = """
static __thread char cellar[4000]; extern __thread int tally;
int innocent(void) { return tally; }
char *work(int n) { tally += n; return &cellar[n]; }
int *where(void) { return &tally; }
"""
GUILTY = """
__thread int tally __attribute__((tls_model("initial-exec")));
int count(void) { return tally; }
"""
HERE = "/usr/lib/x86_64-linux-gnu"
X86_64 = (
    "libjemalloc.so.2", "libtcmalloc_minimal.so.4", "libmimalloc.so.2*", "libgomp.so.1", "libGLdispatch.so.0",
    "libGL.so.1", "libstdc++.so.6", "libc.so.6", "libtsan.so.2", "liblsan.so.0",
)  # fmt: skip
CROSS = "/usr/aarch64-linux-gnu/lib"
AARCH64 = ("libc.so.6", "libgomp.so.1", "libstdc++.so.6", "libasan.so.8", "libtsan.so.2", "libitm.so.1")


def made(path: Path, name: str, text: str, *command: str) -> Path:
    """Build one file from one source; skip where the compiler is not here."""
    tool = shutil.which(command[0])
    if tool is None:
        pytest.skip(f"not run: no {command[0]} here")
    suffix = {"go": "go", "rustc": "rs"}.get(command[0], "c")
    source, result = path / f"source.{suffix}", path / name
    source.write_text(text)
    subprocess.run([tool, *command[1:], "-o", str(result), str(source)], check=True, capture_output=True, cwd=path)
    return result


def billed(path: Path) -> Bill:
    """Return the bill of a file."""
    return bill(read(Files().open(str(path))))


def counted(found: Bill) -> dict[tuple[str | None, str], int]:
    """Return (variable, model) -> places."""
    return {(one.variable, one.model): one.sites for one in found.accesses}


@pytest.mark.oracle
@pytest.mark.parametrize("name", X86_64)
def test_system_libraries_agree_with_objdump(name: str) -> None:
    """In real x86-64 libraries the sites are those of objdump -d, one by one: precision and recall are 1."""
    paths = glob(f"{HERE}/{name}")
    if not paths:
        pytest.skip(f"not run: no {name} here")
    agree(paths[0])


@pytest.mark.oracle
@pytest.mark.parametrize("name", AARCH64)
def test_cross_libraries_agree_with_objdump(name: str) -> None:
    """In real aarch64 libraries the sites are those that a reading of objdump -d finds."""
    if not os.path.exists(f"{CROSS}/{name}"):
        pytest.skip(f"not run: no {name} of aarch64 here")
    agree(f"{CROSS}/{name}")


@pytest.mark.oracle
@pytest.mark.parametrize("options", [
    ("-O0",), ("-O2",), ("-Os", "-ftls-model=initial-exec"), ("-O2", "-mtls-dialect=gnu2"), ("-O2", "-fno-plt"),
    ("-O2", "-fuse-ld=gold"), ("-O2", "-fuse-ld=lld", "-mtls-dialect=gnu"), ("-O2", "-fuse-ld=mold"),
])  # fmt: skip
def test_every_model_and_linker_agrees_with_objdump(tmp_path: Path, options: tuple[str, ...]) -> None:
    """All four models, as compilers and linkers write and rewrite them, are found as objdump has them."""
    linker = next((one.rpartition("=")[2] for one in options if "-ld=" in one), "")
    if linker and not (shutil.which(f"ld.{linker}") or shutil.which(linker)):
        pytest.skip(f"not run: no {linker} here")
    agree(str(made(tmp_path, "lib.so", SOURCE, "gcc", *options, "-shared", "-fPIC")))


@pytest.mark.oracle
@pytest.mark.parametrize("options", [("-O2",), ("-O0", "-static"), ("-O2", "-no-pie")])
def test_programs_agree_with_objdump(tmp_path: Path, options: tuple[str, ...]) -> None:
    """In programs every %fs:<negative> of objdump is a local-exec site, and nothing else is."""
    agree(str(made(tmp_path, "program", PROGRAM, "gcc", *options)))


@pytest.mark.oracle
@pytest.mark.parametrize("options", [("-O2",), ("-O2", "-mtls-dialect=trad"), ("-O0", "-ftls-model=initial-exec")])
def test_aarch64_models_agree_with_objdump(tmp_path: Path, options: tuple[str, ...]) -> None:
    """TLSDESC, traditional and initial-exec sequences of the cross compiler are found as objdump has them."""
    agree(str(made(tmp_path, "lib.so", SOURCE, "aarch64-linux-gnu-gcc", *options, "-shared", "-fPIC")))


def agree(path: str) -> None:
    """Assert that a file's sites are those of objdump."""
    one = compare(path)
    if one is None:
        pytest.skip("not run: no objdump for this machine here")
    print(f"{path}: {len(one.theirs)} sites in {one.searched} bytes of code")
    assert one.ours == one.theirs


def test_models_by_variable(tmp_path: Path) -> None:
    """Each variable has its real models with counts, and the trigger the functions behind it, most accesses first."""
    found = billed(made(tmp_path, "lib.so", SOURCE, "gcc", "-O0", "-shared", "-fPIC"))
    models = counted(found)
    assert models["quick", "initial-exec"] == 4
    assert models["exported", "general-dynamic"] >= 1 and models["foreign", "general-dynamic"] == 1
    assert models[None, "local-dynamic"] if (None, "local-dynamic") in models else models["counter", "general-dynamic"]
    (one,) = [trigger for trigger in found.triggers if trigger.own]
    assert (one.accesses, one.functions_total, set(one.functions)) == (4, 3, {"hurry", "again", "where"})
    assert [(user.owner, user.accesses) for user in one.users] == [("source.c", 4)] or one.users[0].accesses == 4


LOCAL_DYNAMIC = """
static __thread int first; static __thread long second[40]; static __thread char third[9]; static __thread short never;
int one(void) { return ++first; }
long two(int i) { return second[i] + ++first; }
char *three(int i) { return i ? third : (char *)second; }
char *four(int i) { char *r = 0; while (i-- > 0) r = three(i) + second[i & 7]++; return r; }
short *unused(void) { return &never; }
"""


@pytest.mark.oracle
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-Os"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_local_dynamic_by_variable(tmp_path: Path, compiler: str, level: str) -> None:
    """The variables behind local-dynamic accesses are those that the object's DTPOFF relocations name, all of them."""
    model = (level, "-fPIC", "-ftls-model=local-dynamic")
    object_ = made(tmp_path, "part.o", LOCAL_DYNAMIC, compiler, *model, "-c")
    told = subprocess.run(["readelf", "-rsW", str(object_)], capture_output=True, text=True, check=True).stdout
    places = {int(value, 16): name for value, name in re.findall(r"(?m): (\w+) +\d+ TLS .* (\w+)$", told)}
    by_section = re.findall(r"R_X86_64_DTPOFF(?:32|64) +\w+ +(\S+) \+ (\w+)", told)
    expected = {name if not name.startswith(".") else places[int(addend, 16)] for name, addend in by_section}
    assert {"first", "second", "third"} <= expected
    library = tmp_path / "lib.so"
    subprocess.run([compiler, "-shared", "-o", str(library), str(object_)], check=True, capture_output=True)
    found = {one.variable: one.sites for one in billed(library).accesses if one.model == "local-dynamic offset"}
    assert found.keys() == expected
    assert all(found.values())


def test_innocent_accesses_of_gnu_ld_are_marked(tmp_path: Path) -> None:
    """GNU ld makes initial-exec of general-dynamic accesses to the same variable: those are told as rewritable."""
    text = """
extern __thread int shared_one;
__thread int shared_one;
int innocent(void) { return shared_one; }
extern __thread int same __asm__("shared_one") __attribute__((tls_model("initial-exec")));
int guilty(void) { return same; }
"""
    if not shutil.which("ld.bfd"):
        pytest.skip("not run: no ld.bfd here")
    found = billed(made(tmp_path, "lib.so", text, "gcc", "-O2", "-shared", "-fPIC", "-fuse-ld=bfd"))
    (one,) = found.triggers
    assert (one.accesses, one.rewritable, set(one.functions)) == (2, 1, {"innocent", "guilty"})


@pytest.mark.oracle
@pytest.mark.parametrize(("compiler", "linker"), [
    ("gcc", "bfd"), ("gcc", "gold"), ("gcc", "lld"), ("gcc", "mold"), ("gcc -mtls-dialect=gnu2", "bfd"),
    ("aarch64-linux-gnu-gcc", "bfd"), ("aarch64-linux-gnu-gcc -mtls-dialect=trad", "bfd"),
])  # fmt: skip
def test_origins_with_a_map(tmp_path: Path, compiler: str, linker: str) -> None:
    """With its map a stripped library's origins are the objects that `readelf -r` shows to be initial-exec."""
    words = [*compiler.split(), "-O1", "-fPIC"]
    if shutil.which(words[0]) is None or not any(shutil.which(name) for name in (f"ld.{linker}", linker)):
        pytest.skip(f"not run: no {words[0]} with {linker} here")
    (tmp_path / "cellar.c").write_text(INNOCENT)
    (tmp_path / "tally.c").write_text(GUILTY)
    strip = "aarch64-linux-gnu-strip" if "aarch64" in compiler else "strip"
    for command in (
        [*words, "-c", "cellar.c", "tally.c"],
        ["ar", "rc", "libtally.a", "tally.o"],
        [words[0], "-shared", f"-fuse-ld={linker}", "-Wl,-Map=map", "-o", "lib.so", "cellar.o", "libtally.a"],
        [strip, "-s", "lib.so"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    told = {}
    for name in ("cellar.o", "tally.o"):
        done = subprocess.run(["readelf", "-rW", tmp_path / name], capture_output=True, text=True, check=True)
        told[name] = bool(re.search("GOTTP", done.stdout))
    assert told == {"cellar.o": False, "tally.o": True}
    (found,) = dlwhy.tls([tmp_path / "lib.so"], map=tmp_path / "map").files
    assert not {"other-build", "unread-evidence"} & {one.rule for one in found.findings}
    (one,) = found.triggers
    guilty = [part.file for part in one.objects if part.accesses > part.rewritable]
    assert guilty == ["libtally.a(tally.o)"]
    assert {part.file for part in one.objects} <= {"cellar.o", "libtally.a(tally.o)"}
    assert sum(part.accesses for part in one.objects) == one.accesses
    if linker == "bfd":
        assert [part.file for part in one.objects if part.accesses == part.rewritable] == ["cellar.o"]


def test_stripped_go_names_its_functions(tmp_path: Path) -> None:
    """In a Go library without any symbol the Go runtime's own table names the functions, as the symbols did before."""
    library = made(tmp_path, "libgo.so", GO, "go", "build", "-buildmode=c-shared")
    before = billed(library).triggers[0]
    subprocess.run(["strip", "-s", str(library)], check=True)
    after = billed(library).triggers[0]
    assert after.accesses == before.accesses and after.accesses is not None and after.accesses > 100
    assert (after.owner, after.variable) == (before.owner, before.variable) == ("Go runtime", "runtime.tlsg")
    plain = {name.removesuffix(".abi0") for name in before.functions}  # the table has names as Go code has them
    assert set(after.functions) == plain and after.functions_total == before.functions_total
    agree(str(library))
    report = dlwhy.tls([library])
    assert "flag-cannot-help" in [finding.rule for finding in report.files[0].findings]


def test_hidden_functions_are_of_no_file(tmp_path: Path) -> None:
    """GNU ld writes hidden functions behind a file symbol without a name: they are of no file, not of the last."""
    inner = "static long put(long a) { return quick += a; }\nlong one(long a) { return put(a); }\n"
    text = '__thread long quick __attribute__((tls_model("initial-exec")));\n'
    (tmp_path / "plain.c").write_text(text + inner.replace("static", "__attribute__((noinline)) static"))
    (tmp_path / "hidden.c").write_text(
        'extern __thread long quick __attribute__((tls_model("initial-exec")));\n'
        '__attribute__((visibility("hidden"))) long deep(long a) { return quick -= a; }\n'
        "long two(long a) { return deep(a); }\n"
    )
    library = tmp_path / "lib.so"
    words = ["gcc", "-O1", "-fno-inline", "-shared", "-fPIC", "-fuse-ld=bfd", "-o", str(library), "plain.c", "hidden.c"]
    subprocess.run(words, cwd=tmp_path, check=True)
    (trigger,) = billed(library).triggers
    assert sorted(trigger.functions) == ["deep", "put"]
    assert {(user.owner, user.kind) for user in trigger.users} == {("plain.c", "unit"), ("lib.so", "library")}


def test_stripped_c_has_bounds(tmp_path: Path) -> None:
    """Without symbols .eh_frame still has each function's bounds: those that the symbol table had."""
    library = made(tmp_path, "lib.so", SOURCE, "gcc", "-O2", "-shared", "-fPIC", "-fvisibility=hidden")
    places = [one.address for one in sites(read(Files().open(str(library)))).found]
    before = locate(read(Files().open(str(library))), places)
    subprocess.run(["strip", "-s", str(library)], check=True)
    after = locate(read(Files().open(str(library))), places)
    assert places and before.keys() == after.keys()
    for address in places:
        assert (before[address].start, before[address].end) == (after[address].start, after[address].end)
        assert (before[address].source, after[address].source, after[address].name) == (".symtab", ".eh_frame", None)


def test_rust_cdylib(tmp_path: Path) -> None:
    """A Rust cdylib is dynamic throughout: no trigger, and its thread_local has its model; objdump agrees."""
    library = made(tmp_path, "librust.so", RUST, "rustc", "--crate-type", "cdylib", "-C", "opt-level=2")
    found = billed(library)
    assert found.triggers == ()
    dynamic = {"general-dynamic", "local-dynamic", "local-dynamic offset", "TLSDESC"}
    assert {one.model for one in found.accesses} <= dynamic and found.accesses
    agree(str(library))


def test_rust_with_go_archive(tmp_path: Path) -> None:
    """In a Rust cdylib with a Go c-archive the flag for rustc is said to be useless: the trigger is the Go runtime."""
    made(tmp_path, "libgo.a", GO, "go", "build", "-buildmode=c-archive")
    text = RUST + '#[link(name = "go", kind = "static")] extern "C" { fn Answer() -> i64; }\n' + (
        '#[no_mangle] pub extern "C" fn both() -> i64 { unsafe { Answer() } }\n'
    )  # fmt: skip
    library = made(tmp_path, "libmixed.so", text, "rustc", "--crate-type", "cdylib", "-L", str(tmp_path))
    (one,) = dlwhy.tls([library]).files
    assert [(t.owner, t.variable) for t in one.triggers] == [("Go runtime", "runtime.tlsg")]
    told = [finding.message for finding in one.findings if finding.rule == "flag-cannot-help"]
    assert len(told) == 2 and "-Z tls-model=global-dynamic" in told[0] and "Go runtime (runtime.tlsg)" in told[0]


def test_flag_that_disagrees(tmp_path: Path) -> None:
    """DF_STATIC_TLS taken out of a file that needs it, or put into one that does not, is a finding and no evidence."""
    library = made(tmp_path, "lib.so", SOURCE, "gcc", "-O2", "-shared", "-fPIC")
    data = bytearray(library.read_bytes())
    at = data.find((0x1E).to_bytes(8, "little") + (0x10).to_bytes(8, "little"))  # DT_FLAGS, STATIC_TLS
    assert at > 0
    data[at + 8] = 0
    library.write_bytes(data)
    (one,) = dlwhy.tls([library]).files
    assert [finding.rule for finding in one.findings][:1] == ["static-flag-disagrees"] and one.triggers
    text = "__thread int x; int f(void) { return x; }"
    dynamic = made(tmp_path, "other.so", text, "gcc", "-shared", "-fPIC", "-Wl,-z,now")
    data = bytearray(dynamic.read_bytes())
    at = data.find((0x1E).to_bytes(8, "little") + (0x8).to_bytes(8, "little"))  # DT_FLAGS, BIND_NOW
    data[at + 8] |= 0x10
    dynamic.write_bytes(data)
    (one,) = dlwhy.tls([dynamic]).files
    assert "nothing forces static TLS" in one.findings[0].message and not one.triggers


def test_without_code(tmp_path: Path) -> None:
    """`--no-code` leaves the code alone, in the library and the command; relocations are told as before."""
    library = made(tmp_path, "lib.so", SOURCE, "gcc", "-O2", "-shared", "-fPIC")
    (one,) = dlwhy.tls([library], code=False).files
    assert one.searched is None and one.accesses == () and one.triggers[0].accesses is None
    for options, searched in ((["--no-code"], False), ([], True)):
        words = [sys.executable, "-m", "dlwhy", "tls", *options, "--format", "json", str(library)]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        (told,) = json.loads(done.stdout)["files"]
        assert (told["searched"] is not None) == searched == bool(told["accesses"])


@pytest.mark.parametrize("far", [0x500000, 0x4500000, 0x7F00000, -0x3500000])
def test_pieces_overlap(far: int) -> None:
    """An access is found wherever it lies at the border of two pieces, once, however far the slot is."""
    slot = Slot(far, "tpoff", None, 0, False)
    for shift in range(-8, 9):
        at = 0x100000 + shift
        code = bytearray(b"\x90" * 0x100100)
        code[at : at + 7] = b"\x48\x8b\x05" + (slot.address - 0x1000 - at - 7).to_bytes(4, "little", signed=True)
        first = list(through_slots(bytes(code[: 0x100000 + 24]), 0, 0x1000, {slot.address: slot}))
        second = list(through_slots(bytes(code[0x100000 - 16 :]) + bytes(24), 16, 0x101000, {slot.address: slot}))
        assert {one[0] for one in first + second} == {0x1000 + at}


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_cost_names_only(tmp_path: Path, seed: int) -> None:
    """Whatever bytes of a library change, the search ends soon, and in sites or one clear error."""
    import random

    library = made(tmp_path, "lib.so", SOURCE, "gcc", "-O2", "-shared", "-fPIC")
    data = bytearray(library.read_bytes())
    chance = random.Random(seed)
    for _ in range(chance.choice((1, 8, 64))):
        data[chance.randrange(len(data))] = chance.choice((0, 1, 0x7F, 0xFF, chance.randrange(256)))
    start = time.process_time()
    try:
        found = bill(read(View("damaged", bytes(data))))
        assert sum(share.bytes for share in found.shares) + found.padding + found.unattributed == found.size
    except dlwhy.DlwhyError:
        pass
    assert time.process_time() - start < 2
