"""All that a load lacks, where the loader stops at the first: symbols and versions that nothing in scope defines.

It is what `ldd -r` lists: the loader in its tracing mode, which tells an error and goes on (glibc elf/rtld.c).
For many load sets in one run a table of each file's definitions is kept, and which files were enough for which: a set
that holds these has nothing new to look up, since a further object never takes a definition away.
"""

from __future__ import annotations

from operator import add

from dlwhy.elf.constants import SHN_ABS, SHN_UNDEF, STB_LOCAL, STB_WEAK, STT_TLS, STV_HIDDEN, STV_INTERNAL
from dlwhy.elf.records import NATIVE_LITTLE
from dlwhy.elf.relocs import split_info
from dlwhy.errors import ElfError
from dlwhy.loader.bind import COPY, Lookup, binding, check_one, hash_of, is_lazy, resolve, type_class
from dlwhy.loader.faults import Death, Fault
from dlwhy.loader.link_map import EXECUTABLE
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.relocate import work
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process

_COUNTED_INFOS = frozenset(bind << 4 | kind for bind in (1, 2, 10) for kind in (0, 1, 2, 5, 6, 10))
"""st_info of what can be a definition: GLOBAL, WEAK or GNU_UNIQUE; NOTYPE OBJECT FUNC COMMON TLS GNU_IFUNC."""
_UNSEEN = (STV_HIDDEN, STV_INTERNAL)


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
        self.by_key: dict[bytes, tuple[int, bool]] = {}
        """NAME or NAME@VERSION -> (r_info of the first such reference, whether lazy binding leaves it)."""
        self.careful = False
        """Whether each must be looked up by itself: what the program holds matters to a copy relocation."""
        self.end: Exception | None = None
        """How relocation ends before it has looked at everything."""


class Tables:
    """What is read once for many load sets of one run, by Elf."""

    __slots__ = ("definitions", "imports", "lacking", "reached", "settled")

    def __init__(self) -> None:
        self.imports: dict[Elf, Imports] = {}
        self.definitions: dict[Elf, dict[bytes, int]] = {}
        self.reached: dict[Elf, set[bytes]] = {}
        """The keys of `definitions` that the hash table was seen to lead to."""
        self.settled: dict[Elf, tuple[frozenset[Elf], dict[bytes, tuple[int, bool]]]] = {}
        """Elf -> (files that were enough for all of its references but those that are left, these)."""
        self.lacking: dict[tuple[Elf, str, Elf | None], tuple[tuple[str, ...], bool]] = {}
        """(who needs, file, provider) -> (versions that it lacks, whether it has a version table)."""


def gaps(process: Process, among: list[LinkMap], mode_lazy: bool, tables: Tables | None = None) -> list[Gap]:
    """Return everything that these objects, of one namespace, lack: versions first, then symbols, object by object.

    The process is left as it was. Raises `Fault`, `Death` or `Unknown` where relocation ends for another reason, and
    what lies behind it is not known.
    """
    space = process.namespaces[among[0].namespace] if among else process.base
    kept = [(one, one.nodelete) for one in space.maps]
    lookup = Lookup(process.machine, process.libc, dict(space.unique))
    result: list[Gap] = []
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
        for one in among:
            if one.elf is not None and not one.relocated:
                result += _symbols(process, one, mode_lazy, lookup, known, exact)
    except ElfError as error:
        raise died_reading(error, "relocate") from None
    finally:
        for one, nodelete in kept:
            one.nodelete = nodelete
    return result


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
        key = of.elf, file, provider.elf
        seen = tables.lacking.get(key)
        if seen is None:
            lacking = []
            for need in needs:
                fault = check_one(need.name, need.hash, need.weak, provider, of, None, process.settings.argv0)
                if fault is not None and fault.kind != "missing-version":
                    raise fault
                if fault is not None:
                    lacking.append(need.name)
            defines = provider.elf is not None and provider.elf.versions.defines is not None
            seen = tables.lacking[key] = tuple(lacking), defines
        result += [Gap(None, version, of.shown, provider.shown, False) for version in seen[0]]
        versioned &= seen[1]
    return result, versioned


def _symbols(
    process: Process, of: LinkMap, mode_lazy: bool, lookup: Lookup, tables: Tables, exact: bool
) -> Iterator[Gap]:
    """The symbols that an object refers to and does not get. Raises `ElfError` and the loader's own ends."""
    elf = of.elf
    assert elf is not None
    lazy = is_lazy(of, mode_lazy, process.profiling)
    imports = tables.imports.get(elf) if not lazy else None
    if imports is None:
        imports = _imports(of, process, lazy)
        if not lazy:
            tables.imports[elf] = imports
    pending = imports.by_key
    if exact or imports.careful:
        left, _ = _resolved(process, of, pending, lookup)
    else:
        offered = {one.elf for scope in of.scopes for one in scope.maps if one.elf is not None}
        enough, left = tables.settled.get(elf, (None, pending))
        if enough is None or not enough <= offered:
            rest, used = _surely_defined(of, pending, process.machine, tables)
            left, others = _resolved(process, of, rest, lookup)
            tables.settled[elf] = frozenset(used | others), left
        elif left:
            left, _ = _resolved(process, of, left, lookup)
    side = binding(of, process.machine)
    for info, deferred in left.values():
        index = split_info(elf, info)[0]
        wanted, _ = side.version_of(index)
        symbol = side.symbol(index)[0].decode("utf-8", "surrogateescape")
        yield Gap(symbol, wanted.name if wanted else None, of.shown, wanted.file if wanted else None, deferred)
    if imports.end is not None:
        raise imports.end


