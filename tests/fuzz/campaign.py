"""Many mutated files: what came of them, and each finding as a few changes to a seed."""

from __future__ import annotations

import json
import os
import random
import re
import time
import zlib
from typing import TYPE_CHECKING, Any

from . import mutators, seeds
from .stage import BY_NAME, SECONDS, WAYS, Finding, Stage, Way

if TYPE_CHECKING:
    from collections.abc import Iterator

_TRIES = 400
"""Questions asked to make one finding small."""


class Tally:
    """What one process found. `Found` is by key: the smallest file that shows it counts."""

    def __init__(self) -> None:
        self.runs = 0
        self.seconds = 0.0
        self.statuses: dict[tuple[str, object], int] = {}
        self.found: dict[tuple[str, str], tuple[str, bytes, Finding]] = {}

    def ask(self, stage: Stage, way: Way, data: bytes, seconds: float = SECONDS) -> None:
        """Ask one question and keep what is wrong."""
        self.runs += 1
        for one in stage.findings(way, data, seconds):
            known = self.found.get(one.key)
            if known is None or len(data) < len(known[1]):
                self.found[one.key] = way.name, data, one

    def save(self, path: str, stage: Stage) -> None:
        """Write everything to `path`, whole or not at all."""
        rows = [(way, data.hex(), *finding) for way, data, finding in self.found.values()]
        statuses = [(way, what, count) for (way, what), count in stage.statuses.items()]
        with open(path + ".new", "w", encoding="utf-8", errors="backslashreplace") as file:
            json.dump({"runs": self.runs, "seconds": self.seconds, "statuses": statuses, "found": rows}, file)
        os.replace(path + ".new", path)

    def add(self, path: str) -> None:
        """Take in what another process saved."""
        with open(path, encoding="utf-8") as file:
            saved = json.load(file)
        self.runs += saved["runs"]
        self.seconds += saved["seconds"]
        for way, what, count in saved["statuses"]:
            self.statuses[way, what] = self.statuses.get((way, what), 0) + count
        for way, data, *finding in saved["found"]:
            one = Finding(*finding)
            self.found.setdefault(one.key, (way, bytes.fromhex(data), one))


def pools(with_libraries: bool) -> dict[str, list[bytes]]:
    """Family of seeds -> the files of it."""
    made = seeds.built() | (seeds.of_machine() if with_libraries else {})
    found = {family: [data for name, data in made.items() if name.startswith(family)] for family in _FAMILIES}
    found["elf"] += [data for name, data in made.items() if name.startswith("machine")]
    return found


_FAMILIES = tuple(dict.fromkeys(way.seeds for way in WAYS))
FAMILIES = {family: [number for number, way in enumerate(WAYS) if way.seeds == family] for family in _FAMILIES}
"""Family of seeds -> the numbers of its ways."""


def inputs(seed: int, pool: dict[str, list[bytes]]) -> Iterator[tuple[Way, bytes]]:
    """Ways and mutated files without end, the same for one seed: each way as often as any other."""
    rng = random.Random(seed)
    while True:
        for way in WAYS:
            files = pool[way.seeds]
            yield way, mutators.mutate(rng.choice(files), rng, files)


def blind(stage: Stage, runs: int, seed: int, pool: dict[str, list[bytes]]) -> Tally:
    """Ask about so many mutated seeds; coverage plays no part."""
    tally = Tally()
    began = time.process_time()
    for _, (way, data) in zip(range(runs), inputs(seed, pool), strict=False):
        tally.ask(stage, way, data)
    tally.seconds = time.process_time() - began
    tally.statuses = stage.statuses
    return tally


# -- making a finding small --------------------------------------------------------------------------------------------


def changes(data: bytes, base: bytes) -> list[tuple[int, bytes]]:
    """What to write over `base`, cut or filled up with zeros to the size of `data`, to get `data`."""
    start = base[: len(data)].ljust(len(data), b"\0")
    result: list[tuple[int, bytes]] = []
    for at, (have, wanted) in enumerate(zip(start, data, strict=True)):
        if have == wanted:
            continue
        if result and at == result[-1][0] + len(result[-1][1]):
            result[-1] = result[-1][0], result[-1][1] + bytes([wanted])
        else:
            result.append((at, bytes([wanted])))
    return result


def patched(base: bytes, size: int, patches: list[tuple[int, bytes]]) -> bytes:
    """`base`, cut or filled up to `size`, with other bytes at some places."""
    made = bytearray(base[:size].ljust(size, b"\0"))
    for at, new in patches:
        made[at : at + len(new)] = new
    return bytes(made)


def reduced(stage: Stage, way: Way, data: bytes, wanted: Finding) -> dict[str, Any] | None:
    """A finding as a seed, a size and the fewest changes that still show it; None when it does not show again."""
    left = _TRIES

    def shows(made: bytes) -> bool:
        nonlocal left
        left -= 1
        return any(one.key == wanted.key for one in stage.findings(way, made))

    if not shows(data):
        return None
    made = {name: base for name, base in seeds.built().items() if name.startswith(way.seeds)}
    name = min(made, key=lambda one: sum(len(new) for _, new in changes(data, made[one])))
    base = made[name]
    size = len(data)
    for other in (len(base), size - 4096, size // 2):
        if 0 < other != size and shows(data[:other].ljust(other, b"\0")):
            data, size = data[:other].ljust(other, b"\0"), other
            break
    patches = changes(data, base)
    piece = max(len(patches) // 2, 1)
    while left > 0:
        at = 0
        while at < len(patches) and left > 0:
            fewer = patches[:at] + patches[at + piece :]
            if shows(patched(base, size, fewer)):
                patches = fewer
            else:
                at += piece
        if piece == 1:
            break
        piece //= 2
    return {
        "way": way.name, "seed": name, "size": size, "patches": {hex(at): new.hex() for at, new in patches},
        "kind": wanted.kind, "where": wanted.where,
    }  # fmt: skip


def rebuilt(kept: dict[str, Any]) -> tuple[Way, bytes]:
    """The way and the file of a finding that was written down."""
    patches = [(int(at, 16), bytes.fromhex(new)) for at, new in kept["patches"].items()]
    return BY_NAME[kept["way"]], patched(seeds.built()[kept["seed"]], kept["size"], patches)


def write_down(directory: str, number: int, way: Way, data: bytes, one: Finding, kept: dict[str, Any]) -> str:
    """Write a finding to files of `directory`: the changes, the whole file, what was said. Return their common name."""
    told = re.sub(r"[^A-Za-z0-9]+", "-", f"{one.kind} {one.where}")[:60].strip("-")
    name = os.path.join(directory, f"{number:02}-{told}-{zlib.crc32(data):08x}")
    with open(name + ".json", "w", encoding="utf-8") as file:
        json.dump(kept, file, indent=1)
        file.write("\n")
    with open(name + ".bin", "wb") as binary:
        binary.write(rebuilt(kept)[1])
    with open(name + ".txt", "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{way.name}: {one.kind} at {one.where}\n\n{one.text}\n")
    return name
