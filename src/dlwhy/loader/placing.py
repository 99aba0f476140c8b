"""Which objects get a place in the static TLS block, and which are refused one (glibc elf/dl-reloc.c, elf/dl-tls.c)."""

from __future__ import annotations

from dlwhy.errors import ElfError
from dlwhy.loader import tls
from dlwhy.loader.faults import Death, Fault, Unknown, assertion
from dlwhy.loader.image import Image
from dlwhy.loader.link_map import DYNAMIC, EXECUTABLE
from dlwhy.loader.port import port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.bind import Definition
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process


def need_static(process: Process, of: LinkMap, found: Definition, name: bytes, kind: int, step: int) -> None:
    """CHECK_STATIC_TLS: the defining module must have, or now get, a place in the static block."""
    victim = found.map
    process.forced.setdefault(step, []).append((of, victim, name, kind))
    if isinstance(victim.tls_offset, int):
        return
    assert process.static is not None
    segment = victim.tls if victim.tls is not None else tls.Segment(0, 0, 0)
    text = "cannot allocate memory in static TLS block"
    if victim.tls_offset == DYNAMIC:
        kind_, because = (
            "static-tls-dynamic-in-use",
            "its TLS segment is already in use as dynamic TLS and cannot move",
        )
    elif segment.align > process.static.align:
        kind_ = "static-tls-alignment"
        because = (
            f"its TLS segment is aligned to {segment.align} bytes, "
            f"the static TLS block only to {process.static.align}; "
            "no size of the block changes that"
        )
    else:
        try:
            place = process.static.take(segment, optional=False)
        except ZeroDivisionError:
            raise _divides_by_zero(victim.shown) from None
        if place is not None:
            _settle(process, victim, place, of)
            if (
                victim.relocated
                and victim.init_called
                and victim.tls is not None
                and _used_dynamically(victim)
            ):
                process.assumptions.append(
                    f"{victim.shown} was loaded earlier and has not touched its thread-local variables; had it, "
                    "this load would fail"
                )
            return
        kind_ = "static-tls-exhausted"
        if process.lacking is None:
            process.lacking = (process.static.used, segment)
        because = (
            f"its TLS segment of {segment.memsz} bytes must go into the static TLS block, "
            f"where {process.static.free} bytes are left ({_where_from(process)})"
        )
    fault = Fault(kind_, "relocate", text, victim.name, because=because)
    fault.subject = victim.shown
    fault.needed_by = of.shown if of is not victim else None
    raise fault


def _where_from(process: Process) -> str:
    """What the free bytes are made of: the surplus and the rounding of its end, less what latecomers took."""
    assert process.static is not None
    taken = process.static.used - process.start_used
    rounding = process.static.size - process.start_used - process.surplus
    text = f"{process.surplus} bytes of surplus and {rounding} of rounding"
    if not taken:
        return text
    late = [one for space in process.namespaces for one in space.maps if one.forced_by is not None]
    names = ", ".join(f"{one.shown} {one.tls.memsz}" for one in late if one.tls is not None)
    return f"{text}, less {taken} taken since the start: {names}" if names else f"{text}, less {taken} leaked since"


def _used_dynamically(victim: LinkMap) -> bool:
    """Whether the object has dynamic accesses of its own that its code may have gone through already."""
    from dlwhy.elf.tls import tls_relocations

    assert victim.elf is not None
    try:
        return bool(tls_relocations(victim.elf).dtpmod)
    except ElfError:
        return True


def try_static(process: Process, of: LinkMap, found: Definition) -> None:
    """TRY_STATIC_TLS: a descriptor takes a static place when the optional budget allows; else it stays dynamic."""
    victim = found.map
    if victim.tls_offset is not None or process.static is None:
        return
    segment = victim.tls if victim.tls is not None else tls.Segment(0, 0, 0)
    if segment.align > process.static.align:
        return
    try:
        place = process.static.take(segment, optional=True)
    except ZeroDivisionError:
        raise _divides_by_zero(victim.shown) from None
    if place is not None:
        _settle(process, victim, place, of)


