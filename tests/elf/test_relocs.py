"""REL, RELA and RELR."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.relocs import (
    Relocation,
    Survey,
    Table,
    _pieces,
    of_types,
    relr,
    split_info,
    survey,
    tables,
)
from dlwhy.errors import ElfError, TooLarge
from tests.elf_writer import Image, Reloc, Sym

from .images import TPOFF, each_form, everything, opened

if TYPE_CHECKING:
    from dlwhy.elf.file import Elf


def surveyed(elf: Elf, skip: set[int], relative: int = 8) -> Survey:
    """The survey of the first table of a file."""
    found = Survey()
    survey(elf, tables(elf)[0], frozenset(skip), relative, found)
    return found


each_kind = pytest.mark.parametrize("rela", [True, False], ids=["rela", "rel"])


@each_form
@each_kind
def test_tables(bits: int, little: bool, rela: bool) -> None:
    """The tables stand in the loader's order, the jump table last, with what DT_RELACOUNT says."""
    built = everything(bits, little, rela=rela).build()
    one, two = built.at["relocs"], built.at["jump"]
    assert tables(opened(built)) == (
        Table("DT_RELA" if rela else "DT_REL", one.vaddr, one.size, rela, 2),
        Table("DT_JMPREL", two.vaddr, two.size, rela, 0),
    )  # fmt: skip


def test_a_jump_table_that_is_counted_twice() -> None:
    """Where DT_RELASZ includes the jump table behind it, its entries are applied once (elf/do-rel.h)."""
    built = everything().build()
    size = built.at["relocs"].size + built.at["jump"].size
    found = tables(opened(everything(tags=[(8, size)]).build()))
    assert [table.size for table in found] == [built.at["relocs"].size, built.at["jump"].size]


@each_form
@each_kind
def test_relocations_of_types(bits: int, little: bool, rela: bool) -> None:
    """Relocations are read field by field in either class, order and form."""
    relocs = [Reloc(8, 6, "wanted", 3), Reloc(16, 37, None, -8), Reloc(24, 1, "twice", 1)]
    image = everything(bits, little, rela=rela, relocs=relocs, relative_count=0)
    built = image.build()
    at = built.at["data"].vaddr
    elf = opened(built)
    assert of_types(elf, [6, 37, 7]) == [
        (Relocation(at + 8, 6, built.symbol[b"wanted"], 3 if rela else 0), "DT_RELA" if rela else "DT_REL"),
        (Relocation(at + 16, 37, 0, -8 if rela else 0), "DT_RELA" if rela else "DT_REL"),
        (Relocation(at + 40, 7, built.symbol[b"perhaps"], 0), "DT_JMPREL"),
        (Relocation(at + 48, 7, built.symbol[b"wanted"], 0), "DT_JMPREL"),
    ]  # fmt: skip
    assert of_types(elf, []) == []


@each_form
@each_kind
def test_references(bits: int, little: bool, rela: bool) -> None:
    """References are the distinct (symbol, type), in the order of their first entry, relative ones left out."""
    again = [
        Reloc(0, 8), Reloc(8, 8), Reloc(16, 6, "wanted"), Reloc(24, 8), Reloc(32, 1, "twice"), Reloc(40, 6, "wanted"),
    ]  # fmt: skip
    built = everything(bits, little, rela=rela, relocs=again, relative_count=2).build()
    elf = opened(built)
    found = [split_info(elf, info) for info in surveyed(elf, {8, 0}).references]
    assert found == [(built.symbol[b"wanted"], 6), (built.symbol[b"twice"], 1)]


def test_types_above_a_byte() -> None:
    """Where types are wider than a byte the whole number decides: 1030 of aarch64 is not 6."""
    relocs = [Reloc(0, 1030, "variable"), Reloc(8, 6, "variable"), Reloc(16, 1027), Reloc(24, 1025, "wanted")]
    built = everything(machine=183, relocs=relocs, jump=[], relative_count=0).build()
    elf = opened(built)
    assert [one.type for one, _ in of_types(elf, [1030])] == [1030]
    kinds = [split_info(elf, info)[1] for info in surveyed(elf, {1027, 0}, 1027).references]
    assert set(kinds) >= {1030, 6, 1025}


@each_form
def test_what_a_survey_tells_at_once(bits: int, little: bool) -> None:
    """The last symbol and the types are known without looking at each reference, in every form and piece by piece."""
    kinds = [1, 6, 7] if bits == 32 else [1, 6, 7, 0x105]
    relocs = [Reloc(8, 8)] * 20_000 + [Reloc(16, kind, name) for kind in kinds for name in ("variable", None)]
    elf = opened(everything(bits, little, relocs=relocs * 2, relative_count=0, data=b"").build())
    found = surveyed(elf, {8})
    assert found.highest() == max(found.references)
    assert list(found) == list(found.references)
    assert {kind for kind in range(0x200) if found.has_type(elf, kind)} == set(kinds)


def test_a_relative_count_that_is_wrong() -> None:
    """DT_RELACOUNT counting an entry that is not relative is seen: the loader asserts that it does not."""
    for count, wrong in ((0, False), (2, False), (3, True), (100, True)):
        elf = opened(everything(relative_count=count).build())
        assert surveyed(elf, {8}).relative_wrong is wrong


