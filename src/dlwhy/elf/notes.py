"""Notes: build-id, package metadata, dlopen metadata (gABI ch. 5, Note Section).

Notes are found through PT_NOTE, as everything that is loaded; where there is none, through sections.
"""

from __future__ import annotations

from dlwhy.elf.constants import PT_NOTE, SHT_NOTE
from dlwhy.errors import DlwhyError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf

NT_GNU_BUILD_ID = 3
NT_GO_BUILD_ID = 4
NT_FDO_PACKAGE = 0xCAFE1A7E
"""Package metadata (systemd, ELF_PACKAGE_METADATA)."""
NT_FDO_DLOPEN = 0x407C0C0A
"""dlopen metadata (systemd, ELF_DLOPEN_METADATA)."""

_MAX_BYTES = 1 << 20
_MAX_NOTES = 4096


class Note(Record):
    """One note."""

    owner: bytes
    """Without its closing NUL."""
    type: int
    desc: bytes


def notes(elf: Elf) -> tuple[Note, ...]:
    """Return the notes of a file, each once; what is damaged ends its segment's, and never raises."""
    try:
        places = [(row[2], row[5], row[7]) for row in elf.phdrs if row[0] == PT_NOTE]
        if not places:
            places = [(s.offset, s.size, s.addralign) for s in elf.sections if s.type == SHT_NOTE]
        found: list[Note] = []
        for offset, size, align in places:
            found += _parse(elf, elf.view.some(offset, min(size, _MAX_BYTES)), 8 if align == 8 else 4)
            if len(found) > _MAX_NOTES:
                break
    except DlwhyError:
        return ()
    return tuple(dict.fromkeys(found))


def build_id(elf: Elf) -> str | None:
    """Return the build-id in hexadecimal, None without one."""
    return next((n.desc.hex() for n in notes(elf) if n.owner == b"GNU" and n.type == NT_GNU_BUILD_ID and n.desc), None)


def _parse(elf: Elf, data: bytes, align: int) -> list[Note]:
    order = "little" if elf.little else "big"
    found: list[Note] = []
    at = 0
    while at + 12 <= len(data) and len(found) < _MAX_NOTES:
        namesz, descsz, kind = (int.from_bytes(data[at + i : at + i + 4], order) for i in (0, 4, 8))  # type: ignore[arg-type]
        name = at + 12
        desc = name + namesz + -(name + namesz) % align
        if desc + descsz > len(data):
            break
        found.append(Note(data[name : name + namesz].rstrip(b"\0"), kind, data[desc : desc + descsz]))
        at = desc + descsz + -(desc + descsz) % align
    return found
