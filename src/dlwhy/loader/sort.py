"""The order in which objects are relocated and, reversed in purpose, destroyed (glibc elf/dl-sort-maps.c).

Relocation runs from the end of the sorted list to its front, so dependencies come first and the requested object last.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.link_map import LinkMap


def depth_first(maps: list[LinkMap], pin_first: bool, for_fini: bool = False) -> list[LinkMap]:
    """Return `maps` sorted as since 2.35 (_dl_sort_maps_dfs): dependents before what they depend on."""
    if not maps:
        return []
    result, any_reldeps = _post_order(maps, for_fini)
    if any_reldeps:
        result, _ = _post_order(result, False)
        return result
    if pin_first and result[0] is not maps[0]:
        result.remove(maps[0])
        result.insert(0, maps[0])
    return result


def _post_order(maps: list[LinkMap], with_reldeps: bool) -> tuple[list[LinkMap], bool]:
    waiting = {id(one) for one in maps}  # an object outside keeps the mark of the sort that had it
    order: list[LinkMap] = []
    any_reldeps = False

    def edges(at: LinkMap) -> list[LinkMap]:
        nonlocal any_reldeps
        if with_reldeps and at.reldeps:
            any_reldeps = True
            return [*at.initfini, *reversed(at.reldeps)]
        return at.initfini

    for start in reversed(maps):
        if id(start) not in waiting:
            continue
        waiting.remove(id(start))
        stack = [(start, iter(edges(start)))]
        while stack:
            at, rest = stack[-1]
            for dependency in rest:
                if id(dependency) in waiting and dependency.type != "executable":
                    waiting.remove(id(dependency))
                    stack.append((dependency, iter(edges(dependency))))
                    break
            else:
                order.append(at)
                stack.pop()
        if not waiting:
            break
    order.reverse()
    return order, any_reldeps


def selection(maps: list[LinkMap], skip: int, for_fini: bool = False) -> list[LinkMap]:
    """Return `maps` sorted as up to 2.34, or with glibc.rtld.dynamic_sort=1 (_dl_sort_maps_original).

    The first `skip` stay where they are. Each object moves behind the last one that depends on it; a counter for each
    place keeps cycles from going on for ever.
    """
    head, result = maps[:skip], maps[skip:]
    count = len(result)
    if count <= 1:
        return list(maps)
    seen = [0] * count
    i = 0
    while i < count:
        seen[i] += 1
        this = result[i]
        k = next((k for k in range(count - 1, i, -1) if _depends_directly(result[k], this, for_fini)), 0)
        if k:
            result.insert(k, result.pop(i))
            if seen[i + 1] <= count - i:
                seen.insert(k, seen.pop(i))
                continue
        i += 1
        seen[i:] = [0] * (count - i)
    return head + result


def _depends_directly(one: LinkMap, other: LinkMap, for_fini: bool) -> bool:
    if any(dependency is other for dependency in one.initfini):
        return True
    if not for_fini or not any(dependency is other for dependency in one.reldeps):
        return False
    return not any(dependency is one for dependency in other.initfini)  # in a cycle the link-time dependency wins
