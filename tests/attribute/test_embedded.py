"""What files say of themselves, against the tools of those who wrote it there."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from dlwhy.attribute.embedded import embedded, go_info
from dlwhy.elf.file import read
from dlwhy.elf.notes import notes
from dlwhy.errors import ElfError
from dlwhy.files import Files
from dlwhy.view import View
from tests.cli.run import dlwhy
from tests.fixtures import registries

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.attribute.embedded import Embedded


def said(path: Path) -> Embedded:
    """What a file says."""
    return embedded(read(Files().open(str(path))))


@pytest.mark.oracle
def test_go_says_the_same_as_its_own_tool() -> None:
    """Toolchain, main module, dependencies and settings of a c-shared library are those that `go version -m` prints."""
    path = registries.butler()
    found = said(path).go
    assert found is not None
    lines = subprocess.run([registries.tool("go"), "version", "-m", path], capture_output=True, text=True, check=True)
    told = [line.split("\t")[1:] for line in lines.stdout.splitlines()[1:]]
    assert lines.stdout.split()[1] == found.version
    assert found.path == next(one[1] for one in told if one[0] == "path")
    assert [list(found.main or ())] == [one[1:3] for one in told if one[0] == "mod"]
    assert [list(one) for one in found.modules] == [one[1:3] for one in told if one[0] == "dep"]
    assert [f"{key}={value}" for key, value in found.settings] == [one[1] for one in told if one[0] == "build"]


@pytest.mark.oracle
def test_go_programs_of_this_machine_say_the_same_as_the_tool() -> None:
    """The toolchain's own programs, without section headers too: version and modules as `go version -m` has them."""
    go = registries.tool("go")
    root = subprocess.run([go, "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip()
    told = subprocess.run([go, "version", "-m", f"{root}/bin"], capture_output=True, text=True, check=True).stdout
    for block in re.split(r"(?m)^(?=/)", told):
        path, _, rest = block.partition(": ")
        if not rest:
            continue
        elf = read(Files().open(path))
        found = go_info(elf)
        assert found is not None
        assert found.version == rest.split()[0]
        assert [f"{name}\t{version}" for name, version in found.modules] == re.findall(r"\tdep\t(\S+\t\S+)", rest)
        bare = read(Files().open(path))
        bare.shoff = 0
        assert go_info(bare) == found


@pytest.mark.oracle
@pytest.mark.parametrize("profile", ["release", "stripped"])
def test_crates_stand_in_panic_locations(profile: str) -> None:
    """rand 0.6.5 and its parts are told with their versions, by a file without one symbol as well."""
    path = registries.valet(profile)
    found = said(path)
    text = path.read_bytes()
    assert ("rand", "0.6.5") in found.crates
    assert ("rand_hc", "0.1.0") in found.crates
    for name, version in found.crates:
        assert f"/{name}-{version}/".encode() in text
    assert any(line.startswith("rustc version ") for line in found.compilers)


@pytest.mark.oracle
def test_cargo_auditable_is_read() -> None:
    """The graph of `.dep-v0` has the same crates as `cargo tree` says, and the way to rand."""
    path = registries.valet("auditable")
    graph = said(path).graph
    assert graph is not None
    tree = registries.run(
        [registries.tool("cargo"), "tree", "--locked", "--prefix", "none", "--edges", "normal", "--format", "{p}"],
        path.parents[2],
    )
    listed = {tuple(line.split(" ")[:2]) for line in tree.splitlines() if line}
    assert {(one.name, f"v{one.version}") for one in graph.packages} >= listed
    (rand,) = graph.named("rand")
    assert [one.name for one in graph.path(rand)] == ["valet", "selfupdate", "backoff", "rand"]


@pytest.mark.oracle
def test_notes_are_those_of_readelf() -> None:
    """Owners, types and build-id of this Python's and the C library's notes are what `readelf -n` shows."""
    readelf = registries.tool("readelf")
    for path in ("/bin/ls", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/systemd/systemd"):
        if not shutil.os.path.exists(path):  # type: ignore[attr-defined]
            continue
        elf = read(Files().open(path))
        told = subprocess.run([readelf, "-nW", path], capture_output=True, text=True, check=True).stdout
        assert sorted(n.owner.decode() for n in notes(elf)) == sorted(
            re.findall(r"(?m)^  (GNU|FDO|stapsdt|\S+)\s+0x", told)
        )
        assert f"Build ID: {embedded(elf).build_id}" in told


def test_damaged_files_say_less_and_never_fail() -> None:
    """A Go library and a Rust one with random bytes changed, or cut anywhere: what is said stays well-formed."""
    rng = random.Random(3)
    for path in (registries.butler(), registries.valet()):
        data = path.read_bytes()
        elf = read(View("x", data))
        places = [s.offset for s in elf.sections if s.name in (".go.buildinfo", ".comment", ".note.gnu.build-id")]
        for _ in range(60):
            broken = bytearray(data)
            for at in places:
                broken[at + rng.randrange(64)] = rng.randrange(256)
            for _ in range(8):
                broken[rng.randrange(4096)] = rng.randrange(256)
            try:
                embedded(read(View("x", bytes(broken[: rng.choice([len(data), rng.randrange(len(data))])]))))
            except ElfError as error:
                assert "x" in str(error)  # noqa: PT017 -- the header itself


@pytest.mark.oracle
def test_the_package_of_a_note_is_shown(tmp_path: Path) -> None:
    """What the linker wrote into `.note.package` is in the JSON, and in the text with -v."""
    (tmp_path / "room.c").write_text("__thread char room[64]; char *enter(int i) { return &room[i]; }")
    note = '{"type":"deb","os":"debian","name":"house","version":"1.2-3"}'
    words = ["-shared", "-fPIC", "-Xlinker", f"--package-metadata={note}", "-o", "libhouse.so", "room.c"]
    registries.run([registries.tool("gcc"), *words], tmp_path)
    assert said(tmp_path / "libhouse.so").package == "house 1.2-3"
    (file,) = json.loads(dlwhy("tls", "--format", "json", tmp_path / "libhouse.so").out)["files"]
    assert file["tls"]["identity"]["package"] == "house 1.2-3"
    assert "\n  package     house 1.2-3\n" in dlwhy("tls", "-v", tmp_path / "libhouse.so").out
    assert "house 1.2-3" not in dlwhy("tls", tmp_path / "libhouse.so").out
