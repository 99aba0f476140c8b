"""Profile: a system and a process of it, described in one file so that another machine can check against it.

docs/reference/profile.md describes the file. It is read with bounds: nothing in it is decoded before it is asked for,
and each part of a file says beforehand how many bytes it makes. What is wrong with the file as a whole is an error;
what turns out to be damaged later is a fact that is missing.
"""

from __future__ import annotations

import os

from dlwhy.errors import DlwhyError, FilesError, ProfileError, UsageError
from dlwhy.files import Files
from dlwhy.loader.faults import Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from dlwhy.hosts.executable import Program
    from dlwhy.view import View

SCHEMA = 1
FORMAT = "dlwhy profile"
_LARGEST_FILE = 1 << 29
"""Bytes of a profile that are read at most."""
LARGEST_PART = 1 << 23
"""Bytes that one part of a file makes at most."""
LZMA = {"id": 0x21, "dict_size": LARGEST_PART}
"""How parts in a blob are packed: FILTER_LZMA2 of lzma."""
_DIRECTORY = "profiles"
_KINDS = ("file", "program", "set-user-ID", "directory", "other")


def shipped() -> dict[str, str]:
    """Return name -> path of the profiles that come with dlwhy."""
    place = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), _DIRECTORY)
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return {}
    return {name.removesuffix(".json"): f"{place}/{name}" for name in names if name.endswith(".json")}


def split(words: str) -> tuple[str, str | None]:
    """Return (profile, HOST in it or None) of what stands behind `profile:`; either may have colons of its own."""
    known = shipped()
    head = words
    while True:
        if head in known or os.path.exists(head):
            return head, words[len(head) + 1 :] or None
        head, colon, _ = head.rpartition(":")
        if not colon:
            return words, None


def load(name: str | os.PathLike[str]) -> Profile:
    """Return the profile of a file, or of a name that comes with dlwhy.

    Raises `UsageError` where there is none, `ProfileError` for a file that is none.
    """
    word = os.fspath(name)
    known = shipped() if "/" not in word else {}
    path = known.get(word, word)
    files = Files()
    try:
        view = files.open(path)
        if not view.regular or view.read_errno:
            raise ProfileError(f"profile {word}: no regular file")
        if view.size > _LARGEST_FILE:
            raise ProfileError(f"profile {word}: {view.size} bytes, where dlwhy reads at most {_LARGEST_FILE}")
        text = b"".join(view.read(at, min(1 << 27, view.size - at)) for at in range(0, view.size, 1 << 27))
    except FilesError as error:
        names = f"; {', '.join(shipped())} come with dlwhy" if "/" not in word and shipped() else ""
        raise UsageError(f"profile {word}: {error.reason}{names}") from None
    finally:
        files.close()
    return Profile(word, _parsed(text, word), os.path.dirname(path))


def _parsed(data: bytes, name: str) -> dict[str, Any]:
    """The JSON object of a profile. Raises `ProfileError`."""
    head = data[:64].lstrip()
    if not head:
        raise ProfileError(f"profile {name}: the file is empty")
    try:
        text = data.decode("utf-8")
        value, end = _scanner()(text, len(text) - len(text.lstrip()))
    except (ValueError, StopIteration, RecursionError, SystemError):  # the last one where json itself is not imported
        what = "it is cut off, or damaged" if head[:1] == b"{" else "it does not begin as one"
        raise ProfileError(f"profile {name}: no JSON text: {what}") from None
    if text[end:].strip():
        raise ProfileError(f"profile {name}: something stands behind the JSON text")
    if type(value) is not dict or value.get("format") != FORMAT:
        raise ProfileError(f"profile {name}: JSON, but no profile: `dlwhy capture` writes one")
    schema = value.get("schema")
    if type(schema) is not int or schema < 1:
        raise ProfileError(f"profile {name}: its schema is {schema!r}, no number from 1 on")
    if schema > SCHEMA:
        raise ProfileError(f"profile {name}: of schema {schema}, which a newer dlwhy wrote; this one reads {SCHEMA}")
    return value


def _scanner() -> Any:
    """A function of (text, place) -> (value, end), as json has it: without json, whose `re` costs more than reading."""
    try:
        from _json import make_scanner as make
    except ImportError:  # another Python than CPython
        import json

        return json.JSONDecoder().raw_decode

    class Context:
        strict, object_hook, object_pairs_hook, memo = True, None, None, dict[str, str]()
        parse_float, parse_int, parse_constant = float, int, float

    context: Any = Context()
    return make(context)


