"""What single x86-64 instructions do to registers that hold the start of the segment, or an address in it.

For following code behind local-dynamic accesses (Intel SDM vol. 2, ch. 2 and app. A, B); what counts as a use says
`attribute.held`. The distance of a variable from the start always stands in a field of 32 bits, for a relocation fills
it (psABI x86-64, 4.4.1, R_X86_64_DTPOFF32): with it `DISTANCE`, the start or a place reckoned from it, gets to be the
`ADDRESS` of a variable. Of what has an index added nothing but that distance is believed.
"""

from __future__ import annotations

from dlwhy.attribute.held import ADDRESS, NUMBER, word_at
from dlwhy.attribute.operands_x86_64 import NONE, RBP, RSP, Operands

RAX, RCX, RDX, RSI, RDI = 0, 1, 2, 6, 7
_PREFIXES = frozenset((0x66, 0xF0, 0xF2, 0xF3, 0x2E, 0x3E, 0x64))
_TO_GENERAL = frozenset((0x2C, 0x2D, 0x50, 0xC5, 0xD7))
"""Two-byte opcodes that write a general register from a vector; then those that read one into a vector."""
_FROM_GENERAL = frozenset((0x2A, 0x6E, 0xC4))
_NO_EFFECT = frozenset(range(0x19, 0x20))
_VECTOR = frozenset([*range(0x10, 0x18), 0x28, 0x29, *range(0x2A, 0x30), *range(0x50, 0x78), 0x7E, 0x7F, 0xC2, 0xC4,
                     0xC5, 0xC6, *range(0xD0, 0xFF)])  # fmt: skip


