"""Elf: one object's header, segments and what hangs from them, each decoded when it is first asked for.

What the loader uses is found as the loader finds it: through program headers and addresses, never through section
headers. Section headers serve attribution only, and may be missing.
"""

from __future__ import annotations

from dlwhy.elf.constants import PT_DYNAMIC, PT_GNU_STACK, PT_INTERP, PT_LOAD, PT_TLS
from dlwhy.elf.dynamic import Dynamic
from dlwhy.elf.machine import Machine, machine
from dlwhy.elf.records import LAYOUTS, Layout, layout
from dlwhy.elf.versions import Versions
from dlwhy.errors import ElfError, OutOfBounds, TooLarge, Unmapped
from dlwhy.record import Record
from dlwhy.view import LARGEST_READ

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.symbols import DynamicSymbols
    from dlwhy.view import View

_USUAL_PAGE = 4096
_MAX_SECTIONS = 1 << 18
_MAX_SECTION_NAME = 256


class Segment(Record):
    """One program header (gABI ch. 5), fields as in the file; sizes in bytes."""

    type: int
    flags: int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    align: int


class Section(Record):
    """One section header (gABI ch. 4)."""

    name: str
    type: int
    flags: int
    addr: int
    offset: int
    size: int
    link: int
    info: int
    addralign: int
    entsize: int


class TlsSegment(Record):
    """The initialisation image of one object's thread-local storage: PT_TLS (gABI ch. 5)."""

    vaddr: int
    filesz: int
    memsz: int
    """Bytes every thread gets; the last `memsz - filesz` start as zero (.tbss)."""
    align: int
    offset: int

    @property
    def first_byte(self) -> int:
        """vaddr mod align: where in its alignment the block must start (l_tls_firstbyte_offset)."""
        return self.vaddr & (self.align - 1) if self.align else 0


def _what_else(view: View) -> str:
    """What a thing without the ELF magic is."""
    head = view.head
    if not head and not view.regular:
        return "cannot be read (is it a directory?)" if view.read_errno else "no regular file, so it is not read"
    if len(head) < 4:
        return "too short for an ELF file"
    if head[:8] == b"!<arch>\n":
        return "a static library, not an ELF file"
    if any(word in head[:1024] for word in (b"OUTPUT_FORMAT", b"GROUP (", b"GROUP(", b"INPUT (", b"INPUT(")):
        return "a linker script, not an ELF file: ld reads such, ld.so does not"
    return "not an ELF file"