class Profile:
    """One profile: what it says, and what was decoded of it. `text()` is the file, `data` its JSON object."""

    __slots__ = (
        "_beside", "_blob", "_decoded", "_directories", "_files", "_numbers", "_parts", "_process", "_same", "_tree",
        "data", "kernel", "name",
    )  # fmt: skip

    def __init__(self, name: str, data: dict[str, Any], beside: str | None = None) -> None:
        """`beside` is the directory of the file, where its blob is, if it has one.

        Raises `ProfileError` where the parts of the file are not what they must be.
        """
        self.name = f"profile {name}"
        """What to call it in a sentence."""
        self.data = data
        """The JSON object."""
        self._process: dict[str, Any] = self._table(data, "process")
        self._tree: dict[str, Any] = self._table(data, "tree")
        self._files: dict[str, Any] = self._table(data, "files")
        self.kernel: dict[str, str] = self._table(data, "kernel")
        """Path -> text of files in /proc that were asked for."""
        if not all(type(text) is str for text in self.kernel.values()):
            self._wrong("kernel")
        self._directories: dict[str, tuple[dict[str, str], bool]] = {}
        self._parts: dict[str, list[tuple[int, int, Any]]] = {}
        self._beside = beside
        self._blob: View | None = None
        self._decoded: dict[tuple[str, int], bytes] = {}
        self._numbers: dict[str, int] = {}
        self._same: dict[str, str] | None = None

    def text(self) -> str:
        """The profile as a file has it: JSON, one line for each file that it describes."""
        import json

        def line(value: Any) -> str:
            return json.dumps(value, separators=(",", ":"))

        rows = [f"{line(key)}:{line(value)}" for key, value in self.data.items() if key != "files"]
        files = ",\n".join(f"{line(path)}:{line(row)}" for path, row in self._files.items())
        return "{" + ",\n".join([*rows, f'"files":{{{files}}}']) + "}\n"

    def _wrong(self, what: str) -> NoReturn:
        raise ProfileError(f"{self.name}: {what!r} is not what it must be (docs/reference/profile.md)")

    def _table(self, data: dict[str, Any], key: str) -> dict[str, Any]:
        value = data.get(key)
        if type(value) is not dict:
            self._wrong(key)
        return value

    def word(self, key: str) -> str | None:
        """Return one of the process's texts, None where it has none. Raises `ProfileError`."""
        value = self._process.get(key)
        if value is not None and (type(value) is not str or "\0" in value):
            self._wrong(f"process.{key}")
        return value

    # -- the process ---------------------------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The HOST that was captured, as it was written."""
        return self.word("host") or "plain"

    @property
    def environment(self) -> dict[str, str]:
        """The loader's variables of the process."""
        return self._variables("environment")

    @property
    def shell(self) -> dict[str, str]:
        """The loader's variables of the shell that captured it."""
        return self._variables("shell")

    def _variables(self, key: str) -> dict[str, str]:
        value = self._process.get(key, {})
        if type(value) is not dict or not all(type(one) is str for one in value.values()):
            self._wrong(f"process.{key}")
        return dict(value)

    @property
    def program(self) -> Program | None:
        """The program of the process; None for `plain`. Raises `ProfileError`."""
        path = self.word("program")
        if path is None:
            return None
        remarks = self._process.get("remarks", [])
        if type(remarks) is not list or not all(type(one) is str for one in remarks) or not path.startswith("/"):
            self._wrong("process.program")
        from dlwhy.hosts.executable import Program

        return Program(path, self.word("argv0") or self.host, tuple(remarks), {})

    @property
    def secure(self) -> bool:
        """AT_SECURE of the process."""
        return self._process.get("secure") is True

    # -- the tree ------------------------------------------------------------------------------------------------

    def lists(self, path: str) -> bool:
        """Whether the names in a directory, its links followed, are kept."""
        return path in self._tree

    def directory(self, path: str, wanted: str) -> tuple[dict[str, str], bool]:
        """Return (name -> kind, whether these are all) of a directory, its links followed.

        Raises `Unknown` where it is not kept; `wanted` is the path that was asked for.
        """
        found = self._directories.get(path)
        if found is None:
            if path not in self._tree:
                raise Unknown(f"whether there is {wanted}: {self.name} does not tell what is in {path}", "search")
            found = self._directories[path] = self._names(path, self._tree[path])
        return found

    def _names(self, path: str, row: Any) -> tuple[dict[str, str], bool]:
        names: dict[str, str] = {}
        try:
            for kind in _KINDS:
                for name in row.get(kind, ()):
                    names[name] = kind
            for name, target in row.get("link", {}).items():
                names[name] = ">" + target
            return names, row.get("complete") is True
        except (AttributeError, TypeError):
            raise self.damaged(path) from None

    def damaged(self, path: str) -> Unknown:
        """Return what to raise for what is not as it must be."""
        return Unknown(f"what is in {path}: that part of {self.name} is damaged")

    # -- the bytes of files --------------------------------------------------------------------------------------

    def number(self, place: str) -> int:
        """Return a number that only paths of the same file share."""
        if self._same is None:
            groups = self.data.get("same", [])
            try:
                self._same = {one: group[0] for group in groups for one in group}
            except (TypeError, IndexError, KeyError):
                raise self.damaged(place) from None
        first = self._same.get(place, place)
        return self._numbers.setdefault(first, len(self._numbers) + 1)

    def _row(self, place: str) -> dict[str, Any]:
        row = self._files.get(place)
        if row is None:
            raise Unknown(f"what is in {place}: {self.name} has its name only, no facts", "header")
        if type(row) is not dict:
            raise self.damaged(place)
        return row

    def holds(self, place: str) -> bool:
        """Whether there are facts of a file, and not only its name."""
        return place in self._files

    def refused(self, place: str) -> int:
        """Return the errno with which the file could not be opened, or 0. Raises `Unknown` for one without facts."""
        number = self._row(place).get("errno", 0)
        return number if type(number) is int and 0 < number < 4096 else 0

    def marks(self, place: str) -> frozenset[bytes]:
        """Return the marks that were looked for in a file: where they stand is kept. Raises `Unknown`."""
        try:
            return frozenset(one.encode("latin-1") for one in self._row(place).get("marks", ()))
        except (AttributeError, TypeError, UnicodeEncodeError):
            raise self.damaged(place) from None

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
            raise self.damaged(place)
        end = 0
        for row in rows:
            if type(row) is not list or [type(one) for one in row[:2]] != [int, int] or len(row) not in (3, 4):
                raise self.damaged(place)
            start, length = row[:2]
            if start < end or not 0 < length <= LARGEST_PART or start + length > size:
                raise self.damaged(place)
            parts.append((start, length, row[2] if len(row) == 3 else row[2:]))
            end = start + length
        return parts

    def part(self, place: str, number: int) -> bytes:
        """Return the bytes of one part of a file, decoded once. Raises `Unknown` for a damaged one."""
        found = self._decoded.get((place, number))
        if found is None:
            _, size, source = self._parts[place][number]
            data = self._inflated(place, size, source) if type(source) is str else self._from_blob(place, size, source)
            if len(data) != size:
                raise self.damaged(place)
            found = self._decoded[place, number] = data
        return found

    def _inflated(self, place: str, size: int, text: str) -> bytes:
        """What a text makes: base64 of a zlib stream. Never more than one byte too many."""
        from binascii import Error, a2b_base64
        from zlib import decompressobj
        from zlib import error as ZlibError  # noqa: N812 -- a class

        unpacker = decompressobj()
        try:
            data = unpacker.decompress(a2b_base64(text), size + 1)
        except (Error, ValueError, ZlibError):
            raise self.damaged(place) from None
        return data if unpacker.eof else b""

    def _from_blob(self, place: str, size: int, source: Any) -> bytes:
        """What a range of the blob makes: LZMA2 without a header. Never more than one byte too many."""
        try:
            from _lzma import FORMAT_RAW, LZMADecompressor, LZMAError
        except ImportError:
            raise Unknown(f"what is in {place}: this Python was built without lzma, which {self.name} needs") from None
        name = self.data.get("blob")
        if self._beside is None or type(name) is not str or "/" in name or [type(one) for one in source] != [int, int]:
            raise self.damaged(place)
        try:
            if self._blob is None:
                self._blob = Files().open(f"{self._beside or '.'}/{name}")
            packed = self._blob.read(*source)
            unpacker = LZMADecompressor(FORMAT_RAW, filters=[LZMA])
            data: bytes = unpacker.decompress(packed, size + 1)
        except (DlwhyError, LZMAError, EOFError):
            raise self.damaged(place) from None
        return data
