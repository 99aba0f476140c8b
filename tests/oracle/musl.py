"""Debian's musl packages of four suites as real loaders: roots, the host program and the workshop for them.

Each suite brings another release: 1.2.2, 1.2.3, 1.2.5 and 1.2.6. What is built here is linked against the headers and
start files of its musl-dev, so that nothing of glibc has a part in it.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from dlwhy.files import Files
from dlwhy.loader.musl import releases
from dlwhy.loader.objects import Objects
from tests.oracle import compare, real
from tests.oracle.build import Function, Plan, Reference, Variable, Workshop
from tests.oracle.machines import AMD64, TARGETS, target_of, why_not
from tests.oracle.scenarios import FAMILIES, Scenario, scenario
from tests.oracle.sysroots import Index, cache, kept_root, make_root

if TYPE_CHECKING:
    import dlwhy

SUITES = ("bullseye", "bookworm", "trixie", "sid")
PACKAGES = ("musl", "musl-dev")
MACHINES = ("amd64", "arm64")
"""Debian's names of the machines whose port is modelled."""
LOADER = AMD64.musl_loader
_PLAIN = Path(real.HERE / "plain.c")

_WITHOUT_CONSTANTS = 16
"""Of 256 libraries, how many get no constant: GNU ld then leaves them a segment without bytes, which 1.2.2 refuses."""
WITHOUT = frozenset(("spaces",))
"""Families that make no sense under musl, which has one namespace."""
FITTING = tuple(sorted(set(FAMILIES) - WITHOUT | {"quirks"}))


_BUILT_IN = (
    "libc.so", "libc.so.6", "libm.so.6", "libpthread.so.0", "librt.so.1", "libdl.so.2", "libutil.so.1", "libxnet.so",
    "libc.musl-{M}.so.1", "libm.", "/lib/ld-musl-{M}.so.1",
)  # fmt: skip
_NEARLY = ("libcrypt.so.1", "libmm.so", "libc-2.36.so", "linux-gate.so.2", "ld-musl-{M}.so.1", "x" * 300)
_CALLED = (
    "malloc",
    "open64",
    "fopen64",
    "versionsort64",
    "posix_fallocate64",
    "readdir64_r",
    "nothing64",
    "__fxstat64",
)


def quirks(r: random.Random, name: str, machine: str) -> Scenario:
    """What musl does in a way of its own: names, inherited paths, late symbols, ELOOP, another libc, 64-bit names."""
    built_in, nearly = (tuple(one.replace("{M}", machine) for one in each) for each in (_BUILT_IN, _NEARLY))
    names = [f"m{index}.so" for index in range(r.randint(2, 5))]
    directories = ("d0", "d1")
    plans: list[Plan] = []
    for index, one in enumerate(names):
        needed = [other for other in names[index + 1 :] if r.random() < 0.4]
        needed += r.sample(built_in, r.choice((0, 1, 1, 2))) + ([r.choice(nearly)] if r.random() < 0.06 else [])
        r.shuffle(needed)
        kind = ("call", "got", "data")
        references = [
            Reference(r.choice(kind), r.choice((*_CALLED, *[f"f{other}" for other in range(len(names))] * 3)))
            for _ in range(r.choice((0, 0, 1, 1, 2)))
        ]
        variables: tuple[Variable, ...] = ()
        if r.random() < 0.3:
            variables = (Variable("v", r.randint(1, 200), 8, local=r.random() < 0.5),)
            references.append(Reference(r.choice(("ie", "gd", "desc")), "v"))
        functions = [Function(f"f{index}")]
        if r.random() < 0.08:
            functions += [Function("__libc_start_main"), Function("stdin", binding="object")]
        options = [one for one in ("-z,now", "-z,pack-relative-relocs", "-z,norelro") if r.random() < 0.3]
        path = f"{r.choice(directories)}/{one}"
        rpath = r.choice((None, None, "$ORIGIN", "$ORIGIN/../d0:$ORIGIN/../d1", "{D}/loop:{D}/d0", "{D}/d1\n{D}/d0"))
        plans.append(Plan(
            path, one if r.random() < 0.5 else None, tuple(needed), rpath, r.random() < 0.5, tuple(options), variables,
            tuple(functions), tuple(references), relative=r.choice((0, 2)),
            constructor=f"f{index}" if r.random() < 0.35 else None,
        ))  # fmt: skip
    plans.append(Plan("loop", link="loop" if r.random() < 0.5 else "d0"))
    env = {}
    if r.random() < 0.3:
        env["LD_LIBRARY_PATH"] = r.choice(("{D}/d0", "{D}/d1:{D}/d0", "{D}/loop:{D}/d1", "d0", ":{D}/d1:"))
    if r.random() < 0.2:
        early = "{D}/" + r.choice(plans[:-1]).path
        env["LD_PRELOAD"] = r.choice((early, f"gone.so {early}", f"{names[0]}:{early}"))
    program = None
    if r.random() < 0.4:
        program = "bin/prog"
        needed_too = tuple(r.sample(names, r.randint(0, 2)))
        where = r.choice(("$ORIGIN/../d0:$ORIGIN/../d1", "{D}/d1:{D}/d0", None))
        plans.append(Plan(program, None, needed_too, where, program=True))
    steps = []
    for _ in range(r.randint(1, 6)):
        path = r.choice(plans[: len(names)]).path
        what = r.choice(("{D}/" + path, "{D}/" + path, path.partition("/")[2], r.choice((*built_in, *nearly))))
        mode = r.choice(("now", "lazy", "now-global", "lazy-global", "now-noload", "lazy-noload"))
        steps.append(f"{mode}:{what}")
        if r.random() < 0.2:
            opened = r.choice([number for number, step in enumerate(steps, 1) if not step.startswith("sym:")])
            steps.append(f"sym:{opened}:{r.choice(('f0', 'f1', 'v', 'malloc', 'gone'))}")
    if r.random() < 0.25:  # one defines what the other, which does not need it, refers to
        plans += [
            Plan("d0/late.so", functions=(Function("late"),)),
            Plan("d0/early.so", references=(Reference(r.choice(("call", "got", "data")), "late"),)),
        ]
        both = [f"{r.choice(('now-global', 'lazy-global', 'now'))}:{{D}}/d0/late.so",
                f"{r.choice(('now', 'lazy'))}:{{D}}/d0/early.so"]  # fmt: skip
        steps = [*steps[:2], *r.sample(both, 2)]
    if program is not None and r.random() < 0.15:
        steps.append("now:{D}/bin/prog")
    return Scenario(name, "quirks", tuple(plans), tuple(steps), env, program, r.choice(("/tmp", "{D}")))


