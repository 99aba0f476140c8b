"""The one road from a question to the report of `check`."""

from __future__ import annotations

from dlwhy.errors import ElfError
from dlwhy.question import LOADER_VARIABLES, Question, ask, surely_there
from dlwhy.report import FAILS, CheckReport, Cure, Finding, HostReport, StaticBlock, StaticTls
from dlwhy.verdict import Run, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Host, Options
    from dlwhy.files import Files
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process
    from dlwhy.report import Copies
    from dlwhy.report_tls import TlsObject


_WORTH_A_LOOK = 256 << 10
"""Bytes of a segment that may hold a payload."""


def check(steps: list[str], host: Host | None, options: Options) -> CheckReport:
    """Return the report of `check`. Raises `UsageError` and other `DlwhyError`."""
    from dlwhy.fixes import fixes

    question = ask(steps, host, options)
    try:
        run = model(question)
        found = fixes(question, run)
        bills, remarks = _bills(question, run, options)
        twice = _copies(run, question.objects.files)
        return CheckReport(
            host_report(question, run), run.steps, _static_tls(run), bills,
            (*_findings(question, run), *remarks, *twice_told(twice)), (*found.cures, *_rebuilds(run, bills)),
            found.not_cures, run.start_searches, twice,
        )  # fmt: skip
    finally:
        question.objects.files.close()


def host_report(question: Question, run: Run) -> HostReport:
    """Return what is said of the process that the question is of."""
    settings = question.settings
    libc = settings.libc
    environment = {name: settings.env[name] for name in LOADER_VARIABLES if name in settings.env}
    known = any(libc.release)
    return HostReport(
        question.host_name, settings.program, settings.interpreter or None, libc.name if known else None,
        libc.text if known else None, settings.machine.name, environment, question.inferred,
        run.startup.but(kind=run.startup_kind, because=run.startup_because), question.profile,
    )  # fmt: skip


def _static_tls(run: Run) -> StaticTls | None:
    process = run.process
    if process is None or process.static is None:
        return None
    static = process.static
    tcb = process.libc.tcb_size.get(process.machine.e_machine, 0) if process.machine.variant == 2 else 0
    blocks = [
        StaticBlock(
            _shown(process, one), one.module_id, one.tls.memsz, one.tls.align, one.tls_offset, one.static_since,
            _shown(process, one.forced_by) if one.forced_by is not None else None, _spare(process, one),
        )
        for space in process.namespaces
        for one in space.maps
        if isinstance(one.tls_offset, int) and one.tls is not None
    ]  # fmt: skip
    return StaticTls(
        static.size + tcb, tcb, static.used, static.free, static.align, process.surplus, static.optional_left,
        tuple(sorted(blocks, key=lambda block: block.offset)),
    )  # fmt: skip


def _spare(process: Process, one: LinkMap) -> int | None:
    if one.static_since == "startup":
        return None
    from dlwhy.loader.room import others_may_take

    return others_may_take(process, one)


def _shown(process: Process, one: LinkMap) -> str:
    return one.name or process.settings.program or process.settings.argv0


def _bills(
    question: Question, run: Run, options: Options
) -> tuple[tuple[TlsObject, ...], tuple[Finding, ...]]:
    if not any(step.outcome == FAILS and (step.kind or "").startswith("static-tls-") for step in run.steps):
        return (), ()
    from dlwhy.bills import bills

    return bills(run, question.objects.files, options, question.profile is not None)


def _rebuilds(run: Run, bills: tuple[TlsObject, ...]) -> tuple[Cure, ...]:
    if not bills:
        return ()
    from dlwhy.rebuilds import rebuilds

    return rebuilds(run, bills)


