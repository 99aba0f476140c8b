"""What a loader's own bytes say of it."""

from __future__ import annotations

import random
import re

from dlwhy.loader.objects import _banner

BANNER = re.compile(
    rb"(?:GNU C Library|ld\.so) \(([^()\0\n]*)\) (?:stable|development) release version ([0-9]+)\.([0-9]+)"
)
PARTS = (
    b"GNU C Library", b"ld.so", b" (", b"Debian 2.36", b")", b" stable", b" development", b" release version ", b"2",
    b".", b"36", b"\0", b"\n", b"(", b"GNU C Library (Debian", b") stable release version 2.3",
)  # fmt: skip


def test_a_banner_is_where_the_pattern_finds_it() -> None:
    """Release and banner, found without a regular expression, are those that one finds, in whatever surroundings."""
    rng = random.Random(2)
    found = 0
    for _ in range(30_000):
        data = b"".join(rng.choices(PARTS, k=rng.randint(3, 12)))
        match = BANNER.search(data)
        wanted = ((int(match[2]), int(match[3])), match[1].decode("ascii", "replace")) if match else None
        assert _banner(data) == wanted, data
        found += match is not None
    assert found > 100
