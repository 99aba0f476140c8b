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
from dlwhy.elf.file import Elf
from dlwhy.errors import ElfError
from dlwhy.loader.bind import Definition
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.host import RTLD_GLOBAL, RTLD_LAZY, RTLD_NOLOAD
from dlwhy.loader.link_map import LIBRARY, LOADED
from dlwhy.loader.musl.dso import Dso, Tables
from dlwhy.loader.musl.mapping import Refused, map_library, reclaim_gaps
from dlwhy.loader.musl.memory import SIGSEGV
from dlwhy.loader.musl.releases import strerror
from dlwhy.loader.musl.relocate import Relocator, relr, text
from dlwhy.loader.musl.search import Finder, Opened, is_builtin
from dlwhy.loader.process import SearchRecord
from dlwhy.loader.tls import Segment
from dlwhy.loader.unresolved import Gap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader import tls
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.objects import Objects
    from dlwhy.view import View

_VDSO = "linux-gate.so.1"
"""The name by which musl keeps what the kernel maps into every process."""
_OUT_OF_MEMORY = 1 << 46
_LOW = 1 << 40
"""Nothing of an object that the kernel places lies below."""
_LATE = "its TLS came with {when}, and musl gives fixed places to what is there at the start only"


class Space:
    """The objects in load order: musl has one namespace."""

    __slots__ = ("maps", "number")

    def __init__(self) -> None:
        self.number = 0
        self.maps: list[LinkMap] = []


