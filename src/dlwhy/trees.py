"""`tree`: which objects come along with a file, found where and why, and which are missing, tried where."""

from __future__ import annotations

from dlwhy.diagnose import copies_in, host_report, opaque_told, twice_told
from dlwhy.errors import DlwhyError, ElfError
from dlwhy.loader.dependencies import plain_needs
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE, LinkMap
from dlwhy.openings import openings
from dlwhy.question import Question, ask
from dlwhy.report import HostReport, Search, TreeNode, TreeReport, Try
from dlwhy.verdict import model

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Host, Options
    from dlwhy.elf.file import Elf
    from dlwhy.loader.process import Process
    from dlwhy.report import Opening


def tree(file: str, host: Host | None, options: Options) -> TreeReport:
    """Return the report of `tree`. Raises `UsageError`."""
    question = ask([file], host, options)
    try:
        return _tree(file, question, options)
    finally:
        question.objects.files.close()


def _tree(file: str, question: Question, options: Options) -> TreeReport:
    run = model(question.but(requests=()), map_only=True)  # what is found where does not depend on any symbol
    host = host_report(question, run)
    process = run.process
    name = question.requests[0].name if question.requests else None
    if question.standalone is not None and question.program is not None and name is None:
        return _tree_alone(host, question.program)
    if process is None or process.program is None or (name is not None and run.startup_kind is not None):
        alone = question.standalone.because if question.standalone is not None else None
        reason = alone or run.startup_because or "the host cannot be modelled"
        empty = TreeNode(file, None, reason, "broken", (), None, 0, 0, None, False, (), False)
        return TreeReport(host, empty, 0, 0, 0, 0, f"{file}: {reason}")
    walk = _Walk(process, from_start=name is None, searches=run.start_searches, guesses=options.guesses)
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
    twice = copies_in([process.base.maps], question.objects.files)
    brought = [one for one in process.base.maps if id(one) not in walk.start]
    hidden = opaque_told(brought if options.guesses else [one for one in brought if one is top])
    return TreeReport(
        host, made, len(walk.seen), walk.missing, walk.tls_total, walk.static_total, None, twice,
        (*twice_told(twice), *hidden),
    )  # fmt: skip


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

    def __init__(self, process: Process, from_start: bool, searches: tuple[Search, ...], guesses: bool) -> None:
        self.process = process
        self.guesses = guesses
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
        opens: tuple[Opening, ...] = ()
        if state == "first":
            self.seen.add(id(at))
            self.tls_total += size
            if static or at_startup or self.from_start:
                self.static_total += size
            if not at_startup:
                opens = openings(self.process, at, self.guesses or not above)
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
            opens,
        )  # fmt: skip


def _soname(of: LinkMap) -> str | None:
    """DT_SONAME; None too where it cannot be read, which is no reason not to show the rest."""
    try:
        return of.soname
    except ElfError:
        return None
