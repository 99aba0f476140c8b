"""The report of `check` -> text: the verdict, the loader's words, the decisive numbers, who, and what helps."""

from __future__ import annotations

from dlwhy.render.style import (
    LABEL,
    bar,
    block,
    columns,
    count,
    headline,
    label,
    message,
    parts,
    printable,
    room,
    wrapped,
)
from dlwhy.report import DIES, FAILS, LOADS, UNDECIDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from dlwhy.render.style import Piece, Style
    from dlwhy.report import CheckReport, Cure, FailedReport, Search, StaticTls, Step, Unresolved
    from dlwhy.report_tls import TlsObject

_OUTCOME_COLOR = {LOADS: "green", FAILS: "red", DIES: "red", UNDECIDED: "yellow"}
_START = {
    LOADS: "would start", FAILS: "will not start", DIES: "would die while it starts", UNDECIDED: "starts",
}  # fmt: skip
_LOAD = {LOADS: "would load", FAILS: "will not load", DIES: "would kill the process", UNDECIDED: "loads"}
_ACT = {LOADS: "succeeds", FAILS: "fails", DIES: "would kill the process", UNDECIDED: "succeeds"}
_FLAGS = {"now", "lazy", "global", "local", "deepbind", "nodelete", "noload", "newns"}
_WHETHER = "undecided whether "
"""What stands before a verdict that is none."""
_PROVEN = {
    LOADS: "loads",
    FAILS: "it loads, and a later step still fails",
    DIES: "it loads, and a later step kills the process",
}


def check(report: CheckReport, style: Style) -> str:
    """Return the text of a check."""
    report = printable(report)
    start = report.host.startup
    steps = report.steps
    lines: list[str] = []
    if not steps or start.outcome in (FAILS, DIES):
        lines += _start(report, style)
    else:
        for number, step in enumerate(steps, 1):
            if number > 1 and not style.quiet:
                lines.append("")
            lines += _step(report, step, number, style)
            if start.outcome == UNDECIDED:  # then nothing can be said of any step, and each would say so
                break
    if not style.quiet:
        lines += _who(report, style)
        lines += _cures(report, style)
        lines += _extras(report, style)
        if style.verbose:
            if steps and start.outcome not in (FAILS, DIES):
                for text in start.assumptions:
                    lines += block(style, "assumed", text, "yellow")
            lines += _searches(report, style)
            if report.static_tls is not None:
                lines += _drawn(report.static_tls, report.tls, style)
    return "\n".join(lines) + "\n"


def failed(report: FailedReport, style: Style) -> str:
    """Return the text of a file that was not examined."""
    report = printable(report)
    return style.paint(f"not examined: {report.error}", "yellow") + "\n"


def _where(report: CheckReport) -> str:
    host = report.host
    release = [f"{host.libc} {host.libc_version}"] if host.libc else []
    return f" ({', '.join([*release, host.machine, *([host.profile] if host.profile else [])])})"


def _start(report: CheckReport, style: Style) -> list[str]:
    start = report.host.startup
    whether = _WHETHER if start.outcome == UNDECIDED else ""
    verdict = f"{whether}{report.host.name} {_START[start.outcome]}{_where(report)}"
    lines = headline(style, verdict, start.kind, _OUTCOME_COLOR[start.outcome])
    if start.message:
        lines += [*[""] * (not style.quiet), *message(style, "ld.so says", start.message)]
    if style.quiet:
        return lines
    if start.because and start.because not in (start.message or ""):
        lines += block(style, "because", start.because)
    if start.exit_status is not None:
        ended = f"exit status {start.exit_status}" if start.exit_status >= 0 else f"signal {-start.exit_status}"
        lines += block(style, "ends with", ended)
    if start.outcome == LOADS:
        free = f"; {count(report.static_tls.free, 'byte')} of static TLS free" if report.static_tls else ""
        lines += block(style, "loads", f"{count(len(start.loaded), 'object')} at its start{free}")
        if style.verbose:
            lines += [" " * LABEL + path for path in start.loaded]
    lines += _lacking(start.unresolved, start.message, style)
    for text in start.assumptions:
        lines += block(style, "assumed", text, "yellow")
    for step in report.steps:
        lines += block(style, "not reached", step.request)
    return lines


def _step(report: CheckReport, step: Step, number: int, style: Style) -> list[str]:
    action, _, rest = step.request.partition(":")
    acts = action in ("close", "sym", "call") and rest != ""
    name = step.request if acts or not _FLAGS.issuperset(action.split("-")) else rest
    if not acts and step.searches:
        name = step.searches[0].name  # made absolute, where the host does that
    prefix = f"{number}. " if len(report.steps) > 1 else ""
    prefix += _WHETHER if step.outcome == UNDECIDED else ""
    verdict = f"{prefix}{name} {(_ACT if acts else _LOAD)[step.outcome]} in {report.host.name}{_where(report)}"
    lines = headline(style, verdict, step.kind, _OUTCOME_COLOR[step.outcome])
    if step.message is not None:
        lines += [*[""] * (not style.quiet), *message(style, "ld.so says", step.message)]
    if style.quiet:
        return lines
    if step.outcome == LOADS and not acts:
        free = f"; {count(report.static_tls.free, 'byte')} of static TLS free at the end" if report.static_tls else ""
        lines += block(style, "loads", f"{count(len(step.loaded), 'new object')}, {step.mode}{free}")
        if style.verbose:
            lines += [" " * LABEL + path for path in step.loaded]
    else:
        if step.because not in (step.message or ""):
            lines += block(style, "because", step.because)
        if step.needed_by:
            lines += block(style, "needed by", step.needed_by)
        if step.mode:
            lines += block(style, "mode", step.mode)
    lines += _lacking(step.unresolved, step.message, style)
    for path in step.unloaded:
        lines += block(style, "unloads", path)
    for text in step.assumptions:
        lines += block(style, "assumed", text, "yellow")
    missing = step.kind in ("not-found", "wrong-class") and step.searches and step.searches[-1].path is None
    if missing and not style.verbose:
        lines += _tries(step.searches[-1], style)
    return lines


