"""The report of `floor` -> text: what a system must have at the least, because of what, and what would be next."""

from __future__ import annotations

from dlwhy.render.style import columns, parts, printable, shortened, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report_systems import Floor, FloorReport, FloorSet, Lower

_FEW = 2
"""Symbols that are named without -v."""
_STEPS = 3
"""Lower floors that are told without -v."""
_LONGEST = 48
"""Columns of a symbol without -v."""


def floor(report: FloorReport, style: Style) -> str:
    """Return the text of `floor`: each file, and below them those that belong together."""
    report = printable(report)
    whole = style.verbose or not report.together
    lines: list[str] = []
    for one in report.files:
        if lines and whole and not style.quiet:
            lines.append("")
        lines += _set(one, style) if whole and not style.quiet else _head(one, style)
    for one in report.together:
        lines += ["", *(_head(one, style) if style.quiet else _set(one, style))]
    return "\n".join(lines) + "\n"


def _head(one: FloorSet, style: Style) -> list[str]:
    if one.error is not None:
        return [style.paint(line, "yellow") for line in wrapped(one.error, style.width)]
    pieces: list[Piece] = [(one.path, ("bold",)), (_verdict(one), ()), (one.machine or "", ("dim",))]
    return parts(style, "", "  ", pieces)


def _verdict(one: FloorSet) -> str:
    if one.libc is None:
        return "names no C library"
    if one.libc == "both":
        return "needs two C libraries, glibc and musl"
    least = next((floor.value for floor in one.floors if floor.what == one.libc), None)
    return f"needs {one.libc} ≥ {least}" if least else f"needs {one.libc}"


def _set(one: FloorSet, style: Style) -> list[str]:
    lines = _head(one, style)
    if one.error is not None:
        return lines
    rows = [(f"{floor.what} ≥ {floor.value}", _told(floor, one, style)) for floor in one.floors]
    if one.pages:
        rows.append(("pages of memory", [f"up to {one.pages >> 10} KiB (PT_LOAD, p_align)"]))
    if one.system:
        rows.append(("libraries", [", ".join(one.system) + " of the system"]))
    if one.bundled:
        names = ", ".join(one.bundled) if style.verbose else f"{len(one.bundled)} found by $ORIGIN"
        rows.append(("comes along", [names]))
    if one.tag is not None:
        rows.append(("wheel tag", [f"{one.tag} is the lowest true one"]))
    rows += [("at most", [text]) for text in one.ceilings]
    rows += [("note", [text]) for text in one.remarks]
    first = max((columns(name) for name, _ in rows), default=0) + 4
    for name, texts in rows:
        left = "  " + style.paint(name, "dim") + " " * (first - 2 - columns(name))
        for text in texts:
            for line in wrapped(text, max(style.width - first, 24)):
                lines.append(left + line)
                left = " " * first
    return lines


def _told(floor: Floor, one: FloorSet, style: Style) -> list[str]:
    """What sets a floor, and what would be next."""
    within = tuple(_within(name, one.path) for name in floor.objects if name != one.path)
    where = f" in {_names(within, style)}" if within else ""
    lines = [f"because of {_names(floor.because, style)}{where}"]
    shown = floor.lower if style.verbose else floor.lower[:_STEPS]
    if shown:
        more = len(floor.lower) - len(shown)
        steps = [f"{lower.value} because of {_short(lower, style)}" for lower in shown]
        lines.append("then " + ", ".join(steps) + (f", and {more} more" if more else ""))
    return lines


def _within(name: str, path: str) -> str:
    """The name of an object without the archive or directory that the report is about."""
    directory = path.rpartition("/")[0]
    for head in (f"{path}!/", f"{path.rstrip('/')}/", f"{directory}/" if directory else ""):
        if head and name.startswith(head):
            return name[len(head) :]
    return name


def _names(names: tuple[str, ...], style: Style) -> str:
    shown = names if style.verbose or len(names) <= _FEW + 1 else names[:_FEW]
    more = f" and {len(names) - len(shown)} more" if len(shown) < len(names) else ""
    return ", ".join(shortened(name, _LONGEST, style) for name in shown) + more


def _short(lower: Lower, style: Style) -> str:
    """The symbols of a lower floor, without the version that stands before them."""
    bare = tuple(name.partition("@")[0] if "@" in name[1:] else name for name in lower.because)
    return (
        _names(bare, style)
        if style.verbose
        else shortened(bare[0], _LONGEST, style) + (f" and {len(bare) - 1} more" if len(bare) > 1 else "")
    )
