"""Files that hide their code: the real one from npm, made ones with each fact missing, and no honest file at all."""

from __future__ import annotations

import contextlib
import os
import random
import zlib
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute.opaque import Payload
from dlwhy.attribute.opaque import payload as hidden
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError
from dlwhy.files import Files
from dlwhy.walk import loadable
from tests.fixtures import registries
from tests.fixtures.libraries import gcc
from tests.fixtures.system import payload

if TYPE_CHECKING:
    from pathlib import Path

NOISE = random.Random(4).randbytes(600 << 10)
OPENS = "void *dlopen(const char *, int); void *f(const char *n) { return dlopen(n, 1); }\n"
HIDDEN = 600 << 10


def found(path: Path | str) -> Payload | None:
    """The payload of a file."""
    files = Files()
    try:
        return hidden(Elf(files.open(str(path))))
    finally:
        files.close()


def made(folder: Path, data: bytes, code: str, section: str = ".hidden", flags: str = "a") -> Path:
    """A library with these bytes in a section."""
    (folder / "x.c").write_text(payload(folder, data, section, flags) + code)
    return gcc(folder / "libx.so", "-shared", "-fPIC", folder / "x.c")


@pytest.mark.oracle
def test_the_addon_of_swc() -> None:
    """@swc's addon is nearly all payload, its section `.swc_native`; tls, check and tree say so."""
    (path,) = registries.npm("@swc/core-linux-x64-gnu").glob("*.node")
    told = found(path)
    assert told is not None
    files = Files()
    elf = Elf(files.open(str(path)))
    (section,) = [one for one in elf.sections if one.name == ".swc_native"]
    assert elf.view.read(section.offset, 8) == b"SWCNZSTD"
    files.close()
    assert abs(told.size - section.size) < 128 << 10
    assert abs(told.offset - section.offset) < 64 << 10
    assert told.opens == "dlopen"
    host = dlwhy.Host.plain({})
    reports = dlwhy.tls([path]).files[0].findings, dlwhy.check([path], host).findings, dlwhy.tree(path, host).findings
    for findings in reports:
        assert "opaque-payload" in {one.rule for one in findings}


@pytest.mark.oracle
@pytest.mark.parametrize("name", ["lightningcss-linux-x64-gnu", "@rollup/rollup-linux-x64-gnu"])
def test_other_addons_hide_nothing(name: str) -> None:
    """Addons that are what they look like are not said to be otherwise."""
    (path,) = registries.npm(name).glob("*.node")
    assert found(path) is None


@pytest.mark.machine
def test_no_library_of_this_machine() -> None:
    """Of all ELF files below the system's directories not one is called opaque."""
    seen = 0
    for top in ("/usr/lib", "/usr/bin", "/usr/sbin", "/usr/libexec", "/usr/local"):
        for directory, _, names in os.walk(top):
            for path in (f"{directory}/{name}" for name in names):
                if os.path.islink(path) or not loadable(path):
                    continue
                with contextlib.suppress(DlwhyError):
                    assert found(path) is None, path
                    seen += 1
    assert seen > 500


def test_all_three_facts_are_needed(tmp_path: Path) -> None:
    """A large payload that looks random, little code, and code that can bring more in."""
    told = found(made(tmp_path, NOISE, OPENS))
    assert told is not None
    assert abs(told.size - HIDDEN) <= 64 << 10
    assert told.opens == "dlopen"
    assert found(made(tmp_path, NOISE, "int f(void) { return 1; }\n")) is None
    assert found(made(tmp_path, NOISE[: 100 << 10], OPENS)) is None
    filler = '__asm__(".pushsection .text\\n.fill 200000, 4, 0x90c3c031\\n.popsection\\n");\n'
    assert found(made(tmp_path, NOISE, OPENS + filler)) is None
    text = b"".join(b"%d lines of text, and none of it hidden\n" % number for number in range(20000))
    assert found(made(tmp_path, text, OPENS)) is None
    table = b"".join(number.to_bytes(4, "little") for number in range(200_000))
    assert found(made(tmp_path, table, OPENS)) is None
    packed = zlib.compress(b"".join(b"%x" % random.Random(number).getrandbits(64) for number in range(120_000)), 9)
    assert len(packed) > 400 << 10
    assert found(made(tmp_path, packed, OPENS)) is not None


def test_code_of_a_gpu_is_not_hidden(tmp_path: Path) -> None:
    """A compressed fat binary is in a section of its own, and nothing of this process."""
    assert found(made(tmp_path, NOISE, OPENS, ".nv_fatbin")) is None


def test_a_segment_that_may_be_executed(tmp_path: Path) -> None:
    """Noise where code should be needs no import to be suspect."""
    told = found(made(tmp_path, NOISE, "int f(void) { return 1; }\n", ".text.hidden", "ax"))
    assert told is not None
    assert told.opens is None


def test_damaged_files_hide_nothing(tmp_path: Path) -> None:
    """Cut anywhere, or with headers that lie, there is an answer and no exception."""
    path = made(tmp_path, NOISE, OPENS)
    data = path.read_bytes()
    dice = random.Random(9)
    for _ in range(60):
        bad = bytearray(data[: dice.randrange(64, len(data))] if dice.random() < 0.3 else data)
        for _ in range(8):
            bad[64 + dice.randrange(min(700, len(bad) - 64))] = dice.randrange(256)
        (tmp_path / "bad.so").write_bytes(bad)
        try:
            found(tmp_path / "bad.so")
        except DlwhyError:
            continue
