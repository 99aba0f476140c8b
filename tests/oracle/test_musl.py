"""Random scenarios under the musl of every suite that can be had: verdict, exact text, order of objects, exit."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.oracle import compare, musl, real
from tests.oracle.agreement import built
from tests.oracle.build import Function, Patch, Plan, Reference, Variable
from tests.oracle.machines import target_of
from tests.oracle.scenarios import Scenario

if TYPE_CHECKING:
    from tests.oracle.build import Workshop

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

FIXED = 20261124
SAMPLE = 5
"""Scenarios of each family in one run; `python -m tests.oracle.agreement --machine musl` runs them by the hundred."""
NAMES = musl.names()
OTHERS = musl.names("arm64")[2:] if os.environ.get("CI") else musl.names("arm64")
"""Those of another machine, of which CI takes some."""
DAMAGED = frozenset(("corrupt", "faults"))
# a scenario that once showed a difference stays here: (seed, number, family)
FOUND = ((5, 13, "flags"), (5, 38, "faults"), (5, 111, "faults"), (7, 42, "tls"))


def root_of(loader: str) -> Path:
    """The root of a loader; the test is skipped without one."""
    root = musl.roots("arm64" if loader not in NAMES else "amd64")[loader]
    if isinstance(root, str):
        pytest.skip(root)
    return root


@pytest.fixture(scope="module")
def made() -> Workshop:
    """Where scenarios are built."""
    root_of(NAMES[0])
    return musl.workshop()


@pytest.fixture(scope="module")
def made_for_arm() -> Workshop:
    """Where scenarios for another machine are built."""
    root_of(OTHERS[0])
    return musl.workshop("arm64")


@pytest.mark.parametrize("family", musl.FITTING)
@pytest.mark.parametrize("loader", NAMES)
def test_scenarios(loader: str, family: str, made: Workshop) -> None:
    """Every step of a fixed and, but of damaged files, of a fresh seed goes as predicted."""
    root = root_of(loader)
    fresh = secrets.randbelow(1 << 31)
    print(f"seed {fresh}")
    seeds = [FIXED] if family in DAMAGED and not os.environ.get("DLWHY_FRESH") else [FIXED, fresh]
    wrong, refused = [], 0
    for seed in seeds:
        for number in range(SAMPLE):
            chosen = musl.make(seed, number, family)
            if musl.fits(chosen):
                verdict = musl.one(chosen, root, made, tag=str(os.getpid()))
                refused += verdict.refused
                wrong += [f"{seed} {number}: {text}" for text in verdict.differences]
    assert wrong == []
    assert refused


@pytest.mark.parametrize("loader", OTHERS)
def test_scenarios_on_another_machine(loader: str, made_for_arm: Workshop) -> None:
    """Of each family some scenarios go as predicted on aarch64, where TLS lies above the thread pointer."""
    root, wrong, refused, steps, undecided = root_of(loader), [], 0, 0, 0
    chosen = [musl.make(FIXED, number, family, "arm64") for family in musl.FITTING for number in range(3)]
    for one in built(made_for_arm, [each for each in chosen if musl.fits(each)]):
        verdict = musl.one(one, root, made_for_arm, tag=str(os.getpid()))
        refused, steps, undecided = refused + verdict.refused, steps + verdict.steps, undecided + verdict.undecided
        wrong += [f"{one.name}: {text}" for text in verdict.differences]
    assert wrong == []
    assert refused >= 0.3 * steps
    assert undecided <= 0.1 * steps


@pytest.mark.parametrize(("seed", "number", "family"), FOUND)
@pytest.mark.parametrize("loader", NAMES)
def test_found(loader: str, seed: int, number: int, family: str, made: Workshop) -> None:
    """What once went wrong goes as predicted."""
    verdict = musl.one(musl.make(seed, number, family), root_of(loader), made, tag=str(os.getpid()))
    assert verdict.differences == ()


def _placed(loader: str, made: Workshop, plans: tuple[Plan, ...], steps: tuple[str, ...], **env: str) -> Scenario:
    chosen = Scenario(f"musl-{os.getpid()}-{len(steps)}", "tls", plans, steps, env, None, "/tmp")
    return compare.prepare(chosen, root_of(loader), made)


@pytest.mark.parametrize("loader", NAMES)
def test_late_initial_exec(loader: str, made: Workshop) -> None:
    """One byte of TLS is refused in a late load and taken in a preload, and the cure says so."""
    plan = Plan("ie.so", "ie.so", ("libc.so",), variables=(Variable("v", 1, 1),), references=(Reference("ie", "v"),))
    root = root_of(loader)
    full = _placed(loader, made, (plan,), ("now:{D}/ie.so",))
    try:
        said = musl.predict(full, root)
        assert compare.judge(full, musl.observe(full, root), said).differences == ()
        assert said.host.libc == "musl"
        assert (said.steps[0].kind, said.steps[0].outcome) == ("static-tls-late", "fails")
        assert [cure.change for cure in said.cures] == [{"env": {"LD_PRELOAD": f"{full.directory}/ie.so"}}]
        assert "late-initial-exec" in {finding.rule for finding in said.findings}
        assert said.static_tls is not None
        assert said.static_tls.free == 0
        cured = full._replace(env={"LD_PRELOAD": f"{full.directory}/ie.so"})
        verdict = compare.judge(cured, musl.observe(cured, root), musl.predict(cured, root))
        assert (verdict.differences, verdict.refused) == ((), 0)
    finally:
        compare.clean(full, root)


@pytest.mark.parametrize("way", ["prefix", "option", "secure", "no program", "no file"])
@pytest.mark.parametrize("loader", NAMES)
def test_ways(loader: str, way: str, made: Workshop) -> None:
    """The loader by another path reads the path file beside it; so go its option, secure mode and bad programs."""
    root = root_of(loader)
    plans = (
        Plan("x/a.so", "a.so", ("b.so",), "$ORIGIN/../y", functions=(Function("f"),)), Plan("z/b.so", "b.so"),
        Plan("prog", None, ("a.so",), "$ORIGIN/x", program=True),
    )  # fmt: skip
    full = _placed(loader, made, plans, ("now:b.so", "now:gone.so"), LD_LIBRARY_PATH="{D}/x", LD_PRELOAD="{D}/z/b.so")
    here = Path(f"{root}{full.directory}")
    try:
        own = here / "usr/lib/ld.so"
        own.parent.mkdir(parents=True)
        shutil.copyfile(root / musl.LOADER[1:], own)
        own.chmod(0o755)
        (here / "usr/etc").mkdir()
        (here / "usr/etc/ld-musl-x86_64.path").write_text(f"/nowhere\n{full.directory}/z\n")
        _compare_way(root, full, way)
    finally:
        compare.clean(full, root)


def _compare_way(root: Path, full: Scenario, way: str) -> None:
    loader, program = f"{full.directory}/usr/lib/ld.so", f"{full.directory}/prog"
    env = {name: value for name, value in full.env.items() if way != "prefix" or name != "LD_PRELOAD"}
    here = Path(f"{root}{full.directory}")
    (here / "steps").write_text("".join(f"{step}\n" for step in full.steps))
    program = {"no program": "/tmp", "no file": "/gone"}.get(way, program)
    arguments = [program, f"{full.directory}/steps", f"{full.directory}/report"]
    library_path = full.directory + "/z" if way == "option" else None
    secure = way == "secure"
    if secure:
        Path(f"{root}{program}").chmod(0o4755)
    else:
        arguments = [loader, *(["--library-path", library_path] if library_path else []), *arguments]

    def enter() -> None:
        os.chroot(root)
        os.chdir("/tmp")
        if secure:
            os.setgid(65534)
            os.setuid(65534)

    with real.proc(root, Path(arguments[0])):
        done = subprocess.run(arguments, env=env, preexec_fn=enter, capture_output=True, timeout=20, check=False)
    seen = real.read(here / "report", done.returncode, done.stderr)
    seen = seen._replace(start_maps=("", *seen.start_maps[1:]))
    if way in ("no program", "no file"):  # a host that dlwhy does not take for a question
        assert seen.status == 1
        with pytest.raises(dlwhy.DlwhyError, match=program):
            dlwhy.check([], dlwhy.Host.executable(program, env), sysroot=str(root), cwd="/tmp", loader=loader)
        return
    said = dlwhy.check(
        list(full.steps), dlwhy.Host.executable(program, env), sysroot=str(root), cwd="/tmp",
        loader=None if secure else loader, library_path=library_path, secure=secure,
    )  # fmt: skip
    assert compare.judge(full, seen, said).differences == ()


@pytest.mark.parametrize("family", ["graph", "search", "tls", "quirks"])
def test_profiles(family: str, made: Workshop) -> None:
    """What is captured of a musl host with the files of a scenario answers as the host itself does."""
    root = root_of(NAMES[-1])
    for number in range(SAMPLE):
        chosen = musl.make(FIXED, number, family)
        full = compare.prepare(chosen._replace(name=f"{chosen.name}-{os.getpid()}"), root, made)
        try:
            env = compare.environment(full)
            program = f"{full.directory}/{full.program}" if full.program else None
            host = dlwhy.Host.executable(program, env) if program else dlwhy.Host.plain(env)
            kept = dlwhy.capture(host, sysroot=str(root), cwd=full.cwd, names=[full.directory])
            here, there = (
                musl.predict(full, root),
                dlwhy.check(list(full.steps), dlwhy.Host.profile(kept), cwd=full.cwd),
            )
            assert there.steps == here.steps
            assert there.host.startup == here.host.startup
        finally:
            compare.clean(full, root)


@pytest.mark.parametrize("loader", NAMES)
def test_unresolved_and_tree(loader: str, made: Workshop) -> None:
    """What `unresolved` and `tree` list of a library is what musl's own start with it tells, name by name."""
    root = root_of(loader)
    plans = (
        Plan("u.so", "u.so", ("d.so", "gone.so", "libc.so.6"), "$ORIGIN", references=(
            Reference("call", "nope"), Reference("got", "nada"), Reference("call", "malloc"))),
        Plan("d.so", "d.so", functions=(Function("f"),), references=(Reference("data", "lost"),)),
    )  # fmt: skip
    full = _placed(loader, made, plans, ())
    path = f"{full.directory}/u.so"
    try:
        with real.proc(root, Path(musl.LOADER)):
            status, stderr = real.spawn(root, [musl.LOADER, path], Path(musl.LOADER), {}, "/")
        lines = stderr.decode().splitlines()
        (report,) = dlwhy.unresolved([path], env={}, sysroot=str(root))
        assert status == 127
        assert [line.split(": ")[1] for line in lines if line.endswith("symbol not found")] == [
            one.symbol for one in report.unresolved
        ]
        assert report.missing == ("gone.so",)
        assert report.loaded == (path, f"{full.directory}/d.so", musl.LOADER)
        drawn = dlwhy.tree(path, sysroot=str(root)).root
        assert [(one.name, one.state) for one in drawn.children] == [
            ("d.so", "first"), ("gone.so", "missing"), ("libc.so.6", "first"),
        ]  # fmt: skip
    finally:
        compare.clean(full, root)


