"""Rust's v0 mangling (`_R...`), read back into a path.

v0 is a small language of its own (RFC 2603, "Rust symbol mangling v0"): a path, its types and constants in prefix
notation, and `B<n>_`, a reference back to what stands at byte n. Text is spelled as the reference demangler of the
Rust project spells it without hashes.

Rule 1: a name is hostile until proven otherwise. It is read in at most `MAX_STEPS` steps, `MAX_DEPTH` levels deep, and
its parts together have at most `MAX_TEXT` characters; whatever needs more has no demangled form.
Rule 2: a part read once is kept by its position, so a reference back costs nothing (and a chain of them, each doubling
the one before, ends at `MAX_TEXT`). Under a `for<'a>` binder nothing is kept: there the same bytes may mean another
lifetime.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

MAX_STEPS = 4000
"""Paths, types and constants read for one name. Of 330,000 honest names none needed more than 162."""
MAX_DEPTH = 100
"""Levels of nesting, each at most five of Python's thousand stack frames. Honest names: 44."""
MAX_TEXT = 1 << 22
"""Characters of all parts of one demangled name, those inside others counted again. Honest names: 243,000."""

_BASIC = {
    "a": "i8", "b": "bool", "c": "char", "d": "f64", "e": "str", "f": "f32", "h": "u8", "i": "isize", "j": "usize",
    "l": "i32", "m": "u32", "n": "i128", "o": "u128", "p": "_", "s": "i16", "t": "u16", "u": "()", "v": "...",
    "x": "i64", "y": "u64", "z": "!",
}  # fmt: skip
_PATH_TAGS = frozenset("CNMXYI")
_UNSIGNED = frozenset("htmyoj")
_SIGNED = frozenset("aslxni")
_U64 = (1 << 64) - 1

# [disambiguator] ["u"] length ["_"]: what stands before the bytes of an identifier. Eleven base-62 digits hold 64 bits.
_IDENT = re.compile(r"(?:s([0-9a-zA-Z]{0,11})_)?(u?)(0|[1-9][0-9]{0,5})_?")
_PLAIN_IDENT = re.compile(r"(u?)(0|[1-9][0-9]{0,5})_?")
_NESTED = re.compile(r"(?:N[a-zA-Z])+")
_DISAMBIGUATOR = re.compile(r"(?:s[0-9a-zA-Z]{0,11}_)?")
_BASE62 = re.compile(r"([0-9a-zA-Z]{0,11})_")
_HEX = re.compile(r"([0-9a-f]*)_")
PRINTABLE_SUFFIX = re.compile(r"\.[!-~]*")
"""What code generators append behind either mangling, e.g. `.cold`."""
_DIGITS = {c: n for n, c in enumerate("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")}


class UnreadableError(Exception):
    """The name is not v0, or it is larger than the limits above."""


