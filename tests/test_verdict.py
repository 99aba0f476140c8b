"""Steps of one process: close, sym and call, and what lazy binding leaves open, held against a real process."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import pytest

import dlwhy
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, open_in, predicted, raw
from tests.oracle import real

pytestmark = pytest.mark.oracle

LAZY = """
extern void gone(void); extern void *malloc(unsigned long); extern void free(void *);
int data = 5; __thread int local = 6;
void direct(void) { gone(); }
static __attribute__((noinline)) void inner(void) { gone(); __asm__ volatile(""); }
void nested(void) { inner(); __asm__ volatile(""); }
void fine(void) { free(malloc(3)); }
void guarded(void) { if (data == 12345) gone(); }
"""


def built(folder: Path, name: str, source: str, *flags: str | Path) -> str:
    """A library from C, its calls bound lazily."""
    file = folder / f"{name}.c"
    file.write_text(source)
    return str(gcc(folder / f"lib{name}.so", "-w", "-O1", "-shared", "-fPIC", "-Wl,-z,lazy", file, *flags))


def run(steps: list[str], env: dict[str, str] | None = None) -> real.RealRun:
    """The steps in a real process of `plain`."""
    with tempfile.TemporaryDirectory() as work:
        return real.run(Path("/"), steps, {**BARE, **(env or {})}, "/", Path(work), None)


def agree(steps: list[str]) -> dlwhy.CheckReport:
    """Hold each step's outcome, message, and objects come and gone against the real process; return our report."""
    report = predicted("plain", steps)
    really = run(steps)
    assert len(really.steps) == next((i for i, s in enumerate(report.steps, 1) if s.outcome == "dies"), len(steps))
    for ours, its in zip(report.steps, really.steps, strict=False):
        assert ours.outcome == its.outcome, ours
        if ours.outcome == "dies":
            assert raw(ours.message) == really.stderr.rstrip(b"\n")
            break
        assert raw(ours.message) == its.message, ours
        assert set(ours.loaded) == set(its.loaded) and set(ours.unloaded) == set(its.unloaded), ours
    return report


def test_closing(tmp_path: Path) -> None:
    """What dlclose unloads, keeps for others or for ever, and says of a handle that was never given."""
    base = built(tmp_path, "base", "int base_value;")
    user = built(tmp_path, "user", "extern int base_value; int *user(void) { return &base_value; }", base)
    kept = built(tmp_path, "kept", "int kept;", "-Wl,-z,nodelete")
    report = agree(
        [user, base, "close:1", "close:2", kept, "close:5", "/no/such.so", "close:7", f"nodelete:{base}", "close:9"]
    )
    because = [step.because for step in report.steps]
    assert because[2] == because[3] == "unloaded"
    assert because[5] == because[9] == "still in use, or never unloaded"
    assert (report.steps[7].kind, report.steps[7].message) == ("not-open", None)


def test_closing_twice(tmp_path: Path) -> None:
    """A handle opened twice is closed twice, then it is not open any more; what is never unloaded never complains."""
    kept = built(tmp_path, "kept", "int kept;", "-Wl,-z,nodelete")
    base = built(tmp_path, "base", "int base_value;")
    user = built(tmp_path, "user", "extern int base_value; int *user(void) { return &base_value; }", base)
    report = agree([kept, "close:1", "close:1", user, base, base, "close:5", "close:6", "close:5", "close:4"])
    assert [step.outcome for step in report.steps[1:3]] == ["loads", "loads"]
    assert report.steps[8].message == f"{base}: shared object not open"


def test_a_handle_that_is_gone_is_undecided(tmp_path: Path) -> None:
    """What dlclose or dlsym make of memory that was freed is not known, and not guessed."""
    plain = built(tmp_path, "plain", "int value;")
    report = predicted("plain", [plain, "close:1", "close:1", "sym:1:value", "call:1:value"])
    assert [step.outcome for step in report.steps] == ["loads", "loads", "undecided", "undecided", "undecided"]
    assert all("after its object was unloaded" in step.because for step in report.steps[2:])


def test_looking_up(tmp_path: Path) -> None:
    """What dlsym finds, also in what came along, and the message of what it does not."""
    base = built(tmp_path, "base", "int base_value;")
    user = built(tmp_path, "user", "extern int base_value; int *user(void) { return &base_value; }", base)
    steps = [user, "sym:1:user", "sym:1:base_value", "sym:1:nobody", "now:", "sym:5:nobody", "sym:5:malloc"]
    steps += ["/no/such.so", "sym:8:x"]
    report = agree(steps)
    assert report.steps[1].object == user and report.steps[2].object == base
    assert base in report.steps[2].because


