"""Other processors for real loaders: QEMU's user mode emulation, and roots of their own in which caches may be made.

The emulator is this machine's, or comes from its own distribution by apt-get into the cache; nothing is installed.
"""

from __future__ import annotations

import fcntl
import functools
import random
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from tests.oracle.real import LIB
from tests.oracle.sysroots import cache

_NAME = "qemu-x86_64-static"
INSIDE = f"/{_NAME}"
"""Where a root has the emulator."""

MODELS = {
    "x86-64": ("qemu64", "x86-64"),
    "x86-64-v2": ("Nehalem", "x86-64-v2"),
    "AMD of x86-64-v3": ("max,vendor=AuthenticAMD", "x86-64-v3"),
    "Intel of x86-64-v3": ("max,vendor=GenuineIntel", "haswell"),
}
"""Processor -> (what QEMU calls it, what dlwhy calls it). QEMU has no AVX-512 to emulate."""


@functools.cache
def emulator() -> tuple[Path | None, str]:
    """(path, "") of a static user mode emulator, or (None, why there is none)."""
    own = shutil.which(_NAME)
    if own is not None:
        return Path(own), ""
    place = cache() / "qemu"
    target = place / _NAME
    if target.exists():
        return target, ""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:  # the workers of one run start together
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            try:
                command = ["apt-get", "download", "qemu-user-static"]
                subprocess.run(command, cwd=place, check=True, capture_output=True, timeout=300)
                package = next(place.glob("qemu-user-static_*.deb"))
                tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], check=True, capture_output=True).stdout
                subprocess.run(
                    ["tar", "-x", "-C", place, "--strip-components=3", f"./usr/bin/{_NAME}"], input=tar, check=True
                )
                package.unlink()
            except (OSError, subprocess.SubprocessError, StopIteration) as error:
                return None, f"not run: no {_NAME}, and apt-get does not bring it: {error}"
    return target, ""


def private(root: Path, to: Path) -> Path:
    """Make a root of its own in `to`: a copy of a suite's programs and libraries, or this machine's C library alone."""
    if root != Path("/"):
        to.mkdir()
        (to / "etc").mkdir()
        subprocess.run(["cp", "-a", "--", root / "usr", to / "usr"], check=True)
        for name in ("bin", "lib", "lib64", "sbin"):
            (to / name).symlink_to(f"usr/{name}")
        return to
    (to / LIB).mkdir(parents=True)
    (to / "lib64").mkdir()
    for path in (*Path("/", LIB).glob("ld-linux*"), *Path("/", LIB).glob("libc.so.6"), *Path("/", LIB).glob("libdl.*")):
        shutil.copy(path, to / LIB / path.name)
    (to / "lib64/ld-linux-x86-64.so.2").symlink_to(f"../{LIB}/ld-linux-x86-64.so.2")
    (to / "etc").mkdir()
    (to / "sbin").mkdir()
    shutil.copy(shutil.which("ldconfig", path="/sbin:/usr/sbin") or "ldconfig", to / "sbin/ldconfig")
    return to


SUBDIRECTORIES = (
    "", "glibc-hwcaps/x86-64-v2", "glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v4", "tls", "haswell", "x86_64",
    "avx512_1", "xeon_phi", "tls/haswell", "tls/x86_64", "x86_64/x86_64", "haswell/x86_64", "haswell/avx512_1",
    "haswell/avx512_1/x86_64", "avx512_1/x86_64", "tls/haswell/x86_64", "tls/x86_64/x86_64",
)  # fmt: skip
"""Where the loaders of some release may look for a library, within one directory."""


class Layout(NamedTuple):
    """Libraries in one directory: what to open, and where each lies with which level in its property note."""

    names: tuple[str, ...]
    files: tuple[tuple[str, int], ...]
    """(path below the directory, 0 for no note or the level from 1 on)."""


def layout(seed: int, count: int, prefix: str, noted: bool) -> Layout:
    """Return libraries that lie in subdirectories chosen by a seed."""
    rng = random.Random(seed)
    names = tuple(f"lib{prefix}{number}.so" for number in range(count))
    chosen = [(f"{place}/{name}".lstrip("/"), place) for name in names
              for place in rng.sample(SUBDIRECTORIES, rng.choice((1, 2, 3, 6, 10)))]  # fmt: skip
    return Layout(names, tuple((path, rng.choice((0, 1, 2, 3, 4)) if noted else 0) for path, _ in chosen))


def place(made: Layout, directory: Path, objects: list[Path]) -> None:
    """Copy the libraries to where they belong; `objects` are the library by the level of its note."""
    for path, level in made.files:
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(objects[level], target)


def library(directory: Path, level: int) -> Path:
    """Build a library whose property note asks for one level of x86-64, all below it included; 0: without a note."""
    source, target = directory / f"level{level}.s", directory / f"level{level}.so"
    note = '.section .note.gnu.property,"a"\n.balign 8\n.long 4, 16, 5\n.asciz "GNU"\n'
    note += f".long 0xc0008002, 4, {(1 << level) - 1}, 0\n"
    source.write_text((note if level else "") + '.section .note.GNU-stack,"",@progbits\n')
    subprocess.run(["gcc", "-shared", "-nostdlib", "-o", target, source], check=True, capture_output=True)
    return target
