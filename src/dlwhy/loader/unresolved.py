"""All that a load lacks, where the loader stops at the first: symbols and versions that nothing in scope defines.

It is what `ldd -r` lists: the loader in its tracing mode, which tells an error and goes on (glibc elf/rtld.c).
For many load sets in one run a table of each file's definitions is kept, and which files were enough for which: a set
that holds these has nothing new to look up, since a further object never takes a definition away.
"""

from __future__ import annotations

from array import array
from itertools import chain, compress
from operator import add

from dlwhy.elf.constants import SHN_ABS, STB_LOCAL, STB_WEAK, STT_TLS, STV_HIDDEN, STV_INTERNAL
from dlwhy.elf.records import NATIVE_LITTLE
from dlwhy.elf.relocs import Survey, split_info
from dlwhy.elf.symbols import COUNTING_TYPES, Columns, chain_words, gnu_hash
from dlwhy.errors import ElfError
from dlwhy.loader.bind import PLT, Lookup, binding, check_one, is_lazy, resolve, type_class
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.relocate import work
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Sequence

    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.elf.symbols import DynamicSymbols
    from dlwhy.loader.bind import Binding, Wanted
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process
    from dlwhy.loader.relocate import Entry, Work

    Identity = tuple[int, int]

_COUNTED_INFOS = frozenset(bind << 4 | kind for bind in (1, 2, 10) for kind in range(16) if COUNTING_TYPES >> kind & 1)
"""st_info of what can be a definition: GLOBAL, WEAK or GNU_UNIQUE, of a type that counts."""
_OTHER_INFOS = bytes(info not in _COUNTED_INFOS for info in range(256))
_NOT_SEEN = bytes(other & 3 in (STV_HIDDEN, STV_INTERNAL) for other in range(256))
_AT = ord("@")
"""What stands between a name and its version, and in no honest name."""
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

    __slots__ = ("_indexes", "_keys", "_machine", "careful", "elf", "keys", "plan")

    def __init__(self, elf: Elf, machine: Machine, plan: Work) -> None:
        self.elf, self._machine, self.plan = elf, machine, plan
        self.careful = False
        """Whether each must be looked up by itself: what the program holds matters to a copy relocation."""
        self._keys: list[bytes] = []
        self._indexes: list[int] = []
        self.keys: frozenset[bytes] = frozenset()
        """NAME or NAME@VERSION of all that is referred to, and perhaps of symbols that nothing refers to."""

    def add(self, names: list[bytes], suffixes: list[bytes], indexes: list[int]) -> None:
        """Take further symbols; no `suffixes` where none has a version."""
        self._keys += map(add, names, suffixes) if suffixes else names
        self._indexes += indexes
        self.keys = frozenset(self._keys)
        self.careful |= any(_AT in name for name in names)

    def referenced(self, keys: Container[bytes]) -> dict[bytes, Entry]:
        """Return key -> reference of those that something refers to, in the order of their first references.

        Of two references to a symbol the one counts that is more particular about what it takes.
        """
        wanted = {index: key for key, index in zip(self._keys, self._indexes, strict=True) if key in keys}
        first: dict[int, Entry] = {}
        machine = self._machine
        jump, late = machine.jump_slot, machine.irelative
        for entry in self.plan.entries:
            info, deferred = entry
            index, kind = split_info(self.elf, info)
            if index in first:
                if not deferred and (kind == jump or type_class(machine, kind) == PLT):
                    first[index] = entry
            elif index in wanted and kind != late and (not deferred or kind == jump):
                first[index] = entry
        return {wanted[index]: entry for index, entry in first.items()}


class _Hashes(dict[bytes, int]):
    """NAME or NAME@VERSION -> the hash of the name, computed when it is asked for."""

    def __missing__(self, key: bytes) -> int:
        found = self[key] = gnu_hash(key.partition(b"@")[0])
        return found


