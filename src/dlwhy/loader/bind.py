"""Versions and symbols through the scopes: which definition a reference gets, and which reference gets none.

Binding a load is a join, not a walk: the names wanted by all objects to be relocated are gathered first and held
against each object's hash table once; after that every lookup is a dictionary. What a lookup accepts is check_match and
do_lookup_x of glibc elf/dl-lookup.c, rule by rule.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DT_JMPREL,
    DT_RELR,
    DT_STRTAB,
    DT_VERNEED,
    DT_VERSYM,
    SHN_ABS,
    SHN_UNDEF,
    STB_GLOBAL,
    STB_GNU_UNIQUE,
    STB_LOCAL,
    STB_WEAK,
    STT_TLS,
    STV_HIDDEN,
    STV_INTERNAL,
    STV_PROTECTED,
    VER_FLG_BASE,
    VERSYM_HIDDEN,
)
from dlwhy.elf.relocs import split_info
from dlwhy.elf.symbols import COUNTING_TYPES, chain_words, gnu_hash
from dlwhy.errors import ElfError
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE
from dlwhy.loader.mapping import died_reading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.glibc import Glibc
    from dlwhy.loader.link_map import LinkMap, Scope

PLT, COPY = 1, 2
"""Relocation classes: of the first kind an undefined entry never counts, of the second the program is not searched."""

_GNU_HASHES: dict[bytes, int] = {}


class Wanted:
    """A version that a reference asks for (struct r_found_version)."""

    __slots__ = ("file", "hash", "hidden", "name")

    def __init__(self, name: str, hash_: int, hidden: bool, file: str | None) -> None:
        self.name, self.hash, self.hidden, self.file = name, hash_, hidden, file


class Binding:
    """The symbol side of one loaded object: its table, its versions, its references, each read once."""

    __slots__ = ("_elf", "_has_versym", "_machine", "_raw", "_versions")

    def __init__(self, elf: Elf, machine: Machine) -> None:
        self._elf = elf
        self._machine = machine
        self._raw: dict[int, tuple[bytes, int, int, int, int, int]] = {}
        self._versions: dict[int, Wanted] | None = None
        self._has_versym: bool | None = None

    @property
    def has_versym(self) -> bool:
        """Whether symbols have versions: l_versyms is set when the object needs or defines one (elf/dl-version.c)."""
        if self._has_versym is None:
            dynamic = self._elf.dynamic
            self._has_versym = dynamic is not None and DT_VERSYM in dynamic.tags and bool(self.versions)
        return self._has_versym

    @property
    def versions(self) -> dict[int, Wanted]:
        """Version index -> version, needs and definitions in one table (l_versions). Raises `ElfError`."""
        if self._versions is None:
            table: dict[int, Wanted] = {}
            every = self._elf.versions
            for need in every.needs:
                table[need.index] = Wanted(need.name, need.hash, need.hidden, need.file)
            base = None
            for one in every.defines or ():
                if one.flags & VER_FLG_BASE:
                    base = one
                else:
                    table[one.index] = Wanted(one.name, one.hash, False, None)
            if base is not None:
                table.setdefault(base.index, Wanted("", 0, False, None))
            self._versions = table
        return self._versions

    def symbol(self, index: int) -> tuple[bytes, int, int, int, int, int]:
        """Return (name, value, size, info, other, shndx); the name of a local one is empty. Raises `ElfError`."""
        found = self._raw.get(index)
        if found is None:
            symbols = self._elf.symbols
            name, value, size, info, other, shndx = symbols.fields(index)
            local = info >> 4 == STB_LOCAL or other & 3 in (STV_HIDDEN, STV_INTERNAL)  # nobody looks for it
            found = self._raw[index] = (b"" if local else symbols.name_at(name), value, size, info, other, shndx)
        return found

    def version_of(self, index: int) -> tuple[Wanted | None, int]:
        """Return (version, versym entry) of a symbol; no version for index 0 and 1 or without a table."""
        if not self.has_versym:
            return None, 0
        entry = self._elf.versions.index_of(index)
        version = self.versions.get(entry & 0x7FFF)
        if version is None and entry & 0x7FFF > 1 and entry & 0x7FFF > max(self.versions):
            what = f"what stands in memory behind the versions of {self._elf.path}, where symbol {index} has its own"
            raise Unknown(what, "relocate")
        return (version if version is not None and version.hash else None), entry


def binding(of: LinkMap, machine: Machine) -> Binding:
    """Return the symbol side of a link map, made on first use where the process did not bring one."""
    if of.binding is None:
        assert of.elf is not None
        of.binding = Binding(of.elf, machine)
    return of.binding


def hash_of(name: bytes) -> int:
    """Return the GNU hash of a name, computed once."""
    found = _GNU_HASHES.get(name)
    if found is None:
        if len(_GNU_HASHES) > 1 << 18:
            _GNU_HASHES.clear()
        found = _GNU_HASHES[name] = gnu_hash(name)
    return found


class Definition:
    """A definition that a reference got."""

    __slots__ = ("info", "map", "other", "shndx", "size", "value")

    def __init__(self, map_: LinkMap, value: int, size: int, info: int, other: int, shndx: int) -> None:
        self.map, self.value, self.size, self.info, self.other, self.shndx = map_, value, size, info, other, shndx

    @property
    def type(self) -> int:
        """STT_*."""
        return self.info & 15


class NotInNamedFile(Exception):
    """The file that a versioned reference names was reached, and does not define the symbol (up to 2.29)."""

    def __init__(self, file: str) -> None:
        super().__init__(file)
        self.file = file


class Lookup:
    """Lookups through scopes, for one relocation pass. `unique` is the namespace's table of unique symbols."""

    __slots__ = ("_cache", "_index", "_machine", "_prepared", "libc", "unique")

    def __init__(self, machine: Machine, libc: Glibc, unique: dict[bytes, Definition]) -> None:
        self._machine = machine
        self.libc = libc
        self._cache: dict[object, Definition | None] = {}
        self._index: dict[int, dict[bytes, list[tuple[LinkMap, tuple[int, ...]]]]] = {}
        self._prepared: set[bytes] = set()
        self.unique = unique

    def prepare(self, names: Iterable[bytes], scopes: Iterable[Scope]) -> None:
        """Hold all wanted names against the hash table of every object in these scopes at once."""
        hashes = {name: hash_of(name) for name in names}
        if not hashes:
            return
        self._prepared = set(hashes)
        words = chain_words(hashes)
        try:
            for scope in scopes:
                index = self._index[id(scope)] = {}
                for one in scope.maps:
                    if one.elf is not None:
                        for name, places in one.elf.symbols.look_up(hashes, words).items():
                            index.setdefault(name, []).append((one, places))
        except ElfError:  # met again by the name that leads there, if the loader comes to look for it
            self._prepared = set()
            self._index.clear()

    def offered(self, name: bytes, scopes: Iterable[Scope]) -> bool:
        """Whether a hash table of these scopes leads to the name; yes, where none could be prepared for it."""
        tables = (self._index.get(id(scope)) for scope in scopes)
        return any(table is None or name in table for table in tables)

    def _offers(self, name: bytes, scope: Scope) -> list[tuple[LinkMap, tuple[int, ...]]]:
        """The objects of a scope whose hash table reaches the name, with the symbols, in the scope's order."""
        if name in self._prepared and id(scope) in self._index:
            return self._index[id(scope)].get(name, [])
        hashes = {name: hash_of(name)}
        found = ((one, one.elf.symbols.look_up(hashes).get(name)) for one in scope.maps if one.elf is not None)
        return [(one, places) for one, places in found if places]

    def in_object(
        self,
        one: LinkMap,
        places: tuple[int, ...],
        wanted: Wanted | None,
        class_: int,
        newest: bool = False,
    ) -> Definition | None:
        """Return which of an object's symbols of the wanted name counts, or None (do_lookup_x for one map).

        Raises `Death` where the release asserts that the named file has a version table, and `ElfError` where the
        walk goes on to what is not there.
        """
        side = binding(one, self._machine)
        fallback = None
        alternatives = 0
        for index in places:
            if index < 0 and one.elf is not None and one.elf.symbols.astray is not None:
                raise one.elf.symbols.astray
            _, value, size, info, other, shndx = side.symbol(index)
            kind = info & 15
            if (value == 0 and shndx != SHN_ABS and kind != STT_TLS) or (class_ & PLT and shndx == SHN_UNDEF):
                continue
            if not COUNTING_TYPES >> kind & 1:
                continue
            version, entry = side.version_of(index)
            if wanted is not None:
                if not side.has_versym:
                    if self.libc.unversioned_provider_dies and wanted.file is not None and one.has_name(wanted.file):
                        raise _no_version_table(one, self.libc)
                else:
                    own_hash = version.hash if version is not None else 0
                    same = version is not None and own_hash == wanted.hash and version.name == wanted.name
                    if not same:
                        if wanted.hidden or own_hash or entry & VERSYM_HIDDEN:
                            continue
                        if self.libc.base_version_as_fallback:
                            alternatives += 1
                            if alternatives == 1:
                                fallback = Definition(one, value, size, info, other, shndx)
                            continue
            elif side.has_versym and entry & 0x7FFF >= (2 if newest else 3):
                if not entry & VERSYM_HIDDEN:
                    alternatives += 1
                    if alternatives == 1:
                        fallback = Definition(one, value, size, info, other, shndx)
                continue
            return self._visible(Definition(one, value, size, info, other, shndx))
        if alternatives == 1 and fallback is not None:
            return self._visible(fallback)
        return None

    @staticmethod
    def _visible(found: Definition) -> Definition | None:
        if found.other & 3 in (STV_HIDDEN, STV_INTERNAL):
            return None
        return found if found.info >> 4 in (STB_GLOBAL, STB_WEAK, STB_GNU_UNIQUE) else None

    def find(
        self, name: bytes, scopes: list[Scope], wanted: Wanted | None, class_: int, newest: bool = False
    ) -> Definition | None:
        """Return the first definition in the scopes, or None."""
        version = (wanted.name, wanted.hidden, wanted.file) if wanted is not None else None
        key = (name, version, class_, newest, tuple(map(id, scopes)))
        if key in self._cache:
            return self._cache[key]
        found = self._find(name, scopes, wanted, class_, newest)
        self._cache[key] = found
        return found

    def _find(
        self, name: bytes, scopes: list[Scope], wanted: Wanted | None, class_: int, newest: bool
    ) -> Definition | None:
        strict = wanted is not None and wanted.file is not None and self.libc.named_file_must_define is not None
        for scope in scopes:
            offers: Iterable[tuple[LinkMap, tuple[int, ...]]] = self._offers(name, scope)
            if strict:  # an object that offers nothing matters too, when it is the one that the reference names
                hits = {id(one): places for one, places in offers}
                offers = ((one, hits.get(id(one), ())) for one in scope.maps if one.elf is not None)
            for one, places in offers:
                if class_ & COPY and one.type == EXECUTABLE:
                    continue
                found = self.in_object(one, places, wanted, class_, newest)
                if found is not None:
                    if found.info >> 4 == STB_GNU_UNIQUE:
                        return self._unique(name, found, class_)
                    return found
                if strict and wanted is not None and wanted.file is not None and one.has_name(wanted.file):
                    raise NotInNamedFile(wanted.file)
        return None

    def _unique(self, name: bytes, found: Definition, class_: int) -> Definition:
        first = self.unique.setdefault(name, found)
        if first is found and not class_ & COPY and found.map.type == "loaded":
            found.map.nodelete = True
        return first


