"""Laws of the static TLS block, one class per sentence of its sources."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from dlwhy.loader.tls import Segment, StaticTls, lay_out


@st.composite
def segments(draw):
    """A segment whose start lies somewhere inside its alignment."""
    align = 1 << draw(st.integers(0, 9))
    return Segment(draw(st.integers(1, 5000)), align, draw(st.integers(0, align - 1)))


@st.composite
def machines(draw):
    """(variant, counted TCB, least alignment)."""
    return draw(st.sampled_from([(2, 0, 64), (2, 0, 32), (1, 16, 32), (1, 8, 16), (1, 0, 32)]))


def span(variant, offset, segment):
    """(start, end) of a block in distance from the thread pointer, or from the area's start."""
    return (offset - segment.memsz, offset) if variant == 2 else (offset, offset + segment.memsz)


class TestCongruence:
    """p_vaddr mod p_align == &TLS_BLOCK mod p_align    -- glibc elf/dl-tls.c, _dl_determine_tlsoffset."""

    @given(st.lists(segments(), min_size=1, max_size=8), machines())
    def test_every_start_up_block_keeps_it(self, mapped, machine):
        """Each block laid out at start-up starts where its segment's address says."""
        variant, start, least = machine
        layout = lay_out(tuple(mapped), variant, start, least, 1664, None)
        for offset, segment in zip(layout.offsets, mapped, strict=True):
            where = -offset if variant == 2 else offset
            assert where % segment.align == segment.first_byte

    @given(st.lists(segments(), max_size=4), st.lists(segments(), min_size=1, max_size=6))
    def test_every_latecomer_keeps_it(self, mapped, late):
        """Each block taken from the surplus does too."""
        block = StaticTls(lay_out(tuple(mapped), 2, 0, 64, 1664, None), 2, 512)
        for segment in late:
            place = block.take(segment, optional=False)
            if place is not None:
                assert -place[0] % segment.align == segment.first_byte


class TestDisjoint:
    """Every thread gets its own block of each module    -- ELF TLS ch. 3."""

    @given(st.lists(segments(), min_size=2, max_size=8), machines())
    def test_no_two_start_up_blocks_overlap(self, mapped, machine):
        """No byte of the area belongs to two modules, and all lie in the used part."""
        variant, start, least = machine
        layout = lay_out(tuple(mapped), variant, start, least, 1664, None)
        spans = sorted(span(variant, offset, segment) for offset, segment in zip(layout.offsets, mapped, strict=True))
        for (_, end), (begin, _) in pairwise(spans):
            assert end <= begin
        assert spans[-1][1] <= layout.used

    @given(st.lists(segments(), max_size=3), st.lists(segments(), min_size=1, max_size=8))
    def test_latecomers_lie_above_all_before(self, mapped, late):
        """A latecomer starts behind everything in use and ends inside the block."""
        block = StaticTls(lay_out(tuple(mapped), 2, 0, 64, 1664, None), 2, 512)
        for segment in late:
            used = block.used
            place = block.take(segment, optional=False)
            if place is None:
                assert segment.align > block.align or block.free < segment.memsz + segment.first_byte
            else:
                assert place[0] - segment.memsz >= used
                assert block.used <= block.size


class TestBudget:
    """Optional users may not take more than the optional part    -- glibc commit ffb17e7ba3."""

    @given(st.lists(segments(), min_size=1, max_size=12), st.integers(0, 2000))
    def test_descriptors_never_take_more_than_it(self, late, optional):
        """All optional takers together use at most the budget."""
        block = StaticTls(lay_out((Segment(144, 8, 0),), 2, 0, 64, 1152 + optional, None), 2, optional)
        before = block.used
        for segment in late:
            block.take(segment, optional=True)
        assert block.used - before <= optional
        assert block.optional_left == optional - (block.used - before)


class TestGivingBack:
    """Only what ends at the end of the used part comes back    -- glibc elf/dl-close.c, _dl_close_worker."""

    @given(st.lists(segments(), min_size=1, max_size=6), st.randoms(use_true_random=False))
    def test_used_never_grows_nor_falls_below_the_start(self, late, random):
        """Closing in any order leaves the used part between its start value and what it was."""
        block = StaticTls(lay_out((Segment(144, 8, 0),), 2, 0, 512, 1 << 16, None), 2, 512)
        start = block.used
        taken = [(place[0], s.memsz, place[1]) for s in late if (place := block.take(s, optional=False))]
        random.shuffle(taken)
        while taken:
            before = block.used
            count = random.randint(1, len(taken))
            block.give_back(taken[:count])
            del taken[:count]
            assert start <= block.used <= before
