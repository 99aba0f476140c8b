"""How a load ends when it does not succeed: values raised inside the model and turned into records at its edge.

A `Fault` is what _dl_signal_error throws inside the loader; `Death` is an end of the whole process; `Unknown` is a fact
that the model lacks. None of them ever leaves the loader package.
"""

from __future__ import annotations

import os

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.glibc import Glibc

KINDS = {
    "invalid-mode": "dlopen was called with a mode that it does not accept",
    "not-found": "the file was not found, or could not be opened",
    "wrong-class": "only a file of the other ELF class (32 or 64 bit) was found",
    "unreadable": "the file opens but cannot be read",
    "bad-header": "the ELF header is not one that the loader accepts",
    "bad-segments": "the program headers are not ones that the loader can map",
    "not-a-library": "the file is a program, or forbids dlopen",
    "execstack": "the object needs an executable stack, which cannot be had",
    "missing-version": "a needed symbol version is not defined by the library that was found",
    "bad-version-table": "a version table is not one that the loader accepts",
    "isa-level": "the object is built for a newer processor",
    "undefined-symbol": "a symbol is defined by no object in scope",
    "bad-relocation": "a relocation is of a type that the loader does not apply",
    "protected-symbol": "the program copies, or takes the address of, what a library protects",
    "ifunc-in-program": "a library needs an indirect function of the program before the program is relocated",
    "static-tls-exhausted": "the static TLS block has too few bytes left",
    "static-tls-alignment": "the segment is aligned more strictly than the static TLS block",
    "static-tls-dynamic-in-use": "the segment is already used as dynamic TLS and cannot become static",
    "static-tls-late": "the segment came in after the start, and musl lets nobody reach such a one by a fixed distance",
    "assertion": "the loader stops with an assertion",
    "signal": "the loader is killed by a signal while it reads the object",
    "version-table-missing": "a versioned symbol is bound to a library that has no version table (glibc up to 2.40)",
    "not-open": "the handle is not open",
    "audit": "an auditing library cannot be loaded",
    "host": "the program itself does not start",
    "no-dlopen": "a statically linked program loads nothing here",
    "no-interpreter": "the kernel does not start a program whose PT_INTERP names nothing that is there",
    "unknown": "a fact is missing; the sentence names it",
}
"""Kind -> meaning, of every way to fail; the `kind` of a step."""


NEAR = 1 << 26
"""Bytes around an object within which other mappings of the process lie as a rule: what is there is not known."""


class Fault(Exception):
    """An error that the loader signals: text, object and errno as _dl_signal_error gets them."""

    def __init__(
        self,
        kind: str,
        stage: str,
        text: str,
        object_: str = "",
        errno: int = 0,
        because: str = "",
        needed_by: str | None = None,
    ) -> None:
        super().__init__(text)
        self.kind, self.stage, self.text, self.object, self.errno = kind, stage, text, object_, errno
        self.because, self.needed_by = because, needed_by
        self.occasion: str | None = None
        """What ld.so prints instead of "error while loading shared libraries" at start-up."""
        self.subject: str | None = None
        """Path of the object to blame, when it is not the object that the message names."""

    @property
    def message(self) -> str:
        """What dlerror() returns (dlfcn/dlerror.c, in the C locale)."""
        prefix = f"{self.object}: " if self.object else ""
        return f"{prefix}{self.text}" + (f": {strerror(self.errno)}" if self.errno else "")

    def at_startup(self, program: str) -> str:
        """Return what ld.so writes when this ends a start (elf/dl-error-skeleton.c, fatal_error)."""
        prefix = f"{self.object}: " if self.object else ""
        tail = f": {_EARLY.get(self.errno, f'Error {self.errno}')}" if self.errno else ""
        return f"{program}: {self.occasion or 'error while loading shared libraries'}: {prefix}{self.text}{tail}"


# the loader's own little table, before libc's strerror can be used (sysdeps/…/dl-error messages, elf/dl-minimal.c)
_EARLY = {
    12: "Cannot allocate memory",
    22: "Invalid argument",
    2: "No such file or directory",
    1: "Operation not permitted",
    5: "Input/output error",
    13: "Permission denied",
}


def strerror(errno: int) -> str:
    """Return the C library's text for an error number, in the C locale."""
    return os.strerror(errno)


class Death(Exception):
    """The process ends: by an assertion of the loader, a fatal message or a signal."""

    def __init__(
        self, kind: str, stage: str, because: str, message: str | None, status: int, object_: str | None = None
    ) -> None:
        super().__init__(because)
        self.kind, self.stage, self.because, self.message, self.object = kind, stage, because, message, object_
        self.status = status
        """Exit status, or minus the signal number."""


class Unknown(Exception):
    """A fact is missing; `str()` names it."""

    def __init__(self, what: str, stage: str = "none") -> None:
        super().__init__(what)
        self.stage = stage


class Notice(Record):
    """A line on standard error that stops nothing."""

    text: str


def assertion(libc: Glibc, file: str, function: str, expression: str, stage: str, path: str) -> Death:
    """An assertion of the loader (elf/…, __assert_fail); the source line stands for any."""
    text = libc.assertion(file, function, expression)
    return Death("assertion", stage, f"the loader asserts that {expression}", text, 127, path)
