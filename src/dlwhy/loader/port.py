"""PORTS: what glibc's port to each machine does, one row each (glibc sysdeps/*). What a psABI fixes is elf.machine's.

What differs between releases too is a row of loader.glibc, by e_machine.
"""

from __future__ import annotations

from dlwhy.elf.constants import DT_REL, DT_RELA, DT_TLSDESC_PLT
from dlwhy.elf.machine import EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine


class Port(Record):
    """What one port does."""

    tcb: int
    """Bytes that variant I counts before the first block: sizeof (tcbhead_t) (sysdeps/*/nptl/tls.h)."""
    tables: tuple[int, ...]
    """DT_REL, DT_RELA or both, in the order in which they are applied (dl-machine-rel.h). See `Glibc.tables`."""
    relative: tuple[str, str] | None
    """(function, expression) of the assertion on an entry that DT_RELACOUNT counts; None where nobody looks."""
    got: tuple[int, int]
    """First and last word of DT_PLTGOT that is written for lazy binding (elf_machine_runtime_setup)."""
    cache_flags: frozenset[int]
    """Flags of an entry of ld.so.cache that is taken (dl-cache.h, _dl_cache_check_flags)."""
    properties: str
    """What is taken from property notes (dl-prop.h): "x86", "generic" (GNU_PROPERTY_1_NEEDED) or "none"."""
    cache_align: int = 8
    """To how many bytes the new format is aligned behind the old one: __alignof__ (struct cache_file_new)."""
    numbers: frozenset[int] = frozenset()
    """e_machine that is taken as well as the psABI's (elf_machine_matches_host)."""
    flags_mask: int = 0
    """Bits of e_flags that are looked at; a file with none of `flags` there is passed over, as of another machine."""
    flags: frozenset[int] = frozenset()
    refused_mask: int = 0
    """Bits of e_flags that the check of e_ident looks at; with the value `refused` it fails."""
    refused: int = -1
    osabis: frozenset[int] = frozenset((0, 3))
    """EI_OSABI that is taken (ldsodefs.h, VALID_ELF_OSABI)."""
    got_always: bool = False
    """Whether DT_PLTGOT is written without lazy binding too."""
    lazy_refused: bool = True
    """Whether a kind that has no business in a lazily bound jump table is an error (elf_machine_lazy_rel)."""
    glink_tag: int = 0
    """Dynamic tag that lazy binding takes for granted: it fills DT_PLTGOT with an entry for each of the jump table,
    and does not look at that (DT_PPC64_GLINK); 0 where each of the jump table is looked at."""
    lazy_irelative: bool = True
    """Whether IRELATIVE has business there."""
    irelative_last: bool = False
    """Whether IRELATIVE is put off to the end of its range (ELF_MACHINE_IRELATIVE)."""
    lazy_descriptors: bool = False
    """Whether descriptors in the jump table were left for later, by the releases that say so."""
    descriptor_tag: int = 0
    """Dynamic tag without which such a descriptor is the end (DT_TLSDESC_PLT); 0 where none is asked for."""
    eager_tag: int = 0
    """Dynamic tag beside which jump slots of symbols with `eager_bit` in st_other are bound at once; 0 for none."""
    eager_bit: int = 0
    optional_tag: int = 0
    """Dynamic tag whose lowest bit makes module identifiers try for a static place (DT_PPC64_OPT); 0 for none."""
    overflows: frozenset[int] = frozenset()
    """Relocations that are refused where the value does not fit, with a message that holds an address."""
    indirect_told: bool = False
    """Whether something is said of an indirect function of an object that is not relocated yet."""
    copy_notice: str = ""
    """What stands before the remark on a copied object of another size."""
    signed_char: bool = False
    """Whether char has a sign."""
    zero_division: bool = True
    """Whether a division by zero kills."""
    no_offset: int = 0
    """What l_tls_offset is where a module has no place in the static block (sysdeps/*/nptl/tls.h, NO_TLS_OFFSET)."""
    aligned_tables: bool = False
    """Whether the processor refuses some of the instructions that read words where these are not aligned."""
    address_bits: int = 47
    """Bits of an address that a process may have."""
    room_bits: int = 45
    """Bits of a size that surely is free in one piece: where the program lies parts what is left."""
    random_bits: int = 40
    """Objects are mapped within this many bits of the end: a segment that far behind the first has no address."""


_LOPROC = 0x70000000

PORTS: dict[tuple[int, int], Port] = {
    (EM_X86_64, 2): Port(
        0, (DT_RELA,), ("elf_machine_rela_relative", "ELFW(R_TYPE) (reloc->r_info) == R_X86_64_RELATIVE"), (1, 2),
        frozenset((1, 0x303)), "x86", irelative_last=True, lazy_descriptors=True, descriptor_tag=DT_TLSDESC_PLT,
        indirect_told=True, signed_char=True,
    ),
    (EM_386, 1): Port(
        0, (DT_REL, DT_RELA), ("elf_machine_rel_relative", "ELF32_R_TYPE (reloc->r_info) == R_386_RELATIVE"), (1, 2),
        frozenset((1, 3)), "x86", lazy_descriptors=True, indirect_told=True, signed_char=True, cache_align=4,
        address_bits=32, room_bits=30, random_bits=32,
    ),
    (EM_AARCH64, 2): Port(
        16, (DT_RELA,), None, (1, 2), frozenset((0xA03,)), "none", eager_tag=_LOPROC + 5, eager_bit=0x80,
        zero_division=False,
    ),
    (EM_ARM, 1): Port(
        8, (DT_REL, DT_RELA), None, (1, 2), frozenset((3, 0x903)), "generic", refused_mask=0xFF000200,
        refused=0x05000200, osabis=frozenset((0, 3, 64)), lazy_irelative=False, aligned_tables=True,
        address_bits=32, room_bits=30, random_bits=32,
    ),
    (EM_PPC64, 2): Port(
        0, (DT_RELA,), None, (0, 1), frozenset((1, 0x503)), "generic", flags_mask=3, flags=frozenset((0, 2)),
        lazy_refused=False, glink_tag=_LOPROC, optional_tag=_LOPROC + 3, zero_division=False, no_offset=-1,
        overflows=frozenset((1, 2, 3, 5, 6, 7, 8, 9, 25, 37, 56, 57, 69, 71, 72, 95, 96)),
    ),
    (EM_S390, 2): Port(
        0, (DT_RELA,), None, (1, 2), frozenset((1, 0x403)), "generic", numbers=frozenset((0xA390,)),
        irelative_last=True,
    ),
    (EM_RISCV, 2): Port(
        0, (DT_RELA,), None, (0, 1), frozenset((0x1003,)), "generic", flags_mask=6, flags=frozenset((4,)),
        got_always=True, copy_notice="  ", zero_division=False, no_offset=-1, room_bits=36,
    ),
}  # fmt: skip


def port(machine: Machine) -> Port:
    """Return the row of glibc's port to a machine."""
    return PORTS[machine.e_machine, machine.elf_class]