def _no_version_table(one: LinkMap, libc: Glibc) -> Death:
    expression = "version->filename == NULL || ! _dl_name_match_p (version->filename, map)"
    return Death(
        "version-table-missing", "relocate",
        f"{one.shown} has no version table, but a versioned symbol of it is wanted; up to 2.40 an assertion fails",
        libc.assertion("dl-lookup.c", "check_match", expression), 127, one.shown,
    )  # fmt: skip


# -- versions ----------------------------------------------------------------------------------------------------------


def check_versions(
    of: LinkMap, listed: list[LinkMap], libc: Glibc, program: str, told: list[str | Fault] | None
) -> None:
    """Check that every version an object needs is defined (elf/dl-version.c, _dl_check_map_versions).

    With `told` (a start-up) remarks and what is missing are appended there, in the order in which the loader tells
    them; without it the first error is raised. Raises `Fault`, `Death`.
    """
    assert of.elf is not None
    dynamic = of.elf.dynamic
    if dynamic is None or DT_STRTAB not in dynamic.tags:
        return
    try:
        if DT_VERNEED in dynamic.tags and _first_version(of.elf) != 1:
            raise Fault(
                "bad-version-table",
                "version",
                f"unsupported version {_first_version(of.elf)} of Verneed record",
                of.shown,
            )
        versions = of.elf.versions
        relr_ref = False
        for file, needs in versions.need_files:
            provider = next((one for one in listed if one.has_name(file)), None) or next(
                (one for one in of.searchlist.maps if one.has_name(file)), None
            )
            if provider is None:
                text = libc.assertion("dl-version.c", "_dl_check_map_versions", "needed != NULL")
                raise Death(
                    "assertion",
                    "version",
                    f"{of.shown} needs versions of {file}, which is not loaded",
                    text,
                    127,
                    of.shown,
                )
            for need in needs:
                relr_ref |= need.name == "GLIBC_ABI_DT_RELR"
                fault = check_one(need.name, need.hash, need.weak, provider, of, told, program)
                if fault is not None:
                    if told is None:
                        raise fault
                    told.append(fault)
        if versions.astray is not None:
            raise versions.astray
        wants_relr = libc.relr and DT_VERNEED in dynamic.tags and DT_RELR in dynamic.tags and not relr_ref
        if wants_relr and any(name.startswith("libc.so.") for name in dynamic.needed):
            raise Fault("missing-version", "version", "DT_RELR without GLIBC_ABI_DT_RELR dependency", of.shown)
        alone = DT_VERSYM not in dynamic.tags and bool(versions.needs or versions.defines)
    except ElfError as error:
        raise died_reading(error, "version") from None
    if alone:
        raise died_reading(ElfError(of.shown, -1, "it needs or defines versions, and has no DT_VERSYM"), "version")


