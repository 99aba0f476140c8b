"""Laws of the ledger of a TLS segment, for whatever a file may claim."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from dlwhy.attribute.ledger import TAIL, Claims, Ledger, Variable, balance

sizes = st.one_of(st.integers(0, 64), st.integers(0, 1 << 64))
variables = st.lists(
    st.builds(
        Variable,
        st.one_of(st.integers(0, 300), st.integers(-8, 1 << 64)),
        sizes,
        st.sampled_from(["a", "b", "", "_c", "d@@V", "e" * 5000]),
        st.just(".symtab"),
        st.sampled_from([None, "", "f.c"]),
    ),
    max_size=25,
)
sections = st.lists(
    st.tuples(st.integers(0, 1 << 13), st.one_of(st.integers(0, 300), st.integers(0, 1 << 64))), max_size=5
)
alignments = st.one_of(st.sampled_from([1 << n for n in range(13)]), st.integers(0, 1 << 64))


class TestSum:
    """Every byte of the block has exactly one owner, is padding, or is unattributed."""

    @given(
        st.one_of(st.integers(0, 300), sizes), st.integers(0, 1 << 64), alignments, variables, sections, st.booleans()
    )
    @example(0, 0, 0, [], [], True)
    @example(8, 4096, 8, [Variable(0, 1 << 64, "a", ".symtab", None)], [], False)
    def test_adds_up(
        self, memsz: int, vaddr: int, align: int, given_: list[Variable], where: list[tuple[int, int]], complete: bool
    ) -> None:
        """Lines, padding and unattributed bytes add up to p_memsz and none is negative; lines do not overlap."""
        ledger = balance(memsz, vaddr, align, given_, where, complete)
        assert sum(line.bytes for line in ledger.lines) + ledger.padding + ledger.unattributed == ledger.memsz == memsz
        assert ledger.padding >= 0 <= ledger.unattributed
        end = 0
        for line in ledger.lines:
            assert line.bytes > 0
            assert line.offset >= end
            end = line.offset + line.bytes
        assert end <= memsz

    @given(st.integers(0, 400), variables, sections, st.booleans(), st.lists(variables, max_size=3), st.booleans())
    def test_weaker_sources(
        self, memsz: int, given_: list[Variable], where: list[tuple[int, int]], complete: bool,
        more: list[list[Variable]], whole: bool,
    ) -> None:  # fmt: skip
        """Weaker sources only speak of what was unattributed without them, and the sum stays."""
        plain = balance(memsz, 0x1000, 64, given_, where, complete)
        claims = [Claims(tuple(one), whole) for one in more]
        ledger = balance(memsz, 0x1000, 64, given_, where, complete, claims)
        assert sum(line.bytes for line in ledger.lines) + ledger.padding + ledger.unattributed == memsz
        assert set(plain.lines) <= set(ledger.lines)
        assert ledger.padding >= plain.padding and ledger.unattributed <= plain.unattributed
        end = 0
        for line in ledger.lines:
            assert line.bytes > 0 and line.offset >= end
            end = line.offset + line.bytes
        assert end <= memsz
        if not whole:
            assert sum(high - low for low, high in ledger.unnamed) == ledger.unattributed

    @given(st.integers(0, 400), variables, sections, st.booleans())
    def test_lines_are_the_union(
        self, memsz: int, given_: list[Variable], where: list[tuple[int, int]], complete: bool
    ) -> None:
        """The bytes billed are exactly those that some named variable covers."""
        covered: set[int] = set()
        for one in given_:
            if one.name and one.offset >= 0:
                covered.update(range(one.offset, min(one.offset + one.size, memsz)))
        ledger = balance(memsz, 0x1000, 64, given_, where, complete)
        assert sum(line.bytes for line in ledger.lines) == len(covered)

    @given(st.integers(0, 400), variables, sections, st.booleans(), st.randoms())
    def test_order_does_not_matter(
        self, memsz: int, given_: list[Variable], where: list[tuple[int, int]], complete: bool, random: object
    ) -> None:
        """The order of a symbol table changes nothing."""
        mixed = list(given_)
        random.shuffle(mixed)  # type: ignore[attr-defined]
        one, other = (balance(memsz, 0x40, 32, v, where, complete) for v in (given_, mixed))
        assert (one.padding, one.unattributed) == (other.padding, other.unattributed)
        assert [(line.offset, line.bytes) for line in one.lines] == [(line.offset, line.bytes) for line in other.lines]


class TestPadding:
    """A gap is padding only when something says so."""

    @given(st.integers(0, 400), variables)
    def test_without_sections_and_full_table_nothing_is_padding(self, memsz: int, given_: list[Variable]) -> None:
        """With exported symbols only, a small variable without a name looks like padding: all gaps are unattributed."""
        assert balance(memsz, 0, 64, given_).padding == 0

    @given(st.integers(1, 400), st.booleans(), st.sampled_from([1, 8, 64]))
    def test_a_segment_without_a_variable_is_unattributed(self, memsz: int, complete: bool, align: int) -> None:
        """A segment in which nothing is known is not padding, however small."""
        assert balance(memsz, 0x1000, align, [], [(0x1000, memsz)], complete) == Ledger(
            memsz, (), 0, memsz, ((0, memsz),)
        )
        assert balance(memsz, 0x1000, align, [], [], complete) == Ledger(memsz, (), 0, memsz, ((0, memsz),))

    @given(
        st.lists(
            st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 4, 8, 16, 32]), st.sampled_from("abc")),
            min_size=1,
            max_size=20,
        ),
        st.booleans(),
    )
    def test_what_a_linker_lays_out_is_all_explained(
        self, wanted: list[tuple[int, int, str]], with_sections: bool
    ) -> None:
        """Variables laid out one behind the other at their alignment leave nothing but padding."""
        align = max(one[1] for one in wanted)
        position = 0
        laid = []
        for number, (size, need, name) in enumerate(wanted):
            position += -position % need
            laid.append(Variable(position, size, f"{name}{number}", ".symtab", None))
            position += size
        memsz = position + -position % align
        where = [(0x1000, position)] if with_sections else []
        ledger = balance(memsz, 0x1000, align, laid, where, complete=True)
        assert ledger.unattributed == 0
        assert sum(line.bytes for line in ledger.lines) == sum(size for size, _, _ in wanted)

    def test_between_sections(self) -> None:
        """The gap between .tdata and .tbss is padding, also when only exported names are known."""
        ledger = balance(48, 0x1000, 32, [Variable(0, 4, "a", ".dynsym", None)], [(0x1000, 4), (0x1020, 16)])
        assert (ledger.padding, ledger.unattributed) == (28, 16)

    def test_a_gap_that_alignment_does_not_explain(self) -> None:
        """Between two 4-byte variables 12 bytes are more than alignment asks for: somebody's."""
        two = [Variable(0, 4, "a", ".symtab", None), Variable(12, 4, "b", ".symtab", None)]
        ledger = balance(16, 0x1000, 16, two, [(0x1000, 16)], complete=True)
        assert (ledger.padding, ledger.unattributed) == (0, 8)

    def test_a_large_hole_between_sections_is_not_padding(self) -> None:
        """Section headers that leave most of the segment out explain nothing."""
        ledger = balance(4096, 0x1000, 16, [Variable(0, 8, "a", ".symtab", None)], [(0x1000, 8)], complete=True)
        assert (ledger.padding, ledger.unattributed) == (0, 4088)


