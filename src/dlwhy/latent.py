"""Latent danger: what loads today and would not with a little more in its way."""

from __future__ import annotations

from dlwhy.elf.constants import DF_1_PIE, ET_DYN
from dlwhy.loader.room import could_not_come_in, others_may_take
from dlwhy.rules import finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.attribute.bill import Bill
    from dlwhy.elf.file import Elf
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process
    from dlwhy.report import Finding


def of_process(process: Process) -> tuple[Finding, ...]:
    """Return who took static TLS after the start, and whose dynamic TLS could never become static."""
    static = process.static
    if static is None or not process.surplus:  # without one, as under musl, none could, however small
        return ()
    found = []
    for one in (one for space in process.namespaces for one in space.maps if one.tls is not None):
        if isinstance(one.tls_offset, int):
            if one.static_since.startswith("step"):
                found.append(finding("static-tls-taker", one.name, _taker(process, one)))
        elif could_not_come_in(process, one):
            assert one.tls is not None
            segment = one.tls
            why = (
                f"aligned to {segment.align} bytes, where the static TLS block is to {static.align}"
                if segment.align > static.align
                else f"{segment.memsz} bytes, where {static.free} are free in the static TLS block"
            )
            found.append(finding(
                "big-dynamic-tls", one.name,
                f"{one.name} has dynamic TLS, and it must stay so: {why}; a single initial-exec access to it would "
                "make it unloadable",
            ))  # fmt: skip
    return tuple(found)


def _taker(process: Process, one: LinkMap) -> str:
    assert one.tls is not None
    text = f"{one.name} takes {one.tls.memsz} of the {process.surplus} bytes of static TLS that all late loads share: "
    spare = others_may_take(process, one)
    if spare is None:
        return text + "its descriptors are content with less, others are not"
    return text + f"it loads as long as others have taken no more than {spare} before it"


def of_file(elf: Elf, bill: Bill) -> Iterator[tuple[str, str]]:
    """Yield (rule, message) of a library by itself, without a host: against the surplus that glibc sets aside."""
    dynamic = elf.dynamic
    segment = elf.tls
    if segment is None or dynamic is None or elf.type != ET_DYN or elf.row is None or dynamic.flags_1 & DF_1_PIE:
        return
    from dlwhy.loader.glibc import FEATURES, default_surplus

    surplus, releases = default_surplus()
    rounding = max(row.get(elf.machine, 1) for _, row, _ in FEATURES["least_tls_align"]) - 1
    waste = segment.first_byte if elf.row.variant == 2 else max(segment.align - 1, 0)
    spare = surplus - segment.memsz - waste
    shared = f"the {surplus} bytes that glibc ({releases}) sets aside for all late loads"
    needs = f"loaded by dlopen it needs {segment.memsz} bytes of static TLS, more than {shared}: it"
    if not any(one.own for one in bill.triggers):
        text = f"its TLS of {segment.memsz} bytes is dynamic, and it must stay so: a single initial-exec access to it "
        text += f"would make it unloadable by dlopen, for it is more than {shared}"
        if spare + rounding < 0:
            yield "big-dynamic-tls", text
        return
    if spare + rounding < 0:
        text = f"{needs} has to be there from the start, or the surplus must be larger"
    elif spare < 0:
        text = f"{needs} loads only where the end of the block is rounded up by {-spare} bytes or more"
    else:
        text = f"loaded by dlopen it takes {segment.memsz} of {shared}: it loads if others have taken no more than "
        text += f"{spare} before it"
    yield "static-tls-taker", text
