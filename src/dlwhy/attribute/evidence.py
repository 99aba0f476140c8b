"""Evidence: what files beside an object, and parts of it that are read on demand, tell about its variables.

Rule: an object's own full symbol table is as good as names get, so debug files are only looked for without one.
"""

from __future__ import annotations

from dlwhy.attribute.companions import DIRECTORIES, Companion, Remark, companions, has_all_names
from dlwhy.elf.constants import SHF_EXECINSTR
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import ElfError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.attribute.linker_map import LinkerMap
    from dlwhy.elf.file import Elf
    from dlwhy.files import Files


class Evidence(Record):
    """What is known of an object beyond its own symbol tables."""

    companions: tuple[Companion, ...] = ()
    """Separate debug files and `.gnu_debugdata`, the best first."""
    map: LinkerMap | None = None
    """The linker's map, as it was read: whether it is of this object shows later."""
    remarks: tuple[Remark, ...] = ()
    """What could not be read."""


NONE = Evidence()


def concerned(elf: Elf) -> bool:
    """Whether an object has TLS, or forces another's. Raises `ElfError` when headers or relocations leave the file."""
    return elf.tls is not None or bool(tls_relocations(elf).tpoff)


def lacks_names(elf: Elf) -> bool:
    """Whether an object's own symbol table has not all names, or cannot be read."""
    try:
        return not has_all_names(elf)
    except ElfError:
        return True


def gather(elf: Elf, files: Files, directories: Sequence[str] = DIRECTORIES, map_: str | None = None) -> Evidence:
    """Return what files beside an object tell: its debug files in `directories`, and the linker map `map_`.

    Raises `ElfError` when program headers or relocation tables leave the file, `FilesError` when the map cannot be
    opened.
    """
    if not concerned(elf):
        return NONE
    found: tuple[Companion, ...] = ()
    remarks: tuple[Remark, ...] = ()
    if lacks_names(elf):
        found, remarks = companions(elf, files, directories)
    linker_map = None
    if map_ is not None:
        from dlwhy.attribute.linker_map import read_map

        view = files.open(map_)
        try:
            code = frozenset(one.name for one in elf.sections if one.flags & SHF_EXECINSTR)
            linker_map = read_map(view, code_sections=code) if code else read_map(view)
        except ElfError as error:
            remarks += (Remark("unread-evidence", str(error)),)
    return Evidence(found, linker_map, remarks)
