"""What the loader accepts of one file, in the order of its checks.

`verify` is open_verify, `check_segments` the checks of _dl_map_object_from_fd (both glibc elf/dl-load.c). Header faults
name the candidate path; program header faults name what was asked for.
"""

from __future__ import annotations

from itertools import pairwise

from dlwhy.elf.constants import (
    DF_1_NOOPEN,
    DF_1_PIE,
    DT_GNU_HASH,
    DT_HASH,
    DT_JMPREL,
    DT_PLTGOT,
    DT_PLTREL,
    DT_REL,
    DT_RELA,
    DT_RELAENT,
    DT_RELENT,
    DT_RELR,
    DT_RELRENT,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERDEF,
    DT_VERNEED,
    ET_DYN,
    ET_EXEC,
    PF_R,
    PF_X,
    PT_DYNAMIC,
    PT_LOAD,
    PT_NOTE,
)
from dlwhy.elf.file import Elf
from dlwhy.errors import ElfError, OutOfBounds, TooLarge, Unmapped
from dlwhy.loader.faults import NEAR, Death, Fault, Unknown
from dlwhy.loader.image import Image
from dlwhy.loader.port import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.view import View

OTHER_CLASS = "wrong ELF class"
OTHER_MACHINE = "wrong machine"
OTHER_KERNEL = "needs another kernel"
_FIRST_READ = {1: 512, 2: 832}
"""Bytes of the first read by class (struct filebuf): headers within it need no second read."""
_ABI_TAG = b"\4\0\0\0\x10\0\0\0\1\0\0\0GNU\0"
"""Head of .note.ABI-tag (elf/dl-load.c, open_verify: expected_note), little endian."""
_LARGEST_NOTE = 1 << 20
_SIGSEGV, _SIGBUS = 11, 7
_WORD_TABLES = (DT_HASH, DT_GNU_HASH, DT_SYMTAB, DT_REL, DT_RELA, DT_JMPREL, DT_PLTGOT, DT_VERNEED, DT_VERDEF)
_EINVAL = 22
_MUCH_MEMORY = 1 << 31
"""Bytes of zeros from which on a small machine may refuse them (mm/util.c, __vm_enough_memory)."""


def died_reading(error: ElfError, stage: str) -> Exception:
    """Return how the process ends when the loader reads what `error` says is not there; `Unknown` for `TooLarge`."""
    if isinstance(error, TooLarge):
        return Unknown(f"what the loader makes of {error}", stage)
    if isinstance(error, Unmapped) and 0 < error.distance < NEAR:
        return Unknown(f"what lies in the process beside {error.path}: {error.rule}", stage)
    if isinstance(error, OutOfBounds):
        return Death(
            "signal",
            stage,
            f"{error}: the process is killed by SIGBUS while the loader reads it",
            None,
            -_SIGBUS,
            error.path,
        )
    return Death(
        "signal",
        stage,
        f"{error}: the process is killed by SIGSEGV while the loader reads it",
        None,
        -_SIGSEGV,
        error.path,
    )


