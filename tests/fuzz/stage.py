"""One mutated file, one way in which it reaches dlwhy: the answer, and what is wrong with it.

Wrong is: an exception that is not of `dlwhy.errors`; a read outside the file, or of more bytes than some times the
file; more than a second of processor time; more memory than `MEMORY`; a status that the interface does not allow, a
report that cannot be rendered; two answers to one question.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import resource
import shutil
import signal
import traceback
import zipfile
import zlib
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from dlwhy import view as seam
from dlwhy.attribute.calls import calls
from dlwhy.cli import main as command
from dlwhy.elf.file import Elf
from dlwhy.elf.relocs import Survey, entries, of_types, relr, survey, tables
from dlwhy.elf.symbols import StaticSymbols, gnu_hash
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import DlwhyError, ElfError, UsageError
from dlwhy.render.json_v1 import render
from dlwhy.render.style import Style
from dlwhy.view import HEAD, View
from tests.elf_writer import Image, Sym

from . import seeds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SECONDS = 1.0
"""Processor time of one question."""
MEMORY = 512 << 20
"""Address space that a question may take beyond what the process had before."""
READ_FACTOR, READ_SLACK = 64, 256 << 10
"""Bytes read of the mutated file: at most so many times its size, and this."""
_ASKED_TWICE = 8
"""Of every so many files one is asked about twice."""


class Finding(NamedTuple):
    """Something that is wrong."""

    kind: str
    """"exception", "read", "time", "memory", "status", "render" or "differs"."""
    where: str
    """Function and line of dlwhy that it comes from, or the way."""
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """Two findings of one key have one cause, as far as can be told."""
        return self.kind, self.where


class _Stop(BaseException):
    """Leaves dlwhy whatever it catches: it catches no BaseException."""


class _Astray(_Stop):
    """A read outside of the file."""


class _TooSlow(_Stop):
    """The time is over."""


# -- what is read ------------------------------------------------------------------------------------------------------


class Watched(View):
    """A literal that is read like a file: its head, then pieces, each of which must lie inside."""

    __slots__ = ("all", "taken")

    def __init__(self, path: str, data: bytes) -> None:
        super().__init__(path, data)
        self.all = data
        self.head = data[:HEAD]
        self.taken = 0

    def read(self, offset: int, size: int) -> bytes:
        made = super().read(offset, size)
        self.taken += size
        if not 0 <= offset <= offset + size <= len(self.all) or made != self.all[offset : offset + size]:
            raise _Astray(f"{size} bytes at {offset} of {len(self.all)}")
        return made

    def some(self, offset: int, size: int) -> bytes:
        made = super().some(offset, size)
        self.taken += len(made)
        if offset >= 0 and size >= 0 and made != self.all[offset : offset + size]:
            raise _Astray(f"up to {size} bytes at {offset} of {len(self.all)}")
        return made

    def _fetch(self, offset: int, size: int) -> bytes:
        if not 0 <= offset <= offset + size <= len(self.all):
            raise _Astray(f"{size} bytes at {offset} of {len(self.all)}")
        return self.all[offset : offset + size]


class _Reads:
    """What `dlwhy.view` takes for the module `os`: the same, but every read of the mutated file is checked."""

    def __init__(self) -> None:
        self.taken = 0
        self.file: tuple[int, int] = 0, 0

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)

    def pread(self, fd: int, size: int, offset: int) -> bytes:
        self._judge(fd, size, offset)
        made = os.pread(fd, size, offset)
        self._count(fd, len(made))
        return made

    def preadv(self, fd: int, buffers: list[memoryview], offset: int) -> int:
        self._judge(fd, sum(map(len, buffers)), offset)
        made = os.preadv(fd, buffers, offset)
        self._count(fd, made)
        return made

    def _count(self, fd: int, made: int) -> None:
        stat = os.fstat(fd)
        if (stat.st_dev, stat.st_ino) == self.file:
            self.taken += made

    def _judge(self, fd: int, size: int, offset: int) -> None:
        limit = os.fstat(fd).st_size
        first = offset == 0 and size == HEAD  # how long a file is shows when its head is read
        if not first and not 0 <= offset <= offset + size <= limit:
            raise _Astray(f"{size} bytes at {offset} of {limit}")


# -- questions to the reader -------------------------------------------------------------------------------------------

_WANTED = {name: gnu_hash(name) for name in (b"function_3", b"twice", b"absent", b"variable", b"getpid")}
_MANY = 2000


def _surveys(elf: Elf) -> object:
    found = []
    for table in tables(elf):
        one = Survey()
        survey(elf, table, frozenset((8,)), 8, one)
        found.append((one.low, one.high, one.relative_wrong, len(one.references)))
    return found


def _versions(elf: Elf) -> object:
    found = elf.versions
    numbers = [found.index_of(n) for n in range(min(elf.symbols.count, _MANY))]
    return found.needs, found.need_files, found.defines, found.defined, found.by_index(), found.versym(), numbers


READER: dict[str, Callable[[Elf], object]] = {
    "header": lambda elf: (elf.ident, elf.row, elf.phdrs, elf.loads, elf.segments, elf.tls and elf.tls.first_byte),
    "interp": lambda elf: (elf.interp, elf.debug_only),
    "sections": lambda elf: (elf.sections, [elf.section_of_type(kind) for kind in (2, 3, 11)]),
    "dynamic": lambda elf: elf.dynamic and (elf.dynamic.tags, elf.dynamic.bind_now, elf.dynamic.symbolic),
    "strings": lambda elf: (
        elf.dynamic and (elf.dynamic.soname, elf.dynamic.needed, elf.dynamic.rpath, elf.dynamic.runpath)
    ),
    "filters": lambda elf: elf.dynamic and elf.dynamic.filters,
    "versions": _versions,
    "symbols": lambda elf: [elf.symbols.symbol(n) for n in range(min(elf.symbols.count, _MANY))],
    "lookup": lambda elf: (elf.symbols.look_up(_WANTED), elf.symbols.astray is None),
    "dynamic TLS symbols": lambda elf: elf.symbols.tls(),
    "TLS symbols": lambda elf: StaticSymbols(elf).tls(),
    "TLS relocations": lambda elf: tls_relocations(elf).models,
    "relocations": lambda elf: [sum(1 for _ in entries(elf, table)) for table in tables(elf)],
    "relocations of types": lambda elf: of_types(elf, range(40)),
    "surveys": _surveys,
    "relr": lambda elf: sum(1 for _ in relr(elf)),
    "code": lambda elf: calls(elf, elf.dynamic.get(12, 0x100), {0x2000: "f"}) if elf.dynamic else None,
    "addresses": lambda elf: [(elf.offset_of(at), len(elf.around(at, 5000))) for at in (0, 0x100, 0x1FF8, 1 << 63)],
}


def read_all(data: bytes, path: str = "fuzzed") -> tuple[list[object], int]:
    """What the reader answers to each question, and the bytes read; an error of the reader is an answer, too.

    It depends on the file with which question it begins: what was decoded for one is there for the next.
    """
    view = Watched(path, data)
    try:
        elf = Elf(view)
    except ElfError as error:
        return [_told(error)], view.taken
    names = list(READER)
    first = zlib.crc32(data) % len(names)
    answers: list[object] = []
    for name in names[first:] + names[:first]:
        try:
            answers.append((name, READER[name](elf)))
        except ElfError as error:
            answers.append((name, _told(error)))
    elf.close()
    return answers, view.taken


def _told(error: DlwhyError) -> str:
    """An error's sentence."""
    text = str(error)
    if not text.strip() or "Traceback" in text:
        raise AssertionError(f"an error without a sentence: {error!r}")
    return text


