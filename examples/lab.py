"""What every example needs: a place to build in, tools or a sentence that says which is missing, and rows to compare.

Nothing but Python's standard library and dlwhy itself, from this checkout.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from fcntl import LOCK_EX, flock
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "src")] * (str(HERE.parent / "src") not in sys.path)

import dlwhy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

LOADS = "loads"
"""What stands in a row where there is no message, because the load succeeds."""

PACKAGES = {
    "cargo": "cargo from rustup, or apt-get install cargo",
    "gcc": "apt-get install gcc",
    "g++": "apt-get install g++",
    "go": "apt-get install golang-go",
    "java": "apt-get install default-jre-headless",
    "ld.so of musl": "apt-get install musl-tools",
    "musl-gcc": "apt-get install musl-tools",
    "node": "apt-get install nodejs",
    "npm": "apt-get install npm",
    "objcopy": "apt-get install binutils",
    "objdump": "apt-get install binutils",
    "pip": "apt-get install python3-pip",
    "readelf": "apt-get install binutils",
}
"""Tool -> how to get it."""


class MissingError(Exception):
    """An example cannot run here; one sentence says what is missing and how to get it."""


class Row(NamedTuple):
    """One question, what the real loader said to it, and what dlwhy had said before."""

    example: str
    question: str
    real: str
    """The message, or `LOADS`."""
    predicted: str

    @property
    def equal(self) -> bool:
        """Whether both say the same, to the letter."""
        return self.real == self.predicted


def cache() -> Path:
    """Return where things are built; never inside of the checkout, which may be read-only."""
    base = os.environ.get("DLWHY_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dlwhy"
    return Path(base) / "examples"


def need(*tools: str) -> None:
    """Raise `MissingError` for the first tool that is not there."""
    for tool in tools:
        if shutil.which(tool) is None:
            raise MissingError(f"needs {tool}, which is not installed: {PACKAGES[tool]}")


def run(words: Sequence[str | Path], directory: Path, **environment: str) -> str:
    """Return what a build tool prints. Raises `MissingError` with its own words when it fails."""
    try:
        done = subprocess.run(
            words, cwd=directory, capture_output=True, text=True, check=False, env={**os.environ, **environment}
        )
    except OSError as error:
        raise MissingError(f"cannot run {words[0]}: {error.strerror}") from error
    if done.returncode:
        told = [line for line in done.stderr.splitlines() if re.match(r"(error|.*: error)\b", line)]
        last = (told or done.stderr.strip().splitlines() or ["it says nothing"])[0]
        raise MissingError(f"{' '.join(map(str, words[:3]))} fails: {last[:200]}")
    return done.stdout


def built(name: str, sources: Path, make: Callable[[Path], None], *versions: str) -> Path:
    """Return the directory in which `make` has built a copy of `sources`, once for these sources and tool versions.

    Raises `MissingError` when it cannot be built, or there is no place to build in.
    """
    digest = hashlib.sha256("\0".join(versions).encode())
    for path in sorted(path for path in sources.rglob("*") if path.is_file()):
        if path.suffix not in (".py", ".pyc"):
            digest.update(str(path.relative_to(sources)).encode() + b"\0" + path.read_bytes())
    place = cache().resolve() / f"{name}-{digest.hexdigest()[:12]}"  # node's require follows links
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = open(f"{place}.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        told = f"cannot write below {cache()} ({error.strerror}): set DLWHY_CACHE to a directory"
        raise MissingError(told) from error
    with lock:
        flock(lock, LOCK_EX)
        if not place.exists():
            fresh = place.with_name(f"{place.name}.new")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(sources, fresh, ignore=shutil.ignore_patterns("__pycache__"))
            make(fresh)
            fresh.rename(place)
        _name(place, cache() / name)
    return place


def _name(place: Path, short: Path) -> None:
    """Give what was built a name without a digest, which leads to what was asked for last."""
    fresh = short.with_name(f"{short.name}.link")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(place.name)
    fresh.replace(short)


def version(*words: str) -> str:
    """Return the first line that a tool says of its version."""
    need(words[0])
    return run(words, HERE).splitlines()[0]


def registry(name: str) -> Path:
    """Return a wheel of PyPI or a package of npm by the name of its file. Raises `MissingError` without a network."""
    from tools.registries import UnreachedError, package

    if not name.endswith(".whl"):
        need("npm")
    elif find_spec("pip") is None:
        raise MissingError(f"needs pip, which is not installed: {PACKAGES['pip']}")
    try:
        return package(name, cache().parent / "registry")
    except UnreachedError as error:
        raise MissingError(str(error)) from error


def tls_by_readelf(path: Path) -> str:
    """Bytes of the TLS segment, and whether its relocations force it into the static block, by the classic tool."""
    need("readelf")
    segments = subprocess.run(["readelf", "-Wl", path], capture_output=True, text=True, check=True).stdout
    found = re.search(r"^ +TLS +(?:0x\w+ +){4}(0x\w+)", segments, re.MULTILINE)
    relocations = subprocess.run(["readelf", "-Wr", path], capture_output=True, text=True, check=True).stdout
    return f"{int(found[1], 16) if found else 0} bytes{' static' * ('R_X86_64_TPOFF64' in relocations)}"


def tls_by_dlwhy(path: Path) -> str:
    """The same as dlwhy tells it: the sum of the bill's lines."""
    (file,) = dlwhy.tls([path]).files
    told = file.tls
    size = sum(one.bytes for one in told.owners) + told.padding + told.unattributed if told else 0
    return f"{size} bytes{' static' * bool(file.triggers)}"


