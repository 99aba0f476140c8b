"""Tables in columns: what is packed is unpacked with every answer as it was, and damage is told as damage."""

from __future__ import annotations

import random
import subprocess
from struct import pack
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.api import Options
from dlwhy.capturing import Wanted, capture
from dlwhy.elf.file import Elf
from dlwhy.elf.symbols import chain_words, gnu_hash
from dlwhy.files import Files
from dlwhy.hosts.kept import KeptFiles
from dlwhy.hosts.packed import ENTRIES_HEAD, SYMBOLS_HEAD, Damaged, entries, symbols
from dlwhy.hosts.profile import load
from dlwhy.loader.faults import Unknown
from tests.fixtures.real_hosts import need
from tools.packing import Tables, pool_of
from tools.profiles import family, opened, write

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """
int f_of(void); extern int one, two; __thread int three; int four = 4; int *five = &four; int six(void);
__asm__(".symver old_f, f@A"); __asm__(".symver new_f, f@@B");
int old_f(void) { return one; } int new_f(void) { return two + three; } int seven(void) { return six() + f_of(); }
int f_of(void) { return 0; } void *gates[] = { &one, &two, seven, six };
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with two versions of a symbol, TLS, and relocations of each kind."""
    need("gcc")
    made = tmp_path_factory.mktemp("packed")
    (made / "a.c").write_text(SOURCE)
    (made / "a.map").write_text("A { f; }; B { f; } A;")
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-Wl,--hash-style=gnu", "-Wl,--version-script=a.map"]
    subprocess.run([*command, "-o", "liba.so", "a.c"], check=True, capture_output=True, cwd=made)
    return made / "liba.so"


@pytest.fixture(scope="module")
def tables(library: Path) -> Tables:
    """Its tables, of which nothing is kept otherwise."""
    return Tables(Elf(Files().open(str(library))), [])


def test_symbols_are_as_they_were(library: Path, tables: Tables, tmp_path: Path) -> None:
    """Of a packed library every name is found where it was, with its type, binding, size and version."""
    profile = capture(dlwhy.Host.plain({}), Options(), Wanted(facts=(str(library),), common=()))
    write({"one": opened(profile.data, tmp_path / "/")}, tmp_path)
    files = KeptFiles(load(tmp_path / "one.json"))
    there, here = Elf(files.open(str(library))), Elf(Files().open(str(library)))
    names = {*tables.names[tables.first :], b"absent"}
    hashes = {name: gnu_hash(name) for name in names}

    def told(elf: Elf) -> list[tuple[object, ...]]:
        rows: list[tuple[object, ...]] = []
        for name, places in sorted(elf.symbols.look_up(hashes).items()):
            for place in places:
                one = elf.symbols.symbol(place)
                size = one.size if one.type != 2 else None
                rows.append((name, one.name, one.info, one.other, size, bool(one.value), elf.versions.index_of(place)))
        return rows

    assert told(there) == told(here) != []
    assert len([row for row in told(there) if row[0] == b"f"]) == 2
    assert there.symbols.count == here.symbols.count
    assert there.symbols.hashed == here.symbols.hashed
    every = range(*there.symbols.hashed)
    assert there.symbols.hashed_as(chain_words(hashes), lambda: names) == list(every)
    assert there.symbols.reached((place, 0) for place in every) == set(every)
    assert there.symbols.tls() != []
    with pytest.raises(Unknown, match="does not hold it"):  # code is not kept, and nobody is led to other bytes
        there.at(there.symbols.symbol(there.symbols.look_up({b"seven": 0})[b"seven"][0]).value, 4)


def test_a_name_for_the_same_library_everywhere() -> None:
    """The names of a library are shared by all its releases."""
    assert family("/usr/lib/x86_64-linux-gnu/libnode.so.108") == family("/usr/lib/aarch64-linux-gnu/libnode.so.72")
    assert family("/lib/libc-2.31.so") == family("/lib/libc.so.6") == "libc"
    assert family("/usr/bin/python3.11") == "python"


def test_odd_tables_are_left_alone(library: Path) -> None:
    """Where a hash table does not lead to a name, or all of the code is kept, the bytes are kept as they are."""
    with pytest.raises(ValueError, match="all of it is kept"):
        Tables(Elf(Files().open(str(library))), [(0, 1 << 30)])


def test_damaged_columns(tables: Tables) -> None:
    """Whatever is changed in packed tables, the answer is a table of the right size or `Damaged`."""
    pool, rng = pool_of([tables]), random.Random(416)
    names = b"\0".join(pool)
    for piece in tables.pieces(pool):
        if not piece.how:
            continue
        for number in range(600):
            data = bytearray(piece.data)
            for _ in range(rng.randint(1, 4)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            cut = bytes(data[: rng.randrange(len(data))] if number % 4 == 0 else data)
            try:
                made = symbols(cut, names, 99)[0] if piece.how == "symbols" else entries(cut, 99)
            except Damaged:
                continue
            assert len(made) % 24 == 0


@pytest.mark.parametrize(
    "data",
    [
        b"", SYMBOLS_HEAD.pack(1 << 31, 1, 1, 0), SYMBOLS_HEAD.pack(2, 3, 1, 0), SYMBOLS_HEAD.pack(1, 1, 9, 0),
        SYMBOLS_HEAD.pack(255, 255, 1, 0) + b"\xff\x00", SYMBOLS_HEAD.pack(1, 1, 1, 0) + b"\1\0" + pack("3B", 0, 0, 8),
    ],
)  # fmt: skip
def test_columns_that_are_none(data: bytes) -> None:
    """Counts beyond the table, and columns that end too early, are damage."""
    with pytest.raises(Damaged):
        symbols(data, b"", 1 << 10)


@pytest.mark.parametrize(
    "data",
    [
        b"", ENTRIES_HEAD.pack(1 << 31, 0, 0, 0, 0, 0, 0), ENTRIES_HEAD.pack(1, 2, 0, 0, 0, 0, 0),
        ENTRIES_HEAD.pack(2, 0, 0, 0, 0, 0, (1 << 63) - 9), ENTRIES_HEAD.pack(0, 0, 1 << 30, 0, 0, 0, 0),
        ENTRIES_HEAD.pack(1, 0, 1, 8, 0, 0, 0) + pack("<I", 1) + b"\1\0\0\0",
        ENTRIES_HEAD.pack(0, 0, 0, 0, 0, 0, 0) + b"x",
    ],
)  # fmt: skip
def test_entries_that_are_none(data: bytes) -> None:
    """So are relocations of a type that is not listed, and bytes behind the end."""
    with pytest.raises(Damaged):
        entries(data, 1 << 10)
