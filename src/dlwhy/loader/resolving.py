"""Relocating what was loaded, reference by reference, and what follows of each (glibc elf/dl-reloc.c, dl-lookup.c)."""

from __future__ import annotations

from dlwhy.elf.constants import ET_DYN, PT_GNU_RELRO, SHN_ABS, SHN_UNDEF, STT_GNU_IFUNC, STV_PROTECTED
from dlwhy.elf.relocs import split_info
from dlwhy.errors import ElfError
from dlwhy.loader.bind import COPY, PLT, Definition, Lookup, binding, is_lazy, resolve, type_class, wanted_names
from dlwhy.loader.faults import NEAR, Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE, LOADED
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.placing import initialise_tls, need_static, try_static
from dlwhy.loader.port import Port, port
from dlwhy.loader.relocate import Work, every_entry, read_null, work
from dlwhy.loader.starts import start_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Namespace, Process
    from dlwhy.loader.relocate import Entry

_INDIRECT_EXTERN_ACCESS = 1
"""GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS."""


def relocate(process: Process, todo: list[LinkMap], mode_lazy: bool, space: Namespace, step: int) -> None:
    """Relocate objects in order (_dl_relocate_object each). Raises the first `Fault`.

    Where the same objects start many processes, the references that have been found to give an address and nothing
    else are not resolved again.
    """
    lookup = Lookup(process.machine, process.libc, space.unique)
    start = start_of(process, todo, mode_lazy, space)
    known = process.objects.starts.get(start) if start is not None else None
    plans: list[tuple[LinkMap, Work, Sequence[Entry]]] = []
    wanted: set[bytes] = set()
    for one in todo:
        if one.elf is None:
            continue
        one.lazy = is_lazy(one, mode_lazy, process.profiling)
        plan = _work(process, one)
        entries: Sequence[Entry] = plan.entries if known is None else known[len(plans)]
        plans.append((one, plan, entries))
        try:  # noqa: SIM105 -- contextlib costs a start-up more than this saves
            wanted |= wanted_names(one, [info for info, deferred in entries if not deferred], process.machine)
        except ElfError:  # met again, in its place, when the reference is resolved
            pass
    scopes = {id(scope): scope for one in todo for scope in one.scopes}
    lookup.prepare(wanted, scopes.values())
    told: list[tuple[Entry, ...]] = []
    for one, plan, references in plans:
        remarks = _Remarks(process, one)
        info = None
        more: list[Entry] = []
        try:
            for info, deferred in references:
                count = len(space.unique)
                if _apply(process, one, info, deferred, lookup, step, remarks) or len(space.unique) != count:
                    more.append((info, deferred))
            info = None
        except ElfError as error:
            raise died_reading(error, "relocate") from None
        finally:
            if remarks.each or remarks.found:
                remarks.tell(info)
        if plan.end is not None:
            raise plan.end
        _protect(process, one)
        one.relocated = True
        told.append(tuple(more))
    for one in todo:
        one.relocated = True
    if start is not None and known is None:
        process.objects.starts[start] = tuple(told)
    if process.started:
        for one in todo:
            if one.static_since == process.when:
                initialise_tls(process, one)


class _Remarks:
    """What the loader says on standard error while it relocates one object, as often as it says it."""

    __slots__ = ("_of", "_process", "each", "found")

    def __init__(self, process: Process, of: LinkMap) -> None:
        self._process, self._of = process, of
        self.each: dict[int, str] = {}
        """r_info -> what is said for every entry that has it."""
        self.found: dict[int, str] = {}
        """r_info -> what is said before, by every lookup: the last one of an object is remembered."""

    def tell(self, last: int | None) -> None:
        """Write the remarks, in the order of the entries, up to the first one of r_info `last`."""
        process, of = self._process, self._of
        assert of.elf is not None
        before: tuple[int, int] | None = None
        for info, deferred in every_entry(of.elf, process.machine, process.libc, of.lazy):
            if deferred and info not in self.each and info not in self.found:
                continue
            index, kind = split_info(of.elf, info)
            now = (index, type_class(process.machine, kind))
            if info in self.found and now != before:
                process.notices.append(self.found[info])
            if index:
                before = now
            if info in self.each:
                process.notices.append(self.each[info])
            if info == last:
                break


def _work(process: Process, one: LinkMap) -> Work:
    assert one.elf is not None
    return work(one.elf, process.machine, process.libc, one.lazy, process.settings.page, one.type == EXECUTABLE)


