"""What registers and words of the stack hold while code is followed from where a slot of the GOT leads: any machine's.

Rule 1: an address counts where it is used: loaded from, stored to, stored, compared, passed on or returned. The sums on
the way to it do not: two instructions may add one distance, and the end of a loop is no place in the variable.
Rule 2: what is added and not known counts as an index: it leaves the address in the same variable.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DISTANCE, ADDRESS, NUMBER, SLOT = 0, 1, 2, 3
"""What a register holds: what is not yet the address of a variable, such an address, a number by itself, or the address
of the slot, which the call of a TLS descriptor wants."""
State = dict[int, tuple[int, int]]
"""Register, or word of the stack -> bytes behind where the slot leads, or the number; what it is."""
STACK = 64
"""Keys of the state from here on: words of the stack, by their distance from a pointer."""
_MIDDLE = 1 << 20


def word_at(pointer: int, distance: int) -> int:
    """Return the key of the word of the stack at a distance from where a pointer points."""
    return STACK * (distance + _MIDDLE) + pointer


class Held:
    """The state at one instruction; and all that was found before."""

    pointers: tuple[int, ...] = ()
    """Frame and stack pointer: what is stored at a distance from them is found there again."""
    nothing = -1
    """Number of a register in which nothing is held."""

    def __init__(self) -> None:
        self.found: set[int] = set()
        self.state: State = {}
        self.unread = 0
        """Bit by bit the registers that were written, and not read since."""

    def read(self, register: int) -> tuple[int, int] | None:
        """Return what a register holds."""
        self.unread &= ~(1 << register)
        return self.state.get(register)

    def used(self, *registers: int) -> None:
        """An address is used for something that it is not followed through."""
        for register in registers:
            value = self.read(register)
            if value is not None and value[1] == ADDRESS:
                self.found.add(value[0])

    def passed(self, registers: Sequence[int], counted: int = 8) -> None:
        """Code elsewhere gets what registers hold, in their order: what nothing here has read, or stands before such.

        Of results the first one is `counted`: in the others there may be anything left.
        Where the slot leads is a sum's beginning as well; it is passed on only behind others that are.
        """
        all_before = True
        for place, register in enumerate(registers):
            value = self.state.get(register)
            unread = self.unread >> register & 1
            meant = unread or (place + 1 < len(registers) and self.unread >> registers[place + 1] & 1)
            if place < counted and value is not None and value[1] == ADDRESS and meant and (value[0] or all_before):
                self.found.add(value[0])
            all_before = all_before and bool(unread)

    def put(self, register: int, value: tuple[int, int] | None) -> None:
        """Write a register: with what is known, or something else."""
        if register in self.pointers:
            self.moved(register, None)
        if register == self.nothing:
            return
        self.unread |= 1 << register
        if value is None:
            self.state.pop(register, None)
        else:
            self.state[register] = value

    def moved(self, pointer: int, distance: int | None) -> None:
        """Add a distance to a pointer into the stack: the words are at another distance now; None: not known at all."""
        for key in [key for key in self.state if key >= STACK and key % STACK == pointer]:
            value = self.state.pop(key)
            if distance is not None and 0 <= key // STACK - distance < 2 * _MIDDLE:
                self.state[key - STACK * distance] = value

    def kill(self, *registers: int) -> None:
        """Write registers with something else."""
        for register in registers:
            if register != self.nothing:
                self.put(register, None)
