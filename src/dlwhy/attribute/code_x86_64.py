"""TLS access sites in x86-64 code (psABI x86-64, Thread-Local Storage; ELF TLS 4.1.6, 4.2.6, 4.3.6, 4.4.6).

What reaches a variable through the GOT does so relative to the instruction pointer, in one of few forms, for linkers
must be able to rewrite it:

    initial-exec     REX 8b|03 modrm disp32      mov or add of the slot (REX2 ends in the same bytes)
    general-dynamic  66 48 8d 3d disp32          lea of the slot, then a padded call of __tls_get_addr
    local-dynamic    48 8d 3d disp32             the same without padding
    TLSDESC          REX 8d modrm disp32         lea of the slot, then call *(%rax)
    local-exec       64 ... modrm 25 disp32      any instruction with %fs:disp32, programs only

Most bytes of code are looked at by `re` alone, through a literal, so that it runs at the speed of memchr. Of the
distance to any slot the two high bytes are nearly the same throughout one piece of code: where the highest has few
values, it is the literal, and all forms are found at once. Else it is the opcode; then the rarest tests come first, and
the REX prefix last, in a look-behind. What passes is compared with the slots exactly.

GNU ld rewrites general-dynamic and TLSDESC accesses to a variable that is initial-exec elsewhere in the same link; what
it leaves is byte for byte what a compiler writes for the address of an initial-exec variable. Such a site is marked.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache

from dlwhy.attribute.slots import DTPMOD, TLSDESC, TPOFF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dlwhy.attribute.slots import Slot
    from dlwhy.elf.file import TlsSegment

PIECE = 1 << 20
"""Bytes of code searched with one pattern: the high bytes of all distances within it are few."""
BEFORE, AFTER = 16, 24
"""Bytes that are looked at around an opcode."""

_FEW = 2
"""Values of the highest byte of a distance that are looked for one by one."""
_KEPT = 64
"""Patterns that are kept."""
_FORMS = {TPOFF: (0x8B, 0x03), DTPMOD: (0x8D,), TLSDESC: (0x8D,)}
_MODRM = rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
_THREAD_POINTER = b"\x64\x48\x8b\x04\x25\0\0\0\0"
"""mov %fs:0,%rax"""
_DISTANCE = struct.Struct("<i").unpack_from
_NOP = b"\x66\x90"
"""What is left of call *(%rax)."""
_LEA_RAX = b"\x48\x8d\x80"
# An instruction with %fs:disp32: prefixes, then a legacy, VEX or EVEX opcode, then a SIB without base and index.
_FS = (
    rb"\x64[\x66\xf2\xf3\xf0]?(?:[\x40-\x4f]?(?:\x0f[\x38\x3a](?s:.)|\x0f(?s:.)|[^\x0f\x40-\x4f\xc4\xc5\x62])"
    rb"|\xc5(?s:..)|\xc4(?s:...)|\x62(?s:....))[\x04\x0c\x14\x1c\x24\x2c\x34\x3c]\x25"
)


def through_slots(
    code: bytes | bytearray, first: int, address: int, slots: Mapping[int, Slot]
) -> Iterator[tuple[int, str, Slot]]:
    """Yield (address of the instruction, model, slot) of each access in `code[first:]`, which lies at `address`.

    What stands before `first`, and the last `AFTER` bytes, is only looked at. A model is one of `sites.MODELS`.
    """
    base = address - first
    top, middle = _spread(min(slots) - address - len(code), max(slots) - address)
    if len(top) > _FEW:
        yield from _by_opcode(code, first, address, slots)
        return
    for value in set(top):
        ends = [one.end() for one in _by_top(value, middle).finditer(code, first + 5, len(code) - AFTER + 6)]
        for end in [end for end in ends if base + end + _DISTANCE(code, end - 4)[0] in slots]:
            slot = slots[base + end + _DISTANCE(code, end - 4)[0]]
            if code[end - 6] in _FORMS[slot.kind]:
                yield _access(code, end - 6, base, slot)


def _by_opcode(
    code: bytes | bytearray, first: int, address: int, slots: Mapping[int, Slot]
) -> Iterator[tuple[int, str, Slot]]:
    """Do what `through_slots` does where slots lie in many places."""
    base = address - first
    by_opcode: dict[int, list[Slot]] = {}
    for slot in slots.values():
        for opcode in _FORMS[slot.kind]:
            by_opcode.setdefault(opcode, []).append(slot)
    for opcode, wanted in by_opcode.items():
        places = [slot.address for slot in wanted]
        pattern = leading(opcode, min(places) - address - len(code), max(places) - address)
        meant = {slot.address: slot for slot in wanted}
        for found in pattern.finditer(code, first, len(code) - AFTER + 6):
            at = found.start()
            slot_ = meant.get(base + at + 6 + _DISTANCE(code, at + 2)[0])
            if slot_ is not None:
                yield _access(code, at, base, slot_)


def _by_top(value: int, middle: bytes) -> re.Pattern[bytes]:
    """Match the highest byte of a distance, behind REX, any opcode and ModRM: of these the opcode is the rarest."""
    literal = re.escape(bytes((value,)))
    rest = rb"[\x8b\x03\x8d]" + _MODRM + rb"(?s:..)" + middle + literal
    return re.compile(literal + rb"(?<=" + rest + rb")(?<=[\x48\x4c](?s:......))")


@lru_cache(_KEPT)
def leading(opcode: int, least: int, most: int) -> re.Pattern[bytes]:
    """Match REX, opcode (where the match starts), ModRM and a distance between `least` and `most`."""
    top, middle = _classes(least, most)
    literal = re.escape(bytes((opcode,)))
    return re.compile(literal + _MODRM + rb"(?s:..)" + middle + top + rb"(?<=[\x48\x4c]" + literal + rb"(?s:.....))")


def _classes(least: int, most: int) -> tuple[bytes, bytes]:
    """Return patterns for the highest byte of a 32-bit number between `least` and `most`, and for the one below it."""
    low, high = _bounds(least, most)
    return _class(range(low >> 8, (high >> 8) + 1)), _class(range(low, high + 1))


def _spread(least: int, most: int) -> tuple[tuple[int, ...], bytes]:
    """Return the values that the highest byte may have, as many as are few, and the pattern of the one below it."""
    low, high = _bounds(least, most)
    return tuple(value & 255 for value in range(low >> 8, (high >> 8) + 1)[: _FEW + 1]), _class(range(low, high + 1))


def _bounds(least: int, most: int) -> tuple[int, int]:
    """Return the two high bytes of both ends, signed, as far as 32 bits have them."""
    return max(least >> 16, -(1 << 15)), min(most >> 16, (1 << 15) - 1)


def _class(values: range) -> bytes:
    """Return a pattern for the lowest bytes of successive numbers; one that nothing matches for none."""
    if len(values) >= 256:
        return rb"(?s:.)"
    if not values:
        return rb"(?!)"
    low, high = values[0] & 255, values[-1] & 255
    if low <= high:
        return rb"[\x%02x-\x%02x]" % (low, high)
    return rb"[\x%02x-\xff\x00-\x%02x]" % (low, high)


def _access(code: bytes | bytearray, at: int, base: int, slot: Slot) -> tuple[int, str, Slot]:
    """Return (address, model, slot) of the instruction whose opcode stands at `at`."""
    start = base + at - 1
    if slot.kind == TPOFF:
        address_of = code[at] == 0x03 and code[at - 10 : at - 1] == _THREAD_POINTER
        rewritten = address_of or (code[at] == 0x8B and _NOP in code[at + 6 : at + 24])
        return start, "initial-exec?" if rewritten else "initial-exec", slot
    if slot.kind == TLSDESC:
        return start, "TLSDESC", slot
    padded = code[at - 2] == 0x66 and code[at + 6] not in (0xE8, 0xFF, 0x67)
    if padded:
        return start - 1, "general-dynamic", slot
    return start, "local-dynamic" if slot.module else "general-dynamic", slot


def direct(code: bytes | bytearray, first: int, address: int, tls: TlsSegment) -> Iterator[tuple[int, int]]:
    """Yield (address, offset in the program's own segment) of local-exec accesses.

    The thread pointer is at the end of a program's segment (ELF TLS 3.4.2, variant II). The address is that of the fs
    prefix. Offsets that the code computes otherwise, as a constant, cannot be told from any other constant.
    """
    size = tls.memsz + -tls.memsz % max(tls.align, 1)
    top, middle = _classes(-size, -1)
    base = address - first
    for found in re.compile(_FS + rb"((?s:..)" + middle + top + rb")").finditer(code, first, len(code) - AFTER + 12):
        offset = int.from_bytes(found[1], "little", signed=True)
        if -size <= offset < 0:
            yield base + found.start(), size + offset
    place = code.find(_THREAD_POINTER + _LEA_RAX, first, len(code) - AFTER + 16)
    while place >= 0:  # what linkers make of general-dynamic: mov %fs:0,%rax; lea offset(%rax),%rax
        offset = int.from_bytes(code[place + 12 : place + 16], "little", signed=True)
        if -size <= offset < 0:
            yield base + place, size + offset
        place = code.find(_THREAD_POINTER + _LEA_RAX, place + 1, len(code) - AFTER + 16)