def make(seed: int, number: int, family: str, debian: str = "amd64") -> Scenario:
    """Return the scenario of a seed and number, of a family of all loaders or of the one that is musl's own."""
    if family != "quirks":
        return scenario(seed, number, family)
    machine = TARGETS[debian].triplet.partition("-")[0]
    return quirks(random.Random(f"{seed}/{number}/{family}"), f"{seed}-{number}-{family}", machine)


def fits(one: Scenario) -> bool:
    """Whether a scenario asks for nothing that musl lacks: dlmopen."""
    return not any("newns" in step.partition(":")[0].split("-") for step in one.steps)


@functools.cache
def sysroot(suite: str, debian: str = "amd64") -> tuple[Path | None, str]:
    """(root, "") of a suite's musl, or (None, why it cannot be had). A failure is final for this process."""
    name = f"musl-{suite}" if debian == "amd64" else f"musl-{debian}-{suite}"
    return kept_root(name, f"musl of {suite}", lambda root: make_root(root, Index(suite, debian), PACKAGES))


def names(debian: str = "amd64") -> list[str]:
    """The loaders of a machine: those of another one are named after it too."""
    machine = "" if debian == "amd64" else f" {TARGETS[debian].name}"
    return [f"musl{machine} {suite}" for suite in SUITES]


def roots(debian: str = "amd64") -> dict[str, Path | str]:
    """Loader name -> its root, or the reason why it is not run."""
    reason = "not run: only root may chroot" if os.geteuid() != 0 else why_not(TARGETS[debian])
    if reason is not None:
        return dict.fromkeys(names(debian), reason)
    found = zip(names(debian), (sysroot(suite, debian) for suite in SUITES), strict=True)
    return {name: root if root is not None else why for name, (root, why) in found}


def release(root: Path) -> str:
    """What the musl of a root says it is."""
    told = releases.told(Objects(Files(str(root))).loader_facts(target_of(root).musl_loader).strings)
    return told[1] if told is not None else "?"


def _compile(root: Path, target: Path, *options: str, source: Path = _PLAIN) -> None:
    """Compile the host program, or another one, against a root's headers into an object."""
    target_machine = target_of(root)
    gcc, include = target_machine.gcc, root / "usr/include" / target_machine.musl
    own_headers = subprocess.run(
        [gcc, "-print-file-name=include"], capture_output=True, text=True, check=True
    ).stdout.strip()
    command: list[str | Path] = [gcc, "-O1", "-nostdinc", "-isystem", include, "-isystem", own_headers]
    subprocess.run([*command, *options, "-c", "-o", target, source], check=True, capture_output=True)


