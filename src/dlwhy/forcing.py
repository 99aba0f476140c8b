"""Who else of a load would force the object that pays into the static block, beside those that the loader came to.

The loader stops at the first object that cannot be placed. What it had not relocated yet may reach into the same object
by initial-exec as well: mending the first alone would not help.
"""

from __future__ import annotations

from dlwhy.attribute.triggers import triggers_into
from dlwhy.elf.constants import SHN_UNDEF
from dlwhy.elf.file import Elf
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from dlwhy.files import Files
    from dlwhy.report import Step


def also(step: Step, victim: Elf, known: Iterable[str], files: Files) -> list[tuple[Elf, str]]:
    """Return (object, its name) of those that a failing step found and whose variables only `victim` defines.

    `known` are names of objects that are told anyway. Never raises: what cannot be read is left out.
    """
    told = {*known, victim.path}
    found: list[Elf] = []
    for search in step.searches:
        if search.path is None or search.path in told:
            continue
        told.add(search.path)
        try:
            elf = Elf(files.open(search.path))
            if elf.tls is not None or tls_relocations(elf).tpoff:
                found.append(elf)
        except (DlwhyError, Unknown):
            continue
    result = []
    for elf in found:
        try:
            forced = {one.symbol for one in triggers_into(elf, victim)}
            if forced and not any(forced & _defined(other) for other in found):
                result.append((elf, elf.path))
        except (DlwhyError, Unknown):
            continue
    return result


def _defined(elf: Elf) -> set[str]:
    return {symbol.name for symbol in elf.symbols.tls() if symbol.shndx != SHN_UNDEF}
