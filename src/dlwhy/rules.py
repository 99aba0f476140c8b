"""RULES: what a finding means, with its citation; KINDS: every way to fail. Reference pages are made from these."""

from __future__ import annotations

from dlwhy.loader.faults import KINDS
from dlwhy.record import Record
from dlwhy.report import COMPUTED, Finding


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
            "big-dynamic-tls", "note", "a dynamic TLS segment that does not fit into the static TLS block",
            "glibc elf/dl-reloc.c, _dl_allocate_static_tls; elf/dl-tls.c",
        ),
        Rule(
            "library-twice", "warning", "two files of one library are in one process, each with its own code and data",
            "glibc elf/dl-load.c, _dl_map_object; joblib/threadpoolctl multiple_openmp.md",
        ),
        Rule(
            "opaque-payload", "warning", "the file hides its code: a small loader in front of a compressed payload",
            "docs/attribution.md; swc-project/swc bindings, `.swc_native`",
        ),
        Rule(
            "innocent-named", "note", "the object that ld.so names is not the one whose code forces static TLS",
            "glibc elf/dl-reloc.c, _dl_allocate_static_tls",
        ),
        Rule(
            "late-initial-exec", "warning", "under musl initial-exec access works for what is there at the start only",
            "musl ldso/dynlink.c, do_relocs",
        ),
        Rule(
            "relr-ignored", "warning", "DT_RELR is not applied: pointers stay as they were linked",
            "musl ldso/dynlink.c, do_relr_relocs; commit d32dadd60e (in 1.2.4)",
        ),
        Rule(
            "built-for-glibc", "warning", "it was linked against glibc, and musl takes the name for its own libc",
            "musl ldso/dynlink.c, load_library",
        ),
        Rule(
            "static-flag-disagrees", "note", "DF_STATIC_TLS does not say what the relocations do, which decide",
            "gABI ch. 5, DF_STATIC_TLS; glibc elf/dl-reloc.c",
        ),
        Rule(
            "flag-cannot-help", "note", "a compiler's flag does not reach the code that forces static TLS",
            "ELF TLS ch. 4; golang/go#48596",
        ),
        Rule(
            "not-in-current-directory", "note", "a name without a slash is searched in the loader's lists only",
            "dlopen(3)",
        ),
        Rule(
            "not-compiled-yet", "note", "an object file holds what link-time optimisation takes, no machine code",
            "gcc(1), -flto",
        ),
        Rule(
            "other-build", "warning", "a debug file or linker map is of another build, and is not believed",
            "GDB manual, Separate Debug Files; ld(1), -Map",
        ),
        Rule(
            "unread-evidence", "note", "a file that could have told names is damaged or of an unknown kind",
            "gABI ch. 4; GDB manual, MiniDebugInfo",
        ),
    )
}  # fmt: skip
"""Rule name -> rule."""

__all__ = ["KINDS", "RULES", "Rule"]


def finding(rule: str, object_: str, message: str) -> Finding:
    """Return a finding of that rule about an object, computed from its bytes."""
    row = RULES[rule]
    return Finding(rule, row.severity, object_, message, COMPUTED, row.citation)
