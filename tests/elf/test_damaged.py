"""Damaged files of all four forms, put to every function of the reader."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.relocs import of_types, relr, tables
from dlwhy.elf.symbols import StaticSymbols, gnu_hash
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import ElfError

from .images import FORMS, assert_told, everything, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.elf.file import Elf

WANTED = {name: gnu_hash(name) for name in (b"function_3", b"twice", b"absent")}
QUESTIONS: list[Callable[[Elf], object]] = [
    lambda elf: elf.segments,
    lambda elf: elf.tls,
    lambda elf: elf.interp,
    lambda elf: elf.debug_only,
    lambda elf: elf.sections,
    lambda elf: elf.dynamic and (elf.dynamic.filters, elf.dynamic.soname, elf.dynamic.runpath),
    lambda elf: (elf.versions.needs, elf.versions.defines, elf.versions.by_index()),
    lambda elf: elf.symbols.look_up(WANTED),
    lambda elf: [elf.symbols.symbol(index) for index in range(elf.symbols.count)],
    lambda elf: elf.symbols.tls(),
    lambda elf: elf.versions.versym(),
    lambda elf: StaticSymbols(elf).tls(),
    lambda elf: tls_relocations(elf).models,
    lambda elf: (tables(elf), of_types(elf, range(40))),
    lambda elf: sum(1 for _ in relr(elf)),
]


@pytest.mark.parametrize(("bits", "little"), FORMS)
@pytest.mark.parametrize("seed", [1, None], ids=["fixed", "fresh"])
def test_damaged(bits: int, little: bool, seed: int | None) -> None:
    """Whatever bytes are changed, each question gets an answer or one `ElfError` that names the file."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    print(f"seed {seed}")
    rng = random.Random(seed)
    places = [
        everything(bits, little, hash=hash_, relr=[0, 8], data=bytes(64)).build() for hash_ in (("gnu",), ("sysv",))
    ]
    refused = 0
    for _ in range(400):
        built = rng.choice(places)
        data = bytearray(built.data)
        for _ in range(rng.choice((1, 1, 2, 5))):
            at = rng.choice(list(built.at.values()))
            if at.size:
                width = rng.choice((1, 2, 4, 8))
                value = rng.choice(
                    (0, 1, 0x7F, 0xFF, 1 << 31, (1 << 32) - 1, 1 << 63, (1 << 64) - 1, rng.getrandbits(64))
                )
                start = at.offset + rng.randrange(at.size) // width * width
                data[start : start + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
        if rng.random() < 0.1:
            del data[rng.randrange(len(data)) :]
        for question in QUESTIONS:
            try:
                question(opened(bytes(data)))
            except ElfError as error:
                assert_told(error)
                refused += 1
    assert refused > 50
