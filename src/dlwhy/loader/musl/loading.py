"""Loading: from names to objects in memory, and the lists that a process keeps of them.

Sources: musl ldso/dynlink.c, load_library, load_direct_deps, extend_bfs_deps, add_syms, error.
"""

from __future__ import annotations

from dlwhy.elf.file import Elf
from dlwhy.errors import ElfError
from dlwhy.loader.faults import Fault, Unknown
from dlwhy.loader.link_map import LIBRARY, LOADED
from dlwhy.loader.musl.dso import Dso, Tables
from dlwhy.loader.musl.mapping import Refused, map_library, reclaim_gaps
from dlwhy.loader.musl.releases import strerror
from dlwhy.loader.musl.relocate import text
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
_LATE = "its TLS came with {when}, and musl gives fixed places to what is there at the start only"


class Space:
    """The objects in load order: musl has one namespace."""

    __slots__ = ("maps", "number")

    def __init__(self) -> None:
        self.number = 0
        self.maps: list[LinkMap] = []


class Loading:
    """The half of a process that finds, maps and lists objects, and says what goes wrong with that."""

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
        self.errno = 0
        """What the last failure left, which nobody resets."""
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
        """What %m says now."""
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
            what = f"what the loader calls a variable of {of.shown} that has no name"
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
        return {8: "bad-header", 21: "unreadable"}.get(self.errno, "bad-segments")

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
