"""Scenarios started in other ways than by a plain execve: through `ld.so PROG`, and as a set-user-ID program."""

from __future__ import annotations

import os
import random
import subprocess
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import dlwhy
from tests.oracle import compare, real
from tests.oracle.scenarios import scenario

if TYPE_CHECKING:
    from tests.oracle.build import Workshop
    from tests.oracle.scenarios import Scenario

LOADER = "/lib64/ld-linux-x86-64.so.2"
NOBODY = 65534
FAMILIES = ("search", "search", "graph", "tls", "versions")


def _program(full: Scenario, outside: str, root: Path) -> str:
    """The path inside the root of the program to start: the scenario's own, or `plain` put beside its files."""
    if full.program:
        return f"{full.directory}/{full.program}"
    place = Path(f"{outside}{full.directory}/plain")
    place.write_bytes(real.plain(root).read_bytes())
    place.chmod(0o755)
    return f"{full.directory}/plain"


def run(
    way: str, seed: int, number: int, root: Path, made: Workshop, words: tuple[int, int] | None, tag: str
) -> compare.Verdict:
    """Start a scenario by `way`, "explicit" or "secure", and compare."""
    r = random.Random(f"{way}/{seed}/{number}")
    chosen = scenario(seed, number, r.choice(FAMILIES))
    full = compare.prepare(chosen._replace(name=f"{chosen.name}-{way}-{tag}"), root, made)
    outside = "" if root == Path("/") else str(root)
    try:
        program = _program(full, outside, root)
        here = Path(f"{outside}{full.directory}")
        (here / "steps").write_bytes("".join(step + "\n" for step in full.steps).encode())
        library_path = r.choice((None, None, f"{full.directory}/d0:{full.directory}/d1", full.directory, ""))
        words_of = [program, f"{full.directory}/steps", f"{full.directory}/report", *map(str, words or ())]
        if way == "explicit":
            words_of = [LOADER, *([] if library_path is None else ["--library-path", library_path]), *words_of]
        else:
            Path(f"{outside}{program}").chmod(0o4755)
        env = compare.environment(full)

        def enter() -> None:
            if outside:
                os.chroot(root)
            os.chdir(full.cwd)
            if way == "secure":
                os.setgid(NOBODY)
                os.setuid(NOBODY)

        with real.proc(root, Path(words_of[0])) if outside else nullcontext():
            done = subprocess.run(
                words_of, env=env, preexec_fn=enter, stdin=subprocess.DEVNULL, capture_output=True, timeout=20,
                check=False,
            )  # fmt: skip
        seen = real.read(here / "report", done.returncode, done.stderr)
        host = dlwhy.Host.executable(program, env)
        sysroot = outside or None
        if way == "explicit":
            said = dlwhy.check(
                list(full.steps), host, sysroot=sysroot, cwd=full.cwd, loader=LOADER, library_path=library_path
            )
        else:
            said = dlwhy.check(list(full.steps), host, sysroot=sysroot, cwd=full.cwd, secure=True)
        return compare.judge(full, seen, said)
    finally:
        compare.clean(full, root)
