"""How much of the static TLS surplus others may take before a load, and which segments could never come in.

Both are answered by the loader's own arithmetic: the places that a step took are given out again, behind more and more
bytes that somebody else has taken first. Rule: nothing here changes the process.
"""

from __future__ import annotations

from dlwhy.loader import tls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process


def others_may_take(process: Process, one: LinkMap) -> int | None:
    """Return how many bytes others may take before the step that placed `one`, which then still loads.

    None for what has its place from the start, and for what needs none (a TLS descriptor is content without).
    """
    static = process.static
    if static is None or not one.static_since.startswith("step") or not _required(process, one):
        return None
    late = sorted(
        (
            other for space in process.namespaces for other in space.maps
            if isinstance(other.tls_offset, int) and other.static_since.startswith("step") and other.tls is not None
        ),
        key=lambda other: other.tls_before,
    )  # fmt: skip
    step = [other for other in late if other.static_since == one.static_since]
    base = step[0].tls_before
    budget = static.optional_left
    if budget is not None:
        content = (other for other in late if other.tls_before >= base and not _required(process, other))
        budget += sum(_use(other, static.variant) for other in content)

    def fits(taken: int) -> bool:
        again = tls.StaticTls(tls.Layout((), base + taken, static.align, static.size), static.variant, budget)
        for other in step:
            assert other.tls is not None
            needed = _required(process, other)
            if again.take(other.tls, optional=not needed) is None and needed:
                return False
        return True

    low, high = -1, static.size - base + 1  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low if low >= 0 else None


def could_not_come_in(process: Process, one: LinkMap) -> bool:
    """Whether an object, dynamic as it is, would not load if anything accessed it as initial-exec."""
    static = process.static
    if static is None or one.tls is None or isinstance(one.tls_offset, int) or not one.tls.memsz:
        return False
    try:
        return static.place(one.tls) is None
    except ZeroDivisionError:
        return False


def _required(process: Process, one: LinkMap) -> bool:
    return any(victim is one for found in process.forced.values() for _, victim, _, _ in found)


def _use(one: LinkMap, variant: int) -> int:
    assert isinstance(one.tls_offset, int)
    assert one.tls is not None
    return one.tls_offset + (0 if variant == 2 else one.tls.memsz) - one.tls_before
