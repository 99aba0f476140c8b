"""Libraries that people really load: owner, trigger, functions and way of each, against what other tools say of it.

A small run takes what is quickly had; `python -m tests.attribute.real_inputs` takes all, and writes the table of
docs/attribution.md.
"""

from __future__ import annotations

import pytest

from .real_inputs import INPUTS, Input, checked


@pytest.mark.oracle
@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in INPUTS if one.sample], ids=[one.id for one in INPUTS if one.sample])
def test_real_input(one: Input) -> None:
    """The sum, the owner, every initial-exec variable with its functions, and the way are what other tools say."""
    checked(one)
