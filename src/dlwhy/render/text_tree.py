"""The report of `tree` -> text: who comes along, found where and why, with its TLS; what is missing, tried where."""

from __future__ import annotations

from dlwhy.render.style import block, count, parts, printable, room, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report import Opening, TreeNode, TreeReport

_GUESSES = 3
"""Constants that may be names of libraries, of each object, shown without -v."""
_NOT_THERE = "No such file or directory"
_DEEPEST = 60
"""Levels that are indented; deeper ones stand below one another at this depth."""


def tree(report: TreeReport, style: Style) -> str:
    """Return the text of `tree`."""
    report = printable(report)
    lines: list[str] = []
    if report.error is not None:
        lines += [style.paint(line, "yellow") for line in wrapped(report.error, room(style, 0))]
        lines += _tries(report.root, "  ", style)
        return "\n".join(lines) + "\n"
    if style.quiet:
        for one in _missing(report.root):
            lines.append(style.paint(f"{one.name}: {one.how}" if one.name not in one.how else one.how, "red"))
    else:
        _branch(report.root, "", "", style, lines)
        lines.append("")
    missing = f", {report.missing} missing" if report.missing else ", none missing"
    total = f"{count(report.tls_total, 'byte')} of TLS, {report.static_total} of them static"
    lines += parts(style, "", "", [(f"{count(report.objects, 'object')}{missing}", ("bold",)), (total, ())])
    if report.host is not None and not style.quiet:
        host = report.host
        release = f"{host.libc} {host.libc_version}, {host.machine}" if host.libc else host.machine
        release += f", {host.profile}" if host.profile else ""
        why = f": {host.inferred} (--host names another)" if host.inferred else ""
        lines += block(style, "host", f"{host.name} ({release}){why}")
    for finding in report.findings if not style.quiet else ():
        lines += block(style, finding.severity, finding.message)
    return "\n".join(lines) + "\n"


def _missing(node: TreeNode) -> list[TreeNode]:
    found = [node] if node.state in ("missing", "broken") else []
    for child in node.children:
        found += _missing(child)
    return found


def _branch(node: TreeNode, lead: str, under: str, style: Style, lines: list[str]) -> None:
    opens = _shown(node, style)
    more = len(node.opens) - len(opens)
    leaves = len(opens) + (more > 0)
    below = under + ("    " if not node.children and not leaves else "│   " if style.unicode else "|   ")
    lines += parts(style, lead, below, _pieces(node))
    if node.state in ("missing", "broken") or (style.verbose and node.state == "first"):
        lines += _tries(node, below, style)
    if len(under) > 4 * _DEEPEST:
        under = under[: 4 * _DEEPEST]
    for index, child in enumerate(node.children):
        elbow, bar = _guides(index == len(node.children) + leaves - 1, style)
        _branch(child, under + elbow, under + bar, style, lines)
    for index, one in enumerate(opens):
        elbow, bar = _guides(index == leaves - 1, style)
        lines += parts(style, under + elbow, under + bar, _opening(one))
        if style.verbose:
            lines += _tries(one, under + bar, style)
    if more > 0:
        elbow, _ = _guides(True, style)
        what = f"and {count(more, 'more constant')} like that (-v)"
        lines += parts(style, under + elbow, under, [(what, ("dim",))])


def _guides(last: bool, style: Style) -> tuple[str, str]:
    """What is drawn before a branch, and before the lines below it."""
    if not style.unicode:
        return ("`-- ", "    ") if last else ("|-- ", "|   ")
    return ("└── ", "    ") if last else ("├── ", "│   ")


def _shown(node: TreeNode, style: Style) -> list[Opening]:
    """What an object opens as it says itself, and the first of the guesses."""
    guesses = [one for one in node.opens if one.priority is None]
    shown = guesses if style.verbose or len(guesses) <= _GUESSES + 1 else guesses[:_GUESSES]
    return [one for one in node.opens if one.priority is not None] + shown


def _opening(one: Opening) -> list[Piece]:
    """A library that is opened later: what for, and whether it is there."""
    guess = one.priority is None
    pieces: list[Piece] = [(f"dlopen{'?' * guess} {' or '.join(one.sonames)}", ("dim",) if guess else ())]
    if guess:
        pieces.append(("a constant: a guess", ("dim",)))
    else:
        pieces.append((f"{one.priority}: {one.description or one.feature or 'no word why'}", ("dim",)))
    if one.path is None:
        words = one.how.removeprefix(f"{one.sonames[-1]}: ")
        words = "not found" if words.endswith(_NOT_THERE) else words
        pieces.append((words, ("red",) if one.priority == "required" else ("yellow",)))
    else:
        pieces += [(one.path, ()), (f"[{one.how}]", ("dim",))]
    return pieces


def _pieces(node: TreeNode) -> list[Piece]:
    if node.state in ("missing", "broken"):
        return [(node.name, ("red", "bold")), (node.how.removeprefix(f"{node.name}: "), ("red",))]
    again = node.state in ("repeat", "cycle")
    pieces: list[Piece] = [(node.path or node.name, ("dim",) if node.at_startup or again else ())]
    if node.how not in ("path", "the program"):
        pieces.append((f"[{node.how}]", ("dim",)))
    if not again:
        if node.tls_size:
            text = f"TLS {node.tls_size}/{node.tls_align} {node.tls_model or 'without relocations'}"
            pieces.append((text, ("yellow" if node.static else "cyan",)))
        elif node.static:
            pieces.append(("uses another object's TLS, initial-exec", ("yellow",)))
    if node.state == "cycle":
        pieces.append(("(cycle: needs itself)", ("dim",)))
    elif again:
        pieces.append(("(repeated)", ("dim",)))
    elif node.at_startup:
        pieces.append(("(the host has it)", ("dim",)))
    return pieces


def _tries(node: TreeNode | Opening, lead: str, style: Style) -> list[str]:
    lines: list[str] = []
    for one in node.tries:
        told: list[Piece] = [(f"tried {one.path}", ("dim",)), (f"{one.where}: {one.result}", ("dim",))]
        lines += parts(style, lead, lead + "  ", told)
    return lines
