"""Processors as the loader tells them apart: levels of x86-64, and the names that older releases give to Intel's.

The levels are those of the x86-64 psABI (glibc sysdeps/x86/get-isa-level.h). Two questions are asked of them: which
glibc-hwcaps directories are searched, and whether an object's property note asks for too much.
"""

from __future__ import annotations

from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.glibc import Glibc

# Flags as /proc/cpuinfo spells them, level by level, each beyond those before it. bmi1 and bmi2 count since commit
# b80f16adbd of 2.37, which every release branch from 2.33 on has taken; no processor has the others without them.
LEVELS: tuple[tuple[str, frozenset[str]], ...] = (
    ("x86-64", frozenset(["cmov", "cx8", "fpu", "fxsr", "mmx", "sse", "sse2"])),
    ("x86-64-v2", frozenset(["cx16", "lahf_lm", "popcnt", "pni", "ssse3", "sse4_1", "sse4_2"])),
    ("x86-64-v3", frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"])),
    ("x86-64-v4", frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])),
)
_HASWELL = frozenset(["avx2", "fma", "bmi1", "bmi2", "abm", "movbe", "popcnt"])
_PHI = frozenset(["avx512cd", "avx512er", "avx512pf"])
_AVX512_1 = frozenset(["avx512cd", "avx512bw", "avx512dq", "avx512vl"])

HWCAPS = ("", "x86_64", "avx512_1")
"""Legacy hwcap names by their bit; bit 0 is for 32-bit programs (sysdeps/x86/dl-procinfo.c, _dl_x86_hwcap_flags)."""
PLATFORMS = ("", "", "haswell", "xeon_phi")
"""Legacy platform names by their bit above 48; the first two are for 32-bit programs (_dl_x86_platforms)."""
MAKES: tuple[tuple[str | None, bool], ...] = (
    (None, False), ("haswell", False), ("haswell", True), ("xeon_phi", False),
)  # fmt: skip
"""All that `intel_names` can come to."""

# glibc.cpu.hwcaps=-NAME: the names that take a flag away which a level needs (sysdeps/x86/cpu-tunables.c, set_hwcaps)
_SWITCHES = {
    name: {"LZCNT": "abm"}.get(name, name.lower())
    for name in (
        "AVX", "AVX2", "AVX512BW", "AVX512CD", "AVX512DQ", "AVX512ER", "AVX512F", "AVX512PF", "AVX512VL", "BMI1",
        "BMI2", "CMOV", "CX8", "FMA", "LZCNT", "MOVBE", "POPCNT", "SSE2", "SSE4_1", "SSE4_2", "SSSE3",
    )
}  # fmt: skip
_SAVING = ("OSXSAVE", "XSAVE", "XSAVEC")


class Processor(Record):
    """What the loader finds out about a processor by asking it."""

    flags: frozenset[str] | None
    """As /proc/cpuinfo has them; None when nothing tells."""
    intel: bool | None
    """Whether Intel made it, which counts up to 2.36; None when nothing tells."""
    level: int
    """Bits of the levels that it has, as GNU_PROPERTY_X86_ISA_1_NEEDED counts them: 1 for x86-64, 15 for x86-64-v4."""

    def but_without(self, flags: frozenset[str]) -> Processor:
        """This processor with flags taken away; what property notes are held against stays."""
        return self if self.flags is None or not flags else self.but(flags=self.flags - flags)


def processor(flags: frozenset[str] | None, intel: bool | None) -> Processor:
    """Return what has these flags."""
    return Processor(flags, intel, 0 if flags is None else (1 << len(_levels(flags))) - 1)


def _up_to(level: str) -> frozenset[str]:
    names = [name for name, _ in LEVELS]
    return frozenset().union(*(flags for _, flags in LEVELS[: names.index(level) + 1]))


def _levels(flags: frozenset[str]) -> list[str]:
    found: list[str] = []
    for name, wanted in LEVELS:
        if not wanted <= flags:
            break
        found.append(name)
    return found


