"""The images that the tests of the reader share: a library with everything in it, in each form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.file import Elf, read
from dlwhy.view import View
from tests.elf_writer import FILE, LOCAL, OBJECT, SECTION, TLS, WEAK, Built, Image, Reloc, Sym

if TYPE_CHECKING:
    from dlwhy.errors import ElfError

FORMS = [(64, True), (64, False), (32, True), (32, False)]
each_form = pytest.mark.parametrize(("bits", "little"), FORMS, ids=["64-le", "64-be", "32-le", "32-be"])

TPOFF = {(64, True): 18, (64, False): 56, (32, True): 14}
"""An initial-exec relocation of the machine of each form; the fourth has no row."""


def everything(bits: int = 64, little: bool = True, **changes: object) -> Image:
    """A library with every table that the reader knows."""
    names = [f"function_{number}" for number in range(23)]
    image = Image(
        bits=bits, little=little, soname="libwhole.so.1", needed=["libfirst.so", "libsecond.so.2"],
        runpath="$ORIGIN/x:/y", tags=[(0x6FFFFFFB, 8), (30, 2)], hash=("gnu", "sysv"),
        symbols=[
            *(Sym(name, 0x100 + 16 * n, 16, version=("W_1", "W_2")[n % 2]) for n, name in enumerate(names)),
            Sym("twice", 8, 4, type=OBJECT, version="W_1", hidden=True),
            Sym("twice", 12, 4, type=OBJECT, version="W_2"),
            Sym("wanted", shndx=0, version="F_1"), Sym("perhaps", bind=WEAK, shndx=0, version="S_3"),
            Sym("variable", 4, 4, type=TLS), Sym("foreign_variable", type=TLS, shndx=0),
        ],
        needs={"libfirst.so": ["F_1", "F_2"], "libsecond.so.2": ["S_3"]}, defines=["libwhole.so.1", "W_1", "W_2"],
        relocs=[
            Reloc(0, 8, None, 0x40), Reloc(8, 8, None, 0x48), Reloc(16, 6, "wanted"),
            Reloc(24, TPOFF.get((bits, little), 1), "variable"),
            Reloc(32, TPOFF.get((bits, little), 1), "foreign_variable", 0),
        ],
        jump=[Reloc(40, 7, "perhaps"), Reloc(48, 7, "wanted")], rela=bits == 64, relative_count=2,
        relr=[64, 72, 88, 640, 1280, 1288], data=bytes(2048), tls=(100, 32, b"initial"), interp="/lib/ld-test.so.1",
        stack=6, note=bytes.fromhex("04000000040000000100000058595a0000000000"),
        symtab=[
            Sym("one.c", 0, 0, LOCAL, FILE, shndx=0xFFF1), Sym("hidden_variable", 8, 8, LOCAL, TLS),
            Sym("two.c", 0, 0, LOCAL, FILE, shndx=0xFFF1), Sym("", 0, 0, LOCAL, SECTION),
            Sym("other", 16, 4, LOCAL, TLS), Sym("variable", 4, 4, type=TLS), Sym("function_0", 0x100, 16),
        ],
    )  # fmt: skip
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def assert_told(error: ElfError) -> None:
    """Whether an error says of which file it is."""
    assert str(error).startswith("made: ")


def opened(built: Built | bytes, name: str = "made") -> Elf:
    """Read the bytes."""
    return read(View(name, built if isinstance(built, bytes) else built.data))
