"""Runs steps in a fresh process of the real loader and says what it did."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import resource
import signal
import subprocess
from contextlib import contextmanager, nullcontext
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlwhy.elf.file import Elf
from dlwhy.files import Files
from tests.oracle import machines
from tests.oracle.machines import AMD64, target_of
from tests.oracle.sysroots import cache

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent
LIB = AMD64.lib
LOADER = AMD64.loader
_SLOTS = b"_thread_db_rtld_global__dl_tls_dtv_slotinfo_list"
"""Where thread debuggers learn the place of the list in _rtld_global: three words of 32 bits, the last one its offset.

Behind the list stand, up to 2.33, its length, the size of the static TLS block, what is used, the alignment and, where
there is such a thing, what is left of the optional part; from 2.34 on its length, what is used, and what is left.
"""


_EMULATOR_DIED = re.compile(rb"qemu: uncaught target signal \d+ \([^)]*\) - core dumped\n\Z")
"""What QEMU says when it ends by the signal that killed the program."""


class RealStep(NamedTuple):
    """What became of one step."""

    outcome: str
    message: bytes | None
    loaded: tuple[str, ...]
    unloaded: tuple[str, ...]


class RealRun(NamedTuple):
    """What became of a process."""

    started: bool
    stderr: bytes
    status: int
    steps: tuple[RealStep, ...]
    start_maps: tuple[str, ...]
    tls: tuple[int, int, int, int] | None
    """Size with the TCB, alignment, used, optional left; None after a death."""


def libc_files(root: Path) -> list[str]:
    """What a host of ours is linked against: this root's own libc, and libdl where dlopen is still there."""
    directory = root / target_of(root).lib
    libraries = [directory / "libc.so.6"]
    if b"GLIBC_2.34" not in (directory / "libc.so.6").read_bytes():
        libraries.insert(0, directory / "libdl.so.2")
    return [str(library.resolve() if root == Path("/") else library) for library in libraries]


def _loader(root: Path) -> Path:
    """The file of a root's loader."""
    target = target_of(root)
    return next((root / target.lib).glob("ld-*.so*"), None) or next((root / target.lib).glob("ld*.so*"))


def program_libraries(root: Path) -> tuple[str, ...]:
    """What a program that calls dlopen is linked with: start files, this root's libc and loader."""
    target = target_of(root)
    gcc = [[target.gcc, f"-print-file-name={name}"] for name in ("crt1.o", "crti.o", "crtn.o")]
    crt = [subprocess.run(one, capture_output=True, text=True, check=True).stdout.strip() for one in gcc]
    dynamic = f"-Wl,--dynamic-linker={target.loader}"
    return (*crt[:2], "-Wl,--as-needed", *libc_files(root), str(_loader(root).resolve()), dynamic, crt[2])


def plain(root: Path) -> Path:
    """The host program, compiled for a root (kept in the cache) and placed where the root's processes can run it."""
    source = HERE / "plain.c"
    name = "this" if root == Path("/") else root.name
    target = cache() / "plain" / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        own = target.with_name(f"{target.name}-{os.getpid()}")  # others may build the same at once
        command = [target_of(root).gcc, "-O1", "-no-pie", "-o", str(own), str(source)]
        if root != Path("/"):
            libraries = [*libc_files(root), str(_loader(root).resolve()), "-lgcc"]
            command += ["-nodefaultlibs", "-Wl,--as-needed", *libraries]
        subprocess.run(command, check=True, capture_output=True)
        own.rename(target)
    return target


@functools.cache
def rtld_words(root: Path) -> tuple[int, int] | None:
    """Where used and optional stand in _rtld_global of a root's loader; None where the files do not tell.

    Debian keeps what thread debuggers look for: in libc from 2.34 on, before that in libpthread's full symbol table.
    """
    directory = root / target_of(root).lib
    for name, first, second in (("libc.so.6", 2, 3), ("libpthread.so.0", 3, 5)):
        path = directory / name
        if path.exists():
            elf = Elf(Files("/").open(str(path.resolve())))
            word = elf.layout.word_size
            place = _symbol(path, _SLOTS.decode())
            if place is not None:
                offset = elf.layout.u32.unpack(elf.at(place + 8, 4))[0]
                return offset + first * word, offset + second * word
    return None


def _symbol(path: Path, name: str) -> int | None:
    """The value of a symbol in any of a file's tables."""
    table = subprocess.run(["readelf", "-W", "--syms", path], capture_output=True, text=True, check=True).stdout
    match = re.search(rf"(?m)^\s*\d+: ([0-9a-f]+)\s+\d+ OBJECT\s.*\s{name}(?:@.*)?$", table)
    return int(match[1], 16) if match else None


def _maps(text: str) -> dict[str, str]:
    """Address of each link map -> name, in the order of the list."""
    pairs = (word.split(":") for word in text.split())
    return {address: bytes.fromhex(name).decode("utf-8", "surrogateescape") for address, name in pairs}


