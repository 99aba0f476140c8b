"""Facts of this machine's files as pyelftools, LIEF and readelf read them.

All files, by hand: `python -m tests.elf.test_machine_wide`; a test takes a sample and prints its seed.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import corpus
from benchmarks.agree import compare
from benchmarks.lief_reader import lief_facts, lief_tls
from benchmarks.own import own_facts, own_tls
from benchmarks.pyelftools_reader import pyelftools_facts
from dlwhy.elf.constants import DT_GNU_HASH, DT_HASH
from dlwhy.elf.file import Elf
from dlwhy.elf.relocs import _pieces, relr, split_info, tables
from dlwhy.elf.symbols import gnu_hash
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS = ["NOTYPE", "OBJECT", "FUNC", "SECTION", "FILE", "COMMON", "TLS", "7", "8", "9", "IFUNC"]
BINDS = {0: "LOCAL", 1: "GLOBAL", 2: "WEAK", 10: "UNIQUE"}
VISIBILITIES = ["DEFAULT", "INTERNAL", "HIDDEN", "PROTECTED"]
INDEXES = {0: "UND", 0xFFF1: "ABS", 0xFFF2: "COM"}
_SYMBOL = re.compile(
    rb"^ *(\d+): ([0-9a-f]+) +(\d+|0x[0-9a-f]+) (\S+) +(<OS specific>: 10|\S+) +(\S+) +"
    rb"(?:\[[^]]*\] +)?(\S+)(?: ([^\n]*))?$",
    re.MULTILINE,
)


def symbols_of(path: str) -> list[tuple[int, int, int, str, str, str, str, bytes]]:
    """Every dynamic symbol as our reader has it, with its version as readelf writes it."""
    files = Files()
    elf = Elf(files.open(path))
    found = []
    names = elf.versions.by_index()
    needs = {need.index for need in elf.versions.needs}
    for index in range(elf.symbols.count):
        one = elf.symbols.symbol(index)
        name = one.name
        if elf.versions.has_versym and one.name:
            entry = elf.versions.index_of(index)
            version = names.get(entry & 0x7FFF)
            # readelf writes no version to the symbol that is the version itself
            if version is not None and entry & 0x7FFF > 1 and version[0].encode() != name:
                mark = "@" if entry & 0x8000 or entry & 0x7FFF in needs else "@@"
                name += f"{mark}{version[0]}".encode()
        found.append((
            index, one.value, one.size, KINDS[one.type], BINDS[one.binding], VISIBILITIES[one.visibility],
            INDEXES.get(one.shndx, str(one.shndx)), name,
        ))  # fmt: skip
    files.close()
    return found


def symbols_of_readelf(path: str) -> list[tuple[int, int, int, str, str, str, str, bytes]]:
    """Every dynamic symbol as readelf prints it."""
    text = subprocess.run(["readelf", "-W", "--dyn-syms", path], capture_output=True, check=False).stdout
    found = []
    for number, value, size, kind, bind, visibility, index, name in _SYMBOL.findall(text):
        binding = "UNIQUE" if bind.startswith(b"<OS") else bind.decode()
        words = (kind.decode(), binding, visibility.decode(), index.decode())
        found.append((int(number), int(value, 16), int(size, 0), *words, re.sub(rb" \(\d+\)$", b"", name)))
    return found


_RELOCATION = re.compile(rb"^([0-9a-f]{8,16})  ([0-9a-f]{8,16}) ", re.MULTILINE)
_RELR = re.compile(rb"^([0-9a-f]{8,16})$", re.MULTILINE)


def relocations_of(path: str) -> dict[str, Any]:
    """Every dynamic relocation's place and r_info, and every address of DT_RELR, as our reader has them."""
    files = Files()
    elf = Elf(files.open(path))
    found = []
    for table in tables(elf):
        layout = elf.layout.rela if table.rela else elf.layout.rel
        for data in _pieces(elf, table, 0, layout.size):
            found += [row[:2] for row in layout.iter_unpack(data)]
    assert all(split_info(elf, info)[0] < max(elf.symbols.count, 1 << 24) for _, info in found)
    result = {"relocations": found, "relr": list(relr(elf))}
    files.close()
    return result


