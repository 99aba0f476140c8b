"""Views: bounded bytes of a file or a literal."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from dlwhy import view as view_module
from dlwhy.elf.file import Elf
from dlwhy.elf.symbols import StaticSymbols, gnu_hash
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import FilesError, OutOfBounds, TooLarge
from dlwhy.files import Files
from dlwhy.view import HEAD, LARGEST_READ, FileView, View
from tests.elf.images import everything
from tests.elf_writer import Reloc, Sym

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 100


@pytest.fixture(params=["literal", "file"])
def view(request: pytest.FixtureRequest, tmp_path: Path) -> View:
    """The same bytes as a literal and as a file."""
    if request.param == "literal":
        return View("made", DATA)
    (tmp_path / "file").write_bytes(DATA)
    return Files().open(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("offset", "size"), [(0, 0), (0, 4), (HEAD - 2, 4), (HEAD, 300), (len(DATA) - 5, 5), (len(DATA), 0)]
)
def test_read(view: View, offset: int, size: int) -> None:
    """What lies inside is read exactly, on either side of the bytes that are kept."""
    assert view.read(offset, size) == DATA[offset : offset + size]
    buffer = bytearray(size)
    view.read_into(buffer, offset)
    assert buffer == DATA[offset : offset + size]


@pytest.mark.parametrize(
    ("offset", "size"),
    [(-1, 4), (0, len(DATA) + 1), (len(DATA) - 3, 4), (1 << 63, 1), ((1 << 64) - 1, 8), (4, -2), (len(DATA), 1)],
)
def test_read_outside(view: View, offset: int, size: int) -> None:
    """What leaves the file is refused, with the place and the limit; nothing is cut short in silence."""
    with pytest.raises(OutOfBounds, match=f"{len(DATA):#x}|ends at|kept"):
        view.read(offset, size)
    if size > 0:
        with pytest.raises(OutOfBounds):
            view.read_into(bytearray(min(size, 1 << 20)), offset)


def test_some(view: View) -> None:
    """A window may be short at the end of the file, and is empty behind it."""
    assert view.some(len(DATA) - 3, 10) == DATA[-3:]
    assert view.some(len(DATA), 10) == view.some(1 << 64, 10) == view.some(-1, 10) == b""


def test_one_read_is_bounded(tmp_path: Path) -> None:
    """A table of a size that no honest file has is not read, even where the file is (sparsely) that large."""
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, 1 << 40)
    view = Files().open(str(path))
    with pytest.raises(TooLarge, match=str(LARGEST_READ)):
        view.read(0, LARGEST_READ + 1)


def test_a_file_that_shrinks(tmp_path: Path) -> None:
    """A file cut while it is examined is told, where a mapping would kill the process."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    view = Files().open(str(path))
    os.truncate(path, HEAD)
    for read in (lambda: view.read(HEAD, 100), lambda: view.read_into(bytearray(100), HEAD)):
        with pytest.raises(OutOfBounds, match="shrank"):
            read()
    assert view.read(0, HEAD) == DATA[:HEAD]


def test_a_closed_view_opens_again(tmp_path: Path) -> None:
    """A view that gave its descriptor back reads on; when another file has taken the name, it says so."""
    path = tmp_path / "file"
    path.write_bytes(DATA)
    files = Files()
    view = files.open(str(path))
    files.close()
    assert view.read(HEAD, 10) == DATA[HEAD : HEAD + 10]
    files.close()
    view.close()
    path.unlink()
    path.write_bytes(DATA)
    os.utime(path, ns=(1, 1))
    with pytest.raises(FilesError, match="replaced"):
        view.read(HEAD, 10)
    path.unlink()
    with pytest.raises(FilesError, match="No such file"):
        view.read(HEAD, 10)


