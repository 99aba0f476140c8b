"""Which functions that lazy binding left open does a piece of code call: surely, perhaps, or never.

The code is read along all its ways, through calls and jumps inside its object. What leaves the object through a slot
that is bound already counts as returning, which is all that the loader has to do with it. Only instructions whose
length is certain are read; anything else, and any jump to where a register points, makes the answer `None`: not known.
Only x86-64 is read (Intel SDM vol. 2, ch. 2 and app. A; psABI x86-64, Procedure Linkage Table).

Rule 1: "surely" is said only when no decision and no foreign code lies before the call.
Rule 2: nothing is guessed: an unknown byte ends the reading.
"""

from __future__ import annotations

import re

from dlwhy.elf.machine import EM_X86_64
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from dlwhy.elf.file import Elf

# what the C runtime's start files do: a word of the GOT into rax, and if it is not null, a call or jump there
_IF_DEFINED = re.compile(rb"\x48\x8b\x05.{4}\x48\x85\xc0(?:\x74.|\x0f\x84.{4})(\xff[\xd0\xe0])", re.DOTALL)

NOTHING: Mapping[int, int] = {}
MOST = 4096
"""Instructions read for one answer."""
_LONGEST = 15
"""Bytes of the longest instruction."""

# one-byte opcodes that take a ModRM byte and no immediate, then those with an immediate of one byte or of 16/32 bits
_MODRM = frozenset(
    [*(base + i for base in range(0x00, 0x40, 8) for i in range(4)), 0x63, *range(0x84, 0x8C), 0x8D, *range(0xD0, 0xD4),
     *range(0xD8, 0xE0), 0xFE]
)
_MODRM_8 = frozenset((0x6B, 0x80, 0x83, 0xC0, 0xC1, 0xC6))
_MODRM_32 = frozenset((0x69, 0x81, 0xC7))
_IMMEDIATE_8 = frozenset((*range(0x04, 0x40, 8), 0x6A, 0xA8, *range(0xB0, 0xB8)))
_IMMEDIATE_32 = frozenset((*range(0x05, 0x40, 8), 0x68, 0xA9))
_BARE = frozenset((*range(0x50, 0x60), 0x90, 0x98, 0x99, 0xA4, 0xA5, 0xAA, 0xAB, 0xC9))
# two-byte opcodes (0f xx) with ModRM, without and with an immediate of one byte
_WIDE_MODRM = frozenset(
    [
        *range(0x10, 0x18), *range(0x18, 0x20), *range(0x28, 0x30), *range(0x40, 0x70), *range(0x74, 0x77), 0x7E, 0x7F,
        *range(0x90, 0xA0), 0xA3, 0xAB, 0xAF, 0xB0, 0xB1, 0xB3, 0xB6, 0xB7, *range(0xBB, 0xC2), 0xC3,
        *range(0xD0, 0xFF),
    ]
)  # fmt: skip
_WIDE_MODRM_8 = frozenset((0x70, 0x71, 0x72, 0x73, 0xA4, 0xAC, 0xBA, 0xC2, 0xC4, 0xC5, 0xC6))


class Calls(Record):
    """What a piece of code calls of the functions that were left open."""

    surely: str | None
    """The first, when it is called on every way; None when that is not certain."""
    perhaps: tuple[str, ...]
    """All that some way leads to."""
    leaves: bool
    """Whether some way leads into another object."""


class _Instruction(Record):
    length: int
    kind: str
    """"next", "call", "jump", "branch", "return", "slot-call", "slot-jump" or "trap"."""
    target: int
    """Address jumped to or called; of slot-call and slot-jump the slot's."""


class _UnknownError(Exception):
    """An instruction that is not read here."""


def calls(elf: Elf, start: int, left_open: Mapping[int, str], own: Mapping[int, int] = NOTHING) -> Calls | None:
    """Return what the code at `start` calls of `left_open` (slot address -> name); None when it cannot be known.

    `own` are slots that are bound to functions of this object (slot address -> address as linked). Raises nothing:
    code that leaves the file is code that cannot be known.
    """
    if elf.machine != EM_X86_64 or not elf.layout.is64:
        return None
    try:
        perhaps, leaves = _perhaps(elf, start, left_open, own)
        return Calls(_surely(elf, start, left_open, own) if perhaps else None, perhaps, leaves)
    except (_UnknownError, ElfError):
        return None


def _surely(elf: Elf, start: int, left_open: Mapping[int, str], own: Mapping[int, int]) -> str | None:
    """Follow the one way that there is, up to the first decision, foreign function or end."""
    place = start
    returns: list[int] = []
    for _ in range(MOST):
        at = _through(_instruction(elf, place), own)
        if at.kind in ("slot-call", "slot-jump"):
            return left_open.get(at.target)
        if at.kind == "next":
            place += at.length
        elif at.kind == "call":
            returns.append(place + at.length)
            place = at.target
        elif at.kind == "jump":
            place = at.target
        elif at.kind == "return" and returns:
            place = returns.pop()
        else:
            return None
    return None


def _perhaps(
    elf: Elf, start: int, left_open: Mapping[int, str], own: Mapping[int, int]
) -> tuple[tuple[str, ...], bool]:
    """Follow every way, and see whether one leaves the object. A call is followed into and past."""
    todo = [start]
    seen: set[int] = set()
    known: set[int] = set()
    found: dict[str, None] = {}
    leaves = False
    while todo:
        place = todo.pop()
        if place in seen:
            continue
        seen.add(place)
        if len(seen) > MOST:
            raise _UnknownError
        if place in known:  # to a function that the loader bound already
            leaves = True
            todo.append(place + 2)
            continue
        guarded = _IF_DEFINED.match(elf.around(place, 2 * _LONGEST))
        if guarded:
            known.add(place + guarded.start(1))
        at = _through(_instruction(elf, place), own)
        if at.kind in ("slot-call", "slot-jump"):
            if at.target in left_open:
                found[left_open[at.target]] = None
                continue
            leaves = True
        if at.kind in ("next", "call", "branch", "slot-call"):
            todo.append(place + at.length)
        if at.kind in ("call", "jump", "branch"):
            todo.append(at.target)
    return tuple(found), leaves


