"""Header, segments, sections, and bytes by address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.file import Segment, TlsSegment
from dlwhy.errors import ElfError, OutOfBounds, TooLarge
from dlwhy.view import View
from tests.elf_writer import Image

from .images import each_form, everything, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.elf.file import Elf


@each_form
def test_header(bits: int, little: bool) -> None:
    """Class, byte order, type, machine and entry stand where the gABI puts them."""
    elf = opened(everything(bits, little, entry=0x1234, type=2, machine=0xABCD).build())
    assert (elf.class_, elf.little, elf.type, elf.machine, elf.entry) == (bits // 32, little, 2, 0xABCD, 0x1234)
    assert (elf.phnum, len(elf.segments)) == (7, 7)


@each_form
def test_segments(bits: int, little: bool) -> None:
    """Program headers have the same fields in both classes, whatever their order in the file."""
    built = everything(bits, little).build()
    elf = opened(built)
    data, dynamic = built.at["data"], built.at["dynamic"]
    size = dynamic.offset + dynamic.size - data.offset
    assert elf.segments[2] == Segment(1, 6, data.offset, data.vaddr, data.vaddr, size, size, 0x1000)
    assert [row[0] for row in elf.loads] == [1, 1]
    assert elf.interp == "/lib/ld-test.so.1"


@each_form
def test_tls_segment(bits: int, little: bool) -> None:
    """The TLS segment is the last PT_TLS with a size; its address counts modulo its alignment."""
    built = everything(bits, little, headers=[(7, 4, 0, 0x77, 0, 0, 24, 16), (7, 4, 0, 0, 0, 0, 0, 8)]).build()
    assert opened(built).tls == TlsSegment(0x77, 0, 24, 16, 0)
    assert TlsSegment(0x77, 0, 24, 16, 0).first_byte == 7
    assert TlsSegment(0x77, 0, 24, 0, 0).first_byte == 0
    assert opened(Image(bits=bits, little=little).build()).tls is None


@each_form
def test_sections(bits: int, little: bool) -> None:
    """Section headers are read by name; without any, or with nonsense, there are none."""
    built = everything(bits, little).build()
    sections = {section.name: section for section in opened(built).sections}
    assert sections[".dynamic"].offset == built.at["dynamic"].offset
    assert sections[".symtab"].info == 6
    assert opened(everything(bits, little, sections=False).build()).sections == ()
    shoff = 40 if bits == 64 else 32
    assert opened(built.patched("ehdr", shoff, b"\xff" * (bits // 8))).sections == ()


def test_more_sections_than_fit_in_the_header() -> None:
    """With e_shnum 0 the number is in the first section header; one that leaves the file gives no sections."""
    built = everything().build()
    whole = opened(built).sections
    number = len(whole).to_bytes(8, "little")
    data = built.patched("ehdr", 60, bytes(2))
    first = built.at["shdrs"].offset
    data = data[: first + 32] + number + data[first + 40 :]
    assert opened(data).sections[1:] == whole[1:]
    assert opened(data[: first + 32] + (1 << 60).to_bytes(8, "little") + data[first + 40 :]).sections == ()


FACTS: dict[str, Callable[[Elf], object]] = {
    "segments": lambda elf: elf.segments,
    "interp": lambda elf: elf.interp,
    "tls": lambda elf: elf.tls,
    "tags": lambda elf: elf.dynamic and elf.dynamic.tags,
    "needed": lambda elf: elf.dynamic and elf.dynamic.needed,
    "soname": lambda elf: elf.dynamic and elf.dynamic.soname,
    "needs": lambda elf: elf.versions.needs,
    "defines": lambda elf: elf.versions.defines,
    "symbols": lambda elf: [elf.symbols.symbol(index) for index in range(elf.symbols.count)],
    "versym": lambda elf: [elf.versions.index_of(index) for index in range(elf.symbols.count)],
}


def outcome(fact: Callable[[Elf], object], data: bytes) -> object:
    """A fact, or ElfError where the bytes do not give it."""
    try:
        return fact(opened(data))
    except ElfError as error:
        return type(error)


@each_form
@pytest.mark.parametrize("hash_", [("gnu",), ("sysv",)], ids=["gnu", "sysv"])
def test_every_truncation(bits: int, little: bool, hash_: tuple[str, ...]) -> None:
    """A file cut anywhere is read as the kernel would map it, zeros up to the end of its page, or is refused."""
    data = everything(bits, little, hash=hash_, symtab=[], relr=[], data=bytes(64)).build().data
    refused = 0
    for size in range(len(data)):
        cut = data[:size]
        mapped = cut + bytes(-size % 4096)
        for name, fact in FACTS.items():
            found = outcome(fact, cut)
            if isinstance(found, type):
                refused += 1
            else:
                assert found == outcome(fact, mapped), f"{name} of the first {size} bytes"
    assert refused > 5 * 64


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "too short for an ELF file"), (b"\x7fEL", "too short for an ELF file"),
        (b"#!/bin/sh\n", ": not an ELF file$"), (b"!<arch>\n" + bytes(60), ": a static library, not an ELF file"),
        (b"/* GNU ld script */\nGROUP ( /lib/libc.so.6 )\n", ": a linker script, not an ELF file"),
        (b"\x7fELF\3\1\1", "EI_CLASS and EI_DATA"),
        (b"\x7fELF\2\3\1" + bytes(60), "EI_CLASS and EI_DATA"), (b"\x7fELF\2\1\1" + bytes(9), "inside the ELF header"),
    ],
)  # fmt: skip
def test_what_is_no_elf_file(data: bytes, words: str) -> None:
    """Bytes without a whole ELF header are refused in one sentence that names the path."""
    with pytest.raises(ElfError, match=f"^made.*{words}"):
        opened(data)


@each_form
def test_wrong_program_header_size(bits: int, little: bool) -> None:
    """Program headers of another size than the class has are refused, not misread."""
    place = 54 if bits == 64 else 42
    data = everything(bits, little).build().patched("ehdr", place, b"\x11\x11")
    with pytest.raises(ElfError, match="e_phentsize is 4369"):
        assert opened(data).phdrs


@each_form
@pytest.mark.parametrize("offset", [b"\xff", b"\x7f", b"\0\xff"], ids=["near 2^64", "half", "behind the end"])
def test_program_headers_outside_the_file(bits: int, little: bool, offset: bytes) -> None:
    """An e_phoff anywhere outside the file is refused with its number."""
    word = (offset * 8)[: bits // 8]
    data = everything(bits, little).build().patched("ehdr", 32 if bits == 64 else 28, word)
    with pytest.raises(OutOfBounds, match="bytes wanted, but the file ends at"):
        assert opened(data).phdrs


def test_long_interpreter() -> None:
    """An interpreter's name that no kernel takes is refused."""
    with pytest.raises(ElfError, match="the kernel takes at most 4096"):
        assert opened(everything(interp="/" + "x" * 5000).build()).interp


