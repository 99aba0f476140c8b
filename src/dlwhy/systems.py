"""Systems: what `--on` names, each with its files, its loaders and what was read of it for all files."""

from __future__ import annotations

import os
from functools import partial

from dlwhy.elf.machine import MACHINES, machine, machine_name
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.files import Files
from dlwhy.hosts.kept import KeptFiles
from dlwhy.hosts.profile import load, shipped
from dlwhy.loader.beside import Beside
from dlwhy.loader.faults import Unknown
from dlwhy.loader.objects import Objects
from dlwhy.overlay import Overlay
from dlwhy.question import surely_there

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dlwhy.loader.bind import Binding

ALL = "all"
_SYSROOT, _PROFILE = "sysroot:", "profile:"
_MUSL_LOADERS = "/lib", "ld-musl-", ".so.1"
_USUAL = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib32", "/usr/lib32")
"""Where loaders look by default whatever their binary says; with the multiarch directories of every machine."""


class Tree:
    """One tree of files of a system, and the machines that it has loaders for."""

    __slots__ = ("loaders", "objects", "small")

    def __init__(self, files: Files, own: Files, bindings: dict[int, Binding]) -> None:
        """`own` are the files of this machine."""
        objects = Objects(files)
        self.loaders: dict[tuple[int, int], str] = _loaders(objects)
        """(e_machine, EI_CLASS) -> the path of the loader that it has for it."""
        self.small = isinstance(files, KeptFiles) and files.of_packages
        """Whether it is made of a few packages, so that a larger system of that release has more libraries."""
        self.objects = Beside(Overlay(files, own, _defaults(objects, self.loaders.values())), objects, bindings)


class System:
    """One system: a tree of files; or one for each machine, as the profiles that come with dlwhy are."""

    __slots__ = ("_made", "_others", "first", "name", "word")

    def __init__(self, name: str, word: str, first: Tree, others: dict[str, Callable[[], Tree]]) -> None:
        """`name` heads its column, `word` is what was written; `others` are the trees of further machines by name."""
        self.name = name
        self.word = word
        self.first = first
        self._others = others
        self._made: dict[str, Tree] = {}

    @property
    def machines(self) -> tuple[str, ...]:
        """The names of the machines that it has loaders for."""
        return (*(machine_name(*key) for key in self.first.loaders), *self._others)

    @property
    def trees(self) -> tuple[Tree, ...]:
        """The trees that something was asked of."""
        return (self.first, *self._made.values())

    def tree(self, key: tuple[int, int] | None) -> Tree:
        """Return the tree for files of a machine, (e_machine, EI_CLASS): the first for those of none, or of others."""
        name = machine_name(*key) if key is not None and key not in self.first.loaders else None
        if name is None or name not in self._others:
            return self.first
        if name not in self._made:
            self._made[name] = self._others[name]()
        return self._made[name]


def _loaders(objects: Objects) -> dict[tuple[int, int], str]:
    """The loaders of a system: those of glibc where each psABI wants them, and musl's wherever it has no other."""
    found = {key: row.interp for key, row in MACHINES.items() if surely_there(row.interp, objects)}
    directory, head, tail = _MUSL_LOADERS
    try:
        names = objects.files.listing(directory)
    except (DlwhyError, Unknown):
        names = []
    for name in names:
        if name.startswith(head) and name.endswith(tail):
            try:
                elf = objects.elf(f"{directory}/{name}")
            except (DlwhyError, Unknown):
                continue
            if machine(elf.machine, elf.class_) is not None:
                found.setdefault((elf.machine, elf.class_), f"{directory}/{name}")
    return found


def _defaults(objects: Objects, loaders: Iterable[str]) -> frozenset[str]:
    """The directories in which the loaders of a system look by default, without a slash behind."""
    found = set(_USUAL)
    for row in MACHINES.values():
        found |= {f"/lib/{row.triplet}", f"/usr/lib/{row.triplet}"}
    for path in loaders:
        try:
            found |= {one.rstrip("/") for one in objects.loader_facts(path).directories}
        except (DlwhyError, Unknown):
            continue
    return frozenset(found)


def known() -> tuple[str, ...]:
    """Return the names of the systems that come with dlwhy, those with a number first."""
    names = {name for name in shipped() if not any(name.endswith(f"-{row.name}") for row in MACHINES.values())}
    return tuple(sorted(names, key=lambda name: name.replace("-", "~")))  # debian13, then debian-sid


def named(words: list[str], own: Files) -> list[System]:
    """Return the systems that `--on` names, in order. Raises `UsageError` for a word that names none."""
    bindings: dict[int, Binding] = {}
    made: list[System] = []
    every = [one for word in words for one in (known() if word == ALL else (word,))]
    for word in dict.fromkeys(every):
        name, files = _files(word)
        if any(one.name == name for one in made):
            name = word
        made.append(System(name, word, Tree(files, own, bindings), _others(word, own, bindings)))
    if not made:
        raise UsageError("--on: it names no system")
    return made


def _others(word: str, own: Files, bindings: dict[int, Binding]) -> dict[str, Callable[[], Tree]]:
    """Machine -> what makes its tree, of a system that comes with dlwhy for several."""
    there, given = shipped(), word.removeprefix(_PROFILE)
    names = {row.name: f"{given}-{row.name}" for row in MACHINES.values()} if given in there else {}
    return {machine: partial(_of_machine, name, own, bindings) for machine, name in names.items() if name in there}


def _of_machine(name: str, own: Files, bindings: dict[int, Binding]) -> Tree:
    return Tree(KeptFiles(load(name)), own, bindings)


def _files(word: str) -> tuple[str, Files]:
    """The name and the files of one system. Raises `UsageError`."""
    if word.startswith(_SYSROOT):
        root = word[len(_SYSROOT) :]
        if not os.path.isdir(root):
            raise UsageError(f"--on {word}: no such directory")
        return os.path.basename(os.path.abspath(root)) or "/", Files(root)
    if os.path.isdir(word):
        raise UsageError(f"--on {word}: a directory: write {_SYSROOT}{word}")
    given = word.removeprefix(_PROFILE)
    if given not in shipped() and not os.path.exists(given):
        names = f"{', '.join(known())} come with dlwhy; " if known() else ""
        raise UsageError(
            f"--on {word}: no such system: {names}write {_SYSROOT}DIR for one unpacked, or a profile's path"
        )
    return os.path.basename(given).removesuffix(".json"), KeptFiles(load(given))