def _first_version(elf: Elf) -> int:
    dynamic = elf.dynamic
    assert dynamic is not None
    (value,) = elf.layout.u16.unpack(elf.at(dynamic.tags[DT_VERNEED], 2))
    return int(value)


def check_one(
    name: str, hash_: int, weak: bool, provider: LinkMap, of: LinkMap, told: list[str | Fault] | None, program: str
) -> Fault | None:
    """Return what is wrong with one version that an object needs (match_symbol); remarks are appended to `told`."""
    versions = provider.elf.versions if provider.elf is not None else None  # None: `plain`, which defines no version
    defines = versions.defines if versions is not None else None
    if versions is None or defines is None:
        if told is not None:
            told.append(f"{program}: {provider.shown}: no version information available (required by {of.shown})")
        return None
    if versions.verdef_version != 1:
        return Fault(
            "bad-version-table",
            "version",
            f"unsupported version {versions.verdef_version} of Verdef record",
            provider.shown,
        )
    if (hash_, name) in versions.defined:
        return None
    if weak:
        if told is not None:
            told.append(f"{program}: {provider.shown}: weak version `{name}' not found (required by {of.shown})")
        return None
    fault = Fault(
        "missing-version", "version", f"version `{name}' not found (required by {of.shown})", provider.shown,
        because=f"{of.shown} needs version {name}, and {provider.shown} defines {_newest(defines, name)}",
        needed_by=of.shown,
    )  # fmt: skip
    fault.subject = of.shown
    return fault


