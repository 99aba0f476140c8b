"""Symbol tables, and looking names up in them."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlwhy.elf.constants import DT_GNU_HASH, DT_HASH, STT_TLS
from dlwhy.elf.symbols import DynamicSymbols, StaticSymbols, Symbol, TlsSymbol, chain_words, gnu_hash, sysv_hash
from dlwhy.errors import ElfError, OutOfBounds, TooLarge
from tests import elf_writer
from tests.elf_writer import FILE, LOCAL, OBJECT, TLS, Image, Reloc, Sym

from .images import assert_told, each_form, everything, opened

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.elf.file import Elf

each_hash = pytest.mark.parametrize("hash_", [("gnu",), ("sysv",), ("gnu", "sysv")], ids="+".join)


def hashes(*names: bytes) -> dict[bytes, int]:
    return {name: gnu_hash(name) for name in names}


@given(st.binary(max_size=40) | st.binary(min_size=250, max_size=1200))
def test_hash_functions(name: bytes) -> None:
    """Both hashes are those of their descriptions, over any bytes."""
    assert gnu_hash(name) == elf_writer.gnu_hash(name)
    assert sysv_hash(name) == elf_writer.sysv_hash(name)


def test_known_hashes() -> None:
    """The hashes of printf are those printed in the literature."""
    assert gnu_hash(b"printf") == 0x156B2BB8
    assert sysv_hash(b"printf") == 0x077905A6
    assert sysv_hash(b"GLIBC_2.2.5") == 0x09691A75


@each_form
@each_hash
def test_every_symbol(bits: int, little: bool, hash_: tuple[str, ...]) -> None:
    """All symbols are counted and read, field by field."""
    image = everything(bits, little, hash=hash_)
    built = image.build()
    symbols = opened(built).symbols
    assert symbols.count == len(image.symbols) + 1
    assert symbols.symbol(0) == Symbol(0, b"", 0, 0, 0, 0, 0)
    for one in image.symbols:
        assert isinstance(one.name, str)
        if one.name != "twice":
            index = built.symbol[one.name.encode()]
            found = symbols.symbol(index)
            assert found == Symbol(
                index, one.name.encode(), one.value, one.size, one.bind << 4 | one.type, one.other, one.shndx
            )
            assert (found.type, found.binding, found.visibility) == (one.type, one.bind, 0)


@each_form
def test_reached(bits: int, little: bool) -> None:
    """Of symbols with their names those are reached that a lookup of the name leads to, long names among them."""
    built = everything(bits, little, hash=("gnu",)).build()
    symbols = opened(built).symbols
    start, end = symbols.hashed
    names = {index: symbols.symbol(index).name for index in range(start, end)}
    found = symbols.look_up(hashes(*names.values()))
    asked = [(index, gnu_hash(name)) for index, name in names.items()]
    assert symbols.reached(asked) == {place for places in found.values() for place in places} == set(names)
    assert symbols.reached((index, gnu_hash(name + b"x")) for index, name in names.items()) == set()
    assert symbols.hashed_as(chain_words(hashes(*names.values())), names.values) == list(range(start, end))
    assert symbols.hashed_as(chain_words(hashes(names[start], b"absent")), tuple)[0] == start
    long = "n" * 700
    (index,) = opened(Image(bits=bits, little=little, symbols=[Sym(long, 8)], hash=("gnu",)).build()).symbols.reached(
        [(1, gnu_hash(long.encode()))]
    )
    assert index == 1


@each_form
@each_hash
def test_look_up(bits: int, little: bool, hash_: tuple[str, ...]) -> None:
    """A name leads to every symbol that bears it and is in the table, in the order of its chain; others to none."""
    built = everything(bits, little, hash=hash_).build()
    symbols = opened(built).symbols
    found = symbols.look_up(hashes(*built.symbol, b"absent", b"", b"function_"))
    undefined = {b"wanted", b"perhaps", b"foreign_variable"}
    reached = built.symbol.keys() - (undefined if "gnu" in hash_ else set())
    assert found.keys() == reached
    for name, places in found.items():
        assert places[0] == built.symbol[name]
        assert len(places) == (2 if name == b"twice" else 1)
    assert symbols.look_up(hashes(b"absent")) == {}


@pytest.mark.parametrize("form", [(64, True), (64, False), (32, True), (32, False)])
@pytest.mark.parametrize("hash_", ["gnu", "sysv"])
def test_look_up_in_many_tables(form: tuple[int, bool], hash_: str) -> None:
    """In tables of any shape each name is found exactly when it is there."""
    rng = random.Random(f"{form}{hash_}")
    for buckets in (1, 2, 7, 64):
        names = {f"n{rng.randrange(10**6)}" for _ in range(rng.randrange(120))}
        image = Image(
            bits=form[0], little=form[1], hash=(hash_,), buckets=buckets, symbols=[Sym(n, 1) for n in sorted(names)]
        )
        built = image.build()
        absent = {f"n{rng.randrange(10**6)}" for _ in range(200)} - names
        found = opened(built).symbols.look_up(hashes(*(n.encode() for n in names | absent)))
        assert found == {name.encode(): (built.symbol[name.encode()],) for name in names}


def test_what_the_walk_does_not_reach_is_not_found() -> None:
    """A symbol that the filter rejects, or that its bucket's chain does not lead to, is not found by its name."""
    built = Image(symbols=[Sym("f", 1), Sym("g", 2), Sym("h", 3)], buckets=2).build()
    wanted = hashes(b"f", b"g", b"h")
    assert len(opened(built).symbols.look_up(wanted)) == 3
    assert opened(built.patched("gnu", 16, bytes(16))).symbols.look_up(wanted) == {}
    swapped = built.data[built.at["gnu"].offset + 32 :][:8]
    assert opened(built.patched("gnu", 32, swapped[4:] + swapped[:4])).symbols.look_up(wanted) == {}


