"""Which variables aarch64 code goes on to behind an access: what it adds to where a slot leads.

gcc lays the small variables of one source file behind one anchor and reaches them all through the anchor's slot;
local-dynamic code does the same from the start of the segment. So the registers that hold the place, or a distance
from it, are followed: through calls as far as calls keep them (AAPCS64, 6.1.1; a TLS descriptor's keeps all), through
the stack, along all ways (ELF for the Arm 64-bit Architecture, Thread-local storage).

Rule 1: what is not understood ends the following; a place is never guessed.
Rule 2: what a loop counts up is followed through its first round only.
"""

from __future__ import annotations

import struct

from dlwhy.attribute.effects_aarch64 import Effects, signed
from dlwhy.attribute.held import ADDRESS, DISTANCE
from dlwhy.attribute.ways import Ways, window

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.held import State
    from dlwhy.elf.file import Elf

_NEAR = 16
"""Instructions between the slot's address and the call that takes it; and before it, in which a number is made."""
_ARGUMENTS = tuple(range(8))
_KEPT = frozenset(range(19, 29))
"""Registers that a call leaves as they are."""
_BRANCH, _SYSTEM = 5, 0xD5
"""Bits 26 to 28 of branches and system instructions, and the highest byte of the latter."""


def displacements(elf: Elf, address: int, model: str) -> tuple[set[int], int]:
    """Return the distances from where its slot leads that the code behind an access of a model goes on to.

    And how many instructions were followed.
    """
    before, code = window(elf, address)
    before, code = before & -4, code[before & 3 :]
    if len(code) < before + 4 or address % 4:
        return set(), 1
    way = _Way(struct.unpack(f"<{len(code) // 4}I", code[: len(code) & -4]))
    begin = _begin(way.words, before // 4, model)
    steps = way.follow(*begin) if begin is not None else 0
    return way.effects.found, steps + 1


def _begin(words: tuple[int, ...], first: int, model: str) -> tuple[int, State] | None:
    """Return behind which instruction which register holds where the slot leads; None where it is not seen."""
    register = words[first] & 31
    ahead = Effects()  # of numbers that were made before
    for index in range(max(first - _NEAR, 0), min(first + _NEAR, len(words))):
        word = words[index]
        if index == first and model.startswith("initial-exec"):
            return first + 1, {**ahead.state, register: (0, DISTANCE)}
        if word >> 26 & 7 != _BRANCH or word >> 24 == _SYSTEM:
            ahead.do(word)
            continue
        if index < first:
            if not _descriptor(words, index):
                ahead.state.clear()
        elif word & 0xFFFFFC1F == 0xD63F0000 and model == "TLSDESC" and word >> 5 & 31 == register:  # blr
            return index + 1, {**ahead.state, 0: (0, DISTANCE)}
        elif model != "TLSDESC" and (word >> 26 == 0x25 or word & 0xFFFFFC1F == 0xD63F0000):  # __tls_get_addr
            return index + 1, {0: (0, ADDRESS)}
        else:
            return None
    return None


class _Way(Ways):
    """One following along all ways. A place is the number of a word."""

    def __init__(self, words: tuple[int, ...]) -> None:
        self.words = words
        self.effects = Effects()
        super().__init__(self.effects, _ARGUMENTS, len(words))

    def step(self, at: int) -> int | None:
        """Do one instruction; return where it goes on."""
        word = self.words[at]
        plain = word >> 26 & 7 != _BRANCH or word >> 24 == _SYSTEM
        return at + 1 if (self.effects.do(word) if plain else self._branch(word, at)) else None

    def _branch(self, word: int, at: int) -> bool:
        """Do what a branch does; whether only what stands behind it is left to follow."""
        effects = self.effects
        if word >> 26 == 0x25 or word & 0xFE600000 == 0xD6200000:  # bl, blr
            return self._call(at)
        if word >> 26 == 0x05:
            self.go(at + signed(word, 26))
        elif word >> 25 == 0x6B:  # to where a register says; ret
            effects.passed(_ARGUMENTS, 1 if word >> 21 & 3 == 2 else 8)
        elif word >> 24 == 0x54:
            self.go(at + signed(word >> 5, 19))
            self.go(at + 1)
        elif word >> 25 & 0x3E == 0x1A:  # cbz, cbnz; tbz, tbnz
            effects.used(word & 31)
            self.go(at + signed(word >> 5, 14 if word >> 25 & 1 else 19))
            self.go(at + 1)
        else:
            return word & 0xFF00001F == 0xD4000001  # svc
        return False

    def _call(self, at: int) -> bool:
        effects = self.effects
        if self.words[at] >> 26 != 0x25:
            effects.read(self.words[at] >> 5 & 31)
        if _descriptor(self.words, at):
            effects.kill(0)
            return self.follows()
        return self.call(_KEPT)


def _descriptor(words: tuple[int, ...], at: int) -> bool:
    """Whether a call is that of a TLS descriptor: adrp x0; ldr xN, [x0]; add x0, x0; blr xN."""
    before = words[max(at - 6, 0) : at]
    load = 0xF9400000 | words[at] >> 5 & 31
    return (
        words[at] & 0xFFFFFC1F == 0xD63F0000
        and any(word & 0xFFC003FF == load for word in before)
        and any(word & 0xFFC003FF == 0x91000000 for word in before)
        and any(word & 0x9F00001F == 0x90000000 for word in before)
    )