# -- questions to the model --------------------------------------------------------------------------------------------


class Way(NamedTuple):
    """One way in which a file reaches dlwhy."""

    name: str
    seeds: str
    """How the names of the seeds begin that make sense here."""
    words: tuple[str, ...]
    """The command line, FILE and DIR for the paths; empty: the reader by itself."""
    allowed: tuple[int, ...] = (0, 10, 11)
    """Statuses of a report."""
    errors: tuple[type[DlwhyError], ...] = ()
    """What may be raised instead of a report."""


WAYS = (
    Way("reader", "elf", ()),
    Way("step", "elf", ("check", "FILE")),
    Way("steps", "elf", ("check", "lazy-global:FILE", "sym:1:function_0", "call:1:function_3", "newns:FILE",
                         "close:1", "FILE"), errors=(UsageError,)),
    Way("host", "elf", ("check", "--host", "FILE"), errors=(DlwhyError,)),
    Way("host of a step", "elf", ("check", "libm.so.6", "--host", "FILE"), errors=(DlwhyError,)),
    Way("dependency", "elf", ("check", "DIR/root.so", "DIR/root.so")),
    Way("tls", "elf", ("tls", "FILE"), (0, 1)),
    Way("tree", "elf", ("tree", "FILE"), (0, 1, 10, 11), (DlwhyError,)),
    Way("tree of a dependency", "elf", ("tree", "DIR/root.so"), (0, 10, 11)),
    Way("preload", "elf", ("check", "libm.so.6", "--env", "LD_PRELOAD=FILE", "--env", "LD_BIND_NOW=1")),
    Way("audit", "elf", ("check", "libm.so.6", "--env", "LD_AUDIT=FILE")),
    Way("C library", "elf", ("check", "DIR/root.so", "--library-path", "DIR/libs"), errors=(DlwhyError,)),
    Way("loader", "elf", ("check", "libm.so.6", "--loader", "FILE"), errors=(DlwhyError,)),
    Way("other release", "elf", ("check", "FILE", "--libc", "glibc-2.31"), errors=(DlwhyError,)),
    Way("other processor", "elf", ("check", "FILE", "--cpu", "x86-64"), errors=(DlwhyError,)),
    Way("unresolved", "elf", ("unresolved", "FILE"), (0, 1, 10, 11)),
    Way("unresolved of a dependency", "elf", ("unresolved", "DIR/root.so"), (0, 1, 10, 11)),
    Way("cache", "cache", ("check", "libn4.so.1", "libn9.so.0", "libn2.so.2", "--sysroot", "DIR/system")),
    Way("cache, by a dependency", "cache", ("tree", "/lib/names.so", "--sysroot", "DIR/system"), (0, 10, 11)),
    Way("member", "elf", ("check", "--each", "DIR/member.whl"), (0, 1, 10, 11)),
    Way("archive", "archive", ("check", "--each", "FILE"), (0, 1, 3, 10, 11)),
)  # fmt: skip
BY_NAME = {way.name: way for way in WAYS}