@contextmanager
def proc(root: Path, program: Path) -> Generator[None]:
    """Give a root what the loader reads of /proc: where the program is ($ORIGIN). One process a root at a time."""
    link = root / "proc/self/exe"
    link.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{root}.lock").open("w") as lock:
        flock(lock, LOCK_EX)
        link.unlink(missing_ok=True)
        link.symlink_to(program)
        yield


def run(
    root: Path,
    steps: list[str],
    env: dict[str, str],
    cwd: str,
    work: Path,
    words: tuple[int, int] | None,
    program: str | None = None,
    emulator: tuple[str, ...] = (),
) -> RealRun:
    """Run steps in `plain`, or in another program that reads them, inside a root.

    `emulator` are the words of a command, as the root has it, that runs the program on another processor; without
    them those of the root's machine.
    `work` is a directory below which files are written; it has the same name inside and outside.
    """
    inside = root != Path("/")
    report = ready(Path(f"{root}{work}") if inside else work, steps)
    argv0 = program or "plain"
    image = Path(program) if program else plain(root)
    if inside and not program:
        image = brought(root, image)
    arguments = [argv0, str(work / "steps"), str(work / "report"), *map(str, words or ())]
    with proc(root, image) if inside else nullcontext():
        status, stderr = spawned(root, arguments, image, env, cwd, emulator)
    return read(report, status, stderr)


def spawned(
    root: Path, arguments: list[str], image: Path, env: dict[str, str], cwd: str, emulator: tuple[str, ...] = ()
) -> tuple[int, bytes]:
    """As `spawn`, under an emulator where the root's machine needs one."""
    emulator = emulator or machines.inside(target_of(root), root)
    if not emulator:
        return spawn(root, arguments, image, env, cwd)
    splits = any("," in value for value in env.values())  # as qemu's -E does
    given = [] if splits else [word for name, value in env.items() for word in ("-E", f"{name}={value}")]
    words = [*emulator, *given, "-0", arguments[0], str(image), *arguments[1:]]
    # the emulator's own C library would look at the environment too
    status, stderr = spawn(root, words, Path(emulator[0]), env if splits else {}, cwd)
    return status, _EMULATOR_DIED.sub(b"", stderr)


def brought(root: Path, program: Path) -> Path:
    """Copy a program of ours into a root, once: its path there."""
    copy = Path(f"{root}/{program.name}")
    if not copy.exists():
        own = Path(f"{copy}.{os.getpid()}")
        own.write_bytes(program.read_bytes())
        own.chmod(0o755)
        own.rename(copy)
    return Path(f"/{program.name}")


def ready(here: Path, steps: list[str]) -> Path:
    """Write the steps for a host of ours into a directory; where its report will be."""
    here.mkdir(parents=True, exist_ok=True)
    for name in ("steps", "report"):
        (here / name).unlink(missing_ok=True)  # never written over: other copies of a root may share a file by links
    (here / "steps").write_bytes("".join(step + "\n" for step in steps).encode("utf-8", "surrogateescape"))
    return here / "report"


def spawn(root: Path, arguments: list[str], image: Path, env: dict[str, str], cwd: str) -> tuple[int, bytes]:
    """Run a program inside a root: its exit status and standard error.

    It has 20 seconds of processor time, and so many times that of the clock as others may take away from it.
    """

    def enter() -> None:
        if root != Path("/"):
            os.chroot(root)
        os.chdir(cwd)
        resource.setrlimit(resource.RLIMIT_CPU, (20, 21))
        signal.alarm(120)

    done = subprocess.run(
        arguments,
        executable=image,
        env=env,
        preexec_fn=enter,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )  # a fresh process, nothing of ours in its environment
    return done.returncode, done.stderr


def read(report: Path, status: int, stderr: bytes) -> RealRun:
    if not report.exists():
        return RealRun(False, stderr, status, (), (), None)
    result: list[RealStep] = []
    start: tuple[str, ...] | None = None
    maps: dict[str, str] = {}
    outcome, message, tls, begun = "", None, None, 0
    for line in report.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "begin":
            begun, outcome, message = int(rest), "", None
        elif word == "loads":
            outcome = "loads"
        elif word == "fails":
            outcome = "fails"
            text = rest.partition(" ")[2]
            message = None if text == "-" else bytes.fromhex(text)
        elif word == "maps":
            now = _maps(rest)
            if start is None:
                start = tuple(now.values())
            else:
                loaded = tuple(name for address, name in now.items() if maps.get(address) != name)
                gone = tuple(name for address, name in maps.items() if now.get(address) != name)
                result.append(RealStep(outcome, message, loaded, gone))
            maps = now
        elif word == "tls":
            a, b, c, d = map(int, rest.split())
            tls = (a, b, c, d)
    if begun > len(result):
        result.append(RealStep(outcome or "dies", message, (), ()))
    return RealRun(True, stderr, status, tuple(result), start or (), tls)


__all__ = [
    "RealRun", "RealStep", "libc_files", "plain", "proc", "read", "ready", "rtld_words", "run", "spawn", "spawned",
]  # fmt: skip
