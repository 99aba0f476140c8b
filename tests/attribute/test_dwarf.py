"""What is inside big variables: debug information of several compilers and versions, and none where it is not sure."""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute import dwarf
from dlwhy.attribute.dwarf import MISSING
from dlwhy.elf.file import read
from dlwhy.files import Files
from tests.fixtures.registries import tool, valet

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report import TlsObject

pytest.importorskip("elftools", reason="not run: no pyelftools here")

C = """
typedef struct { int at; unsigned long state[624]; } twister;
struct outer { long a; union { twister inner; char c; } u; char b[10]; };
static __thread struct outer big; __thread double table[4][50]; static __thread char plain[600];
struct even { char one[400], two[400], three[400]; }; static __thread struct even spread;
unsigned long *f(int i) { return &big.u.inner.state[i]; } double *g(int i) { return table[i]; }
char *h(int i) { return plain + i + *spread.two; }
"""
CXX = """
namespace kitchen {
struct Base { long before[100]; };
class Stove : public Base { public: char label[7]; };
template <class T> struct Holder { T held; int count; };
struct Cook { static thread_local Holder<Stove> own; };
thread_local Holder<Stove> Cook::own;
}
extern "C" long stir(int i) { return kitchen::Cook::own.held.before[i]++; }
"""


def built(folder: Path, name: str, text: str, *words: str) -> Path:
    """Return the library that a compiler makes of a text."""
    source = folder / name
    source.write_text(text)
    target = folder / f"{name}.so"
    subprocess.run([tool(words[0]), *words[1:], "-shared", "-fPIC", "-o", str(target), str(source)], check=True)
    return target


def asked(path: Path, *dirs: Path) -> TlsObject:
    """Return the bill of a library, whose sum must be right."""
    (found,) = dlwhy.tls([path], debug_dirs=dirs).files
    assert found.tls is not None
    assert sum(one.bytes for one in found.tls.shares) + found.tls.padding + found.tls.unattributed == found.tls.size
    return found.tls


def chains(bill: TlsObject) -> dict[str | None, list[tuple[str | None, str, int]]]:
    """Return variable -> (member, type, bytes) from outside inwards."""
    return {one.variable: [tuple(part) for part in one.inside] for one in bill.shares if one.inside}


BIG = [(None, "outer", 5024), ("inner", "twister", 5000), ("state", "long unsigned int[624]", 4992)]


@pytest.mark.parametrize("flags", ["-gdwarf-2", "-gdwarf-3", "-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gz", "-g -O2"])
def test_c(tmp_path: Path, flags: str) -> None:
    """Of each DWARF version, compressed or not, the chain leads to the array that makes a variable big."""
    found = chains(asked(built(tmp_path, "a.c", C, "gcc", *flags.split())))
    assert found == {"big": BIG}  # an array by itself has no inside, and of `spread` no member has half


def test_cxx(tmp_path: Path) -> None:
    """A static member of a class is found by its declaration, and a base class is a member like others."""
    found = chains(asked(built(tmp_path, "a.cc", CXX, "g++", "-g")))
    assert found == {
        "kitchen::Cook::own": [
            (None, "kitchen::Holder<kitchen::Stove>", 816), ("held", "kitchen::Stove", 808),
            (None, "kitchen::Base", 800), ("before", "long int[100]", 800),
        ],
    } or found["kitchen::Cook::own"][-1] == ("before", "long int[100]", 800)  # fmt: skip


def test_of_a_debug_file(tmp_path: Path) -> None:
    """The chain of a stripped library comes from its separate debug file."""
    whole = built(tmp_path, "a.c", C, "gcc", "-g", "-Wl,--build-id")
    bare = tmp_path / "bare.so"
    subprocess.run([tool("strip"), "-s", "-o", str(bare), str(whole)], check=True)
    assert chains(asked(bare)) == {}
    from dlwhy.elf.notes import build_id

    identity = build_id(read(Files().open(str(whole))))
    assert identity is not None
    place = tmp_path / "debug/.build-id" / identity[:2] / f"{identity[2:]}.debug"
    place.parent.mkdir(parents=True)
    subprocess.run([tool("objcopy"), "--only-keep-debug", str(whole), str(place)], check=True)
    assert chains(asked(bare, tmp_path / "debug"))["big"][-1] == BIG[-1]


