"""How the code of one object file reaches thread-local variables: from the relocations of what will be loaded."""

from __future__ import annotations

from array import array
from bisect import bisect_right

from dlwhy.attribute.accesses import SHOWN, Access, User
from dlwhy.attribute.object_models import IE, INITIAL_EXEC_NAMES, LD, ORDER
from dlwhy.attribute.owners import FOREIGN, names, owner
from dlwhy.attribute.triggers import Trigger
from dlwhy.elf.constants import (
    SHF_ALLOC,
    SHN_COMMON,
    SHN_UNDEF,
    SHN_XINDEX,
    SHT_REL,
    SHT_RELA,
    SHT_SYMTAB_SHNDX,
    STT_FILE,
    STT_FUNC,
)
from dlwhy.elf.records import NATIVE_LITTLE
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.attribute.ledger import Variable
    from dlwhy.attribute.variables import Variables
    from dlwhy.elf.file import Elf, Section
    from dlwhy.elf.symbols import StaticSymbols

_PIECE = 1 << 19
"""Bytes of a relocation table read at a time, nearly; a multiple of every record's size is taken."""
_KINDS = bytes((kind & 15) in (STT_FUNC, STT_FILE) for kind in range(256))
"""For `translate`: 1 for the st_info of a function or file."""


class Use(Record):
    """Relocations that are alike: of one model to one symbol."""

    number: int
    type: int
    places: tuple[tuple[int, int], ...]
    """(section, offset) of each, of initial-exec only."""


def section_of(elf: Elf, index: int, shndx: int) -> int:
    """Return the section of a symbol: where there are more than 65,279, another table tells (gABI ch. 4)."""
    if shndx != SHN_XINDEX:
        return shndx
    table = next((one for one in elf.sections if one.type == SHT_SYMTAB_SHNDX), None)
    if table is None or index * 4 + 4 > table.size:
        return SHN_UNDEF
    (number,) = elf.layout.u32.unpack(elf.view.read(table.offset + index * 4, 4))
    return int(number)


def uses_of(elf: Elf, models: dict[int, str]) -> dict[tuple[str, int], Use]:
    """Return (model, symbol) -> its relocations, of what will be loaded: debug information has such relocations too."""
    result: dict[tuple[str, int], Use] = {}
    places: dict[tuple[str, int], list[tuple[int, int]]] = {}
    counts: dict[tuple[str, int], list[int]] = {}
    sections = elf.sections
    for table in sections:
        if table.type not in (SHT_REL, SHT_RELA) or table.info >= len(sections):
            continue
        if not models or not sections[table.info].flags & SHF_ALLOC:
            continue
        for offset, kind, symbol in _relocations(elf, table, frozenset(models)):
            key = (models[kind], symbol if models[kind] != LD else 0)
            entry = counts.setdefault(key, [0, kind])
            entry[0] += 1
            if models[kind] == IE:
                places.setdefault(key, []).append((table.info, offset))
    for key, (count, kind) in counts.items():
        result[key] = Use(count, kind, tuple(places.get(key, ())))
    return result


