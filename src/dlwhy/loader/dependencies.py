"""What an object needs, loaded: the walk over needs and filters, and the order it leaves (glibc elf/dl-deps.c)."""

from __future__ import annotations

from dlwhy.elf.constants import DT_AUXILIARY, DT_NEEDED
from dlwhy.errors import ElfError
from dlwhy.loader.faults import Death, Fault, Unknown, assertion
from dlwhy.loader.link_map import EXECUTABLE, LIBRARY
from dlwhy.loader.mapping import died_reading
from dlwhy.loader.sort import depth_first, selection
from dlwhy.loader.tokens import has_token

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Namespace, Process

_LARGE_SORT = 1 << 16


def map_dependencies(
    process: Process, top: LinkMap, preloads: list[LinkMap], mode: int, space: Namespace, by_dlopen: bool
) -> None:
    """_dl_map_object_deps: load what `top` and the preloads need, breadth-first, and sort the result."""
    known: list[tuple[LinkMap, bool]] = [(one, False) for one in (top, *preloads)]
    failed: Fault | None = None
    try:
        _walk(process, known, top, mode, space, by_dlopen)
    except Fault as fault:
        failed = fault  # what was found is listed all the same
    listed = [one for one, _ in known]
    top.searchlist.maps = listed
    if listed[0] is not top:
        if not process.libc.filters_of_the_top:
            expression = "map->l_searchlist.r_list[0] == map"
            raise assertion(process.libc, "dl-deps.c", "_dl_map_object_deps", expression, "depend", top.shown)
        listed = [top, *(one for one in listed if one is not top)]
    if failed is not None:
        raise failed
    if process.absent is not None and not by_dlopen:
        return  # traced: nothing of it is relocated or initialised, and so nothing has an order
    top.initfini = _sorted(process, list(listed), pin_first=top is not space.libc)
    if top.reldeps:
        members = {id(one) for one in listed if one is not top}
        top.reldeps = [one for one in top.reldeps if id(one) not in members]


def _walk(
    process: Process, known: list[tuple[LinkMap, bool]], top: LinkMap, mode: int, space: Namespace, by_dlopen: bool
) -> None:
    """Grow `known`, (object, whether its needs are loaded), until all are; what one filters goes before it."""
    reached = {id(one) for one, _ in known}
    brief = process.absent is not None  # nobody reads how a name that was met before became an object
    position = moves = 0
    while position < len(known):
        at, done = known[position]
        if done:
            position += 1
            continue
        known[position] = (at, True)
        direct: list[LinkMap] = []
        place = position
        for tag, name in _needs(process, at):
            dependency = space.known.get(name) if brief and "$" not in name else None
            if dependency is None:
                dependency = _dependency(process, at, tag, name, mode, space, by_dlopen)
                if dependency is None:
                    continue
            direct.append(dependency)
            new = id(dependency) not in reached
            reached.add(id(dependency))
            if tag == DT_NEEDED:
                if new:
                    known.append((dependency, False))
                continue
            if not new:
                late = next((i for i in range(place + 1, len(known)) if known[i][0] is dependency), -1)
                if late < 0:
                    continue  # it stands in front already
                del known[late]
                moves += 1
                if moves > len(known) ** 2 + 64:
                    why = f"{at.shown} and {dependency.shown} filter one another: the loader moves them until"
                    raise Death("signal", "depend", f"{why} its stack ends", None, -11, at.shown)
            known.insert(place, (dependency, False))
            place += 1
            space.maps.remove(dependency)
            space.maps.insert(next(i for i, one in enumerate(space.maps) if one is at), dependency)
            space.known.clear()
        if at is not top and not at.initfini and (at.elf is None or at.elf.dynamic is not None):
            at.initfini = [at, *direct]


def _needs(process: Process, at: LinkMap) -> Iterator[tuple[int, str]]:
    """Yield (tag, name) of what an object needs or filters; each name is read when its turn comes."""
    if at.elf is None:  # `plain`: the program that needs only libc
        yield from plain_needs(process)
        return
    dynamic = at.elf.dynamic
    if dynamic is None:
        return
    for tag, offset in dynamic.lists:
        try:
            name = dynamic.string(offset)
        except ElfError as error:
            raise died_reading(error, "depend") from None
        yield tag, name


def _dependency(
    process: Process, at: LinkMap, tag: int, name: str, mode: int, space: Namespace, by_dlopen: bool
) -> LinkMap | None:
    """One need of an object, loaded; None for one that is passed over."""
    if process.settings.secure and has_token(name):
        raise Fault("not-found", "depend", "DST not allowed in SUID/SGID programs", name, needed_by=at.shown)
    expanded = process.finder.expand(name, at)
    if not expanded:
        if tag == DT_AUXILIARY:
            raise Fault("not-found", "depend", "empty dynamic string token substitution", name, needed_by=at.shown)
        return None
    try:
        type_ = at.type if at.type != EXECUTABLE else LIBRARY
        return process.map_object(expanded, at, type_, mode, space, by_dlopen, at)
    except Fault as fault:
        if tag == DT_AUXILIARY:
            return None
        if process.absent is None or fault.stage != "search":
            raise
        process.absent.add(expanded)  # told, and passed over: a faked object (elf/dl-load.c, _dl_map_new_object)
        return None


def _sorted(process: Process, maps: list[LinkMap], pin_first: bool) -> list[LinkMap]:
    if len(maps) > _LARGE_SORT:
        raise Unknown(f"{len(maps)} objects are more than this model sorts", "depend")
    if process.libc.depth_first_sort and process.tunables.dynamic_sort == 2:
        return depth_first(maps, pin_first)
    return selection(maps, 1 if pin_first or not process.libc.depth_first_sort else 0)


def plain_needs(process: Process) -> tuple[tuple[int, str], ...]:
    """Return (tag, name) of what `plain` needs: a program that calls dlopen and nothing else."""
    libc = "libc.so.6"
    return ((DT_NEEDED, "libdl.so.2"), (DT_NEEDED, libc)) if process.libc.dlopen_in_libdl else ((DT_NEEDED, libc),)
