"""musl's rules one by one, on bytes made for it; how they work together is compared in tests/oracle/test_musl.py."""

from __future__ import annotations

import struct

import pytest

from dlwhy.elf.machine import EM_X86_64, MACHINES
from dlwhy.files import DictFiles
from dlwhy.loader.faults import Death, Unknown
from dlwhy.loader.host import RTLD_NOW, ProcessSettings
from dlwhy.loader.musl.dso import Dso, counts
from dlwhy.loader.musl.mapping import Refused, map_library
from dlwhy.loader.musl.memory import Memory
from dlwhy.loader.musl.process import queue
from dlwhy.loader.musl.releases import FEATURES, NEWEST, OLDEST, musl, strerror, told
from dlwhy.loader.musl.relocate import relr
from dlwhy.loader.musl.search import Finder, is_builtin
from dlwhy.loader.objects import Objects
from dlwhy.view import View

R, W, X = 4, 2, 1
BANNER = b"\0musl libc (x86_64)\nVersion %s\nDynamic Program Loader\n\x00127.0.0.1\0"


def settings(env: dict[str, str] | None = None, release: tuple[int, int, int] = (1, 2, 5)) -> ProcessSettings:
    """A process of `plain`."""
    return ProcessSettings(
        None, "plain", env or {}, "/work", False, MACHINES[EM_X86_64, 2], musl(release, "1.2.5"),  # type: ignore[arg-type]
        "/lib/ld-musl-x86_64.so.1", None, False, 4096, RTLD_NOW, (28, 32),
    )  # fmt: skip


def image(*headers: tuple[int, int, int, int, int, int], kind: int = 3, size: int = 0x3000) -> View:
    """A file of (type, flags, offset, vaddr, filesz, memsz) program headers."""
    ehdr = struct.pack("<16xHHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, len(headers), 0, 0, 0)
    rows = b"".join(struct.pack("<IIQQQQQQ", t, f, o, v, v, fs, ms, 4096) for t, f, o, v, fs, ms in headers)
    data = (ehdr + rows).ljust(0x1000, b"\xee")
    return View("x.so", data.ljust(size, b"\0"))


def mapped(view: View, release: tuple[int, int, int] = (1, 2, 5), taken: tuple[int, int] | None = (0, 0)) -> object:
    """What map_library makes of a file."""
    return map_library(view, "x.so", settings(release=release), lambda _size: True, taken)


DYNAMIC = (2, W, 0x2000, 0x2000, 0x10, 0x10)


class TestReleases:
    """Rows of data, and how a loader is told."""

    def test_rows(self) -> None:
        """Every row begins with the oldest release, and its releases rise."""
        for rows in FEATURES.values():
            since = [row[0] for row in rows]
            assert since[0] == OLDEST
            assert since == sorted(since)
            assert since[-1] <= NEWEST

    @pytest.mark.parametrize(
        ("text", "release"), [(b"1.2.3", (1, 2, 3)), (b"1.2.5-git-7-gabc", (1, 2, 5)), (b"1.1.24", (1, 1, 24))]
    )
    def test_told(self, text: bytes, release: tuple[int, int, int]) -> None:
        """The version stands by itself among the strings, beside addresses that look like one."""
        assert told(BANNER + text + b"\0") == (release, text.decode())

    def test_not_told(self) -> None:
        """A loader without a version is musl's all the same; one without musl's words is not."""
        assert told(BANNER) == ((0, 0, 0), "")
        assert told(b"\0GNU C Library\x001.2.3\0") is None

    def test_between(self) -> None:
        """A release takes the row of the last one that changed something; one beyond is not known."""
        assert (musl((1, 2, 3), "").relr, musl((1, 2, 4), "").relr) == (False, True)
        assert (musl((1, 2, 6), "").known, musl((1, 3, 0), "").known, musl((1, 1, 24), "").known) == (
            True,
            False,
            False,
        )

    def test_words(self) -> None:
        """Errors have musl's own words."""
        assert [strerror(n) for n in (0, 12, 40)] == ["No error information", "Out of memory", "Symbolic link loop"]


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("libc.so", True),
        ("libm.so.6", True),
        ("libpthread.anything", True),
        ("libcrypt.so.1", False),
        ("libmm.so", False),
    ],
)
def test_builtin(name: str, own: bool) -> None:
    """Some names are the loader itself, whatever follows them."""
    assert is_builtin(name) == own