class Tables:
    """What is read once for many load sets of one run, by device and inode."""

    __slots__ = ("complete", "definitions", "hashes", "imports", "lacking", "met", "reached", "settled")

    def __init__(self) -> None:
        self.imports: dict[Identity, Imports] = {}
        self.definitions: dict[Identity, dict[bytes, int]] = {}
        self.hashes = _Hashes()
        self.reached: dict[Identity, set[bytes]] = {}
        """The keys of `definitions` that the hash table was seen to lead to."""
        self.settled: dict[Identity, tuple[frozenset[Identity], dict[bytes, Entry]]] = {}
        """File -> (files that were enough for all of its references but those that are left, these)."""
        self.lacking: dict[tuple[Elf, str], tuple[Elf | None, tuple[str, ...], bool]] = {}
        """(who needs, file) -> (what provided it, versions that this lacks, whether it has a version table)."""
        self.met: dict[Elf, list[tuple[str, Elf | None]]] = {}
        """Who needs -> (file, what provided all that is wanted of it), of those who lack no version."""
        self.complete: dict[Elf, frozenset[tuple[object, object]]] = {}
        """Who lacks nothing -> all that this rests on: what is `met` and the files that `settled` it."""

    def is_complete(self, elf: Elf, there: set[tuple[object, object]]) -> bool:
        """Whether an object is known to lack nothing beside what is there: (name, what answers to it) and files."""
        rests_on = self.complete.get(elf)
        if rests_on is None:
            met, settled = self.met.get(elf), self.settled.get(elf.view.identity)
            if met is None or settled is None or settled[1]:
                return False
            rests_on = self.complete[elf] = settled[0].union(met)
        return rests_on <= there


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
        offers = _Offers(space.maps, known, process.machine)
        there: set[tuple[object, object]] = {*offers.identities}
        there.update([(name, one.elf) for name, one in names.items()])
        some = [one for one in among if one.elf is not None]
        open_ = [one for one in some if one.elf is not None and not known.is_complete(one.elf, there)]
        for one in open_:
            found, versioned = _versions(process, one, names, known)
            result += found
            exact |= not versioned  # then the lookup may end in an assertion
        todo = [(one, one.elf.view.identity) for one in (some if exact else open_) if one.elf is not None]
        if not exact:
            todo = [pair for pair in todo if not offers.settles(pair[1])]
        plans = [(one, identity, _plan(process, one, identity, mode_lazy, known, exact)) for one, identity in todo]
        if exact:  # the names of all at once
            wanted = {key.partition(b"@")[0] for _, _, plan in plans for key in plan.keys}
            lookup.prepare(wanted, {id(scope): scope for one, _ in todo for scope in one.scopes}.values())
        elif len(todo) > _TOGETHER:
            offers.put_together(set().union(*(plan.keys for _, _, plan in plans)))
        for one, identity, plan in plans:
            result += _symbols(process, one, identity, plan, lookup, None if exact else offers)
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
    providers: list[tuple[str, Elf | None]] = []
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
        providers.append((file, seen[0]))
    if versioned and not result and len(providers) == len(of.elf.versions.need_files):
        tables.met[of.elf] = providers
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
        left, _ = _resolved(process, of, imports.referenced(imports.keys), lookup, offers is not None)
    else:
        enough, left = offers.tables.settled.get(identity, (None, {}))
        used: set[Identity] = set()
        if enough is None or not enough <= offers.identities:
            names, used = offers.open_of(imports.keys)
            left = imports.referenced(names) if names else {}
        left, others = _resolved(process, of, left, lookup, True, True)
        if (enough is None or used) and imports.plan.end is None:
            offers.tables.settled[identity] = frozenset(used | others), left
        if not left:  # seldom asked again: what it rests on is there wherever it is
            offers.tables.imports.pop(identity, None)
    side = binding(of, process.machine)
    for info, deferred in left.values():
        index = split_info(of.elf, info)[0]
        wanted, _ = side.version_of(index)
        symbol = side.symbol(index)[0].decode("utf-8", "surrogateescape")
        yield Gap(symbol, wanted.name if wanted else None, of.shown, wanted.file if wanted else None, deferred)
    if imports.plan.end is not None:
        raise imports.plan.end


