"""What is inside a big variable: the chain of its largest members, from debug information (DWARF 2 to 5).

`LazyStorage 4232 -> ReseedingRng 4224 -> rand_hc::hc128::Hc128Core 4104 -> t: [u32; 1024] 4096` tells whose type makes
a variable big, when the variable itself is another's.

A thread-local variable's location is one constant, its offset in the segment, and then an operation that turns it into
an address (DWARF 5, 2.5.1.3, DW_OP_form_tls_address; GDB has an older one). Such bytes are searched for first, and only
the unit around them is read: walking all of it takes seconds a megabyte.

Rule 1: a variable is believed only where a symbol has the same offset and name: what the linker dropped keeps its
        debug information, at offset 0.
Rule 2: pyelftools reads the units. It is not needed for anything else, and imported only when a variable is worth it.
"""

from __future__ import annotations

import re
import sys
from functools import partial
from itertools import islice

from dlwhy.attribute.owners import peel
from dlwhy.attribute.type_chain import Part, chain_of, texts
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import IO, Any

    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.ledger import Variable
    from dlwhy.elf.file import Elf, Section
    from dlwhy.view import View

MISSING = "what is inside the big variables its debug information would tell: pip install pyelftools"
_MOST = 8
"""Variables looked into, the largest first."""
_LARGEST = 256 << 20
"""Bytes of .debug_info that are read."""
_BEFORE = 160
"""Bytes before a location in which its DIE begins."""
_CALLS = 4_000_000
"""Calls that reading may take, some seconds: an honest file of 5 MB takes a thirtieth of that."""
_COMPRESSED = 0x800
"""SHF_COMPRESSED."""
_PIECE = 1 << 22
_HITS = 64
"""Places that are looked at for one variable."""
_TLS_ADDRESS = (0x9B, 0xE0)
"""DW_OP_form_tls_address, DW_OP_GNU_push_tls_address."""


class Insides(Record):
    """What debug information tells of some variables."""

    parts: dict[int, tuple[Part, ...]]
    """Offset in the segment -> the chain; only where it has two steps or more."""
    note: str | None
    """Why it tells nothing, where it might have."""


NOTHING = Insides({}, None)


def insides(elf: Elf, evidence: Evidence, wanted: Sequence[Variable]) -> Insides:
    """Return what is inside the largest of `wanted`, which symbols name. Damaged debug information costs the chain."""
    large = sorted(wanted, key=lambda one: -one.size)[:_MOST]
    if not large:
        return NOTHING
    for holder in (elf, *(one.elf for one in evidence.companions)):
        section = next((one for one in holder.sections if one.name == ".debug_info"), None)
        if section is None or not section.size or section.type == 8:
            continue
        if section.size > _LARGEST:
            return Insides({}, f"debug information of {section.size} bytes is not read")
        split = any(one.name == ".debug_addr" for one in holder.sections)  # then perhaps the variables are elsewhere
        told = bool(section.flags & _COMPRESSED) or _mentioned(holder, section, large)
        if not told and not split:
            continue
        try:
            from elftools.elf.elffile import ELFFile
        except ImportError:
            return Insides({}, MISSING if told else None)
        try:
            return _bounded(partial(_read, ELFFile, holder, large))
        except ElfError as error:
            return Insides({}, f"debug information is not read: {error}")
        except Exception as error:  # noqa: BLE001 -- of a library that raises what it likes on damaged bytes
            return Insides({}, f"debug information is not read: {holder.path}: {type(error).__name__} {error}".rstrip())
    return NOTHING


def _mentioned(holder: Elf, section: Section, large: list[Variable]) -> bool:
    """Whether the location of any of the variables stands in a section: compiled code may bring line tables only."""
    order = "little" if holder.little else "big"
    wanted = [re.escape(one) + rb"[\x9b\xe0]" for variable in large for one in _constants(variable.offset, order)]
    pattern = re.compile(b"|".join(wanted), re.DOTALL)
    return any(
        pattern.search(holder.view.some(section.offset + at, min(_PIECE + 16, section.size - at)))
        for at in range(0, section.size, _PIECE)
    )