def test_a_chain_that_leads_to_before_the_file() -> None:
    """With chains counted from far behind their symbols, each name that the filter lets through leads astray."""
    built = Image(symbols=[Sym("f", 1), Sym("g", 2), Sym("h", 3)], buckets=2).build()
    symbols = opened(built.patched("gnu", 4, (1 << 30).to_bytes(4, "little"))).symbols
    assert symbols.look_up(hashes(b"f", b"h")) == {b"f": (-1,), b"h": (-1,)}
    assert symbols.astray is not None
    assert_told(symbols.astray)


def test_without_a_hash_table() -> None:
    """Without a hash table nothing is found by name, and the symbols are those before the strings."""
    symbols = opened(everything(hash=()).build()).symbols
    assert symbols.look_up(hashes(b"function_1")) == {}
    assert symbols.count == len(everything().symbols) + 1


@pytest.mark.parametrize("linker", ["bfd", "gold", "lld", "mold"])
@pytest.mark.parametrize("hash_", ["gnu", "both"])
def test_nothing_exported(linker: str, hash_: str, tmp_path: Path) -> None:
    """Where an object exports nothing its hash table reaches no symbol, and all are counted, as readelf does."""
    if not any(shutil.which(name) for name in (f"ld.{linker}", linker)):
        pytest.skip(f"not run: no {linker} here")
    (tmp_path / "a.c").write_text("int puts(const char *); static void f(void) { puts(0); } void (*keep)(void) = f;")
    flags = ("-shared", "-fPIC", "-fvisibility=hidden", f"-fuse-ld={linker}", f"-Wl,--hash-style={hash_}")
    subprocess.run(["gcc", *flags, "a.c", "-o", "a.so"], cwd=tmp_path, check=True)
    words = ["readelf", "-W", "--dyn-syms", str(tmp_path / "a.so")]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    symbols = opened((tmp_path / "a.so").read_bytes()).symbols
    assert symbols.count == len(re.findall(r"(?m)^ +[0-9]+: ", told)) > 1
    assert [symbols.symbol(index).name for index in range(symbols.count)].count(b"puts") == 1


def test_no_table_at_all() -> None:
    """An object without a dynamic section has no symbols."""
    symbols = opened(Image(dynamic=False).build()).symbols
    assert (symbols.count, symbols.data, symbols.names, symbols.tls()) == (0, b"", b"", [])
    with pytest.raises(ElfError, match="no DT_SYMTAB"):
        symbols.symbol(1)


