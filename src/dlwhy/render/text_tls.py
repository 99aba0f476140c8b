"""Bills -> text: the report of `tls`, and the lines of `check` that say who."""

from __future__ import annotations

from dlwhy.render.qualified import fitting
from dlwhy.render.style import LABEL, bar, block, columns, count, label, pad, parts, printable, room, shortened, wrapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.render.style import Piece, Style
    from dlwhy.report_tls import Declaration, TlsFile, TlsObject, TlsReport, Trigger

_MANY = 6
"""Owners and variables shown without -v; the rest is one line."""
TRIGGERS = 6
"""Triggers shown without -v."""
_NAME = 32
"""Columns of a name in a table, at most."""
_FUNCTION = 48
"""Columns of a function's or owner's name in a row of names, at most."""
_BAR = 20
_FUNCTIONS = 3
_OWNERS = 3
"""Functions and owners of code shown without -v."""


def tls(report: TlsReport, style: Style) -> str:
    """Return the text of `tls`."""
    report = printable(report)
    lines: list[str] = []
    for index, one in enumerate(report.files):
        if index and not style.quiet:
            lines.append("")
        lines += _file(one, style)
    return "\n".join(lines) + "\n" if lines else ""


def _file(one: TlsFile, style: Style) -> list[str]:
    if one.error is not None:
        return [style.paint(line, "yellow") for line in wrapped(one.error, room(style, 0))]
    program = one.tls is not None and "local-exec" in one.tls.model.split("+")
    if one.kind != "linked":
        from dlwhy.render.text_unlinked import heading

        text = heading(one)
    elif one.tls is None:
        text = f"{one.path}: no TLS segment" + ("" if one.triggers else ", and no initial-exec access to another's")
    else:
        text = f"{one.path}: {count(one.tls.size, 'byte')} of TLS, aligned to {one.tls.align}, {one.tls.model}"
    lines = [style.paint(line, "bold") for line in wrapped(text, room(style, 0))]
    if style.quiet:
        return lines
    program = one.tls is not None and "local-exec" in one.tls.model.split("+")
    if one.kind != "linked":
        from dlwhy.render.text_unlinked import members, verdict

        so = verdict(one)
        lines += block(style, "so", so) if so else []
        lines += triggers(one.triggers, style, one.path, linked=False)
        lines += members(one, style)
    elif program:
        lines += block(style, "so", "static: a program's own TLS, laid out when it starts")
    elif any(trigger.own for trigger in one.triggers):
        lines += block(style, "so", "static: loaded by dlopen, it must fit into what is left of the static TLS block")
    elif one.triggers:
        paths = dict.fromkeys(trigger.definer for trigger in one.triggers)
        names = " and of ".join(path.rpartition("/")[2] if path else "another object" for path in paths)
        lines += block(style, "so", f"forces the TLS segment of {names} into the static TLS block")
    elif one.tls is not None:
        lines += block(style, "so", "dynamic: nothing here forces it into the static TLS block")
    lines += triggers(one.triggers, style, one.path, linked=not program) if one.kind == "linked" else []
    if one.tls is not None:
        lines += bulk(one.tls, style)
    lines += accesses(one, style)
    if one.tls is not None:
        lines += origins(one.tls, style)
        lines += suspects(one.tls, style)
        if style.verbose:
            lines += identity(one.tls, style)
            lines += _variables(one.tls, style)
    for finding in one.findings:
        lines += block(style, finding.severity, f"{finding.message} [{finding.rule}]")
    return lines


def triggers(found: tuple[Trigger, ...], style: Style, object_: str, linked: bool = True) -> list[str]:
    """Return what forces a segment into the static block; where another object than `object_` does, its name.

    Not `linked` is what these do not decide of: an object file, or a program, whose own is static in any case.
    """
    lines: list[str] = []
    shown = found if style.verbose else found[:TRIGGERS]
    for index, one in enumerate(shown):
        variable = one.variable or _nameless(one.offset)
        whose = f"{one.owner} ({variable})" if one.owner != variable else variable
        places = f"{one.accesses} access{'es' * (one.accesses > 1)}" if one.accesses else ""
        places = places or count(one.relocations, "relocation")
        pieces: list[Piece] = [
            (shortened(whose, room(style), style), ()), (f"initial-exec: {places}, {one.relocation}", ()),
        ]  # fmt: skip
        if one.object != object_:
            pieces.append((f"in {one.object}", ("bold",)))
        if one.definer is not None:
            pieces.append((f"defined in {one.definer}", ()))
        painted = label(style, "" if index else "trigger", "red")
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, painted)
        lines += _code(one, style)
    if len(found) > len(shown):
        lines.append(" " * LABEL + style.paint(f"and {len(found) - len(shown)} more (-v)", "dim"))
    if linked and any(one.own or one.object != object_ for one in found):
        what = "it" if len(found) == 1 else "them"
        lines += block(style, "", f"without {what} the segment would be dynamic", paint="dim")
    return lines


