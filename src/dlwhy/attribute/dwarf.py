"""What debug information (DWARF 2 to 5) tells of variables: what is inside a big one, and where each is declared.

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
from bisect import bisect_right
from functools import partial

from dlwhy.attribute.declarations import agrees, declaration_of
from dlwhy.attribute.type_chain import Part, chain_of
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import IO, Any

    from dlwhy.attribute.declarations import Declaration
    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.ledger import Variable
    from dlwhy.elf.file import Elf, Section
    from dlwhy.view import View

MISSING = "what is inside the big variables its debug information would tell: pip install pyelftools"
VERSIONS = range(2, 6)
"""Of DWARF units that are read."""
_MOST = 8
"""Variables looked into, the largest first."""
_MOST_DECLARED = 64
"""Variables whose declarations are looked up, the largest first."""
_LARGEST = 256 << 20
"""Bytes of .debug_info that are read."""
_BEFORE = 160
"""Bytes before a location in which its DIE begins."""
_CALLS = 4_000_000
"""Calls that reading may take, some seconds: an honest file of 5 MB takes a thirtieth of that."""
_COMPRESSED = 0x800
"""SHF_COMPRESSED."""
_LONGEST = 400
"""Characters of what pyelftools says is wrong."""
_PIECE = 1 << 22
_HITS = 64
"""Places that are looked at for one variable."""
_TLS_ADDRESS = (0x9B, 0xE0)
"""DW_OP_form_tls_address, DW_OP_GNU_push_tls_address."""


class Insides(Record):
    """What debug information tells of some variables."""

    parts: dict[int, tuple[Part, ...]]
    """Offset in the segment -> the chain; only where it has two steps or more."""
    declared: dict[int, Declaration]
    """Offset in the segment -> where the source declares the variable."""
    note: str | None
    """Why it tells nothing, where it might have."""
    unknown: str | None = None
    """What is of a version that is not known."""


NOTHING = Insides({}, {}, None)


def insides(elf: Elf, evidence: Evidence, wanted: Sequence[Variable], least: int) -> Insides:
    """Return where the largest of `wanted`, which symbols name, are declared, and of big ones what is inside.

    Big ones have `least` bytes or more. Damaged debug information costs both.
    """
    known = sorted(wanted, key=lambda one: -one.size)[:_MOST_DECLARED]
    large = [one for one in known[:_MOST] if one.size >= least]
    for holder in (elf, *(one.elf for one in evidence.companions)):
        section = next((one for one in holder.sections if one.name == ".debug_info"), None)
        if section is None or not section.size or section.type == 8:
            continue
        if section.size > _LARGEST:
            return NOTHING.but(note=f"debug information of {section.size} bytes is not read" if large else None)
        split = any(one.name == ".debug_addr" for one in holder.sections)  # then perhaps the variables are elsewhere
        told = bool(section.flags & _COMPRESSED) or _mentioned(holder, section, known)
        if not told and not (split and large):
            continue
        try:
            from elftools.elf.elffile import ELFFile
        except ImportError:
            return NOTHING.but(note=MISSING if large and told and _mentioned(holder, section, large) else None)
        try:
            return _bounded(partial(_read, ELFFile, holder, known, large))
        except ElfError as error:
            return NOTHING.but(note=f"debug information is not read: {error}")
        except Exception as error:  # noqa: BLE001 -- of a library that raises what it likes on damaged bytes
            return NOTHING.but(note=_unread(holder, error))
    return NOTHING


def _unread(holder: Elf, error: Exception) -> str:
    words = f"debug information is not read: {holder.path}: {type(error).__name__} {error}"
    return " ".join(words.split())[:_LONGEST]


def _mentioned(holder: Elf, section: Section, wanted: Sequence[Variable]) -> bool:
    """Whether the location of any of the variables stands in a section: compiled code may bring line tables only."""
    if section.flags & _COMPRESSED:
        return True
    pattern = _locations(wanted, holder.little)
    return any(
        pattern.search(holder.view.some(section.offset + at, min(_PIECE + 16, section.size - at)))
        for at in range(0, section.size, _PIECE)
    )


def _locations(wanted: Sequence[Variable], little: bool) -> re.Pattern[bytes]:
    """Match the location of any variable, DW_OP_const8u, of 32-bit files const4u (DWARF 5, 2.5.1.1): its offset."""
    order = "little" if little else "big"
    eight = b"|".join(re.escape(one.offset.to_bytes(8, order)) for one in wanted)  # type: ignore[arg-type]
    small = [one.offset.to_bytes(4, order) for one in wanted if one.offset < 1 << 32]  # type: ignore[arg-type]
    four = b"|".join(map(re.escape, small))
    short = rb"|\x0c(" + four + rb")" if four else b""
    return re.compile(rb"(?:\x0e(" + eight + rb")" + short + rb")[\x9b\xe0]", re.DOTALL)


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


def _read(reader: Any, holder: Elf, known: Sequence[Variable], large: Sequence[Variable]) -> Insides:
    file = reader(_stream(holder.view))
    dwarf = file.get_dwarf_info(relocate_dwarf_sections=False, follow_links=False)
    data: bytes = dwarf.debug_info_sec.stream.getvalue()
    units = _units(data, holder.little)
    places = _places(data, known, holder.little)
    parts: dict[int, tuple[Part, ...]] = {}
    declared: dict[int, Declaration] = {}
    note = None
    for one in known:
        try:
            found = (die for die in _variables(dwarf, units, places.get(one.offset, ())) if agrees(die, one.name))
            die = next(found, None)
            chain = chain_of(die) if die is not None and one in large else ()
            if len(chain) > 1:
                parts[one.offset] = chain
            place = declaration_of(dwarf, die) if die is not None else None
            if place is not None:
                declared[one.offset] = place
        except ElfError:
            raise
        except Exception as error:  # noqa: BLE001 -- as above; it costs this variable's only
            note = note or _unread(holder, error)
    if large and not (parts or declared or note):
        note = _why_nothing(dwarf, holder)
    return Insides(parts, declared, note, _unknown(units, holder))


def _why_nothing(dwarf: Any, holder: Elf) -> str | None:
    """Whether the debug information itself is elsewhere."""
    names = {one.name for one in holder.sections}
    if any(name.startswith(".debug_") and "_dwo" in name for name in names) or ".debug_addr" in names:
        first = next(dwarf.iter_CUs(), None)
        top = first.get_top_DIE() if first is not None else None
        if top is not None and any(key in top.attributes for key in ("DW_AT_dwo_name", "DW_AT_GNU_dwo_name")):
            return "debug information is split off into .dwo files, which are not read"
    return None


def _unknown(units: Sequence[tuple[int, int, int]], holder: Elf) -> str | None:
    """Tell of units whose version is none that is read here."""
    numbers = sorted({version for _, _, version in units if version not in VERSIONS})
    if not numbers:
        return None
    count = sum(version not in VERSIONS for _, _, version in units)
    listed = ", ".join(map(str, numbers[:4])) + (", ..." if len(numbers) > 4 else "")
    has = "has" if count == 1 else "have"
    return (
        f"debug information of {holder.path}: {count} of {len(units)} units {has} version {listed}, and what is read "
        f"is {VERSIONS[0]} to {VERSIONS[-1]}"
    )


def _places(data: bytes, wanted: Sequence[Variable], little: bool) -> dict[int, list[int]]:
    """Return offset in the segment -> where a location has it, the first ones."""
    result: dict[int, list[int]] = {}
    for hit in _locations(wanted, little).finditer(data):
        offset = int.from_bytes(hit[hit.lastindex or 1], "little" if little else "big")
        places = result.setdefault(offset, [])
        if len(places) < _HITS:
            places.append(hit.start())
    return result


def _variables(dwarf: Any, units: Sequence[tuple[int, int, int]], places: Iterable[int]) -> Iterator[Any]:
    """Yield the DIEs whose location stands at one of `places`."""
    for place in places:
        index = bisect_right(units, place, key=lambda one: one[0]) - 1
        if index < 0 or not units[index][0] <= place < units[index][1] or units[index][2] not in VERSIONS:
            continue
        die = _die_before(dwarf, dwarf.get_CU_at(units[index][0]), place)
        if die is not None:
            yield die


def _units(data: bytes, little: bool) -> list[tuple[int, int, int]]:
    """Return (start, end, version) of the units, which stand one behind the other, each with its length (7.5.1)."""
    order: Any = "little" if little else "big"
    result = []
    at = 0
    while at + 6 <= len(data):
        length, head = int.from_bytes(data[at : at + 4], order), 4
        if length == 0xFFFFFFFF:
            length, head = int.from_bytes(data[at + 4 : at + 12], order), 12
        if length == 0:
            break
        end = at + head + length
        result.append((at, end, int.from_bytes(data[at + head : at + head + 2], order)))
        at = end
    return result


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
            value = location.value if location is not None else None
            if value and isinstance(value, list) and value[-1] in _TLS_ADDRESS:
                return die
    return None
