"""Objects: the loader's only door to files. Each file is opened once per run and its facts are kept.

Keyed by path; two paths of one file share the identity (device, inode) but keep a view each, as the loader opens both.
"""

from __future__ import annotations

from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError, FilesError
from dlwhy.loader.port import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine
    from dlwhy.files import Files
    from dlwhy.loader.bind import Binding
    from dlwhy.loader.cache import Cache
    from dlwhy.loader.glibc import Glibc
    from dlwhy.loader.relocate import Entry
    from dlwhy.loader.search import Found
    from dlwhy.loader.starts import Start
    from dlwhy.view import View


_VERSION = b" release version "
_KINDS = b") stable", b") development"
_OWNERS = b"GNU C Library (", b"ld.so ("
_NO_DIRECTORY = b" \t\n\r\v\f%:=\"'"
_LONGEST_DIRECTORY = 202
_LARGEST_RODATA = 1 << 22


def _banner(data: bytes) -> tuple[tuple[int, int], str] | None:
    """Return (release, banner) of "GNU C Library (BANNER) stable release version 2.36", None when it is nowhere."""
    place = data.find(_VERSION)
    while place >= 0:
        before = data[data.rfind(b"\n", 0, place) + 1 : place].rpartition(b"\0")[2]
        major, dot, rest = data[place + len(_VERSION) : place + len(_VERSION) + 16].partition(b".")
        minor = rest[: len(rest) - len(rest.lstrip(b"0123456789"))]
        for kind in _KINDS:
            owner, banner = _split(before.removesuffix(kind))
            if before.endswith(kind) and owner.endswith(_OWNERS) and dot and major.isdigit() and minor:
                return (int(major), int(minor)), banner.decode("ascii", "replace")
        place = data.find(_VERSION, place + 1)
    return None


def _split(text: bytes) -> tuple[bytes, bytes]:
    """What stands up to the last bracket that opens, and behind it; nothing where one that closes comes later."""
    left, bracket, right = text.rpartition(b"(")
    return (left + bracket, right) if b")" not in right else (b"", b"")


class LoaderFacts:
    """What the loader's own binary says about itself."""

    __slots__ = ("banner", "directories", "elf", "path", "release", "strings")

    def __init__(self, path: str, elf: Elf) -> None:
        self.path = path
        self.elf = elf
        self.strings = b""
        """Its read-only data: where marks of backports are looked for."""
        for row in elf.loads:
            if not row[1] & 2 and row[5] <= _LARGEST_RODATA:  # not writable
                data = b"".join(elf.view.around(b"/lib", row[2], row[5], whole=True))
                if b"/lib" in data:
                    self.strings += data
        self.release: tuple[int, int] | None = None
        self.banner: str | None = None
        told = _banner(self.strings)
        if told is not None:
            self.release, self.banner = told
        self.directories = _system_directories(self.strings)
        """The default search directories compiled in, each with a trailing slash; empty when they cannot be found."""


def _system_directories(data: bytes) -> tuple[str, ...]:
    """Return the loader's system_dirs: strings that end in '/', one behind the other, the first of a lib directory."""
    best: list[bytes] = []
    run: list[bytes] = []
    behind = -1  # the last name of the run
    slash = data.find(b"/\0")
    while slash >= 0:
        start = data.rfind(b"\0", 0, slash) + 1
        name = data[start : slash + 1]
        if start != behind:
            run = []
        if 2 < len(name) <= _LONGEST_DIRECTORY and name[:1] == b"/" and not any(byte in name for byte in _NO_DIRECTORY):
            run.append(name)
            if len(run) > len(best) and all(b"/lib" in one for one in run):
                best = list(run)
        behind = slash + 2
        slash = data.find(b"/\0", slash + 1)
    return tuple(name.decode("utf-8", "surrogateescape") for name in best)


