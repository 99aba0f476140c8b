"""Beside: the objects of one system, with files of this machine beside them whose facts serve several systems.

A file under test is opened and read once, whatever number of systems it is asked about; what was read of a system
serves every file that is asked about it.
"""

from __future__ import annotations

from dlwhy.loader.objects import LoaderFacts, Objects
from dlwhy.loader.starts import of_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.bind import Binding
    from dlwhy.loader.cache import Cache
    from dlwhy.overlay import Overlay
    from dlwhy.view import View


class Beside(Objects):
    """Objects of a system, each path taken to whoever has the file."""

    __slots__ = ("_caches", "overlay", "own", "system")

    def __init__(self, overlay: Overlay, system: Objects, bindings: dict[int, Binding]) -> None:
        """`system` holds what was read of the system; `bindings` may be shared by all systems of a run."""
        super().__init__(overlay)
        self.overlay = overlay
        self.system = system
        self.own = Objects(overlay.own)
        self._caches: dict[tuple[int, int], Cache] = {}
        self.bindings = self.system.bindings = bindings

    def examine(self, own: Objects, *paths: str) -> None:
        """Turn to other files of this machine: absolute paths, and the objects that their facts are kept in."""
        self.own = own
        self.overlay.examine(*paths)
        self.usual.clear()  # a path that the cache leads to may be another's file now

    def leave(self) -> None:
        """Forget what was found out of files of this machine."""
        views, elves = self.own.held()
        for number in elves:
            self.bindings.pop(number, None)
        gone = views | elves
        self.sound = {key: held for key, held in self.sound.items() if key[0] not in gone}
        self.properties = {key: held for key, held in self.properties.items() if id(key[0]) not in elves}
        self.starts = {key: told for key, told in self.starts.items() if not of_files(key, elves)}
        self.own = Objects(self.overlay.own)

    def _place(self, path: str) -> tuple[Objects, str]:
        files, there = self.overlay.place(path)
        return self.own if files is self.overlay.own else self.system, there

    def view(self, path: str) -> View:
        """Return the view of a file, opened once. Raises `FilesError` with the errno of open(2)."""
        objects, there = self._place(path)
        return objects.view(there)

    def elf(self, path: str) -> Elf:
        """Return the facts of a file. Raises `FilesError` or `ElfError`."""
        objects, there = self._place(path)
        return objects.elf(there)

    def loader_facts(self, path: str) -> LoaderFacts:
        """Return what a loader binary says about itself. Raises `FilesError` or `ElfError`."""
        objects, there = self._place(path)
        return objects.loader_facts(there)

    def cache(self, machine: Machine) -> Cache:
        """Return the system's ld.so.cache as the loader of that machine reads it."""
        key = machine.e_machine, machine.elf_class
        if key not in self._caches:
            objects = Objects(self.overlay.system) if self._caches else self.system
            self._caches[key] = objects.cache(machine)
        return self._caches[key]

    def cpu(self) -> tuple[frozenset[str] | None, bool | None]:
        """Return what is known of the processor, as `Objects.cpu`."""
        return self.system.cpu()

    def grants(self, size: int) -> bool | None:
        """Whether the kernel grants so many bytes, as `Objects.grants`."""
        return self.system.grants(size)
