"""The layout of each on-disk record, by class and byte order: one table (gABI ch. 4, 5; <elf.h>).

`Layout` objects are shared: there are four. Fields are in the order of the 64-bit record wherever the two classes
differ, so that nothing above this file knows the class.
"""

from __future__ import annotations

from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from array import array

NATIVE_LITTLE = Struct("=H").unpack(b"\1\0") == (1,)
"""Whether this machine is little endian, as `array` is."""
_array: type[array[int]] | None = None


def arrays() -> type[array[int]]:
    """Return `array.array`. Its import brings collections with it, which `tree` does without."""
    global _array  # noqa: PLW0603 -- an import statement, on the way of every table, costs ten times as much
    if _array is None:
        from array import array

        _array = array
    return _array


class Layout:
    """How one (class, byte order) writes its records. Sizes in bytes."""

    __slots__ = (
        "dyn", "ehdr", "ehdr_size", "is64", "phdr", "phdr_size", "prefix", "rel", "rela", "shdr", "sym", "u16", "u32",
        "verdaux", "verdef", "vernaux", "verneed", "word", "word_code", "word_size",
    )  # fmt: skip

    def __init__(self, is64: bool, prefix: str) -> None:
        self.is64 = is64
        self.prefix = prefix
        word = "Q" if is64 else "I"
        self.word_code = word
        self.word = Struct(prefix + word)
        self.word_size = 8 if is64 else 4
        # behind e_ident: type machine version entry phoff shoff flags ehsize phentsize phnum shentsize shnum shstrndx
        self.ehdr = Struct(prefix + "HHI" + word * 3 + "I6H")
        self.ehdr_size = 64 if is64 else 52
        self.phdr = Struct(prefix + ("IIQQQQQQ" if is64 else "8I"))
        self.phdr_size = self.phdr.size
        self.shdr = Struct(prefix + ("IIQQQQIIQQ" if is64 else "10I"))
        self.dyn = Struct(prefix + word * 2)
        self.sym = Struct(prefix + ("IBBHQQ" if is64 else "IIIBBH"))
        self.rela = Struct(prefix + ("QQq" if is64 else "IIi"))
        self.rel = Struct(prefix + word * 2)
        self.u16 = Struct(prefix + "H")
        self.u32 = Struct(prefix + "I")
        self.verneed = Struct(prefix + "HHIII")  # version cnt file aux next
        self.vernaux = Struct(prefix + "IHHII")  # hash flags other name next
        self.verdef = Struct(prefix + "HHHHIII")  # version flags ndx cnt hash aux next
        self.verdaux = Struct(prefix + "II")  # name next


LAYOUTS: dict[tuple[int, int], Layout] = {}


def layout(elf_class: int, data: int) -> Layout:
    """Return the layout of EI_CLASS 1 or 2 and EI_DATA 1 or 2."""
    found = LAYOUTS.get((elf_class, data))
    if found is None:
        found = LAYOUTS[elf_class, data] = Layout(elf_class == 2, "<" if data == 1 else ">")
    return found