_PLACES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
__thread char own[OWN] __attribute__((aligned(ALIGN)));
int main(int argc, char **argv) {
  char *here = __builtin_thread_pointer();
  fprintf(stderr, "%ld", labs(here - own));
  for (int i = 1; i < argc; i++) fprintf(stderr, " %ld", labs(here - (char *)dlsym(RTLD_DEFAULT, argv[i])));
  return 0;
}
"""


@pytest.mark.parametrize("loader", [*NAMES, *OTHERS])
def test_places_of_tls(loader: str, tmp_path: Path) -> None:
    """Each module of a start has its TLS where the report says, as a running program measures it."""
    root = root_of(loader)
    made = musl.workshop(target_of(root).debian)
    r = random.Random(f"{FIXED}/{loader}")
    source = tmp_path / "places.c"
    source.write_text(_PLACES)
    wrong = []
    for number in range(12):
        sizes = [(r.randint(1, 900), r.choice((1, 2, 4, 8, 16, 64, 256))) for _ in range(r.randint(1, 4))]
        plans = tuple(
            Plan(f"p{index}.so", f"p{index}.so", variables=(Variable(f"v{index}", size, align),),
                 patches=(Patch("phdr 7 0 vaddr", 0x4000 + r.randint(0, 255)),) if r.random() < 0.3 else ())
            for index, (size, align) in enumerate(sizes)
        )  # fmt: skip
        full = _placed(loader, made, plans, (), LD_PRELOAD=" ".join(f"{{D}}/p{k}.so" for k in range(len(plans))))
        try:
            program = Path(f"{root}{full.directory}/places")
            given = [f"-DOWN={r.randint(1, 300)}", f"-DALIGN={r.choice((1, 8, 32))}"]
            musl.link(root, source, program, *given)
            names = [f"v{k}" for k in range(len(plans))]
            arguments = [f"{full.directory}/places", *names]
            program_inside = Path(arguments[0])
            with real.proc(root, program_inside):
                status, out = real.spawned(root, arguments, program_inside, full.env, "/")
            said = dlwhy.check([], dlwhy.Host.executable(arguments[0], full.env), sysroot=str(root), cwd="/").static_tls
            assert said is not None
            places = {block.object: block.offset for block in said.blocks}
            paths = [arguments[0], *(f"{full.directory}/p{k}.so" for k in range(len(plans)))]
            if status or [places[path] for path in paths] != list(map(int, out.split())):
                wrong.append((number, sizes, [places[path] for path in paths], out))
        finally:
            compare.clean(full, root)
    assert wrong == []
