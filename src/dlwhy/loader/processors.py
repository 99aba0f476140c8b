"""Processors of other machines than x86-64, as the loader tells them apart: by where it looks for libraries.

Up to 2.36 every directory of a search has legacy subdirectories named after AT_PLATFORM and the important bits of
AT_HWCAP (sysdeps/*/dl-procinfo.h, HWCAP_IMPORTANT); from 2.33 on some machines have subdirectories of glibc-hwcaps
(sysdeps/*/dl-hwcaps-subdirs.c).
"""

from __future__ import annotations

from dlwhy.elf.machine import EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.loader.glibc import Glibc


class Model(Record):
    """What one kind of processor has."""

    platform: str | None
    """AT_PLATFORM, or what the loader puts in its place; None without."""
    levels: tuple[str, ...] = ()
    """Subdirectories of glibc-hwcaps, best first."""
    names: tuple[str, ...] = ()
    """Important hwcap names, by bit from the lowest on."""

    def subdirectories(self, libc: Glibc) -> list[str]:
        """Return the subdirectories of a directory in the loader's order (elf/dl-hwcaps.c, _dl_important_hwcaps)."""
        found = [f"glibc-hwcaps/{level}/" for level in self.known_levels(libc)]
        if libc.legacy_hwcaps:
            order = ["tls", *([self.platform] if self.platform is not None else []), *reversed(self.names)]
            for bits in range((1 << len(order)) - 1, 0, -1):
                parts = (name for i, name in enumerate(order) if bits >> (len(order) - 1 - i) & 1)
                found.append("/".join(parts) + "/")
        return found

    def known_levels(self, libc: Glibc) -> tuple[str, ...]:
        """Return the levels that this release knows, best first."""
        if not libc.glibc_hwcaps:
            return ()
        return tuple(level for level in self.levels if level not in libc.later_levels)


_Z = ("zarch", "ldisp", "eimm", "dfp")
_POWER = ("dfp", "altivec")

MODELS: dict[int, dict[str, Model]] = {
    EM_386: {
        "i586": Model("i586"),
        "i686": Model("i686"),
        "i686-sse2": Model("i686", (), ("sse2",)),
    },
    EM_AARCH64: {
        "armv8-a": Model("aarch64"),
        "armv8.1-a": Model("aarch64", (), ("atomics",)),
    },
    EM_ARM: {
        "armv7-a": Model("v7l", (), ("vfp",)),
        "armv7-a-neon": Model("v7l", (), ("vfp", "neon")),
        "armv8-a": Model("v8l", (), ("vfp", "neon")),
    },
    EM_PPC64: {
        "power8": Model("power8", (), _POWER),
        "power9": Model("power9", ("power9",), _POWER),
        "power10": Model("power10", ("power10", "power9"), _POWER),
    },
    EM_S390: {
        "z196": Model("z196", (), _Z),
        "zEC12": Model("zEC12", (), _Z),
        "z13": Model("z13", ("z13",), (*_Z, "vx")),
        "z14": Model("z14", ("z14", "z13"), (*_Z, "vx", "vxe")),
        "z15": Model("z15", ("z15", "z14", "z13"), (*_Z, "vx", "vxe", "vxe2")),
        "z16": Model("z16", ("z16", "z15", "z14", "z13"), (*_Z, "vx", "vxe", "vxe2")),
        "z17": Model("z17", ("z17", "z16", "z15", "z14", "z13"), (*_Z, "vx", "vxe", "vxe2")),
    },
    EM_RISCV: {"rv64gc": Model(None)},
}
"""e_machine -> name for --cpu -> what such a processor has. glibc makes the platform of i386 itself."""


def models(
    e_machine: int, name: str | None, own: Callable[[], tuple[frozenset[str] | None, bool | None]]
) -> list[Model]:
    """Return what the processor may be: the one that is named, or any of the machine's.

    `own` tells the flags of an x86 processor that dlwhy runs on: what one has is known of i386 as well.
    """
    every = MODELS.get(e_machine, {})
    if name in every:
        return [every[name]]
    if e_machine == EM_386 and (name is not None or {"cmov", "sse2"} <= (own()[0] or frozenset())):
        return [every["i686-sse2"]]  # as any of x86-64 is
    return list(every.values())


def every_name() -> tuple[str, ...]:
    """Return what --cpu accepts of any machine."""
    from dlwhy.loader.cpu import NAMES

    return tuple(dict.fromkeys((*NAMES, *(name for every in MODELS.values() for name in every))))


def names_of(e_machine: int) -> tuple[str, ...]:
    """Return what --cpu accepts of a machine."""
    from dlwhy.loader.cpu import NAMES

    own = tuple(MODELS.get(e_machine, ()))
    return own if e_machine not in (EM_386, EM_X86_64) else (*own, *NAMES)