def _imports(of: LinkMap, process: Process, lazy: bool) -> Imports:
    elf, machine = of.elf, process.machine
    assert elf is not None
    result = Imports()
    plan = work(elf, machine, process.libc, lazy, process.settings.page, of.type == EXECUTABLE)
    result.end = plan.end
    symbols, side = elf.symbols, binding(of, machine)
    suffixes: dict[int, bytes] = {}
    keys = result.by_key
    fields, name_at, index_of = symbols.fields, symbols.name_at, elf.versions.index_of
    for info, deferred in plan.entries:
        index, kind = split_info(elf, info)
        if not index or kind == machine.irelative or (deferred and kind != machine.jump_slot):
            continue
        name, _, _, symbol_info, other, _ = fields(index)
        if symbol_info >> 4 in (STB_LOCAL, STB_WEAK) or other & 3 in _UNSEEN:
            continue
        result.careful |= type_class(machine, kind) == COPY
        key = name_at(name)
        result.careful |= b"@" in key
        if side.has_versym:
            entry = index_of(index)
            suffix = suffixes.get(entry)
            if suffix is None:
                wanted, _ = side.version_of(index)
                suffix = b"@" + wanted.name.encode("utf-8", "surrogateescape") if wanted is not None else b""
                suffixes[entry] = suffix
            key += suffix
        keys.setdefault(key, (info, deferred))
    result.careful |= not side.has_versym and elf.versions.has_versym
    return result


def _resolved(
    process: Process, of: LinkMap, pending: dict[bytes, tuple[int, bool]], lookup: Lookup
) -> tuple[dict[bytes, tuple[int, bool]], set[Elf]]:
    """Look references up one by one, as the loader does: what nothing defines, and whose definitions were taken."""
    left: dict[bytes, tuple[int, bool]] = {}
    used: set[Elf] = set()
    if not pending:
        return left, used
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
                used.add(found.map.elf)
    return left, used


# -- definitions in columns --------------------------------------------------------------------------------------------


def _surely_defined(
    of: LinkMap, pending: dict[bytes, tuple[int, bool]], machine: Machine, tables: Tables
) -> tuple[dict[bytes, tuple[int, bool]], set[Elf]]:
    """The references that no table of definitions settles, and the files whose tables settled the others."""
    open_ = set(pending)
    used: set[Elf] = set()
    for scope in of.scopes:
        for one in scope.maps:
            if not open_:
                return {}, used
            if one.elf is None:
                continue
            offers = tables.definitions.get(one.elf)
            if offers is None:
                offers = tables.definitions[one.elf] = _definitions(one, machine)
            hits = open_ & offers.keys()
            if hits:
                reached = tables.reached.setdefault(one.elf, set())
                for key in hits - reached:
                    name = key.partition(b"@")[0]
                    if one.elf.symbols.reaches(hash_of(name), offers[key]):
                        reached.add(key)
                    else:
                        hits.discard(key)
                if hits:
                    used.add(one.elf)
                    open_ -= hits
    return {key: pending[key] for key in pending if key in open_}, used


def _definitions(one: LinkMap, machine: Machine) -> dict[bytes, int]:
    """Return NAME or NAME@VERSION -> symbol index of what is a definition for that very reference, beyond doubt.

    What is not here may be one all the same: a base version for any, say, or the only one there is. Empty for tables
    that are not of this machine's own byte order and width. Raises `ElfError` where a table leaves the file.
    """
    elf = one.elf
    assert elf is not None
    symbols, side = elf.symbols, binding(one, machine)
    first, count = symbols.hashed
    if count <= first or not elf.layout.is64 or elf.little != NATIVE_LITTLE:
        return {}
    from array import array

    step = elf.layout.sym.size
    data, blob = symbols.data[first * step : count * step], symbols.names
    count = len(data) // step
    keys: list[bytes] = [blob[at : blob.find(b"\0", at)] for at in array("I", data)[:: step // 4]]
    infos, others = data[4::step], data[5::step]
    sections, values = array("H", data)[3 :: step // 2], array("Q", data)[1 :: step // 8]
    kinds = {place: b"" for place in (0, 1)}
    versym = b""
    if side.has_versym:
        for place, version in side.versions.items():
            if version.hash:
                kinds[place] = b"@" + version.name.encode("utf-8", "surrogateescape")
        versym = elf.versions.versym()[2 * first : 2 * (first + count)]
        entries = [entry & 0x7FFF for entry in array("H", versym[: len(versym) & -2])]
        count = min(count, len(entries))
        keys = list(map(add, keys, [kinds.get(entry, b"") for entry in entries]))
    result = dict(zip(keys, range(first, first + count), strict=False))
    if (
        set(infos) <= _COUNTED_INFOS and all(other & 3 not in _UNSEEN for other in set(others)) and 0 not in values
        and SHN_UNDEF not in sections and (not versym or kinds.keys() >= set(entries))
    ):  # fmt: skip
        return result

    def counts(place: int) -> bool:
        info = infos[place]
        return (
            info in _COUNTED_INFOS and others[place] & 3 not in _UNSEEN and sections[place] != SHN_UNDEF
            and (values[place] != 0 or sections[place] == SHN_ABS or info & 15 == STT_TLS)
            and (not versym or entries[place] in kinds)
        )  # fmt: skip

    return {key: place for key, place in result.items() if counts(place - first)}
