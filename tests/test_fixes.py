"""Cures: each one that is printed is tried in a real process, and so is what is said to be no cure."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.hosts.known import attempt
from tests.fixtures.libraries import descriptor, gcc, initial_exec, story, thread_local
from tests.fixtures.real_hosts import BARE, host_program, need, open_in, predicted, raw, tunable
from tests.oracle import real
from tests.oracle.sysroots import SUITES, sysroot

if TYPE_CHECKING:
    from dlwhy.report import CheckReport, Cure

pytestmark = pytest.mark.oracle

_SHORT_OF_STACK = re.compile(rb"^node\[\d+\]: pthread_create: Invalid argument$", re.MULTILINE)


def value_of(report: CheckReport) -> int:
    """The tunable value that a report prints."""
    (title,) = [cure.title for cure in report.cures if "optional_static_tls" in cure.title]
    match = re.search(r"optional_static_tls=(\d+)$", title)
    assert match is not None, title
    return int(match[1])


def cure_of(report: CheckReport, word: str) -> Cure:
    """The cure whose title holds a word."""
    (found,) = [cure for cure in report.cures if word in cure.title]
    return found


def outcomes(host: str, steps: list[str], env: dict[str, str] | None = None) -> list[str]:
    """What becomes of each step in a real process."""
    return [one.outcome for one in open_in(host, steps, env).opened]


def shell(command: str) -> subprocess.CompletedProcess[bytes]:
    """Paste a command line into a shell whose environment is this process's own."""
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=False, timeout=60)


# -- the tunable -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["plain", "python3"])
@pytest.mark.parametrize(("size", "align"), [(1713, 1), (1720, 8), (2000, 64), (4096, 16), (70001, 32)])
def test_smallest_value_by_size_and_alignment(tmp_path: Path, size: int, align: int, host: str) -> None:
    """For every size and alignment the printed value loads and one byte less fails, to the byte."""
    host_program(host)
    library = str(initial_exec(tmp_path, "big", size, align))
    value = value_of(predicted(host, [library]))
    assert outcomes(host, [library], tunable(value)) == ["loads"]
    assert outcomes(host, [library], tunable(value - 1)) == ["fails"]


def test_other_tunables_are_kept(tmp_path: Path) -> None:
    """A GLIBC_TUNABLES that is set already keeps its other items, and the value counts with them in force."""
    library = str(initial_exec(tmp_path, "big", 3000))
    for others in ("glibc.rtld.nns=2", "glibc.rtld.nns=1:glibc.malloc.check=0", "glibc.rtld.optional_static_tls=700"):
        env = {"GLIBC_TUNABLES": others}
        report = predicted("plain", [library], env)
        assert report.steps[0].outcome == "fails" == outcomes("plain", [library], env)[0]
        value = value_of(report)
        full = cure_of(report, "optional_static_tls").title.partition("=")[2]
        kept = [item for item in others.split(":") if "optional" not in item]
        assert full.split(":") == [*kept, f"glibc.rtld.optional_static_tls={value}"]
        assert outcomes("plain", [library], {"GLIBC_TUNABLES": full}) == ["loads"]
        less = full.replace(f"={value}", f"={value - 1}")
        assert outcomes("plain", [library], {"GLIBC_TUNABLES": less}) == ["fails"]


def test_smallest_value_of_several_loads(tmp_path: Path) -> None:
    """With several latecomers the value is the smallest with which all of them load, in their order."""
    sizes = (900, 700, 64, 2000)
    steps = [str(initial_exec(tmp_path, f"n{i}", size)) for i, size in enumerate(sizes)]
    report = predicted("plain", steps)
    assert [step.outcome for step in report.steps] == outcomes("plain", steps) == ["loads", "loads", "loads", "fails"]
    value = value_of(report)
    assert set(outcomes("plain", steps, tunable(value))) == {"loads"}
    assert "fails" in outcomes("plain", steps, tunable(value - 1))


def test_a_smaller_value_can_be_the_cure(tmp_path: Path) -> None:
    """Descriptors eat what others need: less for them may let a load succeed that fails with the default."""
    steps = [str(descriptor(tmp_path, "eater", 512)), str(initial_exec(tmp_path, "needy", 1500))]
    report = predicted("plain", steps)
    assert [step.outcome for step in report.steps] == outcomes("plain", steps) == ["loads", "fails"]
    value = value_of(report)
    assert value < 512
    assert outcomes("plain", steps, tunable(value)) == ["loads", "loads"]
    assert outcomes("plain", steps, tunable(value - 1)) == ["loads", "fails"]
    assert "less per thread" in (cure_of(report, "optional_static_tls").cost or "")


