"""Unloading what nothing uses any more (glibc elf/dl-close.c, _dl_close_worker)."""

from __future__ import annotations

from dlwhy.loader.link_map import LOADED
from dlwhy.loader.sort import depth_first, selection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Namespace, Process


def undo(process: Process, before: list[LinkMap], space: Namespace) -> None:
    """What a failed dlopen gives back: everything it loaded, its static TLS by the rules of dlclose."""
    kept = {id(one) for one in before}
    new = [one for one in space.maps if id(one) not in kept]
    for one in new:
        one.nodelete = False  # pending only: it takes effect when the call succeeds
    if new:
        collect(process, space)


def collect(process: Process, space: Namespace) -> list[LinkMap]:
    """_dl_close_worker: unload what nothing uses any more and give its static TLS back."""
    used: set[int] = set()
    todo = [one for one in space.maps if one.type != LOADED or one.opened or one.nodelete]
    while todo:
        one = todo.pop()
        if id(one) in used:
            continue
        used.add(id(one))
        todo += [*one.initfini[1:], *one.reldeps]
    if all(id(one) in used for one in space.maps):
        return []
    order = list(space.maps)
    if process.libc.depth_first_sort and process.tunables.dynamic_sort == 2:
        order = depth_first(order, space is process.base, for_fini=True)
    else:
        order = selection(order, 1 if space is process.base else 0, for_fini=True)
    gone = [one for one in order if id(one) not in used]
    blocks = [
        (one.tls_offset, one.tls.memsz, one.tls_before)
        for one in gone
        if isinstance(one.tls_offset, int) and one.tls
    ]
    if process.static is not None:
        process.static.give_back(blocks)
    dead = {id(one) for one in gone}
    space.maps = [one for one in space.maps if id(one) not in dead]
    space.known.clear()
    for one in space.maps:
        one.scopes = [
            scope for scope in one.scopes if id(scope.owner) not in dead or one is scope.owner
        ]
        one.reldeps = [other for other in one.reldeps if id(other) not in dead]
    if space.maps:
        main = space.maps[0].searchlist
        main.maps = [one for one in main.maps if id(one) not in dead]
    for name in [name for name, definition in space.unique.items() if id(definition.map) in dead]:
        del space.unique[name]
    if space.libc is not None and id(space.libc) in dead:
        space.libc = None
    return gone
