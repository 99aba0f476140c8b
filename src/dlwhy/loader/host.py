"""Process settings: of which process the question is, as the loader would find them at its start."""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine
    from dlwhy.loader.glibc import Glibc


class ProcessSettings(Record):
    """Everything that the loader learns when the kernel starts it."""

    program: str | None
    """Path of the executable, absolute; None for `plain`."""
    argv0: str
    env: dict[str, str]
    cwd: str
    secure: bool
    """AT_SECURE."""
    machine: Machine
    libc: Glibc
    interpreter: str
    """Path of the loader."""
    library_path: str | None
    """ld.so --library-path; None when the kernel starts the program."""
    explicit: bool
    """Whether the loader is started as `ld.so PROG`."""
    page: int
    """Page size in bytes."""
    default_binding: int
    """RTLD_LAZY or RTLD_NOW: what this host's dlopen uses when a step names none."""
    rseq: tuple[int, int]
    """(AT_RSEQ_FEATURE_SIZE, AT_RSEQ_ALIGN) of the kernel, (28, 32) where it is not known."""
    cpu: str | None = None
    """The processor, as loader.cpu names it; None for the one that dlwhy runs on."""


RTLD_LAZY, RTLD_NOW, RTLD_NOLOAD, RTLD_DEEPBIND, RTLD_GLOBAL, RTLD_NODELETE = 1, 2, 4, 8, 0x100, 0x1000
