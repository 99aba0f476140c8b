"""The static TLS block: who lies where in it, and what still fits.

Every thread gets one block of static TLS next to its thread control block. Its size is fixed when the process starts:
the segments of all start-up objects, laid out one after another, plus a surplus for latecomers. An object loaded later
normally gets its thread-local storage from the heap, thread by thread (dynamic TLS). Only when a relocation hands out a
fixed distance from the thread pointer (initial-exec access) must the whole segment of the *defining* object move into
the surplus; when it does not fit, its alignment exceeds the block's, or its dynamic TLS is already in use, the load
fails with one and the same message.

Variant II machines (x86, s390) lay blocks out below the thread pointer: an offset is the distance of a block's start
below it. Variant I machines (arm, aarch64, ppc, riscv) count upwards from the start of the counted area.

Rule 1: nothing here knows a file name; blocks in, numbers out.
Rule 2: each byte of the block is in exactly one of tcb, used and free.
Rule 3: the arithmetic is glibc's, rounding and leaks included (elf/dl-tls.c _dl_determine_tlsoffset, elf/dl-reloc.c
_dl_try_allocate_static_tls, elf/dl-close.c _dl_close_worker).
"""

from __future__ import annotations

from dlwhy.record import Record

SLOT_BYTES = 144
"""Bytes that glibc reserves in a namespace for libc's own, and again for others' initial-exec TLS (elf/dl-tls.c)."""

_WORD = 1 << 64


