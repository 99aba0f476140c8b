"""The static TLS arithmetic against figures measured in real processes (none of them comes from dlwhy)."""

from __future__ import annotations

import pytest

from dlwhy.loader import tls
from dlwhy.loader.glibc import glibc
from dlwhy.loader.tls import Layout, Segment, StaticTls, lay_out

X86_64 = 62
RSEQ = (32, 32)


def plain(
    release: tuple[int, int], libc_tls: int, *, nns: int = 4, optional: int = 512, marks: bytes = b""
) -> StaticTls:
    """The static block of a C program that has libc's TLS only."""
    libc = glibc(release, None, marks)
    surplus = libc.surplus(nns, 0, optional)
    rseq = RSEQ if libc.rseq_block else None
    layout = lay_out((Segment(libc_tls, 8, 0),), 2, 0, libc.least_tls_align[X86_64], surplus, rseq)
    return StaticTls(layout, 2, optional if libc.tls_tunables else None)


def largest(block: StaticTls, align: int, first_byte: int = 0) -> int | None:
    """The largest memsz that still finds a place."""
    fits = [size for size in range(1, block.free + 200) if block.place(Segment(size, align, first_byte))]
    return max(fits, default=None)


DEBIAN_2_31 = b"...glibc.rtld.optional_static_tls..."

# release, libc's p_memsz, loader binary's marks, used before, size without TCB, largest at align 1..64
MEASURED = [
    ((2, 31), 144, DEBIAN_2_31, 144, 1856, 1712),
    ((2, 36), 144, b"", 144, 1856, 1712),
    ((2, 41), 136, b"", 192, 1856, 1664),
    ((2, 43), 128, b"", 160, 1856, 1696),
]


@pytest.mark.parametrize(("release", "libc_tls", "marks", "used", "size", "fits"), MEASURED)
def test_plain_process_has_the_measured_block(release, libc_tls, marks, used, size, fits):
    """A C program's block has the used bytes, size and largest latecomer that were measured on each real loader."""
    block = plain(release, libc_tls, marks=marks)
    assert (block.used, block.size, block.align) == (used, size, 64)
    assert {largest(block, align) for align in (1, 2, 4, 8, 16, 32, 64)} == {fits}
    assert largest(block, 128) is None


@pytest.mark.parametrize(
    ("release", "libc_tls", "marks", "at_16_8", "at_64_40"),
    [
        ((2, 31), 144, DEBIAN_2_31, 1704, 1672),
        ((2, 36), 144, b"", 1704, 1672),
        ((2, 41), 136, b"", 1656, 1624),
        ((2, 43), 128, b"", 1688, 1656),
    ],
)
def test_first_byte_offset_costs_what_was_measured(release, libc_tls, marks, at_16_8, at_64_40):
    """A segment that starts inside its alignment loses exactly the measured bytes."""
    block = plain(release, libc_tls, marks=marks)
    assert largest(block, 16, 8) == at_16_8
    assert largest(block, 64, 40) == at_64_40


@pytest.mark.parametrize(
    ("nns", "optional", "by_release"),
    [
        (1, 512, (688, 816, 832, 800)),
        (16, 512, (5744, 5168, 5120, 5152)),
        (4, 0, (1200, 1200, 1152, 1184)),
        (4, 4096, (5296, 5296, 5248, 5280)),
        (2, 1000, (1520, 1584, 1600, 1632)),
    ],
)
def test_tunables_give_what_was_measured(nns, optional, by_release):
    """Each pair of tunables leaves the measured room on all four loaders."""
    for (release, libc_tls, marks, *_), expected in zip(MEASURED, by_release, strict=True):
        assert largest(plain(release, libc_tls, nns=nns, optional=optional, marks=marks), 8) == expected


def test_upstream_2_31_has_no_tunables_and_no_budget():
    """Without the distribution's backport 2.31 has the constant surplus and descriptors compete for all of it."""
    libc = glibc((2, 31))
    assert libc.surplus(4, 3, 9999) == 1664
    assert libc.tls_tunables is False


