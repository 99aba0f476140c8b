"""MACHINES: what each psABI fixes, one row per e_machine. A machine that lacks a kind has an empty set.

Relocation numbers: psABI of each machine; which of them force static TLS: glibc sysdeps/*/dl-machine.h,
elf_machine_rela.
How a libc lays TLS out on a machine is not here: that is the loader's business.
"""

from __future__ import annotations

from dlwhy.record import Record

EM_386, EM_PPC64, EM_S390, EM_ARM, EM_X86_64, EM_AARCH64, EM_RISCV = 3, 21, 22, 40, 62, 183, 243


class Machine(Record):
    """One machine's constants."""

    e_machine: int
    name: str
    elf_class: int
    """EI_CLASS of this row: 1 (32 bit) or 2 (64 bit)."""
    variant: int
    """TLS variant: 1 (blocks above the thread pointer) or 2 (below). ELF TLS ch. 3."""
    tpoff: frozenset[int]
    """Relocations that force the defining module into the static TLS block (initial-exec)."""
    dtpmod: frozenset[int]
    """Module identifiers of general- and local-dynamic access."""
    dtpoff: frozenset[int]
    tlsdesc: frozenset[int]
    """TLS descriptors: static when there is room, else dynamic."""
    relative: int
    irelative: int
    jump_slot: int
    copy: int
    supported: frozenset[int]
    """Every relocation number the dynamic loader applies; others are `unexpected reloc type`. Empty: not known."""
    names: dict[int, str]
    """Relocation names as in <elf.h>, of those that a report may mention."""
    page: int
    """Page size in bytes, of the common kernels for this machine."""
    default_execstack: bool
    """Whether an object without PT_GNU_STACK asks for an executable stack (sysdeps/*/stackinfo.h)."""
    interp: str
    """The program interpreter of an ordinary program (psABI)."""
    triplet: str
    """Multiarch directory name, what $LIB expands to on Debian is lib/TRIPLET."""
    data: int = 1
    """EI_DATA of this row: 1 (little endian) or 2 (big endian)."""
    address_bits: int = 64
    """Bits of an address that count where memory is read; a processor that ignores the others has fewer."""
    hash_word: int = 4
    """Bytes of a DT_HASH entry (bits/elfclass.h, Elf_Symndx)."""
    narrow: frozenset[int] = frozenset()
    """Relocations whose place holds 32 bits of a 64-bit address: what does not fit is remarked on and cut off."""
    narrow_relative: frozenset[int] = frozenset()
    """The same of the distance from the place."""


def _set(*numbers: int) -> frozenset[int]:
    return frozenset(numbers)


