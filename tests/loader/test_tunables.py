"""GLIBC_TUNABLES as the loader reads it."""

from __future__ import annotations

import pytest

from dlwhy.loader.tunables import DEFAULTS, parse


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("glibc.rtld.nns=1", "nns", 1),
        ("glibc.rtld.nns=0x10", "nns", 16),
        ("glibc.rtld.optional_static_tls=010", "optional_static_tls", 8),
        ("glibc.malloc.check=1:glibc.pthread.rseq=0", "rseq", 0),
        ("glibc.rtld.nns=2:glibc.rtld.nns=3", "nns", 3),
    ],
)
def test_values_that_take_effect(text, field, value):
    """Decimal, hexadecimal and octal values inside the bounds are taken, the last one wins."""
    assert getattr(parse(text), field) == value


@pytest.mark.parametrize(
    "text", [None, "", "glibc.rtld.nns=17", "glibc.rtld.nns=0", "glibc.rtld.nns=2x", "glibc.rtld.nns", "x=1"]
)
def test_values_that_do_not(text):
    """Out of bounds, ill-formed and unknown: the defaults stay."""
    assert parse(text) == DEFAULTS