def verify(view: View, path: str, host: ProcessSettings, facts: Callable[[], Elf] | None = None) -> str | None:
    """Check the header of a candidate; return None to take it or why to pass over it. Raises `Fault`.

    `facts` gives what is kept of the file, if the header is one.
    """
    if not view.regular and view.unread:
        raise Unknown(view.unread.format(path=path), "header")
    machine = host.machine
    size = 64 if machine.elf_class == 2 else 52
    head = view.head[: _FIRST_READ[machine.elf_class]]

    def bad(text: str, errno: int = 0) -> Fault:
        return Fault("unreadable" if errno else "bad-header", "header", text, path, errno)

    if len(head) < size:
        raise bad("cannot read file data", view.read_errno) if view.read_errno else bad("file too short")
    if head[:4] != b"\x7fELF":
        raise bad("invalid ELF header")
    if head[4] != machine.elf_class:
        return OTHER_CLASS
    if host.libc.machine_before_ident and _bad_ident(head, host) and _other_machine(view, host):
        return OTHER_MACHINE
    if head[5] != machine.data:
        raise bad("ELF file data encoding not " + ("big-endian" if machine.data == 2 else "little-endian"))
    if head[6] != 1:
        raise bad("ELF file version ident does not match current one")
    osabi, abiversion = head[7], head[8]
    own = port(machine)
    if osabi not in own.osabis:
        raise bad("ELF file OS ABI invalid")
    if abiversion and not (osabi == 3 and abiversion < host.libc.abiversion_limit[machine.e_machine]):
        raise bad("ELF file ABI version invalid")
    if head[9:16] != bytes(7):
        raise bad("nonzero padding in e_ident")
    elf = facts() if facts is not None else Elf(view)
    if elf.flags & own.refused_mask == own.refused:
        raise bad("internal error")
    if elf.version != 1:
        raise bad("ELF file version does not match current one")
    if not _matches(elf.machine, elf.flags, host):
        return OTHER_MACHINE
    if elf.type not in (ET_DYN, ET_EXEC):
        raise bad("only ET_DYN and ET_EXEC can be loaded")
    if elf.type == ET_EXEC and host.libc.exec_refused_at_header:
        raise Fault("not-a-library", "header", "cannot dynamically load executable", path)
    if elf.phentsize != elf.layout.phdr_size:
        raise bad("ELF file's phentsize not the expected size")
    length = elf.phnum * elf.layout.phdr_size
    if elf.phoff + length >= 1 << 8 * elf.layout.word_size and length:
        what = f"what stands before the first bytes of {path} in the loader's memory, where its headers begin"
        raise Unknown(what, "header")
    if elf.phoff + length > len(head) and len(view.some(elf.phoff, length)) != length:
        raise bad("cannot read file data", 22 if elf.phoff >= 1 << 63 else 0)
    if host.libc.abi_note_checked and _other_kernel(elf, len(head), bad):
        return OTHER_KERNEL
    return None


def _matches(number: int, flags: int, host: ProcessSettings) -> bool:
    """elf_machine_matches_host."""
    own = port(host.machine)
    mine = number == host.machine.e_machine or number in own.numbers
    if host.libc.refused_flags_passed_over and flags & own.refused_mask == own.refused:
        return False
    return mine and (not own.flags_mask or flags & own.flags_mask in own.flags)


def _bad_ident(head: bytes, host: ProcessSettings) -> bool:
    """Whether e_ident is not what the loader compares it with; only then does it look at its parts."""
    machine, own = host.machine, port(host.machine)
    limit = host.libc.abiversion_limit[machine.e_machine] if head[7] == 3 else 1
    if head[5:7] != bytes((machine.data, 1)) or head[7] not in own.osabis or head[8] >= limit:
        return True
    return head[9:16] != bytes(7) or _e_flags(head, machine) & own.refused_mask == own.refused


def _e_flags(head: bytes, machine: Machine) -> int:
    at = 48 if machine.elf_class == 2 else 36
    return int.from_bytes(head[at : at + 4], "big" if machine.data == 2 else "little")


def _other_machine(view: View, host: ProcessSettings) -> bool:
    machine = host.machine
    number = int.from_bytes(view.head[18:20], "big" if machine.data == 2 else "little")
    return not _matches(number, _e_flags(view.head, machine), host)


def _other_kernel(elf: Elf, length: int, bad: Callable[[str, int], Fault]) -> bool:
    """Whether .note.ABI-tag asks for another system than Linux (the kernel's release is taken as new enough).

    `length` is how much of the file the first read got. Raises `Fault` for a note that the file does not hold.
    """
    word = elf.layout.u32
    for row in elf.phdrs:  # of every note segment
        if row[0] != PT_NOTE or row[5] < 32 or row[7] not in (4, 8):
            continue
        offset, size, align = row[2], row[5], row[7]
        if offset + size >= 1 << 8 * elf.layout.word_size:  # wraps round, and the loader walks off its buffer
            raise Unknown(f"what stands behind the first bytes of {elf.path} in the loader's memory", "header")
        data = elf.view.some(offset, min(size, _LARGEST_NOTE))
        if offset + size > length and len(data) != size:
            raise bad("cannot read file data", _EINVAL if offset >> 63 else 0)  # pread's offset has a sign
        at = 0
        while data[at : at + 16] != _ABI_TAG:
            if at + 16 > len(data):
                break
            namesz, descsz = word.unpack_from(data, at)[0], word.unpack_from(data, at + 4)[0]
            step = 12 + namesz
            step += -step % align + descsz
            step += -step % align
            if size - at - 32 < step:
                break
            at += step
        else:
            if data[at + 16 : at + 20] != bytes(4):
                return True
    return False