def _apply(
    process: Process, of: LinkMap, info: int, deferred: bool, lookup: Lookup, step: int, remarks: _Remarks
) -> bool:
    """Apply one reference; return whether more than an address came of it, which each process has to see."""
    assert of.elf is not None
    machine, own = process.machine, port(process.machine)
    index, kind = split_info(of.elf, info)
    if deferred and _is_left(process, of, index, kind):
        return False
    if kind == machine.irelative or kind in (machine.relative, 0):
        return False
    more = False
    if index == 0:
        found: Definition | None = Definition(of, 0, 0, 0, 0, 1)
        name = b""
    else:
        found, name, looked_up = resolve(of, index, kind, machine, lookup)
        if found is not None and found.map is not of:
            if of.type == EXECUTABLE and found.other & 3 == STV_PROTECTED:
                more = True
                _check_protected(process, of, info, found, name, remarks)
            if looked_up and found.map.type == LOADED:
                more = True
                _add_dependency(of, found.map)
            early = found.type == STT_GNU_IFUNC and not found.map.relocated and found.shndx != SHN_UNDEF
            if early and own.indirect_told:
                more = True
                _call_early(process, of, info, found, name, remarks)
    if kind not in machine.supported:
        raise Fault("bad-relocation", "relocate", f"unexpected reloc type {_digits(kind)}", of.shown)
    if kind in own.overflows:
        raise Unknown(f"whether what relocation {_digits(kind)} of {of.shown} refers to lies near enough", "relocate")
    if kind in machine.narrow or kind in machine.narrow_relative:
        if _overflows(of, found, kind in machine.narrow_relative):
            words = f"Symbol `{_text(name)}' causes overflow in {machine.names[kind]} relocation"
            remarks.each[info] = f"{process.settings.argv0}: {words}"
        return True
    if found is None:
        return more
    if kind == machine.copy:
        has = binding(of, machine).symbol(index)[2]
        if found.size > has:  # the loader goes on
            words = f"Symbol `{_text(name)}' has different size in shared object, consider re-linking"
            remarks.each[info] = f"{own.copy_notice}{process.settings.argv0}: {words}"
    elif kind in machine.tpoff:
        need_static(process, of, found, name, kind, step)
    elif kind in machine.tlsdesc or (kind in machine.dtpmod and _optimised(of, own)):
        try_static(process, of, found)
    else:
        return more
    return True


def _optimised(of: LinkMap, own: Port) -> bool:
    """Whether module identifiers of an object try for a static place (PPC64_OPT_TLS)."""
    dynamic = of.elf.dynamic if of.elf is not None and own.optional_tag else None
    return dynamic is not None and bool(dynamic.tags.get(own.optional_tag, 0) & 1)


def _is_left(process: Process, of: LinkMap, index: int, kind: int) -> bool:
    """elf_machine_lazy_rel: whether an entry is left for the first call. Raises `Fault` for one that cannot be."""
    assert of.elf is not None
    machine, own = process.machine, port(process.machine)
    tags = of.elf.dynamic.tags if of.elf.dynamic is not None else {}
    if kind == machine.jump_slot:
        return not (own.eager_tag in tags and binding(of, machine).symbol(index)[4] & own.eager_bit)
    if (kind == machine.irelative and own.lazy_irelative) or not own.lazy_refused:
        return True
    if kind not in machine.tlsdesc or kind not in machine.supported:
        raise Fault("bad-relocation", "relocate", f"unexpected PLT reloc type {_digits(kind)}", of.shown)
    if not (process.libc.lazy_descriptors and own.lazy_descriptors):
        return False
    if own.descriptor_tag and own.descriptor_tag not in tags:
        raise read_null(of.elf, "it has a descriptor to be resolved lazily and no DT_TLSDESC_PLT")
    return True


def _overflows(of: LinkMap, found: Definition | None, relative: bool) -> bool:
    """Whether an address, or the distance to it, has more than 32 bits.

    Libraries lie together near the end of the address space, a program by itself: near its beginning when it is of
    type ET_EXEC, in the middle otherwise.
    """
    at = None if found is None or found.shndx == SHN_ABS else found.map
    if relative:
        return at is not of and (at is None or EXECUTABLE in (at.type, of.type))
    return at is not None and (at.elf is None or at.elf.type == ET_DYN)


def _check_protected(
    process: Process, of: LinkMap, info: int, found: Definition, name: bytes, remarks: _Remarks
) -> None:
    """_dl_check_protected_symbol (sysdeps/generic/dl-protected.h): a program that goes around a protected symbol."""
    assert of.elf is not None
    how = process.libc.protected_check
    index, kind = split_info(of.elf, info)
    class_ = type_class(process.machine, kind)
    _, value, _, _, _, shndx = binding(of, process.machine).symbol(index)
    copies = bool(class_ & COPY)
    if how == "none" or not (copies or (class_ & PLT and value and shndx == SHN_UNDEF)):
        return
    indirect = found.map.needed_1 & _INDIRECT_EXTERN_ACCESS
    if how == "refused":
        text = "copy relocation against non-copyable protected symbol"
        text = text if copies else "non-canonical reference to canonical protected function"
        indirect &= ~of.needed_1
    else:
        text = "error due to GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS"
        if copies:
            words = f"copy relocation against non-copyable protected symbol `{_text(name)}' in `{found.map.name}'"
        else:
            where = f"`{_text(name)}' in `{found.map.name}'"
            words = f"direct reference to protected function {where} may break pointer equality"
        remarks.found[info] = f"warning: {words}"
    if indirect:
        why = f"the program {'copies' if copies else 'takes the address of'} {_text(name)}, which is protected there"
        fault = Fault("protected-symbol", "relocate", text, found.map.name, because=why)
        fault.occasion = _text(name)
        raise fault


def _call_early(process: Process, of: LinkMap, info: int, found: Definition, name: bytes, remarks: _Remarks) -> None:
    """An indirect function is asked for its address before its own object is relocated (elf_machine_rela)."""
    how, argv0 = process.libc.indirect_function, process.settings.argv0
    if found.map.type != EXECUTABLE:
        if how != "called":
            where = f"`{of.name}' with `{found.map.name}'"
            remarks.each[info] = f"{argv0}: Relink {where} for IFUNC symbol `{_text(name)}'"
    elif how == "fatal":
        words = "is defined in the executable and creates an unsatisfiable circular dependency."
        text = f"{argv0}: IFUNC symbol '{_text(name)}' referenced in '{of.name}' {words}"
        why = f"{of.name} needs the indirect function {_text(name)} of the program, which is relocated after it"
        raise Death("ifunc-in-program", "relocate", why, text, 127, of.name)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


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
