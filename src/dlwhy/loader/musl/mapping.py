"""What musl makes of one file's headers while it maps it (ldso/dynlink.c, map_library).

It asks for a type, for PT_DYNAMIC and for what the kernel says, and for nothing else: not for the magic, the class, the
machine or an alignment. A refusal is an errno.
"""

from __future__ import annotations

from struct import Struct

from dlwhy.elf.constants import (
    DT_TEXTREL,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_W,
    PF_X,
    PT_DYNAMIC,
    PT_GNU_RELRO,
    PT_LOAD,
    PT_TLS,
)
from dlwhy.loader.faults import Unknown
from dlwhy.loader.musl.memory import Memory
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.loader.host import ProcessSettings
    from dlwhy.view import View

    Grants = Callable[[int], bool | None]

ENOEXEC, ENOMEM, EBUSY, EINVAL, EOVERFLOW = 8, 12, 16, 22, 75
_BUFFER = 960
"""Bytes of the first read: 15 times the header (map_library, buf)."""
_WORD = 1 << 64
_ADDRESS_SPACE = 1 << 47
_ROOM = 1 << 45
"""Bytes that surely are free in one piece."""
_LARGEST_FILE = (1 << 44) - (1 << 14)
"""File offsets from which on it depends on the file system whether mmap takes them (mm/mmap.c, file_mmap_ok): of the
usual ones ext4 takes the least."""
_MUCH_MEMORY = 1 << 31
"""Bytes from which on a small machine may refuse them (mm/util.c, __vm_enough_memory)."""
_LOWEST = 1 << 16
"""The lowest address that a process may map (vm.mmap_min_addr)."""
_MOST_HEADERS = 1 << 25
_MOST_SEGMENTS = 256
"""PT_LOAD of one file that are mapped one over another (honest ones have a dozen)."""
_EHDR = Struct("<16xHHIQQQIHHH")
_PHDR = Struct("<IIQQQQQQ")


class Refused(Exception):
    """The file is not mapped; `errno` says why, None leaves it as it was."""

    def __init__(self, errno: int | None, why: str) -> None:
        super().__init__(why)
        self.errno = errno


class Mapped(Record):
    """What map_library leaves of a file."""

    memory: Memory
    dyn: int
    """Address of the dynamic section."""
    headers: tuple[tuple[int, ...], ...]
    tls: tuple[int, int, int, int] | None
    """(image, bytes of the image, size, alignment); None without any TLS."""
    relro: tuple[int, int]
    entry: int
    textrel: bool


def headers_of(view: View, path: str) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """Return (type, entry, phoff) and the program headers. Raises `Refused`, `Unknown`."""
    if not view.regular and view.unread:
        raise Unknown(view.unread.format(path=path), "header")
    head = view.head[:_BUFFER]
    if view.read_errno:
        raise Refused(view.read_errno, "it cannot be read")
    if len(head) < 64:
        raise Refused(ENOEXEC, f"it has {len(head)} bytes, and a header has 64")
    kind, _, _, entry, phoff, _, _, _, phentsize, phnum = _EHDR.unpack_from(head)
    if kind not in (ET_DYN, ET_EXEC):
        raise Refused(ENOEXEC, f"its e_type is {kind}, which is neither ET_DYN nor ET_EXEC")
    size = phentsize * phnum
    if size >= _MOST_HEADERS:
        if size >= 1 << 31:  # a negative int, which malloc is asked for
            raise Refused(ENOMEM, "its program headers have more bytes than there is memory")
        raise Unknown(f"whether there is memory for {size} bytes of program headers of {path}", "header")
    start, data = phoff, head
    if size > _BUFFER - 64 or (phoff + size) % _WORD > len(head):
        if phoff >> 63:
            raise Refused(EINVAL, "its program headers stand at a negative offset")
        part = view.some(phoff, size)
        if len(part) != size:
            raise Refused(ENOEXEC, "its program headers leave the file")
        start, data = (0, part) if size > _BUFFER - 64 else (64, head[:64] + part + head[64 + size :])
    elif phoff + size > len(head):
        raise Unknown(f"what stands before the first bytes of {path} in the loader's memory", "header")
    rows = []
    for number in range(phnum):
        at = start + number * phentsize
        if at + _PHDR.size > len(data):
            raise Unknown(f"what stands behind the program headers of {path} in the loader's memory", "header")
        rows.append(_PHDR.unpack_from(data, at))
    return (kind, entry, phoff, size), rows


