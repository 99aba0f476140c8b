"""`capture`: a system and a process of it -> a profile, by asking all that a check could ask and keeping the answers.

Nothing is selected by rules of its own: the start of the process is modelled, libraries are opened in it, and of every
object that comes along each table is read once, all through files that remember what was read.
"""

from __future__ import annotations

import os

from dlwhy.api import Host, Options
from dlwhy.elf.constants import (
    DT_STRSZ,
    DT_STRTAB,
    ET_DYN,
    ET_EXEC,
)
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.exhausting import exhaust
from dlwhy.hosts.executable import is_program
from dlwhy.hosts.held import LARGEST_PART
from dlwhy.hosts.profile import FORMAT, SCHEMA, Profile
from dlwhy.loader.faults import Unknown
from dlwhy.loader.glibc import Glibc
from dlwhy.question import LOADER_VARIABLES, Question, ask, parse_step
from dlwhy.record import Record
from dlwhy.recording import RecordedFiles, united
from dlwhy.verdict import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from dlwhy.loader.objects import Objects
    from dlwhy.recording import RecordedView

COMMON = (
    "libc.so.6", "libm.so.6", "libdl.so.2", "librt.so.1", "libpthread.so.0", "libutil.so.1", "libresolv.so.2",
    "libnsl.so.1", "libanl.so.1", "libmvec.so.1", "libcrypt.so.1", "libgcc_s.so.1", "libstdc++.so.6", "libatomic.so.1",
    "libgomp.so.1", "libz.so.1", "libexpat.so.1", "libglib-2.0.so.0", "libgobject-2.0.so.0", "libgthread-2.0.so.0",
    "libX11.so.6", "libXext.so.6", "libXrender.so.1", "libICE.so.6", "libSM.so.6", "libGL.so.1",
)  # fmt: skip
"""What libraries made for many systems need of each: PEP 600's list, and what compilers add of their own."""
USUAL = (
    "/", "/opt", "/srv", "/mnt", "/usr", "/usr/lib", "/usr/local", "/usr/local/lib", "/usr/local/lib64", "/usr/share",
    "/var", "/var/lib",
)  # fmt: skip
"""Where software is put beside a distribution's, so that of a search path below it is known that there is no such."""
_WHOLE = 1 << 16
"""A file that was asked for by name is kept whole up to this size: what its code calls may then be asked, too."""
_PART = 1 << 17
"""Bytes of one part; a reader decodes only the parts that it needs."""
_PAGE = 4096
_GAP = 512
"""Bytes between two ranges that are kept rather than told apart."""
_BEFORE, _BEHIND = 1024, 4096
"""Bytes around the string table that are kept: names are cut from windows that reach beyond it."""
_NOWHERE = "libdlwhy-looks-for-nothing.so"
"""A name that no library has: where it is looked for, others are found."""
_LEGACY = ("glibc-hwcaps", "tls", "x86_64", "avx512_1", "haswell", "xeon_phi")
_MOST_FILES = 1 << 16


class Wanted(Record):
    """What a profile is to hold beside the start of its process and common libraries."""

    names: tuple[str, ...] = ()
    """Sonames, files, or directories, whose files are all taken; small files are kept whole."""
    everything: bool = False
    """Whether all libraries in the search directories are taken."""
    facts: tuple[str, ...] = ()
    """Sonames or files, of which the tables are kept."""
    common: tuple[str, ...] = COMMON
    """Sonames that a profile has unless somebody wants it without."""
    directories: tuple[str, ...] = USUAL
    """Directories whose names are kept, whoever looks into them."""


