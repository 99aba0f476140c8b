"""Libraries that distributions and toolchains ship, each in three hosts: what dlwhy says, and what really happens."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.fixtures.real_hosts import host_program, open_in, predicted, raw, tunable

pytestmark = pytest.mark.oracle

HOSTS = ("plain", "python3", "node")
# a pattern of the soname, and the Debian package that brings it
LIBRARIES = {
    "jemalloc": (r"libjemalloc\.so\.\d+", "libjemalloc2"),
    "gomp": (r"libgomp\.so\.\d+", "libgomp1"),
    "tcmalloc": (r"libtcmalloc_minimal\.so\.\d+", "libtcmalloc-minimal4"),
    "mimalloc": (r"libmimalloc\.so\.\d+", "libmimalloc2.0"),
    "lsan": (r"liblsan\.so\.\d+", "liblsan0"),
    "tsan": (r"libtsan\.so\.\d+", "libtsan2"),
}
NAMES = (*LIBRARIES, "rustc_driver")
_SHORT_OF_STACK = re.compile(rb"^node\[\d+\]: pthread_create: Invalid argument$", re.MULTILINE)


@cache
def library(name: str) -> str | None:
    """Where the library is, as the dynamic linker's cache or rustc itself says."""
    if name == "rustc_driver":
        rustc = shutil.which("rustc")
        if rustc is None:
            return None
        sysroot = subprocess.run(
            [rustc, "--print", "sysroot"], capture_output=True, text=True, check=True
        ).stdout.strip()
        return next((str(path) for path in sorted(Path(sysroot, "lib").glob("librustc_driver-*.so"))), None)
    ldconfig = shutil.which("ldconfig", path="/usr/sbin:/sbin") or "ldconfig"
    listed = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    found = re.search(rf"(?m)^\s+{LIBRARIES[name][0]} \(libc6,x86-64\) => (/\S+)$", listed)
    return found[1] if found else None


def wanted(name: str) -> str:
    """Where the library is; skips the test where it is not installed."""
    found = library(name)
    if found is None:
        pytest.skip(f"not run: no {name} here ({LIBRARIES[name][1] if name in LIBRARIES else 'rustup'} has it)")
    return found


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", NAMES)
def test_verdict_and_message_are_the_real_loaders(name: str, host: str) -> None:
    """The outcome is what happens in a fresh process, and the message is the real one byte for byte."""
    path = wanted(name)
    program = host_program(host)
    report = predicted(host, [path])
    (real,) = open_in(host, [path]).opened
    assert report.host.executable == program
    assert (report.steps[0].outcome, raw(report.steps[0].message)) == (real.outcome, real.message)


def smallest(name: str, host: str) -> tuple[str, int, str]:
    """The path of a library that fails for space, the tunable value that dlwhy prints, and how safe it calls that."""
    path = wanted(name)
    host_program(host)
    report = predicted(host, [path])
    if report.steps[0].kind != "static-tls-exhausted":
        assert not any("optional_static_tls" in cure.title for cure in report.cures)
        return path, 0, ""
    cure = next(cure for cure in report.cures if "optional_static_tls" in cure.title)
    assert cure.proof == {"outcome": "loads", "basis": "computed"}
    assert cure.cost is not None and re.search(r"\b[1-9]\d* bytes more per thread", cure.cost)
    match = re.fullmatch(r"GLIBC_TUNABLES=glibc\.rtld\.optional_static_tls=(\d+)", cure.title)
    assert match is not None
    return path, int(match[1]), cure.disposition


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("name", NAMES)
def test_the_printed_tunable_is_the_smallest_that_helps(name: str, host: str) -> None:
    """With the value that dlwhy prints the library loads, and with one byte less it fails as before."""
    path, value, disposition = smallest(name, host)
    if not value:
        assert open_in(host, [path]).opened[0].outcome == "loads"
        return
    enough = open_in(host, [path], tunable(value))
    short = open_in(host, [path], tunable(value - 1))
    assert enough.opened[0].outcome == "loads"
    assert short.opened[0].outcome == "fails"
    assert short.opened[0].message == f"{path}: cannot allocate memory in static TLS block".encode()
    # Node tells on standard error when it cannot create a thread; that is what makes a value risky for it
    assert (disposition == "risky") == bool(_SHORT_OF_STACK.search(enough.stderr))


def test_node_cannot_make_its_threads_for_the_sanitizers() -> None:
    """Liblsan and libtsan load in node with the printed value, but node is short of a thread then: risky, and why."""
    for name in ("lsan", "tsan"):
        path, value, disposition = smallest(name, "node")
        assert disposition == "risky"
        process = open_in("node", [path], tunable(value))
        assert process.opened[0].outcome == "loads"
        assert _SHORT_OF_STACK.search(process.stderr)
        cure = next(cure for cure in predicted("node", [path]).cures if "optional_static_tls" in cure.title)
        assert cure.cost is not None and "pthread_create: Invalid argument" in cure.cost


@pytest.mark.parametrize("host", ["plain", "python3"])
def test_preloading_cures_as_the_model_proves(host: str) -> None:
    """Where dlwhy proves LD_PRELOAD as a cure of a library that fails, the real loader loads it that way."""
    tried = 0
    for name in ("jemalloc", "rustc_driver"):
        path = library(name)
        if path is None:
            continue
        host_program(host)
        cure = next(cure for cure in predicted(host, [path]).cures if "LD_PRELOAD" in cure.title)
        assert cure.disposition == "risky" and cure.proof["outcome"] == "loads"
        assert open_in(host, [path], {"LD_PRELOAD": path}).opened[0].outcome == "loads"
        tried += 1
    if not tried:
        pytest.skip("not run: neither libjemalloc2 nor a librustc_driver is here")
