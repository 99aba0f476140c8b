"""Symbol versions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dlwhy.elf.versions import Definition, Need
from dlwhy.errors import ElfError, TooLarge
from tests.elf_writer import Image, Sym, sysv_hash

from .images import assert_told, each_form, everything, opened

if TYPE_CHECKING:
    from tests.elf_writer import Built


@each_form
def test_needs(bits: int, little: bool) -> None:
    """Needs come by file, in file order, with their hash and index."""
    versions = opened(everything(bits, little).build()).versions
    assert versions.need_files == (
        ("libfirst.so", (
            Need("libfirst.so", "F_1", sysv_hash(b"F_1"), False, 4, False),
            Need("libfirst.so", "F_2", sysv_hash(b"F_2"), False, 5, False),
        )),
        ("libsecond.so.2", (Need("libsecond.so.2", "S_3", sysv_hash(b"S_3"), False, 6, False),)),
    )  # fmt: skip
    assert [need.name for need in versions.needs] == ["F_1", "F_2", "S_3"]
    assert (versions.verneed_version, versions.verdef_version) == (1, 1)


@each_form
def test_defines(bits: int, little: bool) -> None:
    """Definitions come in file order; the first is the file's own name."""
    versions = opened(everything(bits, little).build()).versions
    assert versions.defines == (
        Definition("libwhole.so.1", sysv_hash(b"libwhole.so.1"), 1, 1), Definition("W_1", sysv_hash(b"W_1"), 0, 2),
        Definition("W_2", sysv_hash(b"W_2"), 0, 3),
    )  # fmt: skip
    assert (sysv_hash(b"W_2"), "W_2") in versions.defined
    assert versions.by_index()[6] == ("S_3", sysv_hash(b"S_3"), False, "libsecond.so.2")


@each_form
def test_version_of_each_symbol(bits: int, little: bool) -> None:
    """Each symbol has its version's index, with the hidden bit where it is set."""
    built = everything(bits, little).build()
    versions = opened(built).versions
    assert versions.has_versym
    assert [
        versions.index_of(built.symbol[name]) for name in (b"function_0", b"function_1", b"wanted", b"perhaps")
    ] == [2, 3, 4, 6]
    assert sorted(versions.index_of(built.symbol[b"twice"] + n) for n in (0, 1)) == [3, 0x8002]
    assert versions.index_of(built.symbol[b"variable"]) == 1
    with pytest.raises(ElfError):
        versions.index_of(1 << 30)


def test_without_versions() -> None:
    """An object may have none."""
    versions = opened(Image(symbols=[Sym("f", 1)]).build()).versions
    assert (versions.needs, versions.defines, versions.has_versym, versions.versym()) == ((), None, False, b"")
    assert (versions.index_of(1), versions.by_index(), versions.defined) == (1, {}, frozenset())


def test_weak_and_hidden_needs() -> None:
    """VER_FLG_WEAK and the top bit of vna_other are told."""
    built = everything().build()
    data = built.patched("verneed", 16 + 4, b"\2\0")
    assert opened(data).versions.needs[0].weak
    need = opened(built.patched("verneed", 16 + 6, b"\4\x80")).versions.needs[0]
    assert need.hidden and need.index == 4


def test_other_versions_of_the_tables() -> None:
    """A record version that is not 1 is told, as the loader refuses it."""
    built = everything().build()
    assert opened(built.patched("verneed", 0, b"\2\0")).versions.verneed_version == 2
    assert opened(built.patched("verdef", 28, b"\7\0")).versions.verdef_version == 7


@pytest.mark.parametrize("part", ["verneed", "verdef"])
@pytest.mark.parametrize("value", [1, 3, 0x7FFFFFFF, 0xFFFFFFF0, 0xFFFFFFFF])
def test_offsets_anywhere(part: str, value: int) -> None:
    """Whatever stands where a chain goes on, reading ends with an answer or `ElfError`."""
    built = everything().build()
    for at in range(0, built.at[part].size - 4, 4):
        try:
            versions = opened(built.patched(part, at, value.to_bytes(4, "little"))).versions
            needs = versions.needs
        except ElfError as error:
            assert_told(error)
        else:
            assert len(needs) + len(versions.defines or ()) < 200


def test_counts_are_not_believed() -> None:
    """A chain ends where its next offset is zero, whatever number stands beside it."""
    built = everything().build()
    data = built.patched("verneed", 2, b"\xff\xff")
    assert opened(data).versions.needs == opened(built).versions.needs
    tags = [(0x6FFFFFFF, 0xFFFFFFFF), (0x6FFFFFFD, 0)]
    assert opened(everything(tags=tags).build()).versions.needs == opened(built).versions.needs


def shared(number: int) -> Built:
    """Files that all name one chain of versions as theirs: `number` of both."""
    image = Image(needs={f"f{n}": ["V"] for n in range(number)}, defines=[])
    built = image.build()
    data = bytearray(built.data)
    start = built.at["verneed"].offset
    for n in range(number):  # each record in the first half of the table, all versions in the second half
        following = 16 if n + 1 < number else 0
        data[start + 16 * n : start + 16 * n + 16] = (
            b"\1\0\1\0"
            + (1).to_bytes(4, "little")
            + (16 * (number - n)).to_bytes(4, "little")
            + following.to_bytes(4, "little")
        )
        aux = start + 16 * (number + n)
        data[aux : aux + 16] = bytes(8) + (1).to_bytes(4, "little") + following.to_bytes(4, "little")
    return built._replace(data=bytes(data))


def test_chains_that_are_shared() -> None:
    """Tables whose records share their chains are given up before they multiply."""
    assert len(opened(shared(3)).versions.needs) == 9
    with pytest.raises(TooLarge, match="more records than the file has room for"):
        assert opened(shared(5000)).versions.needs
