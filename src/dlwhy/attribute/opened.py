"""What a file says that it opens itself, by dlopen: the note that lists it, and constants that look like sonames.

The note is a fact: `.note.dlopen` (systemd.io, ELF_DLOPEN_METADATA) names for each feature the libraries any of which
will do. A constant is a guess: that an object imports dlopen and has "libfoo.so.1" among its constants does not say
that it ever opens that, nor that it would open nothing else.
"""

from __future__ import annotations

from dlwhy.elf.constants import PF_W, PF_X, SHT_NOBITS
from dlwhy.elf.notes import NT_FDO_DLOPEN, notes
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf
    from dlwhy.elf.notes import Note

REQUIRED, RECOMMENDED, SUGGESTED = "required", "recommended", "suggested"
_PRIORITIES = (REQUIRED, RECOMMENDED, SUGGESTED)
_OPENERS = (b"dlopen", b"dlmopen", b"__libc_dlopen_mode")
_LETTERS = bytes(c for c in range(128) if chr(c).isalnum() or chr(c) in "_+.-")
_LONGEST_NAME = 200
_MOST = 1000
"""Entries of all notes, or constants of one file, at most."""
_LONGEST = 300
"""Characters of a text in a note that are kept."""
_PIECE = 8 << 20
_OVERLAP = 1024
"""Bytes of one piece of a section that are looked at again with the next; a longer string is not found."""
_MOST_SCANNED = 1 << 30
_PLACES = 8
"""Of a function's name in a string table that are looked at: linkers write each name once."""


class Wanted(Record):
    """Libraries any of which a file opens for one feature."""

    sonames: tuple[str, ...]
    """In the order in which the note has them."""
    feature: str | None
    description: str | None
    priority: str
    """required, recommended or suggested; recommended where the note has none, as it is defined."""


def noted(elf: Elf) -> tuple[tuple[Wanted, ...], str | None]:
    """Return what `.note.dlopen` lists, and one sentence about what in it could not be read. Never raises."""
    found: list[Wanted] = []
    wrong = None
    for note in _notes(elf):
        if note.type != NT_FDO_DLOPEN or note.owner != b"FDO":
            continue
        import json  # nearly no file has such a note

        try:
            value = json.loads(note.desc.rstrip(b"\0"))
        except (ValueError, RecursionError):
            value = None
        value = [value] if isinstance(value, dict) else value  # as it was first defined
        entries = [_entry(one) for one in value[:_MOST]] if isinstance(value, list) else [None]
        found += [one for one in entries if one is not None]
        if None in entries:
            wrong = ".note.dlopen is not read, or in part: not as it is defined"
    return tuple(dict.fromkeys(found[:_MOST])), wrong


def _notes(elf: Elf) -> tuple[Note, ...]:
    try:
        return notes(elf)
    except Unknown:
        return ()


def _entry(value: object) -> Wanted | None:
    """One object of the note's array; None for what is none."""
    if not isinstance(value, dict):
        return None
    sonames = value.get("soname")
    sonames = [sonames] if isinstance(sonames, str) else sonames
    names = [one for one in sonames if isinstance(one, str) and one] if isinstance(sonames, list) else []
    if not names:
        return None
    priority = value.get("priority")
    return Wanted(
        tuple(one[:_LONGEST] for one in names[:_MOST]), _text(value.get("feature")), _text(value.get("description")),
        priority if isinstance(priority, str) and priority in _PRIORITIES else RECOMMENDED,
    )  # fmt: skip


def _text(value: object) -> str | None:
    return value[:_LONGEST] if isinstance(value, str) and value else None


def guessed(elf: Elf, known: frozenset[str]) -> tuple[str, ...]:
    """Return constants like sonames of a file that imports dlopen, without those `known`. Never raises."""
    if not _opens(elf):
        return ()
    found: dict[str, None] = {}
    try:
        for data in constants(elf):
            found.update(dict.fromkeys(_sonames(data)))
            if len(found) > _MOST:
                break
    except (DlwhyError, Unknown):
        pass  # what was found until there is still there; a captured system holds no more than the loader reads
    return tuple(name for name in found if name not in known)[:_MOST]


def constants(elf: Elf) -> Iterator[bytes]:
    """Yield the constants of a file piece by piece: `.rodata` and the like, else all that can only be read."""
    places = [(s.offset, s.size) for s in elf.sections if ".rodata" in s.name and s.type != SHT_NOBITS]
    if not places:
        places = [(row[2], row[5]) for row in elf.loads if not row[1] & PF_W]
        narrower = [(row[2], row[5]) for row in elf.loads if not row[1] & (PF_W | PF_X)]
        places = narrower or places
    scanned = 0
    for offset, size in places:
        for at in range(0, size, _PIECE):
            data = elf.view.some(offset + at, min(_PIECE + _OVERLAP, size - at))
            scanned += len(data)
            if not data or scanned > _MOST_SCANNED:
                return
            yield data


def _sonames(data: bytes) -> list[str]:
    """Whole strings like "libfoo.so.1", in their order. Without `re`, whose import would cost more than most answers.

    ".so" is rarer than "lib" and backwards `bytes` finds faster, so each string is met at its last ".so".
    """
    found = []
    at = data.rfind(b".so")
    while at >= 0:
        start, end = data.rfind(b"\0", 0, at) + 1, data.find(b"\0", at)
        name = data[start:end] if start < end <= start + _LONGEST_NAME else b""
        release = name[at + 3 - start :]
        if data.startswith(b"lib", start, at - 1) and not name.translate(None, _LETTERS) and _is_release(release):
            found.append(name.decode("ascii"))
        at = data.rfind(b".so", 0, start)
    return found[::-1]


def _is_release(text: bytes) -> bool:
    """Whether this is nothing, or numbers with a dot before each."""
    return not text or (text[:1] == b"." and all(part.isdigit() for part in text[1:].split(b".")))


def _opens(elf: Elf) -> bool:
    """Whether a file imports a function that opens libraries."""
    try:
        return bool(imported(elf, _OPENERS))
    except (DlwhyError, Unknown):
        return False


def imported(elf: Elf, names: tuple[bytes, ...]) -> set[bytes]:
    """Return which of these functions a file imports. Raises `ElfError` when its tables leave the file, `Unknown`."""
    if elf.dynamic is None:
        return set()
    strings = elf.symbols.names
    return {name for name in names if any(elf.symbols.lacks(at) for at in _places(name + b"\0", strings))}


def _places(name: bytes, strings: bytes) -> Iterator[int]:
    """Where a name stands in a string table, also as the end of a longer one, which linkers share."""
    at = strings.find(name)
    for _ in range(_PLACES):
        if at < 0:
            return
        yield at
        at = strings.find(name, at + 1)