_VER_FLG_BASE = 1
"""The definition that names the file itself (LSB Core, Symbol Version Definitions)."""


def _newest(defines: Iterable[object], name: str) -> str:
    """Say what the provider has of the same family of versions, e.g. `GLIBC_2.36` at most."""
    family = name.rpartition("_")[0]
    own = [one for one in defines if not one.flags & _VER_FLG_BASE]  # type: ignore[attr-defined]
    names = [one.name for one in own if one.name.rpartition("_")[0] == family]  # type: ignore[attr-defined]
    if not family:
        return ", ".join(names[:8]) or "no version"

    def order(text: str) -> list[int]:
        return [int(part) if part.isdigit() else -1 for part in text.rpartition("_")[2].split(".")]

    return f"{family} versions up to {max(names, key=order)}" if names else f"no version of the family {family or name}"


# -- references --------------------------------------------------------------------------------------------------------


def type_class(machine: Machine, kind: int) -> int:
    """Return the relocation class of a type (elf_machine_type_class)."""
    if (
        kind == machine.jump_slot
        or kind in machine.tpoff
        or kind in machine.dtpmod
        or kind in machine.dtpoff
        or kind in machine.tlsdesc
    ):
        return PLT
    return COPY if kind == machine.copy else 0


def is_lazy(of: LinkMap, mode_lazy: bool, profiling: bool) -> bool:
    """Whether the object's jump table is left for later; with `profiling` also when the object itself asks not to."""
    assert of.elf is not None
    dynamic = of.elf.dynamic
    return mode_lazy and dynamic is not None and (profiling or not dynamic.bind_now) and DT_JMPREL in dynamic.tags


