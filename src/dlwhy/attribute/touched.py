"""Where variables begin in a file without names: what its slots and its code say of places in the TLS segment.

    initial-exec, TLSDESC      the addend of a relocation without a symbol is the offset of a local variable
    general-dynamic            so is the second word of a slot without one
    local-dynamic              __tls_get_addr tells the start of the segment, and the code adds offsets to it
    local-exec                 the offset stands in the code

The first two name the start of a variable. The others name whatever the code touches, be it a member of a structure.
Behind a local-dynamic call the code is followed while a register is known to hold the address (x86-64: Intel SDM vol.
2, ch. 2; calls keep rbx, rbp and r12 to r15: psABI x86-64, 3.2.1). On aarch64 it is followed behind every slot of the
object's own, for gcc puts one anchor before all small variables of a source file. Rule: what is not understood ends the
following; a place is never guessed.
"""

from __future__ import annotations

from dlwhy.attribute.calls import length_and_kind
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
_WINDOW = 512
"""Bytes behind a call that are looked at."""
_MOST = 96
"""Instructions followed behind one call."""
_KEPT = frozenset((3, 5, 12, 13, 14, 15))
"""Registers that a call leaves as they are: rbx, rbp, r12 to r15."""
_TO_REG = frozenset(
    [*(base + i for base in range(0x00, 0x38, 8) for i in (2, 3)), 0x63, 0x69, 0x6B, 0x86, 0x87, 0x8A, 0x8B, 0x8D]
)
"""One-byte opcodes that write the register of ModRM."""
_TO_RM = frozenset(
    [*(base + i for base in range(0x00, 0x38, 8) for i in (0, 1)), 0x80, 0x81, 0x83, 0x86, 0x87, 0x88, 0x89, 0x8F,
     0xC0, 0xC1, 0xC6, 0xC7, 0xD0, 0xD1, 0xD2, 0xD3, 0xF6, 0xF7, 0xFE, 0xFF]
)  # fmt: skip
"""Those that may write what ModRM's other operand names."""
_WIDE_TO_REG = frozenset([*range(0x40, 0x50), 0xAF, 0xB6, 0xB7, *range(0xB8, 0xC0), 0x2C, 0x2D, 0x50, 0xC5, 0xD7])
_WIDE_TO_RM = frozenset(
    [*range(0x90, 0xA0), 0x7E, 0xA4, 0xA5, 0xAB, 0xAC, 0xAD, 0xB0, 0xB1, 0xB3, 0xBA, 0xBB, 0xC0, 0xC1]
)


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
        elif elf.machine == EM_AARCH64 and slot is not None and slot.symbol is None and slot.offset is not None:
            yield site.address, site.model.rstrip("?"), slot.offset


def displacements(elf: Elf, address: int, model: str, left: Left) -> set[int]:
    """Return what the code behind the access of a model at `address` adds to where its slot leads, be it nothing.

    Of x86-64 the model is local-dynamic. Without instructions `left` nothing is. Raises nothing for code that leaves
    the file.
    """
    if left.steps < 0:
        return set()
    if elf.machine == EM_AARCH64:
        from dlwhy.attribute import behind_aarch64

        offsets, steps = behind_aarch64.displacements(elf, address, model)
        left.steps -= steps
        return offsets
    code = elf.around(address, _WINDOW)
    at = 7  # behind lea slot(%rip),%rdi
    call = length_and_kind(code[at:], address + at)
    if call is None or call[1] not in ("call", "slot-call"):
        return set()
    found: set[int] = set()
    todo: list[tuple[int, frozenset[int]]] = [(at + call[0], frozenset((0,)))]
    seen: set[int] = set()
    while todo and len(seen) < _MOST:
        at, holders = todo.pop()
        if at in seen or not holders or not 0 <= at < len(code):
            continue
        seen.add(at)
        left.steps -= 1
        step = length_and_kind(code[at : at + 15], address + at)
        if step is None:
            continue
        length, kind, target = step
        try:
            offsets, after = _effect(code[at : at + length], holders)
        except IndexError:
            continue
        found.update(offsets)
        if kind in ("next", "branch"):
            todo.append((at + length, after))
        elif kind in ("call", "slot-call"):
            todo.append((at + length, after & _KEPT))
        if kind in ("branch", "jump"):
            todo.append((target - address, after))
    return found


