"""Linker maps of all four linkers, each written by the very link that made the library."""

# mypy: disable-error-code="union-attr"
from __future__ import annotations

import random
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.linker_map import read_map, section_variable
from dlwhy.errors import ElfError, UsageError
from dlwhy.view import View
from tests.attribute.test_bill import by_name, nameless

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_tls import TlsFile

LINKERS = {"bfd": "GNU ld", "gold": "gold", "lld": "lld", "mold": "mold"}
A = """
static __thread char big[4248]; __thread int exported; static __thread short counter = 7;
char *touch(int i) { counter++; exported++; return &big[i]; }
"""
B = """
static __thread int counter __attribute__((aligned(64))); __thread long hid __attribute__((visibility("hidden")));
static __thread int a_variable_with_a_name_too_long_for_its_column = 3;
int other(void) { hid++; return ++counter + ++a_variable_with_a_name_too_long_for_its_column; }
"""


@pytest.fixture(scope="module", params=LINKERS)
def linked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The linker, and a folder with full.so, stripped.so and the map: an object, and an archive's member."""
    folder = tmp_path_factory.mktemp(request.param)
    if not any(shutil.which(name) for name in (f"ld.{request.param}", request.param)):
        pytest.skip(f"not run: no {request.param} here")
    (folder / "a.c").write_text(A)
    (folder / "b.c").write_text(B)
    for words in (
        ("gcc", "-fPIC", "-O1", "-c", "a.c"),
        ("gcc", "-fPIC", "-O1", "-fdata-sections", "-c", "b.c"),
        ("ar", "rc", "libb.a", "b.o"),
        ("gcc", "-shared", f"-fuse-ld={request.param}", "-Wl,-u,other,-Map=map", "a.o", "libb.a", "-o", "full.so"),
        ("strip", "-s", "-o", "stripped.so", "full.so"),
    ):
        subprocess.run(words, cwd=folder, check=True)
    return request.param, folder


def asked(folder: Path, name: str, map_: Path) -> TlsFile:
    """Return the answer of `tls`, whose sum must be right, with the findings of its evidence only."""
    (found,) = dlwhy.tls([folder / name], map=map_).files
    assert found.tls is not None and found.error is None
    assert sum(one.bytes for one in found.tls.shares) + found.tls.padding + found.tls.unattributed == found.tls.size
    return found.but(findings=tuple(one for one in found.findings if one.rule in ("other-build", "unread-evidence")))


def test_every_byte_of_a_stripped_library(linked: tuple[str, Path]) -> None:
    """With its map a stripped library has no byte unnamed; object and archive own what readelf finds in them."""
    linker, folder = linked
    found = asked(folder, "stripped.so", folder / "map")
    assert found.findings == () and found.tls.unattributed == 0
    sizes = {}
    for name in ("a.o", "b.o"):
        text = subprocess.run(["readelf", "-SW", folder / name], capture_output=True, text=True, check=True).stdout
        rows = re.findall(r"\.t(?:bss|data)\S* +(?:PROGBITS|NOBITS) +\S+ \S+ (\w+) 00 WAT", text)
        sizes[name] = sum(int(size, 16) for size in rows)
    owners = {(one.owner, one.kind): one.bytes for one in found.tls.owners}
    assert owners == {("a.o", "unit"): sizes["a.o"], ("libb.a", "archive"): sizes["b.o"]}
    shares = {one.variable: one for one in found.tls.shares}
    assert (shares["hid"].bytes, shares["hid"].unit) == (8, "libb.a(b.o)")
    assert shares["a_variable_with_a_name_too_long_for_its_column"].bytes == 4
    assert all(f"in the {LINKERS[linker]} map" in one.evidence for one in found.tls.shares)
    if linker in ("lld", "mold"):  # they list local symbols too
        assert shares["big"].bytes == 4248


def test_symbols_and_map_together(linked: tuple[str, Path]) -> None:
    """Names come from the symbols, the archive from the map; both are named as evidence."""
    _, folder = linked
    shares = {(one.variable, one.bytes): one for one in asked(folder, "full.so", folder / "map").tls.shares}
    assert shares["big", 4248].owner == "a.c" and "a.o in the" in shares["big", 4248].evidence
    assert (shares["counter", 4].owner, shares["counter", 4].kind) == ("libb.a", "archive")
    assert shares["counter", 4].unit == "b.c"


def test_map_of_another_link(linked: tuple[str, Path], tmp_path: Path) -> None:
    """A map of another link is one finding that names the difference, and is not believed."""
    linker, folder = linked
    (tmp_path / "a.c").write_text(A + "int one_more(void) { return exported * 3; }")
    subprocess.run(
        ["gcc", "-shared", "-fPIC", f"-fuse-ld={linker}", "-Wl,-Map=map", "a.c", "-o", "other.so"],
        cwd=tmp_path,
        check=True,
    )
    found = asked(folder, "stripped.so", tmp_path / "map")
    (finding,) = found.findings
    assert finding.rule == "other-build" and "there, here" in finding.message
    assert by_name(found.tls) <= {"exported", "hid"} and nameless(found.tls) > 4000


def test_symbols_tell_another_link(linked: tuple[str, Path], tmp_path: Path) -> None:
    """Where all sections agree and one symbol does not, the map is not believed either."""
    linker, folder = linked
    if linker not in ("lld", "mold"):
        return
    text = (folder / "map").read_text()
    moved = tmp_path / "map"
    moved.write_text(re.sub(r"(?m)\bbig$", "exported", re.sub(r"\bexported\b", "elsewhere", text)))
    (finding,) = asked(folder, "stripped.so", moved).findings
    assert finding.rule == "other-build" and "exported is at offset" in finding.message


def test_damaged_maps(linked: tuple[str, Path]) -> None:
    """Maps with lines cut, repeated or shuffled give a map or one error, and the sum stays right."""
    _, folder = linked
    data = (folder / "map").read_bytes()
    chance = random.Random(5)
    damaged = folder / "damaged"
    for _ in range(25):
        lines = data.split(b"\n")
        for _ in range(chance.choice((1, 20))):
            place = chance.randrange(len(lines))
            lines[place] = chance.choice((b"", lines[place][:9], lines[chance.randrange(len(lines))], b"\xff" * 9))
        damaged.write_bytes(b"\n".join(lines)[: chance.randrange(1, len(data))])
        assert len(asked(folder, "stripped.so", damaged).findings) <= 1


def test_what_is_no_map() -> None:
    """A file that is no map is one sentence; so is an empty one."""
    for data in (b"", b"int main;\n", b"\x7fELF\0\0", b"VMA Size\n"):
        with pytest.raises(ElfError, match="no linker map"):
            read_map(View("some", data))


def test_names_of_sections() -> None:
    """`-fdata-sections` names the variable; a plain section holds all of an object."""
    assert section_variable(".tbss.a.b") == "a.b" and section_variable(".gnu.linkonce.tb.x") == "x"
    assert section_variable(".tbss") is None and section_variable(".tdata") is None


def test_one_map_for_one_file(linked: tuple[str, Path]) -> None:
    """A map given with two files is a question that cannot be asked; one that is not there is an error of the file."""
    _, folder = linked
    with pytest.raises(UsageError, match="one FILE"):
        dlwhy.tls([folder / "full.so", folder / "stripped.so"], map=folder / "map")
    (found,) = dlwhy.tls([folder / "full.so"], map=folder / "nowhere").files
    assert found.error is not None and "nowhere" in found.error
