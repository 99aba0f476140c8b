"""How text is drawn: colours, widths, columns, and names made harmless.

Rule 1: what a file says about itself never reaches a terminal as a control code: `printable` is applied to a whole
report before a line of it is drawn.
Rule 2: colour only repeats what the words say.
Rule 3: every line fits the width, but for words that have no blank in them (paths, symbols) and the loader's message.
"""

from __future__ import annotations

from _operator import is_

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import TypeVar

    _T = TypeVar("_T")
    Piece = tuple[str, tuple[str, ...]]

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_HARMLESS = (int, bool, type(None))
_SHORT = {9: "\\t", 10: "\\n", 13: "\\r"}
_EIGHTHS = " ▏▎▍▌▋▊▉█"
LABEL = 14
"""Columns of the words at the left of a report."""
_LEAST = 24
"""Columns that are used at least, however narrow the terminal."""


class Style(Record):
    """How to draw."""

    width: int
    """Columns of the terminal."""
    color: bool
    """Whether escape codes for colours may be used."""
    unicode: bool
    """Whether lines and bars may be drawn with characters beyond ASCII."""
    verbose: bool
    quiet: bool

    def paint(self, text: str, *names: str) -> str:
        """Return `text` in colour, if there is colour."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"

    @property
    def dash(self) -> str:
        """What stands for something left out."""
        return "…" if self.unicode else "..."


def printable(value: _T, lines: bool = False) -> _T:
    r"""Return a report with every text in it made harmless for a terminal: what cannot be printed becomes `\xNN`.

    A byte that is no UTF-8 (a lone surrogate) is shown as the byte it was. Only a `message` keeps its line breaks.
    What has nothing to be shown otherwise, as nearly all, is returned itself.
    """
    return value if _harmless(value) else _escaped_in(value, lines)


def _harmless(value: object) -> bool:
    """Whether every text in a report can be printed as it is: nearly all, so no more is done than to look."""
    todo: list[Iterable[object]] = [(value,)]
    for group in todo:
        for part in group:
            if part.__class__ in _HARMLESS:
                continue
            if isinstance(part, str):
                if not part.isprintable():
                    return False
            elif isinstance(part, tuple):
                todo.append(part)
            elif isinstance(part, dict):
                todo += (part.keys(), part.values())
    return True


def _escaped_in(value: _T, lines: bool) -> _T:
    """As `printable`, of a report that holds something to escape, or of a part of it."""
    if isinstance(value, str):
        return value if value.isprintable() else _escaped(value, lines)  # type: ignore[return-value]
    if isinstance(value, tuple):
        record = isinstance(value, Record)
        parts = [part if part.__class__ in _HARMLESS or not part else _escaped_in(part, False) for part in value]
        if all(map(is_, parts, value)):
            return value
        if not record:
            return tuple(parts)  # type: ignore[return-value]
        fields: tuple[str, ...] = value._fields  # type: ignore[attr-defined]
        if "message" in fields:
            place = fields.index("message")
            parts[place] = _escaped_in(value[place], True)
        return type(value)(*parts)  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {_escaped_in(key, False): _escaped_in(part, False) for key, part in value.items()}  # type: ignore[return-value]
    return value


def _escaped(text: str, lines: bool) -> str:
    made = []
    for character in text:
        number = ord(character)
        if character.isprintable() or (lines and character == "\n"):
            made.append(character)
        elif 0xDC80 <= number <= 0xDCFF:  # os.fsdecode: a byte that is no UTF-8
            made.append(f"\\x{number - 0xDC00:02x}")
        else:
            made.append(_SHORT.get(number) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"))
    return "".join(made)


def columns(text: str) -> int:
    """Return how many columns of a terminal a printable text takes: East Asian wide characters two, marks none."""
    if text.replace("…", ".").isascii():
        return len(text)
    from unicodedata import category, east_asian_width

    return sum(0 if category(one) in ("Mn", "Me") else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def pad(text: str, width: int) -> str:
    """Return `text` with blanks up to a width."""
    return text + " " * (width - columns(text))


def shortened(text: str, width: int, style: Style) -> str:
    """Return `text`, its middle left out when it is wider than `width`: names are told apart by their ends."""
    if columns(text) <= width or style.verbose:
        return text
    keep = width - len(style.dash)
    head = _beginning(text, max(keep // 3, 2))
    return head + style.dash + _beginning(text[::-1], keep - columns(head))[::-1]


def _beginning(text: str, width: int) -> str:
    """As many characters of `text` as fit into `width` columns."""
    if text.isascii():
        return text[: max(width, 0)]
    used = 0
    for place, one in enumerate(text):
        used += columns(one)
        if used > width:
            return text[:place]
    return text


def wrapped(text: str, width: int) -> list[str]:
    """Break at blanks; a word wider than the width stays whole."""
    lines: list[str] = []
    line = ""
    used = 0
    for word in text.split(" "):
        size = columns(word)
        if line and used + 1 + size > width:
            lines.append(line)
            line, used = word, size
        else:
            line, used = (f"{line} {word}", used + 1 + size) if line else (word, size)
    return [*lines, line]


def room(style: Style, indent: int = LABEL) -> int:
    """Return the columns that are left behind an indentation."""
    return max(style.width - indent, _LEAST)


def label(style: Style, name: str, color: str = "dim") -> str:
    """Return the words at the left of a line."""
    return "  " + (style.paint(name, color) + " " * (LABEL - 2 - len(name)) if name else " " * (LABEL - 2))


def block(style: Style, name: str, text: str, color: str = "dim", paint: str = "") -> list[str]:
    """Return labelled running text."""
    lines = wrapped(text, room(style))
    if paint:
        lines = [style.paint(line, paint) for line in lines]
    return [label(style, name, color) + lines[0], *(" " * LABEL + line for line in lines[1:])]


def headline(style: Style, text: str, kind: str | None, *colors: str) -> list[str]:
    """Return the first line of a report; the kind of failure at its right end, or below where there is no room."""
    lines = wrapped(text, room(style, 0))
    used = columns(lines[-1])
    painted = [style.paint(line, "bold", *colors) for line in lines]
    if not kind:
        return painted
    gap = style.width - used - len(kind)
    if gap >= 2:
        return [*painted[:-1], painted[-1] + " " * gap + style.paint(kind, "dim")]
    return [*painted, "  " + style.paint(kind, "dim")]


def message(style: Style, name: str, text: str) -> list[str]:
    """Return the loader's words, never broken by us."""
    first, *rest = [style.paint(line, "bold") for line in text.split("\n")]
    return [label(style, name) + first, *(" " * LABEL + line for line in rest)]


