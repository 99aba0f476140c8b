"""GLIBC_TUNABLES: which values take effect (glibc elf/dl-tunables.c, elf/dl-tunables.list).

A name that is not known is ignored; so is a value outside its bounds or with trailing characters. From 2.37 on an
ill-formed list is ignored as a whole (commit 2ed18c5b53).
"""

from __future__ import annotations

from dlwhy.record import Record


class Tunables(Record):
    """The tunables that decide a load."""

    nns: int
    optional_static_tls: int
    rseq: int
    dynamic_sort: int
    execstack: int


DEFAULTS = Tunables(4, 512, 1, 2, 1)

BOUNDS = {
    "glibc.rtld.nns": ("nns", 1, 16),
    "glibc.rtld.optional_static_tls": ("optional_static_tls", 0, (1 << 64) - 1),
    "glibc.pthread.rseq": ("rseq", 0, 1),
    "glibc.rtld.dynamic_sort": ("dynamic_sort", 1, 2),
    "glibc.rtld.execstack": ("execstack", 0, 2),
}
"""Tunable -> (field, least, most)."""


def _number(text: str) -> int | None:
    """Parse as _dl_strtoul does: decimal, 0x or 0 octal, blanks and a sign in front; None with anything behind."""
    body = text.lstrip(" \t")
    sign = 1
    if body[:1] in ("-", "+"):
        sign = -1 if body[0] == "-" else 1
        body = body[1:]
    base, digits = 10, "0123456789"
    if body[:2].lower() == "0x":
        base, digits, body = 16, "0123456789abcdef", body[2:].lower()
    elif body[:1] == "0":
        base, digits = 8, "01234567"
    if not body or any(c not in digits for c in body):
        return None
    value = int(body, base)
    return min(value, (1 << 64) - 1) * sign & ((1 << 64) - 1) if value < 1 << 64 else (1 << 64) - 1


def parse(text: str | None) -> Tunables:
    """Return the tunables in force for a GLIBC_TUNABLES value (None: not set)."""
    if not text:
        return DEFAULTS
    changes: dict[str, int] = {}
    for item in text.split(":"):
        name, equals, value = item.partition("=")
        if not equals or name not in BOUNDS:
            continue
        field, least, most = BOUNDS[name]
        number = _number(value)
        if number is not None and least <= number <= most:
            changes[field] = number
    return DEFAULTS.but(**changes)