def _settle(process: Process, victim: LinkMap, place: tuple[int, int], by: LinkMap) -> None:
    memsz = victim.tls.memsz if victim.tls is not None else 0
    if process.machine.variant == 1 and process.started and memsz and place[0] < place[1]:
        why = f"an alignment of 0 puts the {memsz} bytes of its TLS segment over those of others"
        raise Unknown(f"what {victim.shown} spoils: {why}", "relocate")
    victim.tls_offset, victim.tls_before = place
    if victim.tls_offset == port(process.machine).no_offset:  # as good as none
        victim.tls_offset = None
    victim.static_since = process.when
    victim.forced_by = by


def lay_out_tls(process: Process, auditors: int) -> None:
    """init_tls: fix the size of the static block and place every object loaded so far."""
    libc, machine = process.libc, process.machine
    whole = 1 << 32 * machine.elf_class  # a size_t
    optional = process.tunables.optional_static_tls if libc.tls_tunables else 512
    nns = process.tunables.nns if libc.tls_tunables else 4
    if libc.tls_tunables and auditors > 16 - nns:
        text = f"Failed loading {auditors} audit modules, {16 - nns} are supported."
        raise Death("audit", "none", text, text, 127)
    process.surplus = libc.surplus(nns, auditors, optional) % whole
    mapped = [one for one in process.base.maps if one.tls is not None]
    segments = tuple(one.tls for one in mapped if one.tls is not None)
    rseq = None
    if libc.rseq_block:
        size, align = process.settings.rseq if process.tunables.rseq else (0, 0)
        align = max(align, 32)
        rseq = (
            tls.round_up(max(size, 32), align) if process.tunables.rseq else 32,
            align if process.tunables.rseq else 32,
        )
    own = port(machine)
    if own.zero_division and not all(segment.align for segment in segments):
        raise _divides_by_zero(next(one.shown for one in mapped if one.tls is not None and not one.tls.align))
    least = libc.least_tls_align[machine.e_machine]
    layout = tls.lay_out(segments, machine.variant, own.tcb, least, process.surplus, rseq)
    layout = layout.but(size=layout.size % whole)
    if layout.size >= 1 << (46 if machine.elf_class == 2 else 28):
        raise Unknown(f"a static TLS block of {layout.size} bytes; whether this system can give it is not known")
    process.static = tls.StaticTls(layout, machine.variant, optional if libc.tls_tunables else None)
    process.start_used = layout.used
    for one, offset in zip(mapped, layout.offsets, strict=True):
        one.tls_offset = offset if offset != own.no_offset else None
        one.static_since = "startup"


def initialise_tls(process: Process, of: LinkMap) -> None:
    """Copy an object's image into the block (elf/dl-tls.c, _dl_allocate_tls_init and _dl_init_static_tls)."""
    segment = of.elf.tls if of.elf is not None else None
    if segment is None or not isinstance(of.tls_offset, int) or of.elf is None:
        return
    if segment.filesz > segment.memsz:
        if process.started:
            why = f"the {segment.filesz} bytes of its TLS image overwrite behind the {segment.memsz} of the segment"
            raise Unknown(f"what {of.shown} spoils: {why}", "relocate")
        expression = "map->l_tls_blocksize >= map->l_tls_initimage_size"
        raise assertion(process.libc, "dl-tls.c", "_dl_allocate_tls_init", expression, "relocate", of.shown)
    if segment.filesz and of.type != EXECUTABLE:
        image = Image(of.elf, process.settings.page)
        image.touch(segment.vaddr, segment.filesz, False, "the TLS image is copied", "relocate")


def _divides_by_zero(path: str) -> Death:
    """An alignment of 0 is divided by: SIGFPE (glibc elf/dl-tls.c, elf/dl-reloc.c)."""
    why = f"{path} has a TLS segment with alignment 0, and the loader divides by it"
    return Death("signal", "relocate", why, None, -8, path)