class TestAliases:
    """Names of one place are one variable."""

    def test_equal_places_are_one_line(self) -> None:
        """Two names for one (offset, size) make one line, shown under the plainer one."""
        pair = [Variable(0, 4, "__libc_errno", ".symtab", None), Variable(0, 4, "errno@@V", ".symtab", None)]
        (line,) = balance(4, 0, 4, [*pair, Variable(0, 4, "errno", ".symtab", None)]).lines
        assert [one.name for one in line.variables] == ["errno", "__libc_errno", "errno@@V"]

    def test_inside_another(self) -> None:
        """A variable wholly inside an earlier one costs nothing; one that reaches out costs what is new."""
        inside, beyond = Variable(4, 4, "in", ".symtab", None), Variable(12, 8, "out", ".symtab", None)
        lines = balance(64, 0, 4, [inside, beyond, Variable(0, 16, "all", ".symtab", None)]).lines
        assert [(line.offset, line.bytes) for line in lines] == [(0, 16), (16, 4)]


def test_fifty_thousand_symbols_are_quick() -> None:
    """A large table is one sweep: 50,000 variables and the gaps between them in well under the limit."""
    import time

    many = [Variable(8 * n, 4, f"v{n}", ".symtab", None) for n in range(50_000)]
    start = time.process_time()
    ledger = balance(400_000, 0, 8, many, [(0, 400_000)], complete=True)
    assert time.process_time() - start < 3.0
    assert ledger.padding == 200_000
    assert TAIL == 16
