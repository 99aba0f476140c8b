"""Other glibc releases as real loaders: Debian's other suites, their packages unpacked below a cache directory.

The archive's address comes from this machine's own apt configuration; without one, or without a network, a suite is
reported as not run, with the reason.
"""

from __future__ import annotations

import functools
import lzma
import os
import re
import shutil
import subprocess
import urllib.error
import urllib.request
from fcntl import LOCK_EX, flock
from pathlib import Path

SUITES = {
    "bullseye": ("2.31", ("libc6", "libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1")),
    "trixie": ("2.41", ("libc6", "libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1")),
    "sid": ("", ("libc6", "libc-bin", "libgcc-s1", "libstdc++6", "zlib1g", "libcrypt1")),
}
"""Suite -> (its glibc, the packages that make a root for a C or C++ program)."""

_TIMEOUT = 60


def cache() -> Path:
    """Where sysroots and compiled scenarios are kept."""
    return Path(
        os.environ.get("DLWHY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlwhy"
    )


def archive() -> str | None:
    """The address of the Debian archive in apt's configuration, or None."""
    found = []
    for path in [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]:
        try:
            text = path.read_text(errors="replace")
        except OSError:
            continue
        if path.suffix == ".sources":
            for stanza in text.split("\n\n"):
                fields: dict[str, str] = dict(re.findall(r"(?m)^([A-Za-z-]+):\s*(.*)$", stanza))
                if "main" in fields.get("Components", "").split() and fields.get("Suites"):
                    found += [(uri, fields["Suites"]) for uri in fields.get("URIs", "").split()]
        else:
            found += [(m[1], m[2]) for m in re.finditer(r"(?m)^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s.*\bmain\b", text)]
    for uri, suites in found:
        if uri.rstrip("/").endswith("/debian") and "security" not in suites.split()[0]:
            return uri.rstrip("/")
    return None


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_TIMEOUT) as answer:  # apt's own address
        data: bytes = answer.read()
    return data


def _unpack(suite: str, root: Path) -> None:
    base = archive()
    if base is None:
        raise OSError("apt's configuration names no Debian archive")
    index = lzma.decompress(_fetch(f"{base}/dists/{suite}/main/binary-amd64/Packages.xz")).decode()
    work = root.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    for directory in ("usr/lib", "usr/lib64", "usr/bin", "usr/sbin", "tmp", "proc", "dev"):
        (work / directory).mkdir(parents=True)
    for name in ("lib", "lib64", "bin", "sbin"):
        (work / name).symlink_to(f"usr/{name}")
    wanted = set(SUITES[suite][1])
    for stanza in index.split("\n\n"):
        package = re.match(r"Package: (\S+)", stanza)
        file = re.search(r"(?m)^Filename: (\S+)", stanza)
        if package and file and package[1] in wanted:
            deb = work / "tmp" / "package.deb"
            deb.write_bytes(_fetch(f"{base}/{file[1]}"))
            tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", deb], capture_output=True, check=True).stdout
            subprocess.run(["tar", "-x", "-C", work, "--keep-directory-symlink"], input=tar, check=True)
            deb.unlink()
            wanted.discard(package[1])
    if wanted:
        raise OSError(f"{suite} has no package {', '.join(sorted(wanted))}")
    subprocess.run(
        [shutil.which("ldconfig", path="/sbin:/usr/sbin") or "ldconfig", "-r", work], check=True, capture_output=True
    )
    work.rename(root)


@functools.cache
def sysroot(suite: str) -> tuple[Path | None, str]:
    """(root, "") of a suite, or (None, why it cannot be had). A failure is final for this process."""
    root = cache() / "sysroots" / suite
    if root.is_dir():
        return root, ""
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Path(f"{root}.lock").open("w") as lock:  # the workers of one run start together
            flock(lock, LOCK_EX)
            if not root.is_dir():
                _unpack(suite, root)
    except (OSError, urllib.error.URLError, subprocess.CalledProcessError, lzma.LZMAError) as error:
        return None, f"not run: {suite}: {error}"
    return root, ""


def roots() -> dict[str, Path | str]:
    """Loader name -> its root ("/" is this machine), or the reason why it is not run."""
    found: dict[str, Path | str] = {"this machine": Path("/")}
    if os.geteuid() != 0:
        return found | dict.fromkeys(SUITES, "not run: only root may chroot")
    for suite in SUITES:
        root, why = sysroot(suite)
        found[suite] = root if root is not None else why
    return found