def _findings(question: Question, run: Run) -> tuple[Finding, ...]:
    findings = [_finding("host-script", question.host_name, remark) for remark in question.remarks]
    if question.settings.cpu is not None:
        what = f"the processor is taken to be {question.settings.cpu}, whatever dlwhy runs on"
        findings.append(_finding("named-processor", question.host_name, what))
    if run.process is not None:
        findings += [_finding("loader-notice", question.host_name, notice) for notice in run.process.notices]
    for request, step in zip(question.requests, run.steps, strict=True):
        if (
            step.kind
            in ("static-tls-exhausted", "static-tls-alignment", "static-tls-dynamic-in-use", "static-tls-late")
            and step.needed_by
        ):
            findings.append(_finding(
                "innocent-named", step.object or "",
                f"{step.object} only defines the variable; {step.needed_by} is what uses it as initial-exec",
            ))  # fmt: skip
        if step.kind == "not-found" and request.action == "open" and "/" not in request.name and step.needed_by is None:
            here = f"{question.settings.cwd.rstrip('/')}/{request.name}"
            if surely_there(here, question.objects):
                findings.append(_finding(
                    "not-in-current-directory", request.name,
                    "a file of that name is in the current directory, where dlopen does not look: "
                    f"write ./{request.name}",
                ))  # fmt: skip
        if step.kind == "static-tls-late":
            findings.append(_finding(
                "late-initial-exec", step.needed_by or step.object or "",
                "it is refused however small the segment is; built without -ftls-model=initial-exec it would load",
            ))  # fmt: skip
    return (*findings, *_strangers(run), *_takers(run), *_opaque(run))


def _opaque(run: Run) -> tuple[Finding, ...]:
    """Files that the steps load and that hide their code: that they load says little of what they bring."""
    if run.process is None:
        return ()
    loaded = {path for step in run.steps for path in step.loaded}
    return opaque_told([one for space in run.process.namespaces for one in space.maps if one.name in loaded])


def opaque_told(maps: list[LinkMap]) -> tuple[Finding, ...]:
    """Return what is said of objects that hide their code."""
    made = []
    for one in maps:
        loads = one.elf.loads if one.elf is not None else ()
        if not any(row[5] >= _WORTH_A_LOOK for row in loads):
            continue
        from dlwhy.attribute.opaque import payload, told

        assert one.elf is not None
        found = payload(one.elf)
        if found is not None:
            made.append(_finding("opaque-payload", one.shown, told(found, one.shown)))
    return tuple(made)


def _copies(run: Run, files: Files) -> tuple[Copies, ...]:
    """The libraries that are in the process more than once: most loads have no two names that could be of one."""
    spaces = [space.maps for space in run.process.namespaces] if run.process is not None else []
    return copies_in(spaces, files)


def copies_in(spaces: list[list[LinkMap]], files: Files) -> tuple[Copies, ...]:
    """Return the libraries that are more than once in one of these namespaces; who reads no names imports nothing."""
    for maps in spaces:
        stems = [stem for one in maps if (stem := _stem(one))]
        if len(stems) > len(set(stems)):
            break
    else:
        return ()
    from dlwhy.copies import copies

    return copies(spaces, files)


def _stem(one: LinkMap) -> str:
    """DT_SONAME up to its first dot, without what may be a hash; empty without one."""
    try:
        stem = ((one.soname if one.name else None) or "").partition(".")[0]
    except ElfError:
        return ""
    while stem[-9:-8] == "-":
        stem = stem[:-9]
    return stem


def twice_told(found: tuple[Copies, ...]) -> tuple[Finding, ...]:
    """Return what is said of libraries that are more than once in a process."""
    if not found:
        return ()
    from dlwhy.copies import findings

    return tuple(findings(found))


def _strangers(run: Run) -> list[Finding]:
    """Objects that were linked against glibc, where the loader is musl's: their needs are met by name only."""
    process = run.process
    if process is None or not process.libc.takes_libc_names:
        return []
    needs = [(one, name) for space in process.namespaces for one in space.maps for name in one.needed_names or ()]
    unread = [
        _finding(
            "relr-ignored", one.shown,
            f"musl {process.libc.text} does not apply DT_RELR of {one.shown}, which breaks where it uses a pointer",
        )
        for one in process.ignored
    ]  # fmt: skip
    return unread + [
        _finding(
            "built-for-glibc", one.shown,
            f"{one.shown} needs {name}, for which musl takes itself: what it uses of glibc alone is not there",
        )
        for one, name in needs
        if name == "libc.so.6"
    ]  # fmt: skip


def _takers(run: Run) -> tuple[Finding, ...]:
    """Who took static TLS after the start, so that the next has less, and who could never get any."""
    process = run.process
    if process is None or process.static is None:
        return ()
    late = (one for space in process.namespaces for one in space.maps if one.tls is not None)
    if all(one.static_since == "startup" for one in late):
        return ()
    from dlwhy.latent import of_process

    return of_process(process)


def _finding(rule: str, object_: str, message: str) -> Finding:
    from dlwhy.rules import finding  # most loads have none

    return finding(rule, object_, message)