class MuslProcess:
    """A process as musl sees it."""

    tells_all = True

    def __init__(self, settings: ProcessSettings, objects: Objects) -> None:
        self.settings, self.objects = settings, objects
        self.libc = settings.libc
        self.machine = settings.machine
        self.finder = Finder(settings, objects)
        self.base = Space()
        self.namespaces = [self.base]
        self.symbols: list[Dso] = []
        """Objects whose symbols are global, in the order of lookup."""
        self.static: tls.StaticTls | None = None
        self.static_count = 0
        """Modules with TLS that the start laid out (static_tls_cnt)."""
        self.tls_count = 0
        self.errno: int | None = 0
        """What the last failure left; None when the host may have changed it since."""
        self.searches: list[SearchRecord] = []
        self.notices: list[str] = []
        self.assumptions: list[str] = []
        self.lines: list[Fault] = []
        """What a start has told so far; each ends it with status 127, once everything else was tried."""
        self.gaps: list[Gap] = []
        self.absent: set[str] | None = None
        """Names that nothing was found for, where that stops nothing; None: it stops a load."""
        self.open_calls = False
        self.surplus = self.start_used = 0
        self.lacking = None
        self.when = "startup"
        self.started = False
        self.rtld: Dso | None = None
        self.program: Dso | None = None
        self.forced: dict[int, list[tuple[LinkMap, LinkMap, bytes, int]]] = {}
        self.ignored: list[Dso] = []
        """Objects with DT_RELR, which this release does not apply."""
        self._step = 0
        self._why = ""
        """What was wrong with the last file that was refused."""
        self._noload = False
        self._first: Fault | None = None
        """The first symbol that a dlopen did not find; what else is missing is listed before it ends."""

    # -- reporting -----------------------------------------------------------------------------------------------

    def words(self) -> str:
        """What %m says now. Raises `Unknown` where errno is the host's."""
        if self.errno is None:
            raise Unknown("what the program left in errno, which the loader's sentence ends in", "search")
        return strerror(self.errno)

    def report(self, fault: Fault, subject: Dso | None = None) -> None:
        """error(): the end of a dlopen; a start goes on. Raises `Fault`."""
        if subject is not None:
            fault.subject = subject.shown
        if self.started:
            raise self._first or fault
        self.lines.append(fault)

    def missing(self, of: Dso, name: str) -> None:
        """Report a symbol that nothing defines; a dlopen looks at the rest first, to list all of them."""
        self.gaps.append(Gap(name, None, of.shown, None, False))
        fault = Fault(
            "undefined-symbol", "relocate", f"Error relocating {of.shown}: {name}: symbol not found",
            because=f"{name} is defined by no object whose symbols are global",
        )  # fmt: skip
        fault.subject = of.shown
        if not self.started:
            self.lines.append(fault)
        elif self._first is None:
            self._first = fault

    def refuse_late(self, of: Dso, definer: Dso, name: str | None, kind: int) -> None:
        """Refuse an initial-exec access to the TLS of what was loaded late. Raises `Fault`, `Unknown`."""
        if self._first is not None:
            raise self._first
        if name is None:
            what = f"what the loader calls a variable of {of.shown} that has no name, before any that has one"
            raise Unknown(f"{what}: it refuses the load in such words, or dies of them", "relocate")
        why = _LATE.format(when=self.when)
        words = (
            f"Error relocating {of.shown}: {name}: initial-exec TLS resolves to dynamic definition in {definer.shown}"
        )
        fault = Fault("static-tls-late", "relocate", words, because=why)
        fault.subject = definer.shown
        if of is not definer:
            fault.needed_by = of.shown
        self.forced.setdefault(self._step, []).append((of, definer, name.encode("utf-8", "surrogateescape"), kind))
        raise fault

    # -- loading -------------------------------------------------------------------------------------------------

    @property
    def dsos(self) -> list[Dso]:
        """The objects in load order, the program first."""
        return self.base.maps  # type: ignore[return-value]

    def load_library(self, name: str, needed_by: Dso | None, type_: str) -> Dso | None:
        """Return the object that a name means, loaded now or before; None leaves `errno`. Raises `Death`, `Unknown`."""
        asker = needed_by.shown if needed_by is not None and needed_by is not self.program else None

        def keep(path: str | None, how: str, attempts: tuple[object, ...] = ()) -> None:
            self.searches.append(SearchRecord(name, asker, path, how, attempts))  # type: ignore[arg-type]

        rtld = self.rtld
        assert rtld is not None
        if not name:
            self.errno = 22
            keep(None, "missing")
            return None
        if is_builtin(name) or name == self.finder.loader_name:
            if not any(one is rtld for one in self.dsos):
                self.base.maps.append(rtld)
            keep(rtld.shown, "built into the loader")
            return rtld
        if "/" not in name:
            found = next((one for one in self.dsos[1:] if one.shortname == name), None)
            if found is not None:
                keep(found.shown, "already loaded")
                return found
            if name == _VDSO and self.started:
                raise Unknown(f"what the kernel gives as {_VDSO}", "search")
        opened = self.finder.find(name, needed_by)
        if opened.errno is not None:
            self.errno = opened.errno
        if opened.view is None:
            keep(None, "missing", tuple(opened.attempts))
            return None
        known = self._by_inode(name, opened)
        if known is not None:
            keep(known.shown, opened.where, tuple(opened.attempts))
            return known
        made = None if self._noload else self._map(name, opened, needed_by, type_)
        keep(made.shown if made is not None else None, opened.where if made is not None else "refused",
             tuple(opened.attempts))  # fmt: skip
        return made

    def _by_inode(self, name: str, opened: Opened) -> Dso | None:
        assert opened.view is not None
        for one in self.dsos[1:]:
            if one.identity == opened.view.identity:
                if one.shortname is None and opened.path != name:
                    one.shortname = one.shown.rpartition("/")[2]
                return one
        return None

    def _map(self, name: str, opened: Opened, needed_by: Dso | None, type_: str) -> Dso | None:
        """Map a file that is not loaded yet. Raises `Death`, `Unknown`."""
        view = opened.view
        assert view is not None
        try:
            mapped = map_library(view, opened.path, self.settings, self.objects.grants, self._place_of_program())
            tables = Tables(mapped.memory, mapped.dyn, self.libc.dynamic_tags)
            made = Dso(opened.path, self._facts(view), type_, needed_by)
            made.memory, made.mapped, made.tables = mapped.memory, mapped, tables
            if self._is_libc(made):
                return self.load_library("libc.so", needed_by, type_)
            self._reserve(made)
        except Refused as refused:
            if refused.errno is not None:
                self.errno = refused.errno
            self._why = str(refused)
            return None
        if not self.started:
            reclaim_gaps(mapped.memory, mapped.headers, mapped.relro, self.settings.page)
        made.needed_by = needed_by
        made.how = opened.where
        made.identity = view.identity
        if opened.path != name:
            made.shortname = opened.path.rpartition("/")[2]
        self.base.maps.append(made)
        return made

    def _is_libc(self, made: Dso) -> bool:
        """Whether a file is a C library, which is never mapped a second time. Raises `Death`, `Unknown`."""
        return bool(made.find(b"__libc_start_main", True) and made.find(b"stdin", True))

    def _facts(self, view: View) -> Elf | None:
        """The file's facts for whoever explains it; None for what only musl takes for an ELF file."""
        try:
            elf = Elf(view)
            readable = bool(elf.phdrs)
        except ElfError:
            return None
        return elf if readable else None

    def _place_of_program(self) -> tuple[int, int] | None:
        """The addresses that a program of a fixed place covers; none of it for one that the kernel places."""
        program = self.program
        if program is None or program.elf is None or not program.elf.loads:
            return None
        if program.elf.type != 2:
            return (0, 0)
        loads = program.elf.loads
        return loads[0][3] & -4096, loads[-1][3] + loads[-1][6]

    def _reserve(self, made: Dso) -> None:
        """Give an object with TLS its number. Raises `Refused`, `Unknown`."""
        assert made.mapped is not None
        if made.mapped.tls is None:
            return
        image, _, size, align = made.mapped.tls
        if size >= _OUT_OF_MEMORY or align >= _OUT_OF_MEMORY:
            if self.started:
                raise Refused(12, "its TLS needs more memory than there is")
            raise Unknown(f"what a start makes of {size} bytes of TLS in {made.shown}", "map")
        if self.started and size + align >= 1 << 31:
            granted = self.objects.grants(size + align)
            if granted is None:
                raise Unknown(f"whether the kernel grants {size + align} bytes for the TLS of {made.shown}", "map")
            if not granted:
                raise Refused(12, "its TLS needs more memory than the kernel grants")
        self.tls_count += 1
        made.tls_id = made.module_id = self.tls_count
        made.tls = Segment(size, align, image & (align - 1) if align else 0)

    def load_deps(self, top: Dso) -> None:
        """Load what an object and all behind it in the list need. Raises `Fault`, `Death`, `Unknown`."""
        if top.deps is not None:
            return
        at = next(i for i, one in enumerate(self.dsos) if one is top)
        while at < len(self.dsos):
            self._direct(self.dsos[at])
            at += 1

    def _direct(self, of: Dso) -> None:
        if of.deps is not None:
            return
        of.deps = list(self.dsos[1:]) if of is self.program else []
        names = self._needs(of)
        for raw in names:
            name = text(raw)
            made = self.load_library(name, of, LOADED if self.started else LIBRARY)
            if made is None:
                if self.absent is not None:
                    self.absent.add(name)
                fault = Fault(
                    self._kind(), "search" if self._kind() == "not-found" else "map",
                    f"Error loading shared library {name}: {self.words()} (needed by {of.shown})",
                    because=self._because(name), needed_by=of.shown,
                )  # fmt: skip
                fault.subject = name
                self.report(fault)
                continue
            of.deps.append(made)
        of.direct = len(of.deps)

    def _needs(self, of: Dso) -> list[bytes]:
        if of.tables is None:  # `plain`
            return [b"libc.so"]
        assert of.memory is not None
        of.memory.stage = "depend"
        return of.tables.needed()

    def _kind(self) -> str:
        last = self.searches[-1]
        if not last.attempts or last.attempts[-1].result != "taken":
            return "not-found"
        return {8: "bad-header", 21: "unreadable"}.get(self.errno or 0, "bad-segments")

    def _because(self, name: str) -> str:
        last = self.searches[-1]
        if self._kind() != "not-found":
            return f"{last.attempts[-1].path} is not mapped: {self._why}"
        if "/" in name:
            return f"{name} cannot be opened"
        return f"no file of that name in {len(last.attempts)} places tried"

    def extend(self, top: Dso) -> None:
        """Make the list of an object's needs one of all that they need in turn (extend_bfs_deps)."""
        if top.bfs_built or top.deps is None:
            return
        seen = {id(one) for one in top.deps}
        for one in top.deps:  # it grows meanwhile
            for further in (one.deps or [])[: one.direct]:
                if id(further) not in seen:
                    seen.add(id(further))
                    top.deps.append(further)
        top.bfs_built = True

    def add_symbols(self, one: Dso) -> None:
        """Make an object's symbols global, behind all others (add_syms)."""
        if not one.globally:
            one.globally = True
            self.symbols.append(one)

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
