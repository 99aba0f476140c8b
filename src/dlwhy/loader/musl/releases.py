"""MUSL: how the releases differ and what each machine's port fixes, as rows of data. No other file tests a version.

Rows are as in loader.glibc. Citations are to musl's own tree. "[M]" marks what the oracle compares with a real loader.
"""

from __future__ import annotations

from dlwhy.elf.machine import EM_386, EM_AARCH64, EM_ARM, EM_PPC64, EM_RISCV, EM_S390, EM_X86_64
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OLDEST, NEWEST = (1, 2, 2), (1, 2, 6)
"""The releases whose sources were read; outside them a check is undecided."""

MEASURED = (1, 2, 2), (1, 2, 3), (1, 2, 5), (1, 2, 6)
"""The releases that were compared with real loaders: those of Debian's suites."""

FEATURES: dict[str, tuple[tuple[tuple[int, int, int], Any, str], ...]] = {
    # name: ((since, value, citation), …)
    "empty_segments_map": (
        ((1, 2, 2), False, "ldso/dynlink.c, map_library: mmap of no bytes is EINVAL [M]"),
        ((1, 2, 3), True, "ldso/dynlink.c, mmap_fixed; commit cfdfd5ea3c [M]"),
    ),
    "dynamic_tags": (
        ((1, 2, 2), 32, "src/internal/dynlink.h, DYN_CNT"),
        ((1, 2, 4), 37, "src/internal/dynlink.h, DYN_CNT; commit d32dadd60e [M]"),
    ),
    "relr": (
        ((1, 2, 2), False, ""),
        ((1, 2, 4), True, "ldso/dynlink.c, do_relr_relocs; commit d32dadd60e [M]"),
    ),
    "longest_lfs64": (
        ((1, 2, 2), 0, "the names with 64 are libc's own symbols"),
        ((1, 2, 4), 16, "ldso/dynlink.c, get_lfs64: a buffer of 16 bytes; commit 246f1c8117 [M]"),
        ((1, 2, 6), 18, "ldso/dynlink.c, get_lfs64; commit 53ac44ff4c"),
    ),
    "relro_errno": (
        ((1, 2, 2), True, "ldso/dynlink.c, reloc_all: mprotect sets errno [M]"),
        ((1, 2, 4), False, "ldso/dynlink.c, reloc_all: a system call by hand leaves errno as it was [M]"),
    ),
}

LFS64 = frozenset((
    "aio_cancel", "aio_error", "aio_fsync", "aio_read", "aio_return", "aio_suspend", "aio_write", "alphasort",
    "creat", "fallocate", "fgetpos", "fopen", "freopen", "fseeko", "fsetpos", "fstat", "fstatat", "fstatfs",
    "fstatvfs", "ftello", "ftruncate", "ftw", "getdents", "getrlimit", "glob", "globfree", "lio_listio", "lockf",
    "lseek", "lstat", "mkostemp", "mkostemps", "mkstemp", "mkstemps", "mmap", "nftw", "open", "openat",
    "posix_fadvise", "posix_fallocate", "pread", "preadv", "prlimit", "pwrite", "pwritev", "readdir", "scandir",
    "sendfile", "setrlimit", "stat", "statfs", "statvfs", "tmpfile", "truncate", "versionsort", "__fxstat",
    "__fxstatat", "__lxstat", "__xstat",
))  # fmt: skip
"""Functions whose names with 64 behind them mean them (ldso/dynlink.c, get_lfs64)."""

ERRORS = {
    1: "Operation not permitted", 2: "No such file or directory", 3: "No such process", 4: "Interrupted system call",
    5: "I/O error", 6: "No such device or address", 7: "Argument list too long", 8: "Exec format error",
    9: "Bad file descriptor", 11: "Resource temporarily unavailable", 12: "Out of memory", 13: "Permission denied",
    14: "Bad address", 15: "Block device required", 16: "Resource busy", 17: "File exists", 18: "Cross-device link",
    19: "No such device", 20: "Not a directory", 21: "Is a directory", 22: "Invalid argument",
    23: "Too many open files in system", 24: "No file descriptors available", 26: "Text file busy",
    27: "File too large", 28: "No space left on device", 29: "Invalid seek", 30: "Read-only file system",
    36: "Filename too long", 40: "Symbolic link loop", 75: "Value too large for data type",
}  # fmt: skip
"""errno -> musl's words (src/errno/__strerror.h), of what opening, reading and mapping a file can end in."""


