"""All that a load lacks, where the loader stops at the first: symbols and versions that nothing in scope defines.

It is what `ldd -r` lists: the loader in its tracing mode, which tells an error and goes on (glibc elf/rtld.c).
For many load sets in one run a table of each file's definitions is kept, and which files were enough for which: a set
that holds these has nothing new to look up, since a further object never takes a definition away.
"""

from __future__ import annotations

from operator import add

from dlwhy.elf.constants import SHN_ABS, SHN_UNDEF, STB_LOCAL, STB_WEAK, STT_TLS, STV_HIDDEN, STV_INTERNAL
from dlwhy.elf.relocs import split_info
from dlwhy.errors import ElfError
from dlwhy.loader.bind import PLT, Lookup, binding, check_one, is_lazy, resolve, type_class
from dlwhy.loader.faults import Death, Fault
from dlwhy.loader.link_map import EXECUTABLE
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.relocate import work
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.elf.symbols import DynamicSymbols
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process
    from dlwhy.loader.relocate import Entry

    Identity = tuple[int, int]

_COUNTED_INFOS = frozenset(bind << 4 | kind for bind in (1, 2, 10) for kind in (0, 1, 2, 5, 6, 10))
"""st_info of what can be a definition: GLOBAL, WEAK or GNU_UNIQUE; NOTYPE OBJECT FUNC COMMON TLS GNU_IFUNC."""
_OTHER_INFOS = bytes(info not in _COUNTED_INFOS for info in range(256))
_NOT_SEEN = bytes(other & 3 in (STV_HIDDEN, STV_INTERNAL) for other in range(256))
_LONG = 256
"""Bytes from which on a name is cut with an eye on how many there are: they may overlap."""
_MOST_NAMES = 16
"""All names of a table together: at most so many times its strings (honest ones stay below 2)."""
_TOGETHER = 12
"""Objects to be looked at from which on one table of all definitions is made: it costs as much as some look-ups do."""
_LOOKED_UP = bytes(info >> 4 not in (STB_LOCAL, STB_WEAK) for info in range(256))
"""By st_info: whether a reference must find something."""


class Gap(Record):
    """A symbol, or a version of a file, that an object refers to and that nothing in scope defines."""

    symbol: str | None
    """None where it is the version itself that the file lacks."""
    version: str | None
    object: str
    """Who refers to it, as messages name it."""
    file: str | None
    """Of a symbol with a version: the file that the reference names; of a version: the path of what lacks it."""
    lazy: bool
    """Whether lazy binding leaves it for the first call."""


class Imports:
    """The strong references of one object that are looked up by name."""

    __slots__ = ("by_key", "careful", "end")

    def __init__(self) -> None:
        self.by_key: dict[bytes, Entry] = {}
        """NAME or NAME@VERSION -> (r_info of the first such reference, whether lazy binding leaves it)."""
        self.careful = False
        """Whether each must be looked up by itself: what the program holds matters to a copy relocation."""
        self.end: Exception | None = None
        """How relocation ends before it has looked at everything."""


class Tables:
    """What is read once for many load sets of one run, by device and inode."""

    __slots__ = ("definitions", "imports", "lacking", "reached", "settled")

    def __init__(self) -> None:
        self.imports: dict[Identity, Imports] = {}
        self.definitions: dict[Identity, dict[bytes, int]] = {}
        self.reached: dict[Identity, set[bytes]] = {}
        """The keys of `definitions` that the hash table was seen to lead to."""
        self.settled: dict[Identity, tuple[frozenset[Identity], dict[bytes, Entry]]] = {}
        """File -> (files that were enough for all of its references but those that are left, these)."""
        self.lacking: dict[tuple[Elf, str], tuple[Elf | None, tuple[str, ...], bool]] = {}
        """(who needs, file) -> (what provided it, versions that this lacks, whether it has a version table)."""