def check_segments(
    elf: Elf,
    name: str,
    host: ProcessSettings,
    grants: Callable[[int], bool | None],
    by_dlopen: bool,
    as_program: bool = False,
) -> None:
    """Check the program headers and dynamic section as the loader does while it maps the object. Raises `Fault`.

    `name` is what was asked for; `grants` tells whether the kernel lets a process have so many bytes; `by_dlopen` is
    whether a dlopen is under way (also for its dependencies).
    """
    libc, page = host.libc, host.page

    def bad(text: str, kind: str = "bad-segments", errno: int = 0) -> Fault:
        return Fault(kind, "map", text, name, errno)

    def not_mapped(text: str) -> Fault | Unknown:
        if libc.map_errno_kept:
            return Unknown(f"why the kernel refuses to map {elf.path}, which this release adds to: {text}", "map")
        return bad(text)

    try:
        headers = elf.phdrs
    except ElfError:
        raise bad("cannot read file data") from None
    mask = (1 << 8 * elf.layout.word_size) - 1
    wraps, wrapping = mask - (mask >> 16), False
    dynamic, empty_dynamic = False, False
    allowed = PF_R
    loads = []
    for kind, _flags, offset, vaddr, _paddr, filesz, memsz, align in headers:
        if kind == PT_DYNAMIC:
            if filesz or not libc.empty_dynamic_skipped:
                dynamic = vaddr != 0  # l_ld, of which 0 means none
            empty_dynamic |= filesz == 0
        elif kind == PT_LOAD:
            if libc.p_align_checked:
                if align & (page - 1):
                    raise bad("ELF load command alignment not page-aligned")
                if (vaddr - offset) & (align - 1) & mask:
                    raise bad("ELF load command address/offset not properly aligned")
            elif (vaddr - offset) & (page - 1):
                raise bad("ELF load command address/offset not page-aligned")
            allowed &= _flags
            wrapping |= filesz > wraps or memsz > wraps
            start, end = vaddr & -page, (vaddr + filesz + page - 1) & -page & mask
            loads.append((start, end, (vaddr + filesz) & mask, (vaddr + memsz) & mask, offset & -page, _flags))
    if not loads:
        raise bad("object file has no loadable segments")
    if elf.type != ET_DYN and not as_program and not libc.exec_refused_at_header:
        raise bad("cannot dynamically load executable", "not-a-library")
    if libc.dynamic_checked_before_mapping and ((not dynamic and elf.type == ET_DYN) or empty_dynamic):
        raise bad("object file has no dynamic section")
    _check_mapping(elf, loads, bad, not_mapped, host, grants)
    if wrapping:
        raise Unknown(f"what a segment of {elf.path} whose size wraps round the address space leaves in memory", "map")
    _check_overlap(elf, host)
    if not allowed and elf.type == ET_DYN:
        _check_readable(elf, host)
    if not dynamic and elf.type == ET_DYN:
        raise bad("object file has no dynamic section")
    _check_dynamic(elf, host)
    flags_1 = elf.dynamic.flags_1 if elf.dynamic is not None else 0
    if flags_1 & DF_1_PIE and libc.pie_refused and not as_program:
        raise bad("cannot dynamically load position-independent executable", "not-a-library")
    if flags_1 & DF_1_NOOPEN and by_dlopen:
        raise bad("shared object cannot be dlopen()ed", "not-a-library")


