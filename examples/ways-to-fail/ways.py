#!/usr/bin/env python3
"""One tiny example for each other way to fail: what builds it, what the real loader says, and what dlwhy says.

    examples/ways-to-fail/ways.py [WAY]     builds it, opens it, and lets dlwhy explain it; without WAY: all, as a table

The text and the build of each way are in NAME.sh; how it is opened is in the table below.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent), str(HERE.parent.parent / "src")]

from lab import LOADS, MissingError, Row, built, clean, need, prediction, run, tunables, version

import dlwhy

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "ways-to-fail"


class Way(NamedTuple):
    """How a way to fail is opened."""

    steps: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    """Variables; a value that begins with "./" is a file or directory of the example."""
    opener: str = "opener"
    suite: str | None = None
    """The Debian suite whose loader is asked, where the own one is older than that."""
    since: tuple[int, int] = (0, 0)
    """The glibc from which on the own loader says it too."""
    needs: tuple[str, ...] = ("gcc",)
    java: bool = False
    """Whether a JVM opens it, by its whole path, as System.load wants it."""

    helped: bool = False
    """Whether it is opened with the tunable that dlwhy names as well, and with one byte less."""

    @property
    def tuned(self) -> bool:
        """Whether this is with such a tunable: the short answer is enough then."""
        return self.helped and bool(self.environment)

    def told(self) -> tuple[str, str]:
        """The command that opens it, and that of dlwhy."""
        opener, host = ("java -cp . Load", "--host java ") if self.java else (f"./{self.opener}", "")
        steps = " ".join(f'"$PWD/{step[2:]}"' if self.java else step for step in self.steps)
        environment = [*map("=".join, self.environment)]
        asked = [*environment, "dlwhy check -q"] if self.tuned else ["dlwhy check"]
        return " ".join([*environment, opener, steps]), f"{' '.join(asked)} {host}{steps}"

    def asked(self, place: Path) -> tuple[str, list[str]]:
        """The host, and the steps that dlwhy is asked for."""
        if self.java:
            return "java", [str(place / step) for step in self.steps]
        return f"./{self.opener}", [f"now:{step}" for step in self.steps]


WAYS: dict[str, tuple[Way, ...]] = {
    "alignment": (Way(("./alignment.so",)),),
    "forced-dynamic": (Way(("./forced-dynamic.so",)), Way(("./libowner.so", "./forced-dynamic.so"))),
    "audit": tuple(
        Way((f"./takes-{size}.so",), environment)
        for size in range(1600, 1985, 64)
        for environment in ((), (("LD_AUDIT", "./audit.so"),))
    ),
    "innocent": (Way(("./libowner.so",)), Way(("./innocent.so",))),
    "two-libgomps": (
        Way(("./user-a.so", "./user-b.so")),
        Way(("./others.so", "./user-a.so", "./user-b.so")),
    ),
    "glibcxx": (Way(("./glibcxx.so",), (("LD_LIBRARY_PATH", "./old"),), needs=("gcc", "g++")), Way(("./glibcxx.so",))),
    "execstack": (Way(("./execstack.so",), suite="trixie", since=(2, 41)),),
    "pie": (Way(("./pie.so",)),),
    "wrong-machine": (
        Way(("libanswer-of-another-machine.so",), (("LD_LIBRARY_PATH", "./"),)),
        Way(("./libanswer-of-another-machine.so",)),
    ),
    "dependency": (Way(("./dependency.so",)),),
    "jni": tuple(
        Way((f"./lib{name}.so",), needs=("gcc", "java"), java=True, helped=True) for name in ("small", "room")
    ),
    "runpath": (Way(("./runpath-enable.so",)), Way(("./runpath-disable.so",))),
    "musl": (Way(("./musl.so",), opener="musl-opener", needs=("gcc", "musl-gcc")),),
}
"""Way -> what is asked of it. Where two stand, one shows the difference."""

_OLD_LIBSTDCXX = "glibcxx"
_UNSATISFIED = re.compile(r"^Exception in thread .* java\.lang\.UnsatisfiedLinkError: [^:]*: ")


def place_of(name: str) -> Path:
    """Return the directory in which a way is built. Raises `MissingError` when it cannot be."""
    need(*WAYS[name][0].needs)
    more = {"BULLSEYE": str(_sysroot("bullseye"))} if name == _OLD_LIBSTDCXX else {}

    def make(place: Path) -> None:
        run(["gcc", "-o", "opener", "opener.c", "-ldl"], place)
        run(["sh", "-eu", f"{name}.sh"], place, PYTHON=sys.executable, **more)

    return built(f"{NAME}-{name}", HERE, make, version("gcc", "--version"))


def _sysroot(suite: str) -> Path:
    """Return another release of Debian, unpacked. Raises `MissingError` without an archive or a network."""
    from tests.oracle.sysroots import sysroot

    try:
        root, why = sysroot(suite)
    except OSError as error:
        root, why = None, str(error.strerror or error)
    if root is None:
        raise MissingError(f"needs Debian's {suite}: {why}")
    return root


def _loader(way: Way) -> tuple[Path, str] | None:
    """Return the loader to start explicitly, and its library path; None for the program's own."""
    release = tuple(int(number) for number in platform.libc_ver()[1].split(".")[:2])
    if way.suite is None or release >= way.since:
        return None
    root = _sysroot(way.suite)
    triplet = run(["gcc", "-print-multiarch"], HERE).strip()
    (loader,) = sorted(root.glob(f"usr/lib/{triplet}/ld-linux*.so.*")) or [root / "lib64/ld-linux-x86-64.so.2"]
    return loader, f"{root}/usr/lib/{triplet}:{root}/lib/{triplet}"