def test_many_relocations() -> None:
    """A table larger than the buffer gives the same as a small one: nothing is lost where the pieces meet."""
    rng = random.Random(3)
    relocs = [Reloc(8, 8)] * 60_000
    places = sorted({0, 16383, 16384, 16385, 32767, 32768, 49152, 59_999, *(rng.randrange(60_000) for _ in range(50))})
    for place in places:
        relocs[place] = Reloc(8 * place, 18, "variable", place)
    built = everything(relocs=relocs, relative_count=0, data=b"").build()
    elf = opened(built)
    at = built.at["data"].vaddr
    assert [(one.offset - at, one.addend) for one, _ in of_types(elf, [18])] == [(8 * place, place) for place in places]
    assert len(surveyed(elf, {8}).references) == 1


class TestRelr:
    """Relative relocations as addresses and bitmaps (generic ABI proposal, "Relative relocations")."""

    def decoded(self, elf: Elf, base: int) -> list[int]:
        return [address - base for address in relr(elf)]

    @each_form
    def test_everything(self, bits: int, little: bool) -> None:
        """What the writer encodes is decoded."""
        image = everything(bits, little)
        built = image.build()
        assert self.decoded(opened(built), built.at["data"].vaddr) == image.relr

    @each_form
    def test_random(self, bits: int, little: bool) -> None:
        """Any set of places comes back, sparse or dense."""
        rng = random.Random(bits + little)
        word = bits // 8
        for share in (0.005, 0.1, 0.5, 1):
            places = [word * n for n in range(600) if rng.random() < share] or [0]
            built = Image(bits=bits, little=little, relr=places, data=bytes(600 * word)).build()
            assert self.decoded(opened(built), built.at["data"].vaddr) == places

    def test_by_hand(self) -> None:
        """An address, then a bitmap of the 63 words behind it, then the next 63."""
        built = Image(relr=[0, 8, 504, 512], data=bytes(1024)).build()
        start = built.at["relr"].offset
        words = [int.from_bytes(built.data[start + 8 * n :][:8], "little") for n in range(3)]
        assert words == [built.at["data"].vaddr, 1 | 1 << 1 | 1 << 63, 1 | 1 << 1]
        assert self.decoded(opened(built), built.at["data"].vaddr) == [0, 8, 504, 512]

    def test_none(self) -> None:
        """Without DT_RELR there are none."""
        assert list(relr(opened(Image().build()))) == []
        assert list(relr(opened(Image(dynamic=False).build()))) == []

    def test_outside(self) -> None:
        """A table that leaves what is mapped is refused."""
        with pytest.raises(ElfError):
            list(relr(opened(Image(tags=[(36, 1 << 40), (35, 64)]).build())))


@each_form
def test_what_lies_before_the_end(bits: int, little: bool) -> None:
    """Of a table that runs out of the file, the entries before its end are given first, as the loader applies them."""
    kind = TPOFF.get((bits, little), 1)
    elf = opened(everything(bits, little, tags=[(8 if bits == 64 else 18, 1 << 30)], jump=[]).build())
    table = tables(elf)[0]
    layout = elf.layout.rela if table.rela else elf.layout.rel
    found: list[int] = []

    def apply() -> None:
        for data in _pieces(elf, table, 0, layout.size):
            found.extend(split_info(elf, row[1])[1] for row in layout.iter_unpack(data))

    with pytest.raises(ElfError):
        apply()
    assert kind in found


def test_a_table_without_an_end() -> None:
    """A table of zeros without an end (a segment of a terabyte in memory only) is given up."""
    image = Image(tags=[(7, 0x100000), (8, 1 << 40)], headers=[(1, 6, 0, 0x100000, 0, 0, 1 << 40, 4096)])
    elf = opened(image.build())
    with pytest.raises(TooLarge):
        of_types(elf, [18])


def test_symbols() -> None:
    """An r_info is a symbol and a type, in either class."""
    built = Image(bits=32, symbols=[Sym("f", 1)]).build()
    assert split_info(opened(built), 0x123456) == (0x1234, 0x56)
    assert split_info(opened(Image().build()), 0x1234_0000_0056) == (0x1234, 0x56)


def test_a_table_across_segments() -> None:
    """A table that runs out of its segment goes on with what is mapped behind it, up to where nothing is."""
    start = 0x100000
    rows: list[tuple[int, ...]] = [(1, 4, 0, start, 0, 4096, 4096, 4096), (1, 6, 0, start + 4096, 0, 0, 4096, 4096)]
    elf = opened(Image(tags=[(7, start + 4000), (8, 1 << 20)], headers=rows).build())
    table = tables(elf)[0]
    found: list[bytes] = []

    def apply() -> None:
        found.extend(bytes(data) for data in _pieces(elf, table, 0, 24))

    with pytest.raises(ElfError, match="0x102000"):
        apply()
    assert len(b"".join(found)) == (96 + 4096) // 24 * 24
    assert b"".join(found)[:96] == elf.at(start + 4000, 96)
