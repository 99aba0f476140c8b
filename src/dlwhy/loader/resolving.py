"""Relocating what was loaded, reference by reference, and what follows of each (glibc elf/dl-reloc.c, dl-lookup.c)."""

from __future__ import annotations

from dlwhy.elf.constants import PT_GNU_RELRO
from dlwhy.elf.relocs import split_info
from dlwhy.errors import ElfError
from dlwhy.loader.bind import Definition, Lookup, binding, is_lazy, resolve, wanted_names
from dlwhy.loader.faults import NEAR, Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE, LOADED
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.placing import initialise_tls, need_static, try_static
from dlwhy.loader.relocate import Work, work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Namespace, Process


def relocate(process: Process, todo: list[LinkMap], mode_lazy: bool, space: Namespace, step: int) -> None:
    """Relocate objects in order (_dl_relocate_object each). Raises the first `Fault`."""
    lookup = Lookup(process.machine, process.libc, space.unique)
    plans: list[tuple[LinkMap, Work]] = []
    wanted: set[bytes] = set()
    for one in todo:
        if one.elf is None:
            continue
        one.lazy = is_lazy(one, mode_lazy, process.profiling)
        plan = _work(process, one)
        plans.append((one, plan))
        try:  # noqa: SIM105 -- contextlib costs a start-up more than this saves
            wanted |= wanted_names(one, [info for info, deferred in plan.entries if not deferred], process.machine)
        except ElfError:  # met again, in its place, when the reference is resolved
            pass
    scopes = {id(scope): scope for one in todo for scope in one.scopes}
    try:
        lookup.prepare(wanted, scopes.values())
    except ElfError as error:
        raise died_reading(error, "relocate") from None
    for one, plan in plans:
        try:
            for info, deferred in plan.entries:
                _apply(process, one, info, deferred, lookup, step)
        except ElfError as error:
            raise died_reading(error, "relocate") from None
        if plan.end is not None:
            raise plan.end
        _protect(process, one)
        one.relocated = True
    for one in todo:
        one.relocated = True
    if process.started:
        for one in todo:
            if one.static_since == process.when:
                initialise_tls(process, one)


def _work(process: Process, one: LinkMap) -> Work:
    assert one.elf is not None
    return work(one.elf, process.machine, process.libc, one.lazy, process.settings.page, one.type == EXECUTABLE)


def _apply(process: Process, of: LinkMap, info: int, deferred: bool, lookup: Lookup, step: int) -> None:
    assert of.elf is not None
    machine = process.machine
    index, kind = split_info(of.elf, info)
    if deferred:
        if kind in (machine.jump_slot, machine.irelative):
            return
        if kind not in machine.tlsdesc:
            raise Fault("bad-relocation", "relocate", f"unexpected PLT reloc type {_digits(kind)}", of.shown)
        if process.libc.lazy_descriptors:
            return
    if kind == machine.irelative or kind in (machine.relative, 0):
        return
    known = machine.supported
    if known and kind not in known:
        index_known = index == 0 or _resolves(process, of, index, kind, lookup)
        assert index_known is not None
        raise Fault("bad-relocation", "relocate", f"unexpected reloc type {_digits(kind)}", of.shown)
    if index == 0:
        found: Definition | None = Definition(of, 0, 0, 0, 1)
        name = b""
    else:
        found, name, looked_up = resolve(of, index, kind, machine, lookup)
        if found is not None and looked_up and found.map is not of and found.map.type == LOADED:
            _add_dependency(of, found.map)
    if found is None:
        return
    if kind == machine.copy:
        _compare_copy(process, of, index, found, name)
    elif kind in machine.tpoff:
        need_static(process, of, found, name, kind, step)
    elif kind in machine.tlsdesc:
        try_static(process, of, found)


def _compare_copy(process: Process, of: LinkMap, index: int, found: Definition, name: bytes) -> None:
    """A copy relocation whose place is smaller than the original: the loader goes on, and says so."""
    own = binding(of, process.machine).symbol(index)[2]
    if found.size > own:
        text = name.decode("utf-8", "surrogateescape")
        words = f"Symbol `{text}' has different size in shared object, consider re-linking"
        process.notices.append(f"{process.settings.argv0}: {words}")


def _resolves(process: Process, of: LinkMap, index: int, kind: int, lookup: Lookup) -> bool:
    resolve(of, index, kind, process.machine, lookup)
    return True


def _protect(process: Process, of: LinkMap) -> None:
    """_dl_protect_relro: make what PT_GNU_RELRO names read-only (elf/dl-reloc.c)."""
    assert of.elf is not None
    if of.type == EXECUTABLE:
        return
    row = next((row for row in reversed(of.elf.phdrs) if row[0] == PT_GNU_RELRO), None)
    if row is None or not row[6]:
        return
    page = process.settings.page
    start, end = row[3] & -page, (row[3] + row[6]) & -page
    if start == end:
        return
    low = of.elf.loads[0][3] & -page
    high = of.elf.loads[-1][3] + of.elf.loads[-1][6]
    high += -high % page
    if low <= start < end <= high:
        return
    because = f"PT_GNU_RELRO covers {start:#x} to {end:#x}, and the object is mapped from {low:#x} to {high:#x}"
    if low - NEAR < start < high + NEAR:  # all mapped pages up to the first gap become read-only
        raise Unknown(f"what lies in the process beside {of.shown}: {because}", "relocate")
    text = "cannot apply additional memory protection after relocation"
    raise Fault("bad-segments", "relocate", text, of.shown, 12, because)


def _add_dependency(of: LinkMap, on: LinkMap) -> None:
    """add_dependency (elf/dl-lookup.c): remember that `of` uses `on`, unless a need says so already."""
    if on.nodelete or any(one is on for one in of.initfini) or any(one is on for one in of.searchlist.maps):
        return
    if not any(one is on for one in of.reldeps):
        of.reldeps.append(on)


def open_call(process: Process, among: list[LinkMap]) -> tuple[LinkMap, bytes] | None:
    """Return (object, name) of the first call that lazy binding left to these objects and that would be the end.

    Raises `ElfError` for a table that leaves its file.
    """
    lookups: dict[int, Lookup] = {}
    for of in among:
        if not of.lazy or of.elf is None:
            continue
        lookup = lookups.get(of.namespace)
        if lookup is None:
            unique = process.namespaces[of.namespace].unique
            lookup = lookups[of.namespace] = Lookup(process.machine, process.libc, unique)
        calls = [info for info, deferred in _work(process, of).entries if deferred]
        lookup.prepare(wanted_names(of, calls, process.machine), of.scopes)
        for info in calls:
            index, kind = split_info(of.elf, info)
            if kind == process.machine.jump_slot:
                try:
                    resolve(of, index, kind, process.machine, lookup)
                except (Fault, Death):
                    return of, of.elf.symbols.symbol(index).name
    return None


def _digits(kind: int) -> str:
    """A relocation type as _dl_reloc_bad_type writes it (elf/dl-reloc.c)."""
    return f"0x{kind:02x}" if kind <= 0xFF else f"0x{kind:08x}"
