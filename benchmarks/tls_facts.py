"""TLS facts: the TLS relocations and the TLS symbols of .symtab of every file, no other name cut, against LIEF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import lief_reader, own
from benchmarks.facts import against

if TYPE_CHECKING:
    from benchmarks.measure import Row


def rows(paths: tuple[str, ...], rounds: int) -> list[Row]:
    """Return the line for LIEF."""
    peers = {"LIEF": lief_reader.lief_tls}
    return against("tls_facts", "TLS relocations and symbols", own.own_tls, peers, paths, rounds)