def test_a_directory(tmp_path: Path) -> None:
    """A directory opens, as for the loader; what fails is reading it."""
    view = Files().open(str(tmp_path))
    assert (view.head, view.size, view.regular) == (b"", 0, False)
    assert view.read_errno == 21  # EISDIR


def test_what_blocks_is_not_read(tmp_path: Path) -> None:
    """A FIFO is opened and not read; /dev/zero answers at once and is read no further than its head."""
    os.mkfifo(tmp_path / "fifo")
    view = Files().open(str(tmp_path / "fifo"))
    assert (view.head, view.size, view.regular, view.read_errno) == (b"", 0, False, 0)
    zero = Files().open("/dev/zero")
    assert (zero.head, zero.size, zero.regular) == (bytes(HEAD), HEAD, False)
    with pytest.raises(OutOfBounds):
        zero.read(0, HEAD + 1)


class Recording(FileView):
    """A file that remembers what was read of it."""

    reads: list[tuple[int, int]]

    def _fetch(self, offset: int, size: int) -> bytes:
        self.reads.append((offset, size))
        return super()._fetch(offset, size)

    def read_into(self, buffer: bytearray | memoryview, offset: int) -> None:
        if offset + len(buffer) > HEAD:
            self.reads.append((offset, len(buffer)))
        super().read_into(buffer, offset)


def recording(path: Path) -> Recording:
    """Open a file so that its reads are kept; the head is the first."""
    view = Recording(str(path), os.open(path, os.O_RDONLY), lambda _: os.open(path, os.O_RDONLY))
    view.reads = [(0, HEAD)]
    return view


def test_reads_of_a_small_file(tmp_path: Path) -> None:
    """All facts of a file that fits in the head cost one read."""
    path = tmp_path / "small.so"
    path.write_bytes(everything(data=bytes(2048)).build().data)
    assert path.stat().st_size < HEAD
    view = recording(path)
    elf = Elf(view)
    assert elf.dynamic is not None and elf.dynamic.needed and elf.versions.needs and elf.symbols.data
    assert tls_relocations(elf).tpoff and StaticSymbols(elf).tls() and elf.interp
    assert elf.symbols.look_up({b"function_3": gnu_hash(b"function_3")})
    assert view.reads == [(0, HEAD)]


def test_no_byte_is_read_twice(tmp_path: Path) -> None:
    """Of a larger file each table is read once, whatever is asked how often; nothing is read before it is asked for."""
    symbols = [Sym(f"a_function_with_a_longish_name_{n}", 16 * n, 16, version="W_1") for n in range(6000)]
    image = everything(symbols=symbols, relocs=[Reloc(0, 8)] * 3000, jump=[], buckets=997, hash=("gnu",))
    path = tmp_path / "large.so"
    path.write_bytes(image.build().data)
    view = recording(path)
    elf = Elf(view)
    assert elf.tls and elf.interp and elf.loads
    assert view.reads == [(0, HEAD)]
    wanted = {f"a_function_with_a_longish_name_{n}".encode(): 0 for n in range(0, 6000, 7)}
    wanted = {name: gnu_hash(name) for name in wanted}
    for _ in range(3):
        assert elf.dynamic is not None and elf.dynamic.needed and elf.dynamic.soname and elf.dynamic.runpath
        assert elf.versions.needs and elf.versions.defines
        assert len(elf.symbols.look_up(wanted)) == len(wanted)
        assert elf.symbols.symbol(17).name and elf.versions.index_of(17) == 2
        assert elf.sections
    tables_read = sum(size for _, size in view.reads)
    distinct = set[int]()
    for offset, size in view.reads:
        distinct.update(range(offset, offset + size))
    assert tables_read <= 1.1 * len(distinct) + 4 * HEAD, view.reads
    assert len(view.reads) <= 16, view.reads


def test_the_largest_read_holds_every_table_of_an_honest_file() -> None:
    """The bound on one read is far above what a head or a table needs."""
    assert view_module.HEAD < 1 << 16 < LARGEST_READ
