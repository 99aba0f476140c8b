"""GLIBC_TUNABLES as each release reads it."""

from __future__ import annotations

import pytest

from dlwhy.loader.tunables import DEFAULTS, Reading, read_as_met, read_in_order, read_last

EVERY = (read_as_met, read_in_order, read_last)


@pytest.mark.parametrize("read", EVERY)
@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("glibc.rtld.nns=1", "nns", 1),
        ("glibc.rtld.nns=0x10", "nns", 16),
        ("glibc.rtld.optional_static_tls=010", "optional_static_tls", 8),
        ("glibc.rtld.optional_static_tls= \t+9", "optional_static_tls", 9),
        ("glibc.rtld.optional_static_tls=", "optional_static_tls", 0),
        ("glibc.rtld.optional_static_tls=-1", "optional_static_tls", (1 << 64) - 1),
        ("glibc.malloc.check=1:glibc.pthread.rseq=0", "rseq", 0),
        ("glibc.rtld.nns=2:glibc.rtld.nns=3", "nns", 3),
        ("glibc.rtld.nns:glibc.rtld.nns=3", "nns", 3),
    ],
)
def test_values_that_take_effect(read, text, field, value):
    """Decimal, hexadecimal and octal values inside the bounds are taken, the last one wins, and nothing is said."""
    reading = read(text)
    assert getattr(reading.tunables, field) == value
    assert reading.notices == ()


@pytest.mark.parametrize("read", EVERY)
@pytest.mark.parametrize("text", ["glibc.rtld.nns=17", "glibc.rtld.nns=0", "glibc.pthread.rseq=2", "x=1"])
def test_values_that_do_not(read, text):
    """Out of bounds or of an unknown name: the defaults stay, and nothing is said."""
    assert read(text) == Reading(DEFAULTS, ())


@pytest.mark.parametrize(
    ("text", "early", "words"),
    [
        ("glibc.rtld.nns=2x", 2, "value `2x' for option `glibc.rtld.nns'"),
        ("glibc.rtld.nns=4=5", 4, "`glibc.rtld.nns=4=5'"),
        ("glibc.rtld.nns=3:glibc.rtld.nns", 3, "`glibc.rtld.nns=3:glibc.rtld.nns'"),
        ("glibc.rtld.nns=3:", 3, "`glibc.rtld.nns=3:'"),
    ],
)
def test_ill_formed(text, early, words):
    """Up to 2.38 what can be read of an ill-formed list counts; later nothing does, and the loader says so."""
    assert read_as_met(text) == Reading(DEFAULTS.but(nns=early), ())
    for read in (read_in_order, read_last):
        assert read(text) == Reading(DEFAULTS, (f"WARNING: ld.so: invalid GLIBC_TUNABLES {words}: ignored.",))


def test_an_earlier_setting_of_a_name():
    """2.39 keeps an earlier good setting when a later one is refused; 2.40 and later look at the last one only."""
    text = "glibc.rtld.nns=3:glibc.rtld.nns=x"
    assert read_in_order(text).tunables.nns == 3
    assert read_last(text).tunables == DEFAULTS


def test_more_than_a_word():
    """A number beyond 64 bits is the largest one, with its digits left over."""
    text = "glibc.rtld.optional_static_tls=99999999999999999999"
    assert read_as_met(text).tunables.optional_static_tls == (1 << 64) - 1
    assert read_last(text).tunables == DEFAULTS
    assert len(read_last(text).notices) == 1