class Elf:
    """One ELF file. Immutable to its users; tables are decoded on first use and kept."""

    __slots__ = (
        "_dynamic", "_dynamic_row", "_interp_row", "_loads", "_phdrs", "_sections", "_shdrs", "_stack", "_symbols",
        "_tls", "_versions", "class_", "data", "entry", "flags", "layout", "machine", "path", "phentsize", "phnum",
        "phoff", "shentsize", "shnum", "shoff", "shstrndx", "type", "version", "view",
    )  # fmt: skip

    def __init__(self, view: View) -> None:
        """Decode the header. Raises `ElfError` when these bytes are no ELF header."""
        head = view.head
        self.view = view
        self.path = view.path
        if head[:4] != b"\x7fELF":
            raise ElfError(view.path, -1, _what_else(view))
        if len(head) < 16 or head[4] not in (1, 2) or head[5] not in (1, 2):
            raise ElfError(view.path, 4, "EI_CLASS and EI_DATA must be 1 or 2 (gABI ch. 4)")
        self.class_ = head[4]
        self.data = head[5]
        self.layout: Layout = LAYOUTS.get((head[4], head[5])) or layout(head[4], head[5])
        if len(head) < self.layout.ehdr_size:
            raise OutOfBounds(view.path, 0, f"the file ends at {len(head):#x}, inside the ELF header")
        (self.type, self.machine, self.version, self.entry, self.phoff, self.shoff, self.flags, _, self.phentsize,
         self.phnum, self.shentsize, self.shnum, self.shstrndx) = self.layout.ehdr.unpack_from(head, 16)  # fmt: skip
        self._phdrs: list[tuple[int, ...]] | None = None
        self._tls: TlsSegment | bool | None = False
        self._stack: int | bool | None = False
        self._dynamic: Dynamic | bool | None = False
        self._symbols: DynamicSymbols | None = None
        self._versions: Versions | None = None
        self._shdrs: bytes | None = None
        self._sections: tuple[Section, ...] | None = None

    @property
    def ident(self) -> bytes:
        """e_ident."""
        return self.view.head[:16]

    @property
    def little(self) -> bool:
        """Whether the byte order is little endian."""
        return self.data == 1

    @property
    def row(self) -> Machine | None:
        """The machine's row, or None for a machine without one."""
        return machine(self.machine, self.class_)

    @property
    def page(self) -> int:
        """Bytes of a page, as the common kernels of the machine have them."""
        row = self.row
        return row.page if row is not None else _USUAL_PAGE

    @property
    def phdrs(self) -> list[tuple[int, ...]]:
        """Program headers as tuples in the order of `Segment`. Raises `ElfError` when they leave the file."""
        found = self._phdrs
        return self._read_phdrs() if found is None else found

    def _read_phdrs(self) -> list[tuple[int, ...]]:
        """Read the program headers and sort out those that nearly every question asks for."""
        lay = self.layout
        rows: list[tuple[int, ...]] = []
        if self.phnum:
            if self.phentsize != lay.phdr_size:
                rule = f"e_phentsize is {self.phentsize}, must be {lay.phdr_size} (gABI ch. 4)"
                raise ElfError(self.path, 54 if lay.is64 else 42, rule)
            raw = lay.phdr.iter_unpack(self.view.read(self.phoff, self.phnum * lay.phdr_size))
            rows = list(raw) if lay.is64 else [(t, fl, o, v, p, fs, ms, al) for t, o, v, p, fs, ms, fl, al in raw]
        self._loads: list[tuple[int, ...]] = []
        self._dynamic_row: tuple[int, ...] | None = None
        self._interp_row: tuple[int, ...] | None = None
        for row in rows:
            kind = row[0]
            if kind > PT_INTERP:  # most are
                continue
            if kind == PT_LOAD:
                self._loads.append(row)
            elif kind == PT_DYNAMIC:
                if row[5]:
                    self._dynamic_row = row
            elif kind == PT_INTERP and self._interp_row is None:
                self._interp_row = row
        self._phdrs = rows
        return rows

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The program headers as records."""
        return tuple(Segment(*row) for row in self.phdrs)

    @property
    def loads(self) -> list[tuple[int, ...]]:
        """The PT_LOAD headers, in file order."""
        if self._phdrs is None:
            self._read_phdrs()
        return self._loads

    @property
    def tls(self) -> TlsSegment | None:
        """The PT_TLS that the loader takes: the last one that is not empty (elf/dl-load.c)."""
        if self._tls is False:
            self._tls = None
            for row in self.phdrs:
                if row[0] == PT_TLS and row[6]:
                    self._tls = TlsSegment(row[3], row[5], row[6], row[7], row[2])
        return self._tls  # type: ignore[return-value]

    @property
    def stack_flags(self) -> int | None:
        """The p_flags of the last PT_GNU_STACK; None without."""
        if self._stack is False:
            self._stack = None
            for row in self.phdrs:
                if row[0] == PT_GNU_STACK:
                    self._stack = row[1]
        return self._stack

    @property
    def interp(self) -> str | None:
        """The program interpreter, as written. None without PT_INTERP; `ElfError` when it leaves the file."""
        if self._phdrs is None:
            self._read_phdrs()
        row = self._interp_row
        if row is None:
            return None
        if row[5] > 4096:
            raise ElfError(self.path, row[2], f"PT_INTERP of {row[5]} bytes; the kernel takes at most 4096")
        return self.view.read(row[2], row[5]).split(b"\0")[0].decode("utf-8", "surrogateescape")

    @property
    def debug_only(self) -> bool:
        """Whether this is a separate debug file: its PT_DYNAMIC has memory size but no bytes in the file."""
        return any(row[0] == PT_DYNAMIC and row[5] == 0 and row[6] > 0 for row in self.phdrs) or (
            bool(self.loads) and all(row[5] == 0 for row in self.loads if row[6])
        )

    # -- bytes by address ----------------------------------------------------------------------------------------

    def offset_of(self, vaddr: int) -> int | None:
        """Return the file offset behind an address, or None when no bytes of the file lie there."""
        for row in self.loads:
            if row[3] <= vaddr < row[3] + row[5]:
                return vaddr - row[3] + row[2]
        return None

    def at(self, vaddr: int, size: int) -> bytes:
        """Return `size` bytes of the mapped object at `vaddr`, zeros where a segment has no bytes in the file.

        Raises `OutOfBounds` where the file ends before the page (the process would get SIGBUS), `ElfError` where
        nothing is mapped (SIGSEGV), and `TooLarge`.
        """
        for row in self.loads:
            start = row[3]
            if start <= vaddr < start + row[6] or start <= vaddr < start + row[5]:
                have = start + row[5] - vaddr
                offset = vaddr - start + row[2]
                if size <= have:
                    view = self.view
                    return view.read(offset, size) if offset + size <= view.size else self._bytes(offset, size)
                end = max(row[5], row[6])
                end = start + end + (-(start + end) % self.page)
                if size > LARGEST_READ:
                    break
                if vaddr + size <= end:
                    if have <= 0:
                        return bytes(size)
                    return self._bytes(offset, have) + bytes(size - have)
                break
        if vaddr >> 8 * self.layout.word_size > 0:  # a sum that wraps round
            return self.at(vaddr & (1 << 8 * self.layout.word_size) - 1, size)
        if size > LARGEST_READ:
            raise TooLarge(self.path, -1, f"one table of {size} bytes, where dlwhy reads at most {LARGEST_READ}")
        for row in self.loads:  # the rest of a segment's first and last page is mapped too
            start = row[3] & -self.page
            end = row[3] + row[5] + (-(row[3] + row[5]) % self.page)
            if start <= vaddr and vaddr + size <= end:
                return self._bytes(vaddr - row[3] + row[2], size)
        if self.loads and self.loads[0][3] <= vaddr < self.loads[-1][3]:  # perhaps it goes on in the next segment
            data = self.mapped(vaddr, size)
            if len(data) == size:
                return data
        raise self.unmapped(vaddr, size, f"address {vaddr:#x} (+{size}) lies in no PT_LOAD segment")

    def unmapped(self, vaddr: int, size: int, rule: str) -> Unmapped:
        """Return what to raise for a read of `size` bytes at `vaddr` that leaves what is mapped."""
        loads = self.loads
        if not loads:
            return Unmapped(self.path, rule, 1 << 64)
        low, high = loads[0][3] & -self.page, loads[-1][3] + loads[-1][6]
        high += -high % self.page
        whole = 1 << 8 * self.layout.word_size  # addresses wrap round: a large one may lie just before the object
        beside = 0 if low <= vaddr < high else min((vaddr - high) % whole, (low - vaddr) % whole)
        return Unmapped(self.path, rule, max(beside, 1 if vaddr + size > high else 0))

    def _bytes(self, offset: int, size: int) -> bytes:
        view = self.view
        end = offset + size
        if end <= view.size:
            return view.read(offset, size)
        if end <= view.size + (-view.size % self.page) and offset >= 0:
            part = view.some(offset, size)
            return part + bytes(size - len(part))  # the kernel fills the last page with zeros
        raise OutOfBounds(view.path, offset, f"{size} bytes are mapped from here, but the file ends at {view.size:#x}")

    def around(self, vaddr: int, limit: int) -> bytes:
        """Return up to `limit` bytes of the mapped object from `vaddr` on: a window to parse in.

        Short where the mapping of the file ends; of the zeros that a segment has in memory only, one page at most.
        """
        if self._phdrs is None:
            self._read_phdrs()
        for row in self._loads:
            start = row[3]
            if start <= vaddr < start + row[5]:
                have = start + row[5] - vaddr
                data = self.view.some(vaddr - start + row[2], min(limit, have))
                return data if len(data) == limit else data + self._behind(row, vaddr + len(data), limit - len(data))
        for row in self.loads:
            if row[3] & -self.page <= vaddr < row[3]:  # the rest of a segment's first page is mapped too
                return self.view.some(vaddr - row[3] + row[2], min(limit, row[3] + row[5] - vaddr))
            end = row[3] + max(row[5], row[6])
            if row[3] <= vaddr < end + -end % self.page:
                return self._behind(row, vaddr, limit)
        if vaddr >> 8 * self.layout.word_size > 0:  # a sum that wraps round
            return self.around(vaddr & (1 << 8 * self.layout.word_size) - 1, limit)
        return b""

    def mapped(self, vaddr: int, size: int) -> bytes:
        """Return up to `size` bytes from `vaddr` on, across segments, to where nothing of the object is mapped."""
        windows, have = [], 0
        while have < size and (window := self.around(vaddr + have, size - have)):
            windows.append(window)
            have += len(window)
        return b"".join(windows)

    def _behind(self, row: tuple[int, ...], vaddr: int, limit: int) -> bytes:
        """Up to `limit` bytes, and to the end of a page, of a segment from where it has no bytes of its own."""
        end, view = row[3] + row[5], self.view
        rest = min(limit, -vaddr % self.page or self.page)
        offset = vaddr - row[3] + row[2]
        if vaddr < end:  # the file ends early: the kernel fills its last page with zeros
            return bytes(min(limit, -offset % self.page)) if offset <= view.size + -view.size % self.page else b""
        if row[6] > row[5]:
            # What is cleared ends with the segment; what else of the page comes from the file stays there.
            cleared = row[3] + row[6] - vaddr
            if cleared >= rest or vaddr >= end + -end % self.page or row[3] + row[6] > end + -end % self.page:
                return bytes(rest)
            cleared = max(cleared, 0)
            tail = view.some(offset + cleared, rest - cleared)
            return bytes(cleared) + tail + bytes(rest - cleared - len(tail))
        return view.some(offset, min(limit, -vaddr % self.page)) if vaddr - end < self.page else b""

    def close(self) -> None:
        """Give the descriptor and the decoded tables back; both come again when they are asked for."""
        self._dynamic, self._symbols, self._versions = False, None, None  # they and this object hold one another
        self.view.close()

    # -- what hangs from the program headers ---------------------------------------------------------------------

    @property
    def dynamic(self) -> Dynamic | None:
        """The dynamic section, found through PT_DYNAMIC; None when there is none with bytes in the file."""
        if self._dynamic is False:
            if self._phdrs is None:
                self._read_phdrs()
            row = self._dynamic_row
            self._dynamic = Dynamic(self, row[3], row[2], row[5]) if row else None
        return self._dynamic  # type: ignore[return-value]

    @property
    def symbols(self) -> DynamicSymbols:
        """The dynamic symbol table (empty when there is none)."""
        if self._symbols is None:
            from dlwhy.elf.symbols import DynamicSymbols

            self._symbols = DynamicSymbols(self)
        return self._symbols

    @property
    def versions(self) -> Versions:
        """Version needs, definitions and the version of each dynamic symbol."""
        if self._versions is None:
            self._versions = Versions(self)
        return self._versions

    # -- sections: for attribution only --------------------------------------------------------------------------

    @property
    def sections(self) -> tuple[Section, ...]:
        """The section headers; empty when there are none or when they lie outside the file."""
        if self._sections is None:
            rows = list(self.layout.shdr.iter_unpack(self._section_headers()))
            names = self._section_names(rows)
            result = []
            for row in rows:
                end = names.find(b"\0", row[0], row[0] + _MAX_SECTION_NAME)
                name = names[row[0] : end].decode("utf-8", "surrogateescape") if end >= 0 else ""
                result.append(Section(name, *row[1:]))
            self._sections = tuple(result)
        return self._sections

    def section_of_type(self, kind: int) -> tuple[Section, Section | None] | None:
        """Return the first section of a type (below 256) and the one that its sh_link names, both without their names.

        None when there is none. Costs no look at the other sections.
        """
        raw, shdr = self._section_headers(), self.layout.shdr
        size = shdr.size
        column = raw[4 if self.little else 7 :: size]
        index = column.find(kind)
        while index >= 0:
            row = shdr.unpack_from(raw, index * size)
            if row[1] == kind:
                link = row[6] * size
                linked = Section("", *shdr.unpack_from(raw, link)[1:]) if link < len(raw) else None
                return Section("", *row[1:]), linked
            index = column.find(kind, index + 1)
        return None

    def _section_headers(self) -> bytes:
        """The section headers as they stand in the file."""
        if self._shdrs is None:
            try:
                self._shdrs = self._read_section_headers()
            except ElfError:
                self._shdrs = b""
        return self._shdrs

    def _read_section_headers(self) -> bytes:
        shdr, count = self.layout.shdr, self.shnum
        if not self.shoff or self.shentsize != shdr.size:
            return b""
        if count == 0:
            count = shdr.unpack(self.view.read(self.shoff, shdr.size))[5]  # gABI ch. 4: it is in sh_size of section 0
        if count > _MAX_SECTIONS or count * shdr.size > self.view.size:
            return b""
        return self.view.read(self.shoff, count * shdr.size)

    def _section_names(self, rows: list[tuple[int, ...]]) -> bytes:
        index = self.shstrndx
        if index == 0xFFFF and rows:
            index = rows[0][6]  # gABI ch. 4: it is in sh_link of section 0
        return self.view.some(rows[index][4], min(rows[index][5], 1 << 24)) if index < len(rows) else b""


def read(view: View) -> Elf:
    """Return the ELF file in `view`. Raises `ElfError` when its header is none."""
    return Elf(view)