@pytest.mark.parametrize("seed", range(12))
def test_smallest_value_with_descriptors_in_play(tmp_path: Path, seed: int) -> None:
    """All of a random mixture of descriptors and initial-exec load with the printed value, and not with less."""
    chance = random.Random(seed)
    steps = []
    for i in range(chance.randint(3, 5)):
        build = chance.choice((descriptor, descriptor, initial_exec))
        steps.append(str(build(tmp_path, f"n{i}", chance.choice((40, 200, 300, 500, 640)), chance.choice((1, 8, 32)))))
    steps.append(str(initial_exec(tmp_path, "last", chance.choice((1400, 1700, 2600)))))
    report = predicted("plain", steps)
    real = outcomes("plain", steps)
    assert [step.outcome for step in report.steps] == real
    if "fails" not in real:
        return
    value = value_of(report)
    assert set(outcomes("plain", steps, tunable(value))) == {"loads"}
    for smaller in {value - 1, *(chance.randrange(value) for _ in range(6))}:
        assert "fails" in outcomes("plain", steps, tunable(smaller)), smaller


def test_no_tunable_helps_alignment(tmp_path: Path) -> None:
    """An 8-byte variable aligned to 4096 fails whatever the tunable, and dlwhy says that no tunable helps."""
    library = str(thread_local(tmp_path, "strict", 8, 4096, ("-ftls-model=initial-exec",)))
    report = predicted("plain", [library])
    (step,) = report.steps
    assert step.kind == "static-tls-alignment"
    for env in ({}, *(tunable(value) for value in (0, 511, 4096, 8192, 1 << 20))):
        (real,) = open_in("plain", [library], env).opened
        again = predicted("plain", [library], env).steps[0]
        assert (again.outcome, raw(again.message)) == (real.outcome, real.message) == ("fails", raw(step.message))
    assert not [cure for cure in report.cures if "TUNABLES" in cure.title]
    (vain,) = [one for one in report.not_cures if "TUNABLES" in one.title]
    assert "no N helps" in vain.why and "aligned to 64" in vain.why
    assert cure_of(report, "LD_PRELOAD").proof["outcome"] == "loads"
    assert outcomes("plain", [library], {"LD_PRELOAD": library}) == ["loads"]


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_smallest_value_of_other_releases(tmp_path: Path, suite: str) -> None:
    """On other releases' loaders the printed value is the smallest, too; one without the tunable is said to be so."""
    if os.geteuid() != 0:
        pytest.skip("not run: only root may chroot")
    root, why = sysroot(suite)
    if root is None:
        pytest.skip(why)
    work = Path(tempfile.mkdtemp(prefix="fixes-", dir=root / "tmp"))
    inside = Path("/", work.relative_to(root))
    try:
        for size, align in ((3000, 8), (2001, 1), (9000, 64)):
            built = initial_exec(tmp_path, f"of{size}", size, align)
            shutil.copy(built, work)
            library = str(inside / built.name)

            def really(env: dict[str, str], library: str = library) -> tuple[str, bytes | None]:
                (step,) = real.run(root, [library], {**BARE, **env}, "/", inside, None).steps
                return step.outcome, step.message

            report = dlwhy.check([library], host=dlwhy.Host.plain(BARE), sysroot=str(root))
            assert (report.steps[0].outcome, raw(report.steps[0].message)) == really({})
            if not any("optional_static_tls" in cure.title for cure in report.cures):
                assert any("no such tunable" in one.why for one in report.not_cures)
                continue
            value = value_of(report)
            assert really(tunable(value))[0] == "loads"
            assert really(tunable(value - 1))[0] == "fails"
    finally:
        shutil.rmtree(work)


# -- what it costs -----------------------------------------------------------------------------------------------------