class TestMapping:
    """map_library, by what it refuses and what it does not look at."""

    def test_what_is_not_checked(self) -> None:
        """Neither magic nor class nor machine is looked at: the file of nothing but zeros in e_ident is mapped."""
        found = mapped(image((1, R | W, 0, 0, 0x3000, 0x3000), DYNAMIC))
        assert found.dyn == 0x2000  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("view", "errno"),
        [
            (View("x.so", b"short"), 8), (image(DYNAMIC, kind=1), 8), (image((1, R, 0, 0, 0x3000, 0x3000)), 8),
            (image((1, R | W, 0, 0, 0x3000, 1 << 62), DYNAMIC), 12),
        ],
    )  # fmt: skip
    def test_refused(self, view: View, errno: int) -> None:
        """Too short, of another type, without PT_DYNAMIC, larger than the address space."""
        with pytest.raises(Refused) as refused:
            mapped(view)
        assert refused.value.errno == errno

    def test_empty_segments(self) -> None:
        """A segment without bytes is refused by 1.2.2 and passed over since."""
        view = image((1, R | W, 0, 0, 0x2010, 0x2010), (1, R, 0x2000, 0x4000, 0, 0), DYNAMIC)
        with pytest.raises(Refused):
            mapped(view, (1, 2, 2))
        assert mapped(view, (1, 2, 3))

    def test_fixed_place(self) -> None:
        """What must lie where the program lies is refused; where that is not known, it is undecided."""
        view = image((1, R | W, 0, 0x400000, 0x3000, 0x3000), (2, W, 0x2000, 0x402000, 16, 16), kind=2)
        with pytest.raises(Refused):
            mapped(view, taken=(0x400000, 0x401000))
        with pytest.raises(Unknown):
            mapped(view, taken=None)
        assert mapped(view)

    def test_no_load(self) -> None:
        """Without PT_LOAD it depends on what nobody set."""
        with pytest.raises(Unknown, match="PT_LOAD"):
            mapped(image(DYNAMIC))


class TestMemory:
    """Bytes, or the end of a process."""

    def made(self) -> Memory:
        """Two pages of a file of a page and a half, one page of zeros."""
        memory = Memory("x.so", View("x.so", bytes(range(256)) * 24), 4096)
        memory.map(0, 0x4000, 0, R)
        memory.map(0x4000, 0x5000, -1, R | W)
        return memory

    def test_reading(self) -> None:
        """The last page of a file ends in zeros; a page behind it kills, and so does one that is far away."""
        memory = self.made()
        assert memory.read(0x17FE, 4) == b"\xfe\xff\0\0"
        assert memory.u32(0x4010) == 0
        with pytest.raises(Death) as death:
            memory.read(0x2000, 1)
        assert death.value.status == -7
        with pytest.raises(Death) as death:
            memory.u64(1 << 40)
        assert death.value.status == -11

    def test_beside(self) -> None:
        """What lies near an object is not known, on either side."""
        memory = self.made()
        for address in (0x5000, -8, (1 << 64) - 8):
            with pytest.raises(Unknown):
                memory.u64(address)

    def test_writing(self) -> None:
        """Pages have permissions, which change; what was cleared stays so when others are mapped."""
        memory = self.made()
        memory.write(0x4FF8, 8)
        with pytest.raises(Death, match="not writable"):
            memory.write(0, 1)
        assert memory.protect(0, 0x1000, R | W)
        memory.clear(1, 3)
        memory.map(0x5000, 0x6000, -1, R)
        assert memory.read(0, 6) == b"\0\0\0\0\x04\x05"
        assert not memory.protect(0x5000, 0x7000, R)

    def test_text(self) -> None:
        """A string goes on across pages, up to its end."""
        assert self.made().text(0xFF1) == bytes(range(0xF1, 0x100))


