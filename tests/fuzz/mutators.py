"""What is done to a file: single fields at their limits, bytes, bits, pieces moved, the end cut off.

Where the fields are is read from the file itself, leniently and by other code than the reader's, and anew for every
file: one that is damaged already is damaged further wherever its parts can still be found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

LARGEST = 1 << 16
"""Bytes that a mutated file may have."""
LIMITS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 31, 63, 64, 0x7F, 0x80, 0xFF, 0x100, 0xFFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0xFF00,
    0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF, 1 << 32, (1 << 47) - 4096, 1 << 47, (1 << 63) - 1,
    1 << 63, (1 << 64) - 4096, (1 << 64) - 8, (1 << 64) - 1,
)  # fmt: skip
_EHDR64 = ((16, 2), (18, 2), (20, 4), (24, 8), (32, 8), (40, 8), (48, 4), *((n, 2) for n in range(52, 64, 2)))
_EHDR32 = ((16, 2), (18, 2), (20, 4), (24, 4), (28, 4), (32, 4), (36, 4), *((n, 2) for n in range(40, 52, 2)))
_PHDR64 = ((0, 4), (4, 4), *((n, 8) for n in range(8, 56, 8)))
_PHDR32 = tuple((n, 4) for n in range(0, 32, 4))
_SEGMENT_TYPES = (0, 1, 2, 3, 4, 6, 7, 0x6474E550, 0x6474E551, 0x6474E552, 0x6474E553)
_TAGS = (
    *range(39), 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFF9, 0x6FFFFFFA, 0x6FFFFFFB, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE,
    0x6FFFFFFF, 0x7FFFFFFD, 0x7FFFFFFF, 0x6FFFFEF6, 0x6FFFFDF8, 0x6FFFFDFC,
)  # fmt: skip
_ADDRESSES = frozenset((4, 5, 6, 7, 17, 23, 25, 26, 27, 32, 36, 0x6FFFFEF5, 0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFE))
_MOST_FIELDS = 4000


class Places:
    """Where in a file the fields are: (offset, width) each, in groups: small parts are hit as often as large ones."""

    def __init__(self, data: bytes) -> None:
        self.groups: list[list[tuple[int, int]]] = []
        self.tags: list[tuple[int, int]] = []
        """(offset, width) of the tags of the dynamic section."""
        self.order = "little"
        self.types: list[int] = []
        """Offsets of the types of the program headers."""
        if data[:4] == b"\x7fELF" and len(data) >= 52:
            self._elf(data)
        elif data[:5] in (b"glibc", b"ld.so"):
            self._words(data, 12, 48, 4)
            self._words(data, 48, len(data), 4)
        elif data[:2] == b"PK":
            for magic, size in ((b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)):
                at = data.find(magic)
                while at >= 0:
                    self._words(data, at + 4, at + size, 2)
                    at = data.find(magic, at + 1)
        elif data[257:262] == b"ustar":
            for at in range(0, min(len(data) - 512, 1 << 15), 512):
                if data[at + 257 : at + 262] == b"ustar":
                    self.groups.append([(at + n, 1) for n in (0, 100, 124, 126, 135, 148, 156, 157, 345)])

    def _number(self, data: bytes, at: int, width: int) -> int:
        return int.from_bytes(data[at : at + width], self.order)  # type: ignore[arg-type]

    def _words(self, data: bytes, start: int, end: int, width: int) -> None:
        start, end = max(start, 0), min(end, len(data) - width + 1)
        if start < end:
            self.groups.append([(at, width) for at in range(start, end, width)][:_MOST_FIELDS])

    def _elf(self, data: bytes) -> None:
        wide = data[4] != 1
        self.order = "big" if data[5] == 2 else "little"
        word = 8 if wide else 4
        self.groups.append([(n, 1) for n in range(16)])
        self.groups.append(list(_EHDR64 if wide else _EHDR32))
        phoff, phnum = self._number(data, 32 if wide else 28, word), self._number(data, 56 if wide else 44, 2)
        shoff, shnum = self._number(data, 40 if wide else 32, word), self._number(data, 60 if wide else 48, 2)
        size = 56 if wide else 32
        rows = []
        for number in range(min(phnum, 32)):
            at = phoff + number * size
            if at + size > len(data):
                break
            self.types.append(at)
            self.groups.append([(at + n, width) for n, width in (_PHDR64 if wide else _PHDR32)])
            fields = (0, 8, 16, 32) if wide else (0, 4, 8, 16)
            rows.append([self._number(data, at + n, 4 if not n else word) for n in fields])
        if shnum and shoff < len(data):
            self._words(data, shoff, shoff + min(shnum, 64) * (64 if wide else 40), 4)
        for kind, offset, _, filesz in rows:
            if kind == 2:
                self._dynamic(data, rows, offset, filesz, word)
            elif kind in (3, 4, 7, 0x6474E553):
                self._words(data, offset, offset + min(filesz, 1024), 4)

    def _dynamic(self, data: bytes, rows: list[list[int]], offset: int, filesz: int, word: int) -> None:
        values = []
        for at in range(offset, min(offset + filesz, len(data) - 2 * word + 1, offset + 4096), 2 * word):
            tag = self._number(data, at, word)
            self.tags.append((at, word))
            values.append((at + word, word))
            if tag in _ADDRESSES:
                vaddr = self._number(data, at + word, word)
                for kind, start, address, size in rows:
                    if kind == 1 and address <= vaddr < address + size:
                        place = vaddr - address + start
                        for length in (32, 600):
                            self._words(data, place, place + length, 2 if tag == 0x6FFFFFF0 else 4)
            if not tag:
                break
        if values:
            self.groups.append(values)
            self.groups.append(values)


def mutate(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """A copy with one to sixteen changes; `others` are files that pieces may come from."""
    made = bytearray(data)
    places = Places(data)
    for _ in range(rng.choice((1, 1, 1, 1, 2, 2, 3, 5, 16))):
        _one(made, rng, places, others)
    return bytes(made[:LARGEST])


def _one(made: bytearray, rng: random.Random, places: Places, others: list[bytes]) -> None:
    kind = rng.random()
    if kind < 0.05:
        del made[_cut(len(made), rng) :]
    elif kind < 0.1 and made:
        _move(made, rng, places, others)
    elif kind < 0.16 and places.tags:
        at, width = rng.choice(places.tags)
        _store(made, at, width, rng.choice(_TAGS), places.order)
    elif kind < 0.19 and places.types:
        _store(made, rng.choice(places.types), 4, rng.choice(_SEGMENT_TYPES), places.order)
    elif kind < 0.85 and places.groups:
        at, width = rng.choice(rng.choice(places.groups))
        _store(made, at, width, _value(made, at, width, rng, places), places.order)
    elif made:
        at = rng.randrange(len(made))
        made[at] = rng.choice((0, 1, 255, rng.randrange(256), made[at] ^ 1 << rng.randrange(8)))


def _cut(size: int, rng: random.Random) -> int:
    return max(rng.choice((rng.randrange(size + 1), size - rng.randrange(64), size // 4096 * 4096, 64, 120)), 0)


def _move(made: bytearray, rng: random.Random, places: Places, others: list[bytes]) -> None:
    """Write a piece of this file, of another one, or of zeros over a place, or put it in between."""
    source = rng.choice(others) if others and rng.random() < 0.5 else bytes(made)
    if rng.random() < 0.2:
        source = bytes(64)
    length = min(rng.choice((1, 2, 4, 8, 16, 24, 56, 64, 256, 4096)), len(source))
    start = rng.randrange(len(source) - length + 1)
    at = rng.randrange(len(made))
    if places.groups and rng.random() < 0.5:
        at = min(rng.choice(rng.choice(places.groups))[0], len(made) - 1)
    at -= at % 8
    if rng.random() < 0.7:
        end = min(at + length, len(made))
        made[at:end] = source[start : start + end - at]
    else:
        made[at:at] = source[start : start + length]


def _store(made: bytearray, at: int, width: int, value: int, order: str) -> None:
    if at >= 0 and at + width <= len(made):
        made[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, order)  # type: ignore[arg-type]


def _value(made: bytearray, at: int, width: int, rng: random.Random, places: Places) -> int:
    """A number for a field: a limit, near to what it was, what stands in another field, or any place in the file."""
    here = int.from_bytes(made[at : at + width], places.order)  # type: ignore[arg-type]
    kind = rng.random()
    if kind < 0.35:
        return rng.choice(LIMITS)
    if kind < 0.6:
        return here + rng.choice((-4096, -64, -24, -16, -8, -4, -2, -1, 1, 2, 4, 8, 16, 24, 64, 4096, 1 << 20))
    if kind < 0.7:
        return here ^ 1 << rng.randrange(8 * width)
    if kind < 0.85:
        other, size = rng.choice(rng.choice(places.groups))
        return int.from_bytes(made[other : other + size], places.order)  # type: ignore[arg-type]
    if kind < 0.95:
        return max(len(made) + rng.choice((-rng.randrange(len(made) + 1), -8, -1, 0, 1, 4095, 4096)), 0)
    return rng.getrandbits(8 * width)