def capture(host: Host | None, options: Options, wanted: Wanted) -> Profile:
    """Return the profile of a host. Raises `UsageError`, and `DlwhyError` where the host cannot be examined."""
    host = host or Host.plain()
    if host.captured is not None:
        raise UsageError("a profile is captured already: name a host of this system, or --sysroot DIR")
    files = RecordedFiles(options.sysroot or "/")
    try:
        made = _Capture(ask([], host, options, files), options, files)
        made.start()
        made.take((*wanted.common, *wanted.facts))
        made.take(wanted.names, named=True)
        if wanted.everything:
            made.take(made.search_directories())
        for one in wanted.directories:
            files.note(one)
        return Profile(host.target, made.written(host, options))
    finally:
        files.close()


class _Capture:
    """One capture under way."""

    def __init__(self, question: Question, options: Options, files: RecordedFiles) -> None:
        self.question, self.options, self.files = question, options, files
        self.objects: Objects = question.objects
        self.directories: dict[str, None] = {}
        self.whole: set[str] = set()
        """Paths, links followed, of files that are kept with their code, and whole if they are small."""

    def start(self) -> None:
        """Model the start, and note where the process would look for libraries."""
        run = model(self.question.but(requests=(parse_step(f"now:{_NOWHERE}"),)))
        tried = [one.path for step in run.steps for search in step.searches for one in search.tries]
        self._look_into(path.removesuffix(_NOWHERE) for path in tried if path.endswith(f"/{_NOWHERE}"))
        cache = self.objects.cache(self.question.settings.machine)
        self._look_into(sorted({path.rpartition("/")[0] for path in cache.paths()}))

    def _look_into(self, directories: Iterable[str]) -> None:
        cwd = self.question.settings.cwd.rstrip("/")
        for one in directories:
            path = (one if one.startswith("/") else f"{cwd}/{one}").rstrip("/") or "/"
            if path in self.directories:
                continue
            self.directories[path] = None
            self.files.note(path)
            for name in _LEGACY:
                self._below(f"{path}/{name}")

    def _below(self, path: str) -> None:
        """Note all directories below one."""
        if self.files.kind(path) == "directory":
            for name in self.files.listing(path):
                self._below(f"{path}/{name}")

    def search_directories(self) -> tuple[str, ...]:
        """Where the process looks for libraries."""
        return tuple(self.directories)

    def take(self, names: Iterable[str], named: bool = False) -> None:
        """Open each of these in the process, with all that comes along, and read what it has."""
        for name in names:
            path = name if name.startswith("/") else f"{self.question.settings.cwd.rstrip('/')}/{name}"
            if "/" in name and self.files.kind(path) == "directory":
                for one in self._files_in(path, named):
                    self._open(one, named)
            elif named and self.files.kind(path) is None and "/" in name:
                raise UsageError(f"--with {name}: no such file or directory")
            else:
                self._open(name, named)

    def _files_in(self, directory: str, deep: bool) -> list[str]:
        """The programs and libraries in a directory, in order; with `deep` those further below, too."""
        found: list[str] = []
        todo = [directory.rstrip("/")]
        while todo:
            at = todo.pop()
            self.files.note(at or "/")
            try:
                names = self.files.listing(at or "/")
            except DlwhyError:
                continue
            for name in names:
                path = f"{at}/{name}"
                if self.files.link(path) is not None:
                    continue
                kind = self.files.kind(path)
                if kind == "directory" and deep:
                    todo.append(path)
                elif kind == "file":
                    found.append(path)
                if len(found) > _MOST_FILES:
                    raise UsageError(f"{directory}: more than {_MOST_FILES} files: name fewer")
        return found

    def _open(self, name: str, named: bool) -> None:
        elf = self._elf(name) if "/" in name else None
        if "/" in name and named:
            self.whole.add(self.files.resolve(name))
        if "/" in name and elf is None:
            return
        if elf is not None and _is_program(elf):
            host = Host.executable(name, self.question.settings.env)
            model(ask([], host, self.options, self.files))
        else:
            run = model(self.question.but(requests=(parse_step(f"now:{name}"),)))
            found = (one.path for step in run.steps for one in step.searches if named and one.name == name)
            self.whole.update(self.files.resolve(path) for path in found if path is not None)

    def _elf(self, path: str) -> Elf | None:
        try:
            elf = self.objects.elf(path)
        except (DlwhyError, Unknown):
            return None
        return elf if elf.type in (ET_DYN, ET_EXEC) else None

    # -- what is kept --------------------------------------------------------------------------------------------

    def written(self, host: Host, options: Options) -> dict[str, Any]:
        """Return the profile as JSON has it."""
        for path, views in list(self.files.opened.items()):
            if views[0].head[:4] == b"\x7fELF":
                exhaust(views[0], self.question, path in self.whole)
        self._system()
        kept = {path: self._kept(path, views) for path, views in sorted(self.files.opened.items())}
        kept |= {path: {"errno": number} for path, number in sorted(self.files.refused.items())}
        tree, same = self.files.tree()
        about = self.question.settings
        libc = f"{about.libc.name} {about.libc.text}" if any(about.libc.release) else None
        from dlwhy import __version__

        return {
            "format": FORMAT, "schema": SCHEMA, "dlwhy": __version__,
            "machine": about.machine.name, "libc": libc,
            "process": _process(host, options, self.question), "kernel": self.files.kernel, "tree": tree, "same": same,
            "files": kept,
        }  # fmt: skip

    def _system(self) -> None:
        """Ask for what concerns the system as a whole."""
        self.objects.cpu()
        self.objects.grants(1)

    def _kept(self, path: str, views: list[RecordedView]) -> dict[str, Any]:
        view = views[0]
        ranges = [one for each in views for one in each.ranges]
        if path in self.whole and view.size <= _WHOLE:
            ranges = [(0, view.size)]
        ranges += _windows(view)
        if not isinstance(self.question.settings.libc, Glibc):  # musl's model reads memory by pages
            ranges = [(start & -_PAGE, min(end + -end % _PAGE, view.size)) for start, end in ranges]
        parts = []
        for start, end in united(ranges, _GAP):
            for at in range(start, min(end, view.size), _PART):
                data = view.some(at, min(_PART, end - at))
                parts.append([at, len(data), _packed(data)])
        marks = sorted({mark.decode("latin-1") for each in views for mark in each.marks})
        return {"size": view.size, "parts": parts} | ({"marks": marks} if marks else {})


