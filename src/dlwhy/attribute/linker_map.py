"""Linker maps: which piece of which object file lies where in the TLS segment. GNU ld, gold, lld and mold.

Both families write one line per output section, input section and symbol:

    GNU ld, gold    output section at column 0, input section behind one blank, each NAME 0xADDRESS 0xSIZE [FILE]; a
                    name of 16 characters or more stands on a line of its own; symbols are `0xADDRESS name`, globals
                    only, and gold's are offsets that are not always right: they are not believed
    lld             VMA LMA Size Align Out In Symbol: hexadecimal; input sections are indented by 8 more, symbols by 16,
                    local ones too, and of a TLS symbol VMA is the offset in the segment
    mold            VMA Size Align Out In Symbol: the address with 0x, the size decimal; of a symbol no size

Rule 1: a map is believed only when every section that both it and the file have lies at the same address and has the
same size, and every TLS symbol that both have at the same offset: a map holds no build-id.
Rule 2: a piece is a fact of the link; that `.tbss.NAME` is the variable NAME is what `-fdata-sections` means.
"""

from __future__ import annotations

import re
from bisect import bisect_right

from dlwhy.attribute.ledger import Claims, Variable
from dlwhy.elf.constants import SHF_ALLOC, SHF_TLS
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dlwhy.elf.file import Elf
    from dlwhy.view import View

_CHUNK = 1 << 20
_LONGEST_LINE = 1 << 16
_MOST = 1 << 20
"""Sections, pieces and symbols that are kept."""
_HEX = r"0x([0-9a-f]{1,16})"
_GNU_LINE = re.compile(rf"( ?)(\S+)(?: +{_HEX} +{_HEX}(?: (.+))?)?\Z")
_GNU_REST = re.compile(rf" +{_HEX} +{_HEX}(?: (.+))?\Z")
_LLD_LINE = re.compile(r" *([0-9a-f]+) +[0-9a-f]+ +([0-9a-f]+) +\d+ ( *)(\S.*)\Z")
_MOLD_LINE = re.compile(rf" *{_HEX} +(\d+) +\d+ ( *)(\S.*)\Z")
_LLD_HEAD = re.compile(r" *VMA +LMA +Size +Align +Out +In +Symbol *\Z")
_MOLD_HEAD = re.compile(r" *VMA +Size +Align +Out +In +Symbol *\Z")
_GNU_HEADS = ("Linker script and memory map", "Memory map")
_NAMED = re.compile(r"\.(?:tbss|tdata)\.(.+)|\.gnu\.linkonce\.t[bd]\.(.+)")
_TLS_NAMES = frozenset((".tdata", ".tbss"))
_CODE_NAMES = frozenset((".text", ".init", ".fini"))


class Piece(Record):
    """One input section in the segment."""

    offset: int
    """Bytes from the start of the TLS segment, once `settled`; an address before."""
    size: int
    section: str
    file: str
    """OBJECT, or ARCHIVE(MEMBER), as the linker was given it."""


class Named(Record):
    """One symbol of the map."""

    name: str
    offset: int
    size: int
    """0 when the map tells none."""


