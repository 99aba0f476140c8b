"""Known suspects: libraries of which it is known that they force static TLS, or bring much of it, and what helps.

The data is `suspects.json` (its schema beside it): soname, exports, variables, constants, and signatures, which are the
size of the segment and the number of initial-exec relocations as measured of one release. A name is evidence; a
constant or a signature alone is a guess and says so: 8 bytes with one relocation are many libraries' signature.
"""

from __future__ import annotations

import os

from dlwhy.attribute.opened import constants
from dlwhy.elf.symbols import gnu_hash
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from dlwhy.elf.file import Elf

_TELLING_SIZE = 100
"""Bytes from which on a signature without any other evidence is worth a guess."""


class Suspect(Record):
    """A row of the data that a file fits."""

    id: str
    name: str
    role: str
    """forces-static, heavy-dynamic or victim."""
    evidence: tuple[str, ...]
    """What fits, one clause each."""
    sure: bool
    """Whether a name fits, and not only a constant or a size."""
    why: str | None
    build: tuple[str, ...]
    """How to build it, or its user, otherwise."""
    since: str | None
    references: tuple[str, ...]


def suspects(elf: Elf, names: Iterable[str], variables: Mapping[str, int], relocations: int) -> tuple[Suspect, ...]:
    """Return the known suspects that a file is, or has in it.

    `names` are its soname and file name without a hash, `variables` the bytes of its TLS variables by name
    (demangled; of a foreign one 0), `relocations` the number of its initial-exec relocations. Never raises: what cannot
    be read is no evidence.
    """
    found = []
    rows = rows_of()
    exported = _exported(elf, [name for row in rows for name in row["exports"]])
    texts = _texts(elf, [text for row in rows for text in row["strings"]]) if relocations or not variables else set()
    for row in rows:
        told = _names(row, tuple(names), exported, variables)
        sure = bool(told)
        told += [f"constant {text!r}" for text in row["strings"] if text in texts]
        signature = _signature(elf, row, relocations)
        size = elf.tls.memsz if elf.tls is not None else 0
        if signature and (told or size >= _TELLING_SIZE):
            told.append(signature)
        if told:
            found.append(Suspect(
                row["id"], row["name"], row["role"], tuple(told), sure, row["why"], tuple(row["build"]), row["since"],
                tuple(row["references"]),
            ))  # fmt: skip
    certain = [one for one in found if one.sure]
    return tuple(certain or found)


def rows_of() -> list[dict[str, Any]]:
    """Return the rows of the data."""
    import json

    with open(os.path.join(os.path.dirname(__file__), "suspects.json"), encoding="utf-8") as file:
        return json.load(file)["suspects"]  # type: ignore[no-any-return]


def _names(row: dict[str, Any], names: tuple[str, ...], exported: set[str], known: Mapping[str, int]) -> list[str]:
    import re

    told = []
    for name in names:
        if any(re.fullmatch(pattern, name) for pattern in row["sonames"]):
            told.append(f"named {name}")
            break
    told += [f"exports {name}" for name in row["exports"] if name in exported]
    return told + [f"variable {name}" for name in row["variables"] if known.get(name, -1) >= row["least"]]


def _exported(elf: Elf, names: list[str]) -> set[str]:
    """Which of the names the object defines for others."""
    try:
        found = elf.symbols.look_up({name.encode(): gnu_hash(name.encode()) for name in names})
        hits = [(name, at) for name, places in found.items() for at in places if at > 0]
        return {name.decode() for name, at in hits if elf.symbols.symbol(at).shndx}
    except (DlwhyError, Unknown):
        return set()


def _texts(elf: Elf, texts: list[str]) -> set[str]:
    found: set[str] = set()
    try:
        for data in constants(elf):
            found.update(text for text in texts if text.encode() in data)
    except (DlwhyError, Unknown):
        return found
    return found


def _signature(elf: Elf, row: dict[str, Any], relocations: int) -> str | None:
    if elf.tls is None or elf.row is None:
        return None
    have = (elf.row.name, elf.tls.memsz, relocations)
    for one in row["signatures"]:
        if (one["machine"], one["bytes"], one["relocations"]) == have:
            return f"{one['bytes']} bytes and {one['relocations']} initial-exec relocations, as {one['measured']}"
    return None
