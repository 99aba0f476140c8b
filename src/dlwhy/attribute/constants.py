"""The constants of a file: the bytes that strings in its code lie in, piece by piece."""

from __future__ import annotations

from dlwhy.elf.constants import PF_W, PF_X, SHT_NOBITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf

_PIECE = 8 << 20
_OVERLAP = 1024
"""Bytes of one piece of a section that are looked at again with the next; a longer string is not found."""
_MOST_SCANNED = 1 << 30


def constants(elf: Elf) -> Iterator[bytes]:
    """Yield the constants of a file piece by piece: `.rodata` and the like, else all that can only be read."""
    places = [(s.offset, s.size) for s in elf.sections if ".rodata" in s.name and s.type != SHT_NOBITS]
    if not places:
        places = [(row[2], row[5]) for row in elf.loads if not row[1] & PF_W]
        narrower = [(row[2], row[5]) for row in elf.loads if not row[1] & (PF_W | PF_X)]
        places = narrower or places
    scanned = 0
    for offset, size in places:
        for at in range(0, size, _PIECE):
            data = elf.view.some(offset + at, min(_PIECE + _OVERLAP, size - at))
            scanned += len(data)
            if not data or scanned > _MOST_SCANNED:
                return
            yield data
