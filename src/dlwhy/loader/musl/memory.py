"""Memory: the pages of one mapped object, read and written by addresses as linked.

musl looks at what it mapped without asking where it ends. So nothing here knows a table: bytes at an address are there,
or whoever touches them is killed, or they belong to something else of which nothing is known.
"""

from __future__ import annotations

from struct import Struct

from dlwhy.elf.constants import PF_R, PF_W, PF_X
from dlwhy.loader.faults import NEAR, Death, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.view import View

SIGSEGV, SIGBUS, SIGFPE = 11, 7, 8
_WORD = 1 << 64
_WINDOW = 1 << 16
_LONGEST = 1 << 20
"""Bytes of one string that are read; what is longer is no name."""
_ALL_NAMES = 1 << 26
"""Bytes of all strings together that are read of one object (honest ones stay below a tenth)."""
_U16, _U32, _U64 = Struct("<H"), Struct("<I"), Struct("<Q")


def signed(value: int) -> int:
    """An address as a distance from 0 in either direction: arithmetic on pointers wraps round."""
    value %= _WORD
    return value - _WORD if value >> 63 else value


class Memory:
    """The mapping of one object. Mutable: mapping and protecting change it."""

    __slots__ = ("_page", "_pages", "_regions", "_sure", "_texts", "_view", "_zeros", "path", "stage")

    def __init__(self, path: str, view: View, page: int) -> None:
        self.path = path
        self.stage = "map"
        """Which part of a load touches the memory, for what is said of an end."""
        self._view = view
        self._page = page
        # (start, end, file offset or -1 for zeros, flags), sorted, none over another
        self._regions: list[tuple[int, int, int, int]] = []
        self._zeros: list[tuple[int, int]] = []
        """Ranges that were cleared after they were mapped."""
        self._pages: dict[int, tuple[int, bytes]] = {}
        self._sure: set[int] = set()
        self._texts = 0

    @property
    def span(self) -> tuple[int, int]:
        """The first address and the one behind the last."""
        return (self._regions[0][0], self._regions[-1][1]) if self._regions else (0, 0)

    def _cut(self, start: int, end: int) -> list[tuple[int, int, int, int]]:
        """The regions without what lies in [start, end)."""
        left = []
        for low, high, offset, flags in self._regions:
            if low < min(high, start):
                left.append((low, min(high, start), offset, flags))
            if max(low, end) < high:
                at = max(low, end)
                left.append((at, high, offset + at - low if offset >= 0 else -1, flags))
        return left

    def map(self, start: int, end: int, offset: int, flags: int) -> None:
        """Map pages from `offset` of the file, or zeros for -1, over whatever is there."""
        outside = [((low, min(high, start)), (max(low, end), high)) for low, high in self._zeros]
        self._zeros = [(low, high) for pair in outside for low, high in pair if low < high]
        self._put(start, end, offset, flags)

    def _put(self, start: int, end: int, offset: int, flags: int) -> None:
        if end > start:
            self._regions = sorted([*self._cut(start, end), (start, end, offset, flags)])
            self._pages.clear()
            self._sure.clear()

    def protect(self, start: int, end: int, flags: int) -> bool:
        """Give all pages of a range other permissions; False, when some of them are not there (ENOMEM)."""
        there = [(max(low, start), min(high, end), offset + max(start - low, 0) if offset >= 0 else -1)
                 for low, high, offset, _ in self._regions if low < end and start < high]  # fmt: skip
        for low, high, offset in there:
            self._put(low, high, offset, flags)
        return sum(high - low for low, high, _ in there) == end - start

    # -- reading -------------------------------------------------------------------------------------------------

    def read(self, vaddr: int, size: int) -> bytes:
        """Return `size` bytes. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        parts = []
        while size > 0:
            start, data = self._pages.get(vaddr >> 12) or self._load(vaddr)
            part = data[vaddr - start : vaddr - start + size]
            parts.append(part)
            vaddr += len(part)
            size -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def window(self, vaddr: int) -> tuple[int, bytes]:
        """Return (address, bytes) of a piece that holds `vaddr`. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        return self._pages.get(vaddr >> 12) or self._load(vaddr)

    def u16(self, vaddr: int) -> int:
        """Return the half word at an address. Raises `Death`, `Unknown`."""
        value: int = _U16.unpack(self.read(vaddr, 2))[0]
        return value

    def u32(self, vaddr: int) -> int:
        """Return the word at an address. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        start, data = self._pages.get(vaddr >> 12) or self._load(vaddr)
        at = vaddr - start
        value: int = _U32.unpack_from(data, at)[0] if at + 4 <= len(data) else _U32.unpack(self.read(vaddr, 4))[0]
        return value

    def u64(self, vaddr: int) -> int:
        """Return the long word at an address. Raises `Death`, `Unknown`."""
        value: int = _U64.unpack(self.read(vaddr, 8))[0]
        return value

    def text(self, vaddr: int) -> bytes:
        """Return the string at an address. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        parts, have = [], 0
        while have <= _LONGEST:
            start, data = self._pages.get(vaddr >> 12) or self._load(vaddr)
            end = data.find(b"\0", vaddr - start)
            part = data[vaddr - start : end if end >= 0 else len(data)]
            parts.append(part)
            if end >= 0:
                self._texts += len(part)
                return parts[0] if len(parts) == 1 else b"".join(parts)
            vaddr += len(part)
            have += len(part)
            self._texts += len(part)
            if self._texts > _ALL_NAMES:
                raise Unknown(f"what names of more than {_ALL_NAMES} bytes in {self.path} lead to", self.stage)
        raise Unknown(f"what a name of more than {_LONGEST} bytes in {self.path} leads to", self.stage)

    def _load(self, vaddr: int) -> tuple[int, bytes]:
        """Read the piece around an address and keep it, page by page."""
        region = self._region(vaddr)
        if region is None:
            raise self._astray(vaddr, "reads")
        low, high, offset, flags = region
        if flags & 7 == PF_X:
            what = f"whether this processor lets a segment be read that may only be executed, as {self.path} has one"
            raise Unknown(what, self.stage)
        if not flags & (PF_R | PF_W):
            raise self.killed(SIGSEGV, f"it is read at {vaddr:#x}, which is not readable")
        start = max(vaddr & -_WINDOW, low)
        end = min((vaddr & -_WINDOW) + _WINDOW, high)
        if offset < 0:
            found = (start, bytes(end - start))
        else:
            last = self._view.size + -self._view.size % self._page
            if offset + (vaddr & -self._page) - low >= last:
                raise self.killed(SIGBUS, f"it is read at {vaddr:#x}, but the file ends before")
            end = min(end, low + last - offset)
            data = self._view.some(offset + start - low, end - start)
            data += bytes(end - start - len(data))  # the kernel fills the last page with zeros
            for cleared in self._zeros:
                at, behind = max(cleared[0], start), min(cleared[1], end)
                if at < behind:
                    data = data[: at - start] + bytes(behind - at) + data[behind - start :]
            found = (start, data)
        for page in range(start >> 12, end + 0xFFF >> 12):
            self._pages[page] = found
        return found

    def _region(self, vaddr: int) -> tuple[int, int, int, int] | None:
        return next((one for one in self._regions if one[0] <= vaddr < one[1]), None)

    def _astray(self, vaddr: int, verb: str) -> Death | Unknown:
        low, high = self.span
        distance = low - vaddr if vaddr < low else vaddr - high
        if low <= vaddr < high or 0 <= distance < NEAR:
            return Unknown(
                f"what lies in the process at {vaddr:#x} of {self.path}, where the loader {verb}", self.stage
            )
        return self.killed(SIGSEGV, f"the loader {verb} at {vaddr:#x}, where nothing is mapped")

    # -- writing -------------------------------------------------------------------------------------------------

    def write(self, vaddr: int, size: int) -> None:
        """Take note that `size` bytes are written. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        page = vaddr >> 12
        if page in self._sure and (vaddr & 0xFFF) + size <= 0x1000:
            return
        for at in range(vaddr & -0x1000, vaddr + size, 0x1000):
            if at >> 12 in self._sure:
                continue
            region = self._region(at)
            if region is None:
                raise self._astray(max(at, vaddr), "writes")
            low, _, offset, flags = region
            if not flags & PF_W:
                raise self.killed(SIGSEGV, f"it is written to at {max(at, vaddr):#x}, which is not writable")
            if offset >= 0 and offset + at - low >= self._view.size + -self._view.size % self._page:
                raise self.killed(SIGBUS, f"it is written to at {max(at, vaddr):#x}, but the file ends before")
            self._sure.add(at >> 12)

    def clear(self, vaddr: int, size: int) -> None:
        """Fill `size` bytes with zeros. Raises `Death`, `Unknown`."""
        vaddr = signed(vaddr)
        self.write(vaddr, size)
        if size:
            self._zeros.append((vaddr, vaddr + size))
            self._pages.clear()

    def killed(self, signal: int, what: str) -> Death:
        """Return the end of a process that a signal kills while it works on this object."""
        name = {SIGSEGV: "SIGSEGV", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE"}[signal]
        because = f"{self.path}: {what}: the process is killed by {name}"
        return Death("signal", self.stage, because, None, -signal, self.path)
