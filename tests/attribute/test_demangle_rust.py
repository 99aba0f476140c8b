"""Rust's manglings against the Rust project's own demangler, and against names that mean harm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlwhy.attribute.demangle_rust import crate_name, demangle_rust, rust_crate
from dlwhy.attribute.owners import peel
from dlwhy.attribute.rust_v0 import MAX_TEXT
from tests.attribute.hostile_names import HOSTILE

HERE = Path(__file__).parent
GOLDEN = [line.split("\t") for line in (HERE / "rust_names.tsv").read_text("utf-8").splitlines()]


def test_golden_names_read_as_the_reference_reads_them() -> None:
    """Names of every construct of both manglings have the text that rustc-demangle 0.1.28 prints (empty: refused)."""
    assert len(GOLDEN) > 250
    wrong = [(name, text, demangle_rust(name)) for name, text in GOLDEN if (demangle_rust(name) or "") != text]
    assert not wrong


def test_a_name_cut_anywhere_is_read_or_refused() -> None:
    """Every prefix of every golden name gives text or None, never an exception."""
    for name, _ in GOLDEN:
        for end in range(min(len(name), 200)):
            assert demangle_rust(name[:end]) != ""
            crate_name(name[:end])


@given(st.text(alphabet="_RNZCMXYIBEKLTFDPOQASWGUVWsuevpnabh0123456789_$.", max_size=60))
def test_any_text_is_read_or_refused(tail: str) -> None:
    """Nothing that follows a mangling's prefix can raise."""
    for name in (
        "_R" + tail,
        "_RNv" + tail,
        "_RMC0" + tail,
        "_RIC0K" + tail,
        "_ZN" + tail,
        "_ZN" + tail + "17h0123456789abcdefE",
    ):
        assert demangle_rust(name) is None or isinstance(demangle_rust(name), str)
        assert crate_name(name) is None or isinstance(crate_name(name), str)


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: f"{name[:12]}-{len(name)}")
def test_hostile_names_end_soon(name: str) -> None:
    """A name that asks for gigabytes, endless recursion or quadratic work is refused (or read) within a second."""
    start = time.process_time()
    text = demangle_rust(name)
    crate_name(name)
    rust_crate(peel(name))
    assert time.process_time() - start < 1.0
    assert text is None or len(text) <= MAX_TEXT + len(name)


def test_a_deep_stack_makes_no_traceback() -> None:
    """Called with hardly any stack left, a name that needs more is refused."""

    def dive(left: int) -> str | None:
        return dive(left - 1) if left else demangle_rust("_RMC0" + "R" * 90 + "h")

    depth = 0
    frame = sys._getframe()
    while frame is not None:
        depth += 1
        frame = frame.f_back  # type: ignore[assignment]
    assert dive(sys.getrecursionlimit() - depth - 60) is None
    assert demangle_rust("_RMC0" + "R" * 90 + "h") is not None


@pytest.mark.parametrize(
    ("name", "crate"),
    [
        ("_RNvNCNKNvNtNtCsF6jb74a1hN_4rand4rngs6thread14THREAD_RNG_KEY0023___RUST_STD_INTERNAL_VAL", "rand"),
        (
            "_RNvNCNKNvNvMNtNtCsjrHSEGnQ3l9_3std4hash6randomNtBa_11RandomState3new4KEYS0s_023___RUST_STD_INTERNAL_VAL",
            "std",
        ),
        ("_RNvXs0_NtCsdyGUClYiB0h_15rustc_lint_defs3fooNtB5_1ANtB5_1B3bar", "rustc_lint_defs"),
        ("_RINvYRShNtNtNtCs1j3SSn6vP2v_6object4read8read_ref7ReadRef4readhE", "object"),
        ("_RNvCu8gdel_5qa4main", "gödel"),
        ("_ZN4rand4rngs6thread14THREAD_RNG_KEY7__getit5__KEY17h0123456789abcdefE", "rand"),
        (
            "_ZN55_$LT$env_logger..logger..Logger$u20$as$u20$log..Log$GT$3log9FORMATTER17h0123456789abcdefE",
            "env_logger",
        ),
        ("_ZN42_$LT$$RF$T$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE", "core"),
        ("_Rfoo", None),
        ("errno", None),
        ("", None),
    ],
)
def test_crate_names(name: str, crate: str | None) -> None:
    """The defining crate is read from the head of a name, also through impls, closures and punycode."""
    assert crate_name(name) == crate


