"""The operands of x86-64 instructions: registers, and places in memory told by registers that are followed.

ModRM, SIB and REX: Intel SDM vol. 2, 2.1.3, 2.1.5 and 2.2.1. What is done with them says `attribute.effects_x86_64`.
"""

from __future__ import annotations

from dlwhy.attribute.held import ADDRESS, NUMBER, STACK, Held, word_at

RSP, RBP = 4, 5
NONE = -1
"""No register."""


class Operands(Held):
    """The operands of one instruction, over the state before it."""

    pointers = (RSP, RBP)
    _code = b""
    """The instruction."""
    _rex = 0
    _narrow = False
    """Whether it has the prefix of 16 bits."""

    def __init__(self) -> None:
        super().__init__()
        self._indexed: set[tuple[int, int]] = set()
        """Places that were reached with an index, and by how many bytes it is multiplied."""

    def told(self) -> set[int]:
        """Return what was found; of what a loop does several rounds of at once only the first one.

        The later ones may lie behind the variable's end, for they are skipped there.
        """
        every = {place for place, _ in self._indexed}
        return self.found | {
            place for place, step in self._indexed if every.isdisjoint((place - step, place - 16, place - 32))
        }

    @property
    def _wide(self) -> bool:
        return bool(self._rex & 8)

    @property
    def _size(self) -> int:
        """Bytes of an operand that is not a byte."""
        return 8 if self._wide else 2 if self._narrow else 4

    def _push(self, register: int) -> None:
        self.moved(RSP, -8)
        self._store(register, (RSP, 0), 8)

    def _byte(self, register: int) -> int:
        """Return the register that a number of one byte means: without REX the second bytes of the first four."""
        return register & 3 if not self._rex and 4 <= register < 8 else register

    def _operands(self, i: int) -> None:
        """Read ModRM at `i` and what belongs to it: `_register`; `_other`, or in memory `_value` and `_frame`."""
        code, rex = self._code, self._rex
        mode, rm = code[i] >> 6, code[i] & 7
        self._form = code[i] >> 3 & 7
        self._register = self._form | (rex & 4) << 1
        self._other = rm | (rex & 1) << 3 if mode == 3 else NONE
        self._value: tuple[int, int] | None = None
        self._frame: tuple[int, int] | None = None
        i += 1
        self._end, self._step = i, 0
        if mode == 3:
            return
        base, index, scale = rm | (rex & 1) << 3, NONE, 0
        if rm == 4:
            base, index, scale = code[i] & 7 | (rex & 1) << 3, code[i] >> 3 & 7 | (rex & 2) << 2, code[i] >> 6
            index = index if index != RSP else NONE
            i += 1
        width = (0, 1, 4)[mode]
        self._relative = mode == 0 and rm == 5
        if mode == 0 and base & 7 == 5:
            base, width = NONE, 4
        if len(code) < i + width:
            raise IndexError
        distance = int.from_bytes(code[i : i + width], "little", signed=True)
        self._end = i + width
        if base in self.pointers and index == NONE and base not in self.state:
            self._frame = (base, distance)
        elif not self._relative:
            self._step = 0 if NONE in (base, index) else 1 << scale
            self._value = self._place(base, index, scale, distance, width)

    def _place(self, base: int, index: int, scale: int, distance: int, width: int) -> tuple[int, int] | None:
        """Return where base + index << scale + distance leads, the distance in `width` bytes."""
        first = self.read(base) if base != NONE else None
        second = self.read(index) if index != NONE else None
        if second is not None and (scale or first is not None):
            return None  # a multiple, or a sum of two addresses
        value = first or second
        if value is None or value[1] >= NUMBER:
            return None
        if value[1] == ADDRESS and NONE not in (base, index):
            return value  # the distance may only be there because the index is one too high
        return value[0] + distance, ADDRESS if width == 4 else value[1]

    def _touch(self) -> None:
        """The operand in memory is loaded from or stored to."""
        if self._value is not None and self._value[1] == ADDRESS:
            if self._step:
                self._indexed.add((self._value[0], self._step))
            else:
                self.found.add(self._value[0])

    def _overwritten(self) -> None:
        """Anything on the stack may have been written."""
        for key in [key for key in self.state if key >= STACK]:
            del self.state[key]

    def _store(self, register: int, frame: tuple[int, int] | None, size: int) -> None:
        """A register, or something else, is stored to a word of the stack or anywhere."""
        value = self.state.get(register)
        if frame is None:
            self.used(register)
            return
        if register != NONE:
            self.read(register)
        for distance in range(frame[1] - 7, frame[1] + size):
            self.state.pop(word_at(frame[0], distance), None)
        if value is not None and size == 8:
            self.state[word_at(*frame)] = value

    def _relative_here(self) -> bool:
        return self._other == NONE and self._frame is None and self._relative

    def _use_other(self, byte: bool = False) -> None:
        if self._other != NONE:
            self.used(self._byte(self._other) if byte else self._other)

    def _stored(self, size: int) -> bool:
        """Something that is not followed is stored to memory."""
        if self._frame is not None:
            self._store(NONE, self._frame, size)
        return True

    def _written(self, other: int, size: int = 8) -> None:
        if other != NONE:
            self.kill(other)
        else:
            self._stored(size)

    def _count(self, *values: tuple[int, int] | None) -> None:
        for value in values:
            if value is not None and value[1] == ADDRESS:
                self.found.add(value[0])
