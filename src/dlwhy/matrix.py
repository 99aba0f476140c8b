"""`check --on`: every file of a list on every system, in a fresh process of that system's host.

What is read of a file serves all systems, what is read of a system serves all files. One bad file never hides another,
and where a system has no such host nothing is said that depends on it.
"""

from __future__ import annotations

import os

from dlwhy.elf.machine import MACHINES, machine_name
from dlwhy.errors import DlwhyError, UsageError
from dlwhy.files import Files
from dlwhy.hosts import executable
from dlwhy.hosts.known import inferred
from dlwhy.loader.faults import Unknown
from dlwhy.loader.objects import Objects
from dlwhy.question import DEFAULT_PATH, ask_of
from dlwhy.report import ASSUMED, COMPUTED, FAILS, LOADS, UNDECIDED
from dlwhy.report_systems import Cell, MatrixReport, Row
from dlwhy.report_systems import System as Column
from dlwhy.systems import named
from dlwhy.verdict import model
from dlwhy.walk import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.api import Host, Options
    from dlwhy.hosts.executable import Program
    from dlwhy.loader.glibc import Glibc
    from dlwhy.question import Question
    from dlwhy.systems import System, Tree
    from dlwhy.verdict import Run

_WITHOUT_HOST = ("header", "map", "version", "property")
"""Stages whose refusals do not depend on the program: it starts with the same C library, on the same processor."""


def on(files: list[str], systems: list[str], host: Host | None, options: Options) -> MatrixReport:
    """Return the matrix. Raises `UsageError` for a question that cannot be asked of any of them."""
    made = Matrix(systems, host, options)
    try:
        return MatrixReport(made.columns, tuple(made.rows(files)))
    finally:
        made.close()


class Matrix:
    """One run over files and systems."""

    def __init__(self, systems: list[str], host: Host | None, options: Options) -> None:
        """`host` has an environment of its own. Raises `UsageError`."""
        from dlwhy.api import Host

        if options.sysroot is not None:
            raise UsageError("--on with --sysroot: write --on sysroot:DIR")
        if host is not None and host.kind not in ("plain", "executable", "inferred"):
            raise UsageError("--on: its hosts are programs of each system, or plain")
        self.files = Files()
        self.host = host if host is not None else Host.inferred({})
        self.cwd = options.cwd or os.getcwd()
        self.options = options.but(cwd=self.cwd)
        self.systems = named(systems, self.files)

    @property
    def columns(self) -> tuple[Column, ...]:
        """The systems as the report has them."""
        return tuple(Column(one.name, one.word, one.machines) for one in self.systems)

    def rows(self, files: list[str]) -> Iterator[Row]:
        """Yield the row of every file; directories and archives are walked."""
        return walk(files, self.options, self.examine, self._refused)

    def close(self) -> None:
        """Give every descriptor back."""
        for one in self.systems:
            for tree in one.trees:
                tree.objects.files.close()
        self.files.close()

    def _refused(self, name: str, error: str) -> Row:
        return Row(name, None, self.host.target, None, (), error)

    def examine(self, name: str, step: str, host: Host | None = None) -> Row:
        """Return the row of one file, which the process knows by `step`; `host` is another than that of the matrix."""
        host = host or self.host
        hit = inferred(step) if host.kind == "inferred" else None
        path = step
        if "/" in step:
            path = step if step.startswith("/") else os.path.normpath(f"{self.cwd}/{step}")
            if hit is not None and hit[0] == "node":  # whose require() follows links first
                path = self.files.resolve(path)
        own = Objects(self.files)
        key, program = self._kind(path, own)
        why: str | None = None
        if host.kind == "inferred":
            word, why = hit or ("plain", "a C program that needs only libc, since the name tells no other host")
            host = host.but(kind="executable" if hit else "plain", target=word)
            if program:
                host, why = host.but(kind="inferred", target=name), "the file itself is a program"
        try:
            cells = tuple(self._cell(system, path, key, host, own) for system in self.systems)
        finally:
            for system in self.systems:
                for tree in system.trees:
                    tree.objects.leave()
            self.files.close()
        machine = machine_name(*key) if key is not None else None
        if key is not None and all(cell.outcome is None and cell.error is None for cell in cells):
            others = ", ".join(dict.fromkeys(one for system in self.systems for one in system.machines))
            gap = f"no system here is of machine {machine}, only of {others}"
            return Row(name, machine, host.target, why, (), gap, True)
        return Row(name, machine, host.target, why, cells, None)

    @staticmethod
    def _kind(path: str, own: Objects) -> tuple[tuple[int, int] | None, bool]:
        """(e_machine, EI_CLASS) of a file of this machine, None where it does not tell; whether it is a program."""
        try:
            elf = own.elf(path) if "/" in path else None
            return ((elf.machine, elf.class_), executable.is_program(elf)) if elf is not None else (None, False)
        except DlwhyError:
            return None, False

    def _cell(self, system: System, path: str, key: tuple[int, int] | None, host: Host, own: Objects) -> Cell:
        tree = system.tree(key)
        if not tree.loaders:
            wanted = MACHINES[key].interp if key in MACHINES else "loader of any machine that there is a row for"
            return _open(system, f"the loader: the system has no {wanted}")
        if key is not None and key not in tree.loaders:
            told = f"{system.name} is for {', '.join(system.machines)}, the file for {machine_name(*key)}"
            return _open(system, told).but(outcome=None, kind=None, because=told)
        if "/" in path:
            real = self.files.resolve(path)
            tree.objects.examine(own, *dict.fromkeys((path, os.path.normpath(path), real)))
        else:
            tree.objects.examine(own)
        options = self.options.but(interp=tree.loaders[key]) if key is not None else self.options
        try:
            program = self._program(tree, host)
            if isinstance(program, str):
                return self._stand_in(system, tree, path, host, options, program)
            question = ask_of([path], host, options, tree.objects, program)
            return _of_few(tree, _cell(system, question, model(question)))
        except UsageError:
            raise
        except DlwhyError as error:
            return _open(system, str(error)).but(outcome=None, kind=None, because=str(error), error=str(error))
        except Unknown as unknown:
            return _open(system, str(unknown))

    def _program(self, tree: Tree, host: Host) -> Program | str | None:
        """The program of a host as the system has it, or what is missing; None for a host that is no program of it."""
        if host.kind != "executable":
            return None
        try:
            search = (host.env or {}).get("PATH") or DEFAULT_PATH
            return executable.find(host.target, search, self.cwd, tree.objects)
        except UsageError:
            return f"its host: the system has no program {host.target}"
        except Unknown as unknown:
            return f"its host: {unknown}"

    def _stand_in(self, system: System, tree: Tree, path: str, host: Host, options: Options, gap: str) -> Cell:
        """What can be said without the host: what refuses the file in a C program of that system, whoever loads it.

        All else depends on what the host defines and has loaded, so that it stays undecided.
        """
        question = ask_of([f"now:{path}"], host.but(kind="plain", target="plain"), options, tree.objects)
        run = model(question)
        cell = _of_few(tree, _cell(system, question, run))
        if cell.outcome == UNDECIDED:
            return cell
        if cell.outcome == FAILS and run.steps and run.steps[0].stage in _WITHOUT_HOST:
            absent = gap.removeprefix("its host: ")
            assumed = f"{absent}: a C program stands for it, with the same C library and processor"
            return cell.but(basis=ASSUMED, assumptions=(*cell.assumptions, assumed))
        return _open(system, f"{gap}; {_seen(cell)}").but(
            unresolved=cell.unresolved, libc=cell.libc, libc_version=cell.libc_version
        )


