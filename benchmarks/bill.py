"""Bill: `dlwhy tls` on the Rust compiler's library of 150 MB, against readelf listing its symbols; and its memory.

Once with the search for the code behind the relocations, as everybody runs it, and once without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from glob import glob

import dlwhy
from benchmarks.measure import PLAIN, Row, environment, milliseconds, running, script
from dlwhy.elf.constants import SHT_SYMTAB
from dlwhy.elf.file import read
from dlwhy.elf.relocs import tables
from dlwhy.files import Files

WHAT = "whose TLS it is"
ROWS = {"readelf": (f"{WHAT}, and which code uses it", ()), "names": (f"{WHAT} alone", ("--no-code",))}
"""Gate -> what is measured, and options."""
MEMORY = "peak memory above Python's"
ROOM = 32_000_000
"""Bytes that may be held beside twice the largest table."""
_CHILD = """\
import sys
if len(sys.argv) > 1:
    from dlwhy.cli.main import main
    try:
        main(["tls", sys.argv[1]])
    except SystemExit:
        pass
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1], file=sys.stderr)
"""


def rows(_paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the lines for readelf, with the code and without, and for memory."""
    library, readelf = rust_library(), shutil.which("readelf")
    if library is None or readelf is None:
        lacking = "readelf is not installed (Debian: binutils)" if readelf is None else "no Rust compiler is installed"
        each = [(gate, what) for gate, (what, _) in ROWS.items()] + [("memory", MEMORY)]
        return [Row(f"bill.{gate}", what, "", "", None, (lacking,)) for gate, what in each]
    name = library.rpartition("/")[2]
    ours, theirs = named_by_dlwhy(library), named_by_readelf(readelf, library)
    if ours != theirs:
        told = f"no ratio, facts differ: {ours} bytes of TLS have a name by dlwhy, {theirs} by readelf"
        against = [
            Row(f"bill.{gate}", f"{what}: {name}", "", "readelf -sW", None, (told,)) for gate, (what, _) in ROWS.items()
        ]
        return [*against, memory(library)]
    with script(PLAIN) as command:
        commands: dict[str, tuple[str, ...]] = {
            gate: (sys.executable, command, "tls", *options, library) for gate, (_, options) in ROWS.items()
        }
        taken = running({**commands, "their": (readelf, "-sW", library)}, 2 * rounds, environment())
    return [*(
        Row(
            f"bill.{gate}", f"{what}: {name}, {ours} bytes of TLS variables", milliseconds(taken[gate]),
            f"readelf -sW {milliseconds(taken['their'])}", taken[gate] / taken["their"],
        )
        for gate, (what, _) in ROWS.items()
    ), memory(library)]  # fmt: skip


def memory(library: str) -> Row:
    """Return the line for the peak of resident memory, above that of an interpreter that does nothing."""
    above = _peak(library) - _peak()
    largest = largest_table(library)
    allowed = 2 * largest + ROOM
    what = f"{MEMORY}: whose TLS it is, {library.rpartition('/')[2]}"
    told = f"twice the largest table ({largest / 1e6:.1f} MB) and {ROOM / 1e6:.0f} MB: {allowed / 1e6:.1f} MB"
    return Row("bill.memory", what, f"{above / 1e6:.1f} MB", told, above / allowed)


def largest_table(library: str) -> int:
    """Return the bytes of the largest table that a bill goes through: symbols or relocations, names not counted."""
    files = Files()
    elf = read(files.open(library))
    found = elf.section_of_type(SHT_SYMTAB)
    sizes = [len(elf.symbols.data), *(table.size for table in tables(elf))]
    files.close()
    return max([*sizes, found[0].size] if found is not None else sizes)


def _peak(*words: str) -> int:
    """Return the peak resident memory in bytes of a fresh interpreter, of `dlwhy tls` when there is a word."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return int(done.stderr.split()[-1]) * 1024


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