def _imports(of: LinkMap, process: Process, lazy: bool, trusting: bool) -> Imports:
    """The strong references of an object. `trusting`: what it defines itself, its own hash table leads to."""
    elf, machine = of.elf, process.machine
    assert elf is not None
    result = Imports(elf, machine, work(elf, machine, process.libc, lazy, process.settings.page, True))
    symbols, side = elf.symbols, binding(of, machine)
    surveys = [one for one, _ in result.plan.ranges if isinstance(one, Survey)]  # all are: the kernel mapped it
    result.careful = any(one.has_type(elf, machine.copy) for one in surveys)
    result.careful |= not side.has_versym and elf.versions.has_versym
    table = symbols.columns if any(one.infos for one in surveys) else None
    size = 0
    if table is not None:
        size = len(table.infos)
        indexes = list(_looked_up(table, *(symbols.hashed if trusting else (0, 0))))
        names = _names(symbols.names, [table.names[index] for index in indexes])
        if names is None:
            size = 0
        else:
            result.add(names, _suffixes(side, elf, indexes), indexes)
    if max([one.highest() for one in surveys], default=0) >> (32 if elf.layout.is64 else 8) >= max(size, 1):
        # also behind the hashed part
        others = sorted({split_info(elf, info)[0] for info, _ in result.plan.entries} - {0})
        far = [index for index in others if index >= size and _is_looked_up(symbols, index)]
        result.add([symbols.name_at(symbols.fields(index)[0]) for index in far], _suffixes(side, elf, far), far)
    return result


def _looked_up(table: Columns, start: int, end: int) -> Iterator[int]:
    """Yield the symbols that are strong and looked up by name, without what the object defines from start to end."""
    _, infos, others, sections, values = table
    strong, hidden = infos.translate(_LOOKED_UP), others.translate(_NOT_SEEN)
    odd: Iterable[int] = compress(range(len(infos)), strong)
    if end > start:
        undefined = {*_zeros(sections[start:end]), *_zeros(values[start:end])}
        undefined.update(_marked(infos[start:end].translate(_OTHER_INFOS)))
        inside = [start + place for place in sorted(undefined) if strong[start + place]]
        odd = chain(compress(range(start), strong), inside, compress(range(end, len(infos)), strong[end:]))
    return (index for index in odd if index and not hidden[index])


def _names(table: bytes, places: Sequence[int]) -> list[bytes] | None:
    """Return the names at these places of a string table; None where they have no end, or overlap beyond measure."""
    ends = [table.find(b"\0", at) for at in places]
    if ends and (min(ends) < 0 or sum(ends) - sum(places) > _MOST_NAMES * len(table) + _LONG * _LONG):
        return None
    return [table[at:end] for at, end in zip(places, ends, strict=True)]


def _suffixes(side: Binding, elf: Elf, indexes: list[int]) -> list[bytes]:
    """Return @VERSION, or nothing, for each symbol; an empty list where none has a version."""
    if not side.has_versym:
        return []
    versym = elf.versions.versym()
    entries = array("H", versym[: len(versym) & -2])
    size = len(entries)
    own = [entries[index] if index < size else -1 - index for index in indexes]
    known: dict[int, bytes] = {}
    for entry, index in dict(zip(own, indexes, strict=True)).items():
        try:
            known[entry] = _suffix(side.version_of(index)[0])
        except (ElfError, Unknown):  # nothing is found by that: met again if something refers to the symbol
            known[entry] = b"@\0"
    return list(map(known.__getitem__, own))


def _suffix(version: Wanted | None) -> bytes:
    """Return what stands behind the name in a key."""
    return b"@" + version.name.encode("utf-8", "surrogateescape") if version is not None else b""


