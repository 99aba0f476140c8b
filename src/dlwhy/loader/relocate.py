"""What relocating one object touches and looks up, in the loader's order (glibc elf/dynamic-link.h, elf/do-rel.h).

Tags are taken as the loader takes them: a size or a start that is missing beside its partner is read through a null
pointer. For nearly every object one pass over each table settles that all it writes to is its own data; only where that
is not so are the entries taken one by one.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DT_JMPREL,
    DT_PLTGOT,
    DT_PLTREL,
    DT_PLTRELSZ,
    DT_REL,
    DT_RELA,
    DT_RELACOUNT,
    DT_RELASZ,
    DT_RELCOUNT,
    DT_RELR,
    DT_RELRSZ,
    DT_RELSZ,
    DT_SYMTAB,
)
from dlwhy.elf.relocs import Survey, Table, entries, read_relr, relr, split_info, survey
from dlwhy.errors import ElfError
from dlwhy.loader.faults import Death, Unknown
from dlwhy.loader.image import SIGSEGV, Image
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.port import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.glibc import Glibc

_LOWEST = 1 << 46
"""Objects lie above this address: the end of a table wraps round where it is at most so far before the start."""
Entry = tuple[int, bool]
"""(r_info, whether lazy binding leaves it for later)."""

if TYPE_CHECKING:
    Range = tuple[Survey | tuple[int, ...], bool]
    """(references of a table, whether lazy binding leaves them for later)."""


class Work:
    """The references of one object in the loader's order, and how the work ends if it does not get through them."""

    __slots__ = ("_entries", "end", "ranges")

    def __init__(self) -> None:
        self.ranges: list[Range] = []
        self._entries: list[Entry] | None = None
        self.end: Exception | None = None
        """`Death` or `Unknown` behind the last entry; None when all is done."""

    @property
    def entries(self) -> list[Entry]:
        """Every distinct reference of each range."""
        if self._entries is None:
            self._entries = [(info, deferred) for infos, deferred in self.ranges for info in infos]
        return self._entries


def work(elf: Elf, machine: Machine, libc: Glibc, lazy: bool, page: int, as_program: bool) -> Work:
    """Return the work of relocating an object. `lazy`: whether its jump table is to be bound lazily.

    `as_program`: the kernel has mapped it, so that nothing is known of the places that are written.
    """
    found = Work()
    try:
        for one in _entries(elf, machine, libc, lazy, None if as_program else Image(elf, page)):
            found.ranges.append(one)
    except ElfError as error:
        found.end = died_reading(error, "relocate")
    except Exception as end:  # Death and Unknown, which are values here
        if type(end).__module__ != Death.__module__:
            raise
        found.end = end
    return found


def every_entry(elf: Elf, machine: Machine, libc: Glibc, lazy: bool) -> Iterator[Entry]:
    """Yield each entry of the tables in the loader's order, those included that `work` has once.

    Ends where `work` would: what stands there is met again by whoever applies the entries.
    """
    try:
        for table, deferred in _ranges(elf, machine, lazy, libc):
            for _, info in entries(elf, table):
                yield info, deferred
    except (ElfError, Death, Unknown):
        return


def read_null(elf: Elf, what: str) -> Death:
    """Return how a process ends whose loader takes for granted a tag that is not there."""
    why = f"{elf.path}: {what}, and the loader reads it through a null pointer: the process is killed by SIGSEGV"
    return Death("signal", "relocate", why, None, -SIGSEGV, elf.path)


def _entries(elf: Elf, machine: Machine, libc: Glibc, lazy: bool, image: Image | None) -> Iterator[Range]:
    dynamic = elf.dynamic
    tags = dynamic.tags if dynamic is not None else {}
    own = port(machine)
    if (lazy or own.got_always) and DT_JMPREL in tags:
        if DT_PLTGOT not in tags:
            raise read_null(elf, "it has DT_JMPREL and no DT_PLTGOT")
        if own.glink_tag and own.glink_tag not in tags:
            raise read_null(elf, "it has DT_JMPREL and no DT_PPC64_GLINK")
        if image is not None:
            word, (first, last) = elf.layout.word_size, own.got
            jumps = tags.get(DT_PLTRELSZ, 0) // elf.layout.rela.size if own.glink_tag else 0
            place, size = tags[DT_PLTGOT] + first * word, (last - first + 1 + jumps) * word
            image.touch(place, size, True, "DT_PLTGOT is written", "relocate")
    if libc.relr and DT_RELR in tags:
        if DT_RELRSZ not in tags:
            raise read_null(elf, "it has DT_RELR and no DT_RELRSZ")
        _check_relr(elf, image)
    ranges = _ranges(elf, machine, lazy, libc)
    if dynamic is not None and DT_SYMTAB not in tags:
        raise read_null(elf, "it has no DT_SYMTAB")  # whether or not there are relocations
    for table, deferred in ranges:
        yield from _range(elf, table, deferred, machine, libc, image)


_KINDS = {DT_REL: ("DT_REL", DT_RELSZ, DT_RELCOUNT, False), DT_RELA: ("DT_RELA", DT_RELASZ, DT_RELACOUNT, True)}


def _ranges(elf: Elf, machine: Machine, lazy: bool, libc: Glibc) -> list[tuple[Table, bool]]:
    """The ranges of entries in the loader's order, each with whether lazy binding leaves it for later."""
    taken = libc.tables(machine)
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    result = []
    for kind in taken:
        jumps = DT_PLTREL in tags and (len(taken) == 1 or tags[DT_PLTREL] == kind)
        result += _of_kind(elf, kind, jumps, lazy, libc.relr)
    return result