def _environment(way: Way, place: Path) -> dict[str, str]:
    at = {name: str(place / value) if value.startswith("./") else value for name, value in way.environment}
    return {**clean(), **at}


def real(way: Way, place: Path) -> str:
    """Return what the real loader says, without what a JVM puts before it."""
    return _UNSATISFIED.sub("", said(way, place))


def said(way: Way, place: Path) -> str:
    """Return what the opener prints: of a JVM the first line, as its stack goes by its release."""
    if way.java:
        words = ["java", "-cp", ".", "Load", *(str(place / step) for step in way.steps)]
    else:
        words = [f"./{way.opener}", *way.steps]
    explicit = _loader(way)
    if explicit is not None:
        words = [str(explicit[0]), "--library-path", explicit[1], *words]
    env = _environment(way, place)
    done = subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, env=env)
    if way.java and done.returncode == 0:
        return LOADS
    told = done.stdout.strip() or done.stderr.strip() or f"exit status {done.returncode}"
    return told.splitlines()[0] if way.java else told


def foretold(way: Way, place: Path) -> dlwhy.CheckReport:
    """Return dlwhy's report of the same."""
    opener, steps = way.asked(place)
    host = dlwhy.Host.executable(opener, env=_environment(way, place))
    explicit = _loader(way)
    loader, library_path = (str(explicit[0]), explicit[1]) if explicit is not None else (None, None)
    return dlwhy.check(steps, host, cwd=str(place), loader=loader, library_path=library_path)


def rows() -> Iterator[Row | MissingError]:
    """Yield what the real loader says to each way, beside what dlwhy says; one that cannot be built says why."""
    for name in WAYS:
        try:
            yield from list(_rows(name))
        except MissingError as missing:
            yield MissingError(f"{name}: {missing}")


def _with_help(name: str, place: Path) -> Iterator[Way]:
    for way in WAYS[name]:
        yield way
        for _, setting in tunables(foretold(way, place)) if way.helped else ():
            yield way._replace(environment=(*way.environment, ("GLIBC_TUNABLES", setting)))


def _rows(name: str) -> Iterator[Row]:
    place = place_of(name)
    for way in _with_help(name, place):
        told = " ".join([*map("=".join, way.environment), *way.steps])
        yield Row(NAME, f"{name}: {told}", real(way, place), prediction(foretold(way, place)))


def main(words: list[str]) -> int:
    """Show one way, or all of them as a table."""
    if not words:
        from run import show

        return show([NAME])
    if words not in ([name] for name in WAYS):
        print(f"no way {' '.join(words)}; there are {', '.join(WAYS)}", file=sys.stderr)
        return 2
    (name,) = words
    try:
        place = place_of(name)
        for line in (HERE / f"{name}.sh").read_text("utf-8").splitlines():
            if not line.startswith("#"):
                break
            print(line[2:])
        for way in _with_help(name, place):
            opened, asked = way.told()
            print(f"\n$ {opened}\n{said(way, place)}\n\n$ {asked}", flush=True)
            print(dlwhy_says(way, place), end="")
    except MissingError as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return 1
    return 0


def dlwhy_says(way: Way, place: Path) -> str:
    """Return the text of dlwhy's report, as the command prints it."""
    explicit = _loader(way)
    options = [] if explicit is None else ["--loader", str(explicit[0]), "--library-path", explicit[1]]
    host, steps = way.asked(place)
    words = [str(HERE.parent.parent / "dlwhy"), "check", "--host", host, *options, *steps, *["-q"] * way.tuned]
    env = {**os.environ, **_environment(way, place)}
    return subprocess.run(words, cwd=place, capture_output=True, text=True, check=False, env=env).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