def test_a_symbol_behind_the_table() -> None:
    """An index behind the hashed part is read where it would stand; where nothing is mapped it is refused."""
    built = everything(hash=("sysv",)).build()
    symbols = opened(built.patched("sysv", 4, b"\3\0\0\0")).symbols
    assert symbols.count == 3
    assert symbols.symbol(built.symbol[b"variable"]).name == b"variable"
    for index in (1 << 24, (1 << 32) - 1):
        with pytest.raises(ElfError, match="lies in no PT_LOAD"):
            symbols.symbol(index)


def test_a_broken_hash_table_does_not_hide_the_symbols() -> None:
    """The loader reads a symbol by its index without a look at the hash table, and so does the reader."""
    built = everything(hash=("gnu",)).build()
    elf = opened(built.patched("gnu", 0, b"\xff" * 16))
    assert elf.symbols.symbol(built.symbol[b"twice"]).name == b"twice"
    with pytest.raises(ElfError):
        assert elf.symbols.count


GNU_FIELDS = {
    "nbuckets": 0,
    "symoffset": 4,
    "bloom_size": 8,
    "bloom_shift": 12,
    "filter": 16,
    "bucket": 32,
    "chain": 44,
}
VALUES = [0, 1, 3, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]


@pytest.mark.parametrize("field", GNU_FIELDS)
@pytest.mark.parametrize("value", VALUES)
def test_hostile_gnu_hash(field: str, value: int) -> None:
    """Whatever number stands in a GNU hash table, a lookup ends soon, with an answer or `ElfError`."""
    built = everything(hash=("gnu",)).build()
    elf = opened(built.patched("gnu", GNU_FIELDS[field], value.to_bytes(4, "little")))
    for fact in (lambda s: s.count, lambda s: s.look_up(hashes(*built.symbol)), lambda s: s.tls(), lambda s: s.data):
        try:
            fact(elf.symbols)
        except ElfError as error:
            assert_told(error)


@pytest.mark.parametrize("place", [0, 4, 8, 12, 20, 40])
@pytest.mark.parametrize("value", VALUES)
def test_hostile_sysv_hash(place: int, value: int) -> None:
    """Whatever number stands in a SysV hash table, a lookup ends soon, with an answer or `ElfError`."""
    built = everything(hash=("sysv",)).build()
    elf = opened(built.patched("sysv", place, value.to_bytes(4, "little")))
    for fact in (lambda s: s.count, lambda s: s.look_up(hashes(*built.symbol)), lambda s: s.tls()):
        try:
            fact(elf.symbols)
        except ElfError as error:
            assert_told(error)


def test_a_chain_in_a_circle() -> None:
    """A SysV chain that leads back into itself is told as such: the loader's own search would not end."""
    built = Image(hash=("sysv",), buckets=1, symbols=[Sym("f", 1), Sym("g", 2)]).build()
    data = built.patched("sysv", 8 + 4 + 4 * 2, (1).to_bytes(4, "little"))
    with pytest.raises(TooLarge, match="has no end"):
        opened(data).symbols.look_up(hashes(b"x"))


class TestOneLongName:
    """A file of 2 MB whose 50,000 symbols share one name of a megabyte."""

    name = b"n" * 1_000_000

    def elf(self, type_: int, hash_: str, stride: int = 0) -> Elf:
        """The file; with a stride each name begins so many bytes behind the one before."""
        symbols = [Sym(self.name, 8, 8, type=type_) for _ in range(50_000)]
        built = Image(symbols=symbols, hash=(hash_,), buckets=1, relocs=[Reloc(0, 6, self.name)]).build()
        data = bytearray(built.data)
        if stride:
            place = built.at["dynsym"].offset
            for number in range(1, 50_001):
                data[place + 24 * number : place + 24 * number + 4] = (1 + stride * number).to_bytes(4, "little")
        return opened(bytes(data))

    @pytest.mark.parametrize("hash_", ["gnu", "sysv"])
    def test_found_by_name(self, hash_: str) -> None:
        """All of them are found, and the name is kept once."""
        elf = self.elf(OBJECT, hash_)
        assert len(elf.symbols.look_up(hashes(self.name))[self.name]) == 50_000
        assert len({id(elf.symbols.symbol(index).name) for index in range(1, 2000)}) == 1

    @pytest.mark.parametrize("hash_", ["gnu", "sysv"])
    def test_overlapping(self, hash_: str) -> None:
        """Names that begin at every byte of the long one are given up soon."""
        elf = self.elf(OBJECT, hash_, stride=1)
        with pytest.raises(TooLarge, match="overlap"):
            elf.symbols.look_up(hashes(self.name))

    @pytest.mark.parametrize("stride", [0, 1])
    def test_tls(self, stride: int) -> None:
        """Of TLS variables the numbers remain, and names up to the bound."""
        elf = self.elf(TLS, "gnu", stride)
        tracemalloc.start()
        found = elf.symbols.tls()
        assert found == [] or len(found) == 50_000
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
        tracemalloc.stop()