def program_libraries(root: Path) -> tuple[str, ...]:
    """What a program is linked with: start files and libc of a root's musl-dev."""
    lib = root / "usr/lib" / target_of(root).musl
    dynamic = f"-Wl,--dynamic-linker={target_of(root).musl_loader}"
    return (str(lib / "crt1.o"), str(lib / "crti.o"), f"-L{lib}", "-Wl,--no-as-needed", "-l:libc.so", dynamic,
            str(lib / "crtn.o"))  # fmt: skip


class MuslWorkshop(Workshop):
    """Builds plans whose programs run under musl."""

    def __init__(self, directory: Path, root: Path) -> None:
        super().__init__(directory, program_libraries(root), target_of(root))
        self._root = root

    def _text(self, plan: Plan) -> str:
        text = super()._text(plan).replace('.section .init_array,"aw"', '.section .init_array,"aw"\n.balign 8')
        if hashlib.sha256(text.encode()).digest()[0] < _WITHOUT_CONSTANTS:
            return text
        return text + ".section .rodata\n.byte 1\n"

    def _program_object(self) -> Path:
        machine = "" if self.target is AMD64 else f"{self.target.name}-"
        target = self.directory / f"plain-{machine}{hashlib.sha256(_PLAIN.read_bytes()).hexdigest()[:24]}.o"
        if not target.exists():
            own = target.with_name(f"{target.stem}-{os.getpid()}.part")
            _compile(self._root, own, "-fno-pie")
            own.rename(target)
        return target


def workshop(debian: str = "amd64") -> MuslWorkshop:
    """The workshop of all scenarios of a machine, its programs linked against the oldest musl at hand."""
    root = next(root for root in roots(debian).values() if isinstance(root, Path))
    return MuslWorkshop(cache() / "plans-musl", root)


def plain(root: Path) -> Path:
    """The host program for a root, compiled once and kept in the cache."""
    target = cache() / "plain" / f"{root.name}-{hashlib.sha256(_PLAIN.read_bytes()).hexdigest()[:16]}"
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        own = target.with_name(f"{target.name}-{os.getpid()}")
        _compile(root, own.with_suffix(".o"), "-fno-pie")
        gcc = target_of(root).gcc
        command = [gcc, "-no-pie", "-nostdlib", "-o", str(own), str(own.with_suffix(".o")), *program_libraries(root)]
        subprocess.run(command, check=True, capture_output=True)
        own.with_suffix(".o").unlink()
        own.rename(target)
    return target


def link(root: Path, source: Path, target: Path, *options: str) -> None:
    """Compile and link a program of one file for a root."""
    _compile(root, target.with_suffix(".o"), "-fno-pie", *options, source=source)
    command = [target_of(root).gcc, "-no-pie", "-nostdlib", "-o", str(target), str(target.with_suffix(".o"))]
    subprocess.run([*command, *program_libraries(root)], check=True, capture_output=True)


def observe(one: Scenario, root: Path) -> real.RealRun:
    """Run a prepared scenario under the musl of a root."""
    work = Path(one.directory)
    report = real.ready(Path(f"{root}{work}"), list(one.steps))
    if one.program:
        argv0 = image = f"{one.directory}/{one.program}"
    else:
        argv0, image = "plain", str(real.brought(root, plain(root)))
    arguments = [argv0, str(work / "steps"), str(work / "report")]
    with real.proc(root, Path(image)):
        status, stderr = real.spawned(root, arguments, Path(image), compare.environment(one), one.cwd)
    seen = real.read(report, status, stderr)
    return seen._replace(start_maps=("", *seen.start_maps[1:]))  # the program has its path there, and glibc's none


def one(chosen: Scenario, root: Path, made: Workshop, *, keep: bool = False, tag: str = "") -> compare.Verdict:
    """Run one scenario under the musl of a root, in a directory of its own when a tag tells it apart."""
    if tag:
        chosen = chosen._replace(name=f"{chosen.name}-{tag}")
    full = compare.prepare(chosen, root, made)
    try:
        return compare.judge(full, observe(full, root), predict(full, root))
    finally:
        if not keep:
            compare.clean(full, root)


def predict(full: Scenario, root: Path) -> dlwhy.CheckReport:
    """Ask dlwhy of a prepared scenario."""
    return compare.predict(full, root)
