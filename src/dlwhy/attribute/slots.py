"""The words of the GOT through which code reaches thread-local variables, from the TLS relocations (ELF TLS ch. 4).

    initial-exec     one word: the variable's offset from the thread pointer (TPOFF)
    general-dynamic  two words: module identifier (DTPMOD), then the offset in the segment: by a relocation (DTPOFF)
                     for a symbol, else as it stands
    local-dynamic    the same two words, the second one 0: the start of the segment, to which the code adds offsets
    TLSDESC          two words that one relocation fills

A module identifier without a symbol whose second word is 0 serves local-dynamic, or general-dynamic of the very first
variable: only the code can tell.
"""

from __future__ import annotations

from dlwhy.attribute.triggers import target
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.elf.relocs import Relocation

TPOFF, DTPMOD, TLSDESC = "tpoff", "dtpmod", "tlsdesc"


class Slot(Record):
    """One place in the GOT and the variable behind it."""

    address: int
    """Of its first word."""
    kind: str
    """"tpoff", "dtpmod" or "tlsdesc"."""
    symbol: str | None
    """As written; None for a local variable."""
    offset: int | None
    """Bytes from the start of the object's own segment; None for another module's variable."""
    module: bool
    """Whether it may stand for the module's whole segment (local-dynamic)."""


def slots(elf: Elf) -> dict[int, Slot]:
    """Return address -> slot; what lies at one address twice keeps the relocation that the loader applies last.

    Raises `ElfError` when a relocation table leaves the file.
    """
    found = tls_relocations(elf)
    known: dict[bytes, str] = {}
    result: dict[int, Slot] = {}

    def add(kind: str, relocation: Relocation, table: str) -> None:
        symbol, offset = target(elf, relocation, table, known)
        result[relocation.offset] = Slot(relocation.offset, kind, symbol, offset, False)

    for relocation, table in found.tpoff:
        add(TPOFF, relocation, table)
    for relocation, table in found.tlsdesc:
        add(TLSDESC, relocation, table)
    second = {relocation.offset for relocation, _ in found.dtpoff}
    step = elf.layout.word.size
    for relocation, table in found.dtpmod:
        if relocation.symbol or relocation.offset + step in second:
            add(DTPMOD, relocation, table)
            continue
        try:
            (offset,) = elf.layout.word.unpack(elf.at(relocation.offset + step, step))
        except ElfError:
            offset = 0
        result[relocation.offset] = Slot(relocation.offset, DTPMOD, None, offset, not offset)
    return result
