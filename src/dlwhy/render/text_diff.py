"""The report of `diff` -> text: the verdict of each file, its TLS in signed bytes, triggers, why they are in there."""

from __future__ import annotations

from dlwhy.render.style import (
    LABEL,
    block,
    columns,
    count,
    headline,
    label,
    message,
    pad,
    parts,
    printable,
    room,
    wrapped,
)
from dlwhy.render.text_changes import bulk, provenance, tls, triggers, variables
from dlwhy.report import DIES, FAILS, LOADS, UNDECIDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.render.style import Piece, Style
    from dlwhy.report_diff import DiffReport, FileChange, Verdict, VerdictChange

_LISTED = 20
"""Names of new or gone files that are shown without -v."""
_COLORS = {
    "worse": "red", "better": "green", "same": "green", "otherwise": "red", "undecided": "yellow", "none": "green",
}  # fmt: skip
_WILL = {LOADS: "would load", FAILS: "will not load", DIES: "would kill the process", UNDECIDED: "is undecided"}
_ORDER = ("worse", "undecided", "otherwise", "better", "same", "none")


def diff(report: DiffReport, style: Style) -> str:
    """Return the text of `diff`."""
    report = printable(report)
    lines: list[str] = []
    several = len(report.files) != 1 or report.files[0].name not in (report.new, report.old)
    if several:
        lines += _summary(report, style)
    listed: dict[str, list[str]] = {"new": [], "gone": []}
    for one in report.files:
        if several and not style.verbose:
            if not _told(one):
                continue
            if one.presence != "both" and one.error is None and not _worth(one):
                listed[one.presence].append(one.name)
                continue
        if lines and not style.quiet:
            lines.append("")
        lines += _file(one, style)
    for word, names in listed.items() if not style.quiet else ():
        shown = names[:_LISTED]
        more = [f"and {len(names) - len(shown)} more (-v)"] if len(names) > len(shown) else []
        lines += ["", *block(style, word, ", ".join([*shown, *more]))] if names else []
    return "\n".join(lines) + "\n"


def _worth(one: FileChange) -> bool:
    """Whether a file that only one of both has is worth more than its name."""
    return bool(one.bytes or one.triggers or any(verdict.change != "none" for verdict in one.verdicts))


def _told(one: FileChange) -> bool:
    """Whether a file of several is worth lines of its own."""
    changed = any(verdict.change not in ("same", "none") for verdict in one.verdicts)
    return bool(one.error or changed or one.presence != "both" or one.variables or one.triggers or one.bytes
                or one.padding or one.unattributed or one.provenance or one.findings)  # fmt: skip


def _summary(report: DiffReport, style: Style) -> list[str]:
    changes = [_worst(one) for one in report.files if one.error is None]
    counts = [(word, changes.count(word)) for word in _ORDER[:4]]
    counts += [(word, sum(one.presence == word for one in report.files)) for word in ("new", "gone")]
    counts.append(("not examined", sum(one.error is not None for one in report.files)))
    told = [f"{number} {'fails otherwise' if word == 'otherwise' else word}" for word, number in counts if number]
    differ = sum(_told(one) and one.presence == "both" and _worst(one) in ("same", "none") and one.error is None
                 for one in report.files)  # fmt: skip
    told += [f"{differ} {'differs' if differ == 1 else 'differ'} in TLS"] if differ else []
    quiet = sum(not _told(one) for one in report.files)
    told += [f"{quiet} without a change that counts"] if quiet else []
    head = f"{report.old} → {report.new}" if style.unicode else f"{report.old} -> {report.new}"
    pieces: list[Piece] = [(head, ("bold",)), (f"{count(len(report.files), 'file')}: {', '.join(told)}", ())]
    return parts(style, "", "  ", pieces)


def _worst(one: FileChange) -> str:
    return next((word for word in _ORDER if any(v.change == word for v in one.verdicts)), "none")


def _file(one: FileChange, style: Style) -> list[str]:
    if one.error is not None:
        return [style.paint(line, "yellow") for line in wrapped(f"not examined: {one.error}", room(style, 0))]
    if one.presence == "gone":
        lines = headline(style, f"{one.old} is gone", None)
    elif len(one.verdicts) == 1 and one.verdicts[0].system is None:
        lines = _verdict(one, one.verdicts[0], style)
    elif one.verdicts:
        lines = _systems(one, style)
    elif one.kind != "linked":
        text = f"{one.new} against {one.old}: not linked yet, so that nothing loads them"
        lines = headline(style, text if one.presence == "both" else f"{one.new} is new", None)
    else:
        lines = headline(style, f"{one.old} and {one.new} are one and the same file", None, "green")
    if style.quiet:
        return lines
    if one.equal and (one.verdicts or one.kind != "linked"):
        lines += block(style, "so", "both have the same bytes")
    if not one.equal:
        lines += tls(one, style)
    lines += bulk(one, style)
    lines += triggers(one, style)
    lines += provenance(one.provenance, style)
    for finding in one.findings:
        lines += block(style, finding.severity, f"{finding.message} [{finding.rule}]")
    for note in one.notes:
        lines += block(style, "", note, paint="dim")
    if style.verbose:
        lines += variables(one, style)
    return lines


