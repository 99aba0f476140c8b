"""RULES: what a finding means, with its citation; KINDS: every way to fail. Reference pages are made from these."""

from __future__ import annotations

from dlwhy.loader.faults import KINDS
from dlwhy.record import Record


class Rule(Record):
    """One finding."""

    name: str
    severity: str
    """"error", "warning" or "note"."""
    title: str
    citation: str


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "loader-notice", "note", "the loader writes this line to standard error and goes on",
            "glibc elf/rtld.c, elf/dl-version.c",
        ),
        Rule("host-script", "note", "the host named is a script; its interpreter was taken", "execve(2)"),
        Rule(
            "named-processor", "note", "the processor is the one named, whatever dlwhy runs on",
            "x86-64 psABI, Micro-Architecture Levels; glibc sysdeps/x86/get-isa-level.h",
        ),
        Rule(
            "static-tls-taker", "warning", "loaded after the start, the object takes bytes of the static TLS surplus",
            "glibc elf/dl-reloc.c, _dl_try_allocate_static_tls",
        ),
        Rule(
            "innocent-named", "note", "the object that ld.so names is not the one whose code forces static TLS",
            "glibc elf/dl-reloc.c, _dl_allocate_static_tls",
        ),
        Rule(
            "not-in-current-directory", "note", "a name without a slash is searched in the loader's lists only",
            "dlopen(3)",
        ),
    )
}  # fmt: skip
"""Rule name -> rule."""

__all__ = ["KINDS", "RULES", "Rule"]
