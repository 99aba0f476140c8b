"""Sites: every instruction of the Rust compiler's library that reaches a TLS slot, against iced-x86 decoding it all."""

from __future__ import annotations

import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from benchmarks.bill import rust_library
from benchmarks.measure import Row
from dlwhy.attribute.sites import code_ranges, sites
from dlwhy.elf.file import read
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.elf.file import Elf

WHAT = "TLS access sites in code"


def rows(_paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the lines for the speed itself and for iced-x86."""
    library = rust_library()
    if library is None:
        told = ("no Rust compiler is installed",)
        return [Row("sites.speed", WHAT, "", "", None, told), Row("sites.iced", WHAT, "", "", None, told)]
    files = Files()
    elf = read(files.open(library))
    found = sites(elf)
    ours = _seconds(lambda: sites(elf), rounds)
    size = found.searched / 1e6
    what = f"{WHAT}: {library.rpartition('/')[2]}, {size:.0f} MB, {len(found.found)} sites"
    result = [Row("sites.speed", what, f"{1000 * ours:.0f} ms", "MB of code a second", size / ours)]
    try:
        name = f"iced-x86 {version('iced-x86')}"
    except PackageNotFoundError:
        return [*result, Row("sites.iced", what, "", "", None, ("iced-x86 is not installed",))]
    places: set[int] = set()
    theirs = _seconds(lambda: places.update(_decoded(elf, set(found.slots))), 1)
    files.close()
    if places != {one.address for one in found.found}:
        told = (f"no ratio, sites differ: {len(found.found)} by dlwhy, {len(places)} by {name}",)
        return [*result, Row("sites.iced", what, "", name, None, told)]
    return [*result, Row("sites.iced", what, f"{1000 * ours:.0f} ms", f"{name} {1000 * theirs:.0f} ms", theirs / ours)]


def _seconds(run: Callable[[], object], rounds: int) -> float:
    """Return the CPU seconds of one run: the median of `rounds`."""
    taken = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def _decoded(elf: Elf, slots: set[int]) -> set[int]:
    """Return the addresses of the instructions with an operand relative to rip that leads to a slot, by iced-x86."""
    from iced_x86 import Decoder, Register  # type: ignore[import-not-found,unused-ignore]

    result = set()
    for start, end in code_ranges(elf):
        decoder = Decoder(64, elf.at(start, end - start), ip=start)
        rip = Register.RIP
        for one in decoder:
            if one.memory_base == rip and one.memory_displacement in slots:  # type: ignore[redundant-expr,unused-ignore]
                result.add(one.ip)
    return result
