"""Memory: the peak of a fresh process that reads every file, as Linux counts it (VmHWM, resident)."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks import lief_reader, own
from benchmarks.agree import compare
from benchmarks.measure import Row

if TYPE_CHECKING:
    from collections.abc import Sequence

WHAT = "peak memory, facts and TLS facts"
READERS = {
    "dlwhy": "from benchmarks.own import own_facts as facts, own_tls as tls",
    "LIEF": "from benchmarks.lief_reader import lief_facts as facts, lief_tls as tls",
}
_CHILD = """\
import sys
{reader}
for path in sys.stdin.read().split("\\0"):
    for read in facts, tls:
        try:
            read(path)
        except Exception:
            pass
for line in open("/proc/self/status"):
    if line.startswith("VmHWM:"):
        print(line.split()[1])
"""


def rows(paths: tuple[str, ...], _rounds: int) -> list[Row]:
    """Return the line for LIEF."""
    agreed = [
        compare(own.own_facts, lief_reader.lief_facts, paths), compare(own.own_tls, lief_reader.lief_tls, paths)
    ]  # fmt: skip
    if any(one.unequal or not one.equal for one in agreed):
        return [Row("memory.LIEF", WHAT, "", "LIEF", None, ("no ratio: facts differ, see above",))]
    files = sorted(set(agreed[0].equal) & set(agreed[1].equal))
    peak = {name: peak_of(reader, files) for name, reader in READERS.items()}
    figures = f"{peak['dlwhy'] / 1e6:.1f} MB", f"LIEF {peak['LIEF'] / 1e6:.1f} MB"
    return [Row("memory.LIEF", f"{WHAT}: {len(files)} files", *figures, peak["LIEF"] / peak["dlwhy"])]


def peak_of(reader: str, paths: Sequence[str]) -> int:
    """Return the peak resident memory in bytes of a process that reads all files with one reader."""
    done = subprocess.run(
        [sys.executable, "-c", _CHILD.format(reader=reader)], input="\0".join(paths).encode("utf-8", "surrogateescape"),
        capture_output=True, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )  # fmt: skip
    return int(done.stdout) * 1024
