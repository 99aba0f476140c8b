"""TLS access sites: which instructions of an object reach which thread-local variable, and how.

Rule 1: all executable code is searched, once, in pieces; no file is ever held whole.
Rule 2: a machine is a row: what to look for in its code stands in a file of its own.
"""

from __future__ import annotations

from functools import partial

from dlwhy.attribute.slots import slots
from dlwhy.elf.constants import DF_1_PIE, ET_EXEC, PF_X, SHF_EXECINSTR, SHT_NOBITS
from dlwhy.elf.machine import EM_AARCH64, EM_X86_64
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from dlwhy.attribute.slots import Slot
    from dlwhy.elf.file import Elf, TlsSegment

MODELS = ("initial-exec", "initial-exec?", "TLSDESC", "general-dynamic", "local-dynamic", "local-exec")
"""Access models, as the code shows them; with "?" one that a linker may have made of another."""


def _x86_64() -> ModuleType:
    from dlwhy.attribute import code_x86_64

    return code_x86_64


def _aarch64() -> ModuleType:
    from dlwhy.attribute import code_aarch64

    return code_aarch64


READERS = {(EM_X86_64, 2): _x86_64, (EM_AARCH64, 2): _aarch64}
"""(e_machine, EI_CLASS) -> what reads the code of that machine."""


class Site(Record):
    """One place in the code."""

    address: int
    model: str
    slot: int
    """Address of the slot; for local-exec the variable's offset in the segment."""


class Sites(Record):
    """What the code of one object does with thread-local variables."""

    slots: dict[int, Slot]
    found: tuple[Site, ...]
    """In order of addresses."""
    searched: int
    """Bytes of code."""
    missing: str | None
    """Why the code was not searched; None when it was, or when nothing is to be found."""


_SITE = partial(tuple.__new__, Site)
"""Makes a site of the tuple of its fields, as calling its class does, at a third of the time."""


def sites(elf: Elf) -> Sites:
    """Return the TLS access sites of an object, none with `missing` where a profile holds no code of it.

    Raises `ElfError` when its tables leave the file.
    """
    known = slots(elf)
    tls = _own(elf)
    if not known and tls is None:
        return Sites(known, (), 0, None)
    if (elf.machine, elf.class_) not in READERS or not elf.little:
        return Sites(known, (), 0, "code of this machine is not read")
    try:
        found, searched = _search(elf, known, tls)
    except Unknown:
        return Sites(known, (), 0, "the profile holds no code of this file")
    return Sites(known, tuple(map(_SITE, sorted(set(found)))), searched, None)


def _search(elf: Elf, known: dict[int, Slot], tls: TlsSegment | None) -> tuple[list[tuple[int, str, int]], int]:
    """Return the fields of each site, and how many bytes of code were searched."""
    reader = READERS[elf.machine, elf.class_]()
    found: list[tuple[int, str, int]] = []
    searched = 0
    for start, end in code_ranges(elf):
        searched += end - start
        for code, first, address in _pieces(elf, start, end, reader):
            if known:
                through = reader.through_slots(code, first, address, known)
                found += [(at, model, slot.address) for at, model, slot in through]
            if tls is not None:
                found += [(at, "local-exec", offset) for at, offset in reader.direct(code, first, address, tls)]
    return found, searched


def _own(elf: Elf) -> TlsSegment | None:
    """Return the segment of a program, whose variables it reaches without a slot; None for a library."""
    program = elf.type == ET_EXEC or (elf.dynamic is not None and elf.dynamic.flags_1 & DF_1_PIE)
    return elf.tls if program else None


def code_ranges(elf: Elf) -> list[tuple[int, int]]:
    """Return the (start, end) addresses of executable code that has bytes in the file, disjoint and in order.

    The executable sections where section headers tell, else the executable segments. Raises `ElfError` when the program
    headers leave the file.
    """
    segments = [(row[3], row[3] + row[5]) for row in elf.loads if row[1] & PF_X and row[5] > 0]
    wanted = [
        (section.addr, section.addr + section.size)
        for section in elf.sections
        if section.flags & SHF_EXECINSTR and section.type != SHT_NOBITS and section.size
    ]
    inside = [(max(a, low), min(b, high)) for a, b in wanted for low, high in segments if a < high and b > low]
    result: list[tuple[int, int]] = []
    for start, end in sorted(inside or segments):
        if result and start <= result[-1][1]:
            result[-1] = (result[-1][0], max(end, result[-1][1]))
        else:
            result.append((start, end))
    return result


def _pieces(elf: Elf, start: int, end: int, reader: ModuleType) -> Iterator[tuple[bytearray, int, int]]:
    """Yield (bytes, index of the first to search, its address) piece by piece, with what stands around each.

    All go through one buffer, so that code of a hundred megabytes asks for no new memory; a piece is void when the next
    one is asked for.
    """
    offset = elf.offset_of(start)
    if offset is None:
        return
    view = elf.view
    end = min(end, start + view.size - offset)
    buffer = bytearray()
    for at in range(start, end, reader.PIECE):
        before = min(reader.BEFORE, at - start)
        size = min(reader.PIECE, end - at)
        behind = min(reader.AFTER, end - at - size)  # what follows the code is not code
        if len(buffer) != before + size + reader.AFTER:
            buffer = bytearray(before + size + reader.AFTER)
        with memoryview(buffer) as window:
            view.read_into(window[: before + size + behind], offset + at - start - before)
        buffer[before + size + behind :] = bytes(reader.AFTER - behind)
        yield buffer, before, at
