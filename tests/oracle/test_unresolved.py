"""`dlwhy unresolved` against the loader in its tracing mode, which is what `ldd -r` runs: the same sets."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from benchmarks.binding import Lacking, by_dlwhy, by_loader
from dlwhy.elf.constants import DT_RELASZ, PT_DYNAMIC
from dlwhy.elf.file import Elf
from dlwhy.view import View
from tests.oracle import libraries
from tests.oracle.sysroots import roots

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

pytestmark = pytest.mark.oracle

LOADER = "/lib64/ld-linux-x86-64.so.2"
ENV = {"PATH": "/usr/bin:/bin"}
TRACING = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_WARN": "yes", "LD_BIND_NOW": "yes"}


def root_of(loader: str) -> Path:
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    return root


def traced(root: Path, path: str, cwd: str = "/") -> str:
    """All that the real loader writes when it is started with a file, tracing, below a root."""

    def enter() -> None:
        if root != Path("/"):
            os.chroot(root)
        os.chdir(cwd)

    loader = LOADER if root == Path("/") else f"{root}{LOADER}"
    done = subprocess.run(
        [LOADER, path], executable=loader if root == Path("/") else LOADER, env=ENV | TRACING, preexec_fn=enter,
        capture_output=True, check=False,
    )  # fmt: skip
    return (done.stdout + b"\n" + done.stderr).decode("utf-8", "surrogateescape")


def compared(root: Path, paths: Sequence[str], cwd: str = "/") -> Iterator[tuple[dlwhy.UnresolvedReport, Lacking]]:
    """Yield the report of each file; it must have the very sets of the real loader."""
    inside = None if root == Path("/") else str(root)
    for report in dlwhy.unresolved(paths, env=ENV, sysroot=inside, cwd=cwd):
        real = by_loader(traced(root, report.path, cwd), report)
        assert (report.error, report.because) == (None, None), report
        assert by_dlwhy(report) == real, report.path
        assert report.exit_status == (10 if any(real) else 0)
        yield report, real


# -- libraries of the system -------------------------------------------------------------------------------------------


@pytest.mark.machine
@pytest.mark.slow
def test_this_machine() -> None:
    """Every library below the system's directory has the same unresolved symbols and versions as by the loader."""
    paths = sorted(libraries.shared_objects(Path("/"), libraries.DIRECTORIES[:1]))
    found = [any(real) for _, real in compared(Path("/"), paths)]
    assert any(found)
    assert not all(found)


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.parametrize("loader", ["bullseye", "trixie", "sid"])
def test_another_release(loader: str) -> None:
    """So have the libraries of another release, and this machine's own carried there, where much is missing."""
    root = root_of(loader)
    own = sorted(libraries.shared_objects(root))
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    directory = f"/tmp/dlwhy-unresolved-{os.getpid()}"
    chosen = sorted(libraries.shared_objects(Path("/"), libraries.DIRECTORIES[:1]))
    try:
        carried = libraries.borrowed(root, rng.sample(chosen, 100), directory)
        found = [real for _, real in compared(root, [*rng.sample(own, min(60, len(own))), *carried])]
    finally:
        shutil.rmtree(f"{root}{directory}", ignore_errors=True)
    assert any(real.symbols for real in found)
    assert any(real.absent for real in found)
    if loader == "bullseye":  # the older one
        assert any(real.versions for real in found)


# -- libraries made for it ---------------------------------------------------------------------------------------------

PROVIDER = """
int alpha(void) { return 1; }
int beta(void) { return 2; }
int gamma_(void) { return 3; }
__thread int local;
__asm__(".symver old, gamma@V1\\n.symver gamma_, gamma@@V2");
int old(void) { return 4; }
"""
POORER = "int alpha(void) { return 1; }\n"
CONSUMER = """
extern int alpha(void), beta(void), gone(void), twice(void), gamma_(void), old(void);
__asm__(".symver old, gamma@V1\\n.symver gamma_, gamma@V2");
extern int data, other_data;
extern __thread int local, missing_local;
extern int perhaps(void) __attribute__((weak));
extern int hidden_weak(void) __attribute__((weak, visibility("hidden")));
static int own(void) { return 5; }
int exported(void) { return 6; }
int (*table[])(void) = { gone, own, perhaps, exported };
int *pointer = &data;
int use(void)
{
    int sum = alpha() + beta() + gone() + twice() + gamma_() + old() + other_data + local + missing_local;
    return sum + (perhaps ? perhaps() : 0) + (hidden_weak ? hidden_weak() : 0) + exported();
}
"""


def build(place: Path, name: str, source: str, *words: str) -> None:
    """Compile a library."""
    (place / f"{name}.c").write_text(source)
    command = ["gcc", "-w", "-shared", "-fPIC", "-nostdlib", "-o", f"{place}/{name}", f"{place}/{name}.c", *words]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(params=["this machine", "bullseye", "trixie", "sid"])
