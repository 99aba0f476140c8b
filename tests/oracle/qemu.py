"""Other processors for real loaders: qemu's user mode emulation, which runs a program on the processor of one's choice.

The package is downloaded by apt into the cache and not installed.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from fcntl import LOCK_EX, flock
from pathlib import Path

from tests.oracle.sysroots import cache

PACKAGES = {"qemu-user-static": "qemu-x86_64-static", "qemu-user": "qemu-x86_64"}
"""Package -> the static emulator in it; newer suites have it in the second."""


@functools.cache
def qemu() -> tuple[Path | None, str]:
    """(the emulator, "") or (None, why it cannot be had)."""
    target = cache() / "qemu" / "qemu-x86_64"
    if target.exists():
        return target, ""
    target.parent.mkdir(parents=True, exist_ok=True)
    why = ["not run: no emulator of x86-64 can be had"]
    with Path(f"{target}.lock").open("w") as lock:  # the workers of one run start together
        flock(lock, LOCK_EX)
        for package, name in PACKAGES.items():
            if target.exists():
                break
            with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                try:
                    _take(package, name, Path(scratch), target)
                except (OSError, subprocess.SubprocessError, StopIteration) as error:
                    why.append(f"{package}: {error}")
    return (target, "") if target.exists() else (None, "; ".join(why))


def _take(package: str, name: str, scratch: Path, target: Path) -> None:
    subprocess.run(["apt-get", "download", package], cwd=scratch, check=True, capture_output=True, timeout=600)
    tar = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", next(scratch.glob("*.deb"))], check=True, capture_output=True
    ).stdout
    subprocess.run(["tar", "-x", f"./usr/bin/{name}"], input=tar, cwd=scratch, check=True, capture_output=True)
    made = scratch / "usr/bin" / name
    if b"statically linked" not in subprocess.run(["file", made], capture_output=True, check=False).stdout:
        ends = subprocess.run(["readelf", "-lW", made], capture_output=True, text=True, check=True).stdout
        if "INTERP" in ends:
            raise OSError(f"{name} is not statically linked, and would not run inside another root")
    shutil.move(made, target)
