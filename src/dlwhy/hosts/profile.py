"""Profile: a system and a process of it, described in one file so that another machine can check against it.

docs/reference/profile.md describes the file. It is read with bounds: nothing in it is decoded before it is asked for,
and each part of a file says beforehand how many bytes it makes. What is wrong with the file as a whole is an error;
what turns out to be damaged later is a fact that is missing.
"""

from __future__ import annotations

import os

from dlwhy.errors import FilesError, ProfileError, UsageError
from dlwhy.files import Files
from dlwhy.loader.faults import Unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from dlwhy.hosts.executable import Program
    from dlwhy.hosts.held import Held

SCHEMA = 1
FORMAT = "dlwhy profile"
_LARGEST_FILE = 1 << 29
"""Bytes of a profile that are read at most."""
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
        "_beside", "_directories", "_files", "_held", "_process", "_tree", "data", "kernel", "name",
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
        self._beside = beside
        self._held: Held | None = None

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

    # -- the files -----------------------------------------------------------------------------------------------

    def holds(self, place: str) -> bool:
        """Whether there are facts of a file, and not only its name."""
        return place in self._files

    @property
    def held(self) -> Held:
        """What it has of its files."""
        if self._held is None:
            from dlwhy.hosts.held import Held

            self._held = Held(self, self._files, self._beside)
        return self._held
