"""GLIBC_TUNABLES: which values take effect, and what is said of the others (glibc elf/dl-tunables.c, dl-tunables.list).

Three readings, by release. Up to 2.38 each `name=value` takes effect as it is met, and a number ends where its digits
end. 2.39 (commits 680c597e9c, "elf: Do not parse ill-formatted strings", and f94446c38f) takes nothing of an ill-formed
list, refuses a number with anything behind it, and says both. From 2.40 on (commit bcae44ea85, bug 31686) only the last
setting of a name is looked at.
A name that is not known is ignored, and so is a value outside its bounds.
"""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_WORD = 1 << 64


class Tunables(Record):
    """The tunables that decide a load."""

    nns: int
    optional_static_tls: int
    rseq: int
    dynamic_sort: int
    execstack: int


DEFAULTS = Tunables(4, 512, 1, 2, 1)

BOUNDS = {
    "glibc.pthread.rseq": ("rseq", 0, 1),
    "glibc.rtld.dynamic_sort": ("dynamic_sort", 1, 2),
    "glibc.rtld.execstack": ("execstack", 0, 2),
    "glibc.rtld.nns": ("nns", 1, 16),
    "glibc.rtld.optional_static_tls": ("optional_static_tls", 0, _WORD - 1),
}
"""Tunable -> (field, least, most), in the order in which the loader has them."""

_SIZES = ("glibc.rtld.nns", "glibc.rtld.optional_static_tls")
"""Those of type SIZE_T; the others are INT_32, and cut to it from 2.39 on."""


class Reading(Record):
    """What a value of GLIBC_TUNABLES comes to."""

    tunables: Tunables
    notices: tuple[str, ...]
    """Lines that the loader writes to standard error."""


def _number(text: str) -> tuple[int, int]:
    """Return (value modulo 2^64, characters read) as _dl_strtoul does (glibc elf/dl-misc.c)."""
    at = len(text) - len(text.lstrip(" \t"))
    negative = text[at : at + 1] == "-"
    if text[at : at + 1] in ("-", "+"):
        at += 1
    if not ("0" <= text[at : at + 1] <= "9"):
        return 0, at
    base, digits = 10, "0123456789"
    if text[at] == "0":
        base, digits = 8, "01234567"
        if text[at + 1 : at + 2] in ("x", "X"):
            base, digits, at = 16, "0123456789abcdefABCDEF", at + 2
    end = at
    while end < len(text) and text[end] in digits:
        end += 1
    value = int(text[at:end] or "0", base)
    if value >= _WORD:
        return _WORD - 1, _overflow(text, at, base)
    return (-value if negative else value) % _WORD, end


def _overflow(text: str, at: int, base: int) -> int:
    """Return where reading stops: at the digit that no longer fits in 64 bits."""
    value = 0
    while value * base + int(text[at], base) < _WORD:
        value = value * base + int(text[at], base)
        at += 1
    return at


def _taken(values: dict[str, int], name: str, number: int, largest: int) -> None:
    field, least, most = BOUNDS[name]
    if least <= number <= min(most, largest):
        values[field] = number


def read_as_met(text: str, largest: int = _WORD - 1) -> Reading:
    """Up to 2.38: settings one after the other; digits are read as far as they go. `largest` is SIZE_MAX."""
    values: dict[str, int] = {}
    for name, equals, value in (item.partition("=") for item in text.split(":")):
        if equals and name in BOUNDS:
            _taken(values, name, _number(value)[0], largest)
    return Reading(DEFAULTS.but(**values), ())


def _settings(text: str) -> Iterator[tuple[str, str]] | None:
    """(name, value) pairs of a list, or None for an ill-formed one: a last item without "=", or a value with one."""
    items = text.split(":")
    if "=" not in items[-1] or any(item.count("=") > 1 for item in items):
        return None
    return ((name, value) for name, equals, value in (item.partition("=") for item in items) if equals)


def _refused(text: str) -> Reading:
    return Reading(DEFAULTS, (f"WARNING: ld.so: invalid GLIBC_TUNABLES `{text}': ignored.",))


def _all_of(settings: list[tuple[str, str]], largest: int) -> Reading:
    values: dict[str, int] = {}
    notices = []
    for name, value in settings:
        number, length = _number(value)
        if length == len(value):
            _taken(values, name, number & largest if name in _SIZES else number % (1 << 32), largest)
        else:
            notices.append(f"WARNING: ld.so: invalid GLIBC_TUNABLES value `{value}' for option `{name}': ignored.")
    return Reading(DEFAULTS.but(**values), tuple(notices))


def read_in_order(text: str, largest: int = _WORD - 1) -> Reading:
    """2.39: a well-formed list, each setting in turn; what is too large for a size_t is cut."""
    settings = _settings(text)
    if settings is None:
        return _refused(text)
    return _all_of([pair for pair in settings if pair[0] in BOUNDS], largest)


def read_last(text: str, largest: int = _WORD - 1) -> Reading:
    """2.40 and later: a well-formed list, the last setting of each name, in the order of the loader's own list."""
    settings = _settings(text)
    if settings is None:
        return _refused(text)
    last = dict(settings)
    return _all_of([(name, last[name]) for name in BOUNDS if name in last], largest)


def setting(text: str, name: str, read: Callable[[str], Reading]) -> str:
    """Return the string that a tunable is set to: the last one counts; "" without. `read` is the release's reading."""
    settings = _settings(text) if read is not read_as_met else (item.split("=", 1) for item in text.split(":"))
    return next((pair[1] for pair in reversed([*(settings or ())]) if len(pair) == 2 and pair[0] == name), "")
