r"""Static libraries: the members of an archive (ar(5)), ordinary and thin, as GNU, System V and BSD write them.

    !<arch>\n or !<thin>\n, then per member 60 bytes: name 16, date 12, owner 6 + 6, mode 8, size 10, "`\n"
    /, /SYM64/, __.SYMDEF...    symbol tables: no members
    //                          the table of long names; /N is the name at byte N of it
    #1/N                        BSD: the name is the first N bytes of the member
    thin                        a member is a file beside the archive; /N:M is a member of another archive, at byte M

Rule: a member that is damaged or missing costs that member; what comes behind a damaged header cannot be found.
"""

from __future__ import annotations

from dlwhy.errors import DlwhyError, ElfError
from dlwhy.record import Record
from dlwhy.view import Part

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.files import Files
    from dlwhy.view import View

MAGIC, THIN = b"!<arch>\n", b"!<thin>\n"
MOST = 1 << 18
"""Members that are looked at."""
_HEADER = 60
_END = b"`\n"
_MOST_NAMES = 1 << 26
_LONGEST = 4096
_TABLES = frozenset((b"/", b"/SYM64/", b"__.SYMDEF", b"__.SYMDEF SORTED", b"__.SYMDEF_64"))


class Member(Record):
    """One member, in the order of the archive."""

    name: str
    view: View | None
    """Its bytes; None when they are not to be had."""
    error: str | None
    """Why not, in one sentence; None when they are."""


def members(view: View, files: Files) -> Iterator[Member]:
    """Yield the members of the archive in `view`; `files` opens those of a thin one. Raises `FilesError`."""
    thin = view.head[:8] == THIN
    names = b""
    at = len(MAGIC)
    for _ in range(MOST):
        if at >= view.size:
            return
        try:
            raw, size = _header(view, at)
        except ElfError as error:
            yield Member(f"at {at:#x}", None, f"{error}; what comes behind it is not looked for")
            return
        start = at + _HEADER
        if raw == b"//":
            names = view.some(start, min(size, _MOST_NAMES))
        elif raw not in _TABLES:
            try:
                name, begin, size_ = _name(view, raw, names, start, size)
                if thin:
                    yield _beside(view, files, name, size_)
                    size = 0
                elif not name.startswith("__.SYMDEF"):
                    yield _inside(view, name, begin, size_)
            except ElfError as error:
                yield Member(f"at {at:#x}", None, str(error))
                size = 0 if thin else size
        at = start + size + size % 2
    yield Member(f"at {at:#x}", None, f"{view.path}: only its first {MOST} members were looked at")


def _header(view: View, at: int) -> tuple[bytes, int]:
    """Return a member's name as written and its size in bytes. Raises `ElfError`."""
    header = view.some(at, _HEADER)
    if len(header) < _HEADER or header[58:] != _END:
        raise ElfError(view.path, at, "no header of an archive's member (ar(5))")
    number = header[48:58].strip()
    if not number.isdigit():
        raise ElfError(view.path, at, "the size of an archive's member is no number (ar(5))")
    return header[:16].rstrip(b" "), int(number)


def _name(view: View, raw: bytes, names: bytes, start: int, size: int) -> tuple[str, int, int]:
    """Return a member's name, where its bytes begin and how many there are. Raises `ElfError`."""
    if raw.startswith(b"#1/") and raw[3:].isdigit():
        length = min(int(raw[3:]), size, _LONGEST)
        name = view.some(start, length).rstrip(b"\0")
        start, size = start + length, size - length
    elif raw.startswith(b"/"):
        place, colon, within = raw[1:].partition(b":")
        if not place.isdigit() or int(place) >= len(names):
            raise ElfError(view.path, start - _HEADER, "the long name of an archive's member is not in its table")
        end = names.find(b"\n", int(place), int(place) + _LONGEST)
        name = names[int(place) : end if end >= 0 else None][:_LONGEST].removesuffix(b"/") + colon + within
    else:
        name = raw.removesuffix(b"/")
    return name.decode("utf-8", "surrogateescape"), start, size


def _inside(view: View, name: str, start: int, size: int) -> Member:
    if start + size > view.size:
        why = f"member {name} has {size} bytes, but the file ends at {view.size:#x}"
        return Member(name, None, str(ElfError(view.path, start, why)))
    return Member(name, Part(f"{view.path}({name})", view, start, size), None)


def _beside(view: View, files: Files, name: str, size: int) -> Member:
    """Return a member of a thin archive, which is a file by itself or inside another archive."""
    path, colon, within = name.rpartition(":")
    nested = bool(colon) and within.isdigit()
    path = path if nested else name
    if not path.startswith("/"):
        path = f"{view.path.rpartition('/')[0] or '.'}/{path}"
    try:
        found = files.open(path)
        if found.read_errno or not found.regular:
            return Member(name, None, f"{view.path}: member {path} is no file that can be read")
        if nested:
            return _nested(found, int(within), size)
    except DlwhyError as error:
        return Member(name, None, f"{view.path}: a member is missing: {error}")
    return Member(name, found, None)


def _nested(found: View, at: int, size: int) -> Member:
    """Return the member at byte `at` of the archive `found`, whose long names stand in a table before it."""
    raw, inner = _header(found, at)
    names = b""
    if raw.startswith(b"/"):
        place = len(MAGIC)
        for _ in range(3):  # the symbol tables and the table of names stand first
            table, length = _header(found, place)
            if table == b"//":
                names = found.some(place + _HEADER, min(length, _MOST_NAMES))
            if table not in (b"/", b"/SYM64/"):
                break
            place += _HEADER + length + length % 2
    name, start, length = _name(found, raw, names, at + _HEADER, min(inner, size))
    return _inside(found, name, start, length)
