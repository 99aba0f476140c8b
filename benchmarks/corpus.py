"""The corpus: every ELF file below the system's library and program directories."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOTS = (
    "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32",
    "/usr/libexec", "/usr/bin", "/usr/sbin", "/usr/local/lib", "/usr/local/libexec", "/usr/local/bin",
    "/usr/local/sbin",
)  # fmt: skip
"""Library and program directories (hier(7)); those that are links to others are not walked twice."""


class Corpus(NamedTuple):
    """Files to read, and how many bytes they are."""

    paths: tuple[str, ...]
    size: int


def collect(roots: Sequence[str] = ROOTS) -> Corpus:
    """Return every regular ELF file below the directories: hard links once, symbolic links not followed, sorted."""
    seen: set[tuple[int, int]] = set()
    paths = []
    size = 0
    for root in roots:
        if os.path.islink(root):
            continue
        for entry in _files(root):
            stat = entry.stat(follow_symlinks=False)
            if (stat.st_dev, stat.st_ino) not in seen and _is_elf(entry.path):
                seen.add((stat.st_dev, stat.st_ino))
                paths.append(entry.path)
                size += stat.st_size
    return Corpus(tuple(sorted(paths)), size)


def _files(root: str) -> Iterator[os.DirEntry[str]]:
    try:
        entries = list(os.scandir(root))
    except OSError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path)
        elif entry.is_file(follow_symlinks=False):
            yield entry


def _is_elf(path: str) -> bool:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False
