"""Where the pages of a mapped object come from, and what happens to whoever touches them.

The loader maps the first segment over the whole range of the object and the others on top of it (glibc
elf/dl-map-segments.h, _dl_map_segments). A page of a file mapping that begins behind the end of the file is there, but
to touch it is SIGBUS; a page without the permission, or without any mapping, is SIGSEGV.
"""

from __future__ import annotations

from itertools import pairwise

from dlwhy.elf.constants import DF_TEXTREL, DT_TEXTREL, PF_W, PF_X
from dlwhy.loader.faults import NEAR, Death, Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf

SIGSEGV, SIGBUS = 11, 7


class Image:
    """The mapping of one shared object, by addresses as linked."""

    __slots__ = ("_elf", "_end", "_high", "_low", "_page", "_regions", "_spans", "_textrel")

    def __init__(self, elf: Elf, page: int) -> None:
        self._elf = elf
        self._page = page
        self._end = elf.view.size + -elf.view.size % page
        self._spans: list[tuple[int, int]] | None = None
        dynamic = elf.dynamic
        self._textrel = dynamic is not None and (DT_TEXTREL in dynamic.tags or bool(dynamic.flags & DF_TEXTREL))
        # (start, end, file offset of the start or -1 for zeros, flags) in the order of mapping: the last one counts
        self._regions: list[tuple[int, int, int, int]] = []
        loads = elf.loads
        self._low = loads[0][3] & -page
        self._high = loads[-1][3] + loads[-1][6]
        self._high += -self._high % page
        holes = False
        before = -1
        for place, (_, flags, offset, vaddr, _, filesz, memsz, _) in enumerate(loads):
            start, data_end, end = vaddr & -page, vaddr + filesz, vaddr + memsz
            map_end = data_end + -data_end % page
            holes |= place > 0 and before != start
            before = map_end
            self._regions.append((start, self._high if place == 0 else map_end, (offset & -page), flags))
            if end > data_end:
                self._regions.append((map_end, end + -end % page, -1, flags))
        if holes:
            hole = (loads[0][3] + loads[0][5] + page - 1 & -page, loads[-1][3] & -page, -1, 0)
            self._regions.insert(2 if self._regions[1:2] and self._regions[1][2] == -1 else 1, hole)

    def spans(self) -> list[tuple[int, int]]:
        """Return (start, end) ranges that are surely writable: all of an ordinary object's data segments."""
        if self._spans is None:
            self._spans = []
            if not self._textrel:
                for start, end, offset, flags in self._regions[1:]:
                    if flags & PF_W and (offset < 0 or offset + end - start <= self._end):
                        if self._spans and self._spans[-1][1] == start:
                            self._spans[-1] = (self._spans[-1][0], end)
                        else:
                            self._spans.append((start, end))
                if self._crosses():
                    self._spans = []
        return self._spans

    def _crosses(self) -> bool:
        """Whether a later mapping covers an earlier one: then no range is sure by itself."""
        ordered = [one for one in self._regions[1:] if one[3] or one[2] >= 0]
        return any(one[1] > two[0] for one, two in pairwise(ordered))

    def writable(self, low: int, high: int) -> bool:
        """Whether all that lies between is surely writable, without a look at each page."""
        return any(start <= low and high <= end for start, end in self.spans())

    def touch(self, vaddr: int, size: int, write: bool, why: str, stage: str) -> None:
        """Touch `size` bytes at `vaddr`. Raises `Death` for a page that kills, `Unknown` for one of another object."""
        page, path = self._page, self._elf.path
        for at in range(vaddr & -page, vaddr + size, page):
            region = next((one for one in reversed(self._regions) if one[0] <= at < one[1]), None)
            if region is None:
                distance = self._low - at if at < self._low else at - self._high
                if 0 <= distance < NEAR:
                    raise Unknown(f"what lies in the process {distance} bytes beside {path}, where {why}", stage)
                raise self._killed(SIGSEGV, f"{why} at {at:#x}, where nothing is mapped", stage)
            start, _, offset, flags = region
            if flags & 7 == PF_X and not write:
                what = f"whether this processor lets a segment be read that may only be executed, as {path} has one"
                raise Unknown(what, stage)
            if not flags & 7 or (write and not flags & PF_W and not self._textrel):
                lacking = "writable" if flags & 7 else "readable"
                raise self._killed(SIGSEGV, f"{why} at {at:#x}, which is not {lacking}", stage)
            if offset >= 0 and offset + at - start >= self._end:
                raise self._killed(SIGBUS, f"{why} at {at:#x}, but the file ends before", stage)

    def _killed(self, signal: int, what: str, stage: str) -> Death:
        name = "SIGBUS" if signal == SIGBUS else "SIGSEGV"
        path = self._elf.path
        return Death("signal", stage, f"{path}: {what}: the process is killed by {name}", None, -signal, path)
