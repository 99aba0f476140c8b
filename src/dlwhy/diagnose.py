"""The one road from a question to a report."""

from __future__ import annotations

from dlwhy.api import Host, Options
from dlwhy.elf.constants import ET_REL
from dlwhy.errors import DlwhyError, ElfError, FilesError, UnsupportedError, UsageError
from dlwhy.files import Files
from dlwhy.loader.dependencies import plain_needs
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE, LinkMap
from dlwhy.loader.objects import Objects
from dlwhy.question import LOADER_VARIABLES, Question, ask, surely_there
from dlwhy.report import (
    COMPUTED,
    FAILS,
    Access,
    CheckReport,
    CodeUser,
    Finding,
    HostReport,
    Search,
    Share,
    Startup,
    StaticBlock,
    StaticTls,
    TlsFile,
    TlsObject,
    TlsReport,
    TreeNode,
    TreeReport,
    Trigger,
    Try,
)
from dlwhy.verdict import Run, model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.attribute.bill import Bill
    from dlwhy.attribute.bill import Share as BillShare
    from dlwhy.attribute.triggers import Trigger as BillTrigger
    from dlwhy.elf.file import Elf
    from dlwhy.loader.process import Process
    from dlwhy.origins import Lock


def check(steps: list[str], host: Host | None, options: Options) -> CheckReport:
    """Return the report of `check`. Raises `UsageError` and other `DlwhyError`."""
    from dlwhy.fixes import fixes

    question = ask(steps, host, options)
    try:
        run = model(question)
        found = fixes(question, run)
        bills = _bills(run, question.objects.files, options.lock)
        return CheckReport(
            _host(question, run), run.steps, _static_tls(run), bills, _findings(question, run), found.cures,
            found.not_cures, run.start_searches,
        )  # fmt: skip
    finally:
        question.objects.files.close()


def _host(question: Question, run: Run) -> HostReport:
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
            _shown(process, one.forced_by) if one.forced_by is not None else None,
        )
        for space in process.namespaces
        for one in space.maps
        if isinstance(one.tls_offset, int) and one.tls is not None
    ]  # fmt: skip
    return StaticTls(
        static.size + tcb, tcb, static.used, static.free, static.align, process.surplus, static.optional_left,
        tuple(sorted(blocks, key=lambda block: block.offset)),
    )  # fmt: skip


def _shown(process: Process, one: LinkMap) -> str:
    return one.name or process.settings.program or process.settings.argv0


# -- who ---------------------------------------------------------------------------------------------------------------


def _bills(run: Run, files: Files, lock: str | None) -> tuple[TlsObject, ...]:
    """The bills that explain the failing steps: of the object that pays, with the relocations of whoever forces it."""
    if run.process is None:
        return ()
    result: list[TlsObject] = []
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
        from dlwhy.origins import explained, read_lock

        try:
            made = bill_of(victim.elf, victim.shown, users)
            result.append(explained(made, victim.elf, files, read_lock(lock, Files()) if lock is not None else None))
        except (ElfError, Unknown):  # of a part that the loader never came to, or that a profile does not hold
            continue
    return tuple(result)


def bill_of(elf: Elf, name: str, others: list[tuple[Elf, str]]) -> TlsObject:
    """Return the bill of one object; `others` are objects whose relocations force it as well. Raises `ElfError`."""
    from dlwhy.attribute.accesses import explained
    from dlwhy.attribute.bill import bill
    from dlwhy.attribute.sites import sites
    from dlwhy.attribute.triggers import triggers_into
    from dlwhy.attribute.variables import library_name

    made = bill(elf)
    triggers = [_trigger(one, name) for one in made.triggers if one.own or not others]
    for other, shown in others:
        forced = explained(other, triggers_into(other, elf), sites(other), library_name(other))
        triggers += [_trigger(one, shown) for one in forced]
    return _tls_object(made, name, tuple(triggers))


def _tls_object(made: Bill, name: str, triggers: tuple[Trigger, ...]) -> TlsObject:
    return TlsObject(
        name, made.size, made.align, made.model, _shares(made.shares), made.padding, made.unattributed, triggers,
        (), _shares(made.owners), made.notes,
    )  # fmt: skip


def _shares(made: tuple[BillShare, ...]) -> tuple[Share, ...]:
    return tuple(Share(s.owner, s.kind, s.bytes, s.variable, s.unit, s.evidence) for s in made)


def _trigger(t: BillTrigger, name: str) -> Trigger:
    users = tuple(CodeUser(*one) for one in t.users)
    return Trigger(
        t.owner, t.variable, t.relocation, t.accesses, t.functions, name, t.relocations, t.own, t.functions_total,
        users, t.rewritable,
    )  # fmt: skip


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
    return (*findings, *_strangers(run), *_takers(run))


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