def test_separate_debug_file() -> None:
    """A PT_DYNAMIC or PT_LOAD with memory but no bytes marks a debug file; an ordinary library is none."""
    assert not opened(everything().build()).debug_only
    assert opened(Image(dynamic=False, headers=[(2, 6, 0, 0x1000, 0, 0, 0x100, 8)]).build()).debug_only
    assert not opened(Image(dynamic=False).build()).debug_only


class TestBytesByAddress:
    """What lies at an address of the mapped object (gABI ch. 5, Program Loading; mmap(2))."""

    image = b"\x7fELF\2\1\1" + bytes(57)

    def elf(self, *loads: tuple[int, int, int, int], size: int = 0x1800) -> Elf:
        """A file of `size` bytes, each its offset's low byte, with PT_LOADs (offset, vaddr, filesz, memsz)."""
        built = Image(
            dynamic=False, sections=False, headers=[(1, 4, o, v, v, f, m, 4096) for o, v, f, m in loads]
        ).build()
        start = built.at["phdrs"].offset
        data = bytearray(n & 0xFF for n in range(size))
        data[:64] = built.data[:64]
        rows = built.data[start + 2 * 56 : start + built.at["phdrs"].size]
        data[start : start + len(rows)] = rows
        data[56:58] = len(loads).to_bytes(2, "little")
        return opened(bytes(data))

    def test_inside(self) -> None:
        """Bytes of the file lie at the segment's address."""
        elf = self.elf((0x400, 0x10400, 0x100, 0x100))
        assert elf.at(0x10410, 4) == elf.around(0x10410, 4) == bytes((0x10, 0x11, 0x12, 0x13))
        assert elf.offset_of(0x10410) == 0x410
        assert elf.offset_of(0x20000) is None

    def test_zeros_behind(self) -> None:
        """Behind p_filesz lie zeros up to the end of the last page of p_memsz."""
        elf = self.elf((0x400, 0x10400, 0x100, 0x2000))
        assert elf.at(0x104FE, 4) == b"\xfe\xff\0\0"
        assert elf.around(0x104FE, 4) == b"\xfe\xff\0\0"
        assert elf.at(0x12000, 0x1000) == bytes(0x1000)
        with pytest.raises(ElfError, match="lies in no PT_LOAD"):
            elf.at(0x12FFF, 2)

    def test_zeros_that_end_within_a_page(self) -> None:
        """Zeros end with p_memsz: the rest of their page shows what the file has there (elf/dl-map-segments.h)."""
        elf = self.elf((0x400, 0x10400, 0x100, 0x120))
        assert elf.around(0x1051E, 4) == b"\0\0\x20\x21"
        assert elf.around(0x10530, 2) == b"\x30\x31"

    def test_the_rest_of_a_page(self) -> None:
        """Without memory behind the file's bytes, the rest of the first and last page shows what the file has there."""
        elf = self.elf((0x400, 0x10400, 0x100, 0x100))
        assert elf.at(0x10500, 2) == elf.around(0x10500, 2) == b"\0\1"
        assert elf.at(0x103FE, 2) == elf.around(0x103FE, 2) == b"\xfe\xff"
        assert elf.around(0x10FFE, 8) == b"\xfe\xff"
        for vaddr in (0xFFFF, 0x10FFF):
            with pytest.raises(ElfError, match="lies in no PT_LOAD"):
                elf.at(vaddr, 2)

    def test_behind_the_end_of_the_file(self) -> None:
        """The last page of the file is filled with zeros; a page behind it cannot be read at all (SIGBUS)."""
        elf = self.elf((0, 0x10000, 0x4000, 0x4000))
        assert elf.at(0x117FE, 4) == elf.around(0x117FE, 4) == b"\xfe\xff\0\0"
        assert elf.around(0x11FFE, 8) == b"\0\0"
        with pytest.raises(OutOfBounds, match="the file ends at 0x1800"):
            elf.at(0x11FFE, 8)

    def test_absurd_sizes(self) -> None:
        """A table of a terabyte is refused before memory is asked for, and a window into zeros is one page at most."""
        elf = self.elf((0x400, 0x10400, 0x100, 1 << 46))
        with pytest.raises(TooLarge):
            elf.at(0x10600, 1 << 40)
        assert len(elf.around(0x10600, 1 << 40)) <= 4096
        assert elf.around(1 << 63, 8) == b""


def test_nothing_is_read_before_it_is_asked_for() -> None:
    """Reading a file decodes its header only: damage elsewhere is met where it matters."""
    built = everything().build()
    elf = opened(built.patched("dynamic", 0, b"\xff" * built.at["dynamic"].size).replace(b"GNU", b"gnu"))
    assert elf.tls == opened(built).tls
    assert View("made", built.data).read(0, 4) == b"\x7fELF"