@pytest.mark.parametrize(
    ("name", "crate"),
    [
        ("_RNvNtC3std6thread7CURRENT", "std"),
        ("_RC4_set_key", None),
        ("_RC3foo", None),
        ("_RNvC4rand6x\xe9", None),
        ("_RNvC4rand4a b", None),
        ("_RNvC9rand", None),
        ("_ZN4rand4rngs3KEY17h0123456789abcdefE", "rand"),
        ("_ZN4rand4rngs3KEY17h0123456789abcdeE", None),
        ("_ZN4rand4rngs3KEYE", None),
        ("_ZN", None),
        ("", None),
    ],
)
def test_whose_a_symbol_is(name: str, crate: str | None) -> None:
    """A symbol belongs to a crate when it surely is a Rust name, which the head of a C name may only look like."""
    assert rust_crate(name) == crate


def test_every_symbol_that_can_be_read_has_its_crate() -> None:
    """What the whole name is read for says no more of the crate than its head does."""
    for name, text in GOLDEN:
        plain = name.partition(".")[0]
        if text and demangle_rust(plain) is not None and not plain.startswith("_RC"):
            assert rust_crate(plain) == crate_name(plain)


def test_crate_names_are_cheap() -> None:
    """A crate is found in about 2 microseconds a name (a tenth of that in slack for a busy machine)."""
    names = [name for name, _ in GOLDEN if name.startswith(("_R", "_ZN"))] * 20
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        for name in names:
            rust_crate(name)
        best = min(best, (time.process_time() - start) / len(names))
    assert best < 10e-6


def _rust_files() -> list[Path]:
    rustc = shutil.which("rustc")
    if rustc is None:
        return []
    root = subprocess.run([rustc, "--print", "sysroot"], capture_output=True, text=True, check=False).stdout.strip()
    found = []
    for folder, _, files in os.walk(root):
        found += [Path(folder, file) for file in files if ".so" in file or file.endswith(".rlib")]
    return found


@pytest.mark.oracle
@pytest.mark.slow
def test_every_name_of_the_toolchain_reads_as_the_reference_reads_it(tmp_path: Path) -> None:
    """At least 99.9 % of all Rust names in the toolchain's own libraries have the reference's text."""
    cargo = shutil.which("cargo")
    files = _rust_files()
    if cargo is None or not files:
        pytest.skip("not run: no Rust toolchain here")
    shutil.copytree(HERE / "rust_reference", tmp_path / "ref")
    built = subprocess.run([cargo, "build", "--release", "-q"], cwd=tmp_path / "ref", capture_output=True, check=False)
    if built.returncode:
        pytest.skip("not run: the reference demangler could not be fetched and built")
    import re

    pattern = re.compile(
        rb"(?<=\0)(?:_R[CNMXYIB][0-9A-Za-z_$.]+|_ZN[0-9A-Za-z_$.]+17h[0-9a-f]{16}E[0-9A-Za-z_$.]*)(?=\0)"
    )
    names = set()
    for file in files:
        names.update(pattern.findall(file.read_bytes()))
    ordered = sorted(name.decode("ascii") for name in names)
    done = subprocess.run(
        [tmp_path / "ref/target/release/rust-reference"],
        input="\n".join(ordered),
        capture_output=True,
        text=True,
        check=True,
    )
    texts = done.stdout.split("\n")
    wrong = [
        (name, text)
        for name, text in zip(ordered, texts[: len(ordered)], strict=True)
        if (demangle_rust(name) or "") != text
    ]
    print(f"{len(ordered)} names, {len(wrong)} differ: {wrong[:5]}")
    assert len(ordered) > 1000
    assert len(wrong) <= len(ordered) / 1000