@each_form
def test_tls_symbols(bits: int, little: bool) -> None:
    """TLS symbols come with the source file before them when they are local."""
    elf = opened(everything(bits, little).build())
    static = StaticSymbols(elf)
    assert static.complete
    assert static.tls() == [
        TlsSymbol("hidden_variable", 8, 8, 0, 0, 1, "one.c", 2), TlsSymbol("other", 16, 4, 0, 0, 1, "two.c", 5),
        TlsSymbol("variable", 4, 4, 1, 0, 1, None, 6),
    ]  # fmt: skip
    assert {(one.name, one.shndx) for one in elf.symbols.tls()} == {("variable", 1), ("foreign_variable", 0)}


def test_tls_symbols_of_a_large_table() -> None:
    """A `.symtab` larger than the buffer gives the same as if it were read at once, and costs no memory of its size."""
    symtab: list[Sym] = []
    wanted = []
    for number in range(120_000):
        if number % 9973 == 0:
            symtab.append(Sym(f"unit{number}.c", bind=LOCAL, type=FILE, shndx=0xFFF1))
        elif number % 4001 == 0:
            wanted.append((f"v{number}", f"unit{number // 9973 * 9973}.c", len(symtab) + 1))
            symtab.append(Sym(f"v{number}", number, 8, LOCAL, TLS))
        else:
            symtab.append(Sym("same", number))
    elf = opened(Image(symtab=symtab).build())
    assert elf.sections
    tracemalloc.start()
    found = StaticSymbols(elf).tls()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(one.name, one.unit, one.index) for one in found] == wanted
    assert peak < 24 * len(symtab) * 0.75 + 500_000


def test_damaged_symtab() -> None:
    """A `.symtab` that leaves the file is refused; one of another entry size, or without strings, has no names."""
    built = everything().build()
    at = next(i for i, s in enumerate(opened(built).sections) if s.name == ".symtab") * 64
    with pytest.raises(OutOfBounds, match=r"a \.symtab of"):
        StaticSymbols(opened(built.patched("shdrs", at + 32, (1 << 40).to_bytes(8, "little")))).tls()
    assert StaticSymbols(opened(built.patched("shdrs", at + 56, b"\x17"))).tls() == []
    found = StaticSymbols(opened(built.patched("shdrs", at + 40, b"\xff\xff"))).tls()
    assert [one.name for one in found] == ["", "", ""]
    assert not StaticSymbols(opened(everything(symtab=[]).build())).complete


def test_names_without_an_end() -> None:
    """A string table of `.symtab` without a last NUL ends where it ends."""
    elf = opened(Image(symtab=[Sym(1, 0, 4, LOCAL, TLS)], strtab=b"\0abc").build())
    assert [one.name for one in StaticSymbols(elf).tls()] == ["abc"]


def test_pattern_of_tls_symbols() -> None:
    """Every binding of an STT_TLS symbol is seen, and no other type is."""
    symtab = [Sym("x", bind=info >> 4, type=info & 15) for info in range(256)]
    found = StaticSymbols(opened(Image(symtab=symtab).build())).tls()
    assert [one.index - 1 for one in found] == [info for info in range(256) if info & 15 == STT_TLS]


def test_which_hash_counts() -> None:
    """With both tables the loader uses DT_GNU_HASH (glibc elf/dl-setup_hash.c)."""
    built = everything().build()
    elf = opened(built.patched("sysv", 8, bytes(built.at["sysv"].size - 8)))
    assert elf.dynamic is not None and {DT_HASH, DT_GNU_HASH} <= elf.dynamic.tags.keys()
    assert b"function_3" in DynamicSymbols(elf).look_up(hashes(b"function_3"))