def _nameless(offset: int | None) -> str:
    return "a variable without a name" if offset is None else f"variable at offset {offset:#x}"


def _code(one: Trigger, style: Style) -> list[str]:
    """Return whose code has the accesses, when it is another's than the variable, and in which functions."""
    lines: list[str] = []
    if one.functions_total is None:
        return lines
    whose = [
        f"{'perhaps ' * (user.basis == 'assumed')}{user.owner} {user.accesses}"
        for user in one.users
        if style.verbose or user.owner != one.owner
    ]
    if whose and not one.objects:
        lines += block(style, "", f"by {_some(whose, _OWNERS, style)}", paint="dim")
    if one.functions:
        hidden = one.functions_total - len(one.functions)
        names = [fitting(name, min(_FUNCTION, room(style)), style) for name in one.functions]
        shown = list(dict.fromkeys(names))
        hidden += len(names) - len(shown)
        lines += block(style, "", f"in {_some(shown, _FUNCTIONS, style, hidden)}", paint="dim")
    lines += _objects(one, style)
    if one.rewritable and style.verbose and not one.objects:
        told = f"{one.rewritable} of them GNU ld may have made of dynamic ones: only object files tell which was first"
        lines += block(style, "", told, paint="dim")
    return lines


def _objects(one: Trigger, style: Style) -> list[str]:
    """Return which objects of the link the accesses are in, as the linker's map tells, and which may be innocent."""
    lines: list[str] = []
    guilty = [f"{part.file} {part.accesses}" for part in one.objects if part.accesses > part.rewritable]
    perhaps = [f"{part.file} {part.accesses}" for part in one.objects if part.accesses == part.rewritable]
    if guilty:
        lines += block(style, "", f"origin {_some(guilty, _OWNERS, style)}", paint="dim")
    if perhaps:
        told = f"also from {_some(perhaps, _OWNERS, style)}, which GNU ld may have made of dynamic accesses"
        lines += block(style, "", told, paint="dim")
    return lines


def _some(names: Sequence[str], most: int, style: Style, hidden: int = 0) -> str:
    """Return the first names and how many more there are."""
    shown = names if style.verbose else [shortened(name, _FUNCTION, style) for name in names[:most]]
    more = len(names) - len(shown) + hidden
    return ", ".join(shown) + (f" and {more} more" if more else "")


def accesses(found: TlsFile, style: Style) -> list[str]:
    """Return how often the code uses each access model, and with -v by variable."""
    if found.searched is None or not found.accesses:
        return []
    totals: dict[str, int] = {}
    for one in found.accesses:
        if not one.model.endswith(" offset"):  # which goes with an access that is counted
            totals[one.model] = totals.get(one.model, 0) + one.sites
    told = ", ".join(f"{number} {model}" for model, number in totals.items())
    lines = block(style, "code", f"{told}: all accesses in {count(found.searched, 'byte')}")
    if style.verbose:
        digits = max(len(str(one.sites)) for one in found.accesses)
        for one in found.accesses:
            what = one.variable or (
                "the whole segment" if one.model == "local-dynamic" else _nameless(one.offset)
            )
            lines += block(style, "", f"{one.sites:>{digits}}  {one.model}  {what}", paint="dim")
    return lines


def bulk(bill: TlsObject, style: Style) -> list[str]:
    """Return whose the bytes are, the largest first, each with its share of the segment."""
    if not bill.size:
        return []
    owners = bill.owners or bill.shares
    shown = owners if style.verbose else owners[:_MANY]
    rows = [(one.owner + " (crate)" * (one.kind == "crate"), one.bytes, one.variable or "") for one in shown]
    rest = owners[len(shown) :]
    if rest:
        rows.append((f"{count(len(rest), 'more owner')} (-v)", sum(one.bytes for one in rest), ""))
    if bill.padding:
        rows.append(("padding", bill.padding, ""))
    if bill.unattributed:
        rows.append(("unnamed", bill.unattributed, "no symbol covers them"))
    digits = len(str(bill.size))
    numbers = digits + 9
    widest = max(columns(name) for name, _, _ in rows)
    width = widest if style.verbose else min(widest, _NAME, max(room(style) - numbers, 12))
    length = min(_BAR, room(style) - width - numbers - 2)
    lines = []
    for index, (name, size, variable) in enumerate(rows):
        left = f"{pad(shortened(name, width, style), width)}  {size:>{digits}}  {round(100 * size / bill.size):>3} %"
        line = label(style, "" if index else "bulk") + left
        space = style.width - LABEL - columns(left) - 2
        blanks = 2
        if length > 3:
            drawn = bar(size / bill.size, style, length)
            line += "  " + style.paint(drawn, "cyan") if drawn else ""
            space -= len(drawn) + 2 * bool(drawn)
            blanks += max(0, min(length - len(drawn) + 2 * (not drawn), space - columns(variable)))
        fits = columns(variable) <= space
        if variable and (fits or (space >= 24 and not style.verbose)):
            line += " " * blanks + shortened(variable, space, style)
        lines.append(line)
        if style.verbose and not fits:
            lines.append(" " * (LABEL + 2) + variable)
    total = f"{'sum'.ljust(width)}  {bill.size:>{digits}}"
    pieces: list[Piece] = [(total, ("dim",)), (f"aligned to {bill.align}", ("dim",))]
    lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces)
    for note in bill.notes:
        lines += block(style, "", note, paint="dim")
    return lines + _inside(bill, style)


