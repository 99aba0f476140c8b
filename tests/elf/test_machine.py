"""The table of machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.machine import MACHINES, machine, machine_name

if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine


@pytest.mark.parametrize("row", MACHINES.values(), ids=lambda row: row.name)
def test_kinds_are_apart(row: Machine) -> None:
    """No relocation number of a machine means two things, and the row is found under its own key."""
    kinds = [*row.tpoff, *row.dtpmod, *row.dtpoff, *row.tlsdesc, row.relative, row.irelative, row.jump_slot, row.copy]
    assert len(kinds) == len(set(kinds))
    assert machine(row.e_machine, row.elf_class) is row
    assert row.variant in (1, 2)


def test_a_machine_without_a_row_has_a_name_all_the_same() -> None:
    """What no row covers is told by its number and class."""
    assert machine(8, 1) is None
    assert machine_name(8, 1) == "e_machine 8, 32 bit"
    assert machine_name(62, 2) == "x86-64"
    assert machine(62, 1) is None  # x32 is another machine to every loader
