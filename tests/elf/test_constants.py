"""The numbers of the formats, against the system's own <elf.h>."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from dlwhy.elf import constants
from dlwhy.elf.machine import MACHINES

if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine

OWN = {name: value for name, value in vars(constants).items() if isinstance(value, int) and name.isupper()}
NOT_IN_THE_HEADER = {"VERSYM_HIDDEN", "DF_1_PIE", "NT_GNU_PROPERTY_TYPE_0"}
"""Names that older headers lack."""


@pytest.fixture(scope="module")
def header() -> dict[str, int]:
    """Every number that <elf.h> defines, as the preprocessor has it."""
    done = subprocess.run(
        ["gcc", "-E", "-dM", "-"], input="#include <elf.h>\n", capture_output=True, text=True, check=True
    )
    words = dict(re.findall(r"^#define (\w+) \(?(0x[0-9a-fA-F]+|\w+)\)?$", done.stdout, re.MULTILINE))
    while any(value in words for value in words.values()):  # R_PPC64_RELATIVE is R_PPC_RELATIVE
        words = {name: words.get(value, value) for name, value in words.items()}
    return {name: int(value, 0) for name, value in words.items() if re.fullmatch(r"0x[0-9a-fA-F]+|0|[1-9]\d*", value)}


@pytest.mark.oracle
def test_constants_are_those_of_the_header(header: dict[str, int]) -> None:
    """Each constant has the value that <elf.h> gives to its name."""
    compared = {name: header[name] for name in OWN if name in header}
    assert {name: OWN[name] for name in compared} == compared
    assert OWN.keys() - compared.keys() <= NOT_IN_THE_HEADER | {
        name for name in OWN if name.startswith(("DF_", "SHF_", "PF_", "VER_"))
    }  # these are written as shifts


@pytest.mark.oracle
def test_relocation_names_are_those_of_the_header(header: dict[str, int]) -> None:
    """Each relocation that a report may name has its number of <elf.h>, and each TLS kind of a machine has a name."""
    compared = 0
    for row in MACHINES.values():
        for number, name in row.names.items():
            if name in header:
                assert header[name] == number, name
                compared += 1
        assert row.tpoff | row.dtpmod | row.tlsdesc <= row.names.keys(), row.name
    assert compared > 20


@pytest.mark.oracle
@pytest.mark.parametrize("row", MACHINES.values(), ids=lambda row: row.name)
def test_machine_kinds_are_those_of_the_header(header: dict[str, int], row: Machine) -> None:
    """RELATIVE, IRELATIVE, JUMP_SLOT and COPY of each machine are the numbers of <elf.h>."""
    prefix = {"x86-64": "X86_64", "i386": "386", "aarch64": "AARCH64", "arm": "ARM", "ppc64": "PPC64", "s390x": "390",
              "riscv64": "RISCV"}[row.name]  # fmt: skip
    slot = {"i386": "JMP_SLOT", "ppc64": "JMP_SLOT", "s390x": "JMP_SLOT"}.get(row.name, "JUMP_SLOT")
    for field, word in (("relative", "RELATIVE"), ("irelative", "IRELATIVE"), ("jump_slot", slot), ("copy", "COPY")):
        name = f"R_{prefix}_{word}"
        if name in header:
            assert getattr(row, field) == header[name], name
        else:
            assert word == "IRELATIVE", f"{name} is not in <elf.h>"
