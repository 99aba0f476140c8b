"""What is known of the hosts that people name: how they call dlopen, and how small their threads' stacks are.

A host without a row opens with RTLD_NOW, as `plain` does, and gives its threads the default stack.
"""

from __future__ import annotations

import re

from dlwhy.record import Record

RTLD_LAZY, RTLD_NOW = 1, 2
DEFAULT_STACK = 8 << 20
"""Bytes of a thread's stack without other wishes: the usual RLIMIT_STACK (pthread_create(3))."""


class KnownHost(Record):
    """One host program."""

    pattern: str
    """Regular expression for the base name of the executable."""
    binding: int
    """RTLD_LAZY or RTLD_NOW."""
    smallest_stack: int
    """Bytes of the smallest stack that the host asks for when it creates threads."""
    cite: str


HOSTS: tuple[KnownHost, ...] = (
    KnownHost(r"node(js)?", RTLD_LAZY, 4 * 8192, "node lib: process.dlopen flags default RTLD_LAZY; src/inspector_agent.cc: stack of 4 * 8192"),
    KnownHost(r"electron", RTLD_LAZY, 4 * 8192, "as node"),
    KnownHost(r"java", RTLD_LAZY, 1 << 20, "openjdk os_linux.cpp: dlopen(RTLD_LAZY); ThreadStackSize 1 MiB"),
    KnownHost(r"perl[0-9.]*", RTLD_LAZY, DEFAULT_STACK, "perl ext/DynaLoader/dl_dlopen.xs: RTLD_LAZY"),
    KnownHost(r"ruby[0-9.]*", RTLD_LAZY, 1 << 20, "ruby dln.c: RTLD_LAZY"),
    KnownHost(r"(python|pypy)[0-9.]*", RTLD_NOW, DEFAULT_STACK, "cpython sys.setdlopenflags default RTLD_NOW"),
)  # fmt: skip
_OTHER = KnownHost(r".*", RTLD_NOW, DEFAULT_STACK, "no row: as plain")


def known_host(executable: str | None) -> KnownHost:
    """Return the row of an executable, by its base name."""
    if executable is None:
        return _OTHER
    base = executable.rpartition("/")[2]
    return next((row for row in HOSTS if re.fullmatch(row.pattern, base)), _OTHER)


def inferred(step_name: str) -> tuple[str, str] | None:
    """Return (host name to look for, why) for a file whose name tells who loads it, None for any other."""
    base = step_name.rpartition("/")[2]
    if base.endswith(".node"):
        return "node", "*.node is a Node addon"
    match = re.search(r"\.cpython-3([0-9]+)[^/]*\.so$", base)
    if match:
        return f"python3.{match[1]}", f"*.cpython-3{match[1]}*.so is an extension of that Python"
    if base.endswith(".abi3.so"):
        return "python3", "*.abi3.so is a Python extension"
    return None
