"""Process: one modelled process, from its start through a sequence of dlopen, dlclose and dlsym.

The state is the loader's own: link maps per namespace, scopes, the static TLS block. Each public method is one call of
the loader's interface and returns what happened as a value; inside, errors travel as the loader throws them (`Fault`),
and a failed call leaves behind exactly what the real one leaves behind.
Sources: glibc elf/rtld.c dl_main, elf/dl-deps.c, elf/dl-open.c, elf/dl-reloc.c, elf/dl-close.c.
"""

from __future__ import annotations

from dlwhy.elf.constants import DF_1_NODELETE, DT_AUXILIARY, DT_FILTER, DT_NEEDED, PT_GNU_RELRO
from dlwhy.elf.relocs import split_info
from dlwhy.errors import ElfError, FilesError
from dlwhy.loader import tls
from dlwhy.loader.bind import (
    Binding,
    Definition,
    Lookup,
    binding,
    check_versions,
    is_lazy,
    resolve,
    wanted_names,
)
from dlwhy.loader.faults import NEAR, Death, Fault, Unknown
from dlwhy.loader.host import RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_LAZY, RTLD_NODELETE, RTLD_NOLOAD, RTLD_NOW
from dlwhy.loader.image import Image
from dlwhy.loader.link_map import DYNAMIC, EXECUTABLE, LIBRARY, LOADED, LinkMap, Scope
from dlwhy.loader.mapping import check_hash, check_segments, died_reading, verify, wants_execstack
from dlwhy.loader.relocate import Work, work
from dlwhy.loader.search import Attempt, Finder, Missing
from dlwhy.loader.sort import depth_first, selection
from dlwhy.loader.tokens import has_token
from dlwhy.loader.tunables import DEFAULTS, Reading
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf
    from dlwhy.loader.glibc import Glibc
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.objects import Objects
    from dlwhy.view import View

_LARGE_SORT = 1 << 16
_NAMESPACES = 16
"""Namespaces of one process, the first one included (DL_NNS)."""


class SearchRecord(Record):
    """How one name became an object, or did not."""

    name: str
    needed_by: str | None
    path: str | None
    how: str
    attempts: tuple[Attempt, ...]


class Namespace:
    """The objects of one namespace in link-map order."""

    __slots__ = ("global_scope", "libc", "maps", "number", "unique")

    def __init__(self, number: int) -> None:
        self.number = number
        self.maps: list[LinkMap] = []
        self.libc: LinkMap | None = None
        self.unique: dict[bytes, Definition] = {}


