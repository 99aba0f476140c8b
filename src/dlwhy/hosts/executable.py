"""A program by path or name: what execve would start, scripts followed to their interpreter (execve(2), env(1))."""

from __future__ import annotations

import errno
import os

from dlwhy.elf.constants import DF_1_PIE, ET_DYN, ET_EXEC
from dlwhy.errors import DlwhyError, FilesError, UsageError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.objects import Objects

_MAX_SCRIPTS = 5
"""Interpreters followed before ELOOP (Linux fs/exec.c)."""
_FIRST_LINE = 256
"""Bytes of a script that the kernel looks at (include/uapi/linux/binfmts.h, BINPRM_BUF_SIZE)."""
_WITH_VALUE = ("-u", "-C", "-P", "--unset", "--chdir", "--argv0", "-a")
"""Options of env(1) whose value is the next word."""
_PIECE = 1 << 20
_GLIBC_OWN = b"invalid mode for dlopen()"
_MUSL_STUB = b"Dynamic loading not supported"
_PACKED = b"UPX!"


class Program(Record):
    """An executable found."""

    path: str
    argv0: str
    remarks: tuple[str, ...]
    """What was passed over or followed on the way, one sentence each."""
    env: dict[str, str]
    """Variables that env(1) sets on the way."""


class Standalone(Record):
    """A statically linked program: no loader takes part in its start."""

    dlopen: str
    """"none": it has none; "stub": musl's, which always fails; "own": its own, whose rules are not modelled."""
    because: str
    message: str | None
    """What dlerror() says after every dlopen."""


class Unstartable(Record):
    """A program that execve(2) refuses: no loader comes to say anything."""

    because: str
    status: int
    """What a shell exits with (POSIX.1-2017, Shell Command Language, 2.8.2)."""


_NOT_FOUND = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def unstartable(elf: Elf, objects: Objects) -> Unstartable | None:
    """Return why the kernel cannot start a program whose PT_INTERP is not there (fs/binfmt_elf.c, open_exec)."""
    try:
        if elf.interp is not None:
            objects.view(elf.interp)
    except FilesError as error:
        if error.errno in _NOT_FOUND:
            words = os.strerror(error.errno)
            why = f'its program interpreter {elf.interp} cannot be opened, and the kernel says "{words}" of the program'
            return Unstartable(why, 127)
    except (DlwhyError, Unknown):  # met again where what it says is asked for
        pass
    return None


def standalone(elf: Elf) -> Standalone | None:
    """Return what a program without PT_INTERP can load by itself; None for a dynamically linked one.

    A dlopen that is linked in is told by the words it fails with (glibc elf/dl-open.c, _dl_open; musl ldso/dlopen.c):
    they are there also when the names are stripped. glibc links its own into every program.
    Raises `FilesError` when the file cannot be read.
    """
    if elf.interp is not None:
        return None
    if _mentions(elf, _MUSL_STUB):
        return Standalone(
            "stub", f"{elf.path} is statically linked with musl, whose dlopen then always fails",
            _MUSL_STUB.decode("ascii"),
        )  # fmt: skip
    if _mentions(elf, _GLIBC_OWN) or _mentions(elf, _PACKED):
        return Standalone(
            "own", f"how {elf.path}, which is statically linked, loads objects by itself: that is not modelled", None
        )
    return Standalone("none", f"{elf.path} is statically linked and has no dlopen: it loads nothing", None)


def _mentions(elf: Elf, text: bytes) -> bool:
    """Whether the bytes that a program maps hold a text; read in pieces."""
    for row in elf.loads:
        offset, size = row[2], row[5]
        end = min(offset + size, elf.view.size)
        while offset < end:
            if any(text in data for data in elf.view.around(text, offset, min(_PIECE + len(text), end - offset))):
                return True
            offset += _PIECE
    return False


def is_program(elf: Elf) -> bool:
    """Whether a file is a program: ET_EXEC, DF_1_PIE, or PT_INTERP and an entry point without a soname."""
    if elf.type == ET_EXEC:
        return True
    if elf.type != ET_DYN or elf.dynamic is None:
        return False
    if elf.dynamic.flags_1 & DF_1_PIE:
        return True
    return elf.interp is not None and elf.entry != 0 and elf.dynamic.soname is None