def map_library(
    view: View, path: str, settings: ProcessSettings, grants: Grants, taken: tuple[int, int] | None
) -> Mapped:
    """Map a file. `taken` is the range of a program at a fixed address. Raises `Refused`, `Death`, `Unknown`."""
    page = settings.page
    (kind, entry, _, _), rows = headers_of(view, path)
    dyn = tls_image = 0
    tls = (0, 0, 0)
    relro = (0, 0)
    lowest: tuple[int, ...] | None = None
    high = 0
    for row in rows:
        if row[0] == PT_DYNAMIC:
            dyn = row[3]
        elif row[0] == PT_TLS:
            tls_image, tls = row[3], (row[5], row[6], row[7])
        elif row[0] == PT_GNU_RELRO:
            relro = row[3] & -page, (row[3] + row[6]) % _WORD & -page
        elif row[0] == PT_LOAD:
            if lowest is None or row[3] < lowest[3]:
                lowest = row
            high = max(high, (row[3] + row[6]) % _WORD)
    if not dyn:
        raise Refused(ENOEXEC, "it has no PT_DYNAMIC")
    if lowest is None:
        what = f"what stood on the loader's stack, where it takes the file offset from: {path} has no PT_LOAD"
        raise Unknown(what, "map")
    if sum(row[0] == PT_LOAD for row in rows) > _MOST_SEGMENTS:
        raise Unknown(f"what more than {_MOST_SEGMENTS} segments of {path} leave in memory", "map")
    memory = Memory(path, view, page)
    high = (high + page - 1) % _WORD & -page
    low, offset = lowest[3] & -page, lowest[2] & -page
    length = (high - low + offset) % _WORD
    _mmap(length, offset, lowest[1], path, grants, fixed=False)
    if kind != ET_DYN and low:
        _check_place(low, length, path, taken)
    memory.map(low, low + length + -length % page, offset, lowest[1])
    for row in rows:
        if row[0] == PT_LOAD:
            _map_segment(memory, row, low, settings, path, grants)
    textrel = _has_textrel(memory, dyn)
    if textrel:
        memory.protect(low, low + length, PF_R | PF_W | PF_X)
    image = (tls_image, *tls) if tls[1] else None
    return Mapped(memory, dyn, tuple(rows), image, relro, entry, textrel)


def _mmap(length: int, offset: int, flags: int, path: str, grants: Grants, fixed: bool) -> None:
    """What mmap says of so many bytes of a file, or of zeros for an `offset` of -1. Raises `Refused`, `Unknown`."""
    if not length:
        raise Refused(EINVAL, "a segment has no bytes of memory, and mmap maps none")
    if length >= 1 << 63 or length > _WORD - 4096:
        raise Refused(ENOMEM, "it asks for more address space than there is")
    if offset >= 0 and (offset >> 12) + (length >> 12) >= 1 << 52:
        raise Refused(EOVERFLOW, "a segment lies behind what a file offset can tell")
    if length >= _ADDRESS_SPACE:
        raise Refused(ENOMEM, "it asks for more address space than there is")
    if length > _ROOM and not fixed:
        raise Unknown(f"whether {length} bytes of address space are free in one piece for {path}", "map")
    if offset >= 0 and offset + length >= _LARGEST_FILE:
        if offset + length >= 1 << 63:
            raise Refused(EOVERFLOW, "a segment lies behind what a file offset can tell")
        raise Unknown(f"whether the file system of {path} takes offsets up to {offset + length:#x}", "map")
    if flags & PF_W and length >= _MUCH_MEMORY:
        granted = grants(length)
        if granted is None:
            what = f"whether the kernel grants {path} {length} bytes: the machine's memory and vm.overcommit_memory"
            raise Unknown(what, "map")
        if not granted:
            raise Refused(ENOMEM, f"the kernel does not grant {length} bytes")


