"""Which function stands at an address: by symbol tables, the Go runtime's own table, or the bounds of .eh_frame.

The object's `.symtab` is asked first, then those of its debug file and `.gnu_debugdata`, then `.dynsym`.

A symbol's function is the one that covers the address, the smallest of several. What only .eh_frame knows has bounds
and no name, and is told by its address.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from itertools import compress, count

from dlwhy.elf.constants import STB_LOCAL, STT_FILE, STT_FUNC, STT_GNU_IFUNC
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from dlwhy.attribute.companions import Companion
    from dlwhy.elf.file import Elf

_CODE = bytes((kind & 15) in (STT_FUNC, STT_GNU_IFUNC) for kind in range(256))
"""For `translate`: 1 for the st_info of a function."""
_FILE = bytes((STT_FILE,))


class Function(Record):
    """A piece of code that belongs together."""

    start: int
    end: int
    name: str | None
    """As written; None when nothing names it."""
    source: str
    """What says so: `.symtab` or that of a debug file, `.dynsym`, perhaps without a size, `.gopclntab`, `.eh_frame`."""
    unit: str | None
    """The STT_FILE symbol before a local one."""


def locate(elf: Elf, addresses: Iterable[int], companions: Sequence[Companion] = ()) -> dict[int, Function]:
    """Return address -> function for those of `addresses` that lie in one. A damaged table only costs names.

    `companions` have more symbols of this object, the best first.
    """
    left = sorted(set(addresses))
    result: dict[int, Function] = {}
    searches: list[Callable[[Elf, list[int], dict[int, Function]], None]] = [_by_symtab]
    searches += [partial(_by_companion, one) for one in companions]
    searches += [_by_dynsym, _by_go, _by_frames, _by_unsized]
    for search in searches:
        if not left:
            break
        try:
            search(elf, left, result)
        except ElfError:
            continue
        left = [address for address in left if address not in result]
    return result


def _by_symtab(elf: Elf, addresses: list[int], result: dict[int, Function]) -> None:
    table = StaticSymbols(elf)
    if table.complete:
        _by_symbols(table.pieces(), table.name_at, ".symtab", addresses, result)


def _by_companion(companion: Companion, _: Elf, addresses: list[int], result: dict[int, Function]) -> None:
    table = StaticSymbols(companion.elf)
    _by_symbols(table.pieces(), table.name_at, f".symtab of {companion.label}", addresses, result)


def _by_dynsym(elf: Elf, addresses: list[int], result: dict[int, Function]) -> None:
    _by_symbols(((0, elf.symbols.data),), elf.symbols.name_at, ".dynsym", addresses, result)


def _by_symbols(
    pieces: Iterable[tuple[int, bytes | bytearray]],
    name_at: Callable[[int], bytes],
    source: str,
    addresses: list[int],
    result: dict[int, Function],
) -> None:
    """Add the functions of a symbol table of a 64-bit file around `addresses`, which are in order."""
    best: dict[int, tuple[int, int, int, int, int]] = {}  # address -> size, name, start, binding, file symbol
    for start, size, name, binding, file, place in _symbols(pieces, addresses):
        key = (size, name, start, binding, file)
        for address in addresses[place : bisect_left(addresses, start + size, place)]:
            if address not in best or size < best[address][0]:
                best[address] = key
    names: dict[int, str] = {}

    def text(offset: int) -> str:
        if offset not in names:
            names[offset] = name_at(offset)[: 1 << 16].decode("utf-8", "surrogateescape")
        return names[offset]

    made: dict[tuple[int, int, int, int, int], Function] = {}
    for address, key in best.items():
        if key not in made:
            size, name, start, binding, file = key
            unit = text(file) if binding == STB_LOCAL and file else None
            made[key] = Function(start, start + size, text(name), source, unit)
        result[address] = made[key]


def _symbols(
    pieces: Iterable[tuple[int, bytes | bytearray]], addresses: list[int]
) -> Iterator[tuple[int, int, int, int, int, int]]:
    """Yield (start, size, name, binding, name of the file symbol before it or 0, place of its first address).

    Of the functions of a table those at one of `addresses`, which are in order. A file symbol without a name ends what
    stood behind the one before: GNU ld writes it before the hidden functions of all files.
    """
    from array import array
    from sys import byteorder

    behind = [*addresses, 1 << 64]  # for one more than the last
    pending = 0
    for _, data in pieces:
        infos = bytes(data[4::24])
        words = array("Q", bytes(data))
        if byteorder != "little":
            words.byteswap()
        code = infos.translate(_CODE)
        done = 0
        found = zip(compress(count(), code), compress(words[1::3], code), compress(words[2::3], code), strict=True)
        for index, start, size in found:
            place = bisect_left(addresses, start)
            if behind[place] >= start + size:
                continue
            at = infos.rfind(_FILE, done, index)
            done = index
            pending = words[3 * at] & 0xFFFFFFFF if at >= 0 else pending
            yield start, size, words[3 * index] & 0xFFFFFFFF, infos[index] >> 4, pending, place
        at = infos.rfind(_FILE, done)
        pending = words[3 * at] & 0xFFFFFFFF if at >= 0 else pending


def _by_unsized(elf: Elf, addresses: list[int], result: dict[int, Function]) -> None:
    """Of hand-written code symbols may have no size: such a function goes on to the next one of the dynamic table."""
    from bisect import bisect_right

    data = elf.symbols.data
    infos = data[4::24]
    found = []
    for index in compress(range(len(infos)), infos.translate(_CODE)):
        name, _, _, section, start, size = elf.layout.sym.unpack_from(data, 24 * index)
        if section and start:
            found.append((start, size, name))
    found.sort()
    starts = [start for start, _, _ in found]
    for address in addresses:
        place = bisect_right(starts, address) - 1
        if 0 <= place < len(found) - 1 and not found[place][1]:
            start, _, name = found[place]
            text = elf.symbols.name_at(name).decode("utf-8", "surrogateescape")
            result[address] = Function(start, starts[place + 1], text, ".dynsym, without a size", None)


def _by_go(elf: Elf, addresses: Sequence[int], result: dict[int, Function]) -> None:
    from dlwhy.attribute.go_table import go_functions, go_table

    table = go_table(elf)
    if table is not None:
        for address, (start, end, name) in go_functions(elf, table, addresses).items():
            result[address] = Function(start, end, name, ".gopclntab", None)


def _by_frames(elf: Elf, addresses: Sequence[int], result: dict[int, Function]) -> None:
    from dlwhy.attribute.frames import bounds

    for address, (start, end) in bounds(elf, addresses).items():
        result[address] = Function(start, end, None, ".eh_frame", None)