class Stage:
    """A directory in which files are put to dlwhy, and what was there before them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.path = os.path.join(directory, "fuzzed.so")
        self.reads = _Reads()
        self.style = (Style(100, True, True, True, False), Style(60, False, False, False, True))
        self.statuses: dict[tuple[str, object], int] = {}
        """(way, status or name of the error) -> how often."""
        os.makedirs(os.path.join(directory, "libs"))
        os.symlink("../fuzzed.so", os.path.join(directory, "libs/libc.so.6"))
        root = Image(
            needed=["fuzzed.so", "libc.so.6"], runpath="$ORIGIN", needs={"fuzzed.so": ["W_2"]},
            symbols=[Sym("twice", shndx=0, version="W_2"), Sym("function_1", shndx=0)],
        )  # fmt: skip
        self._put("root.so", root.build().data)
        self._system()

    def _put(self, name: str, data: bytes) -> str:
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def _system(self) -> None:
        """A small system for the cache: this machine's C library, and some libraries that the cache knows."""
        for path in dlwhy.check(["libm.so.6"], dlwhy.Host.plain()).host.startup.loaded:
            if os.path.isfile(path):
                inside = f"{self.directory}/system{path}"
                os.makedirs(os.path.dirname(inside), exist_ok=True)
                shutil.copyfile(path, inside)
        os.makedirs(f"{self.directory}/system/etc")
        made = seeds.built()
        for name in ("libn4.so.1", "libn9.so.0", "glibc-hwcaps/x86-64-v2/libn9.so.0"):
            self._put(f"system/lib/{name}", made["elf-bare"])
        self._put("system/lib/names.so", Image(needed=["libn9.so.0", "libn5.so.2", "libn4.so.1"]).build().data)

    def _written(self, way: Way, data: bytes) -> None:
        path = self._put("system/etc/ld.so.cache" if way.seeds == "cache" else "fuzzed.so", data)
        if way.name == "member":
            with zipfile.ZipFile(os.path.join(self.directory, "member.whl"), "w") as archive:
                archive.writestr("pkg/fuzzed.so", data)
        stat = os.stat(path)
        self.reads.file, self.reads.taken = (stat.st_dev, stat.st_ino), 0

    def findings(self, way: Way, data: bytes, seconds: float = SECONDS) -> list[Finding]:
        """Ask one question about one file; what is wrong with the answer."""
        try:
            with _within(seconds):
                answer = self._answer(way, data)
            if zlib.crc32(data) % _ASKED_TWICE == 0:
                with _within(seconds):
                    again = self._answer(way, data)
                if again != answer:
                    return [Finding("differs", way.name, f"{_first_difference(answer, again)}")]
        except _Astray as error:
            return [Finding("read", _place(error), _trace(error))]
        except _TooSlow as error:
            return [Finding("time", _place(error), _trace(error))]
        except MemoryError as error:
            return [Finding("memory", _place(error), _trace(error))]
        except _Judgement as error:
            return [Finding(error.kind, error.where or way.name, str(error))]
        except Exception as error:  # noqa: BLE001 -- whatever leaves dlwhy is what is looked for
            return [Finding("exception", f"{type(error).__name__} {_place(error)}", _trace(error))]
        return []

    def _answer(self, way: Way, data: bytes) -> object:
        if not way.words:
            answers, taken = read_all(data)
            _bounded(taken, data)
            return answers
        self._written(way, data)
        words = [word.replace("FILE", self.path).replace("DIR", self.directory) for word in way.words]
        with self._watched():
            answer = self._report(way, words)
        _bounded(self.reads.taken, data)
        return answer

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        vars(seam)["os"] = self.reads
        try:
            yield
        finally:
            vars(seam)["os"] = os

    def _report(self, way: Way, words: list[str]) -> object:
        """The reports of a command line, each rendered both ways; or the sentence of the error."""
        name, arguments = command._parse(words)
        answer: list[object] = []
        try:
            for report in command._reports(name, arguments):
                status = report.exit_status
                if status not in way.allowed:
                    raise _Judgement("status", f"{status} of a report: {report!r}"[:2000])
                document = json.loads(render(report))
                if document["exit_status"] != status or document["command"] != name:
                    raise _Judgement("render", f"{document['exit_status']} in the document, {status} in the report")
                shown = [command._text(report, style) for style in self.style]
                if not shown[0].strip() or "Traceback" in shown[0]:
                    raise _Judgement("render", "a report without a word")
                answer.append((status, document, shown))
                self._count(way, status)
        except DlwhyError as error:
            if not isinstance(error, way.errors):
                where = f"{type(error).__name__} {_place(error)}"
                raise _Judgement("status", f"{error}\n{_trace(error)}", where) from None
            self._count(way, type(error).__name__)
            answer.append(_told(error))
        return _without_names(answer) if way.name in ("member", "archive") else answer

    def _count(self, way: Way, what: object) -> None:
        self.statuses[way.name, what] = self.statuses.get((way.name, what), 0) + 1


