"""Which TLS segments a constructor has used the dynamic way: they get no place in the static block any more.

The first dynamic access decides (glibc elf/dl-tls.c, tls_get_addr_tail: FORCED_DYNAMIC_TLS_OFFSET). Only what surely
happens is told here; of the rest `loader.placing` says what it assumes.
"""

from __future__ import annotations

from dlwhy.elf.constants import STT_FUNC
from dlwhy.elf.relocs import of_types
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import DlwhyError
from dlwhy.lazy import starts_of
from dlwhy.loader.bind import Lookup, resolve
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import DYNAMIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process

_ACCESSOR = b"__tls_get_addr"


def use_dynamically(process: Process, new: list[LinkMap]) -> None:
    """Mark the segments that the constructors of these new objects surely use."""
    if process.static is None or not process.libc.late_static_tls:
        return
    for one in new:
        try:
            lookup = Lookup(process.machine, process.libc, process.namespaces[one.namespace].unique)
            victim = _only_victim(process, one, lookup)
            if victim is not None and victim.tls_offset is None and _surely_calls(process, one, lookup):
                victim.tls_offset = DYNAMIC
        except (DlwhyError, Fault, Death, Unknown):
            continue  # nothing is sure of it


def _only_victim(process: Process, of: LinkMap, lookup: Lookup) -> LinkMap | None:
    """The one object whose variables `of` reaches dynamically; None where there is none, or where it may be several."""
    if of.elf is None:
        return None
    victims = {}
    for relocation, _ in tls_relocations(of.elf).dtpmod:
        victim = of
        if relocation.symbol:
            made, _, _ = resolve(of, relocation.symbol, relocation.type, process.machine, lookup)
            if made is None:
                return None
            victim = made.map
        victims[id(victim)] = victim
    return next(iter(victims.values())) if len(victims) == 1 else None


def _surely_calls(process: Process, of: LinkMap, lookup: Lookup) -> bool:
    """Whether a constructor calls the accessor, with no decision and no foreign code before."""
    from dlwhy.attribute.calls import calls

    elf = of.elf
    assert elf is not None
    kinds = [kind for kind, name in process.machine.names.items() if name.endswith(("_GLOB_DAT", "_JUMP_SLOT"))]
    accessors: dict[int, str] = {}
    own: dict[int, int] = {}
    for relocation, _ in of_types(elf, kinds):
        found, name, _ = resolve(of, relocation.symbol, relocation.type, process.machine, lookup)
        if name == _ACCESSOR:
            accessors[relocation.offset] = "__tls_get_addr"
        elif found is not None and found.map is of and found.type == STT_FUNC:
            own[relocation.offset] = found.value
    if not accessors:
        return False
    made = [calls(elf, start, accessors, own) for start in starts_of(of) if start is not None]
    return any(one is not None and one.surely is not None for one in made)
