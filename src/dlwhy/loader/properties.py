"""GNU properties as the loader reads them (glibc elf/dl-load.c _dl_process_pt_gnu_property; sysdeps/x86/dl-prop.h).

Unlike a dump of notes this stops where the loader stops: at a note of the wrong alignment, a descriptor of the wrong
size, or a property out of order.
"""

from __future__ import annotations

from dlwhy.elf.constants import NT_GNU_PROPERTY_TYPE_0, PT_GNU_PROPERTY, PT_NOTE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf

_X86_ISA_1_NEEDED = 0xC0008002


def isa_needed(elf: Elf) -> int:
    """Return GNU_PROPERTY_X86_ISA_1_NEEDED: one bit a level from the baseline up; 0 without. Raises `ElfError`."""
    notes = [row for row in elf.phdrs if row[0] == PT_GNU_PROPERTY] or [row for row in elf.phdrs if row[0] == PT_NOTE]
    word = elf.layout.word_size
    order = "little" if elf.little else "big"
    for row in reversed(notes):
        if row[7] != word or not row[6]:
            continue
        data = elf.at(row[3], min(row[6], 65536))
        at = 0
        while at + 12 < len(data):
            namesz, descsz, kind = (int.from_bytes(data[at + 4 * i : at + 4 * i + 4], order) for i in range(3))  # type: ignore[arg-type]
            desc = at + 12 + namesz
            desc += -desc % word
            if namesz == 4 and kind == NT_GNU_PROPERTY_TYPE_0 and data[at + 12 : at + 16] == b"GNU\0":
                found = _in_properties(data[desc : desc + descsz], descsz, word, order)
                if found is not None:
                    return found
                break
            at = desc + descsz
            at += -at % word
    return 0


def _in_properties(data: bytes, descsz: int, word: int, order: str) -> int | None:
    if descsz < 8 or descsz % word:
        return None
    at, last = 0, 0
    while descsz - at >= 8:
        kind = int.from_bytes(data[at : at + 4], order)  # type: ignore[arg-type]
        size = int.from_bytes(data[at + 4 : at + 8], order)  # type: ignore[arg-type]
        if kind < last or at + 8 + size > descsz:
            return None
        last = kind
        if kind == _X86_ISA_1_NEEDED:
            return int.from_bytes(data[at + 8 : at + 8 + size], order) if size == 4 else None  # type: ignore[arg-type]
        at += 8 + size + (-size % word)
    return None