def wanted_names(of: LinkMap, infos: Iterable[int], machine: Machine) -> set[bytes]:
    """Return the names that an object's references look up. Raises `ElfError`."""
    side = binding(of, machine)
    assert of.elf is not None
    names = set()
    for info in infos:
        index = split_info(of.elf, info)[0]
        if index:
            name, _, _, symbol_info, _, _ = side.symbol(index)
            if symbol_info >> 4 != STB_LOCAL:
                names.add(name)
    return names


def resolve(
    of: LinkMap, index: int, kind: int, machine: Machine, lookup: Lookup
) -> tuple[Definition | None, bytes, bool]:
    """Return (definition, name, was looked up) for a reference of `of`. Raises `Fault` for a strong one without.

    A weak reference without a definition gives (None, name, True).
    """
    side = binding(of, machine)
    name, value, size, info, other, shndx = side.symbol(index)
    if info >> 4 == STB_LOCAL or other & 3 in (STV_HIDDEN, STV_INTERNAL):
        return Definition(of, value, size, info, other, shndx), name, False
    if not side.has_versym and of.elf is not None and of.elf.versions.has_versym:
        # DT_VERSYM without any version: the loader looks into a table that it never made
        error = ElfError(of.shown, -1, "DT_VERSYM stands without a version that is needed or defined")
        raise died_reading(error, "relocate")
    wanted, _ = side.version_of(index)
    class_ = type_class(machine, kind)
    try:
        found = lookup.find(name, of.scopes, wanted, class_)
    except NotInNamedFile as missing:
        assert wanted is not None
        words = lookup.libc.named_file_must_define.format(
            name=name.decode("utf-8", "surrogateescape"), version=wanted.name, file=missing.file
        )
        fault = Fault("undefined-symbol", "relocate", words, of.shown)
        fault.occasion = "relocation error"
        raise fault from None
    if found is None:
        if info >> 4 == STB_WEAK:
            return None, name, True
        text = (
            "undefined symbol: "
            + name.decode("utf-8", "surrogateescape")
            + (f", version {wanted.name}" if wanted else "")
        )
        fault = Fault("undefined-symbol", "relocate", text, of.shown)
        fault.occasion = "symbol lookup error"
        raise fault
    if other & 3 == STV_PROTECTED and found.map is not of:
        return Definition(of, value, size, info, other, shndx), name, True
    return found, name, True
