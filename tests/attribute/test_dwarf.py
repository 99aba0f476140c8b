"""What debug information of several versions and compilers tells of variables; nothing where it is not sure.

What is inside big ones, and where each is declared; the latter against gdb and readelf.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
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

    from dlwhy.report_tls import TlsObject

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
    assert [one.but(inside=(), declared=None) for one in whole.shares] == list(bill.shares)
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


HEADER = "static __thread char far[600]; extern __thread int shown;\n\nstatic __thread long near;\n"
SOURCE = """
#include "parts.h"
static __thread int own = 3; __thread int shown;
static int counted(void) { static __thread int counter; return counter++; }

static __thread short last = 4;
char *f(int i) { return &far[i + near++ + own + shown++ + counted() + last]; }
"""
OWN_CXX = """
namespace kitchen { struct Cook { static thread_local int own;
  static thread_local char table[700]; };
thread_local int Cook::own = 3;
thread_local char Cook::table[700]; }

extern "C" int stir() { static thread_local int local = 4; return kitchen::Cook::own++ + local++; }
"""


def laid(folder: Path, name: str, text: str, *words: str) -> Path:
    """Build a library of a source and a header in a directory of its own."""
    (folder / "inc").mkdir(exist_ok=True)
    (folder / "inc/parts.h").write_text(HEADER)
    (folder / name).write_text(text)
    library = folder / f"{name}.so"
    command = [tool(words[0]), *words[1:], "-Iinc", "-shared", "-fPIC", "-o", library.name, name]
    subprocess.run(command, check=True, cwd=folder)
    return library


def declared(path: Path) -> dict[str | None, tuple[str | None, int | None, str | None]]:
    """Return variable -> where dlwhy says that it is declared."""
    places = {one.variable: one.declared for one in asked(path).shares}
    return {name: (one.file, one.line, one.unit) for name, one in places.items() if one is not None}


def by_gdb(path: Path) -> dict[str, tuple[str, int]]:
    """Return variable -> (file, line) as gdb lists the variables of a library."""
    words = [tool("gdb"), "-nx", "-batch", "-ex", "info variables -q", str(path)]
    told = subprocess.run(words, capture_output=True, text=True, check=True, cwd=path.parent).stdout
    result: dict[str, tuple[str, int]] = {}
    file = ""
    for line in told.splitlines():
        begins = re.fullmatch(r"File (.*):", line)
        file = begins[1] if begins else file
        found = re.fullmatch(r"(\d+):\t.*?([\w:]+)(?:\[\d+\])?;", line)
        if found and file:
            result[found[2]] = (os.path.normpath(path.parent / file), int(found[1]))
    return result


def by_readelf(path: Path) -> dict[str, tuple[str, int, str]]:
    """Return variable -> (file, line, unit) as readelf shows a library of one unit: its entries and its file table."""
    told = subprocess.run(["readelf", "-wi", str(path)], capture_output=True, text=True, check=True).stdout
    lines = subprocess.run(["readelf", "-wl", str(path)], capture_output=True, text=True, check=True).stdout
    table, files = lines.partition("The Directory Table")[2].partition("The File Name Table")[::2]
    row = r"(?m)^ +(\d+)\t{}(?:\(.*?\): )?(.+)$"
    folders = {int(number): name for number, name in re.findall(row.format(""), table)}
    version = int(re.findall(r"DWARF Version: +(\d)", lines)[0])
    entries = re.findall(row.format(r"(\d+)(?:\t| 0x\w+\t)" + (r"\d+\t\d+\t" if version < 5 else "")), files)
    names = {int(number): (int(folder), name) for number, folder, name in entries}
    text = r"DW_AT_{} +: (?:\(.*?\): )?(.*)"
    unit = re.search(r"DW_TAG_compile_unit\)(.*?)<1>", told, re.DOTALL)
    assert unit is not None
    (title,), (base,) = (re.findall(text.format(key), unit[1]) for key in ("name", "comp_dir"))
    result = {}
    for block in re.findall(r"DW_TAG_variable\)(.*?)(?:\n <|\Z)", told, re.DOTALL):
        found = [re.findall(text.format(key), block) for key in ("name", "decl_file", "decl_line")]
        if all(found) and "_tls_address" in block:
            folder, name = names[int(found[1][0].split()[0])]
            path_ = os.path.normpath(os.path.join(base, folders.get(folder, ""), name))
            result[found[0][0].strip()] = (path_, int(found[2][0]), title.strip())
    return result


@pytest.mark.oracle
@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_declarations(tmp_path: Path, compiler: str, version: int) -> None:
    """Each variable's file, line and unit are those that readelf's and gdb's reading of the same bytes gives."""
    library = laid(tmp_path, "a.c", SOURCE, compiler, f"-gdwarf-{version}")
    ours = {(name or "").rpartition(".")[2]: place for name, place in declared(library).items()}  # clang: FUNCTION.NAME
    theirs = by_readelf(library)
    assert {"far", "near", "own", "last"} <= theirs.keys() <= ours.keys()
    assert {name: ours[name] for name in theirs} == theirs
    assert ours["far"] == (f"{tmp_path}/inc/parts.h", 1, "a.c") and ours["own"][1:] == (3, "a.c")
    if shutil.which("gdb"):
        gdb = by_gdb(library)
        assert {name: ours[name][:2] for name in gdb} == gdb
        assert {"far", "near", "own", "shown", "last"} <= gdb.keys()


