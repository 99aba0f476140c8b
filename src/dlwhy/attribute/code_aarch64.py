"""TLS access sites in aarch64 code (ELF for the Arm 64-bit Architecture, Thread-local storage; ELF TLS ch. 4).

    initial-exec     adrp xN, page; ldr xM, [xN, #low]                the slot's own word
    TLSDESC          adrp x0, page; ldr xM, [x0, #low]; add x0, x0, #low; blr xM
    general-dynamic  adrp x0, page; add x0, x0, #low; bl __tls_get_addr
    local-exec       mrs xN, tpidr_el0; add xM, xN, #high, lsl #12; add xM, xM, #low      programs only

The second instruction has the low 12 bits of the slot's address: it is found by `re`, whose literal is the byte with
the operation. Before it the last adrp into the same register must lead to the slot's page.
"""

from __future__ import annotations

import re
import struct

from dlwhy.attribute.slots import DTPMOD, TLSDESC, TPOFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlwhy.attribute.slots import Slot
    from dlwhy.elf.file import TlsSegment

PIECE = 1 << 20
_FAR = 1024
"""Instructions between an adrp and its use at most; compilers move the adrp out of loops."""
BEFORE, AFTER = 4 * _FAR, 96
_LDR, _ADD = 0xF9, 0x91
"""Highest bytes of ldr xT, [xN, #imm] and add xD, xN, #imm."""
_FORMS = {TPOFF: _LDR, TLSDESC: _LDR, DTPMOD: _ADD}
_MODELS = {TPOFF: "initial-exec", TLSDESC: "TLSDESC"}
_REWRITTEN = (bytes.fromhex("1f2003d51f2003d5"), bytes.fromhex("41d03bd52000008b"))
"""What follows ldr x0, [x0, #low] where GNU ld made initial-exec of TLSDESC (nop, nop) and of general-dynamic (mrs x1,
tpidr_el0; add x0, x1, x0), when the variable is initial-exec elsewhere in the link (bfd elfnn-aarch64.c)."""
_MRS = re.compile(rb"[\x40-\x5f]\xd0\x3b\xd5")
"""mrs xN, tpidr_el0"""
_AHEAD = 20
"""Instructions behind mrs that are looked at."""
_TCB = 16
"""Bytes at the thread pointer before the first block (ELF for the Arm 64-bit Architecture, variant I)."""


def through_slots(
    code: bytes | bytearray, first: int, address: int, slots: Mapping[int, Slot]
) -> Iterator[tuple[int, str, Slot]]:
    """Yield (address of the instruction with the low bits, model, slot) of each access in `code[first:]`.

    `code[first]` lies at `address`, a multiple of 4. What stands before, and the last `AFTER` bytes, is only looked at.
    """
    base = address - first
    by_form: dict[int, dict[int, list[Slot]]] = {}
    for slot in slots.values():
        low = slot.address & 0xFFF
        by_form.setdefault(_FORMS[slot.kind], {}).setdefault(low, []).append(slot)
    for form, wanted in by_form.items():
        for found in _pattern(form, list(wanted)).finditer(code, first + 3, len(code) - AFTER):
            at = found.start() - 3
            if (base + at) % 4:
                continue
            (word,) = struct.unpack_from("<I", code, at)
            low = (word >> 10 & 0xFFF) << (3 if form == _LDR else 0)
            register = word >> 5 & 31
            page = _page(code, at, base, register) if low in wanted else None
            for slot in wanted.get(low, ()):
                if slot.address & -4096 == page:
                    rewritten = slot.kind == TPOFF and word & 0x3FF == 0 and code[at + 4 : at + 12] in _REWRITTEN
                    yield base + at, "initial-exec?" if rewritten else _MODELS.get(slot.kind) or _dynamic(slot), slot


def _dynamic(slot: Slot) -> str:
    return "local-dynamic" if slot.module else "general-dynamic"


