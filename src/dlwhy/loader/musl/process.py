"""MuslProcess: one process under musl, from its start through a sequence of dlopen, dlclose and dlsym.

The state is the loader's own: one list of objects in load order, one list of those whose symbols are global, the number
of modules with TLS that the start laid out. The methods are those of loader.process.Process, and their results too.
Sources: musl ldso/dynlink.c, load_library, load_deps, extend_bfs_deps, reloc_all, dlopen, do_dlsym.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DF_1_NOW,
    DF_BIND_NOW,
    DT_BIND_NOW,
    DT_FLAGS,
    DT_FLAGS_1,
    DT_INIT_ARRAY,
    DT_INIT_ARRAYSZ,
    DT_PLTRELSZ,
    DT_RELASZ,
    DT_RELR,
    DT_RELRSZ,
    DT_RELSZ,
    STT_TLS,
)
from dlwhy.loader.bind import Definition
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.host import RTLD_GLOBAL, RTLD_LAZY, RTLD_NOLOAD
from dlwhy.loader.link_map import LOADED
from dlwhy.loader.musl.dso import Dso
from dlwhy.loader.musl.loading import Loading, Space
from dlwhy.loader.musl.memory import SIGSEGV
from dlwhy.loader.musl.relocate import Relocator, relr, text
from dlwhy.loader.unresolved import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import SearchRecord

_LOW = 1 << 40
"""Nothing of an object that the kernel places lies below."""


class MuslProcess(Loading):
    """A process as musl sees it."""

    tells_all = True

    # -- dlopen --------------------------------------------------------------------------------------------------

    def dlopen(
        self,
        name: str,
        mode: int,
        caller: object,  # noqa: ARG002 -- musl has no use for them
        step: int,
        space: object = None,  # noqa: ARG002 -- musl has no use for them
    ) -> Dso:
        """dlopen: the handle. Raises `Fault`, `Death`, `Unknown`."""
        self._step = step
        self._noload = bool(mode & RTLD_NOLOAD)
        self._first = None
        before, symbols, count = len(self.dsos), len(self.symbols), self.tls_count
        try:
            return self._open(name, mode, symbols)
        except (Fault, Death, Unknown):
            for one in self.symbols[symbols:]:
                one.globally = False
            del self.symbols[symbols:]
            del self.base.maps[before:]
            self.tls_count = count
            raise
        finally:
            self._noload = False

    def _open(self, name: str, mode: int, symbols: int) -> Dso:
        top = self.load_library(name, self.program, LOADED)
        if top is None:
            if self._noload:
                raise Fault("not-found", "map", f"Library {name} is not already loaded", because=(
                    f"{name} is not loaded, and RTLD_NOLOAD loads nothing"))  # fmt: skip
            fault = Fault(
                self._kind(), "search" if self._kind() == "not-found" else "map",
                f"Error loading shared library {name}: {self.words()}", because=self._because(name),
            )  # fmt: skip
            fault.subject = name
            raise fault
        self.load_deps(top)
        self.extend(top)
        assert top.deps is not None
        if not top.relocated and mode & RTLD_LAZY:
            for one in (top, *top.deps):
                if not one.relocated:
                    self._prepare_lazy(one)
        if not top.relocated or mode & RTLD_GLOBAL:
            for one in (top, *top.deps):
                self.add_symbols(one)
        if not top.relocated:
            at = next(i for i, one in enumerate(self.dsos) if one is top)
            self.relocate(self.dsos[at:])
        if not mode & RTLD_GLOBAL:
            for one in self.symbols[symbols:]:
                one.globally = False
            del self.symbols[symbols:]
        self._redo_lazy()
        for one in self.dsos:
            if one.tls_id > self.static_count and not one.init_called:
                self.copy_image(one)
        top.searchlist.maps = [top, *(one for one in top.deps if one is not top)]
        order = queue(top)
        top.initfini = list(reversed(order))
        for one in order:
            if not one.init_called:
                self.check_constructors(one)
        for one in self.dsos:
            one.init_called = True
        return top

    def relocate(self, todo: list[Dso]) -> None:
        """Relocate objects in this order. Raises `Fault`, `Death`, `Unknown`."""
        relocator = Relocator(self)
        try:
            for one in todo:
                if not one.relocated and one.type != "ldso":
                    relocator.object(one)
                one.relocated = True
        except (Fault, Death, Unknown):
            if self._first is not None:
                raise self._first from None
            raise
        if self._first is not None:
            raise self._first

    def _prepare_lazy(self, one: Dso) -> None:
        assert one.tables is not None
        tags = one.tables.tags
        if (
            tags.get(DT_BIND_NOW)
            or tags.get(DT_FLAGS, 0) & DF_BIND_NOW
            or (one.tables.first(DT_FLAGS_1) or 0) & DF_1_NOW
        ):
            return
        count = (tags.get(DT_RELSZ, 0) // 2 + tags.get(DT_RELASZ, 0) // 3 + tags.get(DT_PLTRELSZ, 0) // 2 + 1) % (
            1 << 64
        )
        if count * 24 >= 1 << 47:
            self.errno = 12
            raise Fault(
                "bad-segments", "relocate", f"Error preparing lazy relocation for {one.shown}: {self.words()}",
                because="its relocation tables claim more entries than there is memory",
            )  # fmt: skip
        if count * 24 >= 1 << 31 and not self.objects.grants(count * 24):
            raise Unknown(
                f"whether the kernel grants {count * 24} bytes for the relocations of {one.shown}", "relocate"
            )
        one.deferred = []
        one.lazy = True

    def _redo_lazy(self) -> None:
        """Try again what lazy loads left open, in what is global now (redo_lazy_relocs)."""
        relocator = Relocator(self)
        for one in self.dsos:
            if one.deferred:
                left = []
                for place, kind, index in one.deferred:
                    assert one.tables is not None
                    name = one.tables.name(one.tables.symbol(index))
                    if relocator.definition(name, kind) is None:
                        left.append((place, kind, index))
                    elif one.memory is not None:  # a slot that RELRO has protected meanwhile kills
                        one.memory.stage = "relocate"
                        one.memory.write(place, 8)
                one.deferred = left
            if one.deferred is not None and not one.deferred:
                one.deferred = None
                one.lazy = False
        self.open_calls = any(one.deferred for one in self.dsos if not one.init_called)

    def copy_image(self, one: Dso) -> None:
        """The image of a module's TLS is copied for each thread. Raises `Death`, `Unknown`."""
        assert one.mapped is not None
        assert one.memory is not None
        if one.mapped.tls is None:
            return
        image, length, size, align = one.mapped.tls
        one.memory.stage = "init"
        if align == 0 and self.started:  # the image is taken for the block itself
            if length:
                one.memory.write(image, min(length, size) or 1)
        elif length > size:
            raise Unknown(f"what lies behind the TLS of {one.shown} in memory: its image has {length} bytes", "init")
        if length:
            one.memory.read(image, length) if length <= 1 << 28 else self._touch(one, image, length)

    def check_constructors(self, one: Dso) -> None:
        """Raise `Death` for constructors that are called where they were linked to, since DT_RELR was not applied."""
        if self.libc.relr or one.tables is None or one.memory is None or one.type == "ldso":
            return
        start, size = one.tables.first(DT_RELR), one.tables.first(DT_RELRSZ)
        first, length = one.tables.tags.get(DT_INIT_ARRAY), one.tables.tags.get(DT_INIT_ARRAYSZ, 0)
        if start is None or not size or size % 8:
            return
        one.memory.stage = "init"
        places = set(relr(one.memory, start, size))
        self.ignored.append(one)
        slots = [] if first is None else range(first, first + length, 8)
        if any(place in places and 0 < one.memory.u64(place) < _LOW for place in slots):
            raise one.memory.killed(
                SIGSEGV, f"musl {self.libc.text} does not apply its DT_RELR, so that a constructor is called at the "
                "address that it was linked to",
            )  # fmt: skip

    def _touch(self, one: Dso, image: int, length: int) -> None:
        raise Unknown(f"what {length} bytes of TLS at {image:#x} of {one.shown} hold", "init")

    # -- the rest ------------------------------------------------------------------------------------------------

    def new_namespace(self, name: str) -> Space:
        """musl has no dlmopen. Raises `Unknown`."""
        raise Unknown(f"how a program opens {name} in another namespace under musl, which has no dlmopen")

    def dlclose(self, handle: Dso) -> list[LinkMap]:
        """dlclose: nothing is ever unloaded."""
        del handle
        return []

    def dlsym(self, handle: Dso | None, name: str) -> Definition:
        """dlsym(handle, name), of the global list for None or the program. Raises `Fault`, `Death`, `Unknown`."""
        raw = name.encode("utf-8", "surrogateescape")
        among = self.symbols if handle is None or handle is self.program else [handle, *(handle.deps or [])]
        for one in among:
            if one.memory is not None:
                one.memory.stage = "none"
            found = one.find(raw, False)
            if found is not None:
                if found[2] & 15 == STT_TLS and not one.tls_id:
                    raise Unknown(f"what a thread-local symbol of {one.shown} leads to, which has no TLS")
                return Definition(one, found[4], found[5], found[2] & 15, 0, found[3])
        why = f"{name} is defined by none of {len(among)} objects"
        raise Fault("undefined-symbol", "none", f"Symbol not found: {name}", because=why)

    def map_object(
        self, name: str, loader: Dso, type_: str, mode: int, space: object, by_dlopen: bool, needed_by: Dso | None
    ) -> Dso:
        """Load one name without what it needs, for whoever draws a tree. Raises `Fault`, `Death`, `Unknown`."""
        del mode, space, by_dlopen
        found = self.load_library(name, needed_by if needed_by is not None else loader, type_)
        if found is None:
            by = f" (needed by {needed_by.shown})" if needed_by is not None else ""
            words = f"Error loading shared library {name}: {self.words()}{by}"
            raise Fault(self._kind(), "search", words, because=self._because(name))
        return found

    def look_for(self, name: str, caller: object) -> SearchRecord:  # noqa: ARG002 -- musl has no use for it
        """Return where dlopen finds a name; nothing is loaded. Raises `Fault`, `Death`, `Unknown`."""
        self._noload = True
        try:
            found = self.load_library(name, self.program, LOADED)
        finally:
            self._noload = False
        record = self.searches[-1]
        taken = record.attempts[-1] if record.attempts and record.attempts[-1].result == "taken" else None
        if found is None and taken is None:
            raise Fault(
                self._kind(), "search", f"Error loading shared library {name}: {self.words()}",
                because=self._because(name),
            )  # fmt: skip
        return record if found is not None or taken is None else record.but(path=taken.path, how=taken.where)

    def list_gaps(self, among: list[LinkMap], lazy: bool) -> None:  # noqa: ARG002 -- the shape of glibc's
        """Add to `gaps` what lazy loads left open; what stops a load is there already."""
        for one in among:
            if isinstance(one, Dso) and one.deferred and one.tables is not None:
                for _, _, index in one.deferred:
                    name = text(one.tables.name(one.tables.symbol(index)))
                    self.gaps.append(Gap(name, None, one.shown, None, True))

    def slots_left_open(self, of: LinkMap) -> dict[int, tuple[str, Fault | Death]]:
        """Return slot -> (name, what its first call comes to) of what a lazy load left open in an object."""
        if not isinstance(of, Dso) or of.tables is None:
            return {}
        result: dict[int, tuple[str, Fault | Death]] = {}
        for place, _, index in of.deferred or []:
            name = text(of.tables.name(of.tables.symbol(index)))
            why = (
                f"{of.shown} calls {name}, which nothing defines: the slot leads nowhere, and SIGSEGV kills the process"
            )
            result[place] = (name, Death("undefined-symbol", "none", why, None, -11, of.shown))
        return result


def queue(top: Dso) -> list[Dso]:
    """The order of constructors: depth first, what is needed before who needs it (queue_ctors)."""
    done: list[Dso] = []
    marked = {id(top)}
    stack: list[tuple[Dso, int]] = [(top, 0)]
    while stack:
        one, at = stack.pop()
        needs = (one.deps or [])[: one.direct]
        while at < len(needs) and id(needs[at]) in marked:
            at += 1
        if at < len(needs):
            stack.append((one, at))
            marked.add(id(needs[at]))
            stack.append((needs[at], 0))
        else:
            done.append(one)
    return done
