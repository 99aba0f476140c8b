"""A program by path or name: what execve would start, scripts followed to their interpreter (execve(2), env(1))."""

from __future__ import annotations

from dlwhy.elf.constants import DF_1_PIE, ET_DYN, ET_EXEC
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.objects import Objects

_MAX_SCRIPTS = 5
"""Interpreters followed before ELOOP (Linux fs/exec.c)."""


class Program(Record):
    """An executable found."""

    path: str
    argv0: str
    remarks: tuple[str, ...]
    """What was passed over or followed on the way, one sentence each."""


def is_program(elf: Elf) -> bool:
    """Whether a file is a program and no library: ET_EXEC, DF_1_PIE, or PT_INTERP and an entry point without a soname."""
    if elf.type == ET_EXEC:
        return True
    if elf.type != ET_DYN or elf.dynamic is None:
        return False
    if elf.dynamic.flags_1 & DF_1_PIE:
        return True
    return elf.interp is not None and elf.entry != 0 and elf.dynamic.soname is None


def find(name: str, search: str, cwd: str, objects: Objects) -> Program:
    """Return the program that HOST `name` means. Raises `UsageError` when there is none.

    Without a slash it is looked up in the directories of `search` (as PATH); a script found there is passed over for the
    next ELF file of that name. With a slash a script is followed through its first line.
    """
    if "/" in name:
        path = name if name.startswith("/") else f"{cwd.rstrip('/')}/{name}"
        return _follow(path, name, (), search, cwd, objects)
    remarks: list[str] = []
    for directory in search.split(":"):
        path = f"{(directory or cwd).rstrip('/')}/{name}"
        if not objects.files.executable(path):
            continue
        if _is_elf(path, objects):
            return Program(path, name, tuple(remarks))
        remarks.append(f"{path} is a script; the next program named {name} on PATH was taken")
    seen = f" ({'; '.join(remarks)})" if remarks else ""
    raise UsageError(f"host {name!r}: no program of that name on PATH{seen}; give a path, or --host plain")


def _is_elf(path: str, objects: Objects) -> bool:
    try:
        return objects.view(path).head[:4] == b"\x7fELF"
    except DlwhyError:
        return False


def _follow(path: str, argv0: str, remarks: tuple[str, ...], search: str, cwd: str, objects: Objects) -> Program:
    for _ in range(_MAX_SCRIPTS):
        try:
            head = objects.view(path).head
        except DlwhyError as error:
            raise UsageError(f"host {argv0!r}: {error}") from None
        if head[:4] == b"\x7fELF":
            return Program(path, argv0, remarks)
        if head[:2] != b"#!":
            raise UsageError(f"host {argv0!r}: {path} is neither an ELF program nor a script with '#!'")
        line = head[2:256].split(b"\n")[0].strip().decode("utf-8", "surrogateescape")
        interpreter, _, argument = line.partition(" ")
        if not interpreter:
            raise UsageError(f"host {argv0!r}: {path} names no interpreter behind '#!'")
        words = argument.split()
        if interpreter.rpartition("/")[2] == "env" and words:
            words = [word for word in words if word != "-S" and "=" not in word and not word.startswith("-")]
            if words:
                found = find(words[0], search, cwd, objects)
                return Program(
                    found.path, found.argv0, (*remarks, f"{path} is a script for {words[0]}", *found.remarks)
                )
        remarks = (*remarks, f"{path} is a script for {interpreter}")
        argv0 = path = interpreter if interpreter.startswith("/") else f"{cwd.rstrip('/')}/{interpreter}"
    raise UsageError(f"host {argv0!r}: more than {_MAX_SCRIPTS} scripts one behind the other")
