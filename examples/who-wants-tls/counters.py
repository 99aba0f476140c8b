#!/usr/bin/env python3
"""Five threads count to a thousand each, in nine ways; then dlwhy tells where each counter lives.

    examples/who-wants-tls/counters.py               counts, and tells what dlwhy says of each library
    examples/who-wants-tls/counters.py count         counts only
    examples/who-wants-tls/counters.py LIBRARY...    tells only, of these: tls, tls-initial-exec, thread_local, ...

The libraries are driven through ctypes, which lets go of Python's lock for the time of each call, so the threads really
run side by side.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent / "src")]

from lab import (
    MissingError,
    Row,
    built,
    foretold,
    need,
    prediction,
    python_says,
    run,
    tls_by_dlwhy,
    tls_by_readelf,
    version,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

NAME = "who-wants-tls"
THREADS, TIMES = 5, 1000
PATIENCE = 20.0
"""Seconds after which the racy counter counts as lucky."""


class Way(NamedTuple):
    """One way to count."""

    library: str
    told: str
    shared: bool
    """Whether `counter_get` tells of all threads; else of the thread that calls it, and the sums are joined."""


WAYS = (
    Way("racy.c", "a global, unprotected", True),
    Way("mutex.c", "a mutex", True),
    Way("atomic.c", "an atomic", True),
    Way("local.c", "local sums, joined at the end", False),
    Way("map.c", "a map keyed by thread id", False),
    Way("thread_local.rs", "Rust thread_local!", False),
    Way("tls.c", "C __thread", False),
    Way("attribute.rs", "Rust #[thread_local]", False),
)
FLAVOURS = {
    "tls-initial-exec": ("tls.c", ("-ftls-model=initial-exec",)),
    "tls-local-dynamic": ("tls.c", ("-ftls-model=local-dynamic",)),
    "tls-global-dynamic": ("tls.c", ("-ftls-model=global-dynamic",)),
    "tls-descriptors": ("tls.c", ("-mtls-dialect=gnu2",)),
}
"""Library -> the source and the flags of gcc that change how it reaches its variable."""


def libraries() -> Path:
    """Return the directory with all of them built. Raises `MissingError` when a compiler is missing."""
    need("gcc", "cargo", "readelf")
    return built(NAME, HERE, _make, version("gcc", "--version"), version("rustc", "--version"))


def _make(place: Path) -> None:
    for source in sorted(place.glob("*.c")):
        _compile(place, source.name, source.stem)
    for name, (file, words) in FLAVOURS.items():
        _compile(place, file, name, *words)
    for source in sorted(place.glob("*.rs")):
        unstable = "feature(" in source.read_text("utf-8")
        library = ["--edition=2021", "-O", "--crate-type=cdylib", f"--out-dir={place}"]
        try:
            run(["rustc", *library, source.name], place, RUSTC_BOOTSTRAP="1" if unstable else "0")
        except MissingError:
            if not unstable:  # which only some toolchains allow
                raise


def _compile(place: Path, source: str, name: str, *words: str) -> None:
    run(["gcc", "-O2", "-fPIC", "-shared", *words, "-o", f"lib{name}.so", source, "-pthread"], place)


# -- counting ----------------------------------------------------------------------------------------------------------


def count(library: ctypes.CDLL, way: Way, times: int, spin: bool = False) -> tuple[int, float]:
    """Return how far five threads came, and the seconds they took; `spin` counts in the library's own loop."""
    library.counter_get.restype = ctypes.c_long
    before = library.counter_get() if way.shared else 0
    sums: list[int] = []  # what each thread of its own added
    gate = threading.Barrier(THREADS + 1)

    def work() -> None:
        mine = (ctypes.byref(ctypes.c_long()),) if way.library == "local.c" else ()
        inherited = library.counter_get(*mine)  # ids of ended threads are given to new ones, and the map goes by id
        gate.wait()
        if spin:
            library.counter_spin(*mine, ctypes.c_long(times))
        else:
            inc = library.counter_inc
            for _ in range(times):
                inc(*mine)
        sums.append(library.counter_get(*mine) - inherited)

    seconds = _together(work, gate)
    return (library.counter_get() - before if way.shared else sum(sums)), seconds


def _together(work: Callable[[], None], gate: threading.Barrier) -> float:
    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    gate.wait()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


