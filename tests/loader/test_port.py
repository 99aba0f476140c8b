"""Machines: every row has its port, its processors and a real file; a small system of each is checked end to end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.elf.file import Elf
from dlwhy.elf.machine import EM_X86_64, MACHINES
from dlwhy.elf.tls import tls_relocations
from dlwhy.loader.cpu import NAMES
from dlwhy.loader.glibc import FEATURES, glibc
from dlwhy.loader.port import PORTS
from dlwhy.loader.processors import MODELS, every_name, names_of
from dlwhy.view import View
from tests.elf_writer import Image, Reloc, Sym
from tests.fixtures import machines

if TYPE_CHECKING:
    from dlwhy.elf.machine import Machine

FIXTURES = Path(machines.__file__).parent
EVERY = pytest.mark.parametrize("row", MACHINES.values(), ids=lambda row: row.name)
MEASURED = {
    # of real processes of glibc 2.36: libc's TLS, then bytes used, then those of the block without what is no TLS
    "x86-64": ((144, 8), 144, 1856), "i386": ((84, 4), 84, 1792), "aarch64": ((144, 16), 160, 1824),
    "arm": ((84, 4), 92, 1760), "ppc64": ((144, 16), 144, 1824), "s390x": ((152, 8), 152, 1824),
    "riscv64": ((144, 8), 144, 1824),
}  # fmt: skip


def fixture(row: Machine) -> Path:
    """The real file of a machine."""
    return FIXTURES / f"{row.name}.so"


def test_no_row_is_without_the_others() -> None:
    """No machine lacks a port, processors, a file of its own compiler, or a number where glibc's rows have one each."""
    numbers = {row.e_machine for row in MACHINES.values()}
    assert MACHINES.keys() == PORTS.keys()
    assert {*MODELS, EM_X86_64} == numbers
    assert [row.name for row in MACHINES.values() if not fixture(row).exists()] == []
    for name in ("least_tls_align", "abiversion_limit"):
        assert all(value.keys() == numbers for _, value, _ in FEATURES[name])


@EVERY
def test_a_real_file_of_each_machine(row: Machine) -> None:
    """A file of the machine's own compiler has the machine's class, byte order, relocations and TLS."""
    elf = Elf(View(str(fixture(row)), fixture(row).read_bytes()))
    assert elf.row is row
    assert elf.data == row.data
    assert elf.dynamic is not None
    assert "libc.so.6" in elf.dynamic.needed
    assert elf.tls is not None
    assert elf.tls.memsz in (140, 144)
    found = tls_relocations(elf)
    assert len(found.tpoff) == 1
    assert len(found.dtpmod) == 1
    assert all(r.type in row.supported for r, _ in (*found.tpoff, *found.dtpmod, *found.dtpoff))


def _image(row: Machine, soname: str | None = None, symbols: list[Sym] | None = None) -> Image:
    little = row.data == 1
    return Image(32 * row.elf_class, little, row.e_machine, soname=soname, symbols=symbols or [])


def system(row: Machine, root: Path, release: str = "2.36") -> None:
    """Make a root with a loader, a C library and the machine's real file as /x.so."""
    directories = (f"/lib/{row.triplet}/", f"/usr/lib/{row.triplet}/", "/lib/", "/usr/lib/")
    names = [f"GNU C Library (small) stable release version {release}.\n", *directories, "_rtld_global_ro"]
    flags = 4 if row.name == "riscv64" else 2 if row.name == "ppc64" else 0
    loader = _image(row, soname="ld.so", symbols=[Sym(name, 64, 8) for name in names])
    functions = ("malloc", "__tls_get_addr", "___tls_get_addr", "__tls_get_offset", "__tls_get_addr_opt")
    size, align = MEASURED[row.name][0]
    libc = _image(row, soname="libc.so.6", symbols=[Sym(name, 64, 8) for name in functions])
    libc.tls = (size, align, b"")
    alias = _image(row, soname=Path(row.interp).name, symbols=[Sym(name, 64, 8) for name in functions])
    for path, image in ((row.interp, loader), (f"/lib/{row.triplet}/libc.so.6", libc)):
        target = Path(f"{root}{path}")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_flagged(image.build().data, row, flags))
    beside = Path(f"{root}/lib/{row.triplet}/{Path(row.interp).name}")
    beside.write_bytes(_flagged(alias.build().data, row, flags))
    (root / "x.so").write_bytes(fixture(row).read_bytes())


