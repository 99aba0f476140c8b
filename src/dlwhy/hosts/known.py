"""What is known of the hosts that people name: how they call dlopen, their threads' stacks, and how to try a load.

A host without a row opens with RTLD_NOW, as `plain` does, and gives its threads the default stack.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

RTLD_LAZY, RTLD_NOW = 1, 2
DEFAULT_STACK = 8 << 20
"""Bytes of a thread's stack without other wishes: the usual RLIMIT_STACK (pthread_create(3))."""
LEAST_REST = 2048
"""Bytes of a stack that glibc itself insists on beside guard and static TLS (nptl/pthreaddef.h, MINIMAL_REST_STACK)."""


LEAST_STACK = 16384
"""Bytes that a thread is said to need at the least (limits.h, PTHREAD_STACK_MIN)."""


class KnownHost(Record):
    """One host program."""

    kind: str
    """How a load is tried in it: "node", "python", "perl", or "" where no command line does it."""
    names: tuple[str, ...]
    """Base names of the executable, without the release where names have one."""
    binding: int
    """RTLD_LAZY or RTLD_NOW."""
    smallest_stack: int
    """Bytes of the smallest stack that the host asks for when it creates threads."""
    stack_need: int
    """Bytes of such a stack that must be left beside guard and static TLS."""
    shortage: str
    """What happens when they are not, as the end of a sentence."""
    cite: str


_NODE = (
    "it cannot create the thread that waits for SIGUSR1 and the inspector, and without it runs on, having written "
    '"pthread_create: Invalid argument" to standard error'
)
_OVERFLOW = "they run out of it and die of a signal"
_OTHER = KnownHost("", (), RTLD_NOW, DEFAULT_STACK, LEAST_STACK, _OVERFLOW, "no row: as plain")
HOSTS: tuple[KnownHost, ...] = (
    KnownHost(
        "node", ("node", "nodejs", "electron"), RTLD_LAZY, 4 * 8192, LEAST_REST, _NODE,
        "node process.dlopen(): flags default to RTLD_LAZY; "
        "src/inspector_agent.cc, StartDebugSignalHandler: a stack of 4 * 8192 bytes [M 20]",
    ),
    KnownHost(
        "", ("java",), RTLD_LAZY, 1 << 20, 136 << 10, "the virtual machine does not start",
        "openjdk os_linux.cpp: RTLD_LAZY, ThreadStackSize 1 MiB; java -Xss: at least 136k "
        "[M 17: it starts with 108.3 KiB left, and not with 108.25]",
    ),
    KnownHost(
        "perl", ("perl",), RTLD_LAZY, DEFAULT_STACK, LEAST_STACK, _OVERFLOW,
        "perl ext/DynaLoader/dl_dlopen.xs: RTLD_LAZY unless PERL_DL_NONLAZY is set",
    ),
    KnownHost(
        "", ("ruby",), RTLD_LAZY, 1 << 20, LEAST_STACK, _OVERFLOW,
        "ruby dln.c: RTLD_LAZY; vm_core.h, RUBY_VM_THREAD_MACHINE_STACK_SIZE 1 MiB",
    ),
    KnownHost(
        "python", ("python", "pypy"), RTLD_NOW, DEFAULT_STACK, LEAST_STACK, _OVERFLOW,
        "cpython sys.setdlopenflags(), Modules/_ctypes/callproc.c: RTLD_NOW; Python/thread_pthread.h: default stack "
        "[M 3.11: threads run with 82 KiB left, and die with 5]",
    ),
)  # fmt: skip
_NUMBERED = ("perl", "ruby", "python", "pypy")
"""Names that a release may follow, as in python3.11."""


def known_host(executable: str | None) -> KnownHost:
    """Return the row of an executable, by its base name."""
    if executable is None:
        return _OTHER
    base = executable.rpartition("/")[2]
    bare = base.rstrip("0123456789.")
    wanted = bare if bare in _NUMBERED else base
    return next((row for row in HOSTS if wanted in row.names), _OTHER)


def inferred(step_name: str) -> tuple[str, str] | None:
    """Return (host name to look for, why) for a file whose name tells who loads it, None for any other."""
    base = step_name.rpartition("/")[2]
    if base.endswith(".node"):
        return "node", "*.node is a Node addon"
    if ".cpython-3" in base:
        import re  # not on every road: its import is not cheap

        match = re.search(r"\.cpython-3([0-9]+)[^/]*\.so$", base)
        if match:
            return f"python3.{match[1]}", f"*.cpython-3{match[1]}*.so is an extension of that Python"
    if base.endswith(".abi3.so"):
        return "python3", "*.abi3.so is a Python extension"
    return None


def attempt(kind: str, opens: Sequence[str]) -> str | None:
    """Return the arguments, quoted for a shell, with which a host of that kind opens these names; None where none do.

    For Node a name that ends in ".node" is required, which makes it absolute; any other is handed to process.dlopen.
    """
    from shlex import quote

    literals = [_python_literal(name) if kind == "python" else _literal(name) for name in opens]
    if not opens or any(one is None for one in literals):
        return None
    names = [one for one in literals if one is not None]
    if kind == "node":
        calls = [
            f"require({one})" if is_addon else f"process.dlopen({{exports: {{}}}}, {one})"
            for is_addon, one in zip((name[:1] == "/" and name.endswith(".node") for name in opens), names, strict=True)
        ]
        return f"-e {quote('; '.join(calls))}"
    if kind == "python":
        return f"-c {quote('import ctypes; ' + '; '.join(f'ctypes.CDLL({one})' for one in names))}"
    if kind == "perl":
        if any(c in one for one in names for c in "$@"):  # perl would see variables in them
            return None
        loads = "; ".join(f"DynaLoader::dl_load_file({one}) or die DynaLoader::dl_error()" for one in names)
        return f"-MDynaLoader -e {quote(loads)}"
    return None


def _literal(text: str) -> str | None:
    """Return `text` in double quotes as JavaScript and Perl read it; None when they cannot take it as it is."""
    return f'"{text}"' if text.isprintable() and not any(c in text for c in '"\\') else None


def _python_literal(text: str) -> str:
    return _literal(text) or ascii(text)
