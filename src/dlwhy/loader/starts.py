"""Starts: by what to know that two processes start alike, so that what was bound once need not be bound again.

Most references of a start give an address and nothing that the model keeps; a Node.js has 60,000 of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.loader.glibc import Glibc
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Namespace, Process

    Start = tuple[Glibc, str, bool, bool, int, tuple[tuple[object, ...], ...]]


def start_of(process: Process, todo: list[LinkMap], mode_lazy: bool, space: Namespace) -> Start | None:
    """Return all that the references of a start depend on; None after it, and where something was bound before."""
    if process.started or space.unique:
        return None
    scopes = {id(scope): scope.maps for one in todo for scope in one.scopes}
    held = {key: tuple((one.elf, one.name, one.type) for one in maps) for key, maps in scopes.items()}
    objects = tuple((one.elf, one.name, one.type, tuple(held[id(scope)] for scope in one.scopes)) for one in todo)
    return process.libc, process.machine.name, mode_lazy, process.profiling, space.number, objects


def of_files(start: Start, elves: set[int]) -> bool:
    """Whether a start has one of these files, by the id of their Elf."""
    return any(id(one[0]) in elves for one in start[-1])
