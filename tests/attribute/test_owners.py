"""From names and file symbols to owners."""

from __future__ import annotations

import pytest

from dlwhy.attribute.owners import NAME_LIMIT, names, namespace, owner, package, trusted


@pytest.mark.parametrize(
    ("name", "unit", "expected"),
    [
        (
            "_ZN4rand4rngs6thread14THREAD_RNG_KEY7__getit5__KEY17h0123456789abcdefE",
            "rand.b9a1e5f0-cgu.0",
            ("rand", "crate"),
        ),
        (
            "_RNvNCNKNvNtNtCsF6jb74a1hN_4rand4rngs6thread14THREAD_RNG_KEY0023___RUST_STD_INTERNAL_VAL",
            None,
            ("rand", "crate"),
        ),
        ("_RNvNtC3std6thread7CURRENT.llvm.3643936799275306673", "", ("std", "crate")),
        ("MY_STATE", "mycrate.4a1e5f0b9a1e5f0b-cgu.12", ("mycrate", "crate")),
        ("_ZN4absl7g_stateE", "sync.cc", ("absl", "namespace")),
        ("_ZN4node12_GLOBAL__N_15stateE", "env.cc", ("node", "namespace")),
        ("_ZN12_GLOBAL__N_15stateE", "env.cc", ("env.cc", "unit")),
        ("_ZN12_GLOBAL__N_15stateE", None, ("libx.so", "library")),
        ("_ZSt15__once_callable", None, ("std", "namespace")),
        ("_ZNSt8internal1xE", None, ("std", "namespace")),
        ("_ZGVZN4node3fooEvE1x", "a.cc", ("node", "namespace")),
        ("_ZZN2v88internal3fooEvE1x", "a.cc", ("v8", "namespace")),
        ("_ZZ3foovE1x", "a.cc", ("a.cc", "unit")),
        ("_ZL5local", "a.cc", ("a.cc", "unit")),
        ("je_tsd_tls", "src/tsd.c", ("jemalloc", "library")),
        ("_rjem_je_tsd_tls", None, ("jemalloc", "library")),
        ("_mi_heap_default", "init.c", ("mimalloc", "library")),
        ("s2n_blinding", None, ("s2n", "library")),
        ("runtime.tlsg", "go.go", ("Go runtime", "go")),
        ("runtime.tlsg", "", ("Go runtime", "go")),
        ("buffer.0", "tls.c", ("tls.c", "unit")),
        ("hidden", "crtstuff.c", ("libx.so", "library")),
        ("hidden", "", ("libx.so", "library")),
        ("hidden", "<artificial>", ("libx.so", "library")),
        ("hidden.lto_priv.0", "libx.so.ltrans0.ltrans.o", ("libx.so", "library")),
        ("hidden", "/tmp/ccAb12Zz.ltrans0.ltrans.o", ("libx.so", "library")),
        ("_Rnot_rust", None, ("libx.so", "library")),
        ("_ZN", None, ("libx.so", "library")),
        ("_ZN99foo", None, ("libx.so", "library")),
        ("\udcff", "\udcfe.c", ("\udcfe.c", "unit")),
    ],
)
def test_owner(name: str, unit: str | None, expected: tuple[str, str]) -> None:
    """A mangled name decides, then known prefixes, then a file symbol that can be trusted, then the library."""
    found = owner(name, unit, ".symtab", "libx.so")
    assert (found.name, found.kind) == expected
    assert found.evidence


@pytest.mark.parametrize(
    ("symbol", "title"),
    [
        (
            "_ZN4rand4rngs6thread14THREAD_RNG_KEY7__getit5__KEY17h0123456789abcdefE",
            "rand::rngs::thread::THREAD_RNG_KEY",
        ),
        ("_ZN1a1B7__getit3VAL17h0123456789abcdefE", "a::B"),
        ("_ZN1a1B7__getit5STATE17h0123456789abcdefE", "a::B"),
        (
            (
                "_ZN5tokio7runtime7context7CONTEXT29_$u7b$$u7b$constant$u7d$$u7d$28_$u7b$$u7b$closure$u7d$$u7d$"
                "23__RUST_STD_INTERNAL_VAL17h5124a7a2aaf75423E"
            ),
            "tokio::runtime::context::CONTEXT",
        ),
        ("_RNvNCNKNvNtC1a1b1C0023___RUST_STD_INTERNAL_VAL", "a::b::C"),
        ("_RNvNCNKNvNtC1a1b1C0s_023___RUST_STD_INTERNAL_VAL.llvm.123", "a::b::C"),
        ("_RNvNtC1a1b3VAL", "a::b::VAL"),
        ("_RNvNCNvC1a1f03VAL", "a::f::{closure#0}::VAL"),
        ("errno@@GLIBC_PRIVATE", "errno"),
        ("_ZN1a1bE", "a::b"),
        ("x" * (NAME_LIMIT + 1), "x" * NAME_LIMIT + f"... ({NAME_LIMIT + 1} characters)"),
    ],
)
def test_variable_names_are_tidy(symbol: str, title: str) -> None:
    """A variable is called what its author called it; a name too long to be meant is cut."""
    assert names([symbol]) == {symbol: title}


@pytest.mark.parametrize(("function", "expected"), [
    ("runtime.mallocgc", "Go runtime"),
    ("internal/runtime/atomic.Load", "Go runtime"),
    ("runtime/debug.SetGCPercent", "runtime/debug"),
    ("gopkg.in/yaml%2ev2.(*parser).parse.func1", "gopkg.in/yaml.v2"),
    ("sync/atomic.(*Pointer[internal/bisect.T]).Load", "sync/atomic"),
    ("type..eq.[15]internal/cpu.option", "internal/cpu"),
    ("type:.hash.net/http.key", "net/http"),
    ("type..eq.struct { sync.Once; crypto/x509.v *crypto/x509.Certificate }", "Go code without a package"),
    ("aeshashbody", "Go code without a package"),
    ("go:textfipsend", "Go code without a package"),
])  # fmt: skip
def test_packages_of_go_functions(function: str, expected: str) -> None:
    """A Go function's package is the import path that its name begins with, also of what the compiler adds to types."""
    assert (package(function).name, package(function).kind) == (expected, "go")


def test_outermost_namespace_is_bounded() -> None:
    """A length that runs past the name, or no identifier there, is no namespace."""
    assert namespace("_ZN1a") == "a"
    assert namespace("_ZN3a") is None
    assert namespace("_ZN1 xE") is None
    assert namespace("_ZN9999999a") is None
    assert namespace("plain") is None


def test_units_that_say_nothing() -> None:
    """Start files, LTO partitions and temporary files of the compiler are not where a variable comes from."""
    assert trusted("src/tls.c")
    assert trusted("rand.b9a1e5f0-cgu.0")
    assert not any(
        trusted(unit) for unit in ("", "crtstuff.c", "<artificial>", "a.ltrans3.ltrans.o", "ccAbCd12.s", "x" * 9999)
    )
