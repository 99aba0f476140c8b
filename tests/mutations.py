"""Damaged copies of real libraries, put to every command: cut anywhere, bits flipped, numbers at their limits.

python -m tests.mutations COUNT [SEED]      by hand, as long as one likes; prints the seed and each fault
"""

from __future__ import annotations

import contextlib
import gc
import glob
import io
import os
import random
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from typing import NamedTuple

from dlwhy.cli.main import main

LIMITS = (
    0, 1, 2, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1,
    (1 << 64) - 4096,
)  # fmt: skip
TABLES = (4, 5, 6, 7, 23, 0x6FFFFEF5, 0x6FFFFFFE, 0x6FFFFFFC, 0x6FFFFFF0)
"""Tags whose value is the address of a table."""
ALLOWED = {"check": (0, 10, 11), "tls": (0, 1), "tree": (0, 1, 10, 11), "floor": (0, 1)}
TOO_LONG = 1.0
"""Seconds of processor time for one answer."""


class Campaign(NamedTuple):
    """What came of it."""

    seed: int
    statuses: Counter[tuple[str, int]]
    faults: list[str]


def libraries() -> list[tuple[str, bytes]]:
    """Small libraries of this machine, of all its multiarch directories."""
    found = []
    for pattern in ("/usr/lib/*-linux-gnu/*.so.*", "/usr/lib/*-linux-gnu/*/*.so", "/usr/lib/*.so.*"):
        for path in sorted(glob.glob(pattern)):
            if not os.path.islink(path) and os.path.getsize(path) < 400_000:
                with open(path, "rb") as file:
                    data = file.read()
                if data[:6] == b"\x7fELF\2\1":
                    found.append((path, data))
    return found


def regions(data: bytes) -> list[tuple[int, int]]:
    """(offset, size) of what a reader looks at: header, program headers, dynamic section, each table."""
    (phoff,), (phnum,) = struct.unpack_from("<Q", data, 32), struct.unpack_from("<H", data, 56)
    found = [(0, 64), (phoff, 56 * phnum)]
    for number in range(phnum):
        kind, _, offset, _, _, size, _, _ = struct.unpack_from("<IIQQQQQQ", data, phoff + 56 * number)
        if kind == 2:
            found.append((offset, size))
            for at in range(offset, offset + size - 15, 16):
                tag, value = struct.unpack_from("<QQ", data, at)
                if tag in TABLES:
                    found.append((value, 2000))
    return found


def damaged(data: bytes, rng: random.Random) -> bytes:
    """A copy with one to sixteen faults."""
    places = regions(data)
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if rng.random() < 0.1:
            del made[rng.randrange(len(made) + 1) :]
        if len(made) < 64:
            break
        start, size = rng.choice(places) if rng.random() < 0.9 else (0, len(made))
        at = start + rng.randrange(max(size, 1))
        if at >= len(made):
            continue
        kind = rng.random()
        if kind < 0.4:
            made[at] ^= 1 << rng.randrange(8)
        elif kind < 0.6:
            made[at] = rng.randrange(256)
        else:
            width = rng.choice((2, 4, 8))
            at -= at % width
            value = rng.choice(LIMITS) if rng.random() < 0.7 else rng.randrange(len(made))
            made[at : at + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(made)


def campaign(path: str, count: int, seed: int | None) -> Campaign:
    """Put `count` damaged libraries, each written to `path`, to all commands."""
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    rng = random.Random(seed)
    bases = libraries()
    found = Campaign(seed, Counter(), [])
    for number in range(count):
        if number % 50 == 0:
            gc.collect()  # a command leaves its memory to the end of the process
        base, data = rng.choice(bases)
        with open(path, "wb") as file:
            file.write(damaged(data, rng))
        for command, allowed in ALLOWED.items():
            form = rng.choice(("text", "json"))
            out, err = io.StringIO(), io.StringIO()
            began = time.process_time()
            try:
                with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                    status = main([command, path, "--format", form])
            except Exception:  # noqa: BLE001 -- whatever leaves the command is a fault
                found.faults.append(f"{number} {command} {base}: {traceback.format_exc()}")
                continue
            taken = time.process_time() - began
            found.statuses[command, status] += 1
            if status not in allowed:
                found.faults.append(f"{number} {command} {base}: exit {status}: {err.getvalue()}")
            if command != "check" and status == 1 and len((out.getvalue() + err.getvalue()).splitlines()) == 0:
                found.faults.append(f"{number} {command} {base}: exit 1 without a word")
            if taken > TOO_LONG:
                found.faults.append(f"{number} {command} {base}: {taken:.1f} s")
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory:
        began = time.monotonic()
        result = campaign(f"{directory}/damaged.so", int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
        print(f"seed {result.seed}, {time.monotonic() - began:.0f} s, {dict(result.statuses)}")
        print(*result.faults, sep="\n")
        sys.exit(bool(result.faults))
