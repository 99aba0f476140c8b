"""A constructor's first use of its TLS, and what it means for a later load that wants it in the static block."""

from __future__ import annotations

import os
import random
import secrets
import shutil
import subprocess
from pathlib import Path

import pytest

import dlwhy
from tests.oracle import compare
from tests.oracle.scenarios import Scenario
from tests.oracle.sysroots import SUITES, cache, roots

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

TOUCHES = ("mine++;", "touch();", "elsewhere++;")
"""What surely uses the segment: directly, through a function of the object, through another variable of it."""
LEAVES = ("plain++;", "if (plain) mine++;", "")
"""What does not, the second for want of a reason."""


def owner(r: random.Random) -> tuple[str, bool]:
    """The source of a library with TLS and a constructor, and whether that one uses it."""
    uses = r.random() < 0.5
    body = r.choice(TOUCHES if uses else LEAVES)
    size = r.choice((1, 50, 800))
    return f"""
        __thread char mine[{size}]; static __thread int elsewhere; int plain;
        #define mine mine[{r.randrange(size)}]
        __attribute__((noinline)) void touch(void) {{ mine++; }}
        int keep(void) {{ return elsewhere; }}
        __attribute__((constructor)) static void begin(void) {{ {body} }}
        """, uses


def build(place: Path, r: random.Random) -> bool:
    """Write libowner.so and libuser.so; whether the owner's constructor uses its TLS."""
    source, uses = owner(r)
    user = "extern __thread char mine[]; char *use(void) { return mine; }"
    flags = [r.choice(("-O0", "-O1", "-O2")), r.choice(("-z,now", "-z,lazy")), r.choice(("bfd", "gold", "lld", "mold"))]
    for name, text, words in (
        ("owner", source, ()),
        ("user", user, ("-ftls-model=initial-exec", f"{place}/libowner.so", "-Wl,-rpath,$ORIGIN")),
    ):
        command = ["gcc", "-x", "c", "-", "-shared", "-fPIC", flags[0], "-nostdlib", f"-Wl,{flags[1]}"]
        command += [f"-Wl,-soname,lib{name}.so", "-o", f"{place}/lib{name}.so", f"-fuse-ld={flags[2]}"]
        subprocess.run([*command, "-x", "none", *words], input=text, text=True, check=True, capture_output=True)
    return uses


@pytest.mark.parametrize("loader", ["this machine", *SUITES])
def test_first_use(loader: str) -> None:
    """Where a constructor has surely used it the later load is refused, as the real loader does, in its words."""
    root = roots()[loader]
    if isinstance(root, str):
        pytest.skip(root)
    seed = secrets.randbelow(1 << 31)
    print(f"seed {seed}")
    r = random.Random(seed)
    wrong, used = [], 0
    for number in range(12):
        one = Scenario(f"first-use-{os.getpid()}-{number}", "first-use", (), (), {}, None, "/")
        steps = (f"now:{one.directory}/libowner.so", f"now:{one.directory}/libuser.so")
        one = one._replace(steps=steps)
        place = Path(one.directory if root == Path("/") else f"{root}{one.directory}")
        place.mkdir(parents=True)
        try:
            uses = build(place, r)
            seen = compare.observe(one, root, None)
            said = compare.predict(one, root)
        finally:
            compare.clean(one, root)
        wrong += [f"{seed} {number}: {text}" for text in compare.judge(one, seen, said).differences]
        used += uses
        assert (seen.steps[1].outcome == "fails") == uses, (seed, number)
        assert (said.steps[1].kind == "static-tls-dynamic-in-use") == uses, (seed, number)
    assert wrong == []
    assert used


def test_what_is_not_sure() -> None:
    """A use behind a decision is no fact: the load is told to succeed, and the assumption stands beside it."""
    place = cache() / "plans" / f"unsure-{os.getpid()}"
    place.mkdir(parents=True, exist_ok=True)
    try:
        text = owner(random.Random(1))[0].replace("static void begin(void) {", "static void begin(void) { if (plain) ")
        for name, source, words in (
            ("owner", text, ()),
            ("user", "extern __thread char mine[]; char *use(void) { return mine; }", ("libowner.so", "-Wl,-rpath,.")),
        ):
            command = ["gcc", "-x", "c", "-", "-shared", "-fPIC", "-o", f"lib{name}.so", "-ftls-model=initial-exec"]
            command[-1:] = ["-ftls-model=initial-exec"] if name == "user" else []
            subprocess.run([*command, "-x", "none", *words], cwd=place, input=source, text=True, check=True)
        last = dlwhy.check(["./libowner.so", "./libuser.so"], dlwhy.Host.plain(), cwd=str(place)).steps[1]
    finally:
        shutil.rmtree(place, ignore_errors=True)
    assert (last.outcome, last.basis) == ("loads", "assumed")
    assert any("has not touched its thread-local variables" in one for one in last.assumptions)
