"""Names of functions in a line: what is left out, and what stays."""

from __future__ import annotations

import random

import pytest

from dlwhy.render.qualified import fitting, qualified
from dlwhy.render.style import Style, columns

STYLE = Style(100, False, True, False, False)


@pytest.mark.parametrize(("name", "expected"), [
    ("v8::internal::Heap::Allocate(unsigned long)", "v8::internal::Heap::Allocate"),
    ("a::B::c() const", "a::B::c"),
    ("a::B::c() const &", "a::B::c"),
    ("void sort<int*, Less>(int*, int*, Less)", "sort<int*, Less>"),
    ("std::vector<int, std::allocator<int> > f<long>(std::function<void (int)>)", "f<long>"),
    ("a::B::operator()(int, void (*)(int)) const", "a::B::operator()"),
    ("a::B::operator()", "a::B::operator()"),
    ("bool operator< <int>(a const&, a const&)", "bool operator< <int>"),
    ("operator new[](unsigned long)", "operator new[]"),
    ("a::B::operator->()", "a::B::operator->"),
    ("(anonymous namespace)::f(int)::{lambda(int)#1}::operator()(int) const",
     "(anonymous namespace)::f(int)::{lambda(int)#1}::operator()"),
    ("TLS init function for engine::cache", "TLS init function for engine::cache"),
    ("non-virtual thunk to a::B::~B()", "non-virtual thunk to a::B::~B"),
    ("(anonymous namespace)", "(anonymous namespace)"),
    ("<rustc::A as core::fmt::Debug>::fmt", "<rustc::A as core::fmt::Debug>::fmt"),
    ("core::ops::call::<fn(u8), ()>", "core::ops::call::<fn(u8), ()>"),
    ("runtime.(*mheap).alloc", "runtime.(*mheap).alloc"),
    ("github.com/a/b.(*T).f.func1", "github.com/a/b.(*T).f.func1"),
    ("GOMP_parallel", "GOMP_parallel"),
    ("", ""),
    (")", ")"),
])  # fmt: skip
def test_parameters_are_left_out(name: str, expected: str) -> None:
    """Parameters and the return types of templates go; operators, lambdas and what is no C++ stay."""
    assert qualified(name) == expected


@pytest.mark.parametrize(("name", "width", "expected"), [
    ("short(int)", 40, "short"),
    ("v8::internal::Builtin_HandleApiCall(int, v8::internal::Object**, v8::internal::Isolate*)", 40,
     "v8::internal::Builtin_HandleApiCall"),
    ("node::a_long_namespace::another_long_one::Class::method(int)", 30, "…Class::method"),
    ("std::vector<some::type<int>, std::allocator<some::type<int> > >::push_back(int)", 40,
     "std::vector<…>::push_back"),
    ("<rustc_middle::mir::Body as rustc_data_structures::stable_hasher::HashStable<a::B>>::hash_stable", 40,
     "<Body as HashStable>::hash_stable"),
    ("rustc_query_impl::execution::try_execute_query::<rustc_middle::query::caches::DefaultCache<a>, true>", 40,
     "…execution::try_execute_query"),
    ("a_name_without_any_part_that_could_be_left_out_at_all", 20, "a_nam…be_left_out_at_all"),
])  # fmt: skip
def test_long_names_keep_their_ends(name: str, width: int, expected: str) -> None:
    """What does not fit loses arguments of templates, then outer namespaces, and only then its middle."""
    found = fitting(name, width, STYLE)
    assert columns(found) <= width
    if "at_all" not in name:
        assert found == expected
    assert fitting(name, width, STYLE.but(verbose=True)) == name


def test_any_text_fits() -> None:
    """Whatever the characters of a name, the answer fits, soon."""
    rng = random.Random(7)
    for _ in range(3000):
        name = "".join(rng.choice("ab:<>(){}[] &*-,") for _ in range(rng.randrange(120)))
        for width in (8, 24, 40):
            assert columns(fitting(name, width, STYLE)) <= width
    assert len(fitting("a<" * 100_000, 40, STYLE)) <= 40
