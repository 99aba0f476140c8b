"""Processors by name and by their flags, and what each release makes of them."""

from __future__ import annotations

import pytest

from dlwhy.loader.cpu import (
    LEVELS,
    NAMES,
    Processor,
    directories,
    has_level,
    intel_names,
    named,
    processor,
    switched_off,
)
from dlwhy.loader.faults import Unknown
from dlwhy.loader.glibc import glibc

# of /proc/cpuinfo what counts, of real machines
PENRYN = frozenset(
    ["fpu", "cx8", "cmov", "mmx", "fxsr", "sse", "sse2", "pni", "ssse3", "cx16", "sse4_1", "lahf_lm"],
)
SKYLAKE_X = PENRYN | {
    "sse4_2", "popcnt", "movbe", "fma", "f16c", "abm", "avx", "avx2", "bmi1", "bmi2", "avx512f", "avx512dq", "avx512cd",
    "avx512bw", "avx512vl",
}  # fmt: skip
KNIGHTS_LANDING = (SKYLAKE_X - {"avx512dq", "avx512bw", "avx512vl"}) | {"avx512er", "avx512pf"}


def known(name: str) -> Processor:
    """The processor of a name that there is."""
    found = named(name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("flags", "searched"),
    [
        (PENRYN, ()),
        (PENRYN | {"popcnt", "sse4_2"}, ("x86-64-v2",)),
        (KNIGHTS_LANDING, ("x86-64-v3", "x86-64-v2")),
        (SKYLAKE_X, ("x86-64-v4", "x86-64-v3", "x86-64-v2")),
        (SKYLAKE_X - {"popcnt"}, ()),
    ],
)
def test_levels_build_on_one_another(flags, searched):
    """A level counts when all below it do (psABI, Micro-Architecture Levels); the best is searched first."""
    assert directories(processor(flags, None)) == searched


@pytest.mark.parametrize(
    ("flags", "intel", "name"),
    [
        (SKYLAKE_X, True, ("haswell", True)),
        (SKYLAKE_X, False, (None, False)),
        (SKYLAKE_X - {"avx512dq"}, True, ("haswell", False)),
        (KNIGHTS_LANDING, True, ("xeon_phi", False)),
        (PENRYN, True, (None, False)),
        (PENRYN, None, (None, False)),
    ],
)
def test_names_of_older_releases(flags, intel, name):
    """Only Intel's processors have names (glibc 2.36 sysdeps/x86/cpu-features.c, init_cpu_features)."""
    assert intel_names(processor(flags, intel)) == name


def test_maker_counts_only_where_names_differ():
    """A level alone does not tell the maker: that is said where it decides, and only there."""
    for name in ("x86-64", "x86-64-v2"):
        assert intel_names(known(name)) == (None, False)
    for name in ("x86-64-v3", "x86-64-v4"):
        with pytest.raises(Unknown, match="Intel"):
            intel_names(known(name))
    assert intel_names(known("haswell")) == ("haswell", False)
    assert intel_names(known("xeon_phi")) == ("xeon_phi", False)
    assert intel_names(known("avx512_1")) == ("haswell", True)


def test_every_name_is_a_processor():
    """Each name that is accepted stands for a processor, each level has the bits of the psABI, and no other name is."""
    assert [known(name).level for name in NAMES] == [1, 3, 7, 15, 7, 7, 15]
    assert named("pentium") is None


def test_processor_that_nothing_tells():
    """Without any fact only what every processor has is sure."""
    unknown = processor(None, None)
    assert has_level(unknown, 1)
    for ask in (lambda: has_level(unknown, 3), lambda: directories(unknown), lambda: intel_names(unknown)):
        with pytest.raises(Unknown, match="--cpu"):
            ask()


def test_switches_of_the_tunable():
    """The last setting counts; names that are none are passed over; what saving the state decides is not guessed."""
    new, old = glibc((2, 36)), glibc((2, 31))
    assert switched_off("glibc.cpu.hwcaps=-AVX2,-LZCNT,AVX,-nothing", new) == {"avx2", "abm"}
    assert switched_off("glibc.cpu.hwcaps=-AVX2:glibc.cpu.hwcaps=-BMI1", new) == {"bmi1"}
    assert switched_off("glibc.malloc.check=1", new) == frozenset()
    assert switched_off("glibc.cpu.hwcaps=-AVX2:x", glibc((2, 41))) == frozenset()  # an ill-formed list
    for text, release in (("glibc.cpu.hwcaps=-XSAVE", new), ("glibc.cpu.hwcaps=-AVX2_Usable", old)):
        with pytest.raises(Unknown):
            switched_off(text, release)


def test_no_level_takes_a_flag_twice():
    """Each flag stands at the level that brings it."""
    flags = [flag for _, wanted in LEVELS for flag in wanted]
    assert len(flags) == len(set(flags))
