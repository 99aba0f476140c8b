"""Access sites of ELF files against `objdump -d`: `python -m tests.attribute.access_oracle FILE...` prints a table.

The yardstick is the disassembly alone. x86-64: every operand relative to the instruction pointer that leads to a slot
of a TLS relocation, every %fs:<negative>, and in programs the two instructions that linkers make of a general-dynamic
access, mov %fs:0,%rax and lea <negative>(%rax),%rax. aarch64: every ldr (of a TPOFF or TLSDESC slot) and add (of a
DTPMOD slot) whose register holds the page that an adrp of the same function put there.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from typing import NamedTuple

from dlwhy.attribute.sites import Sites, sites
from dlwhy.elf.constants import DF_1_PIE, ET_EXEC
from dlwhy.elf.file import Elf, read
from dlwhy.elf.machine import EM_AARCH64
from dlwhy.files import Files

_RIP = re.compile(r"\s*([0-9a-f]+):.*# ([0-9a-f]+)\b")
_FS = re.compile(r"\s*([0-9a-f]+):.*%fs:0xf{8}[0-9a-f]{8}\b")
_POINTER = re.compile(r"\s*([0-9a-f]+):\s+mov\s+%fs:0x0,%rax$")
_LEA = re.compile(r"\s*[0-9a-f]+:\s+lea\s+-0x[0-9a-f]+\(%rax\),%rax$")
_LINE = re.compile(r"\s*([0-9a-f]+):\s+(\S+)\s*(.*)")
_NO_RESULT = ("st", "b", "cb", "tb", "cmp", "cmn", "tst", "ccmp", "nop", "ret", "prfm", "dmb", "dsb", "fcmp", "msr")


class Comparison(NamedTuple):
    """How our sites and objdump's differ."""

    path: str
    ours: set[tuple[int, int]]
    theirs: set[tuple[int, int]]
    """(address of the instruction, address of the slot or -1 for local-exec)."""
    searched: int
    seconds: float

    @property
    def precision(self) -> float:
        """How many of ours objdump has as well."""
        return len(self.ours & self.theirs) / len(self.ours) if self.ours else 1.0

    @property
    def recall(self) -> float:
        """How many of objdump's we found."""
        return len(self.ours & self.theirs) / len(self.theirs) if self.theirs else 1.0


def compare(path: str) -> Comparison | None:
    """Compare one file; None where no objdump of its machine is here."""
    files = Files()
    elf = read(files.open(path))
    tool = shutil.which("aarch64-linux-gnu-objdump" if elf.machine == EM_AARCH64 else "objdump")
    if tool is None:
        return None
    start = time.process_time()
    found = sites(elf)
    seconds = time.process_time() - start
    ours = {(one.address, -1 if one.model == "local-exec" else one.slot) for one in found.found}
    theirs = (_aarch64 if elf.machine == EM_AARCH64 else _x86_64)(tool, elf, found)
    files.close()
    if elf.machine == EM_AARCH64:  # local-exec is no single instruction there
        ours = {one for one in ours if one[1] != -1}
    return Comparison(path, ours, theirs, found.searched, seconds)


def _lines(tool: str, path: str) -> subprocess.Popen[str]:
    return subprocess.Popen([tool, "-d", "--no-show-raw-insn", path], stdout=subprocess.PIPE, text=True)


def _x86_64(tool: str, elf: Elf, found: Sites) -> set[tuple[int, int]]:
    theirs = set()
    pointer: re.Match[str] | None = None  # the instruction before is one that fetches the thread pointer
    program = elf.type == ET_EXEC or (elf.dynamic is not None and elf.dynamic.flags_1 & DF_1_PIE)
    with _lines(tool, elf.path) as child:
        assert child.stdout is not None
        for line in child.stdout:
            before, pointer = pointer, None
            if program and "%rax" in line:
                pointer = _POINTER.match(line)
                if before and _LEA.match(line):
                    theirs.add((int(before[1], 16), -1))
            if "(%rip)" in line:
                match = _RIP.match(line)
                if match and int(match[2], 16) in found.slots:
                    theirs.add((int(match[1], 16), int(match[2], 16)))
            elif "%fs:0xffffffff" in line:
                match = _FS.match(line)
                if match:
                    theirs.add((int(match[1], 16), -1))
    return theirs


def _aarch64(tool: str, elf: Elf, found: Sites) -> set[tuple[int, int]]:
    theirs = set()
    pages: dict[str, int] = {}
    with _lines(tool, elf.path) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if line.endswith(">:\n"):  # a function begins
                pages.clear()
                continue
            match = _LINE.match(line)
            if not match:
                continue
            name, operands = match[2], re.findall(r"[\w.]+", match[3])
            use = re.match(r"(x\d+), \[?(x\d+)(?:, #(0x[0-9a-f]+|\d+))?\]?$", match[3].split("//")[0].strip())
            if name in ("ldr", "add") and use and use[2] in pages:
                slot = found.slots.get(pages[use[2]] + int(use[3] or "0", 0))
                if slot is not None and (slot.kind == "dtpmod") == (name == "add"):
                    theirs.add((int(match[1], 16), slot.address))
            if name == "adrp":
                pages[operands[0]] = int(operands[1], 16)
            elif name in ("bl", "blr"):
                for register in [f"x{n}" for n in range(19)]:  # what a call may change (AAPCS64)
                    pages.pop(register, None)
            elif not name.startswith(_NO_RESULT):
                for register in operands[: 2 if name.startswith("ldp") else 1]:
                    pages.pop(re.sub(r"^w", "x", register), None)
    return theirs


def main(paths: list[str]) -> None:
    """Print one line a file."""
    print("| file | code | sites | precision | recall | MB/s |\n|---|---|---|---|---|---|")
    for path in paths:
        one = compare(path)
        if one is None:
            print(f"no objdump for {path}", file=sys.stderr)
            continue
        print(
            f"| {path.rpartition('/')[2]} | {one.searched:,} | {len(one.theirs)} | {one.precision:.4f} "
            f"| {one.recall:.4f} | {one.searched / 1e6 / max(one.seconds, 1e-9):.0f} |", flush=True,
        )  # fmt: skip
        for title, some in (("only ours", one.ours - one.theirs), ("only objdump", one.theirs - one.ours)):
            for address, slot in sorted(some)[:5]:
                print(f"  {title}: {address:#x} -> {slot:#x}", file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1:])
