"""Names: the crate of every symbol of the Rust compiler's library, its names in full, and names that mean harm.

What a name in full must read as tells rustc-demangle, in a small program that cargo builds; no name's text is timed
against it, for a report has hundreds of names where a table has a hundred thousand.
"""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.bill import rust_library
from benchmarks.measure import Row, environment
from dlwhy.attribute.demangle_rust import demangle_rust, rust_crate
from dlwhy.attribute.owners import peel
from tests.attribute.hostile_names import HOSTILE

if TYPE_CHECKING:
    from collections.abc import Sequence

CRATES = "crate of a symbol"
TEXTS = "Rust names in full"
HARMFUL = "Rust names that mean harm, the slowest"
ENOUGH = 100_000
"""Names that the library must have."""
REFERENCE = Path(__file__).resolve().parent.parent / "tests/attribute/rust_reference"
_NAME = re.compile(rb"(?<=\0)(?:_R[CNMXYIB][0-9A-Za-z_$.]+|_ZN[0-9A-Za-z_$.]+17h[0-9a-f]{16}E[0-9A-Za-z_$.]*)(?=\0)")


def rows(_paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the lines for crates, for texts and for harm."""
    library = rust_library()
    if library is None:
        told = ("no Rust compiler is installed",)
        return [Row("names.crates", CRATES, "", "", None, told), Row("names.texts", TEXTS, "", "", None, told), harm()]
    names = names_of(library)
    where = f"{library.rpartition('/')[2]}, {len(names)} names"
    each = 1e6 * statistics.median(_crates(names) for _ in range(rounds)) / len(names)
    found = sum(rust_crate(peel(name)) is not None for name in names)
    crates = Row(
        "names.crates", f"{CRATES}: {where}", f"{each:.2f} µs a name", f"µs a name; {found} have a crate", each
    )
    return [crates, texts(names, f"{TEXTS}: {where}"), harm()]


def names_of(library: str) -> list[str]:
    """Return the Rust names that stand between two zeros in a file, each once and in order."""
    return sorted(name.decode("ascii") for name in set(_NAME.findall(Path(library).read_bytes())))


def _crates(names: Sequence[str]) -> float:
    """Return the CPU seconds in which the crate of every name is told."""
    start = time.process_time()
    for name in names:
        rust_crate(peel(name))
    return time.process_time() - start


def texts(names: Sequence[str], what: str) -> Row:
    """Return the line for the names in full: the ratio is how many in a hundred are equal to the reference's."""
    if len(names) < ENOUGH:
        return Row("names.texts", what, "", "rustc-demangle", None, (f"fewer than {ENOUGH} names",))
    expected = by_reference(names)
    if expected is None:
        lacking = "rustc-demangle could not be fetched and built by cargo"
        return Row("names.texts", what, "", "rustc-demangle", None, (lacking,))
    start = time.process_time()
    read = [demangle_rust(name) or "" for name in names]
    each = 1e6 * (time.process_time() - start) / len(names)
    wrong = [name for name, ours, theirs in zip(names, read, expected, strict=True) if ours != theirs]
    notes = (f"read unlike rustc-demangle: {len(wrong)} names, of them {wrong[0]}",) if wrong else ()
    ratio = 100 * (len(names) - len(wrong)) / len(names)
    return Row("names.texts", what, f"{each:.1f} µs a name", "% equal to rustc-demangle", ratio, notes)


def by_reference(names: Sequence[str]) -> list[str] | None:
    """Return what rustc-demangle reads each name as, empty where it refuses; None where cargo cannot build it."""
    cargo = shutil.which("cargo")
    if cargo is None:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        project = shutil.copytree(REFERENCE, Path(scratch, "reference"), ignore=shutil.ignore_patterns("target"))
        built = subprocess.run([cargo, "build", "--release", "-q"], cwd=project, capture_output=True, check=False)
        if built.returncode:
            return None
        done = subprocess.run(
            [project / "target/release/rust-reference"], input="\n".join(names), env=environment(),
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    return done.stdout.split("\n")[: len(names)]


def harm() -> Row:
    """Return the line for names that ask for gigabytes, endless recursion or quadratic work."""
    taken = {}
    for name in HOSTILE:
        start = time.process_time()
        demangle_rust(name)
        rust_crate(peel(name))
        taken[name] = 1000 * (time.process_time() - start)
    worst = max(taken, key=taken.__getitem__)
    what = f"{HARMFUL} of {len(taken)}: {worst[:12]}..., {len(worst)} characters"
    return Row("names.harm", what, f"{taken[worst]:.1f} ms", "ms", taken[worst])