class LinkerMap(Record):
    """What a linker map says of the TLS segment."""

    path: str
    linker: str
    """"GNU ld", "gold", "lld" or "mold"."""
    sections: tuple[tuple[str, int, int], ...]
    """Every output section: (name, address, size)."""
    pieces: tuple[Piece, ...]
    symbols: tuple[Named, ...]
    code: tuple[tuple[int, int, str], ...] = ()
    """Input sections of code: (address, size, OBJECT or ARCHIVE(MEMBER)), in the order of the map."""

    def claims(self) -> tuple[Claims, ...]:
        """Return what the map says for the ledger: first its symbols and `.tbss.NAME`s, then whole pieces."""
        source = f"{self.linker} map"
        rest = (Variable(piece.offset, piece.size, "", source, None) for piece in self.pieces)
        return Claims(self._variables(source), False), Claims(tuple(rest), True)

    def files_at(self, addresses: Iterable[int]) -> dict[int, str]:
        """Return address -> object file or archive member, for those of `addresses` that lie in its code."""
        code = sorted(self.code)
        result = {}
        for address in addresses:
            index = bisect_right(code, address, key=lambda piece: piece[0]) - 1
            while index >= 0 and code[index][0] == code[index - 1][0] and not code[index][1]:
                index -= 1
            if index >= 0 and address < code[index][0] + code[index][1]:
                result[address] = code[index][2]
        return result

    def _variables(self, source: str) -> tuple[Variable, ...]:
        found = []
        by_start = {one.offset: one for one in self.symbols}
        starts = sorted(by_start)
        at = 0
        for piece in self.pieces:
            name = section_variable(piece.section)
            if name:
                found.append(Variable(piece.offset, piece.size, name, source, None))
                continue
            end = piece.offset + piece.size
            while at < len(starts) and starts[at] < piece.offset:
                at += 1
            while at < len(starts) and starts[at] < end:
                one = by_start[starts[at]]
                at += 1
                following = starts[at] if at < len(starts) else end
                size = one.size or min(following, end) - one.offset
                found.append(Variable(one.offset, size, one.name, source, None))
        return tuple(found)


def section_variable(section: str) -> str | None:
    """Return the variable that an input section of `-fdata-sections` holds, None for one of a whole object."""
    found = _NAMED.fullmatch(section)
    return (found[1] or found[2]) if found else None


def read_map(
    view: View, tls_sections: frozenset[str] = _TLS_NAMES, code_sections: frozenset[str] = _CODE_NAMES
) -> LinkerMap:
    """Return what the map in `view` says; addresses still as in the map. The sections are output sections' names.

    Raises `ElfError` when it is no map of a known linker, `FilesError`.
    """
    lines = _lines(view)
    for number, line in enumerate(lines):
        if _LLD_HEAD.match(line):
            return _columns(view.path, "lld", lines, tls_sections | _TLS_NAMES, code_sections)
        if _MOLD_HEAD.match(line):
            return _columns(view.path, "mold", lines, tls_sections | _TLS_NAMES, code_sections)
        if line in _GNU_HEADS:
            name = "gold" if line == "Memory map" else "GNU ld"
            return _gnu(view.path, name, lines, tls_sections | _TLS_NAMES, code_sections)
        if number == 0 and "\0" in line:
            break
    raise ElfError(view.path, -1, "no linker map of GNU ld, gold, lld or mold")


def _lines(view: View) -> Iterator[str]:
    """Yield the lines of a text file; what is longer than any honest line is left out."""
    rest = b""
    for offset in range(0, view.size, _CHUNK):
        *whole, rest = (rest + view.read(offset, min(_CHUNK, view.size - offset))).split(b"\n")
        for line in whole:
            if len(line) < _LONGEST_LINE:
                yield line.rstrip(b" \r").decode("utf-8", "surrogateescape")
        rest = rest[:_LONGEST_LINE]
    yield rest.decode("utf-8", "surrogateescape")


def _gnu(
    path: str, linker: str, lines: Iterator[str], wanted: frozenset[str], code_sections: frozenset[str]
) -> LinkerMap:
    sections: list[tuple[str, int, int]] = []
    pieces: list[Piece] = []
    code: list[tuple[int, int, str]] = []
    files: dict[str, str] = {}  # each name is kept once
    inside = coded = False
    pending: tuple[str, str] | None = None
    for line in lines:
        if line.startswith("  ") and pending is None:
            continue
        found = _GNU_REST.match(line) if pending is not None else None
        if found is not None and pending is not None:
            (blank, name), (address, size, file) = pending, found.groups()
        else:
            whole = _GNU_LINE.match(line)
            pending = None
            if whole is None:
                continue
            blank, name, address, size, file = whole.groups()
            if address is None:
                pending = blank, name
                continue
        pending = None
        if len(sections) + len(pieces) > _MOST:
            break
        if not blank:
            sections.append((name, int(address, 16), int(size, 16)))
            inside, coded = name in wanted, name in code_sections
        elif coded and file and not name.startswith("*") and len(code) < _MOST:
            code.append((int(address, 16), int(size, 16), files.setdefault(file, file)))
        elif inside and file and not name.startswith("*"):
            pieces.append(Piece(int(address, 16), int(size, 16), name, file))
    return LinkerMap(path, linker, tuple(sections), tuple(pieces), (), tuple(code))


