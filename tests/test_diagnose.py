"""Reports of the cases that dlwhy was made for, each figure derived, each verdict held against the real loader."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.libraries import STORY_BYTES, gcc, initial_exec, story, thread_local
from tests.fixtures.real_hosts import BARE, host_program, open_in, predicted, raw, tunable

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def addon(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library with the story's numbers."""
    return story(tmp_path_factory.mktemp("story"))


@pytest.mark.parametrize("host", ["plain", "python3", "node"])
def test_the_story(addon: Path, host: str) -> None:
    """The story's library is refused with the real words, for want of the bytes that are left, in all three hosts."""
    host_program(host)
    report = predicted(host, [str(addon)])
    (step,) = report.steps
    (real,) = open_in(host, [str(addon)]).opened
    assert (step.outcome, raw(step.message)) == (real.outcome, real.message)
    if host != "node":  # napi_module_register is Node's own: without it the load fails for another reason
        return
    assert real.message == f"{addon}: cannot allocate memory in static TLS block".encode()
    assert (step.kind, step.stage, step.object, step.needed_by) == (
        "static-tls-exhausted", "relocate", str(addon), None,
    )  # fmt: skip
    assert report.static_tls is not None
    free, surplus = report.static_tls.free, report.static_tls.surplus
    assert free < STORY_BYTES
    assert step.because == (
        f"its TLS segment of {STORY_BYTES} bytes must go into the static TLS block, where {free} bytes are left "
        f"({surplus} bytes of surplus and {free - surplus} of rounding)"
    )


def test_who_is_to_blame_in_the_story(addon: Path) -> None:
    """One access to eight bytes of Go forces 4720 bytes, of which rand's one variable has 4248: trigger and bulk."""
    host_program("node")
    (bill,) = dlwhy.check([str(addon)], host=dlwhy.Host.executable("node", BARE)).tls
    assert (bill.object, bill.size, bill.align) == (str(addon), STORY_BYTES, 8)
    (trigger,) = bill.triggers
    assert (trigger.owner, trigger.variable, trigger.relocation, trigger.relocations, trigger.own) == (
        "Go runtime", "runtime.tlsg", "R_X86_64_TPOFF64", 1, True,
    )  # fmt: skip
    assert [(owner.owner, owner.kind, owner.bytes, owner.variable) for owner in bill.owners] == [
        ("rand", "crate", 4248, "rand::rngs::thread::THREAD_RNG_KEY"),
        ("std", "crate", 208, "std::thread::CURRENT"),
        ("tokio", "crate", 144, "tokio::runtime::context::CONTEXT"),
        ("Go runtime", "go", 8, "runtime.tlsg"),
    ]
    assert (bill.padding, bill.unattributed) == (24, 88)
    assert sum(owner.bytes for owner in bill.owners) + bill.padding + bill.unattributed == STORY_BYTES


def test_what_cures_the_story(addon: Path) -> None:
    """The inferred host is node, the tunable cures it there to the byte, and without Go's object it loads as it is."""
    program = host_program("node")
    report = dlwhy.check([str(addon)], host=dlwhy.Host.inferred(BARE))
    assert (report.host.name, report.host.executable) == ("node", program)
    cure, rebuild = report.cures
    assert (rebuild.title, rebuild.disposition) == ("rand >= 0.8: 16 bytes instead of 4248", "rebuild")
    value = int(cure.title.rpartition("=")[2])
    assert cure.disposition == "safe"
    assert cure.command == f"{cure.title} node -e 'require(\"{addon}\")'"
    assert open_in("node", [str(addon)], tunable(value)).opened[0].outcome == "loads"
    assert open_in("node", [str(addon)], tunable(value - 1)).opened[0].outcome == "fails"


def test_without_the_trigger_the_story_loads(tmp_path: Path) -> None:
    """The same bulk without the one initial-exec access is dynamic and loads, however little is left."""
    folder = tmp_path / "whole"
    folder.mkdir()
    story(folder)
    without = str(gcc(tmp_path / "libwithout.so", "-shared", folder / "rust.o"))
    (step,) = predicted("plain", [without]).steps
    assert (step.outcome, open_in("plain", [without]).opened[0].outcome) == ("loads", "loads")