def _relocations(elf: Elf, table: Section, wanted: frozenset[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (offset, type, symbol) of the relocations of a section that are of `wanted` types. Raises `ElfError`."""
    lay = elf.layout
    record = lay.rela if table.type == SHT_RELA else lay.rel
    step = record.size
    piece = _PIECE - _PIECE % step
    end = table.size - table.size % step
    for done in range(0, end, piece):
        data = elf.view.read(table.offset + done, min(piece, end - done))
        types = _types(data, step, lay.is64, elf.little)
        if wanted.isdisjoint(types):
            continue
        for index, kind in enumerate(types):
            if kind in wanted:
                offset, info = record.unpack_from(data, index * step)[:2]
                yield offset, kind, info >> 32 if lay.is64 else info >> 8


def _types(data: bytes, step: int, is64: bool, little: bool) -> bytes | array[int]:
    """Return the type of each relocation in `data`: the low word of r_info, of 32-bit files its low byte."""
    if not is64:
        return data[4 if little else 7 :: step]
    words = array("I", data)
    if little != NATIVE_LITTLE:
        words.byteswap()
    return words[2 if little else 3 :: step // 4]


class Target(Record):
    """What relocations are about."""

    symbol: str | None
    """As written; None for the object's TLS as a whole."""
    aliases: tuple[Variable, ...]
    """The variable, where this object defines it."""
    own: bool
    owner: str | None
    title: str | None = None
    """The variable as a reader knows it."""


def targets_of(
    elf: Elf, symbols: StaticSymbols, uses: dict[tuple[str, int], Use], variables: Variables, starts: dict[int, int]
) -> dict[int, Target]:
    """Return symbol -> what it stands for, of all that are used. Raises `ElfError` for one that is not there."""
    result = {0: Target(None, (), True, None)}
    for _, index in uses:
        if index in result:
            continue
        at, _, shndx, value, size = symbols.row(index)
        name = symbols.name_at(at).decode("utf-8", "surrogateescape") or None
        where = section_of(elf, index, shndx)
        if not size and where in starts:
            result[index] = _anchor(elf.sections[where], starts[where], variables)
            continue
        aliases = variables.at(starts[where] + value) if where in starts else ()
        if where == SHN_COMMON:
            aliases = next((line.variables for line in variables.ledger.lines if line.variables[0].name == name), ())
        if aliases:
            whose = variables.owner(aliases).name
        elif where != SHN_UNDEF:
            whose = variables.library
        else:
            whose = owner(name, None, ".symtab", FOREIGN).name if name else FOREIGN
        result[index] = Target(aliases[0].name if aliases else name, aliases, where != SHN_UNDEF, whose)
    titles = names({one.symbol for one in result.values() if one.symbol})
    return {index: one.but(title=titles[one.symbol]) if one.symbol else one for index, one in result.items()}


def _anchor(section: Section, start: int, variables: Variables) -> Target:
    """Return what a symbol without a size, or that of the section itself, stands for.

    Compilers that address several small variables from one place (gcc, -fsection-anchors: on most machines, not on
    x86) name none of them in the relocation.
    """
    lines = [one for one in variables.ledger.lines if start <= one.offset < start + section.size]
    if len(lines) == 1:
        aliases = lines[0].variables
        return Target(aliases[0].name, aliases, True, variables.owner(aliases).name)
    return Target(None, (), True, variables.library, f"one of {len(lines)} variables in {section.name}")


def accesses_of(uses: dict[tuple[str, int], Use], targets: dict[int, Target]) -> tuple[Access, ...]:
    """Return how often the code reaches each variable by which model."""
    merged: dict[tuple[str | None, str | None, str], int] = {}
    for (model, index), use in uses.items():
        key = (targets[index].owner, targets[index].title, model)
        merged[key] = merged.get(key, 0) + use.number
    result = [Access(*key[:2], None, key[2], count, 0) for key, count in merged.items()]
    return tuple(sorted(result, key=lambda one: (ORDER.index(one.model), -one.sites, one.variable or "")))


def triggers_of(
    elf: Elf, symbols: StaticSymbols, uses: dict[tuple[str, int], Use], targets: dict[int, Target], library: str
) -> tuple[Trigger, ...]:
    """Return the initial-exec accesses by variable, with the functions that they stand in."""
    rows = INITIAL_EXEC_NAMES.get((elf.machine, elf.class_), {})
    forced = {index: use for (model, index), use in uses.items() if model == IE}
    functions = _functions(symbols, {section for use in forced.values() for section, _ in use.places})
    titles = names({name for found in functions.values() for _, _, name, _ in found})
    result = []
    for index, use in forced.items():
        target = targets[index]
        counts: dict[str, int] = {}
        users: dict[tuple[str, str], User] = {}
        for section, offset in use.places:
            name, unit = _function_at(functions.get(section, []), offset)
            title = titles[name] if name else "code outside every known function"
            counts[title] = counts.get(title, 0) + 1
            whose = owner(name, unit, ".symtab", library)
            before = users.get((whose.name, whose.kind))
            number = 1 + (before.accesses if before else 0)
            users[whose.name, whose.kind] = User(whose.name, whose.kind, number, whose.evidence)
        ordered = sorted(counts, key=lambda title: -counts[title])
        result.append(Trigger(
            target.owner or library, target.title, rows.get(use.type, f"relocation {use.type}"), use.number,
            tuple(ordered[:SHOWN]), elf.path, use.number, target.own, target.symbol, None, len(counts),
            tuple(sorted(users.values(), key=lambda user: (-user.accesses, user.owner))),
        ))  # fmt: skip
    return tuple(sorted(result, key=lambda one: (not one.own, -one.relocations, one.variable or "")))


def _functions(symbols: StaticSymbols, sections: set[int]) -> dict[int, list[tuple[int, int, str, str | None]]]:
    """Return section -> (start, end, name, unit) of its functions, in order of starts."""
    result: dict[int, list[tuple[int, int, str, str | None]]] = {}
    unit: str | None = None
    for first, data in symbols.pieces() if sections else ():
        infos = data[symbols.info_at :: symbols.step]
        for place, mark in enumerate(infos.translate(_KINDS)):
            if not mark:
                continue
            at, info, shndx, value, size = symbols.row(first + place)
            if info & 15 == STT_FILE:
                unit = symbols.name_at(at).decode("utf-8", "surrogateescape")
            elif shndx in sections:
                name = symbols.name_at(at).decode("utf-8", "surrogateescape")
                result.setdefault(shndx, []).append((value, value + size, name, None if info >> 4 else unit))
    for found in result.values():
        found.sort(key=lambda one: (one[0], -one[1]))
    return result


def _function_at(found: list[tuple[int, int, str, str | None]], offset: int) -> tuple[str, str | None]:
    """Return the (name, unit) of the function around an offset, else empty."""
    index = bisect_right(found, offset, key=lambda one: one[0]) - 1
    if index < 0 or not found[index][0] <= offset < found[index][1]:
        return "", None
    return found[index][2:]
