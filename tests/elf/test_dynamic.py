"""The dynamic section as the loader reads it."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from dlwhy.elf.constants import DF_1_NOW, DF_BIND_NOW, DF_SYMBOLIC, DT_BIND_NOW, DT_FLAGS, DT_FLAGS_1, DT_SYMBOLIC
from dlwhy.errors import ElfError, TooLarge
from tests.elf_writer import Image, Reloc

from .images import assert_told, each_form, everything, opened


def dynamic_of(data: Any) -> Any:
    """The dynamic section, which is there."""
    found = opened(data).dynamic
    assert found is not None
    return found


@each_form
def test_names(bits: int, little: bool) -> None:
    """Names come in file order, tokens unexpanded."""
    found = dynamic_of(everything(bits, little, rpath="/old", runpath="$ORIGIN/x:/y").build())
    assert found.soname == "libwhole.so.1"
    assert found.needed == ("libfirst.so", "libsecond.so.2")
    assert (found.rpath, found.runpath) == ("/old", "$ORIGIN/x:/y")
    assert (found.flags, found.flags_1) == (2, 8)


@each_form
def test_sections_are_not_consulted(bits: int, little: bool) -> None:
    """Without section headers everything is the same: the loader has none."""
    one = opened(everything(bits, little, sections=False).build())
    two = opened(everything(bits, little).build())
    assert one.dynamic is not None and two.dynamic is not None
    assert (one.dynamic.tags, one.dynamic.filters) == (two.dynamic.tags, two.dynamic.filters)
    assert one.versions.needs == two.versions.needs
    assert one.symbols.data == two.symbols.data


def test_a_repeated_tag_counts_last_and_the_end_is_the_end() -> None:
    """Of a tag that stands twice the last one counts; what follows DT_NULL is nothing."""
    found = dynamic_of(Image(tags=[(30, 1), (30, 16), (0, 0), (30, 8)]).build())
    assert found.flags == 16


def test_lists_keep_their_order() -> None:
    """DT_NEEDED, DT_AUXILIARY and DT_FILTER are what is loaded with the object, in file order."""
    built = Image(needed=["a", "b"], soname="libf.so").build()
    offset = dynamic_of(built).tags[14]
    found = dynamic_of(
        Image(needed=["a", "b"], soname="libf.so", tags=[(0x7FFFFFFF, offset), (0x7FFFFFFD, offset)]).build()
    )
    assert found.filters == ((1, "a"), (1, "b"), (0x7FFFFFFF, "libf.so"), (0x7FFFFFFD, "libf.so"))


@pytest.mark.parametrize(
    ("tags", "bind_now", "symbolic"),
    [
        ([], False, False), ([(DT_BIND_NOW, 0)], True, False), ([(DT_FLAGS, DF_BIND_NOW)], True, False),
        ([(DT_FLAGS_1, DF_1_NOW)], True, False), ([(DT_SYMBOLIC, 0)], False, True),
        ([(DT_FLAGS, DF_SYMBOLIC)], False, True),
    ],
)  # fmt: skip
def test_flags(tags: list[tuple[int, int]], bind_now: bool, symbolic: bool) -> None:
    """Immediate binding and symbolic search can each be asked for in several ways."""
    found = dynamic_of(Image(tags=tags).build())
    assert (found.bind_now, found.symbolic) == (bind_now, symbolic)


def test_names_are_bytes() -> None:
    """A name that is no UTF-8 keeps its bytes."""
    found = dynamic_of(Image(needed=[b"lib\xff\xfe.so"], soname="libé.so").build())
    assert found.needed == (b"lib\xff\xfe.so".decode("utf-8", "surrogateescape"),)
    assert found.raw_string(found.lists[0][1]) == b"lib\xff\xfe.so"
    assert found.soname == "libé.so"


@each_form
def test_size_in_the_header_does_not_matter(bits: int, little: bool) -> None:
    """The loader reads up to DT_NULL, whatever p_filesz of PT_DYNAMIC says, as long as it is not 0."""
    image = everything(bits, little)
    built = image.build()
    whole = dynamic_of(built).tags
    step = 56 if bits == 64 else 32
    size_at = 3 * step + (32 if bits == 64 else 16)
    order: Literal["little", "big"] = "little" if little else "big"
    for size in (1, 16, 1 << 30):
        assert dynamic_of(built.patched("phdrs", size_at, size.to_bytes(bits // 8, order))).tags == whole
    assert opened(built.patched("phdrs", size_at, bytes(bits // 8))).dynamic is None


def test_without_an_end() -> None:
    """A dynamic section that runs into what is not mapped is refused; one of a megabyte without an end too."""
    with pytest.raises(ElfError, match="no PT_LOAD"):
        dynamic_of(endless(100))
    with pytest.raises(TooLarge, match="no DT_NULL"):
        dynamic_of(endless(1 << 21))


def endless(size: int) -> bytes:
    """A file whose dynamic section has no DT_NULL before its data end, which is at the end of a page."""
    built = Image(sections=False, data=b"\1" * size, tags=[(0x1234, 1)] * 300).build()
    data = built.data[: -16 or None] + b"\x34\x12" + bytes(6) + b"\1" * 8
    end = -(len(data)) % 4096
    data += b"\x34\x12\0\0\0\0\0\0\1\0\0\0\0\0\0\0" * (end // 16) + bytes(end % 16)
    elf = opened(built)
    place = built.at["phdrs"].offset
    row = list(elf.phdrs[1])
    row[5] = row[6] = len(data) - row[2]
    if size > 1 << 20:
        data = data.replace(b"\1" * size, b"\x34\x12\0\0\0\0\0\0" * (size // 8))
        dynamic = list(elf.phdrs[2])
        dynamic[2], dynamic[3] = built.at["data"].offset, built.at["data"].vaddr
        data = data[: place + 112] + elf.layout.phdr.pack(*dynamic) + data[place + 168 :]
    return data[: place + 56] + elf.layout.phdr.pack(*row) + data[place + 112 :]


def test_strings_outside() -> None:
    """A string without an end in what is mapped is refused, one of megabytes too; a sum that wraps lies before it."""
    built = Image(soname="libs.so").build()
    soname = next(n for n in range(20) if built.data[built.at["dynamic"].offset + 16 * n] == 14)
    before = built.data[built.at["dynstr"].offset - 1 :].split(b"\0")[0]
    wraps = built.patched("dynamic", 16 * soname + 8, ((1 << 64) - 1).to_bytes(8, "little"))
    assert dynamic_of(wraps).soname == before.decode("utf-8", "surrogateescape")
    for offset in (1 << 20, 1 << 62):
        data = built.patched("dynamic", 16 * soname + 8, offset.to_bytes(8, "little"))
        with pytest.raises(ElfError, match="has no end in the file"):
            assert dynamic_of(data).soname
    with pytest.raises(TooLarge):
        assert dynamic_of(Image(soname="x" * (1 << 22)).build()).soname


def test_strings_that_overlap() -> None:
    """Names that share the bytes of one long name are refused when they add up to what no honest file has."""
    image = Image(needed=["n" * 100_000], tags=[(1, offset) for offset in range(2, 2000)])
    with pytest.raises(TooLarge, match="overlap"):
        assert dynamic_of(image.build()).needed
    image = Image(needed=["n" * 100_000], tags=[(1, 1)] * 2000)
    assert len(set(dynamic_of(image.build()).needed)) == 1


def test_addresses_anywhere() -> None:
    """Tags that point anywhere cost an error where they are followed, and nothing before."""
    for tag in (4, 5, 6, 7, 23, 36, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE):
        for value in (0, 0x8, 0xFFF, 0x2000, 1 << 40, (1 << 63) - 1, (1 << 64) - 8):
            elf = opened(everything(tags=[(tag, value)], relocs=[Reloc(0, 8)]).build())
            assert elf.dynamic is not None and elf.dynamic.tags[tag] == value
            for fact in (lambda e: e.symbols.count, lambda e: e.versions.needs, lambda e: e.symbols.look_up({b"x": 1}),
                         lambda e: e.versions.versym(), lambda e: e.symbols.symbol(3),
                         lambda e: e.dynamic.needed):  # fmt: skip
                try:
                    fact(elf)
                except ElfError as error:
                    assert_told(error)