class TestSearch:
    """Lists of places in musl's order."""

    def find(
        self, name: str, files: dict[str, bytes], env: dict[str, str] | None = None, **more: object
    ) -> tuple[str, int | None]:
        """What is opened, and the error number that the search leaves."""
        asked = settings(env).but(**more)
        found = Finder(asked, Objects(DictFiles(files))).find(name, None)
        return found.path, found.errno

    def test_order(self) -> None:
        """The environment comes first; empty elements are none, a relative one is taken from where the process is."""
        files = {"/work/own/a.so": b"", "/lib/a.so": b"", "/usr/lib/b.so": b""}
        assert self.find("a.so", files, {"LD_LIBRARY_PATH": ":own:"}) == ("own/a.so", None)
        assert self.find("a.so", files)[0] == "/lib/a.so"
        assert self.find("b.so", files)[0] == "/usr/lib/b.so"
        assert self.find("c.so", files) == ("", 2)

    def test_secure(self) -> None:
        """In secure mode the environment is not read; what the loader is told in its stead counts."""
        files = {"/own/a.so": b""}
        assert self.find("a.so", files, {"LD_LIBRARY_PATH": "/own"}, secure=True)[0] == ""
        assert self.find("a.so", files, {}, explicit=True, library_path="/own")[0] == "/own/a.so"

    def test_path_file(self) -> None:
        """A file beside the loader names the system directories, parted by colons or lines."""
        files = {"/etc/ld-musl-x86_64.path": b"/one\n/two:/three\n", "/three/a.so": b"", "/lib/a.so": b""}
        assert self.find("a.so", files)[0] == "/three/a.so"
        moved = {"/opt/musl/etc/ld-musl-x86_64.path": b"/opt/x", "/opt/x/a.so": b"", "/lib/a.so": b""}
        assert self.find("a.so", moved, interpreter="/opt/musl/lib/ld.so")[0] == "/opt/x/a.so"

    def test_long_names(self) -> None:
        """A name of more than 255 bytes is not looked for, and leaves no error; a long directory is passed over."""
        assert self.find("x" * 256, {"/lib/" + "x" * 256: b""}) == ("", None)
        assert self.find("a.so", {"/lib/a.so": b""}, {"LD_LIBRARY_PATH": "/" + "y" * 600})[0] == "/lib/a.so"


def test_counts() -> None:
    """Indirect functions and symbols without a value are no definitions; undefined ones are where no call needs one."""
    function, ifunc, tls = 0x12, 0x1A, 0x16
    assert counts((1, 0, function, 5, 16, 0), True)
    assert not counts((1, 0, ifunc, 5, 16, 0), True)
    assert not counts((1, 0, function, 5, 0, 0), True)
    assert counts((1, 0, tls, 5, 0, 0), True)
    assert counts((1, 0, function, 0, 16, 0), False)
    assert not counts((1, 0, function, 0, 16, 0), True)
    assert not counts((1, 0, tls, 0, 16, 0), False)
    assert not counts(None, False)


def test_queue() -> None:
    """Constructors run depth first, needs before who needs them, and a cycle ends where it began."""
    top, left, right = (Dso(name, None, "loaded", None) for name in ("top", "left", "right"))
    top.deps, left.deps, right.deps = [left, right], [right, top], []
    top.direct, left.direct = 2, 2
    assert queue(top) == [right, left, top]


class TestBounds:
    """Files made to cost time are undecided, and cost little."""

    def test_segments(self) -> None:
        """Hundreds of segments, one over another."""
        with pytest.raises(Unknown, match="segments"):
            mapped(image(*[(1, R | W, 0, 0, 0x3000, 0x3000)] * 300, DYNAMIC, size=1 << 16))

    def test_relr(self) -> None:
        """A table of bitmaps, of which each stands for 63 places."""
        data = struct.pack("<Q", 0x1000) + struct.pack("<Q", (1 << 64) - 1) * 100_000
        memory = Memory("x.so", View("x.so", data), 4096)
        memory.map(0, len(data) + -len(data) % 4096, 0, R)
        with pytest.raises(Unknown, match="DT_RELR"):
            list(relr(memory, 0, len(data)))

    def test_names(self) -> None:
        """A string of megabytes, and many that overlap."""
        memory = Memory("x.so", View("x.so", b"x" * (1 << 21) + b"\0"), 4096)
        memory.map(0, (1 << 21) + 4096, 0, R)
        with pytest.raises(Unknown, match="a name"):
            memory.text(0)
        with pytest.raises(Unknown, match="names of more"):
            [memory.text((1 << 20) + 4096 + place) for place in range(200)]