def named(name: str) -> Processor | None:
    """Return the processor that NAMES has under this name; None for any other."""
    if name in [level for level, _ in LEVELS]:
        flags = _up_to(name)
        return processor(flags, None if flags >= _HASWELL else False)
    if name == "haswell":
        return processor(_up_to("x86-64-v3"), True)
    if name == "xeon_phi":
        return processor(_up_to("x86-64-v3") | _PHI | {"avx512f"}, True)
    if name == "avx512_1":
        return processor(_up_to("x86-64-v4"), True)
    return None


NAMES = (*(name for name, _ in LEVELS), "haswell", "xeon_phi", "avx512_1")
"""What --cpu accepts: a level, or one of Intel's as glibc up to 2.36 tells them apart."""


def refused(name: str, strings: bytes, interpreter: str) -> str | None:
    """Return what is not known of a loader on a named processor, when it may stop there before anything else.

    One that was built for a higher level, and only such a one, has the sentence for it in its `strings`; for which
    level stands in its code alone (2.35; sysdeps/x86/dl-get-cpu-features.c, _dl_x86_init_cpu_features).
    """
    cpu = named(name)
    if b"CPU does not support x86-64-v" not in strings or (cpu is not None and cpu.level == (1 << len(LEVELS)) - 1):
        return None
    return f"whether {interpreter} runs on {name}: it was built for x86-64-v2 or higher, and refuses what is below"


def directories(cpu: Processor) -> tuple[str, ...]:
    """Return the glibc-hwcaps names that the loader searches on this processor, best first. Raises `Unknown`."""
    if cpu.flags is None:
        raise Unknown("which glibc-hwcaps directories the processor has (name it with --cpu)", "search")
    return tuple(reversed(_levels(cpu.flags)[1:]))


def has_level(cpu: Processor, bits: int) -> bool:
    """Return whether it has all levels of `bits`. Raises `Unknown`."""
    if cpu.flags is None and bits & ~1:
        raise Unknown("which x86-64 level the processor has (name it with --cpu)", "property")
    return not bits & ~(cpu.level | 1)


def intel_names(cpu: Processor) -> tuple[str | None, bool]:
    """Return what 2.26 to 2.36 make of it: (platform, None for the kernel's own name; whether it has avx512_1).

    sysdeps/x86/cpu-features.c, init_cpu_features: only Intel's are told apart. Raises `Unknown`.
    """
    if cpu.intel is False:
        return None, False
    if cpu.flags is None:
        raise Unknown("which processor it is (name it with --cpu)", "search")
    platform = "xeon_phi" if cpu.flags >= _PHI else "haswell" if cpu.flags >= _HASWELL else None
    wide = cpu.flags >= _AVX512_1 and "avx512er" not in cpu.flags
    if cpu.intel is None and (platform or wide):
        raise Unknown("whether Intel made the processor (--cpu haswell, xeon_phi and avx512_1 are Intel's)", "search")
    return platform, wide


def switched_off(text: str, libc: Glibc) -> frozenset[str]:
    """Return the flags that GLIBC_TUNABLES takes away. Raises `Unknown` where that depends on more than is known."""
    from dlwhy.loader.tunables import setting

    value = setting(text, "glibc.cpu.hwcaps", libc.read_tunables)
    if libc.glibc_hwcaps:
        names = [word[1:] for word in value.split(",") if word.startswith("-")]
        if any(name in _SAVING for name in names):
            raise Unknown("what is left of the processor when glibc.cpu.hwcaps switches saving its state off", "search")
        return frozenset(_SWITCHES[name] for name in names if name in _SWITCHES)
    if "hwcaps=" in text:  # up to 2.32 under other names, and up to 2.28 by another name itself
        raise Unknown("what glibc.cpu.hwcaps leaves of the processor", "search")
    return frozenset()
