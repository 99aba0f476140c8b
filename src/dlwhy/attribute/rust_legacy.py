"""Rust's legacy mangling (`_ZN...17h<16 hex>E`), read back into a path.

C++'s nested name, with the characters that C++ does not allow written as `$XX$`, `..` for `::`, and a hash as the last
part, which is not shown.
"""

from __future__ import annotations

import re

from dlwhy.attribute.rust_v0 import PRINTABLE_SUFFIX

_HASH = re.compile(r"h[0-9a-f]{16}")
_LENGTH = re.compile(r"([0-9]{1,5})")
_SPECIAL = re.compile(r"\.\.?|\$(?:(SP|BP|RF|LT|GT|LP|RP|C)|u([0-9a-f]{1,6}))\$|\$")
_ESCAPES = {"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}


def read_legacy(name: str) -> str | None:
    """Return the path that a legacy name writes, its suffix kept; None when it is none."""
    if not name.startswith("_ZN") or not name.isascii():
        return None
    parts = []
    at = 3
    while not name.startswith("E", at):
        found = _LENGTH.match(name, at)
        if not found:
            return None
        at = found.end() + int(found[1])
        if at >= len(name):
            return None
        parts.append(name[found.end() : at])
    suffix = name[at + 1 :]
    if not parts or not _HASH.fullmatch(parts[-1]) or (suffix and not PRINTABLE_SUFFIX.fullmatch(suffix)):
        return None
    return "::".join([_unescaped(part) if "$" in part or "." in part else part for part in parts[:-1]]) + suffix


def _unescaped(part: str) -> str:
    """Return one part of a legacy path; from an escape that Rust does not know on, it stays as written."""
    if part.startswith("_$"):
        part = part[1:]
    text = []
    done = 0
    for found in _SPECIAL.finditer(part):
        text.append(part[done : found.start()])
        done = found.start()
        if found[1]:
            new = _ESCAPES[found[1]]
        elif found[2]:
            number = int(found[2], 16)
            new = chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else ""
            if not new or number < 32 or 127 <= number < 160:  # a control character is never meant
                break
        elif found[0] == "$":
            break
        else:
            new = "::" if found[0] == ".." else "."
        text.append(new)
        done = found.end()
    return "".join(text) + part[done:]