def count_in_python(times: int) -> tuple[int, float]:
    """Return the same of Python's own `threading.local`."""
    mine, sums, gate = threading.local(), [0], threading.Barrier(THREADS + 1)

    def work() -> None:
        mine.count = 0
        gate.wait()
        for _ in range(times):
            mine.count += 1
        sums.append(mine.count)

    seconds = _together(work, gate)
    return sum(sums), seconds


def until_wrong(library: ctypes.CDLL, way: Way, spin: bool) -> tuple[int, int]:
    """Return from which number of increments a thread on the racy counter goes wrong, and how many are lost then."""
    times, start = TIMES, time.perf_counter()
    while time.perf_counter() - start < PATIENCE:
        lost = THREADS * times - count(library, way, times, spin)[0]
        if lost:
            return times, lost
        times *= 2
    return times, 0


def errno_by_thread(path: Path) -> list[int]:
    """Return what each thread finds in errno after all of them have put another number there.

    `use_errno` has ctypes save errno after each call and put it back before the next: Python's own calls change it.
    """
    library = ctypes.CDLL(str(path), use_errno=True)
    found = [0] * THREADS
    gate = threading.Barrier(THREADS)

    def work(number: int) -> None:
        library.errno_set(number)
        gate.wait()
        found[number] = library.errno_get()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def tell() -> None:
    """Count in every way and print how far it came, and what it took."""
    place = libraries()
    print(f"{THREADS} threads, {TIMES} increments each: {THREADS * TIMES} is right")
    for way in WAYS:
        path = place / f"lib{Path(way.library).stem}.so"
        if not path.exists():
            print(f"  {way.told:<30} not with this toolchain")
            continue
        library = ctypes.CDLL(str(path))
        total, seconds = count(library, way, TIMES)
        looped, faster = count(library, way, 100 * TIMES, spin=True)
        _line(way.told, total, seconds, f"{1e9 * faster / (THREADS * 100 * TIMES):7.1f} in its own loop")
        if way.library == "racy.c":
            _wrong(library, way)
        elif (total, looped) != (THREADS * TIMES, 100 * THREADS * TIMES):
            raise AssertionError(f"{way.told}: {total} and {looped}")
    _line("Python threading.local", *count_in_python(TIMES), "")
    if (found := errno_by_thread(place / "liberrno.so")) != list(range(THREADS)):
        raise AssertionError(f"errno was shared: {found}")
    print("  errno: five threads put five numbers into it, and each finds its own")


def _line(told: str, total: int, seconds: float, more: str) -> None:
    print(f"  {told:<30} {total:>5}  {1e9 * seconds / (THREADS * TIMES):7.0f} ns an increment  {more}".rstrip())


def _wrong(library: ctypes.CDLL, way: Way) -> None:
    print("    a thousand often come out right by luck; doubled until they do not:")
    for spin, told in ((False, "one by one through ctypes"), (True, "in a native loop")):
        times, lost = until_wrong(library, way, spin)
        end = f"{lost} of {THREADS * times} are lost" if lost else "still right: lucky, or one processor"
        print(f"      {told}: {times} a thread, and {end}")


# -- where the counter lives -------------------------------------------------------------------------------------------



def rows() -> Iterator[Row]:
    """Yield what a real Python says to each library, and the size of each one's TLS as readelf reads it."""
    tell()
    place = libraries()
    for path in sorted(place.glob("lib*.so")):
        yield Row(NAME, f"python3: {path.name}", python_says(path), prediction(foretold([path], sys.executable)))
        told = f"{path.name}: bytes of TLS, and how they are reached"
        yield Row(NAME, told, tls_by_readelf(path), tls_by_dlwhy(path))


def explain(names: Sequence[str] = ()) -> None:
    """Print what `dlwhy tls` says of each library. Raises `MissingError` for a name that none has."""
    place = libraries()
    files = [place / f"lib{name}.so" for name in names] or sorted(place.glob("lib*.so"))
    for path in files:
        if not path.exists():
            there = ", ".join(sorted(one.stem.removeprefix("lib") for one in place.glob("lib*.so")))
            raise MissingError(f"no library {path.stem.removeprefix('lib')}; there are {there}")
    print(f"$ dlwhy tls {' '.join(map(str, files)) if names else f'{place}/lib*.so'}", flush=True)
    subprocess.run([HERE.parent.parent / "dlwhy", "tls", *files], check=False)


def main(words: list[str]) -> int:
    """Count, tell, or both."""
    try:
        if words in ([], ["count"]):
            tell()
        if words != ["count"]:
            explain(words)
    except MissingError as missing:
        print(f"{NAME}: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