def test_what_the_linker_dropped_is_not_believed(tmp_path: Path) -> None:
    """A variable that --gc-sections took out keeps its debug information at offset 0, where another one is now."""
    hidden = '__attribute__((visibility("hidden"))) unsigned long *f'
    text = C.replace("unsigned long *f", hidden)
    library = built(
        tmp_path, "a.c", text, "gcc", "-g", "-O1", "-fdata-sections", "-ffunction-sections", "-Wl,--gc-sections"
    )
    bill = asked(library)
    kept = {one.variable for one in bill.shares}
    assert "big" not in kept and "table" in kept
    assert chains(bill) == {}


def test_rand_inside_the_library_of_the_story() -> None:
    """4096 of the 4232 bytes of rand's thread_rng are the table of rand_hc's generator, as readelf shows its types."""
    library = valet("debug")
    started = time.process_time()
    (chain,) = chains(asked(library)).values()
    print(chain, f"{time.process_time() - started:.2f} s")
    assert chain[0][2] == 4232
    assert chain[-2:] == [("inner", "rand_hc::hc128::Hc128Core", 4104), ("t", "u32[1024]", 4096)]
    text = subprocess.run(["readelf", "-wi", str(library)], capture_output=True, text=True, check=True).stdout
    sizes = re.findall(r"DW_AT_name +:[^\n]*: Hc128Core\n[^\n]*DW_AT_byte_size +: (\d+)", text)
    assert sizes and set(sizes) == {"4104"}
    done = subprocess.run(
        [sys.executable, "-m", "dlwhy", "tls", str(library)], capture_output=True, text=True, check=True
    )
    shown = " ".join(done.stdout.split())
    assert "inner: rand_hc::hc128::Hc128Core 4104" in shown and "t: u32[1024] 4096" in shown


def test_without_pyelftools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pyelftools one line says how to get it, and nothing else changes."""
    library = built(tmp_path, "a.c", C, "gcc", "-g")
    whole = asked(library)
    for name in [one for one in sys.modules if one.partition(".")[0] == "elftools"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "elftools", None)
    bill = asked(library)
    assert bill.notes == (MISSING,) and chains(bill) == {}
    assert [one.but(inside=()) for one in whole.shares] == list(bill.shares)
    assert asked(built(tmp_path, "b.c", C, "gcc")).notes == ()  # without debug information nothing is missing


def test_split_debug_information(tmp_path: Path) -> None:
    """Where the debug information is in .dwo files, a note says so."""
    bill = asked(built(tmp_path, "a.c", C, "gcc", "-g", "-gsplit-dwarf"))
    assert chains(bill) == {} and [note for note in bill.notes if ".dwo" in note]


def test_damaged_debug_information(tmp_path: Path) -> None:
    """However debug information is damaged, sums stay right, and it costs a note and no more than a moment."""
    library = built(tmp_path, "a.c", C, "gcc", "-g")
    data = library.read_bytes()
    elf = read(Files().open(str(library)))
    debug = [one for one in elf.sections if one.name.startswith(".debug_")]
    generator = random.Random(8)
    started = time.process_time()
    for number in range(40):
        changed = bytearray(data)
        for section in debug:
            for _ in range(generator.choice((0, 1, 4, 40))):
                changed[section.offset + generator.randrange(section.size)] = generator.randrange(256)
        (tmp_path / f"{number}.so").write_bytes(changed)
        bill = asked(tmp_path / f"{number}.so")
        assert all("\n" not in note for note in bill.notes)
    assert time.process_time() - started < 200


def test_reading_has_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links that lead in circles end after a bounded number of steps, with a note; a profiler is left as it was."""
    library = built(tmp_path, "a.c", C, "gcc", "-g")
    monkeypatch.setattr(dwarf, "_CALLS", 200)
    before = sys.getprofile()
    bill = asked(library)
    assert sys.getprofile() is before and chains(bill) == {}
    assert [note for note in bill.notes if "not understood after 200 steps" in note]
