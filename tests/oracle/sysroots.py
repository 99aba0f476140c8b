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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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


class Index:
    """The packages of one suite, as its archive lists them."""

    def __init__(self, suite: str, architecture: str = "amd64") -> None:
        """Raises `OSError` when there is no archive or it cannot be reached."""
        base = archive()
        if base is None:
            raise OSError("apt's configuration names no Debian archive")
        self._base = base
        self.suite = suite
        self._fields: dict[str, dict[str, str]] = {}
        self._providers: dict[str, str] = {}
        index = lzma.decompress(_fetch(f"{base}/dists/{suite}/main/binary-{architecture}/Packages.xz")).decode()
        for stanza in index.split("\n\n"):
            fields: dict[str, str] = dict(re.findall(r"(?m)^([A-Za-z0-9-]+): (.*)$", stanza))
            name = fields.get("Package")
            if name:
                self._fields[name] = fields
                for one in _names(fields.get("Provides", "")):
                    self._providers.setdefault(one[0], name)

    def matching(self, patterns: str) -> list[str]:
        """The names that fit any of the patterns, which spaces part. Raises `OSError` for one that none fits."""
        found = dict[str, None]()
        for pattern in patterns.split():
            names = [name for name in self._fields if re.fullmatch(pattern, name)]
            if not names:
                raise OSError(f"{self.suite} has no package {pattern}")
            found |= dict.fromkeys(names)
        return list(found)

    def has(self, name: str) -> bool:
        """Whether the suite has a package."""
        return name in self._fields

    def version(self, name: str) -> str:
        """The version that the suite has."""
        return self._fields[name]["Version"]

    def closure(self, names: Iterable[str], without: str = "") -> list[str]:
        """Packages and all that they depend on; of alternatives the first that the suite has.

        What fits the pattern `without` is left out, with all that only it depends on.
        """
        todo, found = sorted(names, reverse=True), dict[str, None]()
        while todo:
            name = todo.pop()
            if name in found or (without and re.fullmatch(without, name)):
                continue
            if name not in self._fields:
                raise OSError(f"{self.suite} has no package {name}")
            found[name] = None
            fields = self._fields[name]
            for choice in _names(f"{fields.get('Pre-Depends', '')},{fields.get('Depends', '')}"):
                known = [one for one in choice if one in self._fields]
                known += [self._providers[one] for one in choice if one in self._providers]
                todo += known[:1]
        return list(found)

    def package(self, name: str) -> Path:
        """The file of a package, kept in the cache."""
        if name not in self._fields:
            raise OSError(f"{self.suite} has no package {name}")
        file = self._fields[name]["Filename"]
        kept = cache() / "packages" / file.rpartition("/")[2]
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            own = kept.with_name(f"{kept.name}.{os.getpid()}")
            own.write_bytes(_fetch(f"{self._base}/{file}"))
            own.rename(kept)
        return kept


def _names(relation: str) -> list[list[str]]:
    """The names in a field such as Depends: a list of choices (Debian Policy 7.1)."""
    choices = ([re.match(r"[a-z0-9+.-]*", one.strip()) for one in part.split("|")] for part in relation.split(","))
    return [[one[0] for one in choice if one and one[0]] for choice in choices if any(one and one[0] for one in choice)]