def _bounded(work: Callable[[], Insides]) -> Insides:
    """Return what `work` does, unless it goes on for too long: on damaged links pyelftools would never end.

    Its calls are counted, which is the same on every machine. Raises `ElfError` then.
    """
    before, count = sys.getprofile(), 0

    def each(*_: object) -> None:
        nonlocal count
        count += 1
        if count > _CALLS:
            raise ElfError("debug information", -1, f"not understood after {_CALLS} steps")

    sys.setprofile(each)
    try:
        return work()
    finally:
        sys.setprofile(before)


class _Stream:
    """A view as pyelftools wants a file."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._view.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = self._view.some(self._at, self._view.size - self._at if size < 0 else size)
        self._at += len(data)
        return data

    def close(self) -> None:
        pass


def _stream(view: View) -> IO[bytes]:
    return _Stream(view)  # type: ignore[return-value]  # all that pyelftools asks of it


def _read(reader: Any, holder: Elf, large: list[Variable]) -> Insides:
    file = reader(_stream(holder.view))
    dwarf = file.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    data: bytes = dwarf.debug_info_sec.stream.getvalue()
    found: dict[int, tuple[Part, ...]] = {}
    for one in large:
        for die in _variables(dwarf, data, one, holder.little):
            if _agrees(die, one.name):
                chain = chain_of(die)
                if len(chain) > 1:
                    found[one.offset] = chain
                break
    return Insides(found, None if found else _why_nothing(dwarf, holder))


def _why_nothing(dwarf: Any, holder: Elf) -> str | None:
    """Whether the debug information itself is elsewhere."""
    names = {one.name for one in holder.sections}
    if any(name.startswith(".debug_") and "_dwo" in name for name in names) or ".debug_addr" in names:
        first = next(dwarf.iter_CUs(), None)
        top = first.get_top_DIE() if first is not None else None
        if top is not None and any(key in top.attributes for key in ("DW_AT_dwo_name", "DW_AT_GNU_dwo_name")):
            return "debug information is split off into .dwo files, which are not read"
    return None


def _variables(dwarf: Any, data: bytes, one: Variable, little: bool) -> Iterator[Any]:
    """Yield the DIEs whose location is the offset of a variable."""
    order = "little" if little else "big"
    for constant in _constants(one.offset, order):
        pattern = re.compile(re.escape(constant) + rb"[\x9b\xe0]", re.DOTALL)
        for hit in islice(pattern.finditer(data), _HITS):
            unit = _unit_at(data, hit.start(), order)
            if unit is None:
                continue
            die = _die_before(dwarf, dwarf.get_CU_at(unit), hit.start())
            if die is not None:
                yield die


def _constants(offset: int, order: Any) -> Iterator[bytes]:
    """Yield how compilers write an offset: DW_OP_const8u, of 32-bit files const4u (DWARF 5, 2.5.1.1)."""
    for code, width in ((0x0E, 8), (0x0C, 4)):
        if offset < 1 << 8 * width:
            yield bytes((code,)) + offset.to_bytes(width, order)


def _unit_at(data: bytes, place: int, order: Any) -> int | None:
    """Return where the unit around `place` begins: units stand one behind the other, each with its length (7.5.1)."""
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at : at + 4], order)
        head = 4
        if length == 0xFFFFFFFF:
            length, head = int.from_bytes(data[at + 4 : at + 12], order), 12
        if length == 0:
            return None
        if place < at + head + length:
            return at if place >= at + head else None
        at += head + length
    return None


def _die_before(dwarf: Any, unit: Any, place: int) -> Any | None:
    """Return the DIE of a variable whose location's operations stand at `place`: a DIE is read from where it begins."""
    first = max(unit.cu_die_offset, place - _BEFORE)
    for start in range(place - 2, first - 1, -1):
        try:
            die = dwarf.get_DIE_from_refaddr(start, unit)
        except ElfError:
            raise
        except Exception:  # noqa: BLE001, S112 -- most places are no beginning of anything
            continue
        if die.tag == "DW_TAG_variable" and start < place < start + die.size:
            location = die.attributes.get("DW_AT_location")
            if location is not None and isinstance(location.value, list) and location.value[-1] in _TLS_ADDRESS:
                return die
    return None


def _agrees(die: Any, symbol: str) -> bool:
    """Whether a DIE has the name of a symbol: its linkage name, or what its author wrote."""
    names = set(texts(die, ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name", "DW_AT_name")))
    return symbol in names or peel(symbol) in names
