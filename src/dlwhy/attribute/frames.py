"""Where functions begin and end, from .eh_frame: what is left in a file without any names (LSB Core, .eh_frame_hdr).

The table behind PT_GNU_EH_FRAME is sorted for the unwinder's own search; each row leads to a frame description entry,
which holds the function's length.
"""

from __future__ import annotations

from dlwhy.errors import ElfError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf

PT_GNU_EH_FRAME = 0x6474E550
_TABLE = 0x3B
"""DW_EH_PE_datarel | DW_EH_PE_sdata4: what linkers write, and what the unwinder searches."""
_COUNT = 0x03
"""DW_EH_PE_udata4."""
_MOST = 1 << 24


def bounds(elf: Elf, addresses: Iterable[int]) -> dict[int, tuple[int, int]]:
    """Return address -> (start, end) of the function around it, for those of `addresses` that lie in one.

    Never raises for a damaged table: what it does not tell is left out.
    """
    try:
        header = next((row[3] for row in elf.phdrs if row[0] == PT_GNU_EH_FRAME and row[5] >= 12), None)
        if header is None or not elf.little:
            return {}
        head = elf.at(header, 12)
        count = int.from_bytes(head[8:12], "little")
        if head[0] != 1 or head[2] != _COUNT or head[3] != _TABLE or not 0 < count <= min(_MOST, elf.view.size // 8):
            return {}
        return _found(elf, header, elf.at(header + 12, 8 * count), addresses)
    except ElfError:
        return {}


def _found(elf: Elf, header: int, table: bytes, addresses: Iterable[int]) -> dict[int, tuple[int, int]]:
    from array import array
    from bisect import bisect_right
    from sys import byteorder

    words = array("i", table)
    if byteorder != "little":
        words.byteswap()
    starts, entries = words[::2], words[1::2]
    result: dict[int, tuple[int, int]] = {}
    known: dict[int, tuple[int, int]] = {}
    for address in addresses:
        index = bisect_right(starts, address - header) - 1
        if index < 0:
            continue
        if index not in known:
            start = header + starts[index]
            known[index] = (start, start + _length(elf, header + entries[index], start))
        if address < known[index][1]:
            result[address] = known[index]
    return result


def _length(elf: Elf, entry: int, start: int) -> int:
    """Return the bytes of the function at `start` that a frame description entry covers, 0 when it is another's."""
    try:
        data = elf.at(entry, 24)
    except ElfError:
        return 0
    word = [int.from_bytes(data[at : at + 4], "little") for at in range(0, 24, 4)]
    if (entry + 8 + word[2]) & 0xFFFFFFFF == start & 0xFFFFFFFF:  # DW_EH_PE_pcrel | DW_EH_PE_sdata4
        return word[3]
    wide = word[2] | word[3] << 32
    if wide == start or (entry + 8 + wide) & (1 << 64) - 1 == start:  # eight bytes, absolute or relative
        return word[4] | word[5] << 32
    return 0
