"""From a name to a file: lists of places in the loader's order, every try kept (glibc elf/dl-load.c, _dl_map_object).

Rule 1: the order stands in `Finder._places`, once.
Rule 2: a search never ends in "not found" without the list of what was tried.
"""

from __future__ import annotations

import errno as codes

from dlwhy.elf.constants import DF_1_NODEFLIB
from dlwhy.elf.machine import EM_X86_64
from dlwhy.errors import FilesError
from dlwhy.loader.faults import Fault, Unknown, strerror
from dlwhy.loader.link_map import EXECUTABLE
from dlwhy.loader.port import port
from dlwhy.loader.tokens import expand, has_token, names_origin, origin_leads, plain_path
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.loader.cpu import Processor
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.objects import Objects
    from dlwhy.loader.processors import Model
    from dlwhy.view import View

_OTHER_CLASS = "wrong ELF class"
_OTHER_MACHINE = "wrong machine"


class Attempt(Record):
    """One path tried."""

    path: str
    where: str
    result: str


class Found(Record):
    """A file that the loader takes."""

    path: str
    where: str
    view: View
    attempts: tuple[Attempt, ...]


class Missing(Exception):
    """Nothing found: what was tried, and the errno of the last attempt."""

    def __init__(self, name: str, attempts: list[Attempt], errno: int, other_class: bool) -> None:
        super().__init__(name)
        self.name, self.attempts, self.errno, self.other_class = name, tuple(attempts), errno, other_class


_LEGACY = ("tls", "x86_64", "avx512_1", "haswell", "xeon_phi")
"""With which names the directories may begin that releases up to 2.36 search within another."""
_MOST_DIRECTORIES = 4096
"""Directories of one search path that are looked into: each is tried for each name, and every try is kept."""