def test_a_plain_story(tmp_path: Path) -> None:
    """Built without its Node part the story fails and is cured in a plain process just so."""
    library = str(story(tmp_path, "libstory.so", addon=False))
    report = predicted("plain", [library])
    assert report.steps[0].kind == "static-tls-exhausted"
    assert raw(report.steps[0].message) == open_in("plain", [library]).opened[0].message
    tried = [cure for cure in report.cures if cure.disposition != "rebuild"]
    assert [cure.title.partition("=")[0] for cure in tried] == ["GLIBC_TUNABLES", "LD_PRELOAD"]
    for cure in tried:
        env = cure.change["env"]
        assert isinstance(env, dict)
        assert open_in("plain", [library], env).opened[0].outcome == "loads"


def test_the_innocent_is_named_and_so_is_the_guilty(tmp_path: Path) -> None:
    """Initial-exec code that uses another library's variable: ld.so names the one that defines it, dlwhy both."""
    victim = thread_local(tmp_path, "victim", 4000, 8)
    source = tmp_path / "guilty.c"
    source.write_text(
        'extern __thread char victim_variable[4000] __attribute__((tls_model("initial-exec")));\n'
        "char guilty(int i) { return victim_variable[i]; }\n"
    )
    guilty = str(gcc(tmp_path / "libguilty.so", "-O1", "-shared", "-fPIC", f"-Wl,-rpath,{tmp_path}", source, victim))
    report = predicted("plain", [guilty])
    (step,) = report.steps
    (real,) = open_in("plain", [guilty]).opened
    assert real.message == f"{victim}: cannot allocate memory in static TLS block".encode()
    assert raw(step.message) == real.message
    assert (step.object, step.needed_by) == (str(victim), guilty)
    (bill,) = report.tls
    assert (bill.object, bill.size) == (str(victim), 4000)
    assert bill.owners[0].variable == "victim_variable"
    assert [(one.object, one.variable, one.own, one.owner) for one in bill.triggers] == [
        (guilty, "victim_variable", False, "libvictim.so")
    ]
    (finding,) = [one for one in report.findings if one.rule == "innocent-named"]
    assert str(victim) in finding.message and guilty in finding.message
    assert open_in("plain", [str(victim)]).opened[0].outcome == predicted("plain", [str(victim)]).steps[0].outcome


def test_a_victim_that_is_in_use_already(tmp_path: Path) -> None:
    """A segment that dlsym has looked into is dynamic for good: the later load fails, and order is what cures it."""
    victim = str(thread_local(tmp_path, "victim", 40, 8))
    source = tmp_path / "guilty.c"
    source.write_text(
        'extern __thread char victim_variable[40] __attribute__((tls_model("initial-exec")));\n'
        "char guilty(int i) { return victim_variable[i]; }\n"
    )
    guilty = str(gcc(tmp_path / "libguilty.so", "-O1", "-shared", "-fPIC", f"-Wl,-rpath,{tmp_path}", source, victim))
    steps = [victim, "sym:1:victim_variable", guilty]
    report = predicted("plain", steps)
    real = open_in("plain", steps).opened
    assert [(step.outcome, raw(step.message)) for step in report.steps] == [(one.outcome, one.message) for one in real]
    assert report.steps[2].kind == "static-tls-dynamic-in-use"
    assert "no N helps" in next(one.why for one in report.not_cures if "TUNABLES" in one.title)
    (order,) = [cure for cure in report.cures if "steps" in cure.change]
    moved = order.change["steps"]
    assert moved == [guilty, victim, "sym:2:victim_variable"]
    assert {one.outcome for one in open_in("plain", moved).opened} == {"loads"}


def test_the_bill_is_of_the_failing_step(tmp_path: Path) -> None:
    """Of several steps only those that fail for static TLS are billed, each object once."""
    fits, big = str(initial_exec(tmp_path, "fits", 100)), str(initial_exec(tmp_path, "big", 9000))
    report = predicted("plain", [fits, big, big])
    assert [step.outcome for step in report.steps] == ["loads", "fails", "fails"]
    assert [bill.object for bill in report.tls] == [big]


def test_tls_of_an_object_file_and_an_archive(tmp_path: Path) -> None:
    """Of what is not linked yet `tls` says who will force static TLS: in the story's archive one of two members."""
    story(tmp_path)
    (alone,) = dlwhy.tls([tmp_path / "go.o"]).files
    assert (alone.kind, alone.error, alone.tls, len(alone.triggers)) == ("object", None, None, 1)
    (file,) = dlwhy.tls([tmp_path / "libgo.a"]).files
    assert (file.kind, file.error, file.members_total, len(file.members)) == ("archive", None, 2, 2)
    assert file.tls is not None and file.tls.size == 8
    (trigger,) = file.triggers
    assert trigger.owner == "Go runtime" and [one.owner for one in trigger.users] == ["go.o"]