@pytest.mark.parametrize(("function", "outcome"), [("direct", "dies"), ("nested", "dies"), ("fine", "loads")])
def test_calls(tmp_path: Path, function: str, outcome: str) -> None:
    """A call that surely reaches a function that nothing defines ends the process with ld.so's words; others do not."""
    library = built(tmp_path, "lazy", LAZY)
    report = agree([f"lazy:{library}", f"call:1:{function}", "libm.so.6"])
    assert report.steps[0].assumptions == ()
    assert report.steps[1].outcome == outcome
    if outcome == "dies":
        assert (report.steps[1].kind, report.steps[1].object) == ("undefined-symbol", library)
        assert (report.steps[2].outcome, report.steps[2].kind) == ("fails", "host")
        assert "died in an earlier step" in report.steps[2].because
        assert run([f"lazy:{library}", f"call:1:{function}"]).status == 127


def test_calls_that_depend_on_something_are_undecided(tmp_path: Path) -> None:
    """Whether a guarded call is made is not known; looked up thread-local variables and data are no functions."""
    library = built(tmp_path, "lazy", LAZY)
    report = predicted("plain", [f"lazy:{library}", "call:1:guarded", "call:1:data"])
    assert [step.outcome for step in report.steps] == ["loads", "undecided", "undecided"]
    assert "gone" in report.steps[1].because


def test_what_is_defined_later_can_be_called(tmp_path: Path) -> None:
    """A library made global meanwhile defines what was missing: the call that would end the process does not."""
    library = built(tmp_path, "lazy", LAZY)
    giver = built(tmp_path, "giver", "void gone(void) {}")
    assert agree([f"lazy:{library}", f"global:{giver}", "call:1:direct"]).steps[2].outcome == "loads"
    assert agree([f"lazy:{library}", giver, "call:1:direct"]).steps[2].outcome == "dies"


def test_a_constructor_that_calls_what_is_missing(tmp_path: Path) -> None:
    """A lazy dlopen whose constructor surely calls what nothing defines ends the process, also in a dependency."""
    attribute = "__attribute__((constructor)) static"
    library = built(tmp_path, "calling", f"extern void gone(void); {attribute} void enter(void) {{ gone(); }}")
    above = built(tmp_path, "above", "int above;", "-Wl,--no-as-needed", library)
    for step in (f"lazy:{library}", f"lazy:{above}"):
        (ours,) = agree([step]).steps
        assert (ours.outcome, ours.stage, ours.object) == ("dies", "init", library)
    assert agree([f"now:{library}"]).steps[0].outcome == "fails"


def test_a_constructor_that_may_call_what_is_missing(tmp_path: Path) -> None:
    """Where a constructor's call depends on something the load is said to succeed on an assumption that is named."""
    source = "extern void gone(void); extern int atoi(const char *); extern char *getenv(const char *);\n"
    source += '__attribute__((constructor)) static void enter(void) { if (getenv("NEVER_SET")) gone(); }'
    (step,) = agree([f"lazy:{built(tmp_path, 'maybe', source)}"]).steps
    assert (step.outcome, step.basis) == ("loads", "assumed")
    (assumption,) = step.assumptions
    assert "no constructor of" in assumption and "calls gone" in assumption


def test_a_program_whose_library_calls_what_is_missing(tmp_path: Path) -> None:
    """At the start of a program it is so too: the constructor of a lazily bound library ends it with ld.so's words."""
    source = "extern void gone(void); __attribute__((constructor)) static void enter(void) { gone(); }"
    library = built(tmp_path, "calling", source)
    main = tmp_path / "main.c"
    main.write_text("int main(void) { return 0; }")
    flags = ("-Wl,-z,lazy", "-Wl,--unresolved-symbols=ignore-all", f"-Wl,-rpath,{tmp_path}", "-Wl,--no-as-needed")
    program = str(gcc(tmp_path / "main", main, *flags, library))
    startup = dlwhy.check([], host=dlwhy.Host.executable(program, BARE)).host.startup
    done = subprocess.run([program], env=BARE, capture_output=True, check=False, timeout=60)
    assert (startup.outcome, startup.exit_status) == ("dies", done.returncode) == ("dies", 127)
    assert raw(startup.message) == done.stderr.rstrip(b"\n")


def test_no_load(tmp_path: Path) -> None:
    """RTLD_NOLOAD gives a handle of what is loaded, and none without a message of what is only there."""
    library = built(tmp_path, "value", "int value;")
    report = agree(
        [f"noload-now:{library}", library, f"noload-now:{library}", "close:2", "close:3", f"noload-now:{library}"]
    )
    assert (report.steps[0].outcome, report.steps[0].message, report.steps[0].kind) == ("fails", None, "not-found")


def test_a_failed_step_does_not_end_the_sequence(tmp_path: Path) -> None:
    """After a load that fails the next one is made in the same process, with nothing left of the first."""
    broken = built(tmp_path, "broken", "extern int nobody; int *p = &nobody;")
    good = built(tmp_path, "good", "int good;")
    report = agree([broken, good, broken, "close:1", "close:2"])
    assert [step.outcome for step in report.steps] == ["fails", "loads", "fails", "fails", "loads"]
    assert [one.outcome for one in open_in("plain", [broken, good]).opened] == ["fails", "loads"]
