"""The bills of every library and program of this machine, against nm and readelf."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.demangle import demangle_all
from dlwhy.render.style import Style
from dlwhy.render.text_tls import TRIGGERS, tls

from .machine_wide import bills, directories, table

if TYPE_CHECKING:
    from dlwhy.attribute.bill import Bill

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def everything() -> list[Bill]:
    """The bills of every library and program."""
    return list(bills(directories()))


def _oracle(path: str, tool: str, *options: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"not run: no {tool} here")
    return subprocess.run(
        [found, *options, path], capture_output=True, text=True, errors="surrogateescape", check=False
    ).stdout


def test_full_symbol_tables_leave_only_padding(everything: list[Bill]) -> None:
    """Of each file with a full .symtab all but padding is named, and named is what nm -S and readelf show as TLS."""
    checked = 0
    print("\n" + table(everything))
    for one in everything:
        assert sum(share.bytes for share in one.shares) + one.padding + one.unattributed == one.size
        if not one.complete:
            continue
        assert one.unattributed == 0, one.object
        text = _oracle(one.object, "readelf", "-sW")
        if ".symtab" not in text:  # its names are those of a debug file
            continue
        covered: set[int] = set()
        rows = set()
        for row in re.findall(
            r"^ *\d+: ([0-9a-f]+) +(\d+|0x[0-9a-f]+) TLS +\S+ +\S+ +(?:\[.*?\] +)?(\d+) (\S+)", text, re.MULTILINE
        ):
            value, size = int(row[0], 16), int(row[1], 0)
            if size:
                covered.update(range(value, value + size))
                rows.add((value, size))
        assert len(covered) == sum(share.bytes for share in one.shares), one.object
        by_nm = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) \w ", _oracle(one.object, "nm", "-S"), re.MULTILINE)
        assert rows <= {(int(value, 16), int(size, 16)) for value, size in by_nm}, one.object
        memsz = re.search(
            r"^ +TLS +0x\w+ 0x\w+ 0x\w+ 0x\w+ 0x(\w+)", _oracle(one.object, "readelf", "-lW"), re.MULTILINE
        )
        assert memsz is not None and int(memsz[1], 16) == one.size, one.object
        checked += 1
    print(f"{checked} files with a full symbol table agree")
    assert checked > 0


_WITH_ADDEND = r"R_(?:X86_64_TPOFF64|AARCH64_TLS_TPREL(?:64)?|RISCV_TLS_TPREL64|PPC64_TPREL64|390_TLS_TPOFF)"
_WITHOUT = r"R_(?:386_TLS_TPOFF(?:32)?|ARM_TLS_TPOFF32)"
"""What forces static TLS, as readelf names it, of machines with DT_RELA and with DT_REL."""


def test_triggers_are_what_readelf_shows(everything: list[Bill]) -> None:
    """The TPOFF relocations of each bill are those of readelf -r, by number and by the variable that readelf names."""
    for one in everything:
        text = _oracle(one.object, "readelf", "-rW")
        kinds = f"(?:{_WITH_ADDEND}|{_WITHOUT})"
        rows = re.findall(rf"^[0-9a-f]+ +[0-9a-f]+ +{kinds} +[0-9a-f]{{8,16}} +([^ @]+)", text, re.MULTILINE)
        assert sum(trigger.relocations for trigger in one.triggers) == len(re.findall(rf"{kinds}\b", text)), one.object
        assert {trigger.symbol for trigger in one.triggers if trigger.symbol} == set(rows), one.object


def test_local_triggers_are_the_variables_at_their_addends(everything: list[Bill]) -> None:
    """With a full symbol table each relocation without a symbol goes to the variable that the table has there."""
    checked = 0
    for one in everything:
        if not one.complete:
            continue
        text = _oracle(one.object, "readelf", "-rW")
        if re.search(_WITHOUT, text):
            continue
        addends = [int(a, 16) for a in re.findall(rf"{_WITH_ADDEND} +([0-9a-f]+)$", text, re.MULTILINE)]
        table = re.findall(
            r"^ *\d+: ([0-9a-f]+) +(\d+|0x[0-9a-f]+) TLS +\S+ +\S+ +(?:\[.*?\] +)?\d+ (\S+)",
            _oracle(one.object, "readelf", "-sW"), re.MULTILINE,
        )  # fmt: skip
        ranges = [(int(value, 16), int(value, 16) + max(int(size, 0), 1)) for value, size, _ in table]
        offsets = [trigger.offset for trigger in one.triggers if trigger.own and trigger.symbol is None]
        assert set(offsets) == set(addends), one.object
        for trigger in one.triggers:
            if trigger.own and trigger.offset is not None and any(a <= trigger.offset < b for a, b in ranges):
                assert trigger.variable is not None, one.object
                checked += 1
    print(f"{checked} variables that force static TLS have a name")


def test_cxx_names_are_what_cxxfilt_prints(everything: list[Bill]) -> None:
    """Every mangled C++ name of a thread-local variable on this machine reads as c++filt has it."""
    tool = shutil.which("c++filt")
    if tool is None:
        pytest.skip("not run: no c++filt here")
    names: set[str] = set()
    for one in everything:
        text = _oracle(one.object, "readelf", "-sW")
        found = re.findall(r"^ *\d+: [0-9a-f]+ +\S+ TLS +\S+ +\S+ +(?:\[.*?\] +)?\S+ (_Z\S+)", text, re.MULTILINE)
        names.update(
            name.partition("@")[0] for name in found if "." not in name and not re.search(r"17h[0-9a-f]{16}E", name)
        )
    ordered = sorted(names)
    told = subprocess.run([tool], input="\n".join(ordered), capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
    ours = demangle_all(ordered)
    assert [(name, ours[name]) for name in ordered] == list(zip(ordered, told, strict=True))
    print(f"{len(ordered)} names agree")
    assert ordered


def test_what_is_not_printed_is_not_needed(everything: list[Bill]) -> None:
    """Of files with many triggers the text is the same when only those are looked into that it shows."""
    style = Style(width=110, color=False, unicode=True, verbose=False, quiet=False)
    many = sorted((one for one in everything if len(one.triggers) > TRIGGERS), key=lambda one: len(one.triggers))
    for one in [*many[:5], *many[-5:]]:
        short, whole = dlwhy.tls([one.object], triggers=TRIGGERS), dlwhy.tls([one.object])
        assert tls(short, style) == tls(whole, style), one.object
        (told,), (all_told,) = short.files, whole.files
        assert told.findings == all_told.findings
        assert told.triggers[:TRIGGERS] == all_told.triggers[:TRIGGERS]
        assert [trigger.accesses for trigger in told.triggers] == [trigger.accesses for trigger in all_told.triggers]
        assert all(trigger.functions_total is None for trigger in told.triggers[TRIGGERS:] if trigger.variable)
