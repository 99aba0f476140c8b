"""Held: of the files of a profile, the facts and the bytes that it keeps, decoded when they are asked for.

A part says beforehand how many bytes it makes, and never makes more. What turns out to be damaged is a fact that is
missing, of this one file.
"""

from __future__ import annotations

from dlwhy.errors import DlwhyError
from dlwhy.files import Files
from dlwhy.loader.faults import Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dlwhy.hosts.packed import Listed
    from dlwhy.hosts.profile import Profile
    from dlwhy.view import View

LARGEST_PART = 1 << 23
"""Bytes that one part of a file makes at most."""
LARGEST_STREAM = 1 << 24
"""Bytes that a stream of names or columns makes at most."""
LZMA = {"id": 0x21, "dict_size": LARGEST_PART}
"""How parts in a blob are packed: FILTER_LZMA2 of lzma."""
_RECORD = 24
"""Bytes of an entry of the tables that are kept in columns."""


class Held:
    """The files of one profile. Every method raises `Unknown` for one without facts, or with damaged ones."""

    __slots__ = (
        "_beside", "_blob", "_decoded", "_files", "_listed", "_name", "_numbers", "_parts", "_profile", "_same",
    )  # fmt: skip

    def __init__(self, profile: Profile, files: dict[str, Any], beside: str | None) -> None:
        """`beside` is the directory of the profile's file, where its blob is, if it has one."""
        self._profile, self._files, self._beside = profile, files, beside
        self._name = profile.name
        self._parts: dict[str, list[tuple[int, int, Any]]] = {}
        self._blob: View | None = None
        self._decoded: dict[tuple[str, int], bytes] = {}
        self._listed: dict[str, Listed] = {}
        self._numbers: dict[str, int] = {}
        self._same: dict[str, str] | None = None

    def number(self, place: str) -> int:
        """Return a number that only paths of the same file share."""
        if self._same is None:
            groups = self._profile.data.get("same", [])
            try:
                self._same = {one: group[0] for group in groups for one in group}
            except (TypeError, IndexError, KeyError):
                raise self._profile.damaged(place) from None
        first = self._same.get(place, place)
        return self._numbers.setdefault(first, len(self._numbers) + 1)

    def _row(self, place: str) -> dict[str, Any]:
        row = self._files.get(place)
        if row is None:
            raise Unknown(f"what is in {place}: {self._name} has its name only, no facts", "header")
        if type(row) is not dict:
            raise self._profile.damaged(place)
        return row

    def refused(self, place: str) -> int:
        """Return the errno with which the file could not be opened, or 0. Raises `Unknown` for one without facts."""
        number = self._row(place).get("errno", 0)
        return number if type(number) is int and 0 < number < 4096 else 0

    def marks(self, place: str) -> frozenset[bytes]:
        """Return the marks that were looked for in a file: where they stand is kept. Raises `Unknown`."""
        try:
            return frozenset(one.encode("latin-1") for one in self._row(place).get("marks", ()))
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise self._profile.damaged(place) from None

    def extent(self, place: str) -> tuple[int, list[int], list[int]]:
        """Return (size, starts, ends) of a file and its kept parts, in bytes. Raises `Unknown`."""
        size = self._row(place).get("size")
        parts = self._parts.get(place)
        if parts is None:
            parts = self._parts[place] = self._ranges(place, size)
        assert type(size) is int
        return size, [part[0] for part in parts], [part[0] + part[1] for part in parts]

    def _ranges(self, place: str, size: Any) -> list[tuple[int, int, Any]]:
        parts: list[tuple[int, int, Any]] = []
        rows = self._row(place).get("parts")
        if type(size) is not int or not 0 <= size < 1 << 63 or type(rows) is not list:
            raise self._profile.damaged(place)
        end = 0
        for row in rows:
            if type(row) is not list or [type(one) for one in row[:2]] != [int, int] or len(row) not in (3, 4, 6):
                raise self._profile.damaged(place)
            start, length = row[:2]
            if start < end or not 0 < length <= LARGEST_PART or start + length > size:
                raise self._profile.damaged(place)
            parts.append((start, length, row[2] if len(row) == 3 else row[2:]))
            end = start + length
        return parts

    def part(self, place: str, number: int) -> bytes:
        """Return the bytes of one part of a file, decoded once."""
        found = self._decoded.get((place, number))
        if found is None:
            _, size, source = self._parts[place][number]
            if type(source) is str:
                data = self._inflated(place, size, source)
            elif type(source) is not list:
                raise self._profile.damaged(place)
            else:
                data = self._unpacked(place, source, size) if len(source) == 2 else self._table(place, size, source)
            if len(data) != size:
                raise self._profile.damaged(place)
            found = self._decoded[place, number] = data
        return found

    def listed(self, place: str) -> Listed | None:
        """Return the names of a file's symbols where they are kept without a hash table; None of all others."""
        if "names" not in self._row(place):
            return None
        if place not in self._listed:
            self.extent(place)
            for number, (_, _, source) in enumerate(self._parts[place]):
                if type(source) is list and source[3:] == ["symbols"]:
                    self.part(place, number)
        if place not in self._listed:
            raise self._profile.damaged(place)
        return self._listed[place]

    def _table(self, place: str, size: int, source: list[Any]) -> bytes:
        """A table that is kept in columns; the names of symbols are remembered."""
        from dlwhy.hosts.packed import ENTRIES, SYMBOLS, Damaged, entries, symbols

        at, length, made, how = source
        data = self._unpacked(place, [at, length], made)
        names: Any = self._row(place).get("names")
        if how != ENTRIES and (how != SYMBOLS or type(names) is not list or len(names) != 3):
            raise self._profile.damaged(place)
        try:
            if how == ENTRIES:
                return entries(data, size // _RECORD)
            table, self._listed[place] = symbols(data, self._unpacked(place, names[:2], names[2]), size // _RECORD)
        except Damaged:
            raise self._profile.damaged(place) from None
        return table

    def _inflated(self, place: str, size: int, text: str) -> bytes:
        """What a text makes: base64 of a zlib stream. Never more than one byte too many."""
        from binascii import Error, a2b_base64
        from zlib import decompressobj
        from zlib import error as ZlibError  # noqa: N812 -- a class

        unpacker = decompressobj()
        try:
            data = unpacker.decompress(a2b_base64(text), size + 1)
        except (Error, ValueError, ZlibError):
            raise self._profile.damaged(place) from None
        return data if unpacker.eof else b""

    def _unpacked(self, place: str, source: list[Any], size: Any) -> bytes:
        """What a range of the blob makes: LZMA2 without a header. Never more than one byte too many."""
        try:
            from _lzma import FORMAT_RAW, LZMADecompressor, LZMAError
        except ImportError:
            raise Unknown(f"what is in {place}: this Python was built without lzma, which {self._name} needs") from None
        name = self._profile.data.get("blob")
        if (
            self._beside is None or type(name) is not str or "/" in name
            or [type(one) for one in (*source, size)] != [int] * 3 or not 0 <= size <= LARGEST_STREAM
        ):  # fmt: skip
            raise self._profile.damaged(place)
        try:
            if self._blob is None:
                self._blob = Files().open(f"{self._beside or '.'}/{name}")
            packed = self._blob.read(*source)
            unpacker = LZMADecompressor(FORMAT_RAW, filters=[LZMA])
            data: bytes = unpacker.decompress(packed, size + 1)
        except (DlwhyError, LZMAError, EOFError):
            raise self._profile.damaged(place) from None
        if len(data) != size:
            raise self._profile.damaged(place)
        return data
