"""Rust names that mean harm: they ask for gigabytes, endless recursion or quadratic work."""

from __future__ import annotations


def base62(number: int) -> str:
    """Return a number as v0 writes it."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    if not number:
        return "_"
    number -= 1
    text = digits[number % 62]
    while number >= 62:
        number //= 62
        text = digits[number % 62] + text
    return text + "_"


def doubling(levels: int) -> str:
    """Return a v0 name of tuples, each holding the one before twice: 2 ** levels times one type."""
    name = "MC0"
    place = len(name) + levels  # where the innermost type will stand
    text = "T" * levels + "h" + "hE"
    for level in range(1, levels):
        text += "B" + base62(place - level) + "E"
    return "_R" + name + text


HOSTILE = (
    doubling(60),
    doubling(900),
    "_RMC0" + "R" * 60000 + "h",
    "_RMC0" + "T" * 3000 + "E" * 3000,
    "_RNvB_1b",
    "_RMC0B_",
    "_RMC0" + "TB2_" * 2000 + "E" * 2000,
    "_RMC0FG" + "z" * 10 + "_Eu",
    "_RIC0" + "L_" * 30000 + "E",
    "_RC" + "9" * 60000,
    "_RCs" + "z" * 60000 + "_1a",
    "_RIC0Kh" + "f" * 60000 + "_E",
    "_RNvCu9999_" + "a" * 9999 + "1b",
    "_ZN" + "1a" * 30000 + "17h0123456789abcdefE",
    "_ZN50000" + "$" * 50000 + "17h0123456789abcdefE",
    "_ZN9_$LT$" + "a" * 60000,
    "_R" + "N" * 60000,
    "_R" + "Nv" * 30000 + "C1a" + "1b" * 30000,
    "_RNvC60000_" + "a" * 60000 + "1b" + "." + "x" * 1_000_000,
)
