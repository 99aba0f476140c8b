"""From a name to a file as musl looks for it (ldso/dynlink.c, load_library, path_open, fixup_rpath)."""

from __future__ import annotations

from dlwhy.errors import DlwhyError, FilesError
from dlwhy.loader.faults import Fault, Unknown
from dlwhy.loader.musl.releases import PORTS, strerror
from dlwhy.loader.search import Attempt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.musl.dso import Dso
    from dlwhy.loader.objects import Objects
    from dlwhy.view import View

ENOENT, EACCES, ENOTDIR, ENAMETOOLONG = 2, 13, 20, 36
_GO_ON = frozenset((ENOENT, ENOTDIR, EACCES, ENAMETOOLONG))
_PATH_BUFFER = 512
"""Bytes that a path made of a directory and a name may have, its end included (2*NAME_MAX+2)."""
_LONGEST_NAME = 255
_DEFAULT = "/lib:/usr/local/lib:/usr/lib"
_RESERVED = ("c.", "pthread.", "rt.", "m.", "dl.", "util.", "xnet.")
_MOST_DIRECTORIES = 4096


def is_builtin(name: str) -> bool:
    """Whether a name stands for the loader itself, whatever follows: libc., libm. and their like."""
    return name.startswith("lib") and name[3:].startswith(_RESERVED)


def _directories(path: str | None) -> list[str]:
    return [one for one in (path or "").replace("\n", ":").split(":") if one]


class Opened:
    """What a search came to: a file, or the errno that the last try left (None: no try was made)."""

    __slots__ = ("attempts", "errno", "path", "view", "where")

    def __init__(self) -> None:
        self.view: View | None = None
        self.path = self.where = ""
        self.errno: int | None = None
        self.attempts: list[Attempt] = []


class Finder:
    """The search lists of one process."""

    __slots__ = ("_objects", "_settings", "_system", "loader_name")

    def __init__(self, settings: ProcessSettings, objects: Objects) -> None:
        self._settings, self._objects = settings, objects
        self._system: str | None = None
        self.loader_name = settings.interpreter
        """What the loader calls itself: PT_INTERP, or the name by which it was started."""

    def expand(self, text: str, of: object) -> str:  # noqa: ARG002 -- the shape of glibc's
        """Return a name as it is looked up: musl has no tokens in names."""
        return text

    def path_list(self, of: Dso, kind: str) -> list[str]:
        """Return the directories of an object's search path, which is one: what glibc keeps apart counts alike."""
        if kind == "RUNPATH":
            self._fill_in(of)
        return _directories(of.rpath) if kind == "RUNPATH" else []

    def environment_list(self, of: Dso) -> list[str]:  # noqa: ARG002 -- the shape of glibc's
        """Return the directories that do not depend on who asks: those of the environment and of the system."""
        return [*_directories(self.environment_path()), *_directories(self._system_path(Opened()))]

    def cpu(self) -> None:
        """Nothing depends on the processor."""

    def environment_path(self) -> str | None:
        """LD_LIBRARY_PATH, or what the loader was told in its stead; None in secure mode."""
        if self._settings.explicit and self._settings.library_path is not None:
            return self._settings.library_path
        return None if self._settings.secure else self._settings.env.get("LD_LIBRARY_PATH")

    def open(self, name: str, path: str, into: Opened, where: str) -> bool:
        """Open one path, which the process names so; whether that went well. Raises `Unknown`."""
        absolute = path if path.startswith("/") else f"{self._settings.cwd.rstrip('/')}/{path}"
        del name
        try:
            view = self._objects.view(absolute)
        except FilesError as error:
            into.errno = error.errno
            into.attempts.append(Attempt(path, where, strerror(error.errno)))
            return False
        into.view, into.path, into.where = view, path, where
        into.attempts.append(Attempt(path, where, "taken"))
        return True

    def find(self, name: str, needed_by: Dso | None) -> Opened:
        """Look a name up that is not loaded yet. Raises `Unknown`."""
        into = Opened()
        if "/" in name:
            self.open(name, name, into, "as written")
            return into
        if len(name.encode("utf-8", "surrogateescape")) > _LONGEST_NAME:
            return into
        stopped = False
        path = self.environment_path()
        if path is not None:
            stopped = self._along(name, path, into, "LD_LIBRARY_PATH")
        one = needed_by
        while not stopped and into.view is None and one is not None:
            self._fill_in(one)
            if one.rpath is not None:
                stopped = self._along(name, one.rpath, into, f"RPATH of {one.shown}")
            one = one.needed_by  # type: ignore[assignment]
        if not stopped and into.view is None:
            self._along(name, self._system_path(into), into, "system directory")
        return into

    def _along(self, name: str, path: str, into: Opened, where: str) -> bool:
        """path_open: whether the search ends here, because of a file or of an error that nothing may follow."""
        for number, directory in enumerate(path.replace("\n", ":").split(":")):
            if number >= _MOST_DIRECTORIES:
                raise Unknown(f"what a search path of more than {_MOST_DIRECTORIES} directories leads to", "search")
            if not directory:
                continue
            tried = f"{directory}/{name}"
            if len(tried.encode("utf-8", "surrogateescape")) >= _PATH_BUFFER:
                into.attempts.append(Attempt(tried, where, "too long a path"))
            elif self.open(name, tried, into, where) or into.errno not in _GO_ON:
                return True
        return False

    def _fill_in(self, of: Dso) -> None:
        """fixup_rpath: the search path of an object with $ORIGIN filled in, or none."""
        tables, memory = of.tables, of.memory
        if of.rpath is not None or tables is None or tables.rpath is None:
            return
        assert memory is not None
        memory.stage = "search"
        written = memory.text(tables.rpath).decode("utf-8", "surrogateescape")
        parts = written.split("$")
        if len(parts) == 1:
            of.rpath = written
            return
        if any(not part.startswith(("ORIGIN", "{ORIGIN}")) for part in parts[1:]):
            return
        origin = self._origin(of)
        if origin is not None:
            of.rpath = parts[0] + "".join(
                origin + part.removeprefix("{ORIGIN}" if part.startswith("{") else "ORIGIN") for part in parts[1:]
            )

    def _origin(self, of: Dso) -> str | None:
        """The directory of an object; of the program as the kernel tells it. None where it may not be used."""
        name = of.name
        if of.type == "executable":
            if not self._settings.explicit:
                if self._settings.secure:
                    return None
                try:
                    name = self._objects.files.resolve(self._settings.program or "")
                except DlwhyError:
                    return None
            else:
                name = of.shown
        if self._settings.secure and not name.startswith("/"):
            return None
        return name.rpartition("/")[0] if "/" in name else "."

    def _system_path(self, into: Opened) -> str:
        """What stands in /etc/ld-musl-ARCH.path below the loader's prefix, else the default."""
        if self._system is None:
            prefix = ""
            if self.loader_name.startswith("/"):
                prefix = self.loader_name.rpartition("/")[0].rpartition("/")[0]
            port = PORTS[self._settings.machine.e_machine, self._settings.machine.elf_class]
            path = f"{prefix}/etc/ld-musl-{port.arch}.path"
            try:
                view = self._objects.view(path)
                if view.read_errno:
                    into.errno = view.read_errno
                    self._system = ""
                else:
                    content = view.some(0, min(view.size, 1 << 20)).partition(b"\0")[0]
                    self._system = content.decode("utf-8", "surrogateescape")
            except FilesError as error:
                into.errno = error.errno
                self._system = _DEFAULT if error.errno == ENOENT else ""
        return self._system


__all__ = ["Fault", "Finder", "Opened", "is_builtin"]