def _takers(run: Run) -> list[Finding]:
    """Who took static TLS after the start: the next library that needs some has less."""
    process = run.process
    static = process.static if process is not None else None
    if process is None or static is None:
        return []
    return [
        _finding(
            "static-tls-taker", one.name,
            f"{one.name} takes {one.tls.memsz} of the {process.surplus} bytes of static TLS that all late loads share: "
            "after others it may not load",
        )
        for space in process.namespaces
        for one in space.maps
        if isinstance(one.tls_offset, int) and one.tls is not None and one.static_since.startswith("step")
    ]  # fmt: skip


def _finding(rule: str, object_: str, message: str) -> Finding:
    from dlwhy.rules import RULES

    row = RULES[rule]
    return Finding(rule, row.severity, object_, message, COMPUTED, row.citation)


# -- tls ---------------------------------------------------------------------------------------------------------------


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
        raise UnsupportedError(f"{path}: an archive: its members are not linked yet; name the library they went into")
    elf = Elf(view)
    if elf.type == ET_REL:
        raise UnsupportedError(f"{path}: an object file: it is not linked yet; name the library that it went into")
    if elf.debug_only:
        return TlsFile(
            path, f"{path}: a separate debug file: it has names, but no bytes that are ever loaded", None, ()
        )
    evidence = gather(elf, reader, (*options.debug_dirs, *DIRECTORIES), options.map)
    made = bill(elf, evidence, options.code)
    shown = _tls_object(made, path, tuple(_trigger(one, path) for one in made.triggers))
    if made.size:
        from dlwhy.origins import explained

        shown = explained(shown, elf, reader, lock)
    accesses = tuple(Access(*one) for one in made.accesses)
    findings = _tls_findings(elf, made, path)
    return TlsFile(path, None, shown if made.size else None, shown.triggers, accesses, made.searched, findings)


def _tls_findings(elf: Elf, made: Bill, path: str) -> tuple[Finding, ...]:
    """What was found out about the evidence, and what the code behind the relocations shows beyond the bill."""
    from dlwhy.attribute.remarks import remarks

    found = [(one.rule, one.message) for one in made.remarks] + list(remarks(elf, made))
    return tuple(_finding(rule, path, message) for rule, message in found)


# -- tree --------------------------------------------------------------------------------------------------------------


def tree(file: str, host: Host | None, options: Options) -> TreeReport:
    """Return the report of `tree`. Raises `UsageError`."""
    question = ask([file], host, options)
    try:
        return _tree(file, question)
    finally:
        question.objects.files.close()


def _tree(file: str, question: Question) -> TreeReport:
    run = model(question.but(requests=()), map_only=True)  # what is found where does not depend on any symbol
    host = _host(question, run)
    process = run.process
    name = question.requests[0].name if question.requests else None
    if question.standalone is not None and question.program is not None and name is None:
        return _tree_alone(host, question.program)
    if process is None or process.program is None or (name is not None and run.startup_kind is not None):
        alone = question.standalone.because if question.standalone is not None else None
        reason = alone or run.startup_because or "the host cannot be modelled"
        empty = TreeNode(file, None, reason, "broken", (), None, 0, 0, None, False, (), False)
        return TreeReport(host, empty, 0, 0, 0, 0, f"{file}: {reason}")
    walk = _Walk(process, from_start=name is None, searches=run.start_searches)
    if name is None:
        top: LinkMap | None = process.program
        made: TreeNode = walk.node(process.program, question.host_name, "the program", ())
    else:
        top, fault = walk.enter(name, process.program, None)
        if top is None:
            words = fault.message if isinstance(fault, Fault) else str(fault)
            broken = TreeNode(name, None, words, "missing", walk.last_tries(), None, 0, 0, None, False, (), False)
            return TreeReport(host, broken, 0, 1, 0, 0, words)
        walk.map_all(top)
        made = walk.node(top, name, top.how, ())
    return TreeReport(host, made, len(walk.seen), walk.missing, walk.tls_total, walk.static_total, None)


def _tree_alone(host: HostReport, program: Elf) -> TreeReport:
    """A statically linked program: nothing comes along with it."""
    size, align = (program.tls.memsz, program.tls.align) if program.tls is not None else (0, 0)
    model_ = "local-exec" if size else None
    root = TreeNode(
        host.name, host.executable, "the program", "first", (), None, size, align, model_, bool(size), (), False
    )
    return TreeReport(host, root, 1, 0, size, size, None)