class Objects:
    """Files and what was read from them, for one run."""

    __slots__ = (
        "_cache", "_cpu", "_elves", "_loaders", "_refused", "_views", "bindings", "cache_path", "cached", "files",
        "properties", "releases", "sound", "starts", "usual",
    )  # fmt: skip

    def __init__(self, files: Files) -> None:
        self.files = files
        self._views: dict[str, View] = {}
        self._refused: dict[str, FilesError] = {}
        self._elves: dict[str, Elf] = {}
        self._loaders: dict[str, LoaderFacts] = {}
        self._cache: Cache | None = None
        self._cpu: tuple[frozenset[str] | None, bool | None] | None = None
        self.bindings: dict[int, Binding] = {}
        """Symbol sides by id of their Elf: read once, whatever number of processes is modelled."""
        self.cached: dict[tuple[object, ...], str | None] = {}
        """What was looked up in ld.so.cache, by name and all that the answer depends on."""
        self.properties: dict[tuple[Elf, bool], tuple[int, int]] = {}
        """What property notes ask for, by file and whether PT_GNU_PROPERTY counts."""
        self.sound: dict[tuple[object, ...], object] = {}
        """Checks that a file passed, by file and all that they depend on: each is made once a run."""
        self.releases: dict[tuple[object, ...], Glibc] = {}
        """The rules of a loader, by what tells which they are: made once a run, as what is checked by them is."""
        self.starts: dict[Start, tuple[tuple[Entry, ...], ...]] = {}
        """By all that a start depends on: of each object the references that every process has to see."""
        self.usual: dict[tuple[object, ...], tuple[object, dict[str, Found]]] = {}
        """What names alone lead to, by all else that it depends on: each is looked up once a run."""
        self.cache_path = "/etc/ld.so.cache"

    def view(self, path: str) -> View:
        """Return the view of a file, opened once. Raises `FilesError` with the errno of open(2)."""
        found = self._views.get(path)
        if found is None:
            if path in self._refused:
                raise self._refused[path]
            try:
                found = self._views[path] = self.files.open(path)
            except FilesError as error:
                self._refused[path] = error
                raise
        return found

    def elf(self, path: str) -> Elf:
        """Return the facts of a file. Raises `FilesError` or `ElfError`."""
        found = self._elves.get(path)
        if found is None:
            found = self._elves[path] = Elf(self.view(path))
        return found

    def held(self) -> tuple[set[int], set[int]]:
        """Return the ids of the views, and of the facts, that are kept of files."""
        return {id(one) for one in self._views.values()}, {id(one) for one in self._elves.values()}

    def loader_facts(self, path: str) -> LoaderFacts:
        """Return what a loader binary says about itself. Raises `FilesError` or `ElfError`."""
        found = self._loaders.get(path)
        if found is None:
            found = self._loaders[path] = LoaderFacts(path, self.elf(path))
        return found

    def libc_release(self, path: str) -> tuple[tuple[int, int], str] | None:
        """Return (release, banner) as the libc at `path` tells them, or None."""
        try:
            elf = self.elf(path)
            for row in elf.loads:
                if row[5] > _LARGEST_RODATA:
                    continue
                for data in elf.view.around(_VERSION, row[2], row[5]):
                    told = _banner(data)
                    if told is not None:
                        return told
        except DlwhyError:
            pass
        return None

    def cache(self, machine: Machine) -> Cache:
        """Return ld.so.cache as a machine's loader reads it (an unusable one when there is none)."""
        if self._cache is None:
            from dlwhy.loader.cache import Cache

            try:
                view = self.view(self.cache_path)
                data = view.some(0, view.size)
            except DlwhyError:
                data = b""
            own = port(machine)
            self._cache = Cache(data, machine.data == 2, own.signed_char, own.cache_align)
        return self._cache

    def grants(self, size: int) -> bool | None:
        """Whether the kernel lets a process have `size` private bytes; None when that is not known.

        Linux mm/util.c, __vm_enough_memory: by default only what exceeds memory and swap together is refused.
        """
        try:
            mode = self.files.told("/proc/sys/vm/overcommit_memory").strip()
            words = self.files.told("/proc/meminfo").split()
            total = 1024 * sum(int(words[words.index(name) + 1]) for name in (b"MemTotal:", b"SwapTotal:"))
        except (DlwhyError, ValueError, IndexError):
            return None
        if mode == b"1":
            return True
        if mode != b"0" or total // 2 < size <= total:  # releases of the kernel differ on what is nearly all
            return None
        return size <= total

    def cpu(self) -> tuple[frozenset[str] | None, bool | None]:
        """Return what /proc/cpuinfo tells of the processor: (its flags, whether it is Intel's).

        None for what it does not tell, as on a machine that is no x86.
        """
        if self._cpu is None:
            vendor: bool | None = None
            flags: frozenset[str] | None = None
            try:
                text = self.files.told("/proc/cpuinfo").decode("ascii", "replace")
                for line in text.splitlines():
                    key, _, value = line.partition(":")
                    if key.strip() == "vendor_id" and vendor is None:
                        vendor = value.strip() == "GenuineIntel"
                    elif key.strip() == "flags" and flags is None:
                        flags = frozenset(value.split())
            except DlwhyError:
                pass
            self._cpu = (flags, vendor)
        return self._cpu
