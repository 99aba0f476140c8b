"""One file's facts by LIEF, in the shape of `benchmarks.own`, its configuration cut to what each task needs."""

from __future__ import annotations

from typing import Any

import lief

from dlwhy.elf.machine import machine as row_of


def _lief_config(**wanted: bool) -> lief.ELF.ParserConfig:
    """Return a configuration in which everything is off but what is wanted."""
    config = lief.ELF.ParserConfig()
    for name in (
        "parse_dyn_symbols", "parse_notes", "parse_overlay", "parse_relocations", "parse_symbol_versions",
        "parse_symtab_symbols",
    ):  # fmt: skip
        setattr(config, name, wanted.pop(name, False))
    assert not wanted
    return config


lief.logging.disable()
_FACTS = _lief_config(parse_symbol_versions=True)
_TLS = _lief_config(parse_dyn_symbols=True, parse_relocations=True, parse_symtab_symbols=True)
_TAG = lief.ELF.DynamicEntry.TAG
_LIEF_KINDS = {
    lief.ELF.Segment.TYPE.LOAD: 1, lief.ELF.Segment.TYPE.TLS: 7, lief.ELF.Segment.TYPE.GNU_STACK: 0x6474E551,
}  # fmt: skip


class CannotRead(Exception):
    """A peer gave nothing for a file."""


def _lief_parse(path: str, config: lief.ELF.ParserConfig) -> Any:
    binary = lief.ELF.parse(path, config)
    if binary is None:
        raise CannotRead("lief.ELF.parse returned None")
    return binary


def lief_facts(path: str) -> dict[str, Any]:
    """Read with LIEF, relocations, symbols, notes and overlay left out."""
    binary = _lief_parse(path, _FACTS)
    header = binary.header
    segments = []
    dynamic = False
    for segment in binary.segments:
        kind = _LIEF_KINDS.get(segment.type)
        if kind is not None:
            segments.append((
                kind, int(segment.flags), segment.file_offset, segment.virtual_address,
                segment.physical_address, segment.physical_size, segment.virtual_size, segment.alignment,
            ))  # fmt: skip
        elif segment.type == lief.ELF.Segment.TYPE.DYNAMIC:
            dynamic = segment.physical_size > 0
    facts: dict[str, Any] = {
        "header": (
            int(header.identity_class), int(header.identity_data), int(header.file_type), int(header.machine_type),
            header.entrypoint,
        ),
        "segments": segments,
        "interp": binary.interpreter if binary.has_interpreter else None,
    }  # fmt: skip
    if dynamic:
        get = binary.get
        soname, rpath, runpath = get(_TAG.SONAME), get(_TAG.RPATH), get(_TAG.RUNPATH)
        flags, flags_1 = get(_TAG.FLAGS), get(_TAG.FLAGS_1)
        facts["needed"] = list(binary.libraries)
        facts["names"] = (
            soname and soname.name, rpath and rpath.rpath, runpath and runpath.runpath,
        )  # fmt: skip
        facts["flags"] = (flags.value if flags else 0, flags_1.value if flags_1 else 0)
        facts["needs"] = [
            (need.name, [(one.name, one.other & 0x7FFF, bool(one.flags & 2)) for one in need.get_auxiliary_symbols()])
            for need in binary.symbols_version_requirement
        ]
        facts["defines"] = [
            (next(iter(one.auxiliary_symbols)).name, one.ndx & 0x7FFF) for one in binary.symbols_version_definition
        ]
    return facts


def lief_tls(path: str) -> dict[str, Any]:
    """Read with LIEF, versions, notes and overlay left out."""
    binary = _lief_parse(path, _TLS)
    machine = int(binary.header.machine_type)
    class_ = int(binary.header.identity_class)
    kinds = _tls_kinds(machine, class_)
    relocations = []
    if kinds:
        for group in (binary.dynamic_relocations, binary.pltgot_relocations):
            for one in group:
                kind = int(one.type) & 0x7FFFFFF
                if kind in kinds:
                    name = one.symbol.name if one.has_symbol else ""
                    relocations.append((one.address, kind, one.addend, name))
    tls = lief.ELF.Symbol.TYPE.TLS
    symbols = (one for one in binary.symtab_symbols if one.type == tls)
    return {
        "relocations": sorted(relocations),
        "symbols": [(one.name, one.value, one.size, int(one.binding), one.shndx) for one in symbols],
    }


def _tls_kinds(machine: int, class_: int) -> frozenset[int]:
    """Return the relocation numbers of the TLS kinds; of the psABI, so the same for every reader."""
    row = row_of(machine, class_)
    return row.tpoff | row.dtpmod | row.dtpoff | row.tlsdesc if row else frozenset()