def _columns(
    path: str, linker: str, lines: Iterator[str], wanted: frozenset[str], code_sections: frozenset[str]
) -> LinkerMap:
    pattern, base = (_LLD_LINE, 16) if linker == "lld" else (_MOLD_LINE, 10)
    sections: list[tuple[str, int, int]] = []
    pieces: list[Piece] = []
    symbols: list[Named] = []
    code: list[tuple[int, int, str]] = []
    files: dict[str, str] = {}  # each name is kept once
    inside = coded = False
    for line in lines:
        found = pattern.match(line)
        if found is None:
            continue
        depth, text = len(found[3]), found[4]
        if depth and not (inside or (coded and depth < 16)):
            continue
        if len(sections) + len(pieces) + len(symbols) > _MOST:
            break
        address, size = int(found[1], 16), int(found[2], base)
        if not depth:
            sections.append((text, address, size))
            inside, coded = text in wanted, text in code_sections
        elif depth < 16:
            file, colon, section = text.rpartition(":(")  # names of sections may have parentheses, but not this
            if coded and colon and len(code) < _MOST:
                code.append((address, size, files.setdefault(file, file)))
            elif inside and colon and section.endswith(")"):
                pieces.append(Piece(address, size, section[:-1], file))
        else:
            symbols.append(Named(text, address, size))
    return LinkerMap(path, linker, tuple(sections), tuple(pieces), tuple(symbols), tuple(code))


def settled(found: LinkerMap, elf: Elf, known: dict[str, int]) -> LinkerMap:
    """Return the map with offsets in the object's TLS segment. `known` are TLS symbols of the object and their offsets.

    Raises `ElfError`, with what differs, when the map is of another link than the object.
    """
    segment = elf.tls
    base = segment.vaddr if segment is not None else 0
    offset = 0 if found.linker == "lld" else base
    symbols = tuple(one.but(offset=one.offset - offset) for one in found.symbols)
    why = _difference(found, elf, symbols, known)
    if why is not None:
        raise ElfError(found.path, -1, f"a linker map of another link than {elf.path}: {why}")
    pieces = sorted((one.but(offset=one.offset - base) for one in found.pieces if one.size), key=lambda one: one.offset)
    size = segment.memsz if segment is not None else 0
    return found.but(pieces=tuple(one for one in pieces if 0 <= one.offset < size), symbols=symbols)


def _difference(found: LinkerMap, elf: Elf, symbols: tuple[Named, ...], known: dict[str, int]) -> str | None:
    """What shows that a map is not of this object; None when nothing does."""
    ours = {one.name: one for one in elf.sections if one.flags & SHF_ALLOC}
    theirs = {name: (address, size) for name, address, size in found.sections}
    if not theirs:
        return "it names no section"
    for name, one in ours.items():
        if name in theirs and theirs[name] != (one.addr, one.size):
            address, size = theirs[name]
            return f"{name} is at {address:#x} with {size} bytes there, here at {one.addr:#x} with {one.size}"
        if name not in theirs and one.flags & SHF_TLS and one.size:
            return f"it has no {name}"
    segment = elf.tls
    if not ours and segment is not None:
        end = max((address + size for name, address, size in found.sections if name in _TLS_NAMES), default=0)
        if not segment.vaddr <= end <= segment.vaddr + segment.memsz:
            return f"its TLS sections end at {end:#x}, the segment here at {segment.vaddr + segment.memsz:#x}"
    for one_ in symbols:
        if known.get(one_.name, one_.offset) != one_.offset:
            return f"{one_.name} is at offset {one_.offset} of the segment there, here at {known[one_.name]}"
    return None