def _of_few(tree: Tree, cell: Cell) -> Cell:
    """Say of a library that a small system lacks that it is one."""
    if cell.kind != "not-found" or not tree.small or "/" in (cell.object or "/"):
        return cell
    return cell.but(because=f"{cell.because}; this is a small system: a larger one of its release may have it")


def _seen(cell: Cell) -> str:
    """What a C program makes of the file, in a clause."""
    if cell.outcome == LOADS and not cell.unresolved:
        return "a C program there opens it"
    names = {one.symbol for one in cell.unresolved if one.symbol is not None}
    if cell.kind in (None, "undefined-symbol") and names and all(one.version is None for one in cell.unresolved):
        return "all else is there but symbols that it would have to define"
    return f"in a C program there: {cell.message or cell.because}"


def _open(system: System, gap: str) -> Cell:
    """An undecided cell, for want of a fact."""
    text = f"a fact is missing: {gap}"
    return Cell(system.name, UNDECIDED, None, "unknown", None, None, text, ASSUMED, (), (), None, None, None)


def _cell(system: System, question: Question, run: Run) -> Cell:
    """The cell of a process that was modelled: of its start when that fails, else of the one step."""
    settings = question.settings
    known = any(settings.libc.release)
    host = settings.program, settings.libc.name if known else None, settings.libc.text if known else None
    between = _between(settings.libc) if known and question.missing is None else ()
    startup = run.startup
    if startup.outcome != LOADS or not run.steps:
        basis = ASSUMED if startup.outcome == UNDECIDED or startup.assumptions or between else COMPUTED
        because = run.startup_because or ("it starts" if startup.outcome == LOADS else "")
        return Cell(
            system.name, startup.outcome, startup.message, run.startup_kind, run.startup_object, None, because, basis,
            (*startup.assumptions, *between), startup.unresolved, *host,
        )  # fmt: skip
    step = run.steps[0]
    assumed = (*startup.assumptions, *step.assumptions, *between)
    return Cell(
        system.name, step.outcome, step.message, step.kind, step.object, step.needed_by, step.because,
        ASSUMED if assumed else step.basis, assumed, step.unresolved, *host,
    )  # fmt: skip


def _between(libc: Glibc) -> tuple[str, ...]:
    """What is taken for granted of a release between those that were compared with real loaders."""
    release, measured = libc.release, libc.measured
    before = [one for one in measured if one < release]
    after = [one for one in measured if one > release]
    if release in measured or not before or not after:
        return ()
    texts = [".".join(map(str, one)) for one in (release, before[-1], after[0])]
    return (f"how {libc.name} {texts[0]} decides is taken from its sources: {texts[1]} and {texts[2]} were measured",)
