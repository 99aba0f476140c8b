"""LinkMap: one loaded object, with the fields of glibc's struct link_map that decide anything (include/link.h)."""

from __future__ import annotations

from dlwhy.elf.constants import DT_RPATH, DT_RUNPATH
from dlwhy.loader.tls import Segment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.bind import Binding

EXECUTABLE, LIBRARY, LOADED = "executable", "library", "loaded"
"""How an object came in: the program, with the program, or by dlopen (l_type)."""

DYNAMIC = "forced dynamic"
"""l_tls_offset of an object whose TLS was used dynamically before a static place was asked for."""


class Scope:
    """A list of objects searched in order (struct r_scope_elem). Mutable: the global one grows."""

    __slots__ = ("maps", "owner")

    def __init__(self, owner: LinkMap, maps: list[LinkMap] | None = None) -> None:
        self.owner = owner
        """Whose list it is; it goes away with its owner."""
        self.maps: list[LinkMap] = maps if maps is not None else []


class LinkMap:
    """One loaded object. Mutable: it is the loader's own state."""

    __slots__ = (
        "_soname", "binding", "brings_lists", "depth", "elf", "flags_1", "forced_by", "global_", "how", "identity",
        "init_called", "initfini", "isa_needed", "lazy", "loader", "module_id", "name", "names", "namespace",
        "needed_1", "needed_by", "nodelete", "opened", "origin", "path_lists", "program_name", "reldeps",
        "relocated", "request", "scopes", "searchlist", "soname_added", "static_since", "tls", "tls_before",
        "tls_offset", "type", "versions_checked",
    )  # fmt: skip

    needed_names: tuple[str, ...] | None = None
    """What it needs, where the loader's own reader tells it; None: its `elf` does."""

    def __init__(self, name: str, request: str, elf: Elf | None, type_: str, loader: LinkMap | None) -> None:
        self.name = name
        """l_name: the path under which it was opened; "" for the program."""
        self.request = request
        self.names: list[str] = [request]
        """Every name by which it was asked for (l_libname)."""
        self.elf = elf
        self.type = type_
        self.loader = loader
        """The object whose need brought it in; None for the program and for what dlopen asked for."""
        self.needed_by: LinkMap | None = loader
        self.how = ""
        """Where the search found it."""
        self.identity: tuple[int, int] | None = None
        dynamic = elf.dynamic if elf is not None else None
        self._soname: str | bool | None = False
        """False until it is read."""
        self.soname_added = False
        """Whether DT_SONAME is among `names`, or there is none."""
        self.flags_1 = dynamic.flags_1 if dynamic is not None else 0
        self.brings_lists = dynamic is not None and (DT_RPATH in dynamic.tags or DT_RUNPATH in dynamic.tags)
        """Whether it has a DT_RPATH or DT_RUNPATH."""
        self.origin: str | None = None
        self.path_lists: dict[str, list[str]] = {}
        self.searchlist = Scope(self)
        """l_searchlist: the object and its dependencies, breadth-first; empty until it is opened itself."""
        self.initfini: list[LinkMap] = []
        """l_initfini: itself and its direct needs; after a dlopen of it, all dependencies in relocation order."""
        self.scopes: list[Scope] = []
        self.relocated = False
        self.versions_checked = False
        self.lazy = False
        """Whether calls of functions are bound when they are made first."""
        self.init_called = False
        self.isa_needed = self.needed_1 = 0
        """Bits of GNU_PROPERTY_X86_ISA_1_NEEDED and GNU_PROPERTY_1_NEEDED."""
        self.opened = 0
        """l_direct_opencount."""
        self.nodelete = False
        self.global_ = False
        self.reldeps: list[LinkMap] = []
        self.namespace = 0
        self.depth = 0
        self.binding: Binding | None = None
        segment = elf.tls if elf is not None else None
        self.tls: Segment | None = Segment(segment.memsz, segment.align, segment.first_byte) if segment else None
        self.tls_offset: int | str | None = None
        """Offset in the static block; DYNAMIC; None while undecided."""
        self.tls_before = 0
        """Bytes in use before it took its place (variant I gives them back)."""
        self.static_since = ""
        self.forced_by: LinkMap | None = None
        self.module_id = 0
        self.program_name = ""

    @property
    def soname(self) -> str | None:
        """DT_SONAME, read when it is compared with something, as the loader does. Raises `ElfError`."""
        if self._soname is False:
            dynamic = self.elf.dynamic if self.elf is not None else None
            self._soname = dynamic.soname if dynamic is not None else None
        return self._soname  # type: ignore[return-value]

    @property
    def shown(self) -> str:
        """The object as messages name it: its path, the program as argv[0] (DSO_FILENAME)."""
        return self.name or self.program_name

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` means this object (elf/dl-load.c, _dl_map_object and _dl_name_match_p)."""
        if name == self.name or name in self.names:  # has_name, without a call: every object is asked for every name
            return True
        if self.soname_added:
            return False
        own = self.soname if self._soname is False else self._soname
        if own != name:
            self.soname_added = own is None or own in self.names  # then there is no further name to compare
            return False
        self.names.append(name)
        self.soname_added = True
        return True

    def has_name(self, name: str) -> bool:
        """Whether `name` is the object's path or one it was asked for by (_dl_name_match_p)."""
        return name == self.name or name in self.names

    def add_name(self, name: str) -> None:
        """Remember another name (add_name_to_object)."""
        if name not in self.names:
            self.names.append(name)

    def __repr__(self) -> str:
        return f"<LinkMap {self.shown!r}>"