class Process:
    """A process as the loader sees it."""

    def __init__(self, settings: ProcessSettings, objects: Objects) -> None:
        self.settings = settings
        self.objects = objects
        self.libc = settings.libc
        self.machine = settings.machine
        facts = objects.loader_facts(settings.interpreter)
        self.finder = Finder(settings, objects, facts.directories)
        text = "" if settings.secure else settings.env.get("GLIBC_TUNABLES", "")
        reading: Reading = settings.libc.read_tunables(text) if text else Reading(DEFAULTS, ())
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
        return verify(view, path, self.settings)

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
        for one in space.maps:
            try:
                is_it = one.answers_to(name)
            except ElfError as error:
                raise died_reading(error, "search") from None
            if is_it:
                self.searches.append(SearchRecord(name, asker, one.shown, "already loaded", ()))
                return one
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
                because=_why_missing(missing),
            ) from None  # fmt: skip
        except Fault as fault:
            self.searches.append(SearchRecord(name, asker, None, "broken", ()))
            fault.needed_by = asker
            raise
        except ElfError as error:
            raise died_reading(error, "header") from None
        self.searches.append(SearchRecord(name, asker, found.path, found.where, found.attempts))
        for one in space.maps:
            if one.identity is not None and one.identity == found.view.identity:
                one.add_name(name)
                return one
        rtld = self.rtld
        if (
            space is not self.base
            and rtld is not None
            and (rtld.identity == found.view.identity or rtld.has_name(name))
        ):
            assert rtld.elf is not None
            mirror = self._new(found.path, name, rtld.elf, type_, needed_by, mode, space)
            mirror.relocated = mirror.versions_checked = True
            mirror.tls = None
            space.maps.append(mirror)
            return mirror
        if mode & RTLD_NOLOAD:
            return None
        absolute = found.path if found.path.startswith("/") else f"{self.settings.cwd.rstrip('/')}/{found.path}"
        elf = self.objects.elf(absolute)
        try:
            check_segments(elf, name, self.settings, by_dlopen)
            made = self._new(found.path, name, elf, type_, needed_by if by_dlopen or needed_by else loader, mode, space)
            self._check_stack(elf, name, by_dlopen)
            check_hash(elf, self.settings)
        except Fault as fault:
            fault.needed_by = asker
            fault.subject = found.path
            raise
        except ElfError as error:
            raise died_reading(error, "map") from None
        made.needed_by = needed_by
        made.how = found.where
        made.identity = found.view.identity
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
            made.binding = self.objects.bindings.setdefault(id(made.elf), Binding(made.elf, self.machine))
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

    # -- dependencies --------------------------------------------------------------------------------------------

    def map_dependencies(
        self, top: LinkMap, preloads: list[LinkMap], mode: int, space: Namespace, by_dlopen: bool
    ) -> None:
        """_dl_map_object_deps: load what `top` and the preloads need, breadth-first, and sort the result."""
        known: list[tuple[LinkMap, bool]] = [(one, False) for one in (top, *preloads)]
        failed: Fault | None = None
        try:
            self._walk(known, top, mode, space, by_dlopen)
        except Fault as fault:
            failed = fault  # what was found is listed all the same
        listed = [one for one, _ in known]
        top.searchlist.maps = listed
        if listed[0] is not top:
            if not self.libc.filters_of_the_top:
                expression = "map->l_searchlist.r_list[0] == map"
                raise _assertion(self.libc, "dl-deps.c", "_dl_map_object_deps", expression, "depend", top.shown)
            listed = [top, *(one for one in listed if one is not top)]
        if failed is not None:
            raise failed
        top.initfini = self._sorted(list(listed), pin_first=top is not space.libc)
        if top.reldeps:
            members = {id(one) for one in listed if one is not top}
            top.reldeps = [one for one in top.reldeps if id(one) not in members]

    def _walk(
        self, known: list[tuple[LinkMap, bool]], top: LinkMap, mode: int, space: Namespace, by_dlopen: bool
    ) -> None:
        """Grow `known`, (object, whether its needs are loaded), until all are; what one filters goes before it."""
        reached = {id(one) for one, _ in known}
        position = moves = 0
        while position < len(known):
            at, done = known[position]
            if done:
                position += 1
                continue
            known[position] = (at, True)
            direct: list[LinkMap] = []
            place = position
            for tag, name in self._needs(at):
                dependency = self._dependency(at, tag, name, mode, space, by_dlopen)
                if dependency is None:
                    continue
                direct.append(dependency)
                new = id(dependency) not in reached
                reached.add(id(dependency))
                if tag == DT_NEEDED:
                    if new:
                        known.append((dependency, False))
                    continue
                if not new:
                    late = next((i for i in range(place + 1, len(known)) if known[i][0] is dependency), -1)
                    if late < 0:
                        continue  # it stands in front already
                    del known[late]
                    moves += 1
                    if moves > len(known) ** 2 + 64:
                        why = f"{at.shown} and {dependency.shown} filter one another: the loader moves them until"
                        raise Death("signal", "depend", f"{why} its stack ends", None, -11, at.shown)
                known.insert(place, (dependency, False))
                place += 1
                space.maps.remove(dependency)
                space.maps.insert(next(i for i, one in enumerate(space.maps) if one is at), dependency)
            if at is not top and not at.initfini and (at.elf is None or at.elf.dynamic is not None):
                at.initfini = [at, *direct]

    def _needs(self, at: LinkMap) -> Iterator[tuple[int, str]]:
        """Yield (tag, name) of what an object needs or filters; each name is read when its turn comes."""
        if at.elf is None:  # `plain`: the program that needs only libc
            yield from self._plain_needs()
            return
        dynamic = at.elf.dynamic
        if dynamic is None:
            return
        for tag, offset in dynamic.lists:
            try:
                name = dynamic.string(offset)
            except ElfError as error:
                raise died_reading(error, "depend") from None
            yield tag, name

    def _dependency(
        self, at: LinkMap, tag: int, name: str, mode: int, space: Namespace, by_dlopen: bool
    ) -> LinkMap | None:
        """One need of an object, loaded; None for one that is passed over."""
        if self.settings.secure and has_token(name):
            raise Fault("not-found", "depend", "DST not allowed in SUID/SGID programs", name, needed_by=at.shown)
        expanded = self.finder.expand(name, at)
        if not expanded:
            if tag == DT_AUXILIARY:
                raise Fault("not-found", "depend", "empty dynamic string token substitution", name, needed_by=at.shown)
            return None
        try:
            type_ = at.type if at.type != EXECUTABLE else LIBRARY
            return self.map_object(expanded, at, type_, mode, space, by_dlopen, at)
        except Fault:
            if tag == DT_AUXILIARY:
                return None
            raise

    def _sorted(self, maps: list[LinkMap], pin_first: bool) -> list[LinkMap]:
        if len(maps) > _LARGE_SORT:
            raise Unknown(f"{len(maps)} objects are more than this model sorts", "depend")
        if self.libc.depth_first_sort and self.tunables.dynamic_sort == 2:
            return depth_first(maps, pin_first)
        return selection(maps, 1 if pin_first or not self.libc.depth_first_sort else 0)

    def _plain_needs(self) -> tuple[tuple[int, str], ...]:
        libc = "libc.so.6"
        return ((DT_NEEDED, "libdl.so.2"), (DT_NEEDED, libc)) if self.libc.dlopen_in_libdl else ((DT_NEEDED, libc),)

    # -- relocation ----------------------------------------------------------------------------------------------

    def relocate(self, todo: list[LinkMap], mode_lazy: bool, space: Namespace, step: int) -> None:
        """Relocate objects in order (_dl_relocate_object each). Raises the first `Fault`."""
        lookup = Lookup(self.machine, self.libc, space.unique)
        plans: list[tuple[LinkMap, Work]] = []
        wanted: set[bytes] = set()
        for one in todo:
            if one.elf is None:
                continue
            one.lazy = is_lazy(one, mode_lazy, self.profiling)
            plan = self._work(one)
            plans.append((one, plan))
            try:  # noqa: SIM105 -- contextlib costs a start-up more than this saves
                wanted |= wanted_names(one, [info for info, deferred in plan.entries if not deferred], self.machine)
            except ElfError:  # met again, in its place, when the reference is resolved
                pass
        scopes = {id(scope): scope for one in todo for scope in one.scopes}
        try:
            lookup.prepare(wanted, scopes.values())
        except ElfError as error:
            raise died_reading(error, "relocate") from None
        for one, plan in plans:
            try:
                for info, deferred in plan.entries:
                    self._apply(one, info, deferred, lookup, step)
            except ElfError as error:
                raise died_reading(error, "relocate") from None
            if plan.end is not None:
                raise plan.end
            self._protect(one)
            one.relocated = True
        for one in todo:
            one.relocated = True
        if self.started:
            for one in todo:
                if one.static_since == self.when:
                    self.initialise_tls(one)

    def _work(self, one: LinkMap) -> Work:
        assert one.elf is not None
        return work(one.elf, self.machine, self.libc, one.lazy, self.settings.page, one.type == EXECUTABLE)

    def _apply(self, of: LinkMap, info: int, deferred: bool, lookup: Lookup, step: int) -> None:
        assert of.elf is not None
        machine = self.machine
        index, kind = split_info(of.elf, info)
        if deferred:
            if kind in (machine.jump_slot, machine.irelative):
                return
            if kind not in machine.tlsdesc:
                raise Fault("bad-relocation", "relocate", f"unexpected PLT reloc type {_digits(kind)}", of.shown)
            if self.libc.lazy_descriptors:
                return
        if kind == machine.irelative or kind in (machine.relative, 0):
            return
        known = machine.supported
        if known and kind not in known:
            index_known = index == 0 or self._resolves(of, index, kind, lookup)
            assert index_known is not None
            raise Fault("bad-relocation", "relocate", f"unexpected reloc type {_digits(kind)}", of.shown)
        if index == 0:
            found: Definition | None = Definition(of, 0, 0, 0, 1)
            name = b""
        else:
            found, name, looked_up = resolve(of, index, kind, machine, lookup)
            if found is not None and looked_up and found.map is not of and found.map.type == LOADED:
                self._add_dependency(of, found.map)
        if found is None:
            return
        if kind == machine.copy:
            self._compare_copy(of, index, found, name)
        elif kind in machine.tpoff:
            self._need_static(of, found, name, kind, step)
        elif kind in machine.tlsdesc:
            self._try_static(of, found)

    def _compare_copy(self, of: LinkMap, index: int, found: Definition, name: bytes) -> None:
        """A copy relocation whose place is smaller than the original: the loader goes on, and says so."""
        own = binding(of, self.machine).symbol(index)[2]
        if found.size > own:
            text = name.decode("utf-8", "surrogateescape")
            words = f"Symbol `{text}' has different size in shared object, consider re-linking"
            self.notices.append(f"{self.settings.argv0}: {words}")

    def _resolves(self, of: LinkMap, index: int, kind: int, lookup: Lookup) -> bool:
        resolve(of, index, kind, self.machine, lookup)
        return True

    def _protect(self, of: LinkMap) -> None:
        """_dl_protect_relro: make what PT_GNU_RELRO names read-only (elf/dl-reloc.c)."""
        assert of.elf is not None
        if of.type == EXECUTABLE:
            return
        row = next((row for row in reversed(of.elf.phdrs) if row[0] == PT_GNU_RELRO), None)
        if row is None or not row[6]:
            return
        page = self.settings.page
        start, end = row[3] & -page, (row[3] + row[6]) & -page
        if start == end:
            return
        low = of.elf.loads[0][3] & -page
        high = of.elf.loads[-1][3] + of.elf.loads[-1][6]
        high += -high % page
        if low <= start < end <= high:
            return
        because = f"PT_GNU_RELRO covers {start:#x} to {end:#x}, and the object is mapped from {low:#x} to {high:#x}"
        if low - NEAR < start < high + NEAR:  # all mapped pages up to the first gap become read-only
            raise Unknown(f"what lies in the process beside {of.shown}: {because}", "relocate")
        text = "cannot apply additional memory protection after relocation"
        raise Fault("bad-segments", "relocate", text, of.shown, 12, because)

    @staticmethod
    def _add_dependency(of: LinkMap, on: LinkMap) -> None:
        """add_dependency (elf/dl-lookup.c): remember that `of` uses `on`, unless a need says so already."""
        if on.nodelete or any(one is on for one in of.initfini) or any(one is on for one in of.searchlist.maps):
            return
        if not any(one is on for one in of.reldeps):
            of.reldeps.append(on)

    def _need_static(self, of: LinkMap, found: Definition, name: bytes, kind: int, step: int) -> None:
        """CHECK_STATIC_TLS: the defining module must have, or now get, a place in the static block."""
        victim = found.map
        self.forced.setdefault(step, []).append((of, victim, name, kind))
        if isinstance(victim.tls_offset, int):
            return
        assert self.static is not None
        segment = victim.tls if victim.tls is not None else tls.Segment(0, 0, 0)
        text = "cannot allocate memory in static TLS block"
        if victim.tls_offset == DYNAMIC:
            kind_, because = (
                "static-tls-dynamic-in-use",
                "its TLS segment is already in use as dynamic TLS and cannot move",
            )
        elif segment.align > self.static.align:
            kind_ = "static-tls-alignment"
            because = (
                f"its TLS segment is aligned to {segment.align} bytes, "
                f"the static TLS block only to {self.static.align}; "
                "no size of the block changes that"
            )
        else:
            try:
                place = self.static.take(segment, optional=False)
            except ZeroDivisionError:
                raise _divides_by_zero(victim.shown) from None
            if place is not None:
                self._settle(victim, place, of)
                if (
                    victim.relocated
                    and victim.init_called
                    and victim.tls is not None
                    and self._used_dynamically(victim)
                ):
                    self.assumptions.append(
                        f"{victim.shown} was loaded earlier and has not touched its thread-local variables; had it, "
                        "this load would fail"
                    )
                return
            kind_ = "static-tls-exhausted"
            if self.lacking is None:
                self.lacking = (self.static.used, segment)
            because = (
                f"its TLS segment of {segment.memsz} bytes must go into the static TLS block, "
                f"where {self.static.free} bytes are left ({self._where_from()})"
            )
        fault = Fault(kind_, "relocate", text, victim.name, because=because)
        fault.subject = victim.shown
        fault.needed_by = of.shown if of is not victim else None
        raise fault

    def _where_from(self) -> str:
        """What the free bytes are made of: the surplus and the rounding of its end, less what latecomers took."""
        assert self.static is not None
        taken = self.static.used - self.start_used
        rounding = self.static.size - self.start_used - self.surplus
        text = f"{self.surplus} bytes of surplus and {rounding} of rounding"
        if not taken:
            return text
        late = [one for space in self.namespaces for one in space.maps if one.forced_by is not None]
        names = ", ".join(f"{one.shown} {one.tls.memsz}" for one in late if one.tls is not None)
        return f"{text}, less {taken} taken since the start: {names}" if names else f"{text}, less {taken} leaked since"

    @staticmethod
    def _used_dynamically(victim: LinkMap) -> bool:
        """Whether the object has dynamic accesses of its own that its code may have gone through already."""
        from dlwhy.elf.tls import tls_relocations

        assert victim.elf is not None
        try:
            return bool(tls_relocations(victim.elf).dtpmod)
        except ElfError:
            return True

    def _try_static(self, of: LinkMap, found: Definition) -> None:
        """TRY_STATIC_TLS: a descriptor takes a static place when the optional budget allows; else it stays dynamic."""
        victim = found.map
        if victim.tls_offset is not None or self.static is None:
            return
        segment = victim.tls if victim.tls is not None else tls.Segment(0, 0, 0)
        if segment.align > self.static.align:
            return
        try:
            place = self.static.take(segment, optional=True)
        except ZeroDivisionError:
            raise _divides_by_zero(victim.shown) from None
        if place is not None:
            self._settle(victim, place, of)

    def _settle(self, victim: LinkMap, place: tuple[int, int], by: LinkMap) -> None:
        victim.tls_offset, victim.tls_before = place
        victim.static_since = self.when
        victim.forced_by = by

    # -- the static block ----------------------------------------------------------------------------------------

    def lay_out_tls(self, auditors: int) -> None:
        """init_tls: fix the size of the static block and place every object loaded so far."""
        libc, machine = self.libc, self.machine
        optional = self.tunables.optional_static_tls if libc.tls_tunables else 512
        nns = self.tunables.nns if libc.tls_tunables else 4
        if libc.tls_tunables and auditors > 16 - nns:
            text = f"Failed loading {auditors} audit modules, {16 - nns} are supported."
            raise Death("audit", "none", text, text, 127)
        self.surplus = libc.surplus(nns, auditors, optional)
        mapped = [one for one in self.base.maps if one.tls is not None]
        segments = tuple(one.tls for one in mapped if one.tls is not None)
        rseq = None
        if libc.rseq_block:
            size, align = self.settings.rseq if self.tunables.rseq else (0, 0)
            align = max(align, 32)
            rseq = (
                tls.round_up(max(size, 32), align) if self.tunables.rseq else 32,
                align if self.tunables.rseq else 32,
            )
        start = {"aarch64": 16, "arm": 8}.get(machine.name, 0)
        try:
            layout = tls.lay_out(
                segments, machine.variant, start, libc.least_tls_align[machine.e_machine], self.surplus, rseq
            )
        except ZeroDivisionError:
            guilty = next(one.shown for one in mapped if one.tls is not None and not one.tls.align)
            raise _divides_by_zero(guilty) from None
        if layout.size >= 1 << 46:
            raise Unknown(f"a static TLS block of {layout.size} bytes; whether this system can give it is not known")
        self.static = tls.StaticTls(layout, machine.variant, optional if libc.tls_tunables else None)
        self.start_used = layout.used
        for one, offset in zip(mapped, layout.offsets, strict=True):
            one.tls_offset = offset
            one.static_since = "startup"

    def initialise_tls(self, of: LinkMap) -> None:
        """Copy an object's image into the block (elf/dl-tls.c, _dl_allocate_tls_init and _dl_init_static_tls)."""
        segment = of.elf.tls if of.elf is not None else None
        if segment is None or not isinstance(of.tls_offset, int) or of.elf is None:
            return
        if segment.filesz > segment.memsz:
            if self.started:
                why = f"the {segment.filesz} bytes of its TLS image overwrite behind the {segment.memsz} of the segment"
                raise Unknown(f"what {of.shown} spoils: {why}", "relocate")
            expression = "map->l_tls_blocksize >= map->l_tls_initimage_size"
            raise _assertion(self.libc, "dl-tls.c", "_dl_allocate_tls_init", expression, "relocate", of.shown)
        if segment.filesz and of.type != EXECUTABLE:
            image = Image(of.elf, self.settings.page)
            image.touch(segment.vaddr, segment.filesz, False, "the TLS image is copied", "relocate")

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
            self._undo(before, space)
            raise
        return top

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
        old_initfini, old_search = top.initfini, top.searchlist.maps
        self.map_dependencies(top, [], mode & RTLD_DEEPBIND, space, True)
        try:
            for one in top.searchlist.maps:
                if not one.versions_checked and one.elf is not None:
                    check_versions(one, space.maps, self.libc, self.settings.argv0, None, [])
                    one.versions_checked = True
            self._check_properties(top)
            self.relocate(
                self._relocation_order(top, space), bool(mode & RTLD_LAZY) and not self._bind_now(), space, step
            )
        except (Fault, Death, Unknown):
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

    def _bind_now(self) -> bool:
        return bool(self.settings.env.get("LD_BIND_NOW")) and not self.settings.secure

    def _make_global(self, top: LinkMap, space: Namespace) -> None:
        main = space.maps[0].searchlist
        for one in top.searchlist.maps:
            if not one.global_:
                one.global_ = True
                main.maps.append(one)

    def _check_properties(self, top: LinkMap) -> None:
        """_dl_open_check: processor levels that the objects need, last of the load list first."""
        if not self.libc.isa_level_checked or self.machine.name != "x86-64":
            return
        for one in reversed(top.searchlist.maps):
            if not one.init_called:
                self.check_level(one)

    def check_level(self, one: LinkMap) -> None:
        """Raise `Fault` when an object's property note needs a level that the processor lacks."""
        if one.elf is None:
            return
        from dlwhy.loader.properties import isa_needed

        try:
            needed = isa_needed(one.elf)
        except ElfError as error:
            raise died_reading(error, "property") from None
        if needed:
            levels = len(self.finder.levels())
            have = (1 << (levels + 1)) - 1
            if needed & ~have:
                raise Fault(
                    "isa-level", "property", "CPU ISA level is lower than required", one.shown,
                    because=f"it needs x86-64-v{needed.bit_length()}, and the processor has x86-64-v{levels + 1}",
                )  # fmt: skip

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

    def _undo(self, before: list[LinkMap], space: Namespace) -> None:
        """What a failed dlopen gives back: everything it loaded, its static TLS by the rules of dlclose."""
        kept = {id(one) for one in before}
        new = [one for one in space.maps if id(one) not in kept]
        for one in new:
            one.nodelete = False  # pending only: it takes effect when the call succeeds
        if new:
            self._collect(space)

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
        return self._collect(self.namespaces[handle.namespace])

    def _check_handle(self, handle: LinkMap) -> None:
        """Raise `Unknown` for a handle whose object is gone: the memory behind it is free, and may be anything."""
        if not any(one is handle for one in self.namespaces[handle.namespace].maps):
            raise Unknown(f"what stands in freed memory: {handle.shown} was unloaded, and its handle is used once more")

    def _collect(self, space: Namespace) -> list[LinkMap]:
        """_dl_close_worker: unload what nothing uses any more and give its static TLS back."""
        used: set[int] = set()
        todo = [one for one in space.maps if one.type != LOADED or one.opened or one.nodelete]
        while todo:
            one = todo.pop()
            if id(one) in used:
                continue
            used.add(id(one))
            todo += [*one.initfini[1:], *one.reldeps]
        if all(id(one) in used for one in space.maps):
            return []
        order = list(space.maps)
        if self.libc.depth_first_sort and self.tunables.dynamic_sort == 2:
            order = depth_first(order, space is self.base, for_fini=True)
        else:
            order = selection(order, 1 if space is self.base else 0, for_fini=True)
        gone = [one for one in order if id(one) not in used]
        blocks = [
            (one.tls_offset, one.tls.memsz, one.tls_before)
            for one in gone
            if isinstance(one.tls_offset, int) and one.tls
        ]
        if self.static is not None:
            self.static.give_back(blocks)
        dead = {id(one) for one in gone}
        space.maps = [one for one in space.maps if id(one) not in dead]
        for one in space.maps:
            one.scopes = [
                scope for scope in one.scopes if id(scope.owner) not in dead or one is scope.owner
            ]
            one.reldeps = [other for other in one.reldeps if id(other) not in dead]
        if space.maps:
            main = space.maps[0].searchlist
            main.maps = [one for one in main.maps if id(one) not in dead]
        for name in [name for name, definition in space.unique.items() if id(definition.map) in dead]:
            del space.unique[name]
        if space.libc is not None and id(space.libc) in dead:
            space.libc = None
        return gone

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

    def open_call(self, among: list[LinkMap]) -> tuple[LinkMap, bytes] | None:
        """Return (object, name) of the first call that lazy binding left to these objects and that would be the end.

        Raises `ElfError` for a table that leaves its file.
        """
        lookups: dict[int, Lookup] = {}
        for of in among:
            if not of.lazy or of.elf is None:
                continue
            lookup = lookups.get(of.namespace)
            if lookup is None:
                lookup = lookups[of.namespace] = Lookup(self.machine, self.libc, self.namespaces[of.namespace].unique)
            calls = [info for info, deferred in self._work(of).entries if deferred]
            lookup.prepare(wanted_names(of, calls, self.machine), of.scopes)
            for info in calls:
                index, kind = split_info(of.elf, info)
                if kind == self.machine.jump_slot:
                    try:
                        resolve(of, index, kind, self.machine, lookup)
                    except (Fault, Death):
                        return of, of.elf.symbols.symbol(index).name
        return None