@pytest.mark.oracle
@pytest.mark.parametrize("version", [4, 5])
def test_declarations_of_cxx(tmp_path: Path, version: int) -> None:
    """Static members are declared where they are defined, as gdb says, and others inside functions where they stand."""
    library = laid(tmp_path, "a.cc", OWN_CXX, "g++", f"-gdwarf-{version}")
    ours = declared(library)
    assert {name: place[1:] for name, place in ours.items()} == {
        "kitchen::Cook::own": (4, "a.cc"), "kitchen::Cook::table": (5, "a.cc"), "stir::local": (7, "a.cc"),
    }  # fmt: skip
    if shutil.which("gdb"):
        gdb = by_gdb(library)
        assert {name: ours[name][:2] for name in gdb} == gdb and len(gdb) >= 2


def test_declarations_in_json_and_text(tmp_path: Path) -> None:
    """The place stands in the JSON of each variable, and with -v in the text; by_owner lines have none."""
    library = laid(tmp_path, "a.c", SOURCE, "gcc", "-g")
    words = [sys.executable, "-m", "dlwhy", "tls", str(library)]
    made = subprocess.run([*words, "--format", "json"], capture_output=True, text=True, check=True).stdout
    shares = {one["variable"]: one for one in json.loads(made)["files"][0]["tls"]["shares"]}
    assert shares["far"]["declared"] == {"file": f"{tmp_path}/inc/parts.h", "line": 1, "unit": "a.c"}
    assert all(one["declared"] is None for one in json.loads(made)["files"][0]["tls"]["owners"])
    shown = subprocess.run([*words, "-v"], capture_output=True, text=True, check=True).stdout
    joined = "".join(shown.split())
    assert f"declaredin{tmp_path}/inc/parts.h:1,ina.c" in joined and f"declaredin{tmp_path}/a.c:3" in joined
    plain = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "declared in" not in plain


@pytest.mark.parametrize("version", [0, 1, 6, 0xFFFF])
def test_unknown_versions_are_a_finding(tmp_path: Path, version: int) -> None:
    """A unit of a version that nobody knows is a finding and is not read, and the other units are."""
    (tmp_path / "b.c").write_text("__thread char other[700]; char *other_at(int i) { return &other[i]; }\n")
    library = laid(tmp_path, "a.c", SOURCE, "gcc", "-g", "b.c")
    elf = read(Files().open(str(library)))
    (section,) = [one for one in elf.sections if one.name == ".debug_info"]
    data = bytearray(library.read_bytes())
    data[section.offset + 4 : section.offset + 6] = version.to_bytes(2, "little")
    library.write_bytes(data)
    (found,) = dlwhy.tls([library]).files
    told = [one.message for one in found.findings if one.rule == "unread-evidence"]
    assert len(told) == 1 and f"1 of 2 units has version {version}" in told[0]
    places = declared(library)
    assert places.keys() == {"other"} or (places.keys() >= {"far", "near"} and "other" not in places)