class _Walk:
    """Maps what a file needs, in the loader's order, then draws it depth first."""

    def __init__(self, process: Process, from_start: bool, searches: tuple[Search, ...]) -> None:
        self.process = process
        self.tries = {one.path: one.tries for one in searches if one.path is not None and one.tries}
        self.start = {id(one) for one in process.base.maps} if not from_start else set()
        self.from_start = from_start
        self.children: dict[int, list[tuple[str, LinkMap | None, str, tuple[Try, ...]]]] = {}
        self.seen: set[int] = set()
        self.models: dict[int, tuple[str | None, bool]] = {}
        self.missing = self.tls_total = self.static_total = 0

    def enter(self, name: str, loader: LinkMap, needed_by: LinkMap | None) -> tuple[LinkMap | None, Exception | None]:
        """Map one name; the object, or why there is none."""
        try:
            made = self.process.map_object(name, loader, "loaded", 0, self.process.base, True, needed_by)
        except (Fault, Death, Unknown) as fault:
            return None, fault
        return made, None

    def last_tries(self) -> tuple[Try, ...]:
        """Every place tried in the last search."""
        if not self.process.searches:
            return ()
        return tuple(Try(a.path, a.where, a.result) for a in self.process.searches[-1].attempts)

    def map_all(self, top: LinkMap) -> None:
        """Map the needs of `top` and of all that comes with it, breadth-first; what is missing is remembered."""
        todo = [top]
        known = {id(top)}
        for at in todo:
            for name, dependency, _, _ in self._needs(at):
                if dependency is not None and id(dependency) not in known:
                    known.add(id(dependency))
                    todo.append(dependency)
                del name

    def _needs(self, at: LinkMap) -> list[tuple[str, LinkMap | None, str, tuple[Try, ...]]]:
        found = self.children.get(id(at))
        if found is None:
            found = self.children[id(at)] = []
            for name in self._names(at):
                expanded = self.process.finder.expand(name, at)
                if expanded is None:
                    continue
                made, fault = self.enter(expanded, at, at)
                tries = self.last_tries()
                if made is None:
                    words = fault.message if isinstance(fault, Fault) else str(fault)
                    found.append((name, None, words, tries))
                else:
                    search = self.process.searches[-1] if self.process.searches else None
                    how = made.how if search is None or search.how == "already loaded" else search.how
                    found.append((name, made, how or "with the program", tries or self.tries.get(made.name, ())))
        return found

    def _names(self, at: LinkMap) -> tuple[str, ...]:
        if at.needed_names is not None:
            return at.needed_names
        if at.elf is None:
            return tuple(name for _, name in plain_needs(self.process))
        try:
            return tuple(name for _, name in at.elf.dynamic.filters) if at.elf.dynamic is not None else ()
        except (DlwhyError, Unknown):
            return ()

    def model(self, at: LinkMap) -> tuple[str | None, bool]:
        """Return the TLS access models of an object, and whether they force its own or another's TLS to be static."""
        from dlwhy.elf.tls import tls_relocations

        known = self.models.get(id(at))
        if known is not None:
            return known
        try:
            relocations = tls_relocations(at.elf) if at.elf is not None else None
        except (DlwhyError, Unknown):
            relocations = None
        found: tuple[str | None, bool] = (None, False)
        if relocations is not None:
            found = ("+".join(relocations.models) or None, bool(relocations.tpoff))
        if found[0] is None and at.tls is not None and at.tls.memsz and at.type == EXECUTABLE:
            found = ("local-exec", True)
        self.models[id(at)] = found
        return found

    def node(
        self, at: LinkMap, name: str, how: str, above: tuple[LinkMap, ...], tries: tuple[Try, ...] = ()
    ) -> TreeNode:
        """Return the drawn form of an object; its children only where it is met first."""
        at_startup = id(at) in self.start
        state = "cycle" if any(at is one for one in above) else "repeat" if id(at) in self.seen else "first"
        size = at.tls.memsz if at.tls is not None else 0
        model_, static = self.model(at)
        children: list[TreeNode] = []
        if state == "first":
            self.seen.add(id(at))
            self.tls_total += size
            if static or at_startup or self.from_start:
                self.static_total += size
            if not at_startup:
                for child_name, child, child_how, child_tries in self._needs(at):
                    if child is None:
                        self.missing += 1
                        children.append(
                            TreeNode(
                                child_name, None, child_how, "missing", child_tries, None, 0, 0, None, False, (), False
                            )
                        )
                    else:
                        children.append(self.node(child, child_name, child_how, (*above, at), child_tries))
        return TreeNode(
            name, at.name or self.process.settings.program, how, state, tries, _soname(at), size,
            at.tls.align if at.tls is not None else 0, model_, static, tuple(children), at_startup,
        )  # fmt: skip


def _soname(of: LinkMap) -> str | None:
    """DT_SONAME; None too where it cannot be read, which is no reason not to show the rest."""
    try:
        return of.soname
    except ElfError:
        return None


__all__ = ["Host", "Objects", "Startup", "bill_of", "check", "tls", "tree"]
