"""GNU properties as the loader reads them (glibc elf/dl-load.c _dl_process_pt_gnu_property; sysdeps/x86/dl-prop.h).

Unlike a dump of notes this stops where the loader stops: at a note of the wrong alignment, a descriptor of the wrong
size, or a property out of order. The program headers are taken from the last one on; a PT_NOTE is only looked at as
long as nothing before it settled what the properties are, and any that is read to its end settles it.
"""

from __future__ import annotations

from dlwhy.elf.constants import NT_GNU_PROPERTY_TYPE_0, PT_GNU_PROPERTY, PT_NOTE
from dlwhy.errors import TooLarge

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf

_NEEDED_1 = 0xB0008000
_X86_FEATURE_1_AND = 0xC0000002
_X86_ISA_1_NEEDED = 0xC0008002
_BROKEN, _WRONG_SIZE = -1, -1
_MOST = 4096
"""Notes of a segment, and properties of a note, that are looked at; honest files have a handful."""
Found = dict[int, int]
"""Property -> value, of the three that the loader looks for and that are not 0."""


def isa_and_needed(elf: Elf, property_segment: bool) -> tuple[int, int]:
    """Return (GNU_PROPERTY_X86_ISA_1_NEEDED, GNU_PROPERTY_1_NEEDED) of an object; 0 without.

    `property_segment`: whether PT_GNU_PROPERTY counts, and not only PT_NOTE. Of the first value one bit is a level,
    from the baseline up. Raises `ElfError` where a note is not mapped.
    """
    settled = False
    found: Found = {}
    word = elf.layout.word_size
    for row in reversed(elf.phdrs):
        if row[0] == PT_GNU_PROPERTY:
            if row[7] == word:
                if property_segment:
                    settled |= _in_property_segment(elf, row[3], row[6], found)
                else:  # read all the same, up to the first property
                    next((next(_properties(elf, *one)) for one in _property_notes(elf, row[3], row[6])), None)
        elif row[0] == PT_NOTE and row[7] == word and not settled:
            settled = True
            own = _in_note_segment(elf, row[3], row[6])
            if own:
                found = own
    return found.get(_X86_ISA_1_NEEDED, 0), found.get(_NEEDED_1, 0)


def needed_1(elf: Elf) -> int:
    """Return GNU_PROPERTY_1_NEEDED of an object as machines read it that look for nothing else; 0 without.

    sysdeps/generic/dl-prop.h; from 2.35 on, and before nothing asks for it. Raises `ElfError` where a note is not
    mapped.
    """
    found: Found = {}
    for row in reversed(elf.phdrs):
        if row[0] == PT_GNU_PROPERTY and row[7] == elf.layout.word_size and not found:
            _in_property_segment(elf, row[3], row[6], found)
    return found.get(_NEEDED_1, 0)


def _in_property_segment(elf: Elf, vaddr: int, size: int, found: Found) -> bool:
    """Add to `found` what the first property note says; return whether there is a property to look at."""
    settled = False
    for at, descsz in _property_notes(elf, vaddr, size):
        for kind, value in _properties(elf, at, descsz):
            if kind == _BROKEN:
                break
            settled = True
            if value > 0:
                found[kind] = value
        break
    return settled


def _in_note_segment(elf: Elf, vaddr: int, size: int) -> Found:
    """What the only property note says; nothing when there are two, or when it is not well-formed."""
    found: Found = {}
    for number, (at, descsz) in enumerate(_property_notes(elf, vaddr, size)):
        if number:
            return {}
        for kind, value in _properties(elf, at, descsz):
            if kind == _BROKEN or value == _WRONG_SIZE:
                return {}
            if value:
                found[kind] = value
    return found


def _property_notes(elf: Elf, vaddr: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (address, bytes) of the descriptor of each property note of a segment. Raises `ElfError`."""
    word, unpack = elf.layout.word_size, elf.layout.u32.iter_unpack
    at = count = 0
    while at + 12 < size:
        (namesz,), (descsz,), (kind,) = unpack(elf.at(vaddr + at, 12))
        if namesz == 4 and kind == NT_GNU_PROPERTY_TYPE_0 and elf.at(vaddr + at + 12, 4) == b"GNU\0":
            yield vaddr + at + 16, descsz
        at += 12 + namesz
        at += -at % word + descsz
        at += -at % word
        count += 1
        if count > _MOST:
            raise TooLarge(elf.path, -1, f"more than {_MOST} notes in one segment")


def _properties(elf: Elf, vaddr: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield (property, value) of a descriptor, the value 0 for those that do not count. Raises `ElfError`."""
    word, unpack = elf.layout.word_size, elf.layout.u32.iter_unpack
    if size < 8 or size % word:
        yield _BROKEN, 0
        return
    at = last = count = 0
    while size - at >= 8:
        (kind,), (length,) = unpack(elf.at(vaddr + at, 8))
        if kind < last or at + 8 + length > size:
            yield _BROKEN, 0
            return
        last = kind
        value = 0
        if kind in (_NEEDED_1, _X86_FEATURE_1_AND, _X86_ISA_1_NEEDED):
            if length != 4:
                yield kind, _WRONG_SIZE
                return
            ((value,),) = unpack(elf.at(vaddr + at + 8, 4))
        yield kind, value
        if kind >= _X86_ISA_1_NEEDED:
            return
        at += 8 + length + -length % word
        count += 1
        if count > _MOST:
            raise TooLarge(elf.path, -1, f"more than {_MOST} properties in one note")
