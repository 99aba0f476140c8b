"""The report of `tree` -> text: who comes along, found where and why, with its TLS; what is missing, tried where."""

from __future__ import annotations

from dlwhy.render.style import block, count, parts, printable, room, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report import TreeNode, TreeReport

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
    below = under + ("    " if not node.children else "│   " if style.unicode else "|   ")
    lines += parts(style, lead, below, _pieces(node))
    if node.state in ("missing", "broken") or (style.verbose and node.state == "first"):
        lines += _tries(node, below, style)
    if len(under) > 4 * _DEEPEST:
        under = under[: 4 * _DEEPEST]
    for index, child in enumerate(node.children):
        last = index == len(node.children) - 1
        elbow, bar = ("└── " if last else "├── ", "    " if last else "│   ")
        if not style.unicode:
            elbow, bar = ("`-- " if last else "|-- ", "    " if last else "|   ")
        _branch(child, under + elbow, under + bar, style, lines)


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


def _tries(node: TreeNode, lead: str, style: Style) -> list[str]:
    lines: list[str] = []
    for one in node.tries:
        told: list[Piece] = [(f"tried {one.path}", ("dim",)), (f"{one.where}: {one.result}", ("dim",))]
        lines += parts(style, lead, lead + "  ", told)
    return lines
