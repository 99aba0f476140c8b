"""Search and level checks on other processors, compared with real loaders under an emulator."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

import dlwhy
from tests.oracle import processors, real
from tests.oracle.sysroots import SUITES, roots

pytestmark = pytest.mark.oracle

COUNT = 12
SETTINGS: tuple[dict[str, str], ...] = (
    {},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2"},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable,-SSE4_2:glibc.cpu.hwcaps=-POPCNT,x,-"},
    {"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-CMOV"},
)


@pytest.fixture(scope="module")
def levels(tmp_path_factory) -> list[Path]:
    """The library without a note, and with each level."""
    place = tmp_path_factory.mktemp("levels")
    return [processors.library(place, level) for level in range(5)]


@pytest.fixture(scope="module", params=["this machine", *SUITES])
def stage(request, tmp_path_factory, levels) -> Path:
    """A root with a loader, libraries in every kind of subdirectory, and a cache that its own ldconfig wrote."""
    found = roots()[request.param]
    if isinstance(found, str):
        pytest.skip(found)
    if os.geteuid() != 0:
        pytest.skip("not run: only root may chroot")
    path, why = processors.emulator()
    if path is None:
        pytest.skip(why)
    name = request.param.replace(" ", "-")
    root = processors.private(found, tmp_path_factory.mktemp("roots") / name)
    shutil.copy(path, f"{root}{processors.INSIDE}")
    for place, prefix, noted in (("direct", "d", False), ("cached", "c", True)):
        processors.place(processors.layout(20, COUNT, prefix, noted), root / "opt" / place, levels)
    for level, library in enumerate(levels):
        shutil.copy(library, root / f"opt/level{level}.so")
    for platform in ("x86_64", "haswell"):
        (root / "opt/platform" / platform).mkdir(parents=True)
        shutil.copy(levels[0], root / "opt/platform" / platform / "libp.so")
    (root / "etc/ld.so.conf").write_text("/opt/cached\n")
    subprocess.run(["chroot", root, "/sbin/ldconfig"], check=True, capture_output=True)
    return root


def steps() -> list[str]:
    """What is opened: libraries by name, found directly and by the cache, and each level by its path."""
    names = [f"lib{prefix}{number}.so" for prefix in "dc" for number in range(COUNT)]
    return [*names, *(f"/opt/level{level}.so" for level in range(5))]


def differences(root: Path, opened: list[str], env: dict[str, str], model: str | None, cpu: str | None):
    """Return (differences, steps compared): each step is asked of a process of its own that stops being undecided."""
    emulator = () if model is None else (processors.INSIDE, "-cpu", model)
    seen = real.run(root, opened, env, "/", Path("/tmp"), None, None, emulator)
    assert seen.started, seen
    wrong, compared = [], 0
    for name, step in zip(opened, seen.steps, strict=True):
        (said,) = dlwhy.check([name], dlwhy.Host.plain(env), sysroot=str(root), cwd="/", cpu=cpu).steps
        if said.outcome == "undecided":
            assert "processor" in said.because
            continue
        compared += 1
        message = None if step.message is None else step.message.decode()
        if (said.outcome, said.message, said.loaded) != (step.outcome, message, step.loaded):
            wrong.append(f"{name}: {said.outcome} {said.message} {said.loaded}, really {step}")
    return wrong, compared


@pytest.mark.slow
@pytest.mark.parametrize("processor", [None, *processors.MODELS])
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.get("GLIBC_TUNABLES", "no tunable"))
def test_subdirectories_and_levels(stage, processor, setting) -> None:
    """On each processor dlwhy finds the very file that the loader finds, and refuses what it refuses."""
    model, cpu = processors.MODELS[processor] if processor is not None else (None, None)
    env = {"LD_LIBRARY_PATH": "/opt/direct", **setting}
    wrong, compared = differences(stage, steps(), env, model, cpu)
    assert not wrong
    assert compared >= 5
    if not setting and cpu != "x86-64-v3":  # a level alone does not tell who made it
        assert compared == len(steps())


@pytest.mark.parametrize("processor", [None, *processors.MODELS])
def test_cache_of_an_older_release(stage, processor) -> None:
    """Entries with legacy words, which ldconfig up to 2.36 writes, are taken or passed over as by the loader."""
    older = roots()["bullseye"]
    if isinstance(older, str):
        pytest.skip(older)
    model, cpu = processors.MODELS[processor] if processor is not None else (None, None)
    own = (stage / "etc/ld.so.cache").read_bytes()
    try:
        subprocess.run([older / "sbin/ldconfig", "-r", stage], check=True, capture_output=True)  # it is static
        wrong, compared = differences(stage, steps()[COUNT : 2 * COUNT], {}, model, cpu)
    finally:
        (stage / "etc/ld.so.cache").write_bytes(own)
    assert not wrong
    assert compared == COUNT or (cpu == "x86-64-v3" and compared)  # a level alone does not tell who made it


@pytest.mark.parametrize("processor", [None, *processors.MODELS])
def test_platform_in_paths(stage, processor) -> None:
    """$PLATFORM is what the loader makes of the processor."""
    model, cpu = processors.MODELS[processor] if processor is not None else (None, None)
    wrong, compared = differences(stage, ["libp.so"], {"LD_LIBRARY_PATH": "/opt/platform/$PLATFORM"}, model, cpu)
    assert not wrong
    assert compared or cpu == "x86-64-v3"