class Port(Record):
    """What one machine's port of musl fixes (arch/*/reloc.h)."""

    arch: str
    """As file names have it: LDSO_ARCH."""
    relocations: dict[str, int]
    """Kind -> number, of all that are applied; empty: the port was not compared with a real loader."""
    keeps_name: bool = False
    """Whether an entry without a name shows that of the last one that had one, where a message needs it: nobody sets
    it for those (ldso/dynlink.c, do_relocs: `name`), so that it is the compiler's doing, seen in every build [M]."""
    gap: int = 0
    """Bytes between the thread pointer and the program's TLS, where that lies above it (GAP_ABOVE_TP)."""

    @property
    def interp(self) -> str:
        """The program interpreter of an ordinary program."""
        return f"/lib/ld-musl-{self.arch}.so.1"


PORTS: dict[tuple[int, int], Port] = {
    (EM_X86_64, 2): Port(
        "x86_64",
        {"symbolic": 1, "offset32": 2, "copy": 5, "got": 6, "plt": 7, "relative": 8, "dtpmod": 16, "dtpoff": 17,
         "tpoff": 18, "tlsdesc": 36},
        keeps_name=True,
    ),
    (EM_386, 1): Port("i386", {}),
    (EM_AARCH64, 2): Port(
        "aarch64",
        {"symbolic": 257, "copy": 1024, "got": 1025, "plt": 1026, "relative": 1027, "dtpmod": 1028, "dtpoff": 1029,
         "tpoff": 1030, "tlsdesc": 1031},
        gap=16,
    ),
    (EM_ARM, 1): Port("armhf", {}),
    (EM_PPC64, 2): Port("powerpc64le", {}),
    (EM_S390, 2): Port("s390x", {}),
    (EM_RISCV, 2): Port("riscv64", {}),
}  # fmt: skip


class Musl(Record):
    """One release as the loader model needs it: a value for every feature."""

    release: tuple[int, int, int]
    text: str
    """The release as the loader names it, e.g. "1.2.3"."""
    values: dict[str, Any]
    known: bool
    """Whether a row covers this release."""
    strings: bytes = b""
    """The read-only data of the loader binary."""

    @property
    def name(self) -> str:
        """What the report calls it."""
        return "musl"

    @property
    def tls_tunables(self) -> bool:
        """Whether a tunable enlarges the static TLS block."""
        return False

    @property
    def measured(self) -> tuple[tuple[int, int, int], ...]:
        """The releases that were compared with real loaders."""
        return MEASURED

    @property
    def reads_memory(self) -> bool:
        """Whether the model reads tables wherever they lead, page by page, instead of as what the file says."""
        return True

    @property
    def traces(self) -> bool:
        """Whether LD_TRACE_LOADED_OBJECTS makes the loader list objects instead of starting a program."""
        return False

    @property
    def late_static_tls(self) -> bool:
        """Whether a library that comes after the start may be given a place in the static TLS block."""
        return False

    @property
    def takes_libc_names(self) -> bool:
        """Whether the loader takes names such as libc.so.6 for itself, whatever file they mean."""
        return True

    @property
    def no_tunables(self) -> str:
        """Why GLIBC_TUNABLES does nothing."""
        return "musl reads no tunables, and keeps no surplus that one could enlarge"

    @property
    def tcb_size(self) -> dict[int, int]:
        """Bytes of the thread's own record in the static TLS block: none, the block has only modules."""
        return {}

    @property
    def guard_beside_stack(self) -> bool:
        """Whether a thread's guard is added to the stack asked for (src/thread/pthread_create.c)."""
        return True

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return self.values[name]
        except KeyError:
            raise AttributeError(name) from None


def musl(release: tuple[int, int, int], text: str, loader_bytes: bytes = b"") -> Musl:
    """Return the personality of a release."""
    values = {
        name: next((value for since, value, _ in reversed(rows) if since <= release), rows[0][1])
        for name, rows in FEATURES.items()
    }
    return Musl(release, text, values, OLDEST <= release <= NEWEST, loader_bytes)


def told(data: bytes) -> tuple[tuple[int, int, int], str] | None:
    """Return (release, as written) of a musl loader whose read-only data this is; None for any other loader.

    The version is a string of its own (src/internal/version.c), apart from the words of the usage message.
    """
    if b"musl libc (" not in data or b"Dynamic Program Loader" not in data:
        return None
    import re

    found = re.search(rb"\0(([0-9]+)\.([0-9]+)\.([0-9]+)(?:-[0-9A-Za-z.+~-]*)?)\0", data)
    if found is None:
        return (0, 0, 0), ""
    return (int(found[2]), int(found[3]), int(found[4])), found[1].decode("ascii", "replace")


def strerror(errno: int) -> str:
    """Return musl's text for an error number."""
    return "No error information" if errno == 0 else ERRORS.get(errno, f"error {errno}")