def gaps(
    process: Process, among: list[LinkMap], mode_lazy: bool, result: list[Gap], tables: Tables | None = None
) -> None:
    """Append everything that these objects, of one namespace, lack: versions first, then symbols, object by object.

    The process is left as it was. Raises `Fault`, `Death` or `Unknown` where relocation ends for another reason; what
    lies behind that is not known. With `tables` an object is trusted to find by its own hash table what it defines.
    """
    space = process.namespaces[among[0].namespace] if among else process.base
    kept = [(one, one.nodelete) for one in space.maps]
    lookup = Lookup(process.machine, process.libc, dict(space.unique))
    try:
        names: dict[str, LinkMap] = {}
        for one in space.maps:
            for name in (one.name, *one.names):
                names.setdefault(name, one)
        exact = tables is None or process.libc.named_file_must_define is not None
        known = tables if tables is not None else Tables()
        for one in among:
            if one.elf is not None:
                found, versioned = _versions(process, one, names, known)
                result += found
                exact |= not versioned  # then the lookup may end in an assertion
        offers = None if exact else _Offers(space.maps, known, process.machine)
        todo = [(one, one.elf.view.identity) for one in among if one.elf is not None]
        if offers is not None:
            todo = [pair for pair in todo if not offers.settles(pair[1])]
        plans = [(one, identity, _plan(process, one, identity, mode_lazy, known, exact)) for one, identity in todo]
        if exact:  # the names of all at once
            wanted = {key.partition(b"@")[0] for _, _, plan in plans for key in plan.by_key}
            lookup.prepare(wanted, {id(scope): scope for one, _ in todo for scope in one.scopes}.values())
        elif len(todo) > _TOGETHER:
            assert offers is not None
            offers.put_together()
        for one, identity, plan in plans:
            result += _symbols(process, one, identity, plan, lookup, offers)
    except ElfError as error:
        raise died_reading(error, "relocate") from None
    finally:
        for one, nodelete in kept:
            one.nodelete = nodelete


def _versions(
    process: Process, of: LinkMap, names: dict[str, LinkMap], tables: Tables
) -> tuple[list[Gap], bool]:
    """The versions that an object needs and does not get; whether all files that it needs versions of define some."""
    assert of.elf is not None
    if of.elf.dynamic is None:
        return [], True
    result: list[Gap] = []
    versioned = True
    for file, needs in of.elf.versions.need_files:
        provider = names.get(file)
        if provider is None:
            if process.absent is not None and file in process.absent:
                continue
            text = process.libc.assertion("dl-version.c", "_dl_check_map_versions", "needed != NULL")
            because = f"{of.shown} needs versions of {file}, which is not loaded"
            raise Death("assertion", "version", because, text, 127, of.shown)
        seen = tables.lacking.get((of.elf, file))
        if seen is None or seen[0] is not provider.elf:
            lacking = []
            for need in needs:
                fault = check_one(need.name, need.hash, need.weak, provider, of, None, process.settings.argv0)
                if fault is not None and fault.kind != "missing-version":
                    raise fault
                if fault is not None:
                    lacking.append(need.name)
            defines = provider.elf is not None and provider.elf.versions.defines is not None
            seen = tables.lacking[of.elf, file] = provider.elf, tuple(lacking), defines
        result += [Gap(None, version, of.shown, provider.shown, False) for version in seen[1]]
        versioned &= seen[2]
    return result, versioned


def _plan(
    process: Process, of: LinkMap, identity: Identity, mode_lazy: bool, tables: Tables, exact: bool
) -> Imports:
    """The strong references of an object, read once."""
    lazy = is_lazy(of, mode_lazy, process.profiling)
    imports = tables.imports.get(identity) if not lazy else None
    if imports is None:
        imports = _imports(of, process, lazy, not exact)
        if not lazy:
            tables.imports[identity] = imports
    return imports


def _symbols(
    process: Process, of: LinkMap, identity: Identity, imports: Imports, lookup: Lookup, offers: _Offers | None
) -> Iterator[Gap]:
    """The symbols that an object refers to and does not get. Raises `ElfError` and the loader's own ends."""
    assert of.elf is not None
    if offers is None or imports.careful:
        left, _ = _resolved(process, of, imports.by_key, lookup, offers is not None)
    else:
        enough, left = offers.tables.settled.get(identity, (None, imports.by_key))
        used: set[Identity] = set()
        if enough is None or not enough <= offers.identities:
            left, used = offers.open_of(imports.by_key)
        left, others = _resolved(process, of, left, lookup, True)
        if enough is None or used:
            offers.tables.settled[identity] = frozenset(used | others), left
    side = binding(of, process.machine)
    for info, deferred in left.values():
        index = split_info(of.elf, info)[0]
        wanted, _ = side.version_of(index)
        symbol = side.symbol(index)[0].decode("utf-8", "surrogateescape")
        yield Gap(symbol, wanted.name if wanted else None, of.shown, wanted.file if wanted else None, deferred)
    if imports.end is not None:
        raise imports.end