def _lacking(found: Sequence[Unresolved], message_: str | None, style: Style) -> list[str]:
    """All that nothing defines, unless the loader's words tell the only one."""
    if not found or (len(found) == 1 and message_ is not None and not style.verbose):
        return []
    from dlwhy.render.text_unresolved import listed

    return listed(found, style, style.verbose)


def _tries(search: Search, style: Style) -> list[str]:
    lines = []
    for index, one in enumerate(search.tries):
        pieces: list[Piece] = [(one.path, ()), (f"{one.where}: {one.result}", ("dim",))]
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "tried"))
    return lines


def _who(report: CheckReport, style: Style) -> list[str]:
    if not report.tls:
        return []
    from dlwhy.render.text_tls import bulk, origins, suspects, triggers

    lines: list[str] = []
    for one in report.tls:
        lines.append("")
        if len(report.tls) > 1:
            lines.append("  " + style.paint(one.object, "bold"))
        lines += triggers(one.triggers, style, one.object)
        lines += bulk(one, style)
        lines += origins(one, style)
        lines += suspects(one, style)
    return lines


def _cures(report: CheckReport, style: Style) -> list[str]:
    lines: list[str] = []
    for index, cure in enumerate(report.cures):
        lines += _cure(cure, "" if index else "cures", style)
    for index, one in enumerate(report.not_cures):
        lines += block(style, "" if index else "no cure", f"{one.title}: {one.why}")
    return ["", *lines] if lines else []


def _cure(cure: Cure, name: str, style: Style) -> list[str]:
    outcome = _PROVEN.get(cure.proof["outcome"], cure.proof["outcome"])
    text = f"proven in the model: {outcome}" if cure.proof["basis"] == "computed" else f"expected: {outcome}"
    text = {"risky": f"risky; {text}", "rebuild": f"needs a rebuild; {text}"}.get(cure.disposition, text)
    space = room(style, LABEL + 2)
    told = [text]
    if cure.cost:
        both = f"{text} ({cure.cost})"
        told = [both] if columns(both) <= space else [text, *cure.cost.split("; ")]
    shown = cure.title if "steps" in cure.change else cure.command or cure.title  # of an order no command tells
    lines = [label(style, name, "green") + style.paint(shown, "bold")]
    return lines + [" " * (LABEL + 2) + style.paint(line, "dim") for one in told for line in wrapped(one, space)]


def _extras(report: CheckReport, style: Style) -> list[str]:
    lines: list[str] = []
    if report.host.inferred:
        lines += block(style, "host", f"{report.host.name}: {report.host.inferred} (--host names another)")
    for one in report.findings:
        if one.rule == "loader-notice":
            lines += message(style, "ld.so notes", one.message)
        else:
            lines += block(style, one.severity, one.message)
    return ["", *lines] if lines else []


def _searches(report: CheckReport, style: Style) -> list[str]:
    lines = ["", style.paint("searches", "bold")]
    for one in (*report.start_searches, *(search for step in report.steps for search in step.searches)):
        whose = f"for {one.needed_by}" if one.needed_by else "asked for"
        pieces: list[Piece] = [(one.name, ()), (whose, ("dim",))]
        if one.path is not None:
            pieces.append((one.path, ()))
        if not one.tries:
            pieces.append((one.how, ("dim",)))
        lines += parts(style, "  ", "    ", pieces)
        for a in one.tries:
            lines += parts(style, "      ", "        ", [(a.path, ()), (f"{a.where}: {a.result}", ("dim",))])
    return lines


def _drawn(tls: StaticTls, refused: tuple[TlsObject, ...], style: Style) -> list[str]:
    """The static TLS block, each part with a bar to scale: who is in it, what is free, and what was to come in."""
    text = f"{count(tls.size, 'byte')}: {tls.tcb} thread control block, {tls.used} used, {tls.free} free"
    head: list[Piece] = [("static TLS block", ("bold",)), (text, ())]
    more: list[Piece] = [(f"aligned to {tls.align}", ()), (f"surplus {tls.surplus} bytes", ())]
    if tls.optional_left is not None:
        more.append((f"{tls.optional_left} left for descriptors", ()))
    lines = ["", *parts(style, "", "  ", head), *parts(style, "  ", "  ", more)]
    length = max(min(style.width - 60, 40), 10)
    whole = max(tls.size, *(one.size for one in refused), 1)
    digits = len(str(whole))
    rows = []
    for one in tls.blocks:
        forced = f", forced in by {one.forced_by}" if one.forced_by else ""
        if one.forced_by and one.others_may_take is None:
            forced = ", by its descriptors, which would do without"
        rows.append((one.size, one.object, f"{one.when}, offset {one.offset}{forced}"))
    rows += [(tls.free, "free", ""), (tls.tcb, "thread control block", "")]
    rows += [(one.size, one.object, "does not get in") for one in refused]
    for size, name, told in rows:
        drawn = bar(size / whole, style, length)
        blank = " " * (length - len(drawn) + 2)
        pieces: list[Piece] = [(name, ()), *([(told, ("dim",))] if told else [])]
        painted = f"  {size:>{digits}}  {style.paint(drawn, 'cyan')}{blank}"
        lines += parts(style, f"  {size:>{digits}}  {drawn}{blank}", " " * (digits + 4), pieces, painted)
    return lines