_REQUIRE = 'try { require(process.argv[1]); console.log("loads") } catch (e) { console.log(e.message) }'


def hosts() -> list[str]:
    """Return the programs that can require an addon: node, and electron where there is one."""
    need("node")
    return ["node"] + ["electron"] * (shutil.which("electron") is not None)


def node_says(addon: Path, host: str = "node", **environment: str) -> str:
    """Return what a real node says when it requires an addon: `LOADS`, or the message of the error."""
    done = subprocess.run(
        [host, "-e", _REQUIRE, addon], capture_output=True, text=True, check=False, cwd=addon.parent,
        env={**clean(), "ELECTRON_RUN_AS_NODE": "1", **environment},
    )  # fmt: skip
    return done.stdout.strip() or (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]


_OPEN = """
import ctypes, sys
for name in sys.argv[1:]:
    try:
        ctypes.CDLL(name)
    except OSError as error:
        sys.exit(str(error))
"""


def python_says(*libraries: Path, **environment: str) -> str:
    """Return what a real Python says when ctypes opens these libraries, one after the other, in one process."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, *map(str, libraries)], capture_output=True, text=True, check=False,
        env={**clean(), **environment},
    )  # fmt: skip
    return LOADS if not done.returncode else done.stderr.strip()


def clean() -> dict[str, str]:
    """Return the environment without what would change a load."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("LD_") and name != "GLIBC_TUNABLES"
    }


def foretold(
    steps: Sequence[str | Path], host: str, environment: Mapping[str, str] | None = None
) -> dlwhy.CheckReport:
    """Return dlwhy's report of these steps in a host; `environment` adds to that of this process."""
    env = {**clean(), **(environment or {})}
    made = dlwhy.Host.plain(env=env) if host == "plain" else dlwhy.Host.executable(host, env=env)
    return dlwhy.check([str(step) for step in steps], made)


def tunables(report: dlwhy.CheckReport) -> list[tuple[str, str]]:
    """Return what to say and the GLIBC_TUNABLES that dlwhy offers, and the same with one byte less; nothing without."""
    changes = [one.change.get("env") for one in report.cures]
    cures = [one["GLIBC_TUNABLES"] for one in changes if isinstance(one, dict) and "GLIBC_TUNABLES" in one]
    if not cures:
        return []
    setting, _, number = cures[0].rpartition("=")
    return [("with the tunable that dlwhy names", cures[0]), ("with one byte less", f"{setting}={int(number) - 1}")]


def prediction(report: dlwhy.CheckReport) -> str:
    """Return what the loader will say by a report: the message of the first step that does not load, or `LOADS`."""
    for step in report.steps:
        if step.outcome != "loads":
            return step.message or f"{step.outcome}: {step.because}"
    return LOADS