def _effect(code: bytes, holders: frozenset[int]) -> tuple[set[int], frozenset[int]]:
    """Return the offsets that one instruction adds to a register of `holders`, and who holds the address behind it."""
    i = 0
    while code[i] in (0x66, 0xF0, 0xF2, 0xF3, 0x2E, 0x3E, 0x64):
        i += 1
    rex = code[i] if 0x40 <= code[i] <= 0x4F else 0
    i += bool(rex)
    op = code[i]
    i += 1
    two = op == 0x0F
    if two:
        op = code[i]
        i += 1
    if not two:
        if 0x50 <= op <= 0x5F or 0xB8 <= op <= 0xBF or 0xB0 <= op <= 0xB7:
            written = {op & 7 | (rex & 1) << 3} if op >= 0x58 else set()
            return set(), holders - written
        if op == 0x05:  # add imm32,%rax
            return ({_signed(code[i : i + 4])} if 0 in holders else set()), holders - {0}
        if op in range(0x04, 0x40, 8) or op in range(0x0D, 0x40, 8) or op in (0x98, 0xA8, 0xA9):
            return set(), holders if op in (0x3C, 0x3D, 0xA8, 0xA9) else holders - {0}
        if op in (0x99, 0x90, 0xC3, 0xC9, 0x68, 0x6A, 0xE8, 0xE9, 0xEB, 0xC2, 0xCC) or 0x70 <= op <= 0x7F:
            return set(), holders - ({2} if op == 0x99 else {5} if op == 0xC9 else set())
    elif 0x80 <= op <= 0x8F or op == 0x0B:
        return set(), holders
    elif op in (0x31, 0xA2):  # rdtsc, cpuid
        return set(), holders - {0, 1, 2, 3}
    elif 0xC8 <= op <= 0xCF:  # bswap
        return set(), holders - {op & 7 | (rex & 1) << 3}
    return _operands(code, i, rex, op, two, holders)


def _operands(
    code: bytes, i: int, rex: int, op: int, two: bool, holders: frozenset[int]
) -> tuple[set[int], frozenset[int]]:
    """`_effect` of an instruction whose ModRM byte stands at `i`."""
    if (two and op in (0xB0, 0xB1)) or (not two and op in (0xF6, 0xF7)):  # cmpxchg, mul, div: into rax and rdx
        holders -= {0, 2}
    mode, register, rm = code[i] >> 6, code[i] >> 3 & 7 | (rex & 4) << 1, code[i] & 7 | (rex & 1) << 3
    to_reg, to_rm = (op in _WIDE_TO_REG, op in _WIDE_TO_RM) if two else (op in _TO_REG, op in _TO_RM)
    offsets: set[int] = set()
    left = holders
    if mode == 3:
        if not two and rex & 8 and op in (0x81, 0x83) and register & 7 == 0 and rm in holders:  # add imm,%reg
            offsets.add(_signed(code[i + 1 : i + 5] if op == 0x81 else code[i + 1 : i + 2]))
        source, target = (register, rm) if op == 0x89 else (rm, register)
        if not two and rex & 8 and op in (0x89, 0x8B):  # mov between registers
            return offsets, left | {target} if source in holders else left - {target}
        compares = (op in (0x80, 0x81, 0x83) and register & 7 == 7) or (op in (0xF6, 0xF7) and register & 7 < 2)
        if to_rm and (two or not compares):
            left -= {rm}
        if to_reg:
            left -= {register}
        return offsets, left
    base, index = rm, 4
    at = i + 1
    if rm & 7 == 4:
        base = code[at] & 7 | (rex & 1) << 3
        index = code[at] >> 3 & 7 | (rex & 2) << 2 if code[at] < 0x40 else 4  # 4: none; scaled it is no address
        at += 1
    absolute = mode == 0 and base & 7 == 5  # relative to the instruction, or without a base
    if (base in holders and not absolute) or (index != 4 and index in holders):
        offset = _signed(code[at : at + (4 if absolute else (0, 1, 4)[mode])])
        offsets.add(offset)
        if not two and op == 0x8D and not offset and rm & 7 != 4:
            return offsets, left | {register}
    if to_reg:
        left -= {register}
    return offsets, left


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)
