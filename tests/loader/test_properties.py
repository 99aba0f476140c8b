"""Property notes: what the loader takes from them, and where it stops."""

from __future__ import annotations

from struct import pack

import pytest

from dlwhy.elf.constants import PT_GNU_PROPERTY, PT_NOTE
from dlwhy.errors import ElfError
from dlwhy.loader.properties import isa_and_needed
from tests.elf.images import opened
from tests.elf_writer import Image

ISA, FEATURES, NEEDED = 0xC0008002, 0xC0000002, 0xB0008000


def one(*properties: tuple[int, int], size: int | None = None, kind: int = 5, length: int = 4) -> bytes:
    """A note of these (property, value) pairs."""
    text = b"".join(pack("<IIII", number, length, value, 0) for number, value in properties)
    return pack("<III4s", 4, len(text) if size is None else size, kind, b"GNU") + text


def asked(
    data: bytes, *, kinds: tuple[int, ...] = (PT_NOTE,), align: int = 8, counts: bool = True, memsz: int | None = None
) -> tuple[int, int]:
    """What the loader takes from these bytes, led to by a program header of each of these kinds."""
    size = len(data) if memsz is None else memsz
    place = Image(data=data, headers=[(0,) * 8] * len(kinds)).build().at["data"]
    rows: list[tuple[int, ...]] = [(kind, 4, place.offset, place.vaddr, 0, len(data), size, align) for kind in kinds]
    return isa_and_needed(opened(Image(data=data, headers=rows).build()), counts)


class TestNotes:
    """PT_NOTE (sysdeps/x86/dl-prop.h, _dl_process_property_note)."""

    def test_both_words(self) -> None:
        """The two words that decide anything are found beside one that does not."""
        assert asked(one((NEEDED, 1), (FEATURES, 3), (ISA, 7))) == (7, 1)

    def test_other_notes_before(self) -> None:
        """Notes of other kinds are walked over."""
        assert asked(one((ISA, 7), kind=3) + one((ISA, 3))) == (3, 0)

    def test_two(self) -> None:
        """Two property notes in one segment are as good as none."""
        assert asked(one((ISA, 3)) + one((ISA, 7))) == (0, 0)

    @pytest.mark.parametrize(
        "data",
        [
            one((FEATURES, 3), (NEEDED, 1)),
            one((ISA, 7), size=12),
            one((ISA, 7), size=4),
            one((ISA, 7), length=8),
        ],
        ids=("order", "no-multiple", "too-short", "length"),
    )
    def test_ill_formed(self, data: bytes) -> None:
        """A note that is out of order, or whose sizes are wrong, says nothing."""
        assert asked(data) == (0, 0)

    def test_the_end_of_the_walk(self) -> None:
        """What follows GNU_PROPERTY_X86_ISA_1_NEEDED is not read, so it cannot be out of order."""
        assert asked(one((ISA, 7), (NEEDED, 1))) == (7, 0)

    def test_alignment(self) -> None:
        """A note of 4 bytes alignment is none in a 64-bit object."""
        assert asked(one((ISA, 7)), align=4) == (0, 0)

    def test_the_last_header_settles(self) -> None:
        """Headers are taken from the last one on, and the first one read settles it, whatever it says."""
        data = one((ISA, 7))
        assert asked(data, kinds=(PT_NOTE, PT_NOTE)) == (7, 0)
        assert asked(b"\0" * 12 + data, kinds=(PT_NOTE,), memsz=12) == (0, 0)

    def test_beyond_the_object(self) -> None:
        """A walk that leaves what is mapped raises."""
        with pytest.raises(ElfError):
            asked(one((ISA, 7), kind=3, size=1 << 20), memsz=1 << 30)


class TestPropertySegment:
    """PT_GNU_PROPERTY (elf/dl-load.c, _dl_process_pt_gnu_property)."""

    def test_counts(self) -> None:
        """From 2.39 on it counts, before it does not."""
        data = one((NEEDED, 1), (ISA, 7))
        assert asked(data, kinds=(PT_GNU_PROPERTY,)) == (7, 1)
        assert asked(data, kinds=(PT_GNU_PROPERTY,), counts=False) == (0, 0)

    def test_what_comes_before_a_fault_counts(self) -> None:
        """Unlike in a PT_NOTE, what was read before a property out of order stays."""
        data = one((FEATURES, 1), (NEEDED, 1))
        assert asked(data, kinds=(PT_GNU_PROPERTY,)) == (0, 0)
        assert asked(one((NEEDED, 1), (NEEDED - 1, 5)), kinds=(PT_GNU_PROPERTY,)) == (0, 1)
        assert asked(one((NEEDED, 1), (NEEDED - 1, 5))) == (0, 0)

    def test_spares_the_notes(self) -> None:
        """A PT_NOTE in front of it is not looked at any more."""
        data = one((NEEDED, 1)) + one((ISA, 7))
        assert asked(data, kinds=(PT_NOTE, PT_GNU_PROPERTY)) == (0, 1)
        assert asked(data, kinds=(PT_NOTE, PT_GNU_PROPERTY), counts=False) == (0, 0)
