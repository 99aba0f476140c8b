"""Which variables x86-64 code goes on to behind a local-dynamic access: what it adds to the start of the segment.

__tls_get_addr tells the start, or the descriptor of the module its distance from the thread pointer; the registers and
words of the stack that hold it are followed along all ways, through calls as far as calls keep them: rbx, rbp and r12
to r15 (psABI x86-64, 3.2.1); a descriptor's call keeps all but rax (ELF TLS 4.1.6 and the TLSDESC supplement).

Rule: what is not understood ends the following; a place is never guessed.
"""

from __future__ import annotations

from dlwhy.attribute.calls import length_and_kind
from dlwhy.attribute.effects_x86_64 import RAX, RCX, RDI, RDX, RSI, Effects
from dlwhy.attribute.held import DISTANCE, NUMBER, SLOT
from dlwhy.attribute.ways import Ways, window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf

_LONGEST = 15
_LEA = 7
"""Bytes of lea slot(%rip),%reg."""
_ARGUMENTS = (RDI, RSI, RDX, RCX, 8, 9)
_RESULTS = (RAX, RDX)
_KEPT = frozenset((3, 5, 12, 13, 14, 15))
_DESCRIPTOR = b"\xff\x10"
"""call *(%rax)"""


def displacements(elf: Elf, address: int, model: str) -> tuple[set[int], int]:
    """Return the distances from the start of the segment that the code behind an access of a model goes on to.

    And how many instructions were followed. Raises nothing for code that leaves the file.
    """
    before, code = window(elf, address)
    way = _Way(code, address - before)
    begin = before + _LEA
    if len(code) < begin:
        return set(), 1
    if model == "TLSDESC":
        register = code[before + 2] >> 3 & 7 | (code[before] & 4) << 1
        steps = way.follow(begin, {register: (0, SLOT)})
        return way.effects.told(), steps + 1
    one = length_and_kind(code[begin : begin + _LONGEST], address + _LEA)
    if one is None or one[1] not in ("call", "slot-call"):
        return set(), 1
    steps = way.follow(begin + one[0], {RAX: (0, DISTANCE)})
    return way.effects.told(), steps + 1


class _Way(Ways):
    """One following along all ways. A place is that of a byte."""

    def __init__(self, code: bytes, address: int) -> None:
        self._code, self._address = code, address
        self.effects = Effects()
        super().__init__(self.effects, _ARGUMENTS, len(code))

    def step(self, at: int) -> int | None:
        """Do one instruction; return where it goes on."""
        one = length_and_kind(self._code[at : at + _LONGEST], self._address + at)
        if one is None:
            return self._through_register(at)
        length, kind, target = one
        if kind == "next":
            instruction = self._code[at : at + length]
            try:
                return at + length if self.effects.do(instruction, self._address + at + length) else None
            except IndexError:
                return None
        if kind in ("call", "slot-call"):
            return at + length if self.call(_KEPT) else None
        if kind == "branch":
            self.go(target - self._address)
            self.go(at + length)
        elif kind == "jump":
            self.go(target - self._address)
        elif kind == "return":
            self.effects.passed(_RESULTS, 1)
        elif kind == "slot-jump":
            self.effects.passed(_ARGUMENTS)
        return None

    def _through_register(self, at: int) -> int | None:
        """Calls and jumps to where a register, or a word that one points to, says."""
        code, effects, i = self._code, self.effects, at
        value = effects.state.get(RAX)
        if code[at : at + 2] == _DESCRIPTOR and value is not None and value[1] >= NUMBER:
            effects.put(RAX, (0, DISTANCE) if value[1] == SLOT else None)
            return at + 2 if self.follows() else None
        while i < len(code) and (0x40 <= code[i] <= 0x4F or code[i] in (0x3E, 0xF2)):
            i += 1
        if len(code) < i + 2 or code[i] != 0xFF or code[i + 1] >> 3 & 7 not in (2, 4):
            return None
        mode, register = code[i + 1] >> 6, code[i + 1] & 7
        if code[i + 1] >> 3 & 7 == 4:
            effects.passed(_ARGUMENTS)
            return None
        if mode != 3 and (register == 4 or (mode == 0 and register == 5)):
            return None
        return i + 2 + (0, 1, 4, 0)[mode] if self.call(_KEPT) else None