class _V0:
    """One v0 name (without its `_R`) being read. `at` is the next character; every method returns text."""

    __slots__ = ("at", "bound", "depth", "kept", "kept_values", "name", "steps", "written")

    def __init__(self, name: str) -> None:
        self.name = name + "\0\0"  # two characters that begin nothing: looking ahead never leaves the string
        self.at = 0
        self.depth = 0
        self.steps = 0
        self.bound = 0
        """Lifetimes bound around this place."""
        self.written = 0
        """Characters of all parts together, those inside others counted again."""
        self.kept: dict[int, str] = {}
        self.kept_values: dict[int, str] = {}  # paths in value position spell generics `::<`

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MAX_STEPS or self.depth > MAX_DEPTH:
            raise UnreadableError

    # -- terminals -------------------------------------------------------------------------------------------------

    def _eat(self, tag: str) -> bool:
        if self.name[self.at] == tag:
            self.at += 1
            return True
        return False

    def _base62(self) -> int:
        found = _BASE62.match(self.name, self.at)
        if not found:
            raise UnreadableError
        self.at = found.end()
        return _base62_value(found[1])

    def _ident(self, found: re.Match[str] | None) -> str:
        """Return the identifier whose length was matched; the last two groups are `u` and the length."""
        if not found:
            raise UnreadableError
        start = found.end()
        end = self.at = start + int(found[found.re.groups])
        if end > len(self.name) - 2:
            raise UnreadableError
        text = self.name[start:end]
        return punycode(text) if found[found.re.groups - 1] else text

    def _hex(self) -> str:
        found = _HEX.match(self.name, self.at)
        if not found:
            raise UnreadableError
        self.at = found.end()
        return found[1]

    def _backref(self, kept: dict[int, str] | None, read: Callable[..., str], *args: bool) -> str:
        """Return what stands at an earlier place: as kept, else as `read` reads it. `at` is behind the `B`."""
        place = self.at - 1
        target = self._base62()
        if target >= place:
            raise UnreadableError
        text = None if self.bound or kept is None else kept.get(target)
        if text is None:
            back, self.at = self.at, target
            self.depth += 1
            text = read(*args)
            self.depth -= 1
            self.at = back
        return text

    def _keep(self, kept: dict[int, str], place: int, text: str) -> str:
        self.written += len(text)
        if self.written > MAX_TEXT:
            raise UnreadableError
        if not self.bound:
            kept[place] = text
        return text

    # -- paths -----------------------------------------------------------------------------------------------------

    def path(self, value: bool) -> str:
        self._step()
        name = self.name
        place = self.at
        kept = self.kept_values if value else self.kept
        nested = _NESTED.match(name, place)
        if nested:
            self.at = nested.end()
            self.depth += 1
            text = self._plain_path(value)
            self.depth -= 1
            for inner in range(nested.end() - 2, place - 2, -2):
                found = _IDENT.match(name, self.at)
                ident = self._ident(found)
                if name[inner + 1] <= "Z":  # special namespaces are upper case: closures, shims
                    kind = {"C": "closure", "S": "shim"}.get(name[inner + 1], name[inner + 1])
                    extra = ":" + ident if ident else ""
                    assert found is not None
                    number = 0 if found[1] is None else _base62_value(found[1]) + 1
                    text = f"{text}::{{{kind}{extra}#{number}}}"
                elif ident:
                    text = f"{text}::{ident}"
                self._keep(kept, inner, text)
            return text
        return self._plain_path(value)

    def _plain_path(self, value: bool) -> str:
        """Return a path that is not a nested one."""
        name = self.name
        place = self.at
        tag = name[place]
        self.at = place + 1
        kept = self.kept_values if value else self.kept
        if tag == "C":
            return self._keep(kept, place, self._ident(_IDENT.match(name, place + 1)))
        if tag == "B":
            return self._backref(kept, self.path, value)
        self.depth += 1
        if tag == "I":
            text = f"{self.path(value)}{'::' if value else ''}<{self._list(self._generic)}>"
        elif tag in "MXY":
            if tag != "Y":
                found = _DISAMBIGUATOR.match(name, self.at)
                assert found is not None  # it matches nothing, too
                self.at = found.end()
                self.path(False)  # where the impl stands: not shown
            text = f"<{self.type()}>" if tag == "M" else f"<{self.type()} as {self.path(False)}>"
        else:
            raise UnreadableError
        self.depth -= 1
        return self._keep(kept, place, text)

    def _parts(self, read: Callable[[], str]) -> list[str]:
        parts = []
        total = 0
        while not self._eat("E"):
            parts.append(read())
            total += len(parts[-1])
            if total > MAX_TEXT:
                raise UnreadableError
        return parts

    def _list(self, read: Callable[[], str]) -> str:
        return ", ".join(self._parts(read))

    def _parenthesised(self, read: Callable[[], str]) -> str:
        parts = self._parts(read)
        return f"({parts[0]},)" if len(parts) == 1 else f"({', '.join(parts)})"

    def _generic(self) -> str:
        tag = self.name[self.at]
        if tag == "L":
            self.at += 1
            return self._lifetime(self._base62())
        if tag == "K":
            self.at += 1
            return self.constant(False)
        return self.type()

    def _lifetime(self, index: int) -> str:
        """Return the lifetime `index` binders out, counted from 1; 0 is the erased one."""
        if not index:
            return "'_"
        depth = self.bound - index
        if depth < 0:
            raise UnreadableError
        return f"'{chr(97 + depth)}" if depth < 26 else f"'_{depth}"

    # -- types -----------------------------------------------------------------------------------------------------

    def type(self) -> str:
        name = self.name
        place = self.at
        tag = name[place]
        basic = _BASIC.get(tag)
        if basic is not None:
            self.at = place + 1
            return basic
        if tag in _PATH_TAGS:
            return self.path(False)
        self.at = place + 1
        self._step()
        if tag == "B":
            return self._backref(self.kept, self.type)
        self.depth += 1
        read = _TYPES.get(tag)
        if read is None:
            raise UnreadableError
        text = read(self, tag)
        self.depth -= 1
        return self._keep(self.kept, place, text)

    def _reference(self, tag: str) -> str:
        lifetime = ""
        if self._eat("L"):
            index = self._base62()
            lifetime = self._lifetime(index) + " " if index else ""
        return f"&{lifetime}{'mut ' if tag == 'Q' else ''}{self.type()}"

    def _pointer(self, tag: str) -> str:
        return f"*{'const' if tag == 'P' else 'mut'} {self.type()}"

    def _slice(self, tag: str) -> str:
        inner = self.type()
        return f"[{inner}; {self.constant(True)}]" if tag == "A" else f"[{inner}]"

    def _tuple(self, _tag: str) -> str:
        return self._parenthesised(self.type)

    def _binder(self) -> tuple[str, int]:
        """Return `for<'a, 'b> ` and how many lifetimes it binds."""
        if not self._eat("G"):
            return "", 0
        count = self._base62() + 1
        if count > 1000:  # each is printed; an honest binder has a handful
            raise UnreadableError
        self.bound += count
        names = ", ".join(self._lifetime(n) for n in range(count, 0, -1))
        return f"for<{names}> ", count

    def _function(self, _tag: str) -> str:
        text, count = self._binder()
        if self._eat("U"):
            text += "unsafe "
        if self._eat("K"):
            abi = "C" if self._eat("C") else self._ident(_PLAIN_IDENT.match(self.name, self.at)).replace("_", "-")
            text += f'extern "{abi}" '
        text += f"fn({self._list(self.type)})"
        if not self._eat("u"):
            text += " -> " + self.type()
        self.bound -= count
        return text

    def _dyn(self, _tag: str) -> str:
        text, count = self._binder()
        traits = []
        while not self._eat("E"):
            traits.append(self._dyn_trait())
        self.bound -= count
        if not self._eat("L"):
            raise UnreadableError
        index = self._base62()
        if index:
            traits.append(self._lifetime(index))
        return f"dyn {text}{' + '.join(traits)}"

    def _dyn_trait(self) -> str:
        text = self.path(False)
        bindings = []
        while self._eat("p"):
            ident = self._ident(_PLAIN_IDENT.match(self.name, self.at))
            bindings.append(f"{ident} = {self.constant(False) if self._eat('K') else self.type()}")
        if not bindings:
            return text
        # associated types stand in the trait's own generics: `dyn Fn<(A,), Output = B>`
        head = text[:-1] + ", " if self._opens(text) else text + "<"
        return f"{head}{', '.join(bindings)}>"

    def _opens(self, text: str) -> bool:
        # only a path with generics of its own ends in `>` where no impl-path (`<A as B>`) does: those continue `::name`
        return text.endswith(">") and not text.startswith("<")

    def _pattern_type(self, _tag: str) -> str:
        return f"{self.type()} is {self._pattern()}"

    def _pattern(self) -> str:
        self._step()
        tag = self.name[self.at]
        self.at += 1
        if tag == "R":
            return f"{self.constant(False)}..={self.constant(False)}"
        if tag == "N":
            return "!null"
        if tag != "O":
            raise UnreadableError
        self.depth += 1
        parts = [self._pattern()]
        while not self._eat("E"):
            parts.append(self._pattern())
        self.depth -= 1
        return " | ".join(parts)

    def _splat(self, _tag: str) -> str:
        return "#[splat] " + self.type()

    # -- constants -------------------------------------------------------------------------------------------------

    def constant(self, value: bool) -> str:
        """Return a constant; outside of another one (`value` false) all but literals wear braces."""
        self._step()
        tag = self.name[self.at]
        self.at += 1
        if tag == "p":
            return "_"
        if tag in _UNSIGNED:
            return self._number()
        if tag in _SIGNED:
            return ("-" if self._eat("n") else "") + self._number()
        if tag == "b":
            return ("false", "true")[self._small(1)]
        if tag == "c":
            return _quoted(_character(self._small(0x10FFFF)), "'")
        if tag == "R" and self._eat("e"):
            return self._string()
        self.depth += 1
        if tag == "B":
            text = self._backref(None, self.constant, value)
            self.depth -= 1
            return text
        text = self._compound(tag)
        self.depth -= 1
        if len(text) > MAX_TEXT:
            raise UnreadableError
        return text if value else f"{{{text}}}"

    def _compound(self, tag: str) -> str:
        if tag == "e":
            return "*" + self._string()
        if tag in "RQ":
            return f"&{'mut ' if tag == 'Q' else ''}{self._inner()}"
        if tag == "A":
            return f"[{self._list(self._inner)}]"
        if tag == "T":
            return self._parenthesised(self._inner)
        if tag != "V":
            raise UnreadableError
        text = self.path(True)
        shape = self.name[self.at]
        self.at += 1
        if shape == "U":
            return text
        if shape == "T":
            return f"{text}({self._list(self._inner)})"
        if shape == "S":
            return f"{text} {{ {self._list(self._field)} }}"
        raise UnreadableError

    def _inner(self) -> str:
        return self.constant(True)

    def _field(self) -> str:
        ident = self._ident(_IDENT.match(self.name, self.at))
        return f"{ident}: {self.constant(True)}"

    def _number(self) -> str:
        digits = self._hex()
        number = int(digits or "0", 16) if len(digits) < 64 else _U64 + 1
        return str(number) if number <= _U64 else "0x" + digits

    def _small(self, limit: int) -> int:
        digits = self._hex()
        number = int(digits or "0", 16) if len(digits) < 64 else limit + 1
        if number > limit:
            raise UnreadableError
        return number

    def _string(self) -> str:
        try:
            return _quoted(bytes.fromhex(self._hex()).decode("utf-8"), '"')
        except ValueError:  # an odd number of digits, or bytes that are not UTF-8
            raise UnreadableError from None