def _check_place(low: int, length: int, path: str, taken: tuple[int, int] | None) -> None:
    """What becomes of a file that must lie at its own address. Raises `Refused`, `Unknown`."""
    why = "it must lie at a fixed address, which is not free"
    if low < _LOWEST or low + length > _ADDRESS_SPACE or (taken and low < taken[1] and taken[0] < low + length):
        raise Refused(EBUSY, why)
    if taken is None:
        raise Unknown(f"where the program lies: {path} must be mapped at {low:#x}", "map")


def _map_segment(
    memory: Memory, row: tuple[int, ...], low: int, settings: ProcessSettings, path: str, grants: Grants
) -> None:
    """Map one segment over what the first mapping left there. Raises `Refused`, `Death`, `Unknown`."""
    page = settings.page
    _, flags, offset, vaddr, _, filesz, memsz, _ = row
    start, end, offset = vaddr & -page, (vaddr + memsz + page - 1) % _WORD & -page, offset & -page
    if start != low:
        length = (end - start) % _WORD
        if length or not settings.libc.empty_segments_map:
            _mmap(length, offset, flags, path, grants, fixed=True)
            memory.map(start, start + length, offset, flags)
    if memsz > filesz and flags & PF_W:
        data_end = (vaddr + filesz) % _WORD
        page_end = (data_end + page - 1) % _WORD & -page
        if (page_end - data_end) % page:
            memory.clear(data_end, (page_end - data_end) % page)
        if page_end < end:
            _mmap(end - page_end, -1, flags, path, grants, fixed=True)
            memory.map(page_end, end, -1, flags)


def _has_textrel(memory: Memory, dyn: int) -> bool:
    place = 0
    while True:
        tag = memory.u64(dyn + 16 * place)
        if tag in (0, DT_TEXTREL):
            return bool(tag)
        place += 1
        if place > 1 << 16:
            raise Unknown(f"where the dynamic section of {memory.path} ends", "map")


def reclaim_gaps(memory: Memory, rows: tuple[tuple[int, ...], ...], relro: tuple[int, int], page: int) -> None:
    """What a start does with the ends of writable pages: they are cleared for the heap. Raises `Death`, `Unknown`."""

    def clear(start: int, end: int) -> None:
        start = relro[1] if relro[0] <= start < relro[1] else start
        end = relro[0] if relro[0] <= end < relro[1] else end
        if start < end:
            memory.clear(start, end - start)

    for row in rows:
        if row[0] == PT_LOAD and row[1] & (PF_R | PF_W) == PF_R | PF_W:
            end = (row[3] + row[6]) % _WORD
            clear(row[3] & -page, row[3])
            clear(end, (end + page - 1) % _WORD & -page)


def image_of_program(view: View, path: str, rows: list[tuple[int, ...]], page: int) -> Memory:
    """Return the memory of what the kernel has mapped: a program, or the loader itself."""
    memory = Memory(path, view, page)
    for _, flags, offset, vaddr, _, filesz, memsz, _ in rows:
        start, data_end, end = vaddr & -page, vaddr + filesz, vaddr + memsz
        memory.map(start, data_end + -data_end % page, offset & -page, flags)
        if end > data_end:
            memory.map(data_end + -data_end % page, end + -end % page, -1, flags)
            if flags & PF_W:
                memory.clear(data_end, -data_end % page)
    return memory
