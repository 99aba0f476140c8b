"""Bill: `dlwhy tls --no-code` on the Rust compiler's library of 150 MB, against readelf listing its symbols."""

from __future__ import annotations

import shutil
import subprocess
import sys
from glob import glob

import dlwhy
from benchmarks.measure import PLAIN, Row, environment, milliseconds, running, script

WHAT = "whose TLS it is"


def rows(_paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the line for readelf."""
    library, readelf = rust_library(), shutil.which("readelf")
    if library is None or readelf is None:
        lacking = "readelf is not installed (Debian: binutils)" if readelf is None else "no Rust compiler is installed"
        return [Row("bill.readelf", WHAT, "", "", None, (lacking,))]
    what = f"{WHAT}: {library.rpartition('/')[2]}"
    ours, theirs = named_by_dlwhy(library), named_by_readelf(readelf, library)
    if ours != theirs:
        told = f"no ratio, facts differ: {ours} bytes of TLS have a name by dlwhy, {theirs} by readelf"
        return [Row("bill.readelf", what, "", "readelf -sW", None, (told,))]
    with script(PLAIN) as command:
        words = (sys.executable, command, "tls", "--no-code", library)
        commands = {"dlwhy": words, "readelf": (readelf, "-sW", library)}
        taken = running(commands, 2 * rounds, environment())
    return [Row(
        "bill.readelf", f"{what}, {ours} bytes of TLS variables", milliseconds(taken["dlwhy"]),
        f"readelf -sW {milliseconds(taken['readelf'])}", taken["dlwhy"] / taken["readelf"],
    )]  # fmt: skip


def rust_library() -> str | None:
    """Return librustc_driver of the Rust compiler in PATH, None when there is none."""
    rustc = shutil.which("rustc")
    if rustc is None:
        return None
    done = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False)
    found = sorted(glob(f"{done.stdout.strip()}/lib/librustc_driver-*.so")) if done.returncode == 0 else []
    return found[0] if found else None


def named_by_dlwhy(library: str) -> int:
    """Return how many bytes of the TLS segment dlwhy says whose they are."""
    made = dlwhy.tls([library]).files[0].tls
    return made.size - made.padding - made.unattributed if made is not None else 0


def named_by_readelf(readelf: str, library: str) -> int:
    """Return how many bytes of the TLS segment the defined TLS symbols cover that readelf lists."""
    done = subprocess.run([readelf, "-sW", library], env=environment(), capture_output=True, text=True, check=True)
    pieces = set()
    for line in done.stdout.splitlines():
        words = line.split()  # number: value size type binding visibility section name
        if len(words) > 7 and words[3] == "TLS" and words[6] != "UND":
            pieces.add((int(words[1], 16), int(words[2], 0)))
    covered = end = 0
    for start, size in sorted(pieces):
        covered += max(0, start + size - max(start, end))
        end = max(end, start + size)
    return covered
