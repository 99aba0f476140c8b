"""Go's function tables of every form, in stripped libraries: against symbols, and against Go's own reader of them."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.go_table import go_functions, go_table
from dlwhy.elf.file import read
from dlwhy.files import Files
from tests.fixtures import registries

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from dlwhy.elf.file import Elf

GOSYM = """
package main

import (
	"debug/gosym"
	"fmt"
	"os"
	"strconv"
)

func main() {
	data, _ := os.ReadFile(os.Args[1])
	text, _ := strconv.ParseUint(os.Args[2], 0, 64)
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text))
	if err != nil {
		panic(err)
	}
	for _, one := range table.Funcs {
		fmt.Printf("%x %x %s\\n", one.Entry, one.End, one.Name)
	}
}
"""
MACHINES = {"amd64": ("gcc", "strip"), "arm64": ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-strip")}


def opened(path: Path) -> Elf:
    """Return a file."""
    return read(Files().open(str(path)))


def stripped(library: Path, place: Path, machine: str = "amd64") -> Path:
    """Return a copy without symbols."""
    result = place / "stripped.so"
    subprocess.run([registries.tool(MACHINES[machine][1]), "-s", "-o", str(result), str(library)], check=True)
    return result


def symbols(library: Path) -> dict[int, set[str]]:
    """Return address -> names of the code there, as nm has them; Go's assembler functions as Go code names them."""
    told = subprocess.run(["nm", "--defined-only", str(library)], capture_output=True, text=True, check=True).stdout
    result: dict[int, set[str]] = {}
    for address, name in re.findall(r"(?m)^(\w+) [tT] (.+)$", told):
        result.setdefault(int(address, 16), set()).add(name.removesuffix(".abi0"))
    return result


def all_of(elf: Elf) -> dict[int, tuple[int, int, str]]:
    """Return every function that the table of a file names."""
    table = go_table(elf)
    assert table is not None
    return go_functions(elf, table, [table.text + start for start in table.starts[:-1]])


@pytest.mark.oracle
@pytest.mark.parametrize("machine", MACHINES)
def test_old_tables_name_what_symbols_name(tmp_path: Path, machine: str) -> None:
    """Go 1.15, whose rows the loader relocates: each of them names the function that the unstripped twin has there."""
    library = registries.old_go_library(machine)
    names = symbols(library)
    found = all_of(opened(stripped(library, tmp_path, machine)))
    table = go_table(opened(library))
    assert table is not None and len(found) == len(table.starts) - 1 > 1000
    assert {address: name for address, (_, _, name) in found.items() if name not in names[address]} == {}


@pytest.mark.oracle
@pytest.mark.parametrize("machine", MACHINES)
def test_stripped_old_go_tells_its_trigger(tmp_path: Path, machine: str) -> None:
    """`tls` of a stripped Go 1.15 library names the functions and packages behind the trigger as that of its twin."""
    library = registries.old_go_library(machine)
    (before,), (after,) = (dlwhy.tls([one]).files for one in (library, stripped(library, tmp_path, machine)))
    (told,), (bare,) = before.triggers, after.triggers
    assert (bare.owner, bare.variable) == ("Go runtime", "runtime.tlsg")
    assert (bare.accesses, bare.functions_total) == (told.accesses, told.functions_total)
    assert set(bare.functions) == {name.removesuffix(".abi0") for name in told.functions} and bare.functions
    assert sum(one.accesses for one in bare.users) == bare.accesses
    assert after.tls is not None
    assert ("Go runtime", "go1.15.15") in {(one.owner, one.version) for one in after.tls.provenance}
    assert machine != "amd64" or {"fmt", "Go runtime", "reflect"} <= {one.owner for one in bare.users}


def _relocated(elf: Elf, address: int) -> bytes:
    """Return what stands from an address on to the end of its segment once relocations are applied, as readelf says."""
    row = next(one for one in elf.loads if one[3] <= address < one[3] + one[5])
    data = bytearray(elf.view.some(row[2] + address - row[3], row[3] + row[5] - address))
    told = subprocess.run(["readelf", "-rW", elf.path], capture_output=True, text=True, check=True).stdout
    for place, value in re.findall(r"(?m)^(\w+) +\w+ +R_(?:X86_64|AARCH64)_RELATIV\w* +(\w+)$", told):
        at = int(place, 16) - address
        if 0 <= at <= len(data) - 8:
            data[at : at + 8] = int(value, 16).to_bytes(8, "little")
    return bytes(data)


def _wheel(name: str, pattern: str) -> Callable[[], Path]:
    return lambda: next(registries.wheel(name).glob(pattern))


def _npm(name: str) -> Callable[[], Path]:
    return lambda: registries.npm(name) / "bin/esbuild"


@pytest.mark.oracle
@pytest.mark.parametrize(("get", "release", "number"), [
    (_npm("esbuild-linux-64@0.12.9"), "go1.16.3", 5821),
    (_npm("esbuild-linux-arm64@0.14.10"), "go1.17.5", 5740),
    (_wheel("dockerfile==3.2.0", "*.so"), "go1.17.1", 6595),
    (registries.old_go_library, "go1.15", 1000),
    (registries.butler, "go1.", 1000),
], ids=["1.16", "1.17-arm64", "1.17-c-shared", "1.15-c-shared", "now-c-shared"])  # fmt: skip
def test_every_form_agrees_with_gos_own_reader(
    tmp_path: Path, get: Callable[[], Path], release: str, number: int
) -> None:
    """Bounds and names of all functions are those that Go's debug/gosym reads of the relocated table."""
    path = get()
    elf = opened(path)
    assert release in subprocess.run([registries.tool("go"), "version", str(path)], capture_output=True, text=True,
                                     check=True).stdout  # fmt: skip
    table = go_table(elf)
    assert table is not None
    (tmp_path / "main.go").write_text(GOSYM)
    (tmp_path / "table").write_bytes(_relocated(elf, table.address))
    registries.run([registries.tool("go"), "build", "-o", "reader", "main.go"], tmp_path, GO111MODULE="off")
    words = [str(tmp_path / "reader"), str(tmp_path / "table"), hex(table.text)]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    rows = [line.split(maxsplit=2) for line in told.splitlines()]
    theirs = {int(start, 16): (int(start, 16), int(end, 16), name) for start, end, name in rows}
    assert len(theirs) >= number
    assert go_functions(elf, table, theirs) == theirs


@pytest.mark.oracle
def test_damaged_old_tables_cost_names_only(tmp_path: Path) -> None:
    """A count, an order, or a record that cannot be true costs the names, and nothing is raised."""
    library = stripped(registries.old_go_library(), tmp_path)
    table = go_table(opened(library))
    assert table is not None
    elf = opened(library)
    offset = elf.offset_of(table.address)
    assert offset is not None
    whole = library.read_bytes()
    damaged = tmp_path / "damaged.so"
    for at, bytes_ in ((6, b"\x03"), (7, b"\x04"), (8, b"\xff" * 8), (8, bytes(8)), (12, b"\x01")):
        damaged.write_bytes(whole[: offset + at] + bytes_ + whole[offset + at + len(bytes_) :])
        assert go_table(opened(damaged)) is None
    place = table.places[7]  # its record is said to be another's
    damaged.write_bytes(whole[: offset + 16 + 16 * 7 + 8] + bytes(8) + whole[offset + 16 + 16 * 7 + 16 :])
    broken = go_table(opened(damaged))
    assert broken is not None and broken.places[7] == 0 != place
    assert set(all_of(elf)) - set(all_of(opened(damaged))) == {table.starts[7]}