def _check_mapping(
    elf: Elf,
    loads: list[tuple[int, int, int, int, int, int]],
    bad: Callable[[str], Fault],
    not_mapped: Callable[[str], Fault | Unknown],
    host: ProcessSettings,
    grants: Callable[[int], bool | None],
) -> None:
    """_dl_map_segments (elf/dl-map-segments.h): what mmap and mprotect refuse."""
    page, own = host.page, port(host.machine)
    space, random, whole = 1 << own.address_bits, 1 << own.random_bits, 1 << 8 * elf.layout.word_size
    top = whole - space or whole
    first, last = loads[0], loads[-1]
    length = (last[3] - first[0]) & (whole - 1)
    # the range that is mapped first is there whole, and segments go into it
    reach = max(random, length + -length % page) if elf.type == ET_DYN else random
    if elf.type == ET_DYN:
        if host.libc.p_align_honoured:
            align = max((row[7] for row in elf.loads if row[7] & (row[7] - 1) == 0), default=0)
            if align > page and max(length + align, 2 * align) >= space:
                raise not_mapped("failed to map segment from shared object")
        if length == 0 or length >= space or first[4] >= whole >> 1:
            raise not_mapped("failed to map segment from shared object")
        if length > 1 << own.room_bits:
            raise Unknown(f"whether {length} bytes of address space are free in one piece for {elf.path}", "map")
        holes = any(one[1] != two[0] for one, two in pairwise(loads))
        if holes:
            if host.libc.segment_order_checked and last[0] < first[1]:
                raise bad("ELF load command address/offset not page-aligned")
            if last[0] < first[1] and whole <= space:  # the length wraps round, and a wider kernel takes it as it is
                what = "whether the kernel has 32 bits, and refuses at once to change the permissions of"
                raise Unknown(f"{what} {whole + last[0] - first[1]} bytes from within {elf.path} on", "map")
            if last[0] < first[1] or last[0] - first[1] >= space:
                raise not_mapped("cannot change memory protections")
    for index, (start, end, data_end, alloc_end, offset, _flags) in enumerate(loads):
        if end > start and index:
            if offset + end - start >= whole >> 1 or end - first[0] > reach:
                raise not_mapped("failed to map segment from shared object")
            _inside(elf, start, end, first[0], last[3], page)
        if data_end < alloc_end < top:
            zero_page = (data_end + page - 1) & -page
            if min(zero_page, alloc_end) > data_end and data_end & (page - 1):
                in_file = offset + (data_end & -page) - start
                if in_file >= elf.view.size + (-elf.view.size % page) and end > start:
                    error = OutOfBounds(
                        elf.path,
                        in_file,
                        f"the segment's last page is cleared, but the file ends at {elf.view.size:#x}",
                    )
                    raise died_reading(error, "map")
            if alloc_end > zero_page:
                if alloc_end - first[0] > reach:
                    raise not_mapped("cannot map zero-fill pages")
                if alloc_end - zero_page >= _MUCH_MEMORY:
                    granted = grants(alloc_end - zero_page)
                    if granted is None:
                        what = f"whether the kernel grants {elf.path} {alloc_end - zero_page} bytes of zeros"
                        raise Unknown(f"{what}: the machine's memory and vm.overcommit_memory", "map")
                    if not granted:
                        raise not_mapped("cannot map zero-fill pages")
                _inside(elf, zero_page, alloc_end, first[0], last[3], page)


def _check_overlap(elf: Elf, host: ProcessSettings) -> None:
    """Raise `Unknown` for segments that lie over one another and come from different places of the file."""
    page, top = host.page, 0
    for row in elf.loads:
        if row[5]:
            if row[3] & -page < top:
                break
            top = row[3] + row[5] + -(row[3] + row[5]) % page
    else:
        return
    rows = [row for row in elf.loads if row[5]]
    spans = sorted((row[3] & -page, row[3] + row[5] + -(row[3] + row[5]) % page, row[3] - row[2]) for row in rows)
    if any(one[1] > two[0] and one[2] != two[2] for one, two in pairwise(spans)):
        raise Unknown(f"what is left of segments of {elf.path} that lie over one another", "map")