class Finder:
    """The search lists of one process."""

    __slots__ = (
        "_absent",
        "_asked_cache",
        "_cpu",
        "_directory",
        "_env",
        "_foreign",
        "_guarded",
        "_hwcaps",
        "_models",
        "_objects",
        "_settings",
        "_shared",
        "_system",
        "_tokens",
        "open_error",
        "remembers",
    )

    def __init__(self, settings: ProcessSettings, objects: Objects, system: tuple[str, ...]) -> None:
        self._settings = settings
        self._objects = objects
        self._system = [d if d.endswith("/") else d + "/" for d in system]
        self._cpu: Processor | None = None
        self._hwcaps: tuple[str, ...] | None = None
        self._directory: dict[str, bool] = {}
        self._absent: set[str] = set()
        """Directories that turned out not to exist (r_search_path_elem.status)."""
        self._asked_cache = False
        self.remembers = True
        """Whether such a directory is kept in mind, as it is for all but auditors."""
        self.open_error = 0
        """The loader's own errno, which nobody resets between searches."""
        self._env: list[str] | None = None
        self._guarded = False
        self._tokens: dict[str, str | None] | None = None
        self._shared: dict[str, Found] | None = None
        self._foreign = settings.machine.e_machine != EM_X86_64
        """Whether the processor is one of loader.processors, and none of loader.cpu."""
        self._models: list[Model] | None = None

    # -- tokens and lists ----------------------------------------------------------------------------------------

    def origin(self, of: LinkMap) -> str | None:
        """Return $ORIGIN of an object: the directory of the path that opened it, made absolute, links not followed."""
        if of.origin is None and of.name:
            path = of.name if of.name.startswith("/") else f"{self._settings.cwd.rstrip('/')}/{of.name}"
            of.origin = path.rpartition("/")[0] or "/"
        return of.origin

    def _values(self, text: str, of: LinkMap) -> dict[str, str | None]:
        library = "lib/" + self._settings.machine.triplet
        first = self._system[0] if self._system else ""
        if self._settings.machine.triplet not in first:  # not a multiarch system: LIB is lib64 or lib
            library = "lib64" if "lib64" in first else "lib"
        values = {"ORIGIN": self.origin(of), "LIB": library}
        if "PLATFORM" in text:
            values["PLATFORM"] = self.platform()
        return values

    def expand(self, text: str, of: LinkMap) -> str | None:
        """Return `text` with its tokens replaced as for `of`; None when one has no value, or is not to be trusted.

        In secure mode $ORIGIN counts only at the start of a path and, of the program, only where it leads below a
        default directory (elf/dl-load.c, _dl_dst_substitute).
        """
        if not has_token(text):
            return text
        if not self._settings.secure or not names_origin(text):
            return expand(text, self._values(text, of))
        if not origin_leads(text):
            return None
        result = expand(text, self._values(text, of))
        if result is None or of.type != EXECUTABLE:
            return result
        return result if any(plain_path(result).startswith(place) for place in self._system) else None

    def platform(self) -> str | None:
        """AT_PLATFORM, or the name that glibc puts in its place on some processors; None without. Raises `Unknown`."""
        if not self._foreign:
            return self._make()[0] or "x86_64"
        told = {model.platform for model in self._among()}
        if len(told) > 1:
            raise Unknown("which processor it is, after which $PLATFORM is named (name it with --cpu)", "search")
        return told.pop() if told else None

    def split(self, text: str, separators: str, of: LinkMap | None) -> list[str]:
        """Return the directories of a path list, each with a trailing slash, duplicates dropped (fillin_rpath)."""
        for other in separators[1:]:
            text = text.replace(other, separators[0])
        result: dict[str, None] = {}
        for item in text.split(separators[0]):
            place: str | None = item
            if of is not None:
                place = self.expand(item, of)
            if place is None or (not place and item):
                continue
            directory = "/" if place and not place.strip("/") else place.rstrip("/") + "/" if place else ""
            result[directory] = None
            if len(result) > _MOST_DIRECTORIES:
                raise Unknown(f"what a search path of more than {_MOST_DIRECTORIES} directories leads to", "search")
        return list(result)

    def path_list(self, of: LinkMap, kind: str) -> list[str]:
        """Return the directories of DT_RPATH or DT_RUNPATH of an object; empty when it has none that counts."""
        known = of.path_lists.get(kind)
        if known is None:
            dynamic = of.elf.dynamic if of.elf is not None else None
            text = None
            if dynamic is not None:
                text = dynamic.runpath if kind == "RUNPATH" else dynamic.rpath if dynamic.runpath is None else None
            known = of.path_lists[kind] = self.split(text, ":", of) if text else []
        return known

    def environment_list(self, program: LinkMap) -> list[str]:
        """Return the directories of LD_LIBRARY_PATH, or of --library-path, which replaces it."""
        if self._env is None:
            text = self._settings.library_path
            if text is None:
                text = "" if self._settings.secure else self._settings.env.get("LD_LIBRARY_PATH", "")
            self._env = self.split(text, ":;", program) if text else []
        return self._env

    # -- subdirectories for processor levels ---------------------------------------------------------------------

    def cpu(self) -> Processor:
        """Return the processor of the process: the one that was named, else the one that dlwhy runs on."""
        if self._cpu is None:
            from dlwhy.loader.cpu import named, processor

            name = self._settings.cpu
            self._cpu = (named(name) if name is not None else None) or processor(*self._objects.cpu())
        return self._cpu

    def _masks(self) -> str:
        """GLIBC_TUNABLES, where it may take something away from the processor."""
        text = "" if self._settings.secure else self._settings.env.get("GLIBC_TUNABLES", "")
        return text if "hwcaps" in text else ""

    def _left(self, cpu: Processor) -> Processor:
        """What GLIBC_TUNABLES leaves of a processor for searching. Raises `Unknown`."""
        text = self._masks()
        if not text:
            return cpu
        from dlwhy.loader.cpu import switched_off

        return cpu.but_without(switched_off(text, self._settings.libc))

    def _hwcap_names(self) -> tuple[str, ...]:
        """Return the glibc-hwcaps names that are searched, best first. Raises `Unknown`."""
        if self._hwcaps is None:
            from dlwhy.loader.cpu import directories

            self._hwcaps = directories(self._left(self.cpu()))
        return self._hwcaps

    def _is_directory(self, path: str) -> bool:
        known = self._directory.get(path)
        if known is None:
            known = self._objects.files.kind(self.absolute(path) or "/") == "directory"
            self._directory[path] = known
        return known

    def _subdirectories(self, directory: str, name: str) -> Iterator[str]:
        """Where in a directory a name is looked for. Raises `Unknown` where that depends on what is not known."""
        libc = self._settings.libc
        if self._foreign:
            yield from self._of_models(directory, name, self._among())
            yield ""
            return
        if libc.glibc_hwcaps and self._is_directory(directory + "glibc-hwcaps"):
            yield from self._named(directory, name)
        if libc.legacy_hwcaps and any(self._is_directory(directory + one) for one in _LEGACY):
            yield from self._legacy(directory, name)
        yield ""

    def _of_models(self, directory: str, name: str, among: list[Model]) -> list[str]:
        """The subdirectories on machines that have rows of processors. Raises `Unknown` where those differ."""
        libc = self._settings.libc
        lists = [model.subdirectories(libc) for model in among]
        heads = {sub.partition("/")[0] for every in lists for sub in every}
        if not any(self._is_directory(directory + head) for head in heads):
            return []
        if libc.legacy_hwcaps and self._masked():
            raise Unknown("which hwcap names LD_HWCAP_MASK, or its tunable, leaves to be searched", "search")
        there = [[sub for sub in every if self._exists(directory + sub + name)] for every in lists]
        if any(one != there[0] for one in there):
            raise Unknown("which processor it is, and so which subdirectories count (name it with --cpu)", "search")
        return lists[0] if len(lists) == 1 else there[0]

    def _among(self) -> list[Model]:
        """What the processor may be, on another machine than x86-64."""
        if self._models is None:
            from dlwhy.loader.processors import models

            self._models = models(self._settings.machine.e_machine, self._settings.cpu, self._objects.cpu)
        return self._models

    def _agreed(self, level: str) -> int | None:
        """Where a glibc-hwcaps name stands on every processor that it may be. Raises `Unknown`."""
        found = set()
        for model in self._among():
            names = model.known_levels(self._settings.libc)
            found.add(names.index(level) + 1 if level in names else None)
        if len(found) > 1:
            raise Unknown(f"whether the processor is {level} or better (name it with --cpu)", "search")
        return found.pop() if found else None

    def _exists(self, path: str) -> bool:
        return self._objects.files.exists(self.absolute(path))

    def _named(self, directory: str, name: str) -> list[str]:
        """The glibc-hwcaps subdirectories. Raises `Unknown` where the processor is not known, and matters."""
        try:
            return [f"glibc-hwcaps/{level}/" for level in self._hwcap_names()]
        except Unknown:
            from dlwhy.loader.cpu import LEVELS

            if any(self._exists(f"{directory}glibc-hwcaps/{level}/{name}") for level, _ in LEVELS[1:]):
                raise
            return []

    def _legacy(self, directory: str, name: str) -> list[str]:
        """The subdirectories of one directory that older releases search. Raises `Unknown` where makers differ."""
        from dlwhy.loader.cpu import MAKES

        try:
            return self._subsets(*self._make())
        except Unknown:
            there = [[sub for sub in self._subsets(*make) if self._exists(directory + sub + name)] for make in MAKES]
            if any(one != there[0] for one in there):
                raise
            return there[0]

    def _subsets(self, platform: str | None, wide: bool) -> list[str]:
        """Every subset of {tls, platform, hwcap names}, largest first (elf/dl-hwcaps.c, _dl_important_hwcaps)."""
        names = [name for name in self._settings.libc.hwcap_names if name != "avx512_1" or wide]
        order = ["tls", platform or "x86_64", *reversed(names)]
        return [
            "/".join(name for i, name in enumerate(order) if bits >> (len(order) - 1 - i) & 1) + "/"
            for bits in range((1 << len(order)) - 1, 0, -1)
        ]

    def _make(self) -> tuple[str | None, bool]:
        """What this release makes of the processor: (platform name in place of the kernel's, whether avx512_1)."""
        if not self._settings.libc.intel_platform:
            return None, False
        if self._settings.libc.cache_words and self._masked():
            raise Unknown("which hwcap names LD_HWCAP_MASK, or its tunable, leaves to be searched", "search")
        from dlwhy.loader.cpu import intel_names

        return intel_names(self._left(self.cpu()))

    def _masked(self) -> bool:
        """Whether the names that older releases search are masked."""
        env = {} if self._settings.secure else self._settings.env
        return bool(env.get("LD_HWCAP_MASK")) or "hwcap_mask=" in env.get("GLIBC_TUNABLES", "")

    # -- the search itself ---------------------------------------------------------------------------------------

    def absolute(self, path: str) -> str:
        """Return a path as the process has it from its root."""
        return path if path.startswith("/") else f"{self._settings.cwd.rstrip('/')}/{path}"

    def open(self, path: str, where: str, attempts: list[Attempt], verify: Verifier) -> View | None:
        """Open and verify one candidate (open_verify): its view, or None for one to pass over.

        Raises `Fault` for a file that stops the search.
        """
        try:
            view = self._objects.view(self.absolute(path))
        except FilesError as error:
            self.open_error = error.errno
            attempts.append(Attempt(path, where, strerror(error.errno)))
            return None
        try:
            verdict = verify(view, path)
        except Fault as fault:
            attempts.append(Attempt(path, where, fault.text + (f": {strerror(fault.errno)}" if fault.errno else "")))
            raise
        if verdict is not None:
            self.open_error = codes.ENOENT
            attempts.append(Attempt(path, where, verdict))
            return None
        if self._guarded and where != "path" and not self._objects.files.set_user_id(self.absolute(path)):
            self.open_error = codes.ENOENT
            attempts.append(Attempt(path, where, "has no set-user-ID bit, as a preload in secure mode needs"))
            return None
        attempts.append(Attempt(path, where, "found"))
        self.open_error = 0
        return view

    def _places(self, loader: LinkMap, program: LinkMap) -> Iterator[tuple[str, list[str]]]:
        """The lists in order: (what to call it, directories); a cache hit is a list of one, marked by its name."""
        dynamic = loader.elf.dynamic if loader.elf is not None else None
        if dynamic is None or dynamic.runpath is None:
            at: LinkMap | None = loader
            did_program = False
            while at is not None:
                directories = self.path_list(at, "RPATH")
                if directories:
                    yield f"RPATH of {at.shown}", directories
                    did_program |= at is program
                at = at.loader
            if not did_program:
                directories = self.path_list(program, "RPATH")
                if directories:
                    yield f"RPATH of {program.shown}", directories
        directories = self.environment_list(program)
        if directories:
            yield "--library-path" if self._settings.library_path is not None else "LD_LIBRARY_PATH", directories
        directories = self.path_list(loader, "RUNPATH")
        if directories:
            yield f"RUNPATH of {loader.shown}", directories
        yield "ld.so.cache", []
        if not loader.flags_1 & DF_1_NODEFLIB:
            yield "default directory", self._system

    def _usual(self, loader: LinkMap, program: LinkMap) -> dict[str, Found] | None:
        """What every process finds in the cache by a name alone, where no path list of this one comes before it."""
        at: LinkMap | None = loader
        while at is not None:
            if at.brings_lists:
                return None
            at = at.loader
        if program.brings_lists or self.environment_list(program) or loader.flags_1 & DF_1_NODEFLIB:
            return None
        if self._shared is None:
            settings = self._settings  # which stay alive, and keep their numbers
            key = id(settings.libc), id(settings.machine), settings.cpu, self._masks(), settings.interpreter
            self._shared = self._objects.usual.setdefault(key, (settings, {}))[1]
        return self._shared

    def find(self, name: str, loader: LinkMap, program: LinkMap, verify: Verifier, guarded: bool = False) -> Found:
        """Return the file that `name` means when `loader` asks for it. Raises `Missing` or `Fault`.

        `guarded`: a preload or auditor in secure mode, which is not looked up in the cache, and whose file must have
        the set-user-ID bit (__RTLD_SECURE).
        """
        attempts: list[Attempt] = []
        self._guarded = guarded
        usual = self._usual(loader, program) if not guarded else None
        if usual is not None and name in usual:
            self._asked_cache = True
            self.open_error = 0
            return usual[name]
        if "/" in name:
            path = self.expand(name, loader)
            if path is None:
                raise Missing(name, attempts, codes.ENOENT, False)
            view = self.open(path, "path", attempts, verify)
            if view is not None:
                return Found(path, "path", view, tuple(attempts))
            raise self._missing(name, attempts)
        if not self._system:
            raise Unknown("the loader's default directories could not be read from its binary", "search")
        for where, directories in self._places(loader, program):
            if where == "ld.so.cache" and guarded:
                continue
            if where == "ld.so.cache":
                hit = self._cached(name, loader)
                if hit is None:
                    attempts.append(Attempt(self._objects.cache_path, where, "no such name in it"))
                    continue
                view = self.open(hit, where, attempts, verify)
                if view is None:
                    continue
                found = Found(hit, where, view, tuple(attempts))
                if usual is not None:
                    usual[name] = found
                return found
            elsewhere = self._open_path(name, where, directories, attempts, verify)
            if elsewhere is not None:
                return elsewhere
        raise self._missing(name, attempts)

    def machine_of(self, path: str) -> str:
        """What a file that was passed over for its machine is for, as a sentence says it."""
        from dlwhy.elf.machine import machine_name

        head = self._objects.view(self.absolute(path)).head
        return machine_name(int.from_bytes(head[18:20], "big" if head[5] == 2 else "little"), head[4])

    def _missing(self, name: str, attempts: list[Attempt]) -> Missing:
        other_class = any(attempt.result == _OTHER_CLASS for attempt in attempts)
        return Missing(name, attempts, self.open_error, other_class)

    def _open_path(
        self, name: str, where: str, directories: list[str], attempts: list[Attempt], verify: Verifier
    ) -> Found | None:
        for directory in directories:
            there = False
            for sub in self._subdirectories(directory, name):
                place = directory + sub
                if place in self._absent:  # known not to exist: not tried again, and errno stays what it was
                    attempts.append(Attempt(place + name, where, strerror(codes.ENOENT)))
                    continue
                view = self.open(place + name, where, attempts, verify)
                if view is not None:
                    return Found(place + name, where, view, tuple(attempts))
                # a relative directory may be another one later
                if place.startswith("/") and self.remembers and not self._is_directory(place):
                    self._absent.add(place)
                else:
                    there = True
            passed_over = (codes.ENOENT, codes.EACCES) + (
                (codes.ENOTDIR,) if self._settings.libc.enotdir_goes_on else ()
            )
            if there and self.open_error not in passed_over:
                return None
        return None

    def _cached(self, name: str, loader: LinkMap) -> str | None:
        machine, libc = self._settings.machine, self._settings.libc
        cache, first = self._objects.cache(machine), not self._asked_cache
        self._asked_cache = True
        if first and cache.missing:
            self.open_error = codes.ENOENT
        flags = port(machine).cache_flags
        held = self._settings.cpu, self._masks(), self._masked()
        key = name, flags, libc.glibc_hwcaps, libc.cache_words, libc.hwcap_names, held
        if key not in self._objects.cached:
            hit = cache.look_up(name, flags, self._priority, self._legacy_entry)
            self._objects.cached[key] = hit.path if hit is not None else None
        path = self._objects.cached[key]
        if path is None:
            return None
        if loader.flags_1 & DF_1_NODEFLIB and any(path.startswith(directory) for directory in self._system):
            return None
        return path

    def _priority(self, name: str, level: int) -> int | None:
        """Where a glibc-hwcaps name stands; None for one that is not searched, or that needs a level too high."""
        if not self._settings.libc.glibc_hwcaps:
            return None
        if self._foreign:
            return self._agreed(name)
        from dlwhy.loader.cpu import has_level

        names = self._hwcap_names()
        return names.index(name) + 1 if name in names and has_level(self.cpu(), 1 << level) else None

    def _legacy_entry(self, word: int) -> bool:
        """Whether an entry with a legacy hwcap word is taken: bit 63 tls, from bit 48 on platforms, low ones names."""
        libc = self._settings.libc
        if not libc.cache_words:
            return False
        rest = word & ~(1 << 63)
        if not rest:
            return True
        if self._foreign:
            raise Unknown(f"whether the processor has what the entry of ld.so.cache with {rest:#x} is for", "search")
        from dlwhy.loader.cpu import HWCAPS, PLATFORMS

        bits = {name: 1 << HWCAPS.index(name) for name in libc.hwcap_names}
        mask = 15 << 48 if bits else 0
        if rest & ~(mask | sum(bits.values())):
            return False
        platform, wide = (None, False) if rest == bits["x86_64"] and not self._masked() else self._make()
        if rest & bits["avx512_1"] and not wide:
            return False
        return rest & mask in (0, 1 << 48 + PLATFORMS.index(platform) if platform is not None else 0)


if TYPE_CHECKING:
    from collections.abc import Callable

    Verifier = Callable[[View, str], str | None]
    """Returns None for a file to take, a reason for one to pass over; raises Fault for one that ends the search."""
