"""What changed in the TLS of two files -> text: signed bytes by owner, triggers, and why they are in there."""

from __future__ import annotations

from dlwhy.render.style import LABEL, block, columns, count, label, pad, parts, room, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report_diff import FileChange, ProvenanceChange, ShareChange, TriggerChange
    from dlwhy.report_tls import Provenance

_MANY = 8
"""Owners, triggers and ways that are shown without -v."""
_NAME = 32


def tls(one: FileChange, style: Style) -> list[str]:
    """Return the sizes of both segments, and whether each is static."""
    old, new = one.tls_old, one.tls_new
    was_size, is_size = (side.size if side is not None else 0 for side in (old, new))
    if not was_size and not is_size:
        return []
    if old is None or new is None:
        text = count(was_size or is_size, "byte")
    elif was_size == is_size:
        text = f"{count(is_size, 'byte')}, as before"
    else:
        arrow = "→" if style.unicode else "->"
        text = f"{was_size} {arrow} {is_size} bytes ({one.bytes:+})"
    if old is not None and new is not None:
        was, now = (_how(side.static, side.size) for side in (old, new))
        if was == now or not (was and now):
            text += f", {now or was}"
        else:
            text += f"; was {was}, is {now}"
        if old.align != new.align and old.size and new.size:
            text += f"; aligned to {new.align} instead of {old.align}"
    return block(style, "TLS", text)


def _how(static: bool, size: int) -> str:
    return "" if not size else "static: it must fit into the static TLS block" if static else "dynamic"


def bulk(one: FileChange, style: Style) -> list[str]:
    """Return what changed by owner, in signed bytes that add up."""
    ways = {told.owner: told.new or told.old for told in one.provenance}
    rows = [
        (f"{share.bytes:+}", _named(share, ways.get(share.owner, ())), share.variable or "") for share in one.owners
    ]
    shown = rows if style.verbose else rows[:_MANY]
    if len(rows) > len(shown):
        rest = one.owners[len(shown) :]
        shown.append((f"{sum(share.bytes for share in rest):+}", f"{count(len(rest), 'more owner')} (-v)", ""))
    shown += [(f"{one.padding:+}", "padding", "")] if one.padding else []
    shown += [(f"{one.unattributed:+}", "unnamed", "no symbol covers them")] if one.unattributed else []
    if not shown:
        return []
    digits = max(len(row[0]) for row in (*shown, (f"{one.bytes:+}",)))
    widest = max(columns(row[1]) for row in shown)
    lines = []
    for index, (number, name, variable) in enumerate(shown):
        aligned = variable and digits + 2 + widest <= room(style)
        left = f"{number:>{digits}}  {pad(name, widest) if aligned else name}"
        space = max(room(style) - columns(left) - 2, _NAME)
        pieces: list[Piece] = [(left, ())]
        pieces += [(shortened(variable, space, style), ("dim",))] if variable else []
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "bulk"))
    if len(shown) > 1:
        lines.append(" " * LABEL + style.paint(f"{one.bytes:>+{digits}}  sum", "dim"))
    if any(share.basis == "assumed" for share in one.owners):
        hidden = [(name, side.unattributed) for name, side in (("OLD", one.tls_old), ("NEW", one.tls_new)) if side]
        told = " and ".join(f"{number} in {name}" for name, number in hidden if number)
        lines += block(style, "", f"? bytes without a name ({told}) may be of these owners, too", paint="dim")
    return lines


def _named(share: ShareChange, ways: tuple[Provenance, ...]) -> str:
    """An owner, by whom it is there, and whether it is new."""
    name = share.owner + " (crate)" * (share.kind == "crate")
    via = f", via {ways[0].path[-2]}" if len(ways) == 1 and len(ways[0].path) > 1 else ""
    word = {"new": ", new", "gone": ", gone"}.get(share.presence, "")
    return name + via + word + "?" * (share.basis == "assumed")


def triggers(one: FileChange, style: Style) -> list[str]:
    """Return the triggers that are new, gone or used more or less often."""
    lines: list[str] = []
    shown = one.triggers if style.verbose else one.triggers[:_MANY]
    for index, trigger in enumerate(shown):
        lines += parts(
            style, " " * LABEL, " " * (LABEL + 2), _trigger(trigger), label(style, "" if index else "trigger", "red")
        )
    if len(one.triggers) > len(shown):
        lines.append(" " * LABEL + style.paint(f"and {len(one.triggers) - len(shown)} more (-v)", "dim"))
    return lines


def _trigger(one: TriggerChange) -> list[Piece]:
    found = one.trigger
    variable = found.variable or "a variable without a name"
    whose = f"{found.owner} ({variable})" if found.owner != variable else variable
    doubt = "?" * (one.basis == "assumed")
    color = {"new": "red", "gone": "green"}.get(one.presence, "dim")
    places = count(found.relocations, "relocation") if found.accesses is None else f"{found.accesses} accesses"
    places = "1 access" if found.accesses == 1 else places
    more = f" ({one.accesses:+})" if one.presence == "both" and one.accesses else ""
    word = {"new": "new", "gone": "gone", "both": "still"}[one.presence]
    pieces: list[Piece] = [(f"{word}{doubt}", (color,)), (whose, ())]
    pieces.append((f"initial-exec: {places}{more}, {found.relocation}", ()))
    return [*pieces, *([] if found.own else [("of another library", ("dim",))])]


def provenance(found: tuple[ProvenanceChange, ...], style: Style) -> list[str]:
    """Return the ways into NEW, and where they differ those into OLD; of what is gone those into OLD."""
    rows: list[list[Piece]] = []
    for one in found:
        same = [(way.version, way.path) for way in one.old] == [(way.version, way.path) for way in one.new]
        told = (("", one.new),) if same or not one.old else (("", one.new), ("was ", one.old))
        for word, ways in told:
            rows += [[(word + _way(way, style), ()), (_source(way), ("dim",))] for way in ways]
    shown = rows if style.verbose else rows[:_MANY]
    lines: list[str] = []
    for index, pieces in enumerate(shown):
        name = label(style, "" if index else "why here")
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, name)
    if len(rows) > len(shown):
        lines.append(" " * LABEL + style.paint(f"and {len(rows) - len(shown)} more (-v)", "dim"))
    return lines


def _way(one: Provenance, style: Style) -> str:
    return (" → " if style.unicode else " -> ").join(one.path) or f"{one.owner} {one.version or ''}".rstrip()


def _source(one: Provenance) -> str:
    return f"{one.source}, unconfirmed" if one.basis == "assumed" else one.source


def variables(one: FileChange, style: Style) -> list[str]:
    """Return what changed by variable."""
    if not one.variables:
        return []
    digits = max(len(f"{share.bytes:+}") for share in one.variables)
    lines = ["", "  " + style.paint("variables", "bold")]
    for share in one.variables:
        told = f"{share.owner}; {share.old} in OLD, {share.new} in NEW"
        pieces: list[Piece] = [(f"{share.bytes:>+{digits}}", ()), (share.variable or "?", ()), (told, ("dim",))]
        lines += parts(style, "  ", " " * (digits + 4), pieces)
    return lines