class Effects(Operands):
    """The state at one instruction; and all that was found before."""

    def do(self, code: bytes, next_: int) -> bool:
        """Do what an instruction that does not branch does; it ends at address `next_`. Whether it is known.

        Raises `IndexError` for one that is cut off.
        """
        i = 0
        while code[i] in _PREFIXES:
            i += 1
        self._code, self._narrow, self._next = code, 0x66 in code[:i], next_
        self._repeated = 0xF3 in code[:i]
        self._rex = code[i] if 0x40 <= code[i] <= 0x4F else 0
        i += bool(self._rex)
        op = code[i]
        if op == 0x0F:
            return self._two(code[i + 1], i + 2)
        return self._short(op, i + 1) or self._long(op, i + 1)

    def _short(self, op: int, i: int) -> bool:
        """An instruction without ModRM; False for others."""
        register = op & 7 | (self._rex & 1) << 3
        if 0x50 <= op <= 0x57:
            self._push(register)
        elif 0x58 <= op <= 0x5F:
            value = self.state.pop(word_at(RSP, 0), None)
            self.moved(RSP, 8)
            self.put(register, value)
        elif op in (0x68, 0x6A):
            self._push(NONE)
        elif 0xB0 <= op <= 0xBF:
            self.kill(register if op > 0xB7 else self._byte(register))
        elif op < 0x40 and op & 7 in (4, 5):
            self._immediate(op >> 3, RAX, _signed(self._code[i:]), op & 1, op & 1)
        elif op in (0xA8, 0xA9):
            self.used(RAX)
        elif op in (0x98, 0x99):
            self.used(RAX)
            self.kill(RAX if op == 0x98 else RDX)
        elif op == 0xC9:
            self.moved(RSP, None)
            self.kill(RBP)
        elif op in (0xA4, 0xA5, 0xAA, 0xAB):
            self.used(RDI, RSI if op < 0xA8 else RAX)
            self.kill(RDI, *((RSI,) if op < 0xA8 else ()), *((RCX,) if self._repeated else ()))
            self._overwritten()
        else:
            return op == 0x90
        return True

    def _long(self, op: int, i: int) -> bool:
        """An instruction of one byte with ModRM."""
        self._operands(i)
        byte = not op & 1
        if op != 0x8D:
            self._touch()
        if op < 0x40:
            self._arithmetic(op >> 3, op >> 1 & 1, byte)
        elif op in (0x80, 0x81, 0x83):
            if self._other == NONE:
                return self._stored(1 if byte else self._size) if self._form != 7 else True
            other, number = self._byte(self._other) if byte else self._other, _signed(self._code[self._end :])
            self._immediate(self._form, other, number, op != 0x80, op == 0x81)
        elif op in (0x88, 0x89, 0x8A, 0x8B):
            self._move(op)
        elif op == 0x8D:
            value = self._value
            if self._relative_here():
                value = (0, NUMBER)  # perhaps another slot's address
            self.put(self._register, value if self._wide or (value and value[1] == NUMBER) else None)
        elif op in (0x63, 0x69, 0x6B):
            self._use_other()
            self.kill(self._register)
        elif op in (0x84, 0x85):
            self._use_other()
            self.used(self._register)
        elif op == 0xFF and self._form == 6:
            self._push(NONE)
        elif 0xD8 <= op <= 0xDF:  # of the stack of floating-point numbers; fnstsw %ax
            self._stored(16)
            if op == 0xDF and self._other != NONE:
                self.kill(RAX)
        else:
            return self._change(op, byte)
        return True

    def _change(self, op: int, byte: bool) -> bool:
        """Exchanges, shifts, products, and what counts up: they write what they read."""
        other = self._byte(self._other) if byte and self._other != NONE else self._other
        if op in (0xFE, 0xFF, 0xF6, 0xF7, 0x86, 0x87, 0x8F, 0xC6, 0xC7) or 0xC0 <= op <= 0xC1 or 0xD0 <= op <= 0xD3:
            if op == 0xFF and self._form < 2 and self._wide and other != NONE:
                self._immediate(0, other, 1 - 2 * self._form, True, False)
                return True
            if other != NONE and op not in (0x8F, 0xC6, 0xC7):
                self.used(other)
            if op in (0x86, 0x87):
                self.used(self._register)
                self.kill(self._byte(self._register) if byte else self._register)
            if op in (0xF6, 0xF7) and self._form >= 4:
                self.used(RAX)
                self.kill(RAX, RDX)
            elif op not in (0xF6, 0xF7) or self._form > 1:
                self._written(other, 1 if byte else self._size)
            if op == 0x8F:
                self.moved(RSP, 8)
            return True
        return False

    def _arithmetic(self, form: int, to_register: int, byte: bool) -> None:
        register, other = self._register, self._other
        if byte:
            register, other = self._byte(register), self._byte(other) if other != NONE else other
        one = self.read(register)
        two = self.read(other) if other != NONE else None
        target = register if to_register else other
        if form == 7:  # cmp; of two: where a loop ends
            if (one is None) != (two is None):
                self._count(one, two)
        elif form in (0, 5) and self._wide and not byte and target != NONE:
            left, right = (one, two) if to_register else (two, one)
            if form == 5 and right is not None:
                self.put(target, None)
            else:
                value = left or right
                both = left is not None and right is not None
                self.put(target, None if both or value is None or value[1] >= NUMBER else value)
        else:
            if not (form == 6 and register == other):
                self._count(one, two)
            self._written(target, 1 if byte else self._size)

    def _immediate(self, form: int, register: int, number: int, whole: int | bool, filled: int | bool) -> None:
        """A register and a number: `whole` if not a byte, `filled` if the number's field could be a relocation's."""
        if form == 7:
            self.used(register)
        elif form in (0, 5) and whole and self._wide:
            number = number if form == 0 else -number
            if register in self.pointers and register not in self.state:
                self.moved(register, number)
                return
            value = self.read(register)
            if value is not None and value[1] < NUMBER:
                value = (value[0] + number, ADDRESS if filled and form == 0 else value[1])
            self.put(register, value)
        else:
            self.used(register)
            self.kill(register)

    def _move(self, op: int) -> None:
        load, byte = bool(op & 2), not op & 1
        register, other = self._register, self._other
        if byte:
            register, other = self._byte(register), self._byte(other) if other != NONE else other
        if other == NONE and not load:
            self._store(register, self._frame, 1 if byte else self._size)
        elif other == NONE:
            value = self.state.get(word_at(*self._frame)) if self._frame is not None and self._wide else None
            self.put(register, value)
        else:
            source, target = (other, register) if load else (register, other)
            value = self.read(source) if self._wide and not byte else None
            if not self._wide or byte:
                self.used(source)
            self.put(target, value)

    def _two(self, op: int, i: int) -> bool:
        """An instruction of two bytes."""
        if op in (0x31, 0xA2):
            self.kill(RAX, RDX, *((RCX, 3) if op == 0xA2 else ()))
            return True
        if 0xC8 <= op <= 0xCF:
            register = op & 7 | (self._rex & 1) << 3
            self.used(register)
            self.kill(register)
            return True
        if op in _NO_EFFECT:
            return True
        self._operands(i)
        self._touch()
        if op in _VECTOR:
            self._vector(op)
        elif 0x40 <= op <= 0x4F:  # cmov: one of two
            self.used(self._register)
            self._use_other()
            self.kill(self._register)
        elif 0x90 <= op <= 0x9F:
            self._written(self._byte(self._other) if self._other != NONE else NONE, 1)
        elif op in (0xAF, 0xB6, 0xB7, *range(0xBC, 0xC0)):
            self._use_other(byte=op in (0xB6, 0xBE))
            self.kill(self._register)
        elif op in (0xA3, 0xC3, 0x18):
            self._use_other()
            self.used(self._register) if op != 0x18 else None
            self._stored(8)
        else:
            self._use_other()
            self.used(self._register) if op != 0xBA else None
            self.kill(RAX) if op in (0xB0, 0xB1) else self.kill(self._register) if op in (0xC0, 0xC1) else None
            self._written(self._other)
        return True

    def _vector(self, op: int) -> None:
        """Vectors have registers of their own; few instructions move between these and the general ones."""
        if op in _TO_GENERAL:
            self.kill(self._register)
        elif op in _FROM_GENERAL:
            self._use_other()
        elif op == 0x7E and not self._repeated and self._other != NONE:
            self.kill(self._other)
        elif self._frame is not None and op in (0x11, 0x13, 0x17, 0x29, 0x2B, 0x7E, 0x7F, 0xD6, 0xE7):
            self._store(NONE, self._frame, 16)


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)
