"""Which TLS access models an object uses, from its dynamic relocations (ELF TLS ch. 4; psABI of each machine).

DF_STATIC_TLS is no evidence: no loader looks at it, and on aarch64 no linker sets it.
"""

from __future__ import annotations

from dlwhy.elf.machine import MACHINES
from dlwhy.elf.relocs import Relocation, of_types
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf


class TlsRelocations(Record):
    """The TLS relocations of one object, by kind, each in loader order with the name of its table."""

    tpoff: tuple[tuple[Relocation, str], ...]
    dtpmod: tuple[tuple[Relocation, str], ...]
    dtpoff: tuple[tuple[Relocation, str], ...]
    tlsdesc: tuple[tuple[Relocation, str], ...]

    @property
    def models(self) -> tuple[str, ...]:
        """The access models that leave a relocation, strongest claim first.

        A module identifier serves general-dynamic when a symbol goes with it and local-dynamic otherwise; which of
        the two an own variable is accessed by is visible in the code only, so both read "dynamic" here.
        """
        names = []
        if self.tpoff:
            names.append("initial-exec")
        if self.tlsdesc:
            names.append("tlsdesc")
        if self.dtpmod:
            names.append("general-dynamic" if any(r.symbol for r, _ in self.dtpmod) else "local-dynamic")
        return tuple(names)


_NONE = TlsRelocations((), (), (), ())
_KINDS = {key: row.tpoff | row.dtpmod | row.dtpoff | row.tlsdesc for key, row in MACHINES.items()}


def tls_relocations(elf: Elf) -> TlsRelocations:
    """Return the TLS relocations of an object; empty for a machine without a row.

    Raises `ElfError` when a relocation table leaves the file.
    """
    row = elf.row
    if row is None or elf.dynamic is None:
        return _NONE
    found = of_types(elf, _KINDS[row.e_machine, row.elf_class])
    if not found:
        return _NONE

    def kind(kinds: frozenset[int]) -> tuple[tuple[Relocation, str], ...]:
        return tuple(entry for entry in found if entry[0].type in kinds)

    return TlsRelocations(kind(row.tpoff), kind(row.dtpmod), kind(row.dtpoff), kind(row.tlsdesc))