def _imports(of: LinkMap, process: Process, lazy: bool, trusting: bool) -> Imports:
    """The strong references of an object. `trusting`: what it defines itself, its own hash table leads to."""
    elf, machine = of.elf, process.machine
    assert elf is not None
    result = Imports()
    plan = work(elf, machine, process.libc, lazy, process.settings.page, True)
    result.end = plan.end
    at, types = (32, 0xFFFFFFFF) if elf.layout.is64 else (8, 0xFF)
    jump, late = machine.jump_slot, machine.irelative
    first: dict[int, Entry] = {}
    for entry in plan.entries:
        info, deferred = entry
        index, kind = info >> at, info & types
        if index in first:  # of two references the one that is more particular about what it takes
            if not deferred and (kind == jump or type_class(machine, kind) == PLT):
                first[index] = entry
        elif index and kind != late and (not deferred or kind == jump):
            first[index] = entry
            if kind == machine.copy:
                result.careful = True
    symbols, side = elf.symbols, binding(of, machine)
    result.careful |= not side.has_versym and elf.versions.has_versym
    suffixes: dict[bytes, bytes] = {}
    names, versym = symbols.names, elf.versions.versym() if side.has_versym else b""
    for index, place in _looked_up(symbols, first, trusting):
        end = names.find(b"\0", place)
        key = names[place:end] if 0 <= end - place < _LONG else symbols.name_at(place)
        if b"@" in key:
            result.careful = True
        if versym:
            number = versym[2 * index : 2 * index + 2]
            suffix = suffixes.get(number)
            if suffix is None:
                wanted, _ = side.version_of(index)
                suffix = b"@" + wanted.name.encode("utf-8", "surrogateescape") if wanted is not None else b""
                suffixes[number] = suffix
            key += suffix
        result.by_key[key] = first[index]
    return result


def _looked_up(symbols: DynamicSymbols, indexes: Iterable[int], trusting: bool) -> Iterator[tuple[int, int]]:
    """Yield (index, st_name) of those of the symbols referred to that are strong and looked up by name."""
    table = symbols.columns
    if table is None:
        for index in indexes:
            place, _, _, info, other, _ = symbols.fields(index)
            if _LOOKED_UP[info] and not _NOT_SEEN[other]:
                yield index, place
        return
    places, infos, others, sections, values = table
    start, end = symbols.hashed if trusting else (0, 0)
    size = len(infos)
    for index in indexes:
        if index >= size:  # behind the hashed part, where the loader reads all the same
            place, _, _, info, other, _ = symbols.fields(index)
            if _LOOKED_UP[info] and not _NOT_SEEN[other]:
                yield index, place
        elif _LOOKED_UP[infos[index]] and not _NOT_SEEN[others[index]]:
            own = start <= index < end and sections[index] and values[index] and not _OTHER_INFOS[infos[index]]
            if not own:
                yield index, places[index]


def _resolved(
    process: Process, of: LinkMap, pending: dict[bytes, Entry], lookup: Lookup, prepare: bool
) -> tuple[dict[bytes, Entry], set[Identity]]:
    """Look references up one by one, as the loader does: what nothing defines, and whose definitions were taken."""
    left: dict[bytes, Entry] = {}
    used: set[Identity] = set()
    if not pending:
        return left, used
    if prepare:
        lookup.prepare({key.partition(b"@")[0] for key in pending}, of.scopes)
    assert of.elf is not None
    for key, (info, deferred) in pending.items():
        index, kind = split_info(of.elf, info)
        try:
            found, _, _ = resolve(of, index, kind, process.machine, lookup)
        except Fault as fault:
            if fault.kind != "undefined-symbol":
                raise
            left[key] = info, deferred
        else:
            if found is not None and found.map.elf is not None:
                used.add(found.map.elf.view.identity)
    return left, used


# -- definitions in columns --------------------------------------------------------------------------------------------


