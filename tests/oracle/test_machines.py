"""Other machines: random scenarios on their real loaders, in QEMU's user mode or, of i386, on this kernel.

A small sample; `python -m tests.oracle.agreement --machine arm64 ...` runs as many as are wanted, on every suite.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.machine import MACHINES
from tests.oracle import real
from tests.oracle.agreement import built, one, workshop
from tests.oracle.build import Function, Plan, Reference, Variable
from tests.oracle.machines import TARGETS, why_not
from tests.oracle.scenarios import Scenario, scenario
from tests.oracle.sysroots import foreign
from tests.oracle.test_scenarios import FIXED

if TYPE_CHECKING:
    from pathlib import Path

    from tests.oracle.compare import Verdict

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

AMOUNT = {
    "tls": 10, "faults": 8, "corrupt": 5, "search": 4, "graph": 3, "versions": 3, "flags": 3, "spaces": 3, "marks": 3,
}  # fmt: skip
OTHERS = [target for target in TARGETS.values() if target.debian != "amd64"]
SUITE = "trixie"
"""The one suite that has all of them."""
# a seed that once showed a difference stays here: (machine, seed, number, family)
FOUND = (
    ("arm64", 3, 24, "corrupt"), ("arm64", 3, 48, "faults"), ("arm64", 2, 4, "marks"), ("arm64", 31, 48, "corrupt"),
    ("i386", 3, 6, "faults"), ("i386", 3, 12, "tls"), ("i386", 5, 26, "spaces"), ("armhf", 5, 39, "corrupt"),
    ("arm64", FIXED, 27, "tls"), ("riscv64", 77, 6, "corrupt"), ("ppc64el", FIXED, 3, "corrupt"),
    ("i386", 77, 47, "corrupt"),
)  # fmt: skip


def _root(debian: str) -> Path:
    """The root of a machine, or a skip that says why there is none."""
    why = "not run: only root may chroot" if os.geteuid() != 0 else why_not(TARGETS[debian])
    if why is not None:
        pytest.skip(why)
    root, reason = foreign(SUITE, debian)
    if root is None:
        pytest.skip(reason)
    return root


def _run(debian: str, chosen: list[Scenario]) -> list[Verdict]:
    root = _root(debian)
    made = workshop(debian, root)
    words = real.rtld_words(root)
    return [one(each, root, made, words, tag=f"{os.getpid()}") for each in built(made, chosen)]


@pytest.mark.parametrize("debian", [target.debian for target in OTHERS])
def test_scenarios_on_another_machine(debian: str) -> None:
    """Every scenario goes in the machine's real loader as predicted, and a good part of the steps fail."""
    chosen = [scenario(FIXED, number, family) for family, amount in AMOUNT.items() for number in range(amount)]
    chosen += [scenario(seed, number, family) for machine, seed, number, family in FOUND if machine == debian]
    count: Counter[str] = Counter()
    wrong = []
    for verdict in _run(debian, chosen):
        count.update(scenarios=1, steps=verdict.steps, refused=verdict.refused, undecided=verdict.undecided)
        wrong += [f"{verdict.scenario.name} {verdict.scenario.family}: {text}" for text in verdict.differences]
    assert not wrong, "\n".join(wrong)
    assert count["scenarios"] >= 0.9 * len(chosen), count
    assert count["refused"] >= 0.3 * count["steps"], count
    assert count["undecided"] <= 0.05 * count["steps"], count


def _library(name: str, size: int, kind: str) -> Plan:
    variables = (Variable(f"v_{name}", size, 8),)
    return Plan(f"{name}.so", f"{name}.so", (), None, variables=variables, references=(Reference(kind, f"v_{name}"),))


def test_descriptors_and_initial_exec_share_the_surplus() -> None:
    """On aarch64 descriptors take what the budget gives and the rest stays dynamic; then libgomp's kind is refused."""
    plans = (*(_library(f"d{index}", 300, "desc") for index in range(3)), _library("gomp", 1200, "ie"),
             _library("late", 400, "ie"))  # fmt: skip
    steps = ("now:{D}/d0.so", "now:{D}/d1.so", "now:{D}/d2.so", "now:{D}/gomp.so", "now:{D}/late.so")
    (late,) = _run("arm64", [Scenario("descriptors", "tls", plans, steps, {}, None, "/tmp")])
    assert late.differences == ()
    assert any(b"late.so: cannot allocate memory in static TLS block" in text for text in late.messages)
    cure = {"LD_PRELOAD": "{D}/late.so"}
    (cured,) = _run("arm64", [Scenario("preloaded", "tls", plans, steps, cure, None, "/tmp")])
    assert cured.differences == ()
    assert not any(b"static TLS" in text for text in cured.messages)


def test_a_descriptor_in_use_cannot_move() -> None:
    """On aarch64 a lookup of a variable that a descriptor left dynamic makes it so for good."""
    definer = _library("big", 3000, "desc")._replace(functions=(Function("f"),))
    user = Plan("user.so", "user.so", ("big.so",), "$ORIGIN", references=(Reference("ie", "v_big"),))
    tunables = {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=100:glibc.rtld.nns=16"}
    for looked in ((), ("sym:1:v_big",)):
        steps = ("now:{D}/big.so", *looked, "now:{D}/user.so")
        chosen = Scenario(f"moves{len(looked)}", "tls", (definer, user), steps, tunables, None, "/tmp")
        (verdict,) = _run("arm64", [chosen])
        assert verdict.differences == ()
        assert any(b"static TLS" in text for text in verdict.messages) == bool(looked)


def test_optimised_general_dynamic() -> None:
    """On ppc64 general-dynamic references take optional static TLS, as the linker says of any real library."""
    plans = tuple(_library(f"g{index}", 300, "gd") for index in range(3))
    (verdict,) = _run("ppc64el", [Scenario("gd", "tls", plans, ("now:{D}/g0.so", "now:{D}/g1.so", "now:{D}/g2.so"), {},
                                           None, "/tmp")])  # fmt: skip
    assert verdict.differences == ()


def test_every_machine_has_a_real_loader_to_be_held_against() -> None:
    """No row of a machine is without a compiler and a suite in which its loader is."""
    assert {row.name for row in MACHINES.values()} == {target.name for target in TARGETS.values()}
    assert all(target.suites for target in TARGETS.values())
