"""Any mangled name as a reader knows it: Rust by our own reader, C++ by the C++ runtime of this system.

The C++ runtime is taken by absolute path from the directories of this system, never from a tree under examination and
never through a search; while LD_LIBRARY_PATH or LD_AUDIT are set, what it needs could come from elsewhere, and then
`c++filt` is asked instead, by absolute path and with an empty environment. Without either the name stays as written.

A C++ name can be short and stand for gigabytes: each `S_` repeats what stood before. Such a name, told by an upper
bound of its length, is only ever given to `c++filt`, which has little time and memory.
"""

from __future__ import annotations

import os
import re
import sys

from dlwhy.attribute.owners import peel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_NAME = 4096
"""Characters of a C++ name that are handed to a demangler."""
MAX_TEXT = 1 << 16
"""Characters of a demangled C++ name that are kept; more, and the name stays as written."""
CHILD_SECONDS = 2
"""Seconds that `c++filt` gets for all names of one question."""
CHILD_MEMORY = 1 << 28
"""Bytes of address space that it gets."""
CHILD_TEXT = 1 << 24
"""Bytes of its answer that are read."""
FILTER = "/usr/bin/c++filt"

_RUNTIMES = ("libstdc++.so.6", "libc++abi.so.1")
_WORD = re.compile(r"_Z[0-9A-Za-z_$.]+")
_GROWTH = re.compile(r"[ST][0-9A-Z]*_|Dp|s[ZP]")


def demangle(name: str) -> str:
    """Return what `name` stands for, without the suffixes of optimisers and linkers; `name` itself when unknown."""
    return demangle_all((name,))[name]


def demangle_all(names: Iterable[str]) -> dict[str, str]:
    """Return name -> what it stands for, for each of `names`; a name that is not understood stands for itself."""
    result = {}
    rest = {}
    for name in names:
        plain = peel(name)
        text = _rust(plain)
        if text is None and len(plain) <= MAX_NAME and _WORD.fullmatch(plain):
            rest[name] = plain
        result[name] = text or plain
    if rest:
        result.update(_cxx(rest))
    return result


def _rust(name: str) -> str | None:
    if not name.startswith("_R") and "17h" not in name[-20:]:
        return None
    from dlwhy.attribute.demangle_rust import demangle_rust  # its patterns take milliseconds to compile

    return demangle_rust(name)


def _cxx(names: dict[str, str]) -> dict[str, str]:
    """Return name -> text for those C++ names (name -> name without suffixes) that could be read."""
    result = {}
    call = _runtime()
    left = {}
    for name, plain in names.items():
        if call is None or _bound(plain) > MAX_TEXT * 16:
            left[name] = plain
        else:
            text = call(plain)
            if text is not None:
                result[name] = text
    if left:
        texts = _filter(sorted(set(left.values())))
        result.update((name, texts[plain]) for name, plain in left.items() if plain in texts)
    return {name: text for name, text in result.items() if len(text) <= MAX_TEXT}


def _bound(name: str) -> float:
    """Return more characters than `name` can stand for.

    r references in all give the longest text when each component names the one before three times: 3 ** (r / 3). A
    pack expansion repeats its pattern at most once per character of the name.
    """
    found = _GROWTH.findall(name)
    packs = sum(1 for item in found if item in ("Dp", "sZ", "sP"))
    if packs > 4 or len(found) > 60:
        return float("inf")
    return 2.0 * len(name) * 1.4423 ** (len(found) - packs) * float(len(name)) ** packs


def _directories() -> list[str]:
    """Return this system's own library directories, the multiarch one first."""
    triplet: str = getattr(sys.implementation, "_multiarch", "")
    tails = (f"lib/{triplet}", "lib64", "lib") if triplet else ("lib64", "lib")
    return [root + tail for root in ("/usr/", "/") for tail in tails]


def _runtime() -> Callable[[str], str | None] | None:
    """Return a caller of this system's `__cxa_demangle` (Itanium C++ ABI 3.4), or None when none can be trusted."""
    if os.environ.get("LD_LIBRARY_PATH") or os.environ.get("LD_AUDIT"):
        return None
    path = next((p for d in _directories() for p in (f"{d}/{n}" for n in _RUNTIMES) if os.path.isfile(p)), None)
    if path is None:
        return None
    try:
        import ctypes

        demangler = ctypes.CDLL(path).__cxa_demangle  # noqa: SLF001 -- the name that the ABI gives it
        free = ctypes.CDLL(None).free
    except (ImportError, OSError, AttributeError):  # an interpreter without ctypes, or of another libc or class
        return None
    demangler.restype = ctypes.c_void_p
    demangler.argtypes = (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int))
    free.argtypes = (ctypes.c_void_p,)
    free.restype = None

    def call(name: str) -> str | None:
        status = ctypes.c_int(-1)
        place = demangler(name.encode("ascii"), None, None, ctypes.byref(status))
        if not place:
            return None
        try:
            return ctypes.string_at(place).decode("utf-8", "replace") if status.value == 0 else None
        finally:
            free(place)

    return call


def _filter(names: list[str]) -> dict[str, str]:
    """Return name -> text by a `c++filt` process; without those that it had no time or memory for."""
    if not os.access(FILTER, os.X_OK):
        return {}
    import resource
    import subprocess

    def limits() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (CHILD_MEMORY, CHILD_MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (CHILD_SECONDS, CHILD_SECONDS))

    with open(os.memfd_create("names"), "w+b") as given:
        given.write("\n".join(names).encode("ascii") + b"\n")
        given.seek(0)
        try:
            child = subprocess.Popen(  # noqa: S603 -- by absolute path, nothing of the names on its command line
                [FILTER, "--no-strip-underscores", "--format=gnu-v3"],
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"LC_ALL": "C"},
                preexec_fn=limits,  # noqa: PLW1509 -- only system calls, and nothing of ours runs in threads here
            )
        except OSError:
            return {}
        with child:
            assert child.stdout is not None
            text = child.stdout.read(CHILD_TEXT)
            child.kill()
    lines = text.split(b"\n")[:-1]  # what stands behind the last newline was cut
    pairs = zip(names, lines, strict=False)  # fewer lines when it was stopped
    return {name: line.decode("utf-8", "replace") for name, line in pairs if line != name.encode("ascii")}
