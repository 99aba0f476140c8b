"""One file's facts by pyelftools, in the shape of `benchmarks.own`. It finds version tables by section, its own way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elftools.elf.dynamic import DynamicSegment
from elftools.elf.elffile import ELFFile
from elftools.elf.enums import ENUM_E_MACHINE, ENUM_E_TYPE
from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection
from elftools.elf.segments import InterpSegment

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {"PT_LOAD": 1, "PT_TLS": 7, "PT_GNU_STACK": 0x6474E551}


def pyelftools_facts(path: str) -> dict[str, Any]:
    """Read with pyelftools. It finds version tables by section, its own way."""
    with open(path, "rb") as stream:
        elf = ELFFile(stream)
        header = elf.header
        segments = []
        interp = dynamic = None
        for segment in elf.iter_segments():
            kind = segment["p_type"]
            if kind in _KINDS:
                segments.append((
                    _KINDS[kind], segment["p_flags"], segment["p_offset"], segment["p_vaddr"],
                    segment["p_paddr"], segment["p_filesz"], segment["p_memsz"], segment["p_align"],
                ))  # fmt: skip
            elif isinstance(segment, InterpSegment):
                interp = segment.get_interp_name()
            elif isinstance(segment, DynamicSegment):
                dynamic = segment
        facts: dict[str, Any] = {
            "header": (
                elf.elfclass // 32, 1 if elf.little_endian else 2, _number(ENUM_E_TYPE, header["e_type"]),
                _number(ENUM_E_MACHINE, header["e_machine"]), header["e_entry"],
            ),
            "segments": segments,
            "interp": interp,
        }  # fmt: skip
        if dynamic is not None and dynamic["p_filesz"]:
            facts |= _pyelftools_dynamic(elf, dynamic)
    return facts


def _pyelftools_dynamic(elf: Any, dynamic: Any) -> dict[str, Any]:
    needed = []
    found: dict[str, Any] = {}
    for tag in dynamic.iter_tags():
        name = tag.entry.d_tag
        if name == "DT_NEEDED":
            needed.append(tag.needed)
        elif name == "DT_SONAME":
            found[name] = tag.soname
        elif name == "DT_RPATH":
            found[name] = tag.rpath
        elif name == "DT_RUNPATH":
            found[name] = tag.runpath
        elif name in ("DT_FLAGS", "DT_FLAGS_1"):
            found[name] = tag.entry.d_val
    needs, defines = [], []
    for section in elf.iter_sections():
        if isinstance(section, GNUVerNeedSection):
            for need, entries in section.iter_versions():
                needs.append((
                    need.name, [(one.name, one["vna_other"] & 0x7FFF, bool(one["vna_flags"] & 2)) for one in entries],
                ))  # fmt: skip
        elif isinstance(section, GNUVerDefSection):
            for definition, entries in section.iter_versions():
                defines.append((next(iter(entries)).name, definition["vd_ndx"] & 0x7FFF))
    return {
        "needed": needed,
        "names": (found.get("DT_SONAME"), found.get("DT_RPATH"), found.get("DT_RUNPATH")),
        "flags": (found.get("DT_FLAGS", 0), found.get("DT_FLAGS_1", 0)),
        "needs": needs,
        "defines": defines,
    }


def _number(names: Mapping[str, int], value: str | int) -> int:
    return names[value] if isinstance(value, str) else value