def round_up(value: int, align: int) -> int:
    """Return the smallest multiple of `align` that is not below `value`."""
    return -(-value // align) * align


def _rounded(value: int, align: int) -> int:
    """`round_up` where a division by zero does not kill: whatever it gives is multiplied by the alignment."""
    return round_up(value, align) if align else 0


class Layout(Record):
    """The block as it stands when the program starts."""

    offsets: tuple[int, ...]
    """Of each segment laid out, in their order."""
    used: int
    """dl_tls_static_used: end of the last block, the counted TCB bytes of variant I included."""
    align: int
    """dl_tls_static_align: the largest alignment that a latecomer may have."""
    size: int
    """dl_tls_static_size without the TCB of variant II."""


class Segment(Record):
    """What of PT_TLS decides a place. Sizes in bytes."""

    memsz: int
    align: int
    first_byte: int
    """p_vaddr modulo p_align: where in its alignment the segment starts."""


def lay_out(
    segments: tuple[Segment, ...],
    variant: int,
    start: int,
    least_align: int,
    surplus: int,
    rseq: tuple[int, int] | None,
) -> Layout:
    """Return the start-up layout of `segments`, in link-map order (glibc elf/dl-tls.c, _dl_determine_tlsoffset).

    Raises `ZeroDivisionError` for an alignment of 0 on variant II, as the loader dies of SIGFPE.
    `start` is the counted TCB at the start of variant I, `least_align` the machine's constant T, `rseq` the (size,
    alignment) of the block appended behind the last module, or None.
    """
    end, low, high, align = start, start, start, least_align
    low = high = 0
    offsets = []
    for memsz, wanted, first_byte in segments:
        unit = wanted
        align = max(align, unit)
        first = -first_byte & (unit - 1)
        if variant == 2:
            if high - low >= memsz:
                place = round_up(low + memsz - first, unit) + first
                if place <= high:
                    offsets.append(place)
                    low = place
                    continue
            place = round_up(end + memsz - first, unit) + first
            if place - memsz - end > high - low:
                low, high = end, place - memsz
            offsets.append(place)
            end = place
        else:
            if memsz <= (high - low) % _WORD:
                place = _rounded(low, unit)
                if (place - low) % _WORD < first:
                    place += unit
                if place + memsz - first <= high:
                    offsets.append(place - first)
                    low = place + memsz - first
                    continue
            place = _rounded(end, unit)
            if (place - end) % _WORD < first:
                place += unit
            offsets.append(place - first)
            if (place - first - end) % _WORD > (high - low) % _WORD:
                low, high = end, place - first
            end = place + memsz - first
    if rseq is not None:
        end = round_up(end, rseq[1]) + rseq[0]
        align = max(align, rseq[1])
    size = round_up((end + surplus) % _WORD, align if variant == 2 else least_align) % _WORD
    return Layout(tuple(offsets), end, align, size)


class StaticTls:
    """The static TLS block of one process while objects come and go. Mutable: it is the loader's own state."""

    __slots__ = ("align", "optional_left", "size", "used", "variant")

    def __init__(self, layout: Layout, variant: int, optional: int | None) -> None:
        self.variant = variant
        self.size = layout.size
        self.align = layout.align
        self.used = layout.used
        self.optional_left = optional
        """Bytes that descriptors may still take; None: no such budget (glibc before 2.32)."""

    @property
    def free(self) -> int:
        """Bytes between the last block and the end of the surplus."""
        return self.size - self.used

    def place(self, segment: Segment) -> tuple[int, int] | None:
        """Return (offset, bytes used up) of a latecomer, or None when it does not fit.

        Raises `ZeroDivisionError` for an alignment of 0 on variant II, as the loader dies of SIGFPE.
        """
        memsz, align, first_byte = segment
        if align > self.align:
            return None
        if self.variant == 2:
            free = self.size - self.used
            if free < memsz + first_byte:
                return None
            blocks = (free - memsz - first_byte) // align
            use = free - blocks * align - first_byte
            return self.used + use, use
        offset = (self.used - first_byte + align - 1 & -align) + first_byte  # ALIGN_UP: of an alignment of 0 it is 0
        if offset + memsz > self.size:
            return None
        return offset, offset + memsz - self.used

    def take(self, segment: Segment, optional: bool) -> tuple[int, int] | None:
        """Place a latecomer; return (offset, used before) or None when it does not fit.

        An `optional` taker (a TLS descriptor) may use no more than the optional budget has left.
        """
        found = self.place(segment)
        if found is None:
            return None
        offset, use = found
        if optional and self.optional_left is not None:
            if use > self.optional_left:
                return None
            self.optional_left -= use
        before = self.used
        self.used = offset if self.variant == 2 else offset + segment.memsz
        return offset, before

    def give_back(self, closed: list[tuple[int, int, int]]) -> None:
        """Return the blocks of objects unloaded together, as (offset, memsz, used before), in destruction order.

        Only what ends where the used part ends comes back; one chunk is remembered at a time and the rest leaks
        (elf/dl-close.c, _dl_close_worker).
        """
        start = end = None
        for offset, memsz, before in closed:
            low, high = (offset - memsz, offset) if self.variant == 2 else (before, offset + memsz)
            if start is None or end is None:
                start, end = low, high
            elif start == high:
                start = low
            elif end == low:
                end = high
            elif self.used == end:
                self.used = start
                start, end = low, high
            elif self.used == high:
                self.used = low
            elif end < high:
                start, end = low, high
        if end is not None and start is not None and end == self.used:
            self.used = start


def surplus_fixed(_nns: int, _auditors: int, _optional: int) -> int:
    """glibc up to 2.31: 64 bytes and 100 for each of 16 namespaces (TLS_STATIC_SURPLUS)."""
    return 64 + 16 * 100


def surplus_first_edition(nns: int, auditors: int, optional: int) -> int:
    """The formula as first committed (glibc commit ffb17e7ba3), which distributions took back into 2.31."""
    namespaces = nns + auditors
    return 192 * (namespaces - 1) + SLOT_BYTES * namespaces + optional


def surplus_formula(nns: int, auditors: int, optional: int) -> int:
    """glibc 2.32 and later: room for two slots in every namespace (glibc commit 07ed32f920)."""
    return 2 * SLOT_BYTES * (nns + auditors) + optional
