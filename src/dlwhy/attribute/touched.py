"""Where variables begin in a file without names: what its slots and its code say of places in the TLS segment.

    initial-exec, TLSDESC      the addend of a relocation without a symbol is the offset of a local variable
    general-dynamic            so is the second word of a slot without one
    local-dynamic              __tls_get_addr tells the start of the segment, and the code adds offsets to it
    local-exec                 the offset stands in the code

The first two name the start of a variable. The others name whatever the code touches, be it a member of a structure.
Behind a local-dynamic call the code is followed while it is known who holds the start; on x86-64 the descriptor of the
module looks like that of a local variable at offset 0, behind which it is followed, too. On aarch64 it is followed
behind every slot of the object's own, for gcc puts one anchor before all small variables of a source file. Rule: what
is not understood ends the following; a place is never guessed.
"""

from __future__ import annotations

from dlwhy.elf.machine import EM_AARCH64, EM_X86_64

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlwhy.attribute.sites import Sites
    from dlwhy.attribute.slots import Slot
    from dlwhy.elf.file import Elf

START, TOUCHED = "start", "touched"
"""How sure a place is the start of a variable."""

MOST_SITES = 1 << 16
"""Accesses behind which code is followed for places, of more that many spread evenly over it."""
MOST_STEPS = 4_000_000
"""Instructions that are followed for one file, some ten seconds: an honest one has 50 behind an access."""


class Left:
    """How many instructions may still be followed; less than none when they were not enough."""

    __slots__ = ("steps",)

    def __init__(self, steps: int = MOST_STEPS) -> None:
        self.steps = steps


def places(elf: Elf, slots: Mapping[int, Slot], found: Sites | None, memsz: int) -> dict[int, tuple[str, list[int]]]:
    """Return offset in the segment -> (START or TOUCHED, addresses of the code that reaches it), in order of offsets.

    Without `found` only the slots are asked. Raises nothing for code that leaves the file.
    """
    result: dict[int, tuple[str, list[int]]] = {}
    for one in slots.values():
        if one.symbol is None and one.offset is not None and not one.module and 0 <= one.offset < memsz:
            result[one.offset] = (START, [])
    for site in found.found if found is not None else ():
        slot = slots.get(site.slot) if site.model != "local-exec" else None
        if site.model == "local-dynamic":
            continue
        offset = site.slot if site.model == "local-exec" else slot.offset if slot is not None else None
        if offset is not None and 0 <= offset < memsz and (slot is None or slot.symbol is None):
            result.setdefault(offset, (TOUCHED, []))[1].append(site.address)
    modules = list(shared(elf, slots, found)) if found is not None else []
    step = -(-len(modules) // MOST_SITES) or 1
    left = Left()
    for address, model, start in modules[::step]:
        for offset in displacements(elf, address, model, left):
            if 0 <= start + offset < memsz:
                result.setdefault(start + offset, (TOUCHED, []))[1].append(address)
    return dict(sorted(result.items()))


def shared(elf: Elf, slots: Mapping[int, Slot], found: Sites) -> Iterator[tuple[int, str, int]]:
    """Yield (address, model, offset in the segment) of accesses from which code may go on to other variables."""
    if (elf.machine, elf.layout.is64) not in ((EM_X86_64, True), (EM_AARCH64, True)):
        return
    for site in found.found:
        slot = slots.get(site.slot) if site.model != "local-exec" else None
        if site.model == "local-dynamic":
            yield site.address, site.model, 0
        elif elf.machine == EM_X86_64:
            if site.model == "TLSDESC" and slot is not None and slot.symbol is None and slot.offset == 0:
                yield site.address, site.model, 0
        elif slot is not None and slot.symbol is None and slot.offset is not None:
            yield site.address, site.model.rstrip("?"), slot.offset


def displacements(elf: Elf, address: int, model: str, left: Left) -> set[int]:
    """Return what the code behind the access of a model at `address` adds to where its slot leads, be it nothing.

    Of x86-64 the model is local-dynamic or TLSDESC. Without instructions `left` nothing is. Raises nothing for
    code that leaves the file.
    """
    if left.steps < 0:
        return set()
    if elf.machine == EM_AARCH64:
        from dlwhy.attribute.behind_aarch64 import displacements as behind
    else:
        from dlwhy.attribute.behind_x86_64 import displacements as behind
    offsets, steps = behind(elf, address, model)
    left.steps -= steps
    return offsets