def _is_program(elf: Elf) -> bool:
    try:
        return is_program(elf)
    except DlwhyError:
        return False


def _packed(data: bytes) -> str:
    from binascii import b2a_base64
    from zlib import compress

    assert len(data) <= LARGEST_PART
    return b2a_base64(compress(data, 9), newline=False).decode("ascii")


def _windows(view: RecordedView) -> list[tuple[int, int]]:
    """What is read around names, wherever one stands in the string table."""
    try:
        elf = Elf(view)
        dynamic = elf.dynamic
        start = dynamic.tags.get(DT_STRTAB) if dynamic is not None else None
        offset = elf.offset_of(start) if start is not None else None
    except (DlwhyError, Unknown):
        return []
    if dynamic is None or offset is None:
        return []
    end = offset + dynamic.tags.get(DT_STRSZ, 0) + _BEHIND
    return [(max(offset - _BEFORE, 0), min(end, view.size))]


def _process(host: Host, options: Options, question: Question) -> dict[str, Any]:
    settings = question.settings
    return {
        "host": host.target, "program": settings.program, "argv0": settings.argv0, "remarks": list(question.remarks),
        "environment": {name: text for name, text in settings.env.items() if _of_the_loader(name)},
        "shell": {name: text for name, text in os.environ.items() if name in LOADER_VARIABLES},
        "cwd": options.cwd, "secure": options.secure, "loader": options.loader, "library_path": options.library_path,
        "libc": options.libc, "caller": options.caller, "cpu": options.cpu,
    }  # fmt: skip


def _of_the_loader(name: str) -> bool:
    return name.startswith("LD_") or name in LOADER_VARIABLES
