"""Random scenarios on every loader that can be had: verdict, exact text, order of objects, static TLS in bytes."""

from __future__ import annotations

import os
import secrets
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.oracle import compare, real
from tests.oracle.agreement import one, workshop
from tests.oracle.build import Function, Patch, Plan, Reference
from tests.oracle.scenarios import FAMILIES, Scenario, scenario
from tests.oracle.sysroots import SUITES, roots

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.oracle.build import Workshop

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

FIXED = 20261124
# a seed that once showed a difference stays here: (seed, number, family)
FOUND = (
    (1, 13, "tls"), (1, 20, "tls"), (1, 31, "tls"), (2, 99, "tls"), (2, 33, "flags"), (3, 177, "flags"),
    (2, 36, "versions"), (1597382143, 12, "versions"), (1, 26, "corrupt"), (5, 39, "corrupt"), (5, 131, "corrupt"),
    (5, 248, "corrupt"), (7, 49, "corrupt"), (7, 141, "corrupt"), (7, 164, "corrupt"), (1726220774, 2, "corrupt"),
    (7001, 8, "tls"), (6161, 69, "corrupt"), (20261125, 37, "search"), (1, 22, "marks"), (1, 46, "marks"),
)  # fmt: skip
AMOUNT = {
    "tls": 300, "graph": 60, "search": 60, "versions": 60, "corrupt": 100, "flags": 40, "spaces": 40, "faults": 80,
    "marks": 60,
}  # fmt: skip
FRESH = {family: amount // 4 for family, amount in AMOUNT.items()}
LOADERS = ("this machine", *SUITES)
DAMAGE = ("corrupt", "faults")
"""Their fresh seeds hunt for what no rule covers yet: DLWHY_FRESH=1 runs them, a fixed seed always runs."""
HUNTED = sorted(set(FAMILIES) - (set() if os.environ.get("DLWHY_FRESH") else set(DAMAGE)))


@pytest.fixture(scope="module")
def made() -> Workshop:
    """The workshop that the scenarios of this module share."""
    return workshop()


def agree(loader: str, made: Workshop, chosen: list[tuple[int, int, str]]) -> Counter[str]:
    """Run scenarios on one loader; fail with every difference, return the counts."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    words = real.rtld_words(root)
    count: Counter[str] = Counter()
    wrong = []
    for seed, number, family in chosen:
        verdict = one(scenario(seed, number, family), root, made, words, tag=f"{os.getpid()}")
        count.update(steps=verdict.steps, refused=verdict.refused, undecided=verdict.undecided)
        wrong += [f"{seed} {number} {family}: {text}" for text in verdict.differences]
    assert not wrong, "\n".join(wrong)
    return count


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("loader", LOADERS)
def test_scenarios_of_a_fixed_seed(loader: str, family: str, made: Workshop) -> None:
    """Every scenario of the fixed seed goes in the real loader as predicted, and a good part of the steps fail."""
    count = agree(loader, made, [(FIXED, number, family) for number in range(AMOUNT[family])])
    assert count["refused"] >= (0.2 if family in ("flags", "marks") else 0.35) * count["steps"], count
    assert count["undecided"] <= (0.04 if family in DAMAGE else 0.02) * count["steps"], count


@pytest.mark.parametrize("family", HUNTED)
@pytest.mark.parametrize("loader", LOADERS)
def test_scenarios_of_a_fresh_seed(
    loader: str, family: str, made: Workshop, record_property: Callable[[str, object], None]
) -> None:
    """So does every scenario of a seed never seen before, which a failure prints."""
    seed = secrets.randbelow(1 << 31)
    record_property("seed", seed)
    print(f"seed {seed}")
    agree(loader, made, [(seed, number, family) for number in range(FRESH[family])])


@pytest.mark.parametrize("loader", LOADERS)
def test_scenarios_that_once_differed(loader: str, made: Workshop) -> None:
    """What random scenarios have found stays found."""
    agree(loader, made, list(FOUND))


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("kind", [2, 10])
@pytest.mark.parametrize("program", ["prog", None])
def test_distances(loader: str, kind: int, program: str | None, made: Workshop) -> None:
    """From a library to a program, and to what is not there, 32 bits suffice for an address and not for a distance."""
    name = "of_program" if program else "of_nobody"
    plans = [Plan("x.so", "x.so", references=(Reference("data", name, program is None),), relative=2,
                  patches=(Patch("kind 7 2", kind),))]  # fmt: skip
    if program:
        functions = (Function(name),)
        plans.append(Plan("prog", None, ("x.so",), "$ORIGIN", options=("-E",), functions=functions, program=True))
    title = f"distances-{kind}-{program}-{os.getpid()}"
    one_step = ("now:{D}/x.so",)
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    chosen = Scenario(title, "faults", tuple(plans), one_step, {}, program, "/tmp")
    verdict = one(chosen, root, made, real.rtld_words(root), tag="d")
    assert verdict.differences == ()
    heard = b"causes overflow in R_X86_64_PC32 relocation" in b"".join(verdict.messages)
    assert heard == (kind == 2)


def test_a_wrong_prediction_is_seen(made: Workshop) -> None:
    """The comparison itself notices another verdict, another text and another number of bytes."""
    chosen = compare.prepare(scenario(FIXED, 1, "tls"), Path("/"), made)
    try:
        seen = compare.observe(chosen, Path("/"), real.rtld_words(Path("/")))
        said = compare.predict(chosen, Path("/"))
    finally:
        compare.clean(chosen, Path("/"))
    assert compare.judge(chosen, seen, said).differences == ()
    first = said.steps[0]
    other = "fails" if first.outcome == "loads" else "loads"
    assert compare.judge(chosen, seen, said.but(steps=(first.but(outcome=other), *said.steps[1:]))).differences
    text = first.but(message=f"{first.message} ")
    assert compare.judge(chosen, seen, said.but(steps=(text, *said.steps[1:]))).differences
    assert said.static_tls is not None
    block = said.static_tls.but(used=said.static_tls.used + 1)
    assert compare.judge(chosen, seen, said.but(static_tls=block)).differences
