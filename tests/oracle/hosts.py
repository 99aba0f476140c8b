"""`--on` against the programs of each system: `python -m tests.oracle.hosts [--wheel NAME] [--npm NAME] ...`.

What registries have is unpacked on this machine and, at the same path, into a root of each system that comes with
dlwhy; python3 and node of that system open each file, a fresh process each (aarch64 in QEMU's user mode emulation).
Each cell is held against that, and the cell of the profile against the one of the unpacked packages (`sysroot:`).
Without names it takes a sample that nobody chose for being easy.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from dlwhy.hosts.profile import load, shipped
from dlwhy.systems import known as known_systems
from tests.oracle import machines, musl, real
from tests.oracle.packages import fetch_npm, fetch_wheel
from tests.oracle.sysroots import Index, kept_root, make_root
from tools.profiles import SOURCES, WITHOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from dlwhy.report_systems import Cell

SCRIPTS = "node-acorn", "node-undici", "node-cjs-module-lexer", "node-minimatch"
"""What Debian's node reads of its own scripts before it runs any; a suite has some of these."""
WHEELS = (
    "orjson", "pydantic-core", "shapely", "matplotlib", "contourpy", "kiwisolver", "bcrypt", "regex", "rpds-py",
    "msgpack", "aiohttp", "zstandard", "gevent", "greenlet", "cffi", "pynacl", "pyproj", "duckdb", "asyncpg",
    "tiktoken", "safetensors", "psutil", "hiredis", "llvmlite", "pymupdf", "lightgbm", "soxr", "sentencepiece",
    "rasterio", "av",
)  # fmt: skip
NPM = (
    "@resvg/resvg-js-linux-x64-gnu", "@node-rs/bcrypt-linux-x64-gnu", "@node-rs/xxhash-linux-x64-gnu",
    "@lmdb/lmdb-linux-x64", "@msgpackr-extract/msgpackr-extract-linux-x64", "bufferutil", "utf-8-validate",
    "@nomicfoundation/edr-linux-x64-gnu", "usb", "classic-level", "leveldown", "@datadog/pprof",
    "@datadog/native-metrics", "argon2", "@oxc-resolver/binding-linux-x64-gnu", "@rspack/binding-linux-x64-gnu",
    "@ast-grep/napi-linux-x64-gnu", "@livekit/rtc-node-linux-x64-gnu", "microtime", "@swc/core-linux-x64-musl",
    "@node-rs/xxhash-linux-arm64-gnu", "@parcel/watcher-linux-arm64-glibc", "zeromq",
)  # fmt: skip
ARM_WHEELS = "cryptography", "orjson", "bcrypt", "shapely", "greenlet"
NOTHING = "nothing_of_that_name"
_PYTHON = f"""\
import sys, _imp, posix
class Spec: name, origin = {NOTHING!r}, sys.argv[1]
said = 'loads'
try: _imp.create_dynamic(Spec)
except ImportError as error:
    if not str(error).startswith('dynamic module does not define '): said = 'fails ' + str(error)
posix.write(2, b'\\ndlwhy: ' + said.encode('utf-8', 'surrogateescape') + b'\\n')
posix._exit(0)
"""
_NODE = """\
const say = (text) => { require('fs').writeSync(2, '\\ndlwhy: ' + text + '\\n'); process.reallyExit(0); };
try { process.dlopen({exports: {}}, process.argv[1]); say('loads'); } catch (error) {
  const own = /^(Module did not self-register|The module '|Module version mismatch|Module use )/.test(error.message);
  const thrown = parseInt(process.versions.node) > 14 && error.code !== 'ERR_DLOPEN_FAILED';
  say(own || thrown ? 'loads' : 'fails ' + error.message);
}
"""
"""Both open a file as an import or require() of it does, and tell apart what comes after the loader's work."""
_REGISTERS = re.compile(rb"symbol[ :`]+(?:undefined symbol: )?(?:PyInit_|node_register_|napi_register_|node_api_)")
"""What a program asks of a file that is open, as LD_DEBUG has it: whoever dies then does not die of the loader."""
_COMMANDS = {
    "python3": ("/usr/bin/python3", ("-I", "-S", "-c", _PYTHON)),
    "node": ("/usr/bin/node", ("--no-warnings", "-e", _NODE, "--")),
}


class Seen(NamedTuple):
    """What really happened."""

    outcome: str
    message: str | None


class Compared(NamedTuple):
    """One file in one system, asked three ways."""

    file: str
    host: str
    system: str
    profile: Cell | None
    """None where the profile was made of other versions of the packages."""
    sysroot: Cell
    seen: Seen | None
    """None where the system has no such program."""

    @property
    def verdict(self) -> str:
        """What became of the comparison: "agrees", "undecided", "differs", or "profile differs"."""
        mine, other = self.profile, self.sysroot.but(system=self.system)
        of_few = mine is not None and (mine.because or "").startswith(other.because or "")  # says that it is small
        if mine is not None and mine != other and not (of_few and mine.but(because=other.because) == other):
            return "profile differs"
        if other.outcome == "undecided":
            return "undecided"
        return "agrees" if self.seen is None or (other.outcome, other.message) == self.seen else "differs"


