"""Process: one modelled process, from its start through a sequence of dlopen, dlclose and dlsym.

The state is the loader's own: link maps per namespace, scopes, the static TLS block. Each public method is one call of
the loader's interface and returns what happened as a value; inside, errors travel as the loader throws them (`Fault`),
and a failed call leaves behind exactly what the real one leaves behind.
Sources: glibc elf/rtld.c dl_main, elf/dl-deps.c, elf/dl-open.c, elf/dl-reloc.c, elf/dl-close.c.
"""

from __future__ import annotations

from dlwhy.elf.constants import DF_1_NODELETE
from dlwhy.errors import ElfError
from dlwhy.loader.bind import (
    Binding,
    Definition,
    Lookup,
    check_versions,
)
from dlwhy.loader.dependencies import map_dependencies
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.host import RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LAZY, RTLD_NODELETE, RTLD_NOLOAD, RTLD_NOW
from dlwhy.loader.link_map import DYNAMIC, LOADED, LinkMap, Scope
from dlwhy.loader.mapping import check_hash, check_segments, died_reading, verify, wants_execstack
from dlwhy.loader.port import port
from dlwhy.loader.search import Attempt, Finder, Missing
from dlwhy.loader.sort import selection
from dlwhy.loader.tunables import DEFAULTS, Reading
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.elf.file import Elf
    from dlwhy.loader import tls
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.objects import Objects
    from dlwhy.loader.unresolved import Gap
    from dlwhy.view import View

_NAMESPACES = 16
"""Namespaces of one process, the first one included (DL_NNS)."""
TOO_NEW = "CPU ISA level is lower than required"

LACKING = ("undefined-symbol", "missing-version")
"""Kinds of failure with which more of the same may come, while the loader tells the first."""


class SearchRecord(Record):
    """How one name became an object, or did not."""

    name: str
    needed_by: str | None
    path: str | None
    how: str
    attempts: tuple[Attempt, ...]


class Namespace:
    """The objects of one namespace in link-map order."""

    __slots__ = ("global_scope", "identities", "known", "libc", "maps", "number", "unique")

    def __init__(self, number: int) -> None:
        self.number = number
        self.maps: list[LinkMap] = []
        self.known: dict[str, LinkMap] = {}
        """Names that were looked for, with the first object that answers to each; void when `maps` loses its order."""
        self.identities: set[tuple[int, int] | None] = set()
        """Of the files that `maps` has, or had."""
        self.libc: LinkMap | None = None
        self.unique: dict[bytes, Definition] = {}


def _answering(name: str, space: Namespace) -> LinkMap | None:
    """Return the first object that answers to a name. Raises `Death`, `Unknown` as reading a DT_SONAME may."""
    for one in space.maps:
        try:
            is_it = name in one.names or (name == one.name if one.soname_added else one.answers_to(name))
        except ElfError as error:
            raise died_reading(error, "search") from None
        if is_it:
            space.known[name] = one
            return one
    return None


