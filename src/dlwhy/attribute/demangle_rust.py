"""Rust names: the path that one stands for, and the crate that defines it."""

from __future__ import annotations

import re

from dlwhy.attribute.rust_legacy import read_legacy
from dlwhy.attribute.rust_v0 import UnreadableError, punycode, read_v0

MAX_NAME = 1 << 16
"""Characters of a mangled name that are looked at."""

_LLVM = re.compile(r"\.llvm\.[0-9A-F@]*\Z")


def demangle_rust(name: str) -> str | None:
    """Return the path that a Rust symbol names, without hashes, or None when it is no Rust name that can be read.

    Suffixes of code generators (`.cold`, `.lto_priv.3`) stay, but for `.llvm.N`, as in the reference demangler.
    """
    if len(name) > MAX_NAME:
        return None
    if name.startswith("_R"):
        if not "A" <= name[2:3] <= "Z" or not name.isascii():
            return None
        return read_v0((_LLVM.sub("", name) if ".llvm." in name else name)[2:])
    if name.startswith("_ZN"):
        if ".llvm." in name:
            name = _LLVM.sub("", name)
        return read_legacy(name)
    return None


_CRATE = re.compile(
    r"_R(?:N[a-zA-Z]|I|[MX](?:s[0-9a-zA-Z]{0,11}_)?|Y[RQPOASD]*[a-z]?)*C(?:s[0-9a-zA-Z]{0,11}_)?(u?)([1-9][0-9]{0,3})_?"
    r"|_ZN([1-9][0-9]{0,3})(?:_?\$(?=LT)[!-~]{0,200}?(?<![0-9A-Za-z_])([A-Za-z_][0-9A-Za-z_]*)\.\.)?"
)


def crate_name(name: str) -> str | None:
    """Return the crate that defines what a Rust symbol names, or None when the name does not tell.

    Of an impl it is the crate where the impl stands (v0), or that of the first path in its self type or trait.
    """
    found = _CRATE.match(name)
    if not found:
        return None
    if found[4]:
        return found[4]
    start, length = (found.end(), int(found[2])) if found[2] else (found.end(3), int(found[3]))
    crate = name[start : start + length]
    if len(crate) < length:
        return None
    if found[1]:
        try:
            return punycode(crate)
        except UnreadableError:
            return None
    return crate


_HASHED = re.compile(r"17h[0-9a-f]{16}E")
"""The last part of every legacy name, and its end."""
_HASHED_SIZE = 20


def rust_crate(name: str) -> str | None:
    """Return the crate that defines a symbol (without suffixes), or None when its name is surely no Rust name.

    A table may have a million names, so they are not read to their end: of v0 (`_RC4_set_key` is none, for no symbol is
    a crate as a whole) the head tells, and that nothing but identifiers follows; of the legacy mangling head and hash.
    """
    if name.startswith("_R"):
        if name.startswith("_RC") or not (name.isascii() and name.isidentifier()):
            return None
        return crate_name(name)
    return crate_name(name) if _HASHED.match(name, max(0, len(name) - _HASHED_SIZE)) else None