def _is_looked_up(symbols: DynamicSymbols, index: int) -> bool:
    """Whether a symbol is strong and looked up by name."""
    _, _, _, info, other, _ = symbols.fields(index)
    return bool(_LOOKED_UP[info] and not _NOT_SEEN[other])


def _resolved(
    process: Process, of: LinkMap, pending: dict[bytes, Entry], lookup: Lookup, prepare: bool, plain: bool = False
) -> tuple[dict[bytes, Entry], set[Identity]]:
    """Look references up one by one, as the loader does: what nothing defines, and whose definitions were taken.

    `plain`: nothing but a definition matters, so that a name which no hash table leads to needs no further look.
    """
    left: dict[bytes, Entry] = {}
    used: set[Identity] = set()
    if not pending:
        return left, used
    if prepare:
        lookup.prepare({key.partition(b"@")[0] for key in pending}, of.scopes)
    assert of.elf is not None
    for key, (info, deferred) in pending.items():
        name, _, version = key.partition(b"@")
        if plain and version != b"\0" and not lookup.offered(name, of.scopes):
            left[key] = info, deferred
            continue
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
        self._pairs = [(one, one.identity or one.elf.view.identity) for one in maps if one.elf is not None]
        self._providers: list[tuple[LinkMap, Identity]] | None = None
        self.identities = {identity for _, identity in self._pairs}
        self.together: dict[bytes, int] | None = None
        """Key -> place in `providers` of what defines it, of all keys wanted, where many objects are looked at."""

    @property
    def providers(self) -> list[tuple[LinkMap, Identity]]:
        """What may define anything, those first whose tables are there."""
        if self._providers is None:
            known, pairs = self.tables.definitions, self._pairs
            self._providers = [one for one in pairs if one[1] in known] + [one for one in pairs if one[1] not in known]
        return self._providers

    def settles(self, identity: Identity) -> bool:
        """Whether a file is known to find everything in what is here."""
        settled = self.tables.settled.get(identity)
        return settled is not None and not settled[1] and settled[0] <= self.identities

    def put_together(self, wanted: set[bytes]) -> None:
        """Make one table of what is wanted: each key with the first object that defines it."""
        together: dict[bytes, int] = {}
        left = set(wanted)
        words = chain_words({key: self.tables.hashes[key] for key in wanted})
        names: list[bytes] = []

        def wanted_names() -> list[bytes]:
            names[:] = names or [key.partition(b"@")[0] for key in wanted]
            return names

        for place, (one, identity) in enumerate(self.providers):
            table = self.tables.definitions.get(identity)
            if table is None:
                table = _definitions(one, self.machine, words, wanted_names)
            taken = self._taken(one, identity, left & table.keys(), table)
            together.update(dict.fromkeys(taken, place))
            left -= taken
        self.together = together

    def open_of(self, pending: frozenset[bytes]) -> tuple[set[bytes], set[Identity]]:
        """Return the keys that no table settles, and the files whose tables settled the others."""
        left = set(pending)
        used: set[Identity] = set()
        if self.together is not None:
            settled = left & self.together.keys()
            used = {self.providers[place][1] for place in set(map(self.together.__getitem__, settled))}
            return left - settled, used
        known = self.tables.definitions
        for one, identity in self.providers:
            if not left:
                break
            table = known.get(identity)
            if table is None:
                if one.type == EXECUTABLE:
                    continue  # perhaps nobody else wants it: looked up name by name
                table = known[identity] = _definitions(one, self.machine)
            hits = self._taken(one, identity, left & table.keys(), table)
            if hits:
                used.add(identity)
                left -= hits
        return left, used

    def _taken(self, one: LinkMap, identity: Identity, hits: set[bytes], table: dict[bytes, int]) -> set[bytes]:
        """Those of the keys, all in the object's table, that its hash table leads to."""
        reached = self.tables.reached.setdefault(identity, set())
        new = hits - reached
        if not new:
            return hits
        assert one.elf is not None
        hashes = self.tables.hashes
        places = {table[key]: hashes[key] for key in new}
        found = one.elf.symbols.reached(places.items())
        if len(found) < len(places):
            new = {key for key in new if table[key] in found}
            hits = hits & (reached | new)
        reached |= new
        return hits


