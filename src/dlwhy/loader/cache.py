"""ld.so.cache as the loader reads it (glibc sysdeps/generic/dl-cache.h, elf/dl-cache.c).

Two formats, and the old one with the new embedded behind it; the new one wins. Entries are sorted in descending order
of a comparison in which runs of digits count as numbers, and found by binary search. Offsets of the new format count
from the start of the new part.
"""

from __future__ import annotations

from struct import Struct

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

OLD_MAGIC = b"ld.so-1.7.0\0"
NEW_MAGIC = b"glibc-ld.so.cache1.1"
_EXTENSION_MAGIC = 0xEAA42174
_HWCAP_EXTENSION = 1 << 62
_ISA_LEVEL_MASK = 0x3FF << 32
_OLD_ENTRY, _NEW_ENTRY = "iII", "iIIIQ"
class Hit(Record):
    """An entry that matches a name."""

    path: str
    hwcap: str | None
    """glibc-hwcaps subdirectory that it was found in; None for the ordinary one."""
    legacy: int
    """Legacy hwcap word; 0 for none."""


class Cache:
    """A parsed ld.so.cache. Empty when the bytes are none."""

    __slots__ = (
        "_align", "_base", "_count", "_data", "_entry", "_names", "_order", "_signed", "_start", "hwcaps", "missing",
        "usable",
    )  # fmt: skip

    def __init__(self, data: bytes, big: bool = False, signed_char: bool = True, align: int = 8) -> None:
        self._data = data
        self._align = align
        self._order: Literal["big", "little"] = "big" if big else "little"
        self._signed = signed_char
        self._base = self._start = self._count = 0
        self._entry = self._layout(_NEW_ENTRY)
        self._names: dict[int, bytes] = {}
        self.hwcaps: tuple[str, ...] = ()
        """glibc-hwcaps names that entries refer to."""
        self.usable = self._open()
        self.missing = not data
        """Whether there is no such file, or an empty one."""

    def _layout(self, fields: str) -> Struct:
        return Struct((">" if self._order == "big" else "<") + fields)

    def _open(self) -> bool:
        data = self._data
        at = 0
        if data[: len(OLD_MAGIC)] == OLD_MAGIC and len(data) >= 16:
            count = int.from_bytes(data[12:16], self._order)
            end = 16 + 12 * count
            at = end + (-end % self._align)
            if data[at : at + len(NEW_MAGIC)] != NEW_MAGIC:
                if end > len(data):
                    return False
                self._start, self._base, self._count, self._entry = 16, end, count, self._layout(_OLD_ENTRY)
                return True
        elif data[: len(NEW_MAGIC)] != NEW_MAGIC:
            return False
        if at + 48 > len(data):
            return False
        count = int.from_bytes(data[at + 20 : at + 24], self._order)
        if data[at + 28] & 3 not in (0, 3 if self._order == "big" else 2) or at + 48 + 24 * count > len(data):
            return False
        self._base, self._start, self._count = at, at + 48, count
        extension = int.from_bytes(data[at + 32 : at + 36], self._order)
        if extension:
            self._read_extension(at + extension)
        return True

    def _read_extension(self, at: int) -> None:
        data = self._data
        if at % 4 or int.from_bytes(data[at : at + 4], self._order) != _EXTENSION_MAGIC:
            return
        number = int.from_bytes(data[at + 4 : at + 8], self._order)
        for i in range(min(number, 16)):
            tag, _, offset, size = self._layout("4I").unpack(data[at + 8 + 16 * i : at + 24 + 16 * i].ljust(16, b"\0"))
            if tag == 1:
                places = (self._base + offset + 4 * k for k in range(min(size // 4, 64)))
                words = [int.from_bytes(data[place : place + 4], self._order) for place in places]
                self.hwcaps = tuple(self._string(word).decode("utf-8", "surrogateescape") for word in words)

    def _string(self, offset: int) -> bytes:
        at = self._base + offset
        end = self._data.find(b"\0", at)
        return self._data[at:end] if 0 <= at <= end else b""

    def paths(self) -> list[str]:
        """Return the file of every entry, in order."""
        unpack, start, size = self._entry.unpack_from, self._start, self._entry.size
        rows = (unpack(self._data, start + index * size) for index in range(self._count if self.usable else 0))
        return [self._string(row[2]).decode("utf-8", "surrogateescape") for row in rows]

    def _key(self, index: int) -> bytes:
        return self._string(self._entry.unpack_from(self._data, self._start + index * self._entry.size)[1])

    def look_up(
        self,
        name: str,
        flags: frozenset[int],
        active: Callable[[str, int], int | None],
        legacy_ok: Callable[[int], bool],
    ) -> Hit | None:
        """Return the entry that the loader takes for `name`, or None.

        `active(hwcap, level)` is the priority of a glibc-hwcaps name (lower wins) or None when it is not searched, or
        the library needs a level that the processor lacks: 0 for x86-64, 1 for x86-64-v2 and so on (dl-isa-level.h);
        `legacy_ok(word)` says whether an entry with a legacy hwcap word is taken.
        """
        if not self.usable:
            return None
        wanted = name.encode("utf-8", "surrogateescape")
        left, right, middle = 0, self._count - 1, 0
        while left <= right:
            middle = (left + right) // 2
            order = compare(wanted, self._key(middle), self._signed)
            if order == 0:
                break
            if order < 0:
                left = middle + 1
            else:
                right = middle - 1
        else:
            return None
        while middle > 0 and compare(wanted, self._key(middle - 1), self._signed) == 0:
            middle -= 1
        return self._best(wanted, middle, flags, active, legacy_ok)

    def _best(
        self,
        wanted: bytes,
        index: int,
        flags: frozenset[int],
        active: Callable[[str, int], int | None],
        legacy_ok: Callable[[int], bool],
    ) -> Hit | None:
        best: int | None = None
        found: Hit | None = None
        while index < self._count and compare(wanted, self._key(index), self._signed) == 0:
            row = self._entry.unpack_from(self._data, self._start + index * self._entry.size)
            index += 1
            if row[0] not in flags:
                continue
            path = self._string(row[2]).decode("utf-8", "surrogateescape")
            hwcap = row[4] if len(row) == 5 else 0
            if hwcap & _HWCAP_EXTENSION and not hwcap & ~(_HWCAP_EXTENSION | _ISA_LEVEL_MASK | 0xFFFFFFFF):
                place, level = hwcap & 0xFFFFFFFF, (hwcap & _ISA_LEVEL_MASK) >> 32
                priority = active(self.hwcaps[place], level) if place < len(self.hwcaps) else None
                if priority is not None and (best is None or priority < best):
                    best = priority
                    found = Hit(path, self.hwcaps[place], 0)
                continue
            if found is not None:
                return found  # a plain entry ends the search for better glibc-hwcaps ones
            if hwcap and not legacy_ok(hwcap):
                continue
            return Hit(path, None, hwcap)
        return found


_SIGN = 1 << 31


def compare(one: bytes, two: bytes, signed_char: bool = True) -> int:
    """Compare two sonames as _dl_cache_libcmp does: digit runs are numbers, and a digit sorts above any other."""
    if one == two:
        return 0
    for a, b in zip(one, two, strict=False):
        if a != b:
            if 48 <= a <= 57 or 48 <= b <= 57:
                break
            return _char(a, signed_char) - _char(b, signed_char)  # digit runs before it were equal, and ended
    i = j = 0
    while i < len(one):
        a = one[i]
        b = two[j] if j < len(two) else 0
        if 48 <= a <= 57:
            if not 48 <= b <= 57:
                return 1
            x = y = 0
            while i < len(one) and 48 <= one[i] <= 57:
                x, i = x * 10 + one[i] - 48 & 0xFFFFFFFF, i + 1  # an int, which wraps
            while j < len(two) and 48 <= two[j] <= 57:
                y, j = y * 10 + two[j] - 48 & 0xFFFFFFFF, j + 1
            if x != y:
                return 1 if (x ^ _SIGN) > (y ^ _SIGN) else -1
        elif 48 <= b <= 57:
            return -1
        elif a != b:
            return _char(a, signed_char) - _char(b, signed_char)
        else:
            i, j = i + 1, j + 1
    return -_char(two[j], signed_char) if j < len(two) else 0


def _char(byte: int, signed_char: bool) -> int:
    return byte - 256 if signed_char and byte > 127 else byte