def make_root(
    root: Path,
    index: Index,
    names: Iterable[str],
    extra: Callable[[Path], None] | None = None,
    emulator: Sequence[str | Path] = (),
) -> None:
    """Unpack packages into a new root, which appears when it is complete; `extra` adds to it before.

    No script of a package is run. What each brought is listed in /packages/NAME, one path a line. The cache is made by
    this machine's ldconfig, or by the root's own under an `emulator`.
    """
    work = root.with_suffix(".part")
    shutil.rmtree(work, ignore_errors=True)
    for directory in ("usr/lib", "usr/lib64", "usr/bin", "usr/sbin", "tmp", "proc", "dev", "packages"):
        (work / directory).mkdir(parents=True)
    for name in ("lib", "lib64", "bin", "sbin"):
        (work / name).symlink_to(f"usr/{name}")
    for name in names:
        tar = subprocess.run(["dpkg-deb", "--fsys-tarfile", index.package(name)], capture_output=True, check=True)
        unpack: list[str | Path] = ["tar", "-xv", "-C", work, "--keep-directory-symlink", "--quoting-style=literal"]
        listed = subprocess.run(unpack, input=tar.stdout, capture_output=True, check=True).stdout
        (work / "packages" / name).write_bytes(listed)
    if extra is not None:
        extra(work)
    own = work / "usr/sbin/ldconfig"
    ldconfig = shutil.which("ldconfig", path="/sbin:/usr/sbin") or "ldconfig"
    for left in (2, 1, 0):  # an emulator now and then dies of where the kernel put its own memory
        done = subprocess.run([*emulator, own if emulator else ldconfig, "-r", work], check=False, capture_output=True)
        if done.returncode >= 0 or not left:
            done.check_returncode()
            break
    work.rename(root)


def foreign(suite: str, debian: str) -> tuple[Path | None, str]:
    """(root, "") of a suite for another machine, Debian's name of which is given, or (None, why it cannot be had)."""
    from tests.oracle.machines import TARGETS, emulator  # which build on this file

    target = TARGETS[debian]
    words: tuple[Path, ...] = ()
    if target.qemu is not None:
        found, why = emulator(target.qemu)
        if found is None:
            return None, why
        words = (found,)
    return sysroot(suite, debian, words)


@functools.cache
def sysroot(suite: str, architecture: str = "amd64", emulator: tuple[Path, ...] = ()) -> tuple[Path | None, str]:
    """(root, "") of a suite, or (None, why it cannot be had). A failure is final for this process."""
    name = suite if architecture == "amd64" else f"{architecture}-{suite}"
    packages = SUITES[suite][1] if architecture == "amd64" else ("libc6", "libc-bin")
    return kept_root(
        name, suite, lambda root: make_root(root, Index(suite, architecture), packages, emulator=emulator)
    )


def kept_root(name: str, what: str, make: Callable[[Path], None]) -> tuple[Path | None, str]:
    """(root, "") of this name in the cache, made when it is not there; or (None, why `what` cannot be had)."""
    root = cache() / "sysroots" / name
    if root.is_dir():
        return root, ""
    root.parent.mkdir(parents=True, exist_ok=True)
    try:
        with Path(f"{root}.lock").open("w") as lock:  # the workers of one run start together
            flock(lock, LOCK_EX)
            if not root.is_dir():
                make(root)
    except (OSError, urllib.error.URLError, subprocess.CalledProcessError, lzma.LZMAError) as error:
        return None, f"not run: {what}: {error}"
    return root, ""


def roots(debian: str = "amd64") -> dict[str, Path | str]:
    """Loader name -> its root ("/" is this machine), or the reason why it is not run.

    `debian` is a machine by Debian's name of the architecture. Those of another one are named after it too.
    """
    if debian != "amd64":
        return _foreign_roots(debian)
    found: dict[str, Path | str] = {"this machine": Path("/")}
    if os.geteuid() != 0:
        return found | dict.fromkeys(SUITES, "not run: only root may chroot")
    for suite in SUITES:
        root, why = sysroot(suite)
        found[suite] = root if root is not None else why
    return found


def _foreign_roots(debian: str) -> dict[str, Path | str]:
    from tests.oracle.machines import TARGETS, why_not  # which build on this file

    target = TARGETS[debian]
    names = {f"{target.name} {suite}": suite for suite in target.suites}
    reason = "not run: only root may chroot" if os.geteuid() != 0 else why_not(target)
    if reason is not None:
        return dict.fromkeys(names, reason)
    found: dict[str, Path | str] = {}
    for name, suite in names.items():
        root, why = foreign(suite, debian)
        found[name] = root if root is not None else why
    return found