def _inside(bill: TlsObject, style: Style) -> list[str]:
    """Return what makes the big variables big, step by step inwards."""
    told = [one for one in bill.shares if one.inside]
    lines: list[str] = []
    arrow = "→ " if style.unicode else "-> "
    for one in told if style.verbose else told[:_OWNERS]:
        steps = [
            f"{arrow * (place > 0)}{f'{part.member}: ' if part.member else ''}{_type(part.type, style)} {part.bytes}"
            for place, part in enumerate(one.inside)
        ]
        pieces: list[Piece] = [(shortened(one.variable or "", _NAME, style), ()), *((step, ("dim",)) for step in steps)]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if lines else "inside"))
    return lines


def _type(name: str, style: Style) -> str:
    """Return a type's name, without what stands in its angle brackets: that may be far longer than the rest."""
    if style.verbose:
        return name
    depth, kept = 0, []
    for one in name:
        depth += one == "<"
        if not depth:
            kept.append(one)
        depth -= one == ">" and depth > 0
    return shortened("".join(kept) or name, 2 * _NAME, style)


def origins(bill: TlsObject, style: Style) -> list[str]:
    """Return how the owners came into the file, those of the owners that are shown, and whose file it is."""
    lines: list[str] = []
    arrow = " → " if style.unicode else " -> "
    found = bill.provenance
    shown = found if style.verbose or len(found) <= _MANY + 1 else (*found[:_MANY], found[-1])
    for index, one in enumerate(shown):
        path = arrow.join(one.path) or f"{one.owner} {one.version or ''}".rstrip()
        told = f"{one.source}, unconfirmed" if one.basis == "assumed" else one.source
        pieces: list[Piece] = [(path, ()), (told, ("dim",))]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "why here"))
    if len(found) > len(shown):
        lines.append(" " * LABEL + style.paint(f"and {len(found) - len(shown)} more (-v)", "dim"))
    return lines


def suspects(bill: TlsObject, style: Style) -> list[str]:
    """Return which known suspects a file is or contains, and what upstream offers against it."""
    lines: list[str] = []
    for index, one in enumerate(bill.suspects):
        told = "; ".join(one.evidence[: None if style.verbose else 2])
        pieces: list[Piece] = [(one.name, ()), (f"{'perhaps: ' * (one.basis == 'assumed')}{told}", ("dim",))]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "known as"))
    static = any(one.own or one.object != bill.object for one in bill.triggers)
    advice = [
        (text, one.references[:1] if not place else ()) for one in bill.suspects for place, text in enumerate(one.build)
    ]
    for index, (text, references) in enumerate(advice if static else []):
        pieces = [(text, ()), *((reference, ("dim",)) for reference in references)]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "upstream"))
    return lines


def identity(bill: TlsObject, style: Style) -> list[str]:
    """Return what the file says of itself."""
    one = bill.identity
    if one is None:
        return []
    lines = block(style, "build-id", one.build_id) if one.build_id else []
    for index, text in enumerate(one.compilers):
        lines += block(style, "" if index else "built by", text)
    lines += block(style, "package", one.package) if one.package else []
    if one.packages:
        source = one.packages[0].source
        listed = ", ".join(f"{package.name} {package.version}" for package in one.packages)
        lines += block(style, "contains", f"{listed} ({source})")
    return lines


def _variables(bill: TlsObject, style: Style) -> list[str]:
    digits = len(str(bill.size))
    lines = ["", "  " + style.paint("variables", "bold")]
    for one in bill.shares:
        unit = f", {one.unit}" if one.unit else ""
        pieces: list[Piece] = [
            (f"{one.bytes:>{digits}}", ()), (one.variable or "?", ()), (f"{one.owner}{unit}; {one.evidence}", ("dim",)),
        ]  # fmt: skip
        if one.declared is not None:
            pieces.append((_declared(one.declared), ("dim",)))
        lines += parts(style, "  ", " " * (digits + 4), pieces)
    return lines


def _declared(one: Declaration) -> str:
    """Return where a variable is declared: the file and line, and the unit where that is another file."""
    place = one.file or "a file that nothing names"
    unit = f", in {one.unit}" if one.unit and not place.endswith(one.unit.removeprefix("./")) else ""
    return f"declared in {place}{f':{one.line}' if one.line is not None else ''}{unit}"