def _pattern(form: int, lows: list[int]) -> re.Pattern[bytes]:
    """Match the highest byte of an instruction whose immediate is one of `lows` (bits 10 to 21)."""
    shift, base = (3, 0x40) if form == _LDR else (0, 0)
    fields = [low >> shift for low in lows]
    third = _class({base | field >> 6 for field in fields})
    second = _class({(field & 0x3F) << 2 | high for field in fields for high in range(4)})
    literal = re.escape(bytes((form,)))
    return re.compile(literal + rb"(?<=" + second + third + literal + rb")")


def _class(values: set[int]) -> bytes:
    return b"[" + b"".join(rb"\x%02x" % value for value in sorted(values)) + b"]"


def _page(code: bytes | bytearray, at: int, base: int, register: int) -> int | None:
    """Return the page that the last instruction to write a register before `at`, an adrp, puts there; else None."""
    place = at - 4
    stop = max(at - 4 * _FAR, -(base % 4) % 4)
    while place >= stop:
        if code[place] & 31 == register or code[place + 3] & 0x3A == 0x28:
            word: int = struct.unpack_from("<I", code, place)[0]
            if word & 0x9F00001F == 0x90000000 | register:
                pages = (word >> 5 & 0x7FFFF) << 2 | word >> 29 & 3
                pages -= (pages & 1 << 20) << 1
                return ((base + place) & -4096) + (pages << 12)
            if _writes(word, register):
                return None
        place -= 4
    return None


def _writes(word: int, register: int) -> bool:
    """Whether an instruction writes a general register (Arm ARM, C4.1): by its class, and where the class has it."""
    if word >> 26 & 7 == 5 or word >> 25 & 7 == 7:  # branches and system; vectors, which have registers of their own
        return False
    if word >> 27 & 1 and not word >> 25 & 1:  # loads and stores
        if word >> 26 & 1:
            return False
        pair = word >> 27 & 7 == 5
        if pair:
            return bool(word >> 22 & 1) and register in (word & 31, word >> 10 & 31)
        if word >> 27 & 7 == 3:  # a literal
            return word & 31 == register
        if word >> 27 & 7 == 1:  # exclusive and ordered
            return bool(word >> 22 & 1) and word & 31 == register
        return bool(word >> 22 & 3) and word & 31 == register
    return word & 31 == register


def direct(code: bytes | bytearray, first: int, address: int, tls: TlsSegment) -> Iterator[tuple[int, int]]:
    """Yield (address, offset in the program's own segment) of local-exec accesses, told by their first add.

    Where linkers made them of initial-exec, the offset is a constant like any other (movz, movk) and is not found.
    """
    base = address - first
    before = -(-_TCB // max(tls.align, 1)) * max(tls.align, 1)
    for found in _MRS.finditer(code, first, len(code) - AFTER + 3):
        at = found.start()
        if (base + at) % 4 == 0:
            for place, offset in _offsets(code, at):
                if before <= offset < before + tls.memsz:
                    yield base + place, offset - before


def _offsets(code: bytes | bytearray, at: int) -> Iterator[tuple[int, int]]:
    """Yield (place of the first add, offset from the thread pointer) that instructions behind an mrs add up."""
    holder = code[at] & 31
    words = struct.unpack(f"<{_AHEAD}I", code[at + 4 : at + 4 + 4 * _AHEAD])
    for index, word in enumerate(words):
        if word >> 22 == 0x245 and word >> 5 & 31 == holder:  # add, lsl #12
            low = _low(words[index + 1 :], word & 31)
            if low is not None:
                yield at + 4 + 4 * index, ((word >> 10 & 0xFFF) << 12) + low
        if _writes(word, holder):
            return


def _low(words: tuple[int, ...], register: int) -> int | None:
    """Return the low 12 bits that the next use of a register adds: an add's, or a load's or store's of a word."""
    for word in words:
        if word >> 5 & 31 == register:
            if word >> 22 == 0x244:
                return word >> 10 & 0xFFF
            if word >> 24 & 0x3F == 0x39:
                return (word >> 10 & 0xFFF) << (word >> 30)
        if _writes(word, register):
            return None
    return None