def _definitions(
    one: LinkMap,
    machine: Machine,
    words: frozenset[int] | None = None,
    wanted: Callable[[], Iterable[bytes]] = tuple,
) -> dict[bytes, int]:
    """Return NAME or NAME@VERSION -> symbol index of what is a definition for that very reference, beyond doubt.

    What is not here may be one all the same: a base version for any, say, or the only one there is. With `words`, as
    `chain_words` makes them of the `wanted` names, only what DT_GNU_HASH has one of them for. Empty for tables that
    are not of this machine's own byte order and width. Raises `ElfError` where a table leaves the file.
    """
    elf = one.elf
    assert elf is not None
    symbols = elf.symbols
    chosen: Sequence[int] = range(*symbols.hashed) if words is None else symbols.hashed_as(words, wanted)
    table = symbols.columns if words is None else symbols.rows(chosen)
    if not chosen or table is None:
        return {}
    if words is None:
        table = Columns(*(column[chosen[0] : chosen[-1] + 1] for column in table))
    names, infos, others, sections, values = table
    keys = _names(symbols.names, names)
    if keys is None:
        return {}
    suffixes, lost = _defined_as(binding(one, machine), elf, chosen)
    count = len(infos)
    if suffixes is not None:
        keys = list(map(add, keys, suffixes))
        count = len(keys)
    result = dict(zip(keys, chosen, strict=False))
    zero = (place for place in _zeros(values) if sections[place] != SHN_ABS and infos[place] & 15 != STT_TLS)
    none = [*zero, *_zeros(sections), *lost]  # of SHN_UNDEF
    none += [*_marked(infos.translate(_OTHER_INFOS)), *_marked(others.translate(_NOT_SEEN))]
    for place in none:
        if place < count and result.get(keys[place]) == chosen[place]:
            del result[keys[place]]
    return result


def _defined_as(side: Binding, elf: Elf, chosen: Sequence[int]) -> tuple[list[bytes] | None, list[int]]:
    """Return @VERSION, or nothing, of each symbol as far as the table goes, and the places of those without a version.

    None instead of the list where the object has no versions at all.
    """
    if not side.has_versym:
        return None, []
    kinds = dict.fromkeys((0, 1), b"")
    for place, version in side.versions.items():
        if version.hash:
            kinds[place] = _suffix(version)
    versym = elf.versions.versym()
    whole = array("H", versym[: len(versym) & -2])
    if isinstance(chosen, range):
        entries = [entry & 0x7FFF for entry in whole[chosen[0] : chosen[-1] + 1]]
    else:
        entries = [whole[index] & 0x7FFF for index in chosen if index < len(whole)]
    lost = [] if kinds.keys() >= set(entries) else [place for place, entry in enumerate(entries) if entry not in kinds]
    return [kinds.get(entry, b"") for entry in entries], lost


def _marked(column: bytes) -> Iterator[int]:
    """Yield where in a column 1 stands."""
    place = column.find(1)
    while place >= 0:
        yield place
        place = column.find(1, place + 1)


def _zeros(column: Sequence[int]) -> Iterator[int]:
    """Yield where in a column 0 stands."""
    if not isinstance(column, array):
        yield from (place for place, value in enumerate(column) if value == 0)
        return
    size = column.itemsize  # of each one byte, not the lowest of an address, tells nearly always that it is not 0
    some = column.tobytes()[size // 8 if NATIVE_LITTLE else size - 1 - size // 8 :: size]
    place = some.find(0)
    while place >= 0:
        if column[place] == 0:
            yield place
        place = some.find(0, place + 1)
