"""Where the source declares a variable, by debug information: file and line, and the compilation unit it came with.

A DIE names its file by a number in the table of its unit's line program, counted from 1 up to DWARF 4 and from 0 since
(DWARF 5, 2.14, 6.2.4; DWARF 4, 6.2.4); directories there are those of the compilation, or relative to it.
"""

from __future__ import annotations

import posixpath
import re

from dlwhy.attribute.owners import peel
from dlwhy.attribute.type_chain import texts
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LOCAL = re.compile(r"_ZZ.{1,2000}E(\d{1,4})(\D.{0,2000})")
"""A variable inside a function of C++, which the debug information has by its plain name (Itanium C++ ABI, 5.1.6)."""
_LONGEST = 4096
"""Characters of a path that are told."""


class Declaration(Record):
    """Where a variable is declared."""

    file: str | None
    """Path of the source file as the compiler had it, absolute where it is known; None where nothing tells."""
    line: int | None
    unit: str | None
    """The compilation unit's name: the source file that the compiler was called with, or for Rust the codegen unit."""


def agrees(die: Any, symbol: str) -> bool:
    """Whether a DIE has the name of a symbol: its linkage name, or what its author wrote."""
    names = set(texts(die, ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name", "DW_AT_name")))
    plain = peel(symbol)
    if symbol in names or plain in names or plain.rpartition(".")[2] in names:  # of C clang writes FUNCTION.NAME
        return True
    local = _LOCAL.fullmatch(symbol)
    return local is not None and local[2][: int(local[1])] in names


def declaration_of(dwarf: Any, die: Any) -> Declaration | None:
    """Return where a variable is declared; None where debug information tells nothing. Raises what pyelftools does."""
    top = die.cu.get_top_DIE()
    unit = next(texts(top, ("DW_AT_name",)), None)
    line, file = _number(die, "DW_AT_decl_line"), _number(die, "DW_AT_decl_file")
    path = _path(dwarf, die.cu, top, file) if file is not None else None
    if path is None and line is None and unit is None:
        return None
    return Declaration(_told(path), line, _told(unit))


def _told(text: str | None) -> str | None:
    return text[:_LONGEST] if text else None


def _number(die: Any, key: str) -> int | None:
    """Return a number of a DIE, or of the declaration that it completes."""
    for _ in range(3):
        if key in die.attributes:
            value = die.attributes[key].value
            return value if isinstance(value, int) and value >= 0 else None
        if "DW_AT_specification" not in die.attributes:
            return None
        die = die.get_DIE_from_attribute("DW_AT_specification")
    return None


def _path(dwarf: Any, unit: Any, top: Any, number: int) -> str | None:
    """Return the file of a number in the line table of a unit."""
    program = dwarf.line_program_for_CU(unit)
    if program is None:
        return None
    header = program.header
    first = 0 if header["version"] >= 5 else 1
    files, directories = header["file_entry"], header["include_directory"]
    if not first <= number < first + len(files):
        return None
    entry = files[number - first]
    base = next(texts(top, ("DW_AT_comp_dir",)), "")
    place = entry["dir_index"] - first
    folder = _text(directories[place]) if 0 <= place < len(directories) else ""
    path = posixpath.join(base, folder, _text(entry["name"]))
    return posixpath.normpath(path) if path else None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""
