"""The bills of every library and program of this machine, against nm and readelf."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from .machine_wide import bills, directories, table

pytestmark = pytest.mark.machine


def _oracle(path: str, tool: str, *options: str) -> str:
    found = shutil.which(tool)
    if found is None:
        pytest.skip(f"not run: no {tool} here")
    return subprocess.run(
        [found, *options, path], capture_output=True, text=True, errors="surrogateescape", check=False
    ).stdout


def test_full_symbol_tables_leave_only_padding() -> None:
    """Of each file with a full .symtab all but padding is named, and named is what nm -S and readelf show as TLS."""
    checked = 0
    found = list(bills(directories()))
    print("\n" + table(found))
    for one in found:
        assert sum(share.bytes for share in one.shares) + one.padding + one.unattributed == one.size
        if not one.complete:
            continue
        assert one.unattributed == 0, one.object
        text = _oracle(one.object, "readelf", "-sW")
        covered: set[int] = set()
        rows = set()
        for row in re.findall(
            r"^ *\d+: ([0-9a-f]+) +(\d+|0x[0-9a-f]+) TLS +\S+ +\S+ +(?:\[.*?\] +)?(\d+) (\S+)", text, re.M
        ):
            value, size = int(row[0], 16), int(row[1], 0)
            if size:
                covered.update(range(value, value + size))
                rows.add((value, size))
        assert len(covered) == sum(share.bytes for share in one.shares), one.object
        by_nm = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) \w ", _oracle(one.object, "nm", "-S"), re.M)
        assert rows <= {(int(value, 16), int(size, 16)) for value, size in by_nm}, one.object
        memsz = re.search(r"^ +TLS +0x\w+ 0x\w+ 0x\w+ 0x\w+ 0x(\w+)", _oracle(one.object, "readelf", "-lW"), re.M)
        assert memsz is not None and int(memsz[1], 16) == one.size, one.object
        checked += 1
    print(f"{checked} files with a full symbol table agree")
    assert checked > 0


def test_triggers_are_what_readelf_shows() -> None:
    """The number of TPOFF relocations in each bill is what readelf -r counts."""
    for one in bills(directories()):
        text = _oracle(one.object, "readelf", "-rW")
        expected = len(re.findall(r"R_(?:X86_64_TPOFF64|386_TLS_TPOFF(?:32)?|AARCH64_TLS_TPREL(?:64)?)\b", text))
        assert sum(trigger.relocations for trigger in one.triggers) == expected, one.object