def _through(at: _Instruction, own: Mapping[int, int]) -> _Instruction:
    """Return a call or jump through a slot as one to the function of this object that the slot is bound to."""
    if at.kind in ("slot-call", "slot-jump") and at.target in own:
        return _Instruction(at.length, at.kind.removeprefix("slot-"), own[at.target])
    return at


def _instruction(elf: Elf, place: int) -> _Instruction:
    """Read the instruction at an address. Raises `_UnknownError`, `ElfError`."""
    return decoded(elf.around(place, _LONGEST), place)


def length_and_kind(code: bytes, place: int) -> tuple[int, str, int] | None:
    """Return (length, kind, target) of the instruction at the start of `code`, which lies at `place`; None if unknown.

    A kind is one of those of `_Instruction`.
    """
    try:
        at = decoded(code, place)
    except _UnknownError:
        return None
    return at.length, at.kind, at.target


def decoded(code: bytes, place: int) -> _Instruction:
    """Read the instruction at the start of `code`, which lies at `place`. Raises `_UnknownError`."""
    i = 0
    narrow = wide = False
    while code[i : i + 1] and code[i] in (0x66, 0xF0, 0xF2, 0xF3, 0x2E, 0x3E, 0x64):
        narrow |= code[i] == 0x66
        i += 1
    if code[i : i + 1] and 0x40 <= code[i] <= 0x4F:
        wide = bool(code[i] & 8)
        i += 1
    if len(code) < i + 1:
        raise _UnknownError
    op = code[i]
    i += 1
    size = 2 if narrow and not wide else 4
    if op == 0x0F:
        return _two_bytes(code, i, place)
    if op in (0xE8, 0xE9, 0xEB) or 0x70 <= op <= 0x7F:
        width = 1 if op == 0xEB or op < 0x80 else 4
        kind = "call" if op == 0xE8 else "branch" if op < 0x80 else "jump"
        return _relative(code, i, width, kind, place)
    if op in (0xC3, 0xC2):
        return _Instruction(i + (2 if op == 0xC2 else 0), "return", 0)
    if op in (0xCC, 0xF4):
        return _Instruction(i, "trap", 0)
    if op == 0xFF:
        return _group(code, i, place)
    if op in (0xF6, 0xF7):  # only its first two forms have an immediate
        test = (code[i : i + 1] or b"\xff")[0] & 0x30 == 0
        return _plain(code, _modrm(code, i) + ((1 if op == 0xF6 else size) if test else 0))
    if 0xB8 <= op <= 0xBF:
        return _plain(code, i + (8 if wide else size))
    if op in _BARE:
        return _plain(code, i)
    if op in _IMMEDIATE_8 or op in _IMMEDIATE_32:
        return _plain(code, i + (1 if op in _IMMEDIATE_8 else size))
    if op in _MODRM or op in _MODRM_8 or op in _MODRM_32:
        return _plain(code, _modrm(code, i) + (1 if op in _MODRM_8 else size if op in _MODRM_32 else 0))
    raise _UnknownError


def _plain(code: bytes, length: int) -> _Instruction:
    if length > len(code):
        raise _UnknownError
    return _Instruction(length, "next", 0)


def _two_bytes(code: bytes, i: int, place: int) -> _Instruction:
    op = (code[i : i + 1] or b"\x04")[0]
    i += 1
    if 0x80 <= op <= 0x8F:
        return _relative(code, i, 4, "branch", place)
    if op == 0x0B:
        return _Instruction(i, "trap", 0)
    if op in (0xA2, 0x31) or 0xC8 <= op <= 0xCF:
        return _plain(code, i)
    if op in _WIDE_MODRM or op in _WIDE_MODRM_8:
        return _plain(code, _modrm(code, i) + (op in _WIDE_MODRM_8))
    raise _UnknownError


def _relative(code: bytes, i: int, width: int, kind: str, place: int) -> _Instruction:
    if len(code) < i + width:
        raise _UnknownError
    end = i + width
    return _Instruction(end, kind, place + end + int.from_bytes(code[i:end], "little", signed=True))


def _group(code: bytes, i: int, place: int) -> _Instruction:
    """Opcode ff: inc, dec, push, and calls and jumps to where a word says."""
    end = _modrm(code, i)
    if len(code) < end:
        raise _UnknownError
    form, what = code[i] & 0xC7, code[i] >> 3 & 7
    if what in (0, 1, 6):
        return _Instruction(end, "next", 0)
    if what in (2, 4) and form == 0x05:  # through a word at a distance from here: a slot of the GOT
        slot = place + end + int.from_bytes(code[end - 4 : end], "little", signed=True)
        return _Instruction(end, "slot-call" if what == 2 else "slot-jump", slot)
    raise _UnknownError


def _modrm(code: bytes, i: int) -> int:
    """Return where a ModRM byte at `i`, with what belongs to it, ends."""
    if len(code) < i + 1:
        raise _UnknownError
    mode, register = code[i] >> 6, code[i] & 7
    i += 1
    if mode == 3:
        return i
    if register == 4:  # SIB
        base = (code[i : i + 1] or b"\0")[0] & 7
        i += 1
        if mode == 0 and base == 5:
            return i + 4
    if mode == 0:
        return i + 4 if register == 5 else i
    return i + (1 if mode == 1 else 4)
