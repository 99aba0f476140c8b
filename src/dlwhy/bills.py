"""Bills: who fills a TLS segment and who forces it into the static block, of a failed load or of a file by itself."""

from __future__ import annotations

from dlwhy.elf.constants import ET_REL
from dlwhy.errors import DlwhyError, ElfError, FilesError, UsageError
from dlwhy.files import Files
from dlwhy.loader.faults import Unknown
from dlwhy.report import ASSUMED, COMPUTED, FAILS, Finding
from dlwhy.report_tls import (
    Access,
    CodeObject,
    CodeUser,
    Declaration,
    Share,
    TlsFile,
    TlsObject,
    TlsReport,
    Trigger,
    TypePart,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Options
    from dlwhy.attribute.bill import Bill
    from dlwhy.attribute.bill import Share as BillShare
    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.triggers import Trigger as BillTrigger
    from dlwhy.elf.file import Elf
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.origins import Lock
    from dlwhy.verdict import Run


def bills(
    run: Run, files: Files, options: Options, captured: bool
) -> tuple[tuple[TlsObject, ...], tuple[Finding, ...]]:
    """Return the bills that explain the failing steps, of the object that pays with whoever forces it, and remarks.

    `files` are those of the process; of a `captured` system debug files are looked for in this one, for a profile holds
    none: their build-id says whether they belong.
    """
    if run.process is None:
        return (), ()
    result: list[TlsObject] = []
    findings: list[Finding] = []
    beside = Files() if captured else files
    for number, step in enumerate(run.steps, 1):
        if step.outcome != FAILS or not (step.kind or "").startswith("static-tls-") or step.object is None:
            continue
        forced = run.process.forced.get(number, [])
        if not forced:
            continue
        _, victim, _, _ = forced[-1]
        if victim.elf is None or any(one.object == victim.shown for one in result):
            continue
        others: list[LinkMap] = []
        for of, pays, _, _ in forced:
            if pays is victim and of is not victim and of.elf is not None and not any(of is one for one in others):
                others.append(of)
        users = [(one.elf, one.shown) for one in others if one.elf is not None]
        from dlwhy.forcing import also

        users += also(step, victim.elf, [victim.shown, *(one.shown for one in others)], files)
        from dlwhy.origins import explained, read_lock

        lock = options.lock
        try:
            evidence = _evidence(victim.elf, beside, options)
            made, remarks = bill_of(victim.elf, victim.shown, users, evidence)
            result.append(explained(made, victim.elf, files, read_lock(lock, Files()) if lock is not None else None))
        except (ElfError, Unknown):  # of a part that the loader never came to, or that a profile does not hold
            continue
        findings += remarks
    if captured:
        beside.close()
    return tuple(result), tuple(findings)


def _evidence(elf: Elf, files: Files, options: Options) -> Evidence:
    """Return what debug files tell of an object, nothing where they cannot be looked for."""
    from dlwhy.attribute.companions import DIRECTORIES
    from dlwhy.attribute.evidence import NONE, gather

    try:
        return gather(elf, files, (*options.debug_dirs, *DIRECTORIES))
    except (DlwhyError, Unknown):
        return NONE


def bill_of(
    elf: Elf, name: str, others: list[tuple[Elf, str]], evidence: Evidence
) -> tuple[TlsObject, list[Finding]]:
    """Return the bill of one object, and remarks; `others` are objects whose relocations force it as well.

    Raises `ElfError`.
    """
    from dlwhy.attribute.accesses import explained
    from dlwhy.attribute.bill import bill
    from dlwhy.attribute.sites import sites
    from dlwhy.attribute.triggers import triggers_into
    from dlwhy.attribute.variables import library_name

    made = bill(elf, evidence)
    triggers = [shown_trigger(one, name) for one in made.triggers if one.own or not others]
    for other, shown in others:
        forced = explained(other, triggers_into(other, elf, evidence), sites(other), library_name(other))
        triggers += [shown_trigger(one, shown) for one in forced]
    from dlwhy.rules import finding

    remarks = [finding(one.rule, name, one.message) for one in made.remarks]
    return shown_object(made, name, tuple(triggers)), remarks


def shown_object(made: Bill, name: str, triggers: tuple[Trigger, ...]) -> TlsObject:
    """Return a bill as the report has it, of the object that is called `name` there."""
    return TlsObject(
        name, made.size, made.align, made.model, shown_shares(made.shares), made.padding, made.unattributed, triggers,
        (), shown_shares(made.owners), made.notes,
    )  # fmt: skip


def shown_shares(made: tuple[BillShare, ...]) -> tuple[Share, ...]:
    """Return shares as the report has them."""
    return tuple(
        Share(
            s.owner, s.kind, s.bytes, s.variable, s.unit, s.evidence, tuple(TypePart(*part) for part in s.inside),
            Declaration(*s.declared) if s.declared is not None else None,
        )
        for s in made
    )  # fmt: skip


def shown_trigger(t: BillTrigger, name: str) -> Trigger:
    """Return a trigger as the report has it, in the object that is called `name` there."""
    users = tuple(
        CodeUser(one.owner, one.kind, one.accesses, one.evidence, ASSUMED if one.assumed else COMPUTED)
        for one in t.users
    )
    return Trigger(
        t.owner, t.variable, t.relocation, t.accesses, t.functions, name, t.relocations, t.own, t.functions_total,
        users, t.rewritable, t.offset, tuple(CodeObject(*one) for one in t.objects),
    )  # fmt: skip


def tls(files: list[str], options: Options) -> TlsReport:
    """Return the report of `tls`: one entry a file, in the order given.

    Raises `UsageError` when one map is given for several files.
    """
    if options.map is not None and len(files) > 1:
        raise UsageError("--map tells of one FILE: name no other with it")
    reader = Files(options.sysroot or "/")
    lock = None
    if options.lock is not None:
        from dlwhy.origins import read_lock

        lock = read_lock(options.lock, Files())
    result = []
    for path in files:
        try:
            result.append(_tls_file(path, reader, options, lock))
        except DlwhyError as error:
            result.append(TlsFile(path, str(error), None, ()))
        finally:
            reader.close()
    return TlsReport(tuple(result))


def _tls_file(path: str, reader: Files, options: Options, lock: Lock | None) -> TlsFile:
    from dlwhy.attribute.bill import bill
    from dlwhy.attribute.companions import DIRECTORIES
    from dlwhy.attribute.evidence import gather
    from dlwhy.elf.file import Elf

    view = reader.open(path)
    if view.read_errno:
        raise FilesError(
            path, view.read_errno, "is a directory" if reader.kind(path) == "directory" else "cannot be read"
        )
    if view.head[:8] in (b"!<arch>\n", b"!<thin>\n"):
        from dlwhy.unlinked import archive

        return archive(view, reader, options)
    elf = Elf(view)
    if elf.type == ET_REL:
        from dlwhy.unlinked import object_file

        return object_file(elf, options)
    if elf.debug_only:
        return TlsFile(
            path, f"{path}: a separate debug file: it has names, but no bytes that are ever loaded", None, ()
        )
    evidence = gather(elf, reader, (*options.debug_dirs, *DIRECTORIES), options.map)
    if options.debuginfod:
        from dlwhy.attribute.debuginfod import with_download

        evidence = with_download(elf, evidence)
    made = bill(elf, evidence, options.code, options.triggers)
    made, elsewhere = _defined_elsewhere(made, path, reader, options)
    forced = tuple(shown_trigger(one, path).but(definer=elsewhere.get(one.symbol or "")) for one in made.triggers)
    shown = shown_object(made, path, forced)
    if made.size:
        from dlwhy.origins import explained

        shown = explained(shown, elf, reader, lock)
    accesses = tuple(Access(*one) for one in made.accesses)
    findings = _tls_findings(elf, made, path)
    return TlsFile(path, None, shown if made.size else None, shown.triggers, accesses, made.searched, findings)


def _defined_elsewhere(made: Bill, path: str, files: Files, options: Options) -> tuple[Bill, dict[str, str]]:
    """Return a bill with the owners of other modules' variables, and symbol -> the object that defines it."""
    wanted = {one.symbol for one in made.triggers if not one.own and one.symbol is not None}
    if not wanted:
        return made, {}
    from dlwhy.attribute.owners import FOREIGN
    from dlwhy.definers import definers

    found = definers(path, wanted, files, options)
    triggers = tuple(
        one.but(owner=found[one.symbol].owner) if one.owner == FOREIGN and not one.own and one.symbol in found else one
        for one in made.triggers
    )
    owners = {one.variable: one.owner for one in triggers if not one.own}
    accesses = tuple(
        one.but(owner=owners.get(one.variable, FOREIGN)) if one.owner == FOREIGN else one for one in made.accesses
    )
    return made.but(triggers=triggers, accesses=accesses), {name: one.path for name, one in found.items()}


def _tls_findings(elf: Elf, made: Bill, path: str) -> tuple[Finding, ...]:
    """What was found out about the evidence, and what the code behind the relocations shows beyond the bill."""
    from dlwhy.attribute.opaque import payload, told
    from dlwhy.attribute.remarks import remarks
    from dlwhy.rules import finding

    found = [(one.rule, one.message) for one in made.remarks] + list(remarks(elf, made))
    if made.size and elf.interp is None:  # a program starts the process, and so does libc
        from dlwhy.latent import of_file

        found += of_file(elf, made)
    hidden = payload(elf)
    if hidden is not None:
        found.append(("opaque-payload", told(hidden, "it")))
    return tuple(finding(rule, path, message) for rule, message in found)