def made(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Libraries with every way to lack something, in a directory of each root: (root, the directory inside)."""
    root = root_of(request.param)
    origin = "-Wl,-rpath,$ORIGIN"
    (tmp_path / "rich.map").write_text("V1 { global: alpha; gamma; };\nV2 { global: beta; gamma; local; };\n")
    (tmp_path / "poor.map").write_text("V1 { global: alpha; local: *; };\n")
    script = f"-Wl,--version-script={tmp_path}"
    build(tmp_path, "libprovider.so.1", PROVIDER, "-Wl,-soname,libprovider.so.1", f"{script}/rich.map")
    for name, hash_ in (("libconsumer.so", "gnu"), ("libsysv.so", "sysv")):
        words = (origin, f"{tmp_path}/libprovider.so.1", f"-Wl,--hash-style={hash_}")
        build(tmp_path, name, CONSUMER, *words)
    build(tmp_path, "libnone.so.1", "int used(void) { return 1; }", "-Wl,-soname,libnone.so.1")
    build(tmp_path, "libabsent.so", "int used(void); int f(void) { return used(); }", f"{tmp_path}/libnone.so.1",
          "-Wl,-soname,libabsent.so")
    outer = "int f(void); int g(void) { return f() + never(); }"
    build(tmp_path, "libouter.so", outer, origin, f"{tmp_path}/libabsent.so")
    (tmp_path / "libnone.so.1").unlink()
    build(tmp_path, "libalone.so", "int f(void) { return 0; }")
    here = tmp_path if root == Path("/") else Path(f"{root}/tmp/dlwhy-made-{os.getpid()}")
    if here != tmp_path:
        shutil.copytree(tmp_path, here)
    yield root, str(tmp_path if root == Path("/") else f"/tmp/{here.name}")
    if here != tmp_path:
        shutil.rmtree(here)


def test_made(made: tuple[Path, str]) -> None:
    """Functions, data, thread-local, weak, hidden and versioned symbols, and files that are not there."""
    root, place = made
    names = ["libconsumer.so", "libsysv.so", "libabsent.so", "libouter.so", "libalone.so", "libprovider.so.1"]
    found = {report.path.rpartition("/")[2]: real for report, real in compared(root, [f"{place}/{n}" for n in names])}
    for name in ("libconsumer.so", "libsysv.so"):
        assert {symbol for symbol, _, _ in found[name].symbols} == {
            "gone", "twice", "data", "other_data", "missing_local", "__tls_get_addr",
        }  # fmt: skip
    assert found["libouter.so"].absent == {"libnone.so.1"}
    assert {symbol for symbol, _, _ in found["libouter.so"].symbols} == {"used", "never"}
    assert not any(found["libalone.so"])


def test_poorer(made: tuple[Path, str], tmp_path: Path) -> None:
    """Against an older file of the same name the versions and their symbols are missing, all told at once."""
    root, place = made
    outside = Path(place) if root == Path("/") else Path(f"{root}{place}")
    build(tmp_path, "older", POORER, "-Wl,-soname,libprovider.so.1", f"-Wl,--version-script={tmp_path}/poor.map")
    shutil.copy(tmp_path / "older", outside / "libprovider.so.1")
    ((report, real),) = compared(root, [f"{place}/libconsumer.so"])
    assert {version for _, version, _ in real.versions} == {"V2"}
    assert {("beta", "V2"), ("gamma", "V2"), ("gamma", "V1"), ("local", "V2")} <= {
        (symbol, version) for symbol, version, _ in real.symbols
    }
    step = dlwhy.check([f"now:{report.path}"], dlwhy.Host.plain(ENV), sysroot=str(root), cwd="/").steps[0]
    assert (step.outcome, step.kind) == ("fails", "missing-version")
    alone = {one for one in report.unresolved if one.symbol == "__tls_get_addr"}  # which every process has
    assert set(step.unresolved) == set(report.unresolved) - alone


def test_a_death_in_every_set(tmp_path: Path) -> None:
    """A library that kills the loader while it is relocated does so to all who need it, not to the first one alone."""
    build(tmp_path, "libbad.so", "int there; int *pointer = &there; int bad(void) { return 1; }")
    data = bytearray((tmp_path / "libbad.so").read_bytes())
    elf = Elf(View("libbad.so", bytes(data)))
    start, size = next((row[2], row[5]) for row in elf.phdrs if row[0] == PT_DYNAMIC)
    at = next(at for at in range(start, start + size, 16) if elf.layout.dyn.unpack_from(data, at)[0] == DT_RELASZ)
    data[at : at + 8] = (0x60000001).to_bytes(8, "little")  # DT_RELA stays
    (tmp_path / "libbad.so").write_bytes(data)
    for name in ("libone.so", "libtwo.so"):
        source = "int bad(void); int f(void) { return bad(); }"
        build(tmp_path, name, source, "-Wl,-rpath,$ORIGIN", f"-L{tmp_path}", "-l:libbad.so")
    for report in dlwhy.unresolved([f"{tmp_path}/libone.so", f"{tmp_path}/libtwo.so"], env=ENV):
        assert report.outcome == "dies"
        assert "SIGSEGV" in (report.because or "")
        done = subprocess.run([LOADER, report.path], env=ENV | TRACING, capture_output=True, check=False)
        assert done.returncode == -signal.SIGSEGV


def test_names_of_the_directory(made: tuple[Path, str]) -> None:
    """A path as it is written stands in what is told, and a directory is walked."""
    root, place = made
    ((_, real),) = compared(root, ["./libconsumer.so"], cwd=place)
    assert {whose for _, _, whose in real.symbols} == {"./libconsumer.so"}
    paths = [report.path for report, _ in compared(root, [place])]
    assert f"{place}/libconsumer.so" in paths
    assert len(paths) >= 6
