"""What single aarch64 instructions do to registers that hold an address, a part of one, or a number (Arm ARM, C4.1).

For following code from where a slot of the GOT leads; what counts as a use says `attribute.held`. `DISTANCE` is one
from the thread pointer here, to which the pointer is yet to be added.
"""

from __future__ import annotations

from dlwhy.attribute.held import ADDRESS, NUMBER, Held, word_at

_POINTERS = (29, 31)
_ZERO = 31
"""Number of the register of zeros, and of the stack pointer: nothing is held in it."""


class Effects(Held):
    """The state at one instruction; and all that was found before."""

    pointers = _POINTERS
    nothing = _ZERO

    def do(self, word: int) -> bool:
        """Do what an instruction that is no branch does; whether it is known."""
        group = word >> 25 & 15
        if group in (8, 9):
            self._immediate(word)
        elif group in (4, 6, 12, 14):
            self._memory(word)
        elif group in (5, 13):
            self._registers(word)
        elif group in (7, 15):
            self._vector(word)
        elif word >> 24 == 0xD5:  # system instructions
            if word >> 21 & 1:  # mrs
                self.kill(word & 31)
        else:
            return False
        return True

    def _immediate(self, word: int) -> None:
        kind, target, source = word >> 23 & 7, word & 31, word >> 5 & 31
        if kind == 2 and word >> 31 and not (word >> 29 & 1 and target == _ZERO):  # add, sub; no cmp
            distance = (word >> 10 & 0xFFF) << (12 if word >> 22 & 1 else 0)
            value = self.read(source)
            if value is not None:
                value = (value[0] + (-distance if word >> 30 & 1 else distance), value[1])
            self.put(target, value)
        elif kind == 5:  # movn, movz, movk
            form, shift = word >> 29 & 3, (word >> 21 & 3) * 16
            part = (word >> 5 & 0xFFFF) << shift
            before = self.state.get(target)
            if form == 2:
                self.put(target, (part, NUMBER))
            elif form == 3 and before is not None and before[1] == NUMBER:
                self.put(target, (before[0] & ~(0xFFFF << shift) | part, NUMBER))
            elif form == 0 and word >> 31:
                self.put(target, (~part, NUMBER))
            else:
                self.kill(target)
        else:
            if kind > 1:  # adr and adrp read nothing
                self.used(source)
            self.kill(target)

    def _memory(self, word: int) -> None:
        base, kind, vector = word >> 5 & 31, word >> 28 & 3, bool(word >> 26 & 1)
        if kind == 1 and not word >> 24 & 1:  # a literal
            if not vector:
                self.kill(word & 31)
        elif kind == 2:  # a pair
            width = (4 << (word >> 30)) if vector else 8 if word >> 31 else 4
            mode = word >> 23 & 3
            distance = signed(word >> 15, 7) * width if mode != 1 else 0
            self._at(base, distance)
            for place, register in enumerate((word & 31, word >> 10 & 31)):
                self._data(word, register, (base, distance + place * width, width))
            if mode in (1, 3):
                self._moved(base, signed(word >> 15, 7) * width)
        elif kind == 3:
            self._single(word, base, vector)
        else:  # exclusive, ordered, several vectors, tags
            self.used(base)
            if not vector:
                self.used(word & 31)
                self.kill(word & 31, word >> 10 & 31, word >> 16 & 31)
            elif word >> 23 & 1:
                self.put(base, None)

    def _single(self, word: int, base: int, vector: bool) -> None:
        """A load or store of one register."""
        size = word >> 30 | (word >> 21 & 4 if vector and word >> 30 == 0 else 0)
        mode = word >> 10 & 3
        if word >> 24 & 1 or not word >> 21 & 1:
            distance = (word >> 10 & 0xFFF) << size if word >> 24 & 1 else signed(word >> 12, 9)
            after = not word >> 24 & 1 and mode == 1
            self._at(base, 0 if after else distance)
            self._data(word, word & 31, (base, 0 if after else distance, 1 << size))
            if not word >> 24 & 1 and mode in (1, 3):
                self._moved(base, distance)
        elif mode == 2:  # at a distance that a register holds
            value = self._sum(base, word >> 16 & 31, size if word >> 12 & 1 else 0)
            if value is not None:
                self.found.add(value[0])
            self._data(word, word & 31, None)
        else:  # atomics: of what is there and a register
            self.used(base, word >> 16 & 31)
            self.kill(word & 31)

    def _at(self, base: int, distance: int) -> None:
        value = self.read(base)
        if value is not None and value[1] == ADDRESS:
            self.found.add(value[0] + distance)

    def _moved(self, base: int, distance: int) -> None:
        """Add a distance to the register of an address, as loads and stores can do beside their work."""
        value = self.state.get(base)
        self.put(base, (value[0] + distance, value[1]) if value is not None else None)

    def _data(self, word: int, register: int, place: tuple[int, int, int] | None) -> None:
        """What a load or store does to its register, and to the word of the stack at (pointer, distance, bytes)."""
        vector = bool(word >> 26 & 1)
        pair = word >> 28 & 3 == 2
        load = bool(word >> 22 & (1 if vector or pair else 3))
        stack = place is not None and place[0] in _POINTERS
        key = word_at(place[0], place[1]) if place is not None and stack and place[2] == 8 else None
        if load and not vector:
            self.kill(register)
            value = self.state.get(key) if key is not None else None
            if value is not None:
                self.put(register, value)
        elif not load:
            if not vector:
                self.used(register)
            value = self.state.get(register) if not vector else None
            if key is not None:
                self.state.pop(key, None)
                if value is not None:
                    self.state[key] = value

    def _sum(self, one: int, other: int, shift: int) -> tuple[int, int] | None:
        """Return the sum of two registers, the second one shifted, where one of them is followed."""
        first, second = self.read(one), self.read(other)
        if second is not None and shift:
            second = (second[0] << shift, NUMBER) if second[1] == NUMBER else None
        if first is None or second is None:
            known = first or second
            return (known[0], ADDRESS) if known is not None and known[1] != NUMBER else None
        if NUMBER not in (first[1], second[1]):
            return None  # of two followed ones: no address
        return first[0] + second[0], min(first[1], second[1])

    def _registers(self, word: int) -> None:
        target, source, other = word & 31, word >> 5 & 31, word >> 16 & 31
        part, wide = word >> 21 & 0xFF, word >> 31
        if wide and part & 0xF8 == 0x58 and not word >> 29 & 3:  # add
            lsl = word >> 10 & 0x3F if not word >> 21 & 1 else 64 if word >> 10 & 7 else 0
            if word >> 22 & 3 and not word >> 21 & 1:  # shifted right
                lsl = 64
            self.put(target, self._sum(source, other, lsl)) if target != _ZERO else None
        elif word & 0x7FE0FFE0 == 0x2A0003E0:  # mov
            value = self.read(other)
            self.kill(target)
            if value is not None and target != _ZERO and (wide or value[1] == NUMBER):
                self.put(target, value)
        elif part & 0xF8 == 0xD8 and not word >> 15 & 1:  # a product is added
            value = self.read(word >> 10 & 31)
            self.read(source)
            self.read(other)
            self.kill(target)
            if value is not None and value[1] != NUMBER and target != _ZERO:
                self.put(target, (value[0], ADDRESS))
        elif part & 0xF8 == 0x58 and word >> 29 & 3 == 3 and None not in (self.read(source), self.read(other)):
            self.kill(target)  # cmp of two: where a loop ends
        else:
            if part == 0xD4:  # csel: one of two; csinc adds 1 to the second one
                for register, more in ((source, 0), (other, word >> 10 & 1)):
                    value = self.read(register)
                    if value is not None and value[1] != NUMBER:
                        self.found.add(value[0] + more)
                self.kill(target)
                return
            self.used(source)
            if part != 0xD2 or not word >> 11 & 1:  # ccmp with a number
                self.used(other)
            if part != 0xD2:
                self.kill(target)

    def _vector(self, word: int) -> None:
        """Vectors have registers of their own; few instructions move between these and the general ones."""
        if word >> 24 & 0x1F == 0x1E and word >> 21 & 1 and not word >> 10 & 0x3F:  # conversions, fmov
            if word >> 16 & 7 == 7:
                self.used(word >> 5 & 31)
            elif word >> 16 & 7 in (0, 1, 4, 5, 6):
                self.kill(word & 31)
        elif word & 0x9FE08400 == 0x0E000400:  # copies of elements
            if word >> 11 & 15 in (1, 3):
                self.used(word >> 5 & 31)
            elif word >> 11 & 15 in (5, 7):
                self.kill(word & 31)


def signed(value: int, bits: int) -> int:
    """Return the low bits of a word as a number with a sign."""
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
