"""One file's facts by dlwhy's own reader, in the shape that all readers share: equal facts are equal dicts.

    facts   header, program headers, dynamic section, symbol versions
    tls     dynamic relocations of the TLS kinds, and the TLS symbols of .symtab: no other name is cut

Each reader is written as its own documentation has it, asked for nothing that the task does not need, and pays for
bringing what it read into the common shape.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dlwhy.elf.file import Elf
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.elf.tls import tls_relocations
from dlwhy.files import Files

if TYPE_CHECKING:
    from collections.abc import Callable

    Reader = Callable[[str], dict[str, Any]]
    """Path -> facts by name. What it raises is its way to say that it cannot read the file."""

KINDS = frozenset((1, 7, 0x6474E551))
"""PT_LOAD, PT_TLS, PT_GNU_STACK: the program headers that are facts here, with PT_INTERP."""

_files = Files()


def own_facts(path: str) -> dict[str, Any]:
    """Read with dlwhy's own reader."""
    elf = Elf(_files.open(path))
    dynamic = elf.dynamic
    facts: dict[str, Any] = {
        "header": (elf.class_, elf.data, elf.type, elf.machine, elf.entry),
        "segments": [row for row in elf.phdrs if row[0] in KINDS],
        "interp": elf.interp,
    }
    if dynamic is not None:
        versions = elf.versions
        facts["needed"] = list(dynamic.needed)
        facts["names"] = (dynamic.soname, dynamic.rpath, dynamic.runpath)
        facts["flags"] = (dynamic.flags, dynamic.flags_1)
        needs = facts["needs"] = []
        for file, rows in versions.need_rows:
            needs.append((file, [(name, other & 0x7FFF, flags & 2 != 0) for name, _, flags, other in rows]))
        facts["defines"] = [(one.name, one.index) for one in versions.defines] if versions.defines else []
    elf.close()
    _files.close()
    return facts


def own_tls(path: str) -> dict[str, Any]:
    """Read with dlwhy's own reader: names of TLS symbols only."""
    elf = Elf(_files.open(path))
    found = tls_relocations(elf)
    facts = {
        "relocations": sorted([
            (one.offset, one.type, one.addend, _text(elf.symbols.symbol(one.symbol).name) if one.symbol else "")
            for group in (found.tpoff, found.dtpmod, found.dtpoff, found.tlsdesc)
            for one, _ in group
        ]),
        "symbols": [(one.name, one.offset, one.size, one.binding, one.shndx) for one in StaticSymbols(elf).tls()],
    }  # fmt: skip
    elf.close()
    _files.close()
    return facts


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")
