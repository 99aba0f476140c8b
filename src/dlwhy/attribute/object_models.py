"""OBJECTS: what the relocations of an object file say of its code, one row a machine (psABIs; ELF TLS ch. 4; <elf.h>).

Before the link each access has relocations that name its model and its variable: no code need be read, and nothing
that a linker rewrites stands there yet. Where a machine takes several instructions for one access, only the relocation
that begins it counts; so the numbers are those of accesses.
"""

from __future__ import annotations

from dlwhy.elf.machine import EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64

OFFSET = "local-dynamic offset"
IE, TLSDESC, GD, LD, LE = "initial-exec", "TLSDESC", "general-dynamic", "local-dynamic", "local-exec"
ORDER = (IE, TLSDESC, GD, LD, OFFSET, LE)
"""Models of accesses, what forces static TLS first."""


def _row(*kinds: tuple[str, tuple[int, ...]]) -> dict[int, str]:
    return {number: model for model, numbers in kinds for number in numbers}


OBJECTS: dict[tuple[int, int], dict[int, str]] = {
    (EM_X86_64, 2): _row(
        (IE, (22, 44, 47, 50)),  # GOTTPOFF, CODE_4_, CODE_5_, CODE_6_GOTTPOFF (APX)
        (TLSDESC, (34, 45, 48, 51)),  # GOTPC32_TLSDESC and its CODE_4_ to CODE_6_; TLSDESC_CALL goes with it
        (GD, (19,)), (LD, (20,)), (OFFSET, (21, 17)),  # TLSGD; TLSLD; DTPOFF32, DTPOFF64
        (LE, (23, 18)),  # TPOFF32, TPOFF64
    ),
    (EM_386, 1): _row(
        (IE, (15, 16, 33)),  # TLS_IE, TLS_GOTIE, TLS_IE_32
        (TLSDESC, (39,)), (GD, (18, 24)), (LD, (19, 28)), (OFFSET, (32,)),  # GOTDESC; GD, GD_32; LDM, LDM_32; LDO_32
        (LE, (17, 34)),  # TLS_LE, TLS_LE_32
    ),
    # Those with a check for overflow begin an access, those that end in _NC go on with it (ELF for the Arm 64-bit
    # Architecture, Thread-local storage relocations); of TLSDESC the one that begins the sequence.
    (EM_AARCH64, 2): _row(
        (IE, (539, 541, 543)),  # MOVW_GOTTPREL_G1, ADR_GOTTPREL_PAGE21, LD_GOTTPREL_PREL19
        (TLSDESC, (561, 562, 565)),  # ADR_PREL21, ADR_PAGE21, OFF_G1
        (GD, (512, 513, 515)),  # ADR_PREL21, ADR_PAGE21, MOVW_G1
        (LD, (517, 518, 520)),  # ADR_PREL21, ADR_PAGE21, MOVW_G1
        (OFFSET, (523, 524, 526, 528, 529, 531, 533, 535, 537, 572)),
        (LE, (544, 545, 547, 549, 550, 552, 554, 556, 558, 570)),
    ),
    # These stand in literal pools, each of which may serve several accesses of one function.
    (EM_ARM, 1): _row(
        (IE, (107, 111)), (TLSDESC, (90,)), (GD, (104,)), (LD, (105,)), (OFFSET, (106, 109)), (LE, (108, 110))
    ),
    (EM_RISCV, 2): _row((IE, (21,)), (TLSDESC, (62,)), (GD, (22,)), (LE, (29,))),  # the _HI20 of each
    # The half with the carry (_HA) begins an access, or the one that stands alone.
    (EM_PPC64, 2): _row(
        (IE, (87, 90)), (GD, (79, 82)), (LD, (83, 86)), (OFFSET, (74, 77, 91, 94, 101)), (LE, (69, 72, 95))
    ),
    (EM_S390, 2): _row(
        (IE, (42, 43, 44, 47, 48, 49, 60)),  # GOTIE12, GOTIE32, GOTIE64, IE32, IE64, IEENT, GOTIE20
        (GD, (38,)), (LD, (39,)), (OFFSET, (52, 53)), (LE, (50, 51)),  # GDCALL; LDCALL; LDO32, LDO64; LE32, LE64
    ),
}  # fmt: skip
"""(e_machine, EI_CLASS) -> relocation that stands for one access -> its model."""

INITIAL_EXEC_NAMES = {
    (EM_X86_64, 2): {22: "R_X86_64_GOTTPOFF", 44: "R_X86_64_CODE_4_GOTTPOFF", 47: "R_X86_64_CODE_5_GOTTPOFF",
                     50: "R_X86_64_CODE_6_GOTTPOFF"},
    (EM_386, 1): {15: "R_386_TLS_IE", 16: "R_386_TLS_GOTIE", 33: "R_386_TLS_IE_32"},
    (EM_AARCH64, 2): {539: "R_AARCH64_TLSIE_MOVW_GOTTPREL_G1", 541: "R_AARCH64_TLSIE_ADR_GOTTPREL_PAGE21",
                      543: "R_AARCH64_TLSIE_LD_GOTTPREL_PREL19"},
    (EM_ARM, 1): {107: "R_ARM_TLS_IE32", 111: "R_ARM_TLS_IE12GP"},
    (EM_RISCV, 2): {21: "R_RISCV_TLS_GOT_HI20"},
    (EM_PPC64, 2): {87: "R_PPC64_GOT_TPREL16_DS", 90: "R_PPC64_GOT_TPREL16_HA"},
    (EM_S390, 2): {42: "R_390_TLS_GOTIE12", 43: "R_390_TLS_GOTIE32", 44: "R_390_TLS_GOTIE64", 47: "R_390_TLS_IE32",
                   48: "R_390_TLS_IE64", 49: "R_390_TLS_IEENT", 60: "R_390_TLS_GOTIE20"},
}  # fmt: skip
"""Names as in <elf.h>, of those that a report may mention."""
