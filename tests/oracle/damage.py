"""Real libraries damaged at random, opened by the real loader and by dlwhy.

A damaged constructor or function is not the loader's work; what the loader itself reads is: headers, program headers,
the dynamic section, its tables, and where the file ends.
"""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from tests.oracle import libraries

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALLEST, LARGEST = 5000, 400_000
"""Bytes of the libraries that are taken."""
KINDS = ("cut", "cut", "header", "segments", "dynamic", "anywhere", "anywhere", "tables")


def pool() -> list[str]:
    """The libraries to damage: small ones of this machine, so that no program of theirs is large."""
    found = libraries.shared_objects(Path("/"), ("/usr/lib/x86_64-linux-gnu",))
    return sorted(path for path in found if SMALLEST < Path(path).stat().st_size < LARGEST)


def damaged(r: random.Random, data: bytearray) -> bytearray | None:
    """Return the library with a random fault; None for one whose headers are not as usual."""
    phoff, phnum = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    rows = struct.iter_unpack("<IIQQQQQQ", bytes(data[phoff : phoff + 56 * phnum]))
    dynamic = next(((row[2], row[5]) for row in rows if row[0] == 2), None)
    if phoff != 64 or dynamic is None:
        return None
    kind = r.choice(KINDS)
    size = len(data)
    if kind == "cut":
        return data[: r.choice((r.randint(0, size), r.randint(0, size), max(size - r.randint(1, 8192), 0)))]
    first, length = {
        "header": (0, 64),
        "segments": (64, 56 * phnum),
        "dynamic": dynamic,
        "anywhere": (0, size),
        "tables": (64 + 56 * phnum, min(20_000, size - 700)),
    }[kind]
    for _ in range(r.choice((1, 1, 2, 8))):
        at = min(first + r.randrange(length), size - 1)
        data[at] = r.choice((0, 1, 255, r.randrange(256), data[at] ^ 1 << r.randrange(8)))
    return data


def campaign(seed: int, number: int, work: Path, words: tuple[int, int] | None) -> Iterator[libraries.Outcome]:
    """Yield what came of each damaged library. `work` holds them; a file that shows a difference stays there."""
    r = random.Random(seed)
    chosen = pool()
    work.mkdir(parents=True, exist_ok=True)
    for index in range(number):
        source = r.choice(chosen)
        data = damaged(r, bytearray(Path(source).read_bytes()))
        if data is None:
            continue
        path = work / f"{seed}-{index}.so"
        path.write_bytes(data)
        outcome = libraries.compare(Path("/"), str(path), work, words)
        if outcome.difference is None or outcome.explained:
            path.unlink()
        yield outcome
