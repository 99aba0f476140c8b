"""Report -> text for people: the verdict first, then the loader's words, the decisive numbers, who, and what helps.

Rule 1: a message of the loader is printed whole, whatever the width.
Rule 2: colour only repeats what the words say.
"""

from __future__ import annotations

from dlwhy.record import Record
from dlwhy.report import DIES, FAILS, LOADS, UNDECIDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.report import CheckReport, Cure, Search, StaticTls, Step, TlsObject, TlsReport, TreeNode, TreeReport, Trigger

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "blue": "34", "cyan": "36"}
_OUTCOME_COLOR = {LOADS: "green", FAILS: "red", DIES: "red", UNDECIDED: "yellow"}
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_LABEL = 14
_MANY = 6
"""Owners and variables shown without -v; the rest is one line."""


class Style(Record):
    """How to draw."""

    width: int
    """Columns of the terminal."""
    color: bool
    unicode: bool
    verbose: bool
    quiet: bool

    def paint(self, text: str, *names: str) -> str:
        """Return `text` in colour, if there is colour."""
        if not self.color or not text:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"


def _label(style: Style, name: str, color: str = "dim") -> str:
    return "  " + style.paint(name.ljust(_LABEL - 2), color)


def _wrapped(text: str, width: int) -> list[str]:
    """Break at blanks; a word longer than the width stays whole."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    return [*lines, line]


def _block(style: Style, name: str, text: str, color: str = "dim") -> list[str]:
    lines = _wrapped(text, max(style.width - _LABEL, 40))
    return [_label(style, name, color) + lines[0], *(" " * _LABEL + line for line in lines[1:])]


def _message(style: Style, name: str, message: str) -> list[str]:
    first, *rest = message.split("\n")
    return [_label(style, name) + style.paint(first, "bold"), *(" " * _LABEL + style.paint(line, "bold") for line in rest)]


def _right(style: Style, left: str, plain_length: int, right: str, color: str) -> str:
    gap = style.width - plain_length - len(right)
    return left + (" " * gap if gap >= 2 else "  ") + style.paint(right, color)


# -- check --------------------------------------------------------------------------------------------------------------


def check(report: CheckReport, style: Style) -> str:
    """Return the text of a check."""
    lines: list[str] = []
    where = _where(report)
    start = report.host.startup
    if start.outcome != LOADS or not report.steps:
        words = {LOADS: "would start", FAILS: "would not start", DIES: "would die while it starts", UNDECIDED: "is undecided"}[start.outcome]
        if start.outcome == UNDECIDED and report.steps:
            lines += _undecided_host(report, style)
        else:
            verdict = f"{report.host.name} {words}{where}"
            lines.append(style.paint(verdict, "bold", _OUTCOME_COLOR[start.outcome]))
            if start.message:
                lines += ["", *_message(style, "ld.so says", start.message)]
            if start.exit_status is not None and start.outcome != LOADS:
                status = f"exit status {start.exit_status}" if start.exit_status >= 0 else f"killed by signal {-start.exit_status}"
                lines += _block(style, "ends with", status)
            if start.outcome == LOADS and not style.quiet and report.static_tls is not None:
                lines += _found(style, report, start.loaded)
    if start.outcome == LOADS:
        for number, step in enumerate(report.steps, 1):
            if number > 1 and not style.quiet:
                lines.append("")
            lines += _step(report, step, number, style, where)
    if not style.quiet:
        lines += _who(report, style)
        lines += _cures(report, style)
        lines += _extras(report, style)
        if style.verbose:
            lines += _searches(report, style)
            if report.static_tls is not None:
                lines += _drawn(report.static_tls, style)
    return "\n".join(lines) + "\n"


def _where(report: CheckReport) -> str:
    host = report.host
    parts = [f"{host.libc} {host.libc_version}"] if host.libc else []
    return f" ({', '.join([*parts, host.machine])})"


def _undecided_host(report: CheckReport, style: Style) -> list[str]:
    step = report.steps[0]
    return [
        style.paint(f"{step.request}: undecided{_where(report)}", "bold", "yellow"), "", *_block(style, "because", step.because)
    ]  # fmt: skip


def _found(style: Style, report: CheckReport, loaded: tuple[str, ...]) -> list[str]:
    tls = report.static_tls
    assert tls is not None
    count = len(loaded)
    return _block(style, "loaded", f"{count} object{'s' * (count != 1)}; {tls.free} bytes of static TLS free")


def _step(report: CheckReport, step: Step, number: int, style: Style, where: str) -> list[str]:
    words = {LOADS: "would load", FAILS: "will not load", DIES: "would kill the process", UNDECIDED: "is undecided"}
    action = step.request.partition(":")[0]
    name = step.request
    if action in ("close", "sym", "call") and not step.mode:
        words = {LOADS: "succeeds", FAILS: "fails", DIES: "would kill the process", UNDECIDED: "is undecided"}
    elif step.searches:
        name = step.searches[0].name
    elif action.split("-")[0] in ("now", "lazy", "global", "local", "deepbind", "nodelete", "noload", "newns"):
        name = step.request.partition(":")[2]
    prefix = f"{number}. " if len(report.steps) > 1 else ""
    verdict = f"{prefix}{name} {words[step.outcome]} in {report.host.name}{where}"
    painted = style.paint(verdict, "bold", _OUTCOME_COLOR[step.outcome])
    lines = [_right(style, painted, len(verdict), step.kind, "dim") if step.kind else painted]
    if step.message is not None:
        lines += ["", *_message(style, "ld.so says", step.message)]
    if style.quiet:
        return lines
    if step.outcome == LOADS:
        if step.mode:
            new = len(step.loaded)
            free = f"; {report.static_tls.free} bytes of static TLS free at the end" if report.static_tls else ""
            lines += _block(style, "loads", f"{new} new object{'s' * (new != 1)} with {step.mode}{free}")
            if style.verbose:
                lines += [" " * _LABEL + path for path in step.loaded]
        else:
            lines += _block(style, "because", step.because)
    else:
        lines += _block(style, "because", step.because)
        if step.needed_by:
            lines += _block(style, "needed by", step.needed_by)
        if step.mode:
            lines += _block(style, "mode", step.mode)
    for text in step.assumptions:
        lines += _block(style, "assumed", text, "yellow")
    if step.kind in ("not-found", "wrong-class") and step.searches and not style.verbose:
        lines += _tries(step.searches[-1], style)
    return lines


def _tries(search: Search, style: Style) -> list[str]:
    lines = []
    for index, one in enumerate(search.tries):
        lines.append(_label(style, "tried" if index == 0 else "") + f"{one.path}  " + style.paint(f"{one.where}: {one.result}", "dim"))
    return lines


def _who(report: CheckReport, style: Style) -> list[str]:
    lines: list[str] = []
    for one in report.tls:
        lines.append("")
        if len(report.tls) > 1:
            lines.append("  " + style.paint(one.object, "bold"))
        lines += _triggers(one.triggers, style, one)
        lines += _bulk(one, style)
    return lines


def _triggers(triggers: tuple[Trigger, ...], style: Style, bill: TlsObject | None) -> list[str]:
    lines = []
    shown = triggers if style.verbose else triggers[:_MANY]
    for index, one in enumerate(shown):
        variable = one.variable or "a variable without a name"
        whose = f"{one.owner} ({variable})" if one.owner != variable else variable
        count = f"{one.relocations} slot{'s' * (one.relocations != 1)}, {one.relocation}"
        holder = f", in {one.object}" if bill is None or one.object != bill.object else ""
        lines.append(_label(style, "trigger" if index == 0 else "", "red") + f"{whose}  initial-exec: {count}{holder}")
    if len(triggers) > len(shown):
        lines.append(" " * _LABEL + style.paint(f"and {len(triggers) - len(shown)} more (-v)", "dim"))
    if triggers and bill is not None:
        lines.append(" " * _LABEL + style.paint("without it the segment would be dynamic", "dim"))
    return lines


def _bar(share: float, style: Style, columns: int = 20) -> str:
    if not style.unicode:
        return "#" * round(share * columns)
    eighths = round(share * columns * 8)
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else "")


def _bulk(bill: TlsObject, style: Style) -> list[str]:
    if not bill.size:
        return []
    rows: list[tuple[str, int, str]] = []
    owners = bill.owners or bill.shares
    shown = owners if style.verbose else owners[:_MANY]
    rows += [(f"{one.owner} ({one.kind})" if one.kind == "crate" else one.owner, one.bytes, one.variable or "") for one in shown]
    rest = owners[len(shown) :]
    if rest:
        rows.append((f"{len(rest)} more owners (-v)", sum(one.bytes for one in rest), ""))
    rows += [(name, size, "") for name, size in (("padding", bill.padding), ("unnamed", bill.unattributed)) if size]
    width = min(max(len(row[0]) for row in rows), 32)
    digits = len(str(bill.size))
    lines = []
    for index, (name, size, variable) in enumerate(rows):
        bar = _bar(size / bill.size, style)
        left = f"{name.ljust(width)}  {size:>{digits}}  {round(100 * size / bill.size):>3} %  "
        lines.append(_label(style, "bulk" if index == 0 else "") + left + style.paint(bar, "cyan") + (f"  {variable}" if variable else ""))
    lines.append(" " * _LABEL + style.paint(f"{'sum'.ljust(width)}  {bill.size:>{digits}}  bytes, aligned to {bill.align}", "dim"))
    lines += [" " * _LABEL + style.paint(note, "dim") for note in bill.notes]
    return lines


def _cures(report: CheckReport, style: Style) -> list[str]:
    lines: list[str] = []
    for index, cure in enumerate(report.cures):
        if index == 0:
            lines.append("")
        lines += _cure(cure, "cures" if index == 0 else "", style)
    for index, one in enumerate(report.not_cures):
        lines += _block(style, "no cure" if index == 0 else "", f"{one.title}: {one.why}")
    return lines


def _cure(cure: Cure, label: str, style: Style) -> list[str]:
    lines = [_label(style, label, "green") + style.paint(cure.command or cure.title, "bold")]
    proven = {"loads": "loads", "fails": "the load succeeds, a later step still fails"}.get(cure.proof["outcome"], cure.proof["outcome"])
    text = f"proven in the model: {proven}" if cure.proof["basis"] == "computed" else f"expected: {proven}"
    if cure.disposition == "risky":
        text = f"risky; {text}"
    if cure.cost:
        text += f" ({cure.cost})"
    lines += [" " * _LABEL + style.paint(line, "dim") for line in _wrapped(text, max(style.width - _LABEL, 40))]
    return lines


def _extras(report: CheckReport, style: Style) -> list[str]:
    lines: list[str] = []
    if report.host.inferred:
        lines += _block(style, "host", f"{report.host.name}: {report.host.inferred} (--host names another)")
    for one in report.findings:
        lines += _block(style, one.severity, one.message)
    return ["", *lines] if lines else []


def _searches(report: CheckReport, style: Style) -> list[str]:
    lines = ["", style.paint("searches", "bold")]
    for step in (None, *report.steps):
        for one in report.start_searches if step is None else step.searches:
            lines.append(f"  {one.name} {style.paint('for ' + one.needed_by if one.needed_by else 'asked for', 'dim')}: {one.path or one.how}")
            lines += [f"      {a.path}  " + style.paint(f"{a.where}: {a.result}", "dim") for a in one.tries]
    return lines


def _drawn(tls: StaticTls, style: Style) -> list[str]:
    """The static TLS block to scale, the thread control block at its end."""
    lines = ["", style.paint("static TLS block", "bold") + f"  {tls.size} bytes: {tls.tcb} tcb, {tls.used} used, {tls.free} free"]
    lines.append(f"  aligned to {tls.align}; surplus {tls.surplus}" + (f"; {tls.optional_left} left for descriptors" if tls.optional_left is not None else ""))
    columns = max(min(style.width - 60, 40), 10)
    rows = [(one.object, one.size, f"{one.when}, offset {one.offset}" + (f", forced by {one.forced_by}" if one.forced_by else "")) for one in tls.blocks]
    rows += [("free", tls.free, ""), ("tcb", tls.tcb, "")]
    digits = len(str(tls.size))
    for name, size, text in rows:
        lines.append(f"  {size:>{digits}}  {style.paint(_bar(size / max(tls.size, 1), style, columns).ljust(columns), 'cyan')}  {name}  " + style.paint(text, "dim"))
    return lines


# -- tls ----------------------------------------------------------------------------------------------------------------


def tls(report: TlsReport, style: Style) -> str:
    """Return the text of `tls`."""
    lines: list[str] = []
    for index, one in enumerate(report.files):
        if index:
            lines.append("")
        if one.error is not None:
            lines.append(style.paint(one.error, "yellow"))
            continue
        if one.tls is None:
            text = f"{one.path}: no TLS segment" + ("" if one.triggers else ", and no initial-exec access to another module's")
            lines.append(style.paint(text, "bold"))
        else:
            lines.append(style.paint(f"{one.path}: {one.tls.size} bytes of TLS, aligned to {one.tls.align}, {one.tls.model}", "bold"))
        if one.triggers:
            own = any(trigger.own for trigger in one.triggers)
            text = "static: loaded late, all of it must fit into the surplus" if own else "forces another module's TLS to be static"
            lines += _block(style, "so", text)
        elif one.tls is not None:
            lines += _block(style, "so", "dynamic: nothing here forces it into the static TLS block")
        lines += _triggers(one.triggers, style, None)
        if one.tls is not None and not style.quiet:
            lines += _bulk(one.tls, style)
            if style.verbose:
                lines += _variables(one.tls, style)
    return "\n".join(lines) + "\n" if lines else ""


def _variables(bill: TlsObject, style: Style) -> list[str]:
    digits = len(str(bill.size))
    lines = ["", "  " + style.paint("variables", "bold")]
    for one in bill.shares:
        unit = f", {one.unit}" if one.unit else ""
        lines.append(f"  {one.bytes:>{digits}}  {one.variable or '?'}  " + style.paint(f"{one.owner}{unit}; {one.evidence}", "dim"))
    return lines


# -- tree ---------------------------------------------------------------------------------------------------------------


def tree(report: TreeReport, style: Style) -> str:
    """Return the text of `tree`."""
    lines: list[str] = []
    _branch(report.root, "", "", style, lines)
    if report.error is not None:
        lines.append(style.paint(report.error, "yellow"))
    else:
        text = f"{report.objects} objects, {report.missing} missing; TLS {report.tls_total} bytes, {report.static_total} of them static"
        lines += ["", text]
        host = report.host
        if host is not None and host.inferred and not style.quiet:
            lines.append(style.paint(f"host {host.name}: {host.inferred}", "dim"))
    return "\n".join(lines) + "\n"


def _branch(node: TreeNode, lead: str, under: str, style: Style, lines: list[str]) -> None:
    mark = {"missing": "not found", "broken": "broken", "repeat": "see above", "cycle": "cycle"}.get(node.state, "")
    name = node.path or node.name
    if node.state in ("missing", "broken"):
        text = style.paint(f"{node.name}: {node.how}" if node.name not in node.how else node.how, "red", "bold")
    else:
        text = style.paint(name, "dim") if node.at_startup else name
        text += style.paint(f"  [{node.how}]", "dim") if node.how not in ("path", "the program") else ""
    if node.tls_model and not node.tls_size:
        text += style.paint(f"  uses another's TLS, {node.tls_model}", "dim")
    elif node.tls_size:
        model = node.tls_model or "no relocations"
        text += "  " + style.paint(f"TLS {node.tls_size}/{node.tls_align} {model}", "yellow" if node.static else "cyan")
    if node.at_startup:
        text += style.paint("  (the host has it)", "dim")
    if mark and node.state in ("repeat", "cycle"):
        text += style.paint(f"  ({mark})", "dim")
    lines.append(lead + text)
    if node.state in ("missing", "broken") or style.verbose:
        lines += [f"{under}    {style.paint(f'tried {one.path}  {one.where}: {one.result}', 'dim')}" for one in node.tries]
    children = node.children
    for index, child in enumerate(children):
        last = index == len(children) - 1
        elbow, bar = ("└── " if last else "├── ", "    " if last else "│   ") if style.unicode else ("`-- " if last else "|-- ", "    " if last else "|   ")
        _branch(child, under + elbow, under + bar, style, lines)