def _without_names(answer: object) -> object:
    """Without what differs between two runs by its nature: the name of a temporary directory."""
    return [] if "dlwhy-" in repr(answer) else answer


class _Judgement(Exception):
    """An answer that is wrong."""

    def __init__(self, kind: str, text: str, where: str = "") -> None:
        super().__init__(text)
        self.kind, self.where = kind, where


def _bounded(taken: int, data: bytes) -> None:
    if taken > READ_FACTOR * len(data) + READ_SLACK:
        raise _Judgement("read", f"{taken} bytes read of a file of {len(data)}")


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _TooSlow


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Leave the body when it has taken so much processor time."""
    before = signal.signal(signal.SIGVTALRM, _stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def limit_memory() -> None:
    """Let this process take `MEMORY` beyond what it has: what wants more gets a MemoryError."""
    with open("/proc/self/statm", encoding="ascii") as file:
        pages = int(file.read().split()[0])
    most = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


@functools.cache
def _package() -> str:
    return os.path.dirname(os.path.abspath(seam.__file__)) + os.sep


def _place(error: BaseException) -> str:
    """The innermost function of dlwhy that an error came through, with its line; a stop by the clock without."""
    frames = [one for one in traceback.extract_tb(error.__traceback__) if one.filename.startswith(_package())]
    if not frames:
        return "outside"
    last = frames[-1]
    name = f"{last.filename.removeprefix(_package())}:{last.name}"
    return name if isinstance(error, _TooSlow | MemoryError) else f"{name}:{last.lineno}"


def _trace(error: BaseException) -> str:
    out = io.StringIO()
    traceback.print_exception(error, limit=-12, file=out)
    return out.getvalue()


def _first_difference(one: object, two: object) -> str:
    left, right = repr(one), repr(two)
    at = next((n for n, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
    return f"...{left[max(at - 80, 0) : at + 200]}\n...{right[max(at - 80, 0) : at + 200]}"