def _flagged(data: bytes, row: Machine, flags: int) -> bytes:
    at = 48 if row.elf_class == 2 else 36
    return data[:at] + flags.to_bytes(4, "little" if row.data == 1 else "big") + data[at + 4 :]


@pytest.fixture
def _small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of 4 KiB everywhere, as the writer of images aligns segments."""
    for key, row in MACHINES.items():
        monkeypatch.setitem(MACHINES, key, row.but(page=4096))


@EVERY
@pytest.mark.usefixtures("_small_pages")
def test_a_file_is_checked_in_a_process_of_its_machine(row: Machine, tmp_path: Path) -> None:
    """`plain` is of the file's machine, its block has the size that real ones have, and the file takes its part."""
    system(row, tmp_path)
    start = dlwhy.check([], dlwhy.Host.plain({}), sysroot=str(tmp_path))
    assert start.host.machine == row.name
    _, used, size = MEASURED[row.name]
    assert start.static_tls is not None
    assert (start.static_tls.used, start.static_tls.size - start.static_tls.tcb) == (used, size)
    report = dlwhy.check(["/x.so"], sysroot=str(tmp_path))
    assert report.host.machine == row.name
    assert [(step.outcome, step.message) for step in report.steps] == [("loads", None)]
    assert report.static_tls is not None
    assert report.static_tls.used > used


@EVERY
@pytest.mark.usefixtures("_small_pages")
def test_what_no_loader_takes(row: Machine, tmp_path: Path) -> None:
    """A file of another byte order, class, or with a relocation that the machine's loader has not is refused."""
    system(row, tmp_path)
    flags = 4 if row.name == "riscv64" else 0
    kind = next(number for number in range(60, 250) if number not in row.supported)
    rela = row.name not in ("i386", "arm")
    image = _image(row)
    image.data, image.relocs, image.rela = bytes(64), [Reloc(0, kind)], rela
    (tmp_path / "odd.so").write_bytes(_flagged(image.build().data, row, flags))
    data = bytearray(fixture(row).read_bytes())
    data[5] = 3 - data[5]
    (tmp_path / "order.so").write_bytes(data)
    data = bytearray(fixture(row).read_bytes())
    data[4] = 3 - data[4]
    (tmp_path / "class.so").write_bytes(data)
    steps = ["/odd.so", "/order.so", "/class.so"]
    told = [step.message for step in dlwhy.check(steps, dlwhy.Host.plain({}), sysroot=str(tmp_path)).steps]
    order = "little" if row.data == 1 else "big"
    other = "ELFCLASS32" if row.elf_class == 2 else "ELFCLASS64"
    assert told == [
        f"/odd.so: unexpected reloc type 0x{kind:02x}",
        f"/order.so: ELF file data encoding not {order}-endian",
        f"/class.so: wrong ELF class: {other}",
    ]


def test_processors_have_names() -> None:
    """Each name for --cpu belongs to a machine, and is refused on another one."""
    assert set(every_name()) == {*NAMES, *(name for every in MODELS.values() for name in every)}
    assert "power9" in names_of(21)
    assert "power9" not in names_of(183)
    assert set(NAMES) < set(names_of(3))
    new = glibc((2, 43))
    assert MODELS[22]["z17"].subdirectories(new)[0] == "glibc-hwcaps/z17/"
    old = glibc((2, 31))
    assert MODELS[183]["armv8.1-a"].subdirectories(old) == [
        "tls/aarch64/atomics/", "tls/aarch64/", "tls/atomics/", "tls/", "aarch64/atomics/", "aarch64/", "atomics/",
    ]  # fmt: skip


def test_a_processor_of_another_machine_is_refused(tmp_path: Path) -> None:
    """--cpu with a name that is none of the process's machine is a usage error that lists those that are."""
    system(MACHINES[183, 2], tmp_path)
    with pytest.raises(dlwhy.errors.UsageError, match=r"--cpu power9: of aarch64, write armv8-a or armv8.1-a"):
        dlwhy.check(["/x.so"], sysroot=str(tmp_path), cpu="power9")
    assert dlwhy.check(["/x.so"], sysroot=str(tmp_path), cpu="armv8-a").steps[0].outcome == "loads"