# -- verdicts ----------------------------------------------------------------------------------------------------------


def _verdict(file: FileChange, one: VerdictChange, style: Style) -> list[str]:
    """The verdict of one process, and the loader's words."""
    if one.error is not None:
        return [style.paint(line, "yellow") for line in wrapped(f"not examined: {one.error}", room(style, 0))]
    shown = one.new
    assert shown is not None
    where = f" in {shown.host}" + (f" ({shown.libc} {shown.libc_version})" if shown.libc else "")
    if one.change == "undecided":
        whose = file.new if shown.outcome == UNDECIDED else file.old
        text = f"undecided whether {whose} loads{where}"
    else:
        text = f"{file.new} {_WILL[shown.outcome]}{where}, {_against(one)}"
    kind = shown.kind if one.change != "undecided" else None
    return headline(style, text, kind, _COLORS[one.change]) + _words(one, style)


def _against(one: VerdictChange) -> str:
    """How NEW compares with OLD, as the end of a sentence about NEW."""
    if one.old is None:
        return "and is new"
    return {
        "same": "as OLD" if one.old.outcome != LOADS else "as OLD did",
        "otherwise": "as OLD, for another reason",
        "worse": f"and OLD {'did' if one.old.outcome == LOADS else 'only failed'}",
        "better": "and OLD did not" if one.old.outcome == FAILS else "and OLD would have killed the process",
    }[one.change]


def _words(one: VerdictChange, style: Style) -> list[str]:
    lines: list[str] = []
    for name, verdict in (("NEW", one.new), ("OLD", one.old)):
        if verdict is None or (name == "OLD" and one.change == "same"):
            continue
        if verdict.message:
            lines += message(style, "ld.so says" if name == "NEW" else "said of OLD", verdict.message)
        if style.quiet or (verdict.outcome == LOADS and not verdict.unresolved):
            continue
        if verdict.outcome != LOADS and verdict.because not in (verdict.message or ""):
            lines += block(style, "because" if name == "NEW" else "OLD because", verdict.because)
        if style.verbose or verdict.outcome == LOADS:
            lines += _lacking(verdict, style)
    if not style.quiet and one.new is not None and one.new.outcome == LOADS:
        lines += _free(one.old, one.new, style)
    return lines


def _lacking(verdict: Verdict, style: Style) -> list[str]:
    if not verdict.unresolved:
        return []
    from dlwhy.render.text_unresolved import listed

    return listed(verdict.unresolved, style, style.verbose)


def _free(old: Verdict | None, new: Verdict, style: Style) -> list[str]:
    if new.free is None or old is None or old.free is None or old.free == new.free:
        return []
    return block(style, "leaves", f"{count(new.free, 'byte')} of static TLS to others; OLD left {old.free}")


def _systems(file: FileChange, style: Style) -> list[str]:
    """The verdicts of several systems: the worst change first line, then system by system."""
    worst = _worst(file)
    fewer = "loads on fewer systems than OLD" if file.presence == "both" else "is new, and does not load everywhere"
    text = {
        "worse": fewer, "undecided": "is undecided on some systems", "otherwise": "fails as OLD, for other reasons",
        "better": "loads on more systems than OLD", "same": "fares as OLD on every system",
        "none": "is new, and loads wherever it is for the machine",
    }[worst]  # fmt: skip
    lines = headline(style, f"{file.new} {text}", None, _COLORS[worst])
    width = max(columns(one.system or "") for one in file.verdicts)
    for index, one in enumerate(file.verdicts):
        pieces: list[Piece] = [(pad(one.system or "", width), ()), (_moved(one, style), (_COLORS[one.change],))]
        if one.error is not None:
            pieces.append((one.error, ("dim",)))
        elif one.new is not None and one.new.outcome != LOADS and not style.quiet:
            pieces.append((one.new.message or one.new.because, ("dim",)))
        elif one.change == "undecided" and one.old is not None and not style.quiet:
            pieces.append((f"OLD: {one.old.because}", ("dim",)))
        lines += parts(style, " " * LABEL, " " * (LABEL + 2), pieces, label(style, "" if index else "systems"))
    return lines


def _moved(one: VerdictChange, style: Style) -> str:
    """One system's outcomes, as "loads -> fails"."""
    if one.error is not None:
        return "not examined"
    words = [v.outcome if v is not None else "-" for v in (one.old, one.new)]
    if one.change == "same":
        return f"{words[1]}, as OLD"
    if one.old is None and one.new is None:
        return "not for this machine"
    arrow = " → " if style.unicode else " -> "
    return arrow.join(words) + ("" if words[0] != words[1] else ", otherwise" if one.change == "otherwise" else "")