def root_of(name: str) -> tuple[Path | None, str]:
    """(root, "") of a system that comes with dlwhy, able to run its programs, or (None, why it cannot be had)."""
    source = SOURCES[name]
    if os.geteuid() != 0:
        return None, "not run: only root may chroot"
    if not source.programs:
        return musl.sysroot(source.suite, source.architecture)
    words: tuple[Path, ...] = ()
    if source.architecture != "amd64":
        found, why = machines.emulator(machines.TARGETS[source.architecture].qemu or "")
        if found is None:
            return None, why
        words = (found,)

    def make(root: Path) -> None:
        index = Index(source.suite, source.architecture)
        chosen = index.closure(index.matching(source.packages), WITHOUT)
        scripts = [one for one in SCRIPTS if index.has(one)]
        make_root(root, index, [*chosen, *scripts], emulator=words)
        versions = "".join(f"{one} {index.version(one)}\n" for one in sorted(chosen))
        (root / "packages/VERSIONS").write_text(versions)

    told = json.dumps(load(name).data.get("packages") if name in shipped() else None)
    tag = hashlib.sha256(told.encode()).hexdigest()[:8]  # a profile that is made anew has a root of its own
    return kept_root(f"hosts-{name}-{tag}", source.suite, make)


def is_of(name: str, root: Path) -> bool:
    """Whether the profile of a system was made of the very versions that its root has."""
    listed = root / "packages/VERSIONS"
    if name not in shipped():
        return False
    if not listed.exists():
        return True
    return load(name).data.get("packages") == dict(line.split(" ") for line in listed.read_text().splitlines())


def opened(root: Path, host: str, file: str, work: Path) -> Seen | None:
    """What a program of a root says when it opens a file; None where the root has no such program.

    `work` is a directory of this name in the root below which files may be written.
    """
    if host == "plain":
        return _plain(root, file, work / "run")
    if host.startswith("python3."):
        image, words = f"/usr/bin/{host}", _COMMANDS["python3"][1]
    else:
        image, words = _COMMANDS[host]
    if not os.path.lexists(f"{root}{image}"):
        return None
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C.UTF-8"}
    with real.proc(root, Path(image)):
        status, stderr = real.spawned(root, [image, *words, file], Path(image), env, "/tmp")
        said = re.findall(rb"(?ms)^dlwhy: (.*?)\n\Z", stderr)
        env["LD_DEBUG"] = "bindings"
        traced = b"" if said else real.spawned(root, [image, *words, file], Path(image), env, "/tmp")[1]
    if _REGISTERS.search(traced):
        return Seen("loads", None)
    if not said:
        return Seen("dies", f"status {status}: {stderr[-300:].decode(errors='replace')}")
    outcome, _, message = said[-1].decode("utf-8", "surrogateescape").partition(" ")
    return Seen(outcome, message or None)


def _plain(root: Path, file: str, work: Path) -> Seen:
    if not os.path.lexists(f"{root}{machines.target_of(root).loader}"):
        image = real.brought(root, musl.plain(root))
        report = real.ready(Path(f"{root}{work}"), [file])
        with real.proc(root, image):
            status, stderr = real.spawned(root, ["plain", f"{work}/steps", f"{work}/report"], image, {}, "/")
        seen = real.read(report, status, stderr)
    else:
        seen = real.run(root, [file], {}, "/", work, None)
    (step,) = seen.steps
    return Seen(step.outcome, None if step.message is None else os.fsdecode(step.message))


@contextlib.contextmanager
def unpacked(*files: Path) -> Iterator[Path]:
    """A directory of this machine in which wheels, or archives of npm, are for a while as pip or npm installs them."""
    with tempfile.TemporaryDirectory(prefix="dlwhy-hosts-", dir="/tmp") as work:
        for file in files:
            if file.suffix == ".whl":
                with zipfile.ZipFile(file) as wheel:
                    wheel.extractall(work)
                continue
            with tarfile.open(file) as tar, tempfile.TemporaryDirectory(dir=work) as inside_it:
                members = [one for one in tar if (one.isfile() or one.isdir()) and ".." not in one.name]
                tar.extractall(inside_it, members)
                (top,) = Path(inside_it).iterdir()
                name: str = json.loads((top / "package.json").read_text("utf-8"))["name"]
                target = Path(work, "node_modules", name)
                target.parent.mkdir(parents=True, exist_ok=True)
                top.rename(target)
        yield Path(work)


def libraries(place: Path) -> list[str]:
    """The shared objects below a directory."""
    found = []
    for path in sorted(place.rglob("*")):
        if (".so" in path.name or path.suffix == ".node") and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    found.append(str(path))
    return found


