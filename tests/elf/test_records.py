"""Sizes of the on-disk records (gABI ch. 4, 5)."""

from __future__ import annotations

import pytest

from dlwhy.elf.records import layout

SIZES = {
    "ehdr_size": (52, 64), "phdr": (32, 56), "shdr": (40, 64), "dyn": (8, 16), "sym": (16, 24), "rel": (8, 16),
    "rela": (12, 24),
    "verneed": (16, 16), "vernaux": (16, 16), "verdef": (20, 20), "verdaux": (8, 8), "word": (4, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("order", [1, 2])
def test_sizes(name: str, order: int) -> None:
    """Each record has the size that sizeof gives it in <elf.h>, in either byte order."""
    for elf_class, size in zip((1, 2), SIZES[name], strict=True):
        found = getattr(layout(elf_class, order), name)
        assert (found if isinstance(found, int) else found.size) == size


def test_layouts_are_shared() -> None:
    """There is one layout for each class and byte order."""
    assert layout(2, 1) is layout(2, 1)
    assert len({layout(c, d) for c in (1, 2) for d in (1, 2)}) == 4