MACHINES: dict[tuple[int, int], Machine] = {
    (row.e_machine, row.elf_class): row
    for row in (
        Machine(
            EM_X86_64, "x86-64", 2, 2, _set(18), _set(16), _set(17), _set(36), 8, 37, 7, 5,
            # elf_machine_rela: 64, PC32, COPY, GLOB_DAT, JUMP_SLOT, RELATIVE, 32, DTPMOD64, DTPOFF64, TPOFF64, SIZE32,
            # SIZE64, TLSDESC, IRELATIVE
            _set(0, 1, 2, 5, 6, 7, 8, 10, 16, 17, 18, 32, 33, 36, 37),
            {1: "R_X86_64_64", 2: "R_X86_64_PC32", 5: "R_X86_64_COPY", 6: "R_X86_64_GLOB_DAT", 7: "R_X86_64_JUMP_SLOT",
             8: "R_X86_64_RELATIVE", 10: "R_X86_64_32", 16: "R_X86_64_DTPMOD64", 17: "R_X86_64_DTPOFF64",
             18: "R_X86_64_TPOFF64", 23: "R_X86_64_TPOFF32", 36: "R_X86_64_TLSDESC", 37: "R_X86_64_IRELATIVE"},
            4096, True, "/lib64/ld-linux-x86-64.so.2", "x86_64-linux-gnu", narrow=_set(10), narrow_relative=_set(2),
        ),
        Machine(
            EM_386, "i386", 1, 2, _set(14, 37), _set(35), _set(36), _set(41), 8, 42, 7, 5,
            # elf_machine_rel: 32, PC32, COPY, GLOB_DAT, JMP_SLOT, RELATIVE, TPOFF, DTPMOD32, DTPOFF32, TPOFF32, SIZE32,
            # TLS_DESC, IRELATIVE
            _set(0, 1, 2, 5, 6, 7, 8, 14, 35, 36, 37, 38, 41, 42),
            {14: "R_386_TLS_TPOFF", 37: "R_386_TLS_TPOFF32", 35: "R_386_TLS_DTPMOD32", 36: "R_386_TLS_DTPOFF32",
             41: "R_386_TLS_DESC"},
            4096, True, "/lib/ld-linux.so.2", "i386-linux-gnu",
        ),
        Machine(
            EM_AARCH64, "aarch64", 2, 1, _set(1030), _set(1028), _set(1029), _set(1031), 1027, 1032, 1026, 1024,
            # elf_machine_rela: ABS64, ABS32, COPY, GLOB_DAT, JUMP_SLOT, RELATIVE, DTPMOD, DTPREL, TPREL, TLSDESC,
            # IRELATIVE
            _set(0, 257, 258, 1024, 1025, 1026, 1027, 1028, 1029, 1030, 1031, 1032),
            {1028: "R_AARCH64_TLS_DTPMOD", 1029: "R_AARCH64_TLS_DTPREL", 1030: "R_AARCH64_TLS_TPREL",
             1031: "R_AARCH64_TLSDESC"},
            4096, False, "/lib/ld-linux-aarch64.so.1", "aarch64-linux-gnu", address_bits=56,  # Linux: tagged addresses
        ),
        Machine(
            EM_ARM, "arm", 1, 1, _set(19), _set(17), _set(18), _set(13), 23, 160, 22, 20,
            # elf_machine_rel: PC24, ABS32, TLS_DESC, DTPMOD32, DTPOFF32, TPOFF32, COPY, GLOB_DAT, JUMP_SLOT, RELATIVE,
            # IRELATIVE
            _set(0, 1, 2, 13, 17, 18, 19, 20, 21, 22, 23, 160),
            {13: "R_ARM_TLS_DESC", 17: "R_ARM_TLS_DTPMOD32", 18: "R_ARM_TLS_DTPOFF32", 19: "R_ARM_TLS_TPOFF32"},
            4096, True, "/lib/ld-linux-armhf.so.3", "arm-linux-gnueabihf",
        ),
        Machine(
            EM_PPC64, "ppc64", 2, 1,
            # TPREL64, and the family of TPREL16
            _set(73, *range(69, 73), *range(95, 101), 112, 113), _set(68), _set(78), _set(), 22, 248, 21, 19,
            # elf_machine_rela: ADDR*, COPY, GLOB_DAT, JMP_SLOT, RELATIVE, UADDR*, REL32, REL64, DTPMOD64, TPREL*,
            # DTPREL64, JMP_IREL, IRELATIVE
            _set(*range(10), 19, 20, 21, 22, 24, 25, 26, 37, 38, *range(39, 45), 56, 57, *range(68, 74), 78,
                 *range(95, 101), *range(110, 114), 247, 248),
            {68: "R_PPC64_DTPMOD64", 69: "R_PPC64_TPREL16", 70: "R_PPC64_TPREL16_LO", 71: "R_PPC64_TPREL16_HI",
             72: "R_PPC64_TPREL16_HA", 73: "R_PPC64_TPREL64", 78: "R_PPC64_DTPREL64", 95: "R_PPC64_TPREL16_DS",
             96: "R_PPC64_TPREL16_LO_DS", 97: "R_PPC64_TPREL16_HIGHER", 98: "R_PPC64_TPREL16_HIGHERA",
             99: "R_PPC64_TPREL16_HIGHEST", 100: "R_PPC64_TPREL16_HIGHESTA", 112: "R_PPC64_TPREL16_HIGH",
             113: "R_PPC64_TPREL16_HIGHA"},
            65536, False, "/lib64/ld64.so.2", "powerpc64le-linux-gnu",
        ),
        Machine(
            EM_S390, "s390x", 2, 2, _set(56), _set(54), _set(55), _set(), 12, 61, 11, 9,
            # elf_machine_rela: 8, 16, 32, 64, PC*, COPY, GLOB_DAT, JMP_SLOT, RELATIVE, TLS_*, IRELATIVE
            _set(0, 1, 3, 4, 5, 9, 10, 11, 12, 16, 17, 19, 22, 23, 54, 55, 56, 61),
            {54: "R_390_TLS_DTPMOD", 55: "R_390_TLS_DTPOFF", 56: "R_390_TLS_TPOFF"},
            4096, True, "/lib/ld64.so.1", "s390x-linux-gnu", data=2, hash_word=8,
        ),
        Machine(
            EM_RISCV, "riscv64", 2, 1, _set(11), _set(7), _set(9), _set(12), 3, 58, 5, 4,
            # elf_machine_rela: 64, RELATIVE, COPY, JUMP_SLOT, TLS_*64, IRELATIVE (no descriptors up to 2.43)
            _set(0, 2, 3, 4, 5, 7, 9, 11, 58),
            {7: "R_RISCV_TLS_DTPMOD64", 9: "R_RISCV_TLS_DTPREL64", 11: "R_RISCV_TLS_TPREL64", 12: "R_RISCV_TLSDESC"},
            4096, False, "/lib/ld-linux-riscv64-lp64d.so.1", "riscv64-linux-gnu",
        ),
    )
}  # fmt: skip


ADDRESS_MASKS = {key: (1 << row.address_bits) - 1 for key, row in MACHINES.items() if row.address_bits < 64}
"""What of an address counts, of the machines whose processor ignores some of it."""


def machine(e_machine: int, elf_class: int) -> Machine | None:
    """Return the row of a machine, or None when there is none."""
    return MACHINES.get((e_machine, elf_class))


def machine_name(e_machine: int, elf_class: int) -> str:
    """Return what to call a machine in a sentence, also one without a row."""
    row = machine(e_machine, elf_class)
    return row.name if row else f"e_machine {e_machine}, {elf_class * 32} bit"