def relocations_of_readelf(path: str) -> dict[str, Any]:
    """The same, as readelf prints them by what the dynamic section says."""
    text = subprocess.run(["readelf", "-W", "--use-dynamic", "-r", path], capture_output=True, check=False).stdout
    plain = text.partition(b"'RELR' relocation section")
    found = [(int(place, 16), int(info, 16)) for place, info in _RELOCATION.findall(plain[0] + plain[2])]
    return {"relocations": found, "relr": [int(place, 16) for place in _RELR.findall(plain[2])]}


def lookups(path: str) -> list[str]:
    """Names that a hash lookup does not find although the table has them, or finds elsewhere."""
    files = Files()
    elf = Elf(files.open(path))
    tags = elf.dynamic.tags if elf.dynamic else {}
    wanted: dict[bytes, list[int]] = {}
    if DT_GNU_HASH in tags or DT_HASH in tags:
        for index in range(elf.symbols.count):
            one = elf.symbols.symbol(index)
            if one.shndx and one.binding and one.name:
                wanted.setdefault(one.name, []).append(index)
    found = elf.symbols.look_up({name: gnu_hash(name) for name in wanted})
    wrong = [
        name.decode("utf-8", "replace")
        for name, places in wanted.items()
        if sorted(i for i in found.get(name, ()) if elf.symbols.symbol(i).shndx) != places
    ]
    files.close()
    return wrong


def disagreements(paths: tuple[str, ...]) -> tuple[dict[str, int], list[str]]:
    """Compare every fact of the files with every oracle: how many agreed, and a line for each that did not."""
    counts: dict[str, int] = {}
    lines: list[str] = []
    pairs: list[tuple[str, Callable[[str], Any], Callable[[str], Any]]] = [
        ("facts, LIEF", own_facts, lief_facts), ("tls, LIEF", own_tls, lief_tls),
        ("facts, pyelftools", own_facts, pyelftools_facts),
    ]  # fmt: skip
    for name, ours, theirs in pairs:
        agreed = compare(ours, theirs, paths)
        counts[name] = len(agreed.equal)
        counts[f"{name}: they cannot read"] = len(agreed.excused)
        lines += [f"{name}: {line}" for line in agreed.unequal]
    for path in paths:
        files = Files()
        elf = Elf(files.open(path))
        files.close()
        if elf.dynamic is None or elf.debug_only:
            continue
        for name, own, theirs in (
            ("symbols", symbols_of, symbols_of_readelf), ("relocations", relocations_of, relocations_of_readelf),
        ):  # fmt: skip
            one, two = own(path), theirs(path)
            if one == two:
                counts[name] = counts.get(name, 0) + 1
            else:
                lines.append(f"{name}: {path}: {difference(one, two)}")
        wrong = lookups(path)
        counts["lookups"] = counts.get("lookups", 0) + (not wrong)
        lines += [f"lookup: {path}: {name}" for name in wrong[:3]]
    return counts, lines


def difference(one: Any, two: Any) -> str:
    """The first place where two answers differ."""
    if isinstance(one, dict):
        return "; ".join(f"{key}: {difference(one[key], two[key])}" for key in one if one[key] != two[key])
    for a, b in zip(one, two, strict=False):
        if a != b:
            return f"ours {a}, theirs {b}"
    return f"ours {len(one)}, theirs {len(two)}"


@pytest.mark.machine
@pytest.mark.oracle
@pytest.mark.slow
def test_facts_of_a_sample() -> None:
    """Of a sample of this machine's files every fact is as pyelftools, LIEF and readelf have it."""
    seed = random.SystemRandom().randrange(1 << 32)
    paths = [path for path in corpus.collect(("/usr/lib", "/usr/bin")).paths if os.path.getsize(path) < 2_000_000]
    sample = random.Random(seed).sample(paths, min(150, len(paths)))
    counts, lines = disagreements(tuple(sample))
    print(f"seed {seed}: {counts}")
    assert lines == [], f"seed {seed}"
    assert counts["symbols"] > len(sample) // 2


if __name__ == "__main__":
    began = time.process_time()
    everything = corpus.collect(("/usr/lib", "/usr/bin"))
    print(f"{len(everything.paths)} files, {everything.size} bytes", flush=True)
    totals, faults = disagreements(everything.paths)
    print(totals, f"{time.process_time() - began:.0f} s", *faults, sep="\n")
    sys.exit(bool(faults))