def _digits(kind: int) -> str:
    """A relocation type as _dl_reloc_bad_type writes it (elf/dl-reloc.c)."""
    return f"0x{kind:02x}" if kind <= 0xFF else f"0x{kind:08x}"


def _assertion(libc: Glibc, file: str, function: str, expression: str, stage: str, path: str) -> Death:
    """An assertion of the loader (elf/…, __assert_fail); the source line stands for any."""
    text = libc.assertion(file, function, expression)
    return Death("assertion", stage, f"the loader asserts that {expression}", text, 127, path)


def _divides_by_zero(path: str) -> Death:
    """An alignment of 0 is divided by: SIGFPE (glibc elf/dl-tls.c, elf/dl-reloc.c)."""
    why = f"{path} has a TLS segment with alignment 0, and the loader divides by it"
    return Death("signal", "relocate", why, None, -8, path)


def _why_missing(missing: Missing) -> str:
    skipped = [attempt for attempt in missing.attempts if attempt.result == "wrong machine"]
    if "/" in missing.name:
        return f"{missing.name} is for another machine" if skipped else f"{missing.name} cannot be opened"
    places = len(missing.attempts)
    if skipped:
        passed_over = f"{skipped[0].path} is for another machine and was passed over"
        return f"{passed_over}; nothing else was found in {places} places tried"
    return f"no file of that name in {places} places tried"


__all__ = ["DT_FILTER", "FilesError", "Namespace", "Process", "SearchRecord"]
