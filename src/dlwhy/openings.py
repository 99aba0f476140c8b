"""Openings: what the objects of a tree open themselves by dlopen, and whether the loader would find it.

The search is the loader's own for a dlopen by that object, with its RPATH or RUNPATH; nothing is loaded for it.
"""

from __future__ import annotations

from dlwhy.elf.constants import PT_NOTE
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.report import ASSUMED, COMPUTED, Opening, Try

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process

_NOTE, _CONSTANT = ".note.dlopen", "constant"
_OWNER = b"FDO\0"
_SMALL = 1 << 12


def openings(process: Process, at: LinkMap, guesses: bool) -> tuple[Opening, ...]:
    """Return what an object opens: what its note lists, then with `guesses` what its constants suggest. Never raises.

    The note is small; constants are most of some files.
    """
    elf = at.elf
    if elf is None or not (guesses or _has_note(elf)):
        return ()
    from dlwhy.attribute.opened import guessed, noted

    wanted, _ = noted(elf)
    found = [
        _looked_for(process, at, one.sonames, Opening(
            one.sonames, one.priority, one.feature, one.description, None, "", (), _NOTE, COMPUTED
        ))
        for one in wanted
    ]  # fmt: skip
    if not guesses:
        return tuple(found)
    known = {name for one in wanted for name in one.sonames} | _own(elf)
    for name in guessed(elf, frozenset(known)):
        made = Opening((name,), None, None, None, None, "", (), _CONSTANT, ASSUMED)
        found.append(_looked_for(process, at, (name,), made))
    return tuple(found)


def _has_note(elf: Elf) -> bool:
    """Whether a note may be one of these, which nearly no file has: its owner stands somewhere in a segment.

    Segments that are missing or large are left to the parser.
    """
    try:
        places = [(row[2], row[5]) for row in elf.phdrs if row[0] == PT_NOTE]
        return not places or any(size > _SMALL or _OWNER in elf.view.some(offset, size) for offset, size in places)
    except (DlwhyError, Unknown):
        return False


def _own(elf: Elf) -> set[str]:
    """What an object needs anyway, and what it is called itself."""
    try:
        dynamic = elf.dynamic
        own = {dynamic.soname} if dynamic is not None and dynamic.soname else set()
        return own | set(dynamic.needed if dynamic is not None else ())
    except (DlwhyError, Unknown):
        return set()


def _looked_for(process: Process, at: LinkMap, names: tuple[str, ...], made: Opening) -> Opening:
    """The first of the names that is found, or what the loader would say of the last."""
    tries: list[Try] = []
    how = ""
    for name in names:
        before = len(process.searches)
        try:
            record = process.look_for(name, at)
        except (Fault, Death, Unknown) as fault:
            how = fault.message if isinstance(fault, Fault) else str(fault)
            for one in process.searches[before:]:
                tries += [Try(a.path, a.where, a.result) for a in one.attempts]
            continue
        tries += [Try(a.path, a.where, a.result) for a in record.attempts]
        return made.but(path=record.path, how=record.how, tries=tuple(tries))
    return made.but(how=how, tries=tuple(tries))