def sized(folder: Path, host: str, risky: bool) -> tuple[str, int]:
    """The largest library whose tunable is safe for a host, or the smallest for which it is risky; with the value."""
    low, high = 1 << 11, 1 << 24
    found: dict[bool, tuple[str, int]] = {}
    while high - low > 1:
        middle = (low + high) // 2
        library = str(initial_exec(folder, f"of{middle}", middle, 1))
        report = predicted(host, [library])
        is_risky = cure_of(report, "optional_static_tls").disposition == "risky"
        found[is_risky] = (library, value_of(report))
        low, high = (low, middle) if is_risky else (middle, high)
    return found[risky]


def test_risky_is_exact_for_node(tmp_path: Path) -> None:
    """At the largest value that dlwhy calls safe, node makes all its threads; at the next one it cannot."""
    host_program("node")
    for risky in (False, True):
        library, value = sized(tmp_path, "node", risky)
        process = open_in("node", [library], tunable(value))
        assert process.opened[0].outcome == "loads"
        assert bool(_SHORT_OF_STACK.search(process.stderr)) == risky, value


def test_safe_is_safe_for_java(tmp_path: Path) -> None:
    """The Java virtual machine starts with the largest value that is called safe for it, and not with much more."""
    program = host_program("java")
    assert program is not None
    for value, starts in ((sized(tmp_path, "java", False)[1], True), (1 << 20, False)):
        done = subprocess.run(
            ["java", "-version"], executable=program, env={**BARE, **tunable(value)}, capture_output=True, check=False,
            cwd=tmp_path,  # where a dying virtual machine leaves its report
        )  # fmt: skip
        assert (done.returncode == 0) == starts