def find(name: str, search: str, cwd: str, objects: Objects) -> Program:
    """Return the program that HOST `name` means. Raises `UsageError` when there is none.

    Without a slash it is looked up in the directories of `search` (as PATH); a script found there is passed over for
    the next ELF file of that name. With a slash a script is followed through its first line.
    """
    if "/" in name:
        path = name if name.startswith("/") else f"{cwd.rstrip('/')}/{name}"
        return _follow(path, name, search, cwd, objects)
    remarks: list[str] = []
    for directory in search.split(":"):
        path = f"{_absolute(directory, cwd).rstrip('/')}/{name}"
        if not name or not objects.files.executable(path):
            continue
        head = _head(path, objects)
        if head[:4] == b"\x7fELF":
            return Program(path, name, tuple(remarks), {})
        what = "a script" if head[:2] == b"#!" else "no ELF file"
        remarks.append(f"{path} is {what}; the next program named {name} on PATH was taken")
    seen = f" ({'; '.join(remarks)})" if remarks else ""
    raise UsageError(f"host {name!r}: no program of that name on PATH{seen}; give a path, or --host plain")


def _absolute(path: str, cwd: str) -> str:
    return path if path.startswith("/") else f"{cwd.rstrip('/')}/{path}"


def _head(path: str, objects: Objects) -> bytes:
    try:
        return objects.view(path).head
    except DlwhyError:
        return b""


def _follow(path: str, argv0: str, search: str, cwd: str, objects: Objects) -> Program:
    """The program that a path starts: itself, or the interpreter of a script, which may be a script in turn."""
    remarks: list[str] = []
    for _ in range(_MAX_SCRIPTS + 1):
        try:
            view = objects.view(path)
        except DlwhyError as error:
            raise UsageError(f"host {argv0!r}: {error}") from None
        if view.head[:4] == b"\x7fELF":
            return Program(path, argv0, tuple(remarks), {})
        if view.head[:2] != b"#!":
            what = "a directory" if objects.files.kind(path) == "directory" else "neither an ELF program nor a script"
            raise UsageError(f"host {argv0!r}: {path} is {what}{' with #!' if what[0] == 'n' else ''}")
        interpreter, argument = _first_line(view.head)
        if not interpreter:
            raise UsageError(f"host {argv0!r}: {path} names no interpreter behind '#!'")
        if interpreter.rpartition("/")[2] == "env" and argument:
            word, env = _env_words(argument, path)
            found = find(word, search, cwd, objects)
            remarks.append(f"{path} is a script for {word}")
            return Program(found.path, found.argv0, (*remarks, *found.remarks), {**env, **found.env})
        remarks.append(f"{path} is a script for {interpreter}")
        argv0, path = interpreter, _absolute(interpreter, cwd)
    raise UsageError(f"host {argv0!r}: more than {_MAX_SCRIPTS} scripts one behind the other")


def _first_line(head: bytes) -> tuple[str, str]:
    """Return (interpreter, its one argument) of a script, as the kernel cuts them (Linux fs/binfmt_script.c)."""
    line = head[2:_FIRST_LINE].split(b"\n")[0].decode("utf-8", "surrogateescape").strip(" \t")
    for place, character in enumerate(line):
        if character in " \t":
            return line[:place], line[place:].strip(" \t")
    return line, ""


def _env_words(argument: str, script: str) -> tuple[str, dict[str, str]]:
    """Return (program, variables set) of what stands behind env on a first line. Raises `UsageError`.

    The kernel hands over all of it as one word; only -S makes several of it (env(1)).
    """
    split = next(
        (argument[len(flag) :] for flag in ("--split-string=", "-S", "-vS") if argument.startswith(flag)), None
    )
    words = [argument] if split is None else split.split()
    env: dict[str, str] = {}
    while words:
        word = words.pop(0)
        if word.startswith("-") and word != "-":
            if word in _WITH_VALUE and words:
                words.pop(0)
        elif "=" in word:
            name, _, value = word.partition("=")
            env[name] = value
        elif word != "-":
            if any(c.isspace() for c in word):
                raise UsageError(f"{script}: env would look for a program named {word!r}; only env -S splits words")
            return word, env
    raise UsageError(f"{script}: env on its first line names no program")
