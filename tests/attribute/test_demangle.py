"""C++ names by this system's runtime, by c++filt, and not at all."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from dlwhy.attribute import demangle as module
from dlwhy.attribute.demangle import demangle, demangle_all

NAMES = {
    "_ZN4absl18container_internal12_GLOBAL__N_17g_stateE": "absl::container_internal::(anonymous namespace)::g_state",
    "_ZSt15__once_callable": "std::__once_callable",
    "_ZZ5countvE1n": "count()::n",
    "_ZGVZ5countvE1n": "guard variable for count()::n",
    "_ZN1a1bIiE1cE": "a::b<int>::c",
    "_ZL5local": "local",
}


def _bomb(levels: int) -> str:
    """Return a C++ name of templates, each taking the one before twice: 2 ** levels times `int`."""
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def ref(number: int) -> str:  # S_, S0_, ... S9_, SA_, ... SZ_, S10_, ...
        number -= 1
        return "S" + (digits[number // 36] if number >= 36 else "") + (digits[number % 36] if number >= 0 else "") + "_"

    return "_Z1f1AIiiE" + "".join(f"1{chr(97 + n)}I{ref(2 * n + 1)}{ref(2 * n + 1)}E" for n in range(levels))


def test_cxx_names_read() -> None:
    """C++ names read as the C++ ABI's demangler reads them, one at a time or all at once."""
    assert demangle_all(NAMES) == NAMES
    assert all(demangle(name) == text for name, text in NAMES.items())


def test_the_filter_and_the_runtime_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a trusted runtime c++filt gives the same text."""
    if not os.access(module.FILTER, os.X_OK):
        pytest.skip("not run: no c++filt here")
    with_runtime = demangle_all(NAMES)
    monkeypatch.setattr(module, "_RUNTIMES", ())
    assert demangle_all(NAMES) == with_runtime


def test_nothing_to_demangle_with_leaves_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither runtime nor c++filt: the name stays as written, Rust is read all the same."""
    monkeypatch.setattr(module, "_RUNTIMES", ())
    monkeypatch.setattr(module, "FILTER", "/nonexistent/c++filt")
    assert demangle("_ZSt15__once_callable") == "_ZSt15__once_callable"
    assert demangle("_RNvC1a1b") == "a::b"


def test_a_foreign_library_path_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """With LD_LIBRARY_PATH set, what libstdc++ needs could come from the examined tree: nothing is loaded."""
    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    assert module._runtime() is None
    assert demangle("_ZN1a1bE") in ("a::b", "_ZN1a1bE")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("_RNvC1a1b.llvm.123456789", "a::b"),
        ("_RNvC1a1b.lto_priv.0", "a::b"),
        ("_ZN1a1bE.constprop.0.isra.3.part.1", "a::b"),
        ("_ZN1a1bEv.cold", "a::b()"),
        ("_ZN1a1bE@@V_1.2", "a::b"),
        ("errno@@GLIBC_PRIVATE", "errno"),
        ("counter.0", "counter"),
        ("counter.12.lto_priv.3", "counter"),
        (".hidden", ".hidden"),
        ("@", "@"),
        ("plain", "plain"),
        ("", ""),
    ],
)
def test_suffixes_are_peeled(name: str, text: str) -> None:
    """What optimisers and linkers append is no part of a name; a name is never peeled to nothing."""
    assert demangle(name) == text


@pytest.mark.parametrize(
    "name",
    [
        _bomb(20),
        _bomb(17) + "Dp" * 10,
        "_Z1f" + "P" * 100_000 + "i",
        "_ZN" + "1a" * 100_000 + "E",
        "_Z\0\n_Z",
        "_Z" + "é" * 10,
        "_Z\udcff",
        "_R" + "\udcff" * 5,
    ],
    ids=lambda name: repr(name[:10]),
)
def test_hostile_names_end_soon(name: str) -> None:
    """A short C++ name that stands for megabytes, a huge one, or one of other characters, costs seconds at most."""
    start = time.monotonic()
    assert len(demangle(name)) <= max(len(name), module.MAX_TEXT)
    assert time.monotonic() - start < module.CHILD_SECONDS + 2


def test_the_bound_is_one() -> None:
    """No name that the runtime is given can be longer than the bound computed before."""
    for levels in range(12):
        text = demangle(_bomb(levels))
        assert len(text) <= module._bound(_bomb(levels))


def test_ctypes_is_loaded_for_cxx_names_only() -> None:
    """Neither importing the module nor a Rust name loads ctypes or subprocess."""
    code = (
        "import sys; from dlwhy.attribute.demangle import demangle; demangle('_RNvC1a1b');"
        "print(sorted({'ctypes', 'subprocess'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