# ruff: noqa: SLF001 -- the table of the class's own readers
_TYPES: dict[str, Callable[[_V0, str], str]] = {
    "R": _V0._reference, "Q": _V0._reference, "P": _V0._pointer, "O": _V0._pointer, "A": _V0._slice, "S": _V0._slice,
    "T": _V0._tuple, "F": _V0._function, "D": _V0._dyn, "W": _V0._pattern_type, "w": _V0._splat,
}  # fmt: skip


def _base62_value(digits: str) -> int:
    """Return the number that `digits` and the `_` behind them write: none is 0, `0` is 1."""
    if not digits:
        return 0
    number = 0
    for digit in digits:
        number = number * 62 + _DIGITS[digit]
    if number >= _U64:
        raise UnreadableError
    return number + 1


def punycode(text: str) -> str:
    """Return an identifier whose characters beyond ASCII stand behind its last `_` (RFC 3492, `_` for `-`)."""
    plain, _, codes = text.rpartition("_")
    if not codes:
        raise UnreadableError
    standard = f"{plain}-{codes}" if plain else codes
    if len(text) <= 1024 and codes.islower() | codes.isdigit():
        try:
            decoded = standard.encode("ascii").decode("punycode")
            decoded.encode("utf-8")  # a surrogate is no character
        except UnicodeError:
            decoded = ""
        if 0 < len(decoded) <= 128:  # the reference decodes no longer ones
            return decoded
    return f"punycode{{{standard}}}"


def _character(number: int) -> str:
    if 0xD800 <= number <= 0xDFFF:
        raise UnreadableError
    return chr(number)


_ESCAPES = {"\0": "\\0", "\t": "\\t", "\r": "\\r", "\n": "\\n", "\\": "\\\\"}


def _quoted(text: str, quote: str) -> str:
    """Return `text` as a Rust literal."""
    parts = [quote]
    for c in text:
        if c == quote:
            parts.append("\\" + c)
        else:
            parts.append(_ESCAPES.get(c) or (c if c.isprintable() else f"\\u{{{ord(c):x}}}"))
    parts.append(quote)
    return "".join(parts)


def read_v0(name: str) -> str | None:
    """Return the path that a name (without its `_R`) writes, its suffix kept; None when it cannot be read."""
    reader = _V0(name)
    try:
        text = reader.path(True)
        if "A" <= reader.name[reader.at] <= "Z":
            reader.path(False)  # the instantiating crate: checked, not shown
    except (UnreadableError, RecursionError):  # a caller may have used up most of the stack already
        return None
    suffix = name[reader.at :]
    return text + suffix if not suffix or PRINTABLE_SUFFIX.fullmatch(suffix) else None