@contextlib.contextmanager
def inside(place: Path, roots: Iterable[Path]) -> Iterator[None]:
    """Have a directory of this machine at the same path in each root."""
    copies = [Path(f"{root}{place}") for root in roots]
    try:
        for copy in copies:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(place, copy, symlinks=True)
        yield
    finally:
        for copy in copies:
            shutil.rmtree(copy, ignore_errors=True)


def compare(place: Path, files: list[str], host: str | None, systems: dict[str, Path]) -> Iterator[Compared]:
    """Ask of each file in each system. `host` is one for all, or None for the one that the name of a file tells."""
    made = {name: f"sysroot:{root}" for name, root in systems.items()}
    asked = None if host is None else dlwhy.Host.plain({}) if host == "plain" else dlwhy.Host.executable(host, {})
    known = [name for name, root in systems.items() if is_of(name, root)]
    columns = list(dict.fromkeys(name.removesuffix("-aarch64") for name in known))
    profiles = dlwhy.on(files, columns or known_systems(), asked)
    sysroots = dlwhy.on(files, list(made.values()), asked)
    with inside(place, systems.values()):
        for one, other in zip(profiles.rows, sysroots.rows, strict=True):
            for name, cell in zip(systems, other.cells, strict=False):
                if cell.outcome is None:
                    continue
                seen = opened(systems[name], one.host or "plain", one.file, place)
                at = columns.index(name.removesuffix("-aarch64")) if name in known else None
                kept = one.cells[at].but(system=name) if at is not None else None
                yield Compared(one.file, one.host or "plain", name, kept, cell, seen)


def told(row: Compared) -> str:
    """A difference, in lines."""
    lines = [f"{row.verdict}: {row.file} in {row.host} on {row.system}"]
    cells = [("profile", row.profile), ("sysroot", row.sysroot)]
    lines += [f"  {word}: {cell.outcome} {cell.message or cell.because}" for word, cell in cells if cell is not None]
    if row.seen is not None:
        lines.append(f"  really: {row.seen.outcome} {row.seen.message}")
    return "\n".join(lines)


def packages(wheels: Iterable[str], npm: Iterable[str], arm: Iterable[str]) -> Iterator[tuple[str, str, list[Path]]]:
    """Yield (names, host, files) of packages, "+" between those that belong together; say which cannot be had."""
    wanted: list[tuple[str, str, Callable[[str], Path]]] = []
    wanted += [(name, "python3", partial(fetch_wheel, python="3.11")) for name in wheels]
    wanted += [(name, "python3", partial(fetch_wheel, python="3.11", machine="aarch64")) for name in arm]
    wanted += [(name, "node", fetch_npm) for name in npm]
    for name, host, fetch in wanted:
        try:
            files = [fetch(one) for one in name.split("+")]
        except (OSError, subprocess.SubprocessError) as error:
            print(f"{name}: not run: {error}"[:200])
            continue
        yield name, host, files


def main(argv: list[str] | None = None) -> int:
    """Compare, say every difference and every undecided cell, print a table; 1 when anything differs."""
    parser = argparse.ArgumentParser(prog="hosts", description=__doc__)
    parser.add_argument("--wheel", action="append", default=[])
    parser.add_argument("--arm-wheel", action="append", default=[])
    parser.add_argument("--npm", action="append", default=[])
    parser.add_argument("--system", choices=sorted(SOURCES), action="append", default=[])
    parser.add_argument("--most", type=int, default=6, help="files of each package, drawn by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--host", choices=("own", "inferred", "plain"), default="own", help=(
        "the program of its kind of package, the one that its name tells, or a C program"))  # fmt: skip
    given = parser.parse_args(argv)
    some = given.wheel or given.npm or given.arm_wheel
    systems = {}
    for name in given.system or SOURCES:
        root, why = root_of(name)
        if root is None:
            print(f"{name}: {why}")
        else:
            systems[name] = root
    counts: Counter[tuple[str, str]] = Counter()
    chosen = (given.wheel, given.npm, given.arm_wheel) if some else (WHEELS, NPM, ARM_WHEELS)
    for name, host, archives in packages(*chosen):
        asked = {"own": host, "inferred": None, "plain": "plain"}[given.host]
        with unpacked(*archives) as place:
            files = libraries(place)
            files = random.Random(f"{given.seed}/{name}").sample(files, min(given.most, len(files)))
            for row in compare(place, sorted(files), asked, systems):
                word = "no such host" if row.seen is None and row.verdict == "undecided" else row.verdict
                counts[row.system, word] += 1
                counts[name, word] += 1
                if word not in ("agrees", "no such host"):
                    print(told(row), flush=True)
    for key in dict.fromkeys(one for one, _ in counts):
        print(key, *(f"{word} {counts[key, word]}" for one, word in counts if one == key), sep="  ")
    return 1 if any("differs" in word for _, word in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