class _Offers:
    """The definitions of all objects of one load set, whose tables are made when they are wanted."""

    def __init__(self, maps: list[LinkMap], tables: Tables, machine: Machine) -> None:
        self.tables, self.machine = tables, machine
        pairs = [(one, one.elf.view.identity) for one in maps if one.elf is not None]
        self.identities = {identity for _, identity in pairs}
        known = tables.definitions
        self.providers = [pair for pair in pairs if pair[1] in known] + [pair for pair in pairs if pair[1] not in known]
        self.together: dict[bytes, int] | None = None
        """Key -> place in `providers`, of all keys, where many objects are looked at."""

    def settles(self, identity: Identity) -> bool:
        """Whether a file is known to find everything in what is here."""
        settled = self.tables.settled.get(identity)
        return settled is not None and not settled[1] and settled[0] <= self.identities

    def put_together(self) -> None:
        """Make one table of all."""
        together: dict[bytes, int] = {}
        for place, (one, identity) in enumerate(self.providers):
            together.update(dict.fromkeys(self._of(one, identity), place))
        self.together = together

    def _of(self, one: LinkMap, identity: Identity) -> dict[bytes, int]:
        found = self.tables.definitions.get(identity)
        if found is None:
            found = self.tables.definitions[identity] = _definitions(one, self.machine)
        return found

    def open_of(self, pending: dict[bytes, Entry]) -> tuple[dict[bytes, Entry], set[Identity]]:
        """Return the references that no table settles, and the files whose tables settled the others."""
        left = set(pending)
        used: set[Identity] = set()
        if self.together is None:
            for one, identity in self.providers:
                if not left:
                    break
                if one.type == EXECUTABLE and identity not in self.tables.definitions:
                    continue  # perhaps nobody else wants it: looked up name by name
                left -= self._taken(one, identity, left & self._of(one, identity).keys(), used)
        else:
            sorted_: dict[int, set[bytes]] = {}
            for key in left & self.together.keys():
                sorted_.setdefault(self.together[key], set()).add(key)
            for place, keys in sorted_.items():
                left -= self._taken(*self.providers[place], keys, used)
        return {key: pending[key] for key in pending if key in left} if left else {}, used

    def _taken(self, one: LinkMap, identity: Identity, hits: set[bytes], used: set[Identity]) -> set[bytes]:
        """Those of the keys, all in the object's table, that its hash table leads to."""
        if not hits:
            return hits
        reached = self.tables.reached.setdefault(identity, set())
        new = hits - reached
        if new:
            assert one.elf is not None
            offers = self.tables.definitions[identity]
            found = one.elf.symbols.reached((offers[key], key.partition(b"@")[0]) for key in new)
            reached.update(key for key in new if offers[key] in found)
            hits = hits & reached
        used.add(identity)
        return hits


def _definitions(one: LinkMap, machine: Machine) -> dict[bytes, int]:
    """Return NAME or NAME@VERSION -> symbol index of what is a definition for that very reference, beyond doubt.

    What is not here may be one all the same: a base version for any, say, or the only one there is. Empty for tables
    that are not of this machine's own byte order and width. Raises `ElfError` where a table leaves the file.
    """
    elf = one.elf
    assert elf is not None
    symbols, side = elf.symbols, binding(one, machine)
    first, end = symbols.hashed
    table = symbols.columns
    if end <= first or table is None:
        return {}
    places, infos, others, sections, values = (column[first:end] for column in table)
    count, blob = len(infos), symbols.names
    ends = [blob.find(b"\0", at) for at in places]
    if min(ends) < 0 or sum(ends) - sum(places) > _MOST_NAMES * len(blob) + _LONG * _LONG:
        return {}
    keys: list[bytes] = [blob[at:end] for at, end in zip(places, ends, strict=True)]
    kinds = dict.fromkeys((0, 1), b"")
    versym, entries = b"", []
    if side.has_versym:
        for place, version in side.versions.items():
            if version.hash:
                kinds[place] = b"@" + version.name.encode("utf-8", "surrogateescape")
        versym = elf.versions.versym()[2 * first : 2 * (first + count)]
        from array import array

        entries = [entry & 0x7FFF for entry in array("H", versym[: len(versym) & -2])]
        count = min(count, len(entries))
        keys = list(map(add, keys, [kinds.get(entry, b"") for entry in entries]))
    result = dict(zip(keys, range(first, first + count), strict=False))
    zero = (place for place in _places(values, 0) if sections[place] != SHN_ABS and infos[place] & 15 != STT_TLS)
    none = [*zero, *_places(sections, SHN_UNDEF)]
    none += [*_places(infos.translate(_OTHER_INFOS), 1), *_places(others.translate(_NOT_SEEN), 1)]
    if versym and not kinds.keys() >= set(entries):
        none += [place for place, entry in enumerate(entries) if entry not in kinds]
    for place in none:
        if place < count and result.get(keys[place]) == first + place:
            del result[keys[place]]
    return result


def _places(column: Sequence[int], value: int) -> Iterator[int]:
    """Yield where in a column a value stands."""
    place = -1
    while True:
        try:
            place = column.index(value, place + 1)
        except ValueError:
            return
        yield place
