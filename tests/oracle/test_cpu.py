"""`--cpu` against real loaders on other processors, which qemu's user mode emulation gives them."""

from __future__ import annotations

import os
import random
import re
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import dlwhy
from tests.oracle.qemu import qemu
from tests.oracle.sysroots import roots

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

LOADER = "/lib64/ld-linux-x86-64.so.2"
ENV = {"PATH": "/usr/bin:/bin"}
PROCESSORS = {"x86-64": "core2duo", "x86-64-v2": "Nehalem", "x86-64-v3": "EPYC", "haswell": "Haswell"}
"""What --cpu takes -> qemu's name of such a processor. It emulates none with AVX-512."""
LEVELS = ("x86-64-v2", "x86-64-v3", "x86-64-v4")
NAMES = ("tls", "haswell", "xeon_phi", "avx512_1", "x86_64")


class Stage(NamedTuple):
    """A root with a directory for files in it."""

    root: Path
    inside: str
    """The directory as the root's processes see it."""
    emulator: str

    @property
    def outside(self) -> Path:
        """The directory as it is seen from here."""
        return Path(self.inside) if self.root == Path("/") else Path(f"{self.root}{self.inside}")

    @property
    def sysroot(self) -> str | None:
        """As dlwhy takes it."""
        return None if self.root == Path("/") else str(self.root)

    def run(self, cpu: str, words: list[str], env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a program on a processor; what the emulator itself says is left out."""

        def enter() -> None:
            if self.root != Path("/"):
                os.chroot(self.root)
            os.chdir("/")

        done = subprocess.run(
            [self.emulator, "-cpu", PROCESSORS[cpu], *words], env=ENV | env, preexec_fn=enter, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        said = [line for line in done.stderr.splitlines() if not re.match(r"\S*qemu\S*: warning: ", line)]
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout, "\n".join(said))


@pytest.fixture(params=["this machine", "bullseye", "trixie", "sid"])
def stage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stage]:
    """A root, an emulator in it and an empty directory."""
    root = roots()[request.param]
    emulator, why = qemu()
    if isinstance(root, str) or emulator is None:
        pytest.skip(root if isinstance(root, str) else why)
    here = tmp_path if root == Path("/") else Path(f"{root}/tmp/dlwhy-cpu-{os.getpid()}")
    here.mkdir(exist_ok=True)
    shutil.copy(emulator, here / "qemu")
    inside = str(tmp_path if root == Path("/") else f"/tmp/{here.name}")
    yield Stage(root, inside, f"{inside}/qemu")
    if here != tmp_path:
        shutil.rmtree(here)


def build(target: Path, source: str, *words: str) -> None:
    """Compile something that needs no C library."""
    command = ["gcc", "-w", "-nostdlib", "-fPIC", "-x", "c", "-", "-o", str(target), "-x", "none", *words]
    subprocess.run(command, input=source, text=True, check=True, capture_output=True)


def traced(stage: Stage, cpu: str, path: str, env: dict[str, str]) -> tuple[str, ...]:
    """The paths that the loader lists; a name that is not found as it is."""
    done = stage.run(cpu, [LOADER, path], env | {"LD_TRACE_LOADED_OBJECTS": "1"})
    found = re.findall(r"(?m)^\t(?:\S+ => )?(\S+)(?: \(0x\w+\)| not found)?$", done.stdout.replace(" => not", " not"))
    return tuple(one for one in found if not one.startswith(("linux-vdso", "statically")))


def test_directories(stage: Stage) -> None:
    """Which of the subdirectories for processors a library is found in, and what $PLATFORM is."""
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    rng = random.Random(seed)
    build(stage.outside / "libx.so", "int x;", "-shared", "-Wl,-soname,libx.so")
    origin = "-Wl,-rpath,$ORIGIN/r:$ORIGIN/$PLATFORM"
    build(stage.outside / "libuser.so", "extern int x; int *f(void) { return &x; }", "-shared", origin,
          str(stage.outside / "libx.so"))  # fmt: skip
    places = [f"glibc-hwcaps/{level}" for level in LEVELS]
    places += ["/".join(rng.sample(NAMES, rng.randint(1, 3))) for _ in range(24)] + list(NAMES)
    outcomes = set()
    for number in range(40):
        top = stage.outside / f"case{number}"
        for directory in ("r", "e"):
            for place in rng.sample(places, rng.randint(0, 6)):
                where = top / directory / place
                where.mkdir(parents=True, exist_ok=True)
                if not (where / "libx.so").exists():
                    os.link(stage.outside / "libx.so", where / "libx.so")
        for name in rng.sample(["haswell", "x86_64"], rng.randint(0, 1)):
            (top / name).mkdir(parents=True, exist_ok=True)
            os.link(stage.outside / "libx.so", top / name / "libx.so")
        top.mkdir(exist_ok=True)
        shutil.copy(stage.outside / "libuser.so", top / "libuser.so")
        path = f"{stage.inside}/case{number}/libuser.so"
        env = {"LD_LIBRARY_PATH": f"{stage.inside}/case{number}/e"}
        for cpu in PROCESSORS:
            (said,) = dlwhy.unresolved([path], env=ENV | env, sysroot=stage.sysroot, cwd="/", cpu=cpu)
            if said.outcome == "undecided":  # a level alone says nothing of the maker, on which old names depend
                assert cpu == "x86-64-v3"
                assert "whether Intel made the processor" in (said.because or "")
                continue
            real = traced(stage, cpu, path, env)
            ours = {*said.loaded[1:], *said.missing}
            assert {one for one in ours if "ld-linux" not in one} == {one for one in real if "ld-linux" not in one}
            outcomes.add(tuple(sorted(one.partition("/case")[2].partition("/")[2] for one in real if "libx" in one)))
    assert len(outcomes) > 5


def test_levels(stage: Stage) -> None:
    """An object that needs a higher level than the processor has is refused at the start, from 2.33 on."""
    refused = 0
    for level in LEVELS:
        for part in ("library", "program"):
            names = [f"lib{level}{part}.so", f"program{level}{part}"]
            wants = [f"-Wl,-z,{level}"]
            build(stage.outside / names[0], "int x;", "-shared", *(wants if part == "library" else ()),
                  f"-Wl,-soname,{names[0]}")  # fmt: skip
            source = 'void _start(void) { __asm__("mov $60, %eax; xor %edi, %edi; syscall"); }'
            source += "extern int x; int *p = &x;"
            build(stage.outside / names[1], source, "-pie", f"-Wl,--dynamic-linker={LOADER}", "-Wl,-rpath,$ORIGIN",
                  *(wants if part == "program" else ()), str(stage.outside / names[0]))  # fmt: skip
            path = f"{stage.inside}/{names[1]}"
            for cpu in PROCESSORS:
                done = stage.run(cpu, [path], {})
                host = dlwhy.Host.executable(path, ENV)
                report = dlwhy.check([], host, sysroot=stage.sysroot, cwd="/", cpu=cpu)
                start = report.host.startup
                assert (start.exit_status or 0, start.message or "") == (done.returncode, done.stderr)
                refused += done.returncode != 0
    assert refused == (0 if "bullseye" in str(stage.root) else 2 * (3 + 2 + 1 + 1))
