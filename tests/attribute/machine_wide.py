"""Named bytes of all TLS bytes on this machine: `python tests/attribute/machine_wide.py [DIR...]`.

Every regular ELF file with a TLS segment below the system's library and program directories (or DIR) is billed.
Files with a full symbol table are counted by themselves: there nothing but padding may be without a name.
"""

from __future__ import annotations

import os
import shutil
import stat
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from dlwhy.attribute.bill import Bill, bill
from dlwhy.attribute.evidence import gather
from dlwhy.elf.file import read
from dlwhy.errors import DlwhyError
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def directories() -> list[str]:
    """Return where programs and libraries of this machine lie: the system's, Python's and Rust's."""
    found = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/lib32",
        "/usr/libexec",
        "/usr/bin",
        "/usr/sbin",
        "/usr/local",
        "/opt",
        sys.prefix,
        sys.base_prefix,
    ]
    rustc = shutil.which("rustc")
    if rustc:
        done = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False)
        found += [done.stdout.strip()] if done.returncode == 0 else []
    return [path for path in found if os.path.isdir(path)]


def elf_files(roots: Iterable[str]) -> Iterator[str]:
    """Yield each regular ELF file below `roots` once; links are not followed."""
    seen = set()
    for root in roots:
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in sorted(files):
                path = os.path.join(folder, name)
                try:
                    status = os.lstat(path)
                    if not stat.S_ISREG(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                    with open(path, "rb") as file:
                        magic = file.read(4)
                except OSError:
                    continue
                if magic == b"\x7fELF":
                    yield path


def bills(roots: Iterable[str]) -> Iterator[Bill]:
    """Yield the bill of each file that has a TLS segment and is no separate debug file."""
    for path in elf_files(roots):
        files = Files()
        try:
            elf = read(files.open(path))
            if elf.tls and not elf.debug_only:
                yield bill(elf, gather(elf, files))
        except DlwhyError as error:
            print(f"not billed: {error}", file=sys.stderr)
        finally:
            files.close()


def _named(one: Bill) -> int:
    """The bytes with a name: not those that only a place tells of which code reaches."""
    return sum(share.bytes for share in one.shares if not (share.variable or "").startswith("variable at offset 0x"))


def table(found: list[Bill]) -> str:
    """Return the figures as text, one row for all files and one for those with a full symbol table."""
    heads = f"{'':24}{'files':>7}{'TLS bytes':>12}{'named':>12}{'by place':>9}{'padding':>9}{'unnamed':>9}"
    lines = [f"{heads}{'named/TLS':>11}{'median':>9}"]
    groups = (
        ("all", found),
        ("full symbol table", [b for b in found if b.complete]),
        ("the rest", [b for b in found if not b.complete]),
    )
    for title, group in groups:
        total = sum(b.size for b in group)
        named = sum(_named(b) for b in group)
        placed = sum(share.bytes for b in group for share in b.shares) - named
        padding, unnamed = sum(b.padding for b in group), sum(b.unattributed for b in group)
        each = [_named(b) / b.size for b in group]
        lines.append(
            f"{title:24}{len(group):7}{total:12}{named:12}{placed:9}{padding:9}{unnamed:9}"
            f"{named / (total or 1):11.1%}{statistics.median(each or [0]):9.0%}"
        )
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Print the table and the largest segments."""
    start = time.process_time()
    found = list(bills(arguments or directories()))
    print(table(found))
    print(f"{time.process_time() - start:.1f} s of CPU time, the walk included; the largest:")
    for one in sorted(found, key=lambda b: -b.size)[:15]:
        main_owner = f"{one.owners[0].owner} {one.owners[0].bytes}" if one.owners else "no name"
        print(f"{one.size:10} {one.model:36} {main_owner:36} {one.object}")


if __name__ == "__main__":
    main(sys.argv[1:])