def _check_readable(elf: Elf, host: ProcessSettings) -> None:
    """What the loader reads of an object right after it is mapped, where a segment gives no permission to."""
    image = Image(elf, host.page)
    for row in elf.phdrs:
        if row[0] == PT_DYNAMIC and row[5]:
            image.touch(row[3], 16, False, "the dynamic section is read", "map")
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    for tag in (DT_GNU_HASH, DT_HASH, DT_SYMTAB, DT_STRTAB):
        if tag in tags:
            image.touch(tags[tag], 1, False, "a table is read", "map")


def _inside(elf: Elf, start: int, end: int, low: int, high: int, page: int) -> None:
    """A segment outside the object's own mapping lands on whatever the process has there."""
    if elf.type == ET_DYN and (start < low or end > high + (-high % page)):
        raise Unknown(
            f"what lies in the process where {elf.path} maps a segment outside its own range ({start:#x} to {end:#x})",
            "map",
        )


def _check_dynamic(elf: Elf, host: ProcessSettings) -> None:
    """elf_get_dynamic_info (elf/get-dynamic-info.h): what the loader asserts of the dynamic section."""
    try:
        dynamic = elf.dynamic
    except ElfError as error:
        raise died_reading(error, "map") from None
    if dynamic is None:
        return
    tags, taken = dynamic.tags, host.libc.tables(host.machine)

    def asserted(expression: str) -> Death:
        text = host.libc.assertion("get-dynamic-info.h", "elf_get_dynamic_info", expression)
        return Death("assertion", "map", f"the loader asserts that {expression}", text, 127, elf.path)

    def entry_size(table: int, tag: int, expression: str, size: int) -> None:
        if table in tags and tags.get(tag) != size:
            if tag not in tags:
                error = ElfError(elf.path, -1, "a relocation table has no tag for the size of its entries")
                raise died_reading(error, "map")
            raise asserted(expression)

    if port(host.machine).aligned_tables and any(tags.get(tag, 0) & 3 for tag in _WORD_TABLES):
        raise Unknown(f"whether the loader's code can read a table of {elf.path} that is not aligned to words", "map")
    if DT_PLTREL in tags and tags[DT_PLTREL] not in taken:
        kinds = (f"info[DT_PLTREL]->d_un.d_val == DT_{'RELA' if kind == DT_RELA else 'REL'}" for kind in taken)
        raise asserted(" || ".join(kinds))
    if DT_RELA in taken:
        entry_size(DT_RELA, DT_RELAENT, "info[DT_RELAENT]->d_un.d_val == sizeof (ElfW(Rela))", elf.layout.rela.size)
    if DT_REL in taken:
        entry_size(DT_REL, DT_RELENT, "info[DT_RELENT]->d_un.d_val == sizeof (ElfW(Rel))", elf.layout.rel.size)
    if host.libc.relr:
        entry_size(DT_RELR, DT_RELRENT, "info[DT_RELRENT]->d_un.d_val == sizeof (ElfW(Relr))", elf.layout.word_size)


def check_hash(elf: Elf, host: ProcessSettings) -> None:
    """_dl_setup_hash: what the loader reads of the hash table when the object is mapped. Raises `Death`, `Unknown`."""
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    try:
        if DT_GNU_HASH in tags:
            words = elf.layout.u32.unpack_from(elf.at(tags[DT_GNU_HASH], 16), 8)[0]
            if words & (words - 1):
                expression = "(bitmask_nwords & (bitmask_nwords - 1)) == 0"
                text = host.libc.assertion(host.libc.setup_hash_file, "_dl_setup_hash", expression)
                why = f"the filter of DT_GNU_HASH has {words} words, which is no power of two"
                raise Death("assertion", "map", why, text, 127, elf.path)
        elif DT_HASH in tags:
            elf.at(tags[DT_HASH], 8)
    except ElfError as error:
        raise died_reading(error, "map") from None


def wants_execstack(elf: Elf, host: ProcessSettings) -> bool:
    """Whether the object asks for an executable stack: by PT_GNU_STACK, or by the machine's default without one."""
    flags = elf.stack_flags
    return bool(flags & PF_X) if flags is not None else host.machine.default_execstack


if TYPE_CHECKING:
    from collections.abc import Callable