def parts(style: Style, lead: str, under: str, pieces: Sequence[Piece], painted: str = "") -> list[str]:
    """Return pieces (text, colours) two blanks apart on as few lines as they fit; later lines begin with `under`.

    `lead` and `under` are drawings (guides, bars, labels) of one column a character; `painted` is `lead` in colour.
    """
    lines: list[str] = []
    line, used, begun = painted or lead, len(lead), False
    for piece, colors in pieces:
        text, size = piece, columns(piece)
        if begun and used + 2 + size > style.width:
            lines.append(line)
            line, used, begun = under, len(under), False
        if used + size > style.width and " " in text:
            *broken, text = wrapped(text, room(style, max(used, len(under))))
            for part in broken:
                lines.append(line + (style.paint(part, *colors) if colors else part))
                line, used = under, len(under)
            size = columns(text)
        line += ("  " if begun else "") + (style.paint(text, *colors) if colors else text)
        used += (2 if begun else 0) + size
        begun = True
    return [*lines, line]


def bar(share: float, style: Style, length: int) -> str:
    """Return a bar of `share` (0 to 1) of a length in columns."""
    share = min(max(share, 0.0), 1.0)
    if not style.unicode:
        return "#" * round(share * length)
    eighths = round(share * length * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def count(number: int, what: str) -> str:
    """Return a number with its noun, "1 byte" or "2 bytes"."""
    return f"{number} {what}{'' if number == 1 else 's'}"
