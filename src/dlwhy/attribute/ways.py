"""Following code along all its ways from one place, with what registers hold: any machine's.

Rule: what a loop counts up is followed through its first round only.
"""

from __future__ import annotations

from dlwhy.attribute.held import NUMBER, STACK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.held import Held, State
    from dlwhy.elf.file import Elf

_BEFORE, _BEHIND = 2048, 4096
"""Bytes around an access that are looked at."""
_MOST = 768
"""Instructions followed behind one access."""
_WAYS = 8
"""Times that one place is followed from, each with other registers."""


def window(elf: Elf, address: int) -> tuple[int, bytes]:
    """Return how many bytes before an address are looked at, and the code from there on; less where a segment ends."""
    start = next((row[3] for row in elf.loads if row[3] <= address < row[3] + row[5]), address)
    before = min(_BEFORE, address - start)
    code = elf.around(address - before, before)
    if len(code) < before:
        before, code = 0, b""
    return before, code + elf.around(address, _BEHIND)


class Ways:
    """One following along all ways. Places are those of a piece of code, from 0 on."""

    def __init__(self, held: Held, arguments: tuple[int, ...], size: int) -> None:
        self._held = held
        self.arguments = arguments
        """Registers in which code passes on what other code wants."""
        self._size = size
        self._todo: list[tuple[int, State, int, frozenset[int]]] = []
        self._seen: dict[int, list[State]] = {}
        self._path: frozenset[int] = frozenset()
        """Places that branches led to on the way to this one."""

    def step(self, at: int) -> int | None:
        """Do what the instruction at a place does; return where it goes on, None where it does not or is not known."""
        raise NotImplementedError

    def follow(self, at: int, state: State) -> int:
        """Follow from an instruction on; return how many were."""
        held, left = self._held, _MOST
        self._todo.append((at, state, 1, frozenset((at,))))
        while self._todo and left > 0:
            here: int | None
            here, held.state, held.unread, self._path = self._todo.pop()
            while here is not None and 0 <= here < self._size and left > 0:
                left -= 1
                here = self.step(here)
        return _MOST - left

    def go(self, at: int) -> None:
        """Go on at a place, too."""
        state = {key: one for key, one in self._held.state.items() if one[1] != NUMBER}  # made where they are needed
        if not 0 <= at < self._size:
            self._held.passed(self.arguments)
            return
        before = self._seen.setdefault(at, [])
        if at in self._path and before:  # a loop: what differs from its first round is counted up
            state = {key: one for key, one in state.items() if before[0].get(key, one) == one}
        if state and state not in before and len(before) < _WAYS:
            before.append(state)
            self._todo.append((at, dict(state), self._held.unread, self._path | {at}))

    def call(self, kept: frozenset[int]) -> bool:
        """Other code is called, which leaves some registers as they are; whether there is something left to follow."""
        held = self._held
        held.passed(self.arguments)
        held.unread = 0
        for register in [one for one in held.state if one < STACK and one not in kept]:
            del held.state[register]
        return self.follows()

    def follows(self) -> bool:
        """Whether anything is held that leads to a variable."""
        return any(kind != NUMBER for _, kind in self._held.state.values())