def test_safe_is_safe_for_python(tmp_path: Path) -> None:
    """Python runs a thread with the largest value that is called safe for it, and dies with a little more."""
    program = host_program("python3")
    assert program is not None
    deep = "f = lambda n: max([n], key=lambda _: f(n - 1)) if n else 0"
    code = (
        f"import sys, threading; {deep}; t = threading.Thread(target=f, args=(int(sys.argv[1]),)); t.start(); t.join()"
    )
    value = sized(tmp_path, "python3", False)[1]
    for tried, depth, runs in ((value, 0, True), (value + 16384, 100, False), (512, 100, True)):
        done = subprocess.run(
            ["python3", "-I", "-S", "-c", code, str(depth)], executable=program, env={**BARE, **tunable(tried)},
            capture_output=True, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == runs, done.returncode


@pytest.mark.parametrize("host", ["plain", "node", "python3"])
def test_cost_is_the_growth_of_the_block(tmp_path: Path, host: str) -> None:
    """The bytes that a cure costs per thread are what the static TLS block, as the loader has it, grows by."""
    host_program(host)
    library = str(initial_exec(tmp_path, "big", 3000))
    report = predicted(host, [library])
    assert report.static_tls is not None
    for cure in report.cures:
        env = cure.change["env"]
        assert isinstance(env, dict)
        after = predicted(host, [library], env).static_tls
        assert after is not None
        assert f"{after.size - report.static_tls.size} bytes more per thread" in (cure.cost or "")


# -- preloading, and the order of loads --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["plain", "python3", "node"])
def test_preloading(tmp_path: Path, host: str) -> None:
    """LD_PRELOAD is a cure by the model and in the real process; it is risky because children get it too."""
    host_program(host)
    library = str(initial_exec(tmp_path, "big", 5000))
    cure = cure_of(predicted(host, [library]), "LD_PRELOAD")
    assert cure.change == {"env": {"LD_PRELOAD": library}}
    assert cure.disposition == "risky" and "every program that this process starts" in (cure.cost or "")
    assert outcomes(host, [library]) == ["fails"]
    assert outcomes(host, [library], {"LD_PRELOAD": library}) == ["loads"]


def test_preloading_that_kills_children_says_so(tmp_path: Path) -> None:
    """A library bound at once that needs what only the host defines is a cure there, and ends every other program."""
    host_program("node")
    source = tmp_path / "now.c"
    source.write_text(
        "extern int napi_create_array(void *, void **);\n"
        '__thread char big[5000] __attribute__((tls_model("initial-exec")));\n'
        "void *napi_register_module_v1(void *e, void *x) { big[0] = napi_create_array(e, &x); return x; }\n"
    )
    addon = str(gcc(tmp_path / "now.node", "-w", "-O1", "-shared", "-fPIC", "-Wl,-z,now", source))
    cure = cure_of(predicted("node", [addon]), "LD_PRELOAD")
    assert cure.cost is not None and "undefined symbol: napi_create_array" in cure.cost
    done = subprocess.run([need("true")], env={**BARE, "LD_PRELOAD": addon}, capture_output=True, check=False)
    assert done.returncode == 127 and b"undefined symbol: napi_create_array" in done.stderr
    assert outcomes("node", [addon], {"LD_PRELOAD": addon}) == ["loads"]


def test_preloading_is_no_cure_for_what_registers_itself(tmp_path: Path) -> None:
    """An addon that registers in a constructor loads when preloaded, but node does not get to know it."""
    program = host_program("node")
    assert program is not None
    addon = str(story(tmp_path))
    report = predicted("node", [addon])
    assert not [cure for cure in report.cures if "LD_PRELOAD" in cure.title]
    (vain,) = report.not_cures
    assert vain.title == f"LD_PRELOAD={addon}" and "Module did not self-register" in vain.why
    words = ["node", "-e", "require(process.argv[1])", addon]
    for env, said in (({"LD_PRELOAD": addon}, "Module did not self-register"), (tunable(value_of(report)), "")):
        done = subprocess.run(words, executable=program, env={**BARE, **env}, capture_output=True, check=False)
        assert said in done.stderr.decode() and (done.returncode == 0) == (not said)


def test_the_failing_load_made_first(tmp_path: Path) -> None:
    """Where another order lets everything load, dlwhy proves it, renumbers what refers to steps, and it is so."""
    eater = str(descriptor(tmp_path, "eater", 480))
    needy = str(initial_exec(tmp_path, "needy", 1600))
    steps = [eater, "sym:1:eater_address", needy]
    report = predicted("plain", steps)
    assert [step.outcome for step in report.steps] == ["loads", "loads", "fails"]
    cure = cure_of(report, "first")
    assert cure.title == f"load {needy} first"
    assert cure.disposition == "safe" and cure.proof["outcome"] == "loads"
    assert cure.change == {"steps": [needy, eater, "sym:2:eater_address"]}
    assert outcomes("plain", steps) == ["loads", "loads", "fails"]
    assert outcomes("plain", [needy, eater, "sym:2:eater_address"]) == ["loads"] * 3


def test_no_order_helps_what_never_fits(tmp_path: Path) -> None:
    """A load that fails alone, too, is not cured by being first."""
    steps = [str(descriptor(tmp_path, "eater", 480)), str(initial_exec(tmp_path, "huge", 5000))]
    assert not [cure for cure in predicted("plain", steps).cures if "steps" in cure.change]
    assert outcomes("plain", steps[1:]) == ["fails"]


# -- command lines -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain.so", "a b'c.so", 'dollar$HOME "x".so', "ünï.so", "back\\slash.so"])
@pytest.mark.parametrize("host", ["python3", "node", "perl"])
def test_commands_can_be_pasted(tmp_path: Path, host: str, name: str) -> None:
    """Each printed command, pasted into a shell, makes the load succeed; without its variable it fails as before."""
    host_program(host)
    built = initial_exec(tmp_path, "big", 3000)
    library = tmp_path / name
    built.rename(library)
    report = dlwhy.check([str(library)], host=dlwhy.Host.executable(host))
    assert report.steps[0].outcome == "fails"
    for cure in report.cures:
        assert cure.command is not None
        done = shell(cure.command)
        said = done.stderr.decode()
        assert "static TLS" not in said and (done.returncode == 0 or "Module did not self-register" in said), said
    if report.cures and str(library) in shlex.split(report.cures[0].command or "")[-1]:
        plainly = shlex.join(shlex.split(report.cures[0].command or "")[1:])
        assert b"cannot allocate memory in static TLS block" in shell(plainly).stderr


def test_commands_carry_the_environment_that_was_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables that the question sets or takes away stand in the command, so that it does the same from this shell."""
    host_program("python3")
    initial_exec(tmp_path, "big", 3000)
    monkeypatch.setenv("LD_BIND_NOW", "1")
    env = {name: value for name, value in os.environ.items() if name != "LD_BIND_NOW"}
    report = dlwhy.check(
        ["libbig.so"], host=dlwhy.Host.executable("python3", {**env, "LD_LIBRARY_PATH": str(tmp_path)})
    )
    command = cure_of(report, "optional_static_tls").command
    assert command is not None
    assert command.startswith(f"env -u LD_BIND_NOW LD_LIBRARY_PATH={tmp_path} GLIBC_TUNABLES=")
    done = shell(command)
    assert done.returncode == 0, done.stderr


def test_commands_go_to_the_directory_that_was_asked_about(tmp_path: Path) -> None:
    """With a directory named the command goes there first, so that relative paths mean the same."""
    host_program("python3")
    initial_exec(tmp_path, "big", 3000)
    report = dlwhy.check(["./libbig.so"], host=dlwhy.Host.executable("python3"), cwd=str(tmp_path))
    assert report.cures
    for cure in report.cures:
        assert cure.command is not None and cure.command.startswith(f"cd {tmp_path} && ")
        done = shell(cure.command)
        assert done.returncode == 0, done.stderr


def test_plain_has_no_command(tmp_path: Path) -> None:
    """`plain` is nobody's program: the cure is the variable alone."""
    report = predicted("plain", [str(initial_exec(tmp_path, "big", 3000))])
    assert all(cure.command is None for cure in report.cures)


def test_attempts_of_each_kind() -> None:
    """A host whose kind has no one-line load gets none, nor does a name that its language cannot hold."""
    assert attempt("", ["/a.so"]) is None
    assert attempt("node", []) is None
    assert attempt("node", ["/\udcff.node"]) is None
    assert attempt("perl", ["/$x.so"]) is None
    assert attempt("python", ["/\udcff.so"]) == """-c 'import ctypes; ctypes.CDLL('"'"'/\\udcff.so'"'"')'"""


# -- an executable stack -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", sorted(SUITES))
def test_an_executable_stack(tmp_path: Path, suite: str) -> None:
    """Where dlopen refuses it, both cures really help: the tunable, and the same file without the flag."""
    if os.geteuid() != 0:
        pytest.skip("not run: only root may chroot")
    root, why = sysroot(suite)
    if root is None:
        pytest.skip(why)
    work = Path(tempfile.mkdtemp(prefix="stack-", dir=root / "tmp"))
    inside = Path("/", work.relative_to(root))
    source = tmp_path / "stack.c"
    source.write_text("int answer(void) { return 42; }\n")
    gcc(work / "wants.so", "-shared", "-fPIC", "-Wl,-z,execstack", source)
    gcc(work / "wants-not.so", "-shared", "-fPIC", "-Wl,-z,noexecstack", source)
    try:

        def really(name: str, env: dict[str, str]) -> tuple[str, bytes | None]:
            (step,) = real.run(root, [f"{inside}/{name}"], {**BARE, **env}, "/", inside, None).steps
            return step.outcome, step.message

        report = dlwhy.check([f"{inside}/wants.so"], host=dlwhy.Host.plain(BARE), sysroot=str(root))
        assert (report.steps[0].outcome, raw(report.steps[0].message)) == really("wants.so", {})
        if report.steps[0].outcome == "loads":
            assert (report.cures, report.not_cures) == ((), ())
            return
        assert report.steps[0].kind == "execstack"
        env, rebuild = report.cures
        assert (env.change, env.disposition) == ({"env": {"GLIBC_TUNABLES": "glibc.rtld.execstack=2"}}, "risky")
        assert really("wants.so", {"GLIBC_TUNABLES": "glibc.rtld.execstack=2"}) == ("loads", None)
        assert rebuild.disposition == "rebuild"
        assert really("wants-not.so", {}) == ("loads", None)
    finally:
        shutil.rmtree(work)


def test_an_executable_stack_without_the_tunable(tmp_path: Path) -> None:
    """A release of 2.41 as it came out knows no such value, which is said."""
    source = tmp_path / "stack.c"
    source.write_text("int answer(void) { return 42; }\n")
    library = gcc(tmp_path / "wants.so", "-shared", "-fPIC", "-Wl,-z,execstack", source)
    report = dlwhy.check([str(library)], host=dlwhy.Host.plain(BARE), libc="glibc-2.41")
    (vain,) = report.not_cures
    assert vain.title == "GLIBC_TUNABLES=glibc.rtld.execstack=2" and "knows no such value" in vain.why
    assert [cure.disposition for cure in report.cures] == ["rebuild"]