def _of_kind(elf: Elf, kind: int, jumps: bool, lazy: bool, zero_is_none: bool) -> list[tuple[Table, bool]]:
    """_ELF_DYNAMIC_DO_RELOC: a table and, with `jumps`, the jump table as one range or two, the second perhaps lazy.

    `zero_is_none`: whether a table at 0 means that there is none, as it does since DT_RELR came.
    """
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    name, sizes, counts, rela = _KINDS[kind]
    entry = (elf.layout.rela if rela else elf.layout.rel).size
    start = size = count = 0
    has_table = kind in tags and (tags[kind] != 0 or not zero_is_none)
    if has_table:
        if sizes not in tags:
            raise read_null(elf, f"it has {name} and no {name}SZ")
        start, size, count = tags[kind], tags[sizes], _counted(tags.get(counts, 0), entry, name, elf)
    second = None
    if jumps:
        for tag, called in ((DT_JMPREL, "DT_JMPREL"), (DT_PLTRELSZ, "DT_PLTRELSZ")):
            if tag not in tags:
                raise read_null(elf, f"it has DT_PLTREL and no {called}")
        jump, length = tags[DT_JMPREL], tags[DT_PLTRELSZ]
        start = start if has_table else jump
        if start + size == jump + length:
            size -= length
        if not lazy and start + size == jump:
            size += length
        else:
            second = Table("DT_JMPREL", jump, _whole(length, entry, elf), rela, 0)
    first = Table(name, start, _whole(size, entry, elf), rela, count)
    return [(first, False)] + ([(second, lazy)] if second is not None else [])


def _counted(count: int, entry: int, name: str, elf: Elf) -> int:
    """DT_RELACOUNT or DT_RELCOUNT as the loader's pointer arithmetic has it: so many bytes wrap round."""
    whole = 1 << 8 * elf.layout.word_size
    ahead = count * entry % whole
    if ahead >= whole // 2 or ahead % entry:
        raise Unknown(f"what stands where {name}COUNT of {elf.path} leads, not at an entry of its table", "relocate")
    return ahead // entry


def _whole(size: int, entry: int, elf: Elf) -> int:
    """The bytes that are really applied: whole entries up to the end, none when the end wraps to before the start."""
    whole = 1 << 8 * elf.layout.word_size
    size %= whole
    if size >= max(whole - _LOWEST, whole // 2):
        return 0
    return -(-size // entry) * entry


def _range(
    elf: Elf, table: Table, deferred: bool, machine: Machine, libc: Glibc, image: Image | None
) -> Iterator[Range]:
    """The entries of one range: the relative ones at its start, the rest, IRELATIVE at the end."""
    own, entry = port(machine), (elf.layout.rela if table.rela else elf.layout.rel).size
    if table.relative * entry > table.size and table.size:
        table = table.but(size=table.relative * entry)  # the loader counts, and does not look
    seen = Survey()
    broken: ElfError | None = None
    skip = frozenset(() if deferred else (machine.relative, 0))
    if table.size:
        try:
            survey(elf, table, skip, machine.relative, seen, image is not None)
        except ElfError as error:
            broken = error
    if deferred and own.glink_tag:  # nobody looks at them
        yield seen, True
        return
    if image is None or seen.low < 0 or image.writable(seen.low, seen.high + 2 * elf.layout.word_size):
        if seen.relative_wrong and own.relative is not None:
            raise _not_relative(elf, own.relative, libc)
        yield seen, deferred
        if broken is not None:
            raise broken
        return
    yield from _one_by_one(elf, table, deferred, machine, libc, image)


def _one_by_one(
    elf: Elf, table: Table, deferred: bool, machine: Machine, libc: Glibc, image: Image
) -> Iterator[Range]:
    """Every entry of a range with what it writes to; a reference is looked up before its place is written."""
    seen: set[int] = set()
    own = port(machine)
    late: list[tuple[int, int]] = []
    word = elf.layout.word_size
    for number, (offset, info) in enumerate(entries(elf, table)):
        kind = split_info(elf, info)[1]
        if number < table.relative:
            if kind != machine.relative and own.relative is not None:
                raise _not_relative(elf, own.relative, libc)
        elif kind == machine.irelative and own.irelative_last:
            late.append((offset, info))
            continue
        elif info not in seen and (deferred or kind not in (machine.relative, 0)):
            seen.add(info)
            yield (info,), deferred
        if kind or number < table.relative:
            size = 2 * word if kind in machine.tlsdesc else word
            image.touch(offset, size, True, "a relocation is applied", "relocate")
    for offset, _ in late:
        image.touch(offset, word, True, "a relocation is applied", "relocate")


def _check_relr(elf: Elf, image: Image | None) -> None:
    if image is None:
        read_relr(elf)
        return
    places = list(relr(elf))
    word = elf.layout.word_size
    if not places or image.writable(min(places), max(places) + word):
        return
    for place in places:
        image.touch(place, word, True, "DT_RELR is applied", "relocate")


def _not_relative(elf: Elf, asserts: tuple[str, str], libc: Glibc) -> Death:
    text = libc.assertion("dl-machine.h", *asserts)
    why = f"DT_REL(A)COUNT of {elf.path} counts an entry that is not relative"
    return Death("assertion", "relocate", why, text, 127, elf.path)
