"""TLS access models from dynamic relocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.machine import MACHINES
from dlwhy.elf.tls import tls_relocations
from tests.elf_writer import Image, Reloc, Sym

from .images import each_form, everything, opened

ROWS = [row for row in MACHINES.values() if row.name != "ppc64"]

if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine


@pytest.mark.parametrize("row", MACHINES.values(), ids=lambda row: row.name)
def test_models_of_each_machine(row: Machine) -> None:
    """On each machine its own relocation numbers give the models, and those of another machine none."""
    bits, little = row.elf_class * 32, row.name != "s390x"
    for kinds, symbol, model in (
        (row.tpoff, "v", "initial-exec"), (row.tlsdesc, "v", "tlsdesc"), (row.dtpmod, "v", "general-dynamic"),
        (row.dtpmod, None, "local-dynamic"), (row.dtpoff, "v", None),
    ):  # fmt: skip
        for kind in kinds:
            image = Image(bits=bits, little=little, machine=row.e_machine, symbols=[Sym("v", 0, 4, type=6)])
            image.relocs = [Reloc(0, row.relative), Reloc(8, kind, symbol)]
            found = tls_relocations(opened(image.build()))
            assert found.models == ((model,) if model else ())
            assert sum(map(len, (found.tpoff, found.dtpmod, found.dtpoff, found.tlsdesc))) == 1


@each_form
def test_the_jump_table_counts(bits: int, little: bool) -> None:
    """TLS relocations may stand in any table; each is told with the table's name."""
    row = opened(everything(bits, little).build()).row
    found = tls_relocations(opened(everything(bits, little).build()))
    if row is None:
        assert found == tls_relocations(opened(Image(dynamic=False).build()))
        return
    table = "DT_RELA" if bits == 64 else "DT_REL"
    assert [(one.type in row.tpoff, name) for one, name in found.tpoff] == [(True, table), (True, table)]
    for kind in row.tlsdesc:
        image = everything(bits, little, relocs=[], jump=[Reloc(0, kind, "variable")])
        assert [name for _, name in tls_relocations(opened(image.build())).tlsdesc] == ["DT_JMPREL"]


def test_several_models() -> None:
    """The strongest claim comes first."""
    relocs = [Reloc(0, 16, "v"), Reloc(8, 17, "v"), Reloc(16, 36, "v"), Reloc(32, 18, "v")]
    elf = opened(Image(symbols=[Sym("v", 0, 4, type=6)], relocs=relocs).build())
    assert tls_relocations(elf).models == ("initial-exec", "tlsdesc", "general-dynamic")


def test_the_flag_is_no_evidence() -> None:
    """DF_STATIC_TLS alone means nothing: no loader looks at it."""
    assert tls_relocations(opened(Image(tags=[(30, 16)]).build())).models == ()