def test_worked_example():
    """The example of the facts page: an executable, a library in its gap, libc behind, then one latecomer."""
    segments = (Segment(100, 64, 0), Segment(20, 4, 0), Segment(144, 8, 0))
    layout = lay_out(segments, 2, 0, 64, 1664, None)
    assert layout == Layout((128, 20, 272), 272, 64, 1984)
    block = StaticTls(layout, 2, 512)
    assert block.free == 1712
    assert block.take(Segment(1000, 32, 0), optional=False) == (1280, 272)
    assert block.used == 1280
    assert block.free == largest(block, 8) == 704


# machine, variant, counted TCB, T, libc's segment, used, size; largest at align 1, 8, 16, 32
OTHER_MACHINES = [
    ("aarch64", 1, 16, 32, (144, 16), 160, 1824, (1664, 1664, 1664, 1664)),
    ("riscv64", 1, 0, 32, (144, 8), 144, 1824, (1680, 1680, 1680, 1664)),
    ("ppc64le", 1, 0, 32, (144, 16), 144, 1824, (1680, 1680, 1680, 1664)),
    ("arm", 1, 8, 32, (84, 4), 92, 1760, (1668, 1664, 1664, 1664)),
    ("i386", 2, 0, 64, (84, 4), 84, 1792, (1708, 1708, 1708, 1708)),
    ("s390x", 2, 0, 32, (152, 8), 152, 1824, (1672, 1672, 1672, 1672)),
]


@pytest.mark.parametrize(("machine", "variant", "start", "least", "libc_tls", "used", "size", "fits"), OTHER_MACHINES)
def test_other_machines_have_the_measured_block(machine, variant, start, least, libc_tls, used, size, fits):
    """glibc 2.36 on the other machines: used, size and largest latecomer as measured under emulation."""
    layout = lay_out((Segment(libc_tls[0], libc_tls[1], 0),), variant, start, least, 1664, None)
    assert (layout.used, layout.size) == (used, size), machine
    block = StaticTls(layout, variant, 512)
    assert tuple(largest(block, align) for align in (1, 8, 16, 32)) == fits


@pytest.mark.parametrize(("release", "most"), [((2, 36), 496), ((2, 41), 512), ((2, 43), 480)])
def test_descriptor_of_alignment_64_pays_its_rounding_from_the_budget(release, most):
    """Of descriptors aligned to 64 the measured largest one is placed statically, and none above it."""
    libc_tls = {release: size for release, size, *_ in MEASURED}[release]
    assert plain(release, libc_tls).take(Segment(most, 64, 0), optional=True) is not None
    assert plain(release, libc_tls).take(Segment(most + 1, 64, 0), optional=True) is None


def test_budget_shrinks_by_what_is_used():
    """Two descriptor modules of 100 and 300 bytes leave 96 of 512 optional and 1296 of 1712 free bytes (measured)."""
    block = plain((2, 36), 144)
    assert block.take(Segment(100, 16, 0), optional=True)
    assert block.take(Segment(300, 16, 0), optional=True)
    assert (block.optional_left, block.free) == (96, 1296)
    assert block.take(Segment(300, 16, 0), optional=True) is None


def test_reverse_close_of_unaligned_sizes_leaks_as_measured():
    """Two 500-byte modules closed in reverse order: the second gives 500 of 504 back, the first then leaks whole."""
    block = plain((2, 36), 144)
    first, second = Segment(500, 8, 0), Segment(500, 8, 0)
    one = block.take(first, optional=False)
    two = block.take(second, optional=False)
    assert one is not None
    assert two is not None
    block.give_back([(two[0], 500, two[1])])
    assert block.used == two[0] - 500
    used = block.used
    block.give_back([(one[0], 500, one[1])])
    assert block.used == used


def test_alignment_zero_divides():
    """A segment with alignment 0 makes the loader divide by zero: the caller learns it as ZeroDivisionError."""
    with pytest.raises(ZeroDivisionError):
        plain((2, 36), 144).take(Segment(8, 0, 0), optional=False)


def test_rounding():
    """round_up gives multiples only."""
    assert [tls.round_up(value, 8) for value in (0, 1, 8, 9)] == [0, 8, 8, 16]