class Process:
    """A process as the loader sees it."""

    ignored: list[LinkMap] = []  # noqa: RUF012 -- never changed
    """Objects with relocations that the release does not know of."""
    tells_all = False
    """Whether a start goes on after what it lacks, so that it lists all of it by itself."""
    slots_left_open: Callable[[LinkMap], dict[int, tuple[str, Fault | Death]]] | None = None
    """What lazy binding left open in an object, where the loader keeps a list of it; None: it is looked up."""

    def __init__(self, settings: ProcessSettings, objects: Objects) -> None:
        self.settings = settings
        self.objects = objects
        self.libc = settings.libc
        self.machine = settings.machine
        facts = objects.loader_facts(settings.interpreter)
        self.finder = Finder(settings, objects, facts.directories)
        text = "" if settings.secure else settings.env.get("GLIBC_TUNABLES", "")
        largest = (1 << 32 * settings.machine.elf_class) - 1
        reading: Reading = settings.libc.read_tunables(text, largest) if text else Reading(DEFAULTS, ())
        self.tunables = reading.tunables
        self.base = Namespace(0)
        self.namespaces = [self.base]
        self.static: tls.StaticTls | None = None
        self.execstack = False
        self.searches: list[SearchRecord] = []
        self.notices: list[str] = list(reading.notices)
        self.assumptions: list[str] = []
        self.guarded = False
        """Whether what is mapped is a preload or an auditor of a process in secure mode."""
        self.profiling = False
        """Whether an auditor makes the loader keep jump tables lazy that ask for immediate binding."""
        self.auditors = 0
        """Auditors that were accepted; that their la_version does so is taken for granted."""
        self.absent: set[str] | None = None
        """Names that nothing was found for, where that stops nothing: tracing, as ldd does. None: it stops a load."""
        self.gaps: list[Gap] = []
        """All that the objects of a load lacked which failed for want of a symbol or version, or was bound lazily."""
        self.open_calls = False
        """Whether lazy binding left a function that nothing defines."""
        self.surplus = 0
        self.start_used = 0
        self.when = "startup"
        self.started = False
        self.rtld: LinkMap | None = None
        self.program: LinkMap | None = None
        self.lacking: tuple[int, tls.Segment] | None = None
        """(bytes in use, segment) of the first latecomer that did not fit."""
        self.forced: dict[int, list[tuple[LinkMap, LinkMap, bytes, int]]] = {}
        """Step -> (object with the relocation, object that pays, symbol, type) of each static TLS decision."""

    @property
    def execstack_mode(self) -> int:
        """What glibc.rtld.execstack comes to: 0 forbidden, 1 at start-up only, 2 from the start."""
        mode = self.tunables.execstack
        return 1 if mode == 2 and not self.libc.execstack_forced else mode

    # -- mapping -------------------------------------------------------------------------------------------------

    def _verify(self, view: View, path: str) -> str | None:
        key = id(view), id(self.libc), self.machine.e_machine, self.machine.elf_class
        if key in self.objects.sound:
            return None
        verdict = verify(view, path, self.settings, lambda: self.objects.elf(self.finder.absolute(path)))
        if verdict is None:
            self.objects.sound[key] = view, self.libc  # which stay alive, and keep their numbers
        return verdict

    def _new(
        self, name: str, request: str, elf: Elf, type_: str, loader: LinkMap | None, mode: int, space: Namespace
    ) -> LinkMap:
        """_dl_new_object: a link map with the scopes it starts with."""
        try:
            made = LinkMap(name, request, elf, type_, loader)
        except ElfError as error:
            raise died_reading(error, "map") from None
        made.program_name = self.settings.argv0
        made.namespace = space.number
        if space.maps:
            made.scopes.append(space.maps[0].searchlist)
        root = loader if loader is not None else made
        while root.loader is not None:
            root = root.loader
        if not made.scopes or root.searchlist is not made.scopes[0]:
            if mode & RTLD_DEEPBIND and made.scopes:
                made.scopes.insert(0, root.searchlist)
            else:
                made.scopes.append(root.searchlist)
        return made

    def map_object(
        self,
        name: str,
        loader: LinkMap,
        type_: str,
        mode: int,
        space: Namespace,
        by_dlopen: bool,
        needed_by: LinkMap | None,
    ) -> LinkMap | None:
        """_dl_map_object: the object that `name` means, loaded already or now.

        `needed_by` is None for what dlopen itself asks for. None is returned for RTLD_NOLOAD of a file that is not
        loaded. Raises `Fault`, `Death`, `Unknown`.
        """
        asker = needed_by.shown if needed_by is not None else None
        there = space.known.get(name) or _answering(name, space)
        if there is not None:
            if self.absent is None:
                self.searches.append(SearchRecord(name, asker, there.shown, "already loaded", ()))
            return there
        assert self.program is not None
        try:
            found = self.finder.find(name, loader, self.program, self._verify, self.guarded)
        except Missing as missing:
            self.searches.append(SearchRecord(name, asker, None, "missing", missing.attempts))
            if missing.other_class:
                other = "ELFCLASS64" if self.machine.elf_class == 1 else "ELFCLASS32"
                raise Fault(
                    "wrong-class", "search", f"wrong ELF class: {other}", name, needed_by=asker,
                    because="every file found by that name is of the other ELF class",
                ) from None  # fmt: skip
            raise Fault(
                "not-found", "search", "cannot open shared object file", name, missing.errno, needed_by=asker,
                because=_why_missing(missing, self.finder, self.machine.name),
            ) from None  # fmt: skip
        except Fault as fault:
            self.searches.append(SearchRecord(name, asker, None, "broken", ()))
            fault.needed_by = asker
            raise
        except ElfError as error:
            raise died_reading(error, "header") from None
        if self.absent is None:
            self.searches.append(SearchRecord(name, asker, found.path, found.where, found.attempts))
        identity = found.view.identity
        if identity in space.identities:
            for one in space.maps:
                if one.identity == identity:
                    one.add_name(name)
                    return one
        rtld = self.rtld
        if space is not self.base and rtld is not None and (rtld.identity == identity or rtld.has_name(name)):
            assert rtld.elf is not None
            mirror = self._new(found.path, name, rtld.elf, type_, needed_by, mode, space)
            mirror.relocated = mirror.versions_checked = True
            mirror.tls = None
            space.maps.append(mirror)
            return mirror
        if mode & RTLD_NOLOAD:
            return None
        elf = self.objects.elf(self.finder.absolute(found.path))
        try:
            key = id(elf), id(self.libc), self.settings.page, by_dlopen
            sound = key in self.objects.sound
            if not sound:
                check_segments(elf, name, self.settings, self.objects.grants, by_dlopen)
            made = self._new(found.path, name, elf, type_, needed_by if by_dlopen or needed_by else loader, mode, space)
            self._check_stack(elf, name, by_dlopen)
            self.read_properties(made)
            if not sound:
                check_hash(elf, self.settings)
                self.objects.sound[key] = elf, self.libc
        except Fault as fault:
            fault.needed_by = asker
            fault.subject = found.path
            raise
        except ElfError as error:
            raise died_reading(error, "map") from None
        made.needed_by = needed_by
        made.how = found.where
        made.identity = identity
        space.identities.add(identity)
        if (
            not mode & RTLD_DEEPBIND
            and elf.dynamic is not None
            and elf.dynamic.symbolic
            and made.scopes[0] is not made.searchlist
        ):
            made.scopes.insert(0, Scope(made, [made]))
        try:
            self._join_namespace(made, space)
        except ElfError as error:
            raise died_reading(error, "map") from None
        return made

    def _join_namespace(self, made: LinkMap, space: Namespace) -> None:
        if made.elf is not None:
            made.binding = self.objects.bindings.get(id(made.elf))
            if made.binding is None:
                made.binding = self.objects.bindings[id(made.elf)] = Binding(made.elf, self.machine)
        if space.libc is None and made.soname == "libc.so.6":
            space.libc = made
        if made.tls is not None:
            used = {one.module_id for each in self.namespaces for one in each.maps}
            number = 1
            while number in used:
                number += 1
            made.module_id = number
        space.maps.append(made)

    def _check_stack(self, elf: Elf, name: str, by_dlopen: bool) -> None:
        if self.execstack or not wants_execstack(elf, self.settings):
            return
        if not self.libc.execstack_by_dlopen and (by_dlopen or self.execstack_mode != 1):
            when = "dlopen does not make it executable" if by_dlopen else "glibc.rtld.execstack decides who gets one"
            raise Fault(
                "execstack", "map", "cannot enable executable stack as shared object requires", name, 22,
                because=f"it asks for an executable stack (PT_GNU_STACK), and since glibc 2.41 {when}",
            )  # fmt: skip
        self.execstack = True

    # -- dlopen --------------------------------------------------------------------------------------------------

    def dlopen(
        self, name: str, mode: int, caller: LinkMap | None, step: int, space: Namespace | None = None
    ) -> LinkMap | None:
        """dlopen or dlmopen: the handle; None for RTLD_NOLOAD of what is not loaded.

        Raises `Fault`, `Death`, `Unknown`.
        """
        if not mode & (RTLD_LAZY | RTLD_NOW):
            raise Fault("invalid-mode", "none", "invalid mode for dlopen()", name, 22)
        if space is not None and mode & RTLD_GLOBAL:  # dlfcn/dlmopen.c, dlmopen_doit
            raise Fault("invalid-mode", "none", "invalid mode", "", 22)
        space = space if space is not None else self.base
        assert self.program is not None
        if name == "":
            return self.program
        before = list(space.maps)
        asker = caller if caller is not None else self.program
        top: LinkMap | None = None
        try:
            top = self.map_object(name, asker, LOADED, mode, space, True, None)
            if top is None:
                return None
            top.opened += 1
            if top.searchlist.maps:
                if mode & RTLD_NODELETE:
                    top.nodelete = True
                if mode & RTLD_GLOBAL:
                    self._make_global(top, space)
                return top
            self._bring_in(top, mode, space, step)
        except (Fault, Death, Unknown):
            if top is not None:
                top.opened -= 1
            from dlwhy.loader.closing import undo

            undo(self, before, space)
            raise
        return top

    def look_for(self, name: str, caller: LinkMap) -> SearchRecord:
        """Return where dlopen, called by `caller`, finds a name; nothing is loaded. Raises `Fault`, `Death`, `Unknown`.

        Of a name that is not found the record is the last of `searches`.
        """
        self.map_object(name, caller, LOADED, RTLD_NOLOAD, self.base, True, None)
        return self.searches[-1]

    def new_namespace(self, name: str) -> Namespace:
        """The namespace that dlmopen takes for LM_ID_NEWLM: the first one without objects. Raises `Fault`."""
        for space in self.namespaces[1:]:
            if not space.maps:
                return space
        if len(self.namespaces) == _NAMESPACES:
            text = "no more namespaces available for dlmopen()"
            raise Fault("invalid-mode", "none", text, name, 22, f"{_NAMESPACES} namespaces are in use already")
        space = Namespace(len(self.namespaces))
        self.namespaces.append(space)
        return space

    def _bring_in(self, top: LinkMap, mode: int, space: Namespace, step: int) -> None:
        from dlwhy.loader.resolving import relocate  # `tree` maps, and comes to none of it

        old_initfini, old_search = top.initfini, top.searchlist.maps
        map_dependencies(self, top, [], mode & RTLD_DEEPBIND, space, True)
        try:
            for one in top.searchlist.maps:
                if not one.versions_checked and one.elf is not None:
                    check_versions(one, space.maps, self.libc, self.settings.argv0, None)
                    one.versions_checked = True
            self._check_properties(top)
            relocate(
                self, self._relocation_order(top, space), bool(mode & RTLD_LAZY) and not self._bind_now(), space, step
            )
        except (Fault, Death, Unknown) as end:
            if isinstance(end, Fault) and end.kind in LACKING:
                self.list_gaps([one for one in top.searchlist.maps if not one.relocated], bool(mode & RTLD_LAZY))
            if top.relocated:
                top.initfini, top.searchlist.maps = old_initfini, old_search
            raise
        new = [one for one in top.searchlist.maps if not one.init_called]
        for one in top.searchlist.maps:
            if one.init_called and one.type == LOADED and not any(scope is top.searchlist for scope in one.scopes):
                one.scopes.append(top.searchlist)
        for one in new:
            one.init_called = True
            if one.flags_1 & DF_1_NODELETE:
                one.nodelete = True
        if mode & RTLD_NODELETE:
            top.nodelete = True
        if mode & RTLD_GLOBAL:
            self._make_global(top, space)

    def list_gaps(self, among: list[LinkMap], lazy: bool) -> None:
        """Add to `gaps` what these objects lack, as far as it can be told."""
        from dlwhy.loader.unresolved import gaps

        try:  # noqa: SIM105 -- contextlib costs more than this saves
            gaps(self, among, lazy and not self._bind_now(), self.gaps)
        except (Fault, Death, Unknown):  # what was found before is true all the same
            pass

    def _bind_now(self) -> bool:
        counts = not self.settings.secure or self.libc.secure_binds_now
        return counts and bool(self.settings.env.get("LD_BIND_NOW"))

    def _make_global(self, top: LinkMap, space: Namespace) -> None:
        main = space.maps[0].searchlist
        for one in top.searchlist.maps:
            if not one.global_:
                one.global_ = True
                main.maps.append(one)

    def _check_properties(self, top: LinkMap) -> None:
        """_dl_open_check: processor levels that the objects need, in the order in which they are relocated."""
        for one in reversed(top.initfini):
            if not one.init_called:
                lacks = self.lacks_level(one)
                if lacks is not None:
                    raise Fault("isa-level", "property", TOO_NEW, one.shown, because=lacks)

    def lacks_level(self, one: LinkMap) -> str | None:
        """Why the processor is too old for what an object's property note needs; None when it is not."""
        if not one.isa_needed & ~1 or (self.rtld is not None and one.elf is self.rtld.elf):
            return None  # x86-64 itself every processor has, and the loader runs already
        from dlwhy.loader.cpu import has_level

        cpu = self.finder.cpu()
        if has_level(cpu, one.isa_needed):
            return None
        has = f"x86-64-v{cpu.level.bit_length()}"
        return f"it needs x86-64-v{one.isa_needed.bit_length()}, and the processor has {has}"

    def read_properties(self, one: LinkMap) -> None:
        """Read what an object's property notes ask of the process, where this release looks. Raises `ElfError`."""
        how = port(self.machine).properties
        if one.elf is None or not (self.libc.isa_level_checked if how == "x86" else self.libc.properties_read):
            return
        key = one.elf, self.libc.property_segment_counts
        known = self.objects.properties.get(key)
        if known is None:
            from dlwhy.loader.properties import isa_and_needed, needed_1

            known = isa_and_needed(*key) if how == "x86" else (0, needed_1(one.elf))
            self.objects.properties[key] = known
        one.isa_needed, one.needed_1 = known if how != "none" else (0, 0)

    def _relocation_order(self, top: LinkMap, space: Namespace) -> list[LinkMap]:
        if self.libc.relocates_all_new:
            at = next(i for i, one in enumerate(space.maps) if one is top)
            todo = [one for one in space.maps[at:] if not one.relocated]
            return list(reversed(selection(todo, 0)))
        order = [one for one in reversed(top.initfini) if not one.relocated]
        if self.libc.libc_relocated_first and space.libc is not None and not space.libc.relocated:
            order = [space.libc, *(one for one in order if one is not space.libc)]
        return order

    # -- closing -------------------------------------------------------------------------------------------------

    def dlclose(self, handle: LinkMap) -> list[LinkMap]:
        """dlclose: what is unloaded by it, in destruction order. Raises `Fault` for a handle that is not open."""
        self._check_handle(handle)
        if handle.nodelete:
            return []
        if handle.opened == 0:
            raise Fault("not-open", "none", "shared object not open", handle.name)
        handle.opened -= 1
        if handle.opened or handle.type != LOADED:
            return []
        from dlwhy.loader.closing import collect

        return collect(self, self.namespaces[handle.namespace])

    def _check_handle(self, handle: LinkMap) -> None:
        """Raise `Unknown` for a handle whose object is gone: the memory behind it is free, and may be anything."""
        if not any(one is handle for one in self.namespaces[handle.namespace].maps):
            raise Unknown(f"what stands in freed memory: {handle.shown} was unloaded, and its handle is used once more")

    # -- dlsym ---------------------------------------------------------------------------------------------------

    def dlsym(self, handle: LinkMap | None, name: str) -> Definition:
        """dlsym(handle, name), of the global scope for None. Raises `Fault`.

        Looking a thread-local variable up uses it: its module's TLS becomes dynamic for good unless it has a place.
        """
        if handle is not None:
            self._check_handle(handle)
        space = self.namespaces[handle.namespace] if handle is not None else self.base
        lookup = Lookup(self.machine, self.libc, space.unique)
        assert self.program is not None
        scopes = [handle.searchlist] if handle is not None else self.program.scopes
        raw = name.encode("utf-8", "surrogateescape")
        try:
            found = lookup.find(raw, scopes, None, 0, newest=True)
        except ElfError as error:
            raise died_reading(error, "none") from None
        if found is None:
            where = handle.shown if handle is not None else self.settings.argv0
            raise Fault("undefined-symbol", "none", f"undefined symbol: {name}", where)
        if found.type == 6 and found.map.tls_offset is None:
            found.map.tls_offset = DYNAMIC
        return found


def _why_missing(missing: Missing, finder: Finder, own: str) -> str:
    skipped = [attempt for attempt in missing.attempts if attempt.result == "wrong machine"]
    its = finder.machine_of(skipped[0].path) if skipped else own
    another = "for another machine"
    if its != own:  # else its flags differ
        another += f", {its} instead of {own}"
    if "/" in missing.name:
        return f"{missing.name} is {another}" if skipped else f"{missing.name} cannot be opened"
    places = len(missing.attempts)
    if skipped:
        passed_over = f"{skipped[0].path} is {another}, and was passed over"
        return f"{passed_over}; nothing else was found in {places} places tried"
    return f"no file of that name in {places} places tried"
