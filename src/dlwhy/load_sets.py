"""`unresolved`: what the references of load sets do not find, file by file, with everything that was read shared.

Each file is the program of a process of its own, as ldd has the loader start it: what is not found is passed over, and
nothing else is there than what the file needs, and what the environment preloads.
"""

from __future__ import annotations

import os

from dlwhy.errors import DlwhyError, ElfError, UsageError
from dlwhy.files import Files
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.mapping import OTHER_CLASS, check_hash, check_segments, verify
from dlwhy.loader.objects import Objects
from dlwhy.loader.startup import StartFailed
from dlwhy.loader.unresolved import Gap, Tables, gaps
from dlwhy.question import alone
from dlwhy.report import DIES, FAILS, LOADS, UNDECIDED, Unresolved, UnresolvedReport
from dlwhy.verdict import begin
from dlwhy.walk import walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlwhy.api import Options
    from dlwhy.loader.host import ProcessSettings
    from dlwhy.loader.process import Process


def unresolved(files: list[str], env: dict[str, str], options: Options) -> Iterator[UnresolvedReport]:
    """Yield the report of every file; directories and archives are walked. Raises `UsageError`."""
    if options.sysroot is not None and not os.path.isdir(options.sysroot):
        raise UsageError(f"--sysroot {options.sysroot}: no such directory")
    sets = _LoadSets(env, options)
    try:
        yield from walk(files, options, sets.examine, _refused)
    finally:
        sets.objects.files.close()


def _refused(name: str, error: str) -> UnresolvedReport:
    return UnresolvedReport(name, UNDECIDED, None, (), (), (), error)


class _LoadSets:
    """What is shared by the load sets of one run."""

    def __init__(self, env: dict[str, str], options: Options) -> None:
        self.env, self.options = env, options
        self.objects = Objects(Files(options.sysroot or "/"))
        self.tables = Tables()
        self.settings: dict[tuple[int, int, str | None], tuple[ProcessSettings, str | None]] = {}
        """(machine, class, PT_INTERP) -> the process that such a file starts in, and a fact that is missing."""
        self.cwd = options.cwd or ("/" if options.sysroot else os.getcwd())

    def examine(self, name: str, path: str) -> UnresolvedReport:
        """Return the report of one file, which the process knows by `path`."""
        absolute = path if path.startswith("/") else f"{self.cwd.rstrip('/')}/{path}"
        try:
            settings, gap = self._settings(absolute)
        except UsageError:
            raise
        except DlwhyError as error:
            return _refused(name, str(error))
        if gap is not None:
            return _refused(name, f"{name}: a fact is missing: {gap}")
        process, start = begin(settings.but(program=absolute, argv0=path), self.objects)
        process.absent = set()
        found: list[Gap] = []
        outcome, because = LOADS, None
        try:
            if process.tells_all:
                found = process.gaps
                start(process, self.objects.elf(absolute))
            else:
                self._take(process, absolute, path, start)
                assert process.program is not None
                among = [one for one in process.program.searchlist.maps if one is not process.rtld]
                gaps(process, among, False, found, self.tables)
        except (StartFailed, Fault) as end:
            outcome = FAILS
            if not process.tells_all or not (found or process.absent):
                because = end.message if isinstance(end, Fault) else str(end)
        except Death as end:
            outcome, because = DIES, end.because
        except Unknown as end:
            outcome, because = UNDECIDED, f"a fact is missing: {end}"
        except DlwhyError as error:
            return _refused(name, str(error))
        if outcome == LOADS and (found or process.absent):
            outcome = FAILS
        loaded = tuple(one.shown for one in process.base.maps)
        listed = tuple([Unresolved(*one) for one in dict.fromkeys(map(tuple, found))])
        return UnresolvedReport(name, outcome, because, loaded, tuple(sorted(process.absent)), listed, None)

    def _settings(self, path: str) -> tuple[ProcessSettings, str | None]:
        elf = self.objects.elf(path)
        try:
            key = elf.machine, elf.class_, elf.interp
        except ElfError:  # nobody asks the kernel to start it
            key = elf.machine, elf.class_, None
        made = self.settings.get(key)
        if made is None:
            made = self.settings[key] = alone(path, self.env, self.objects, self.options)
        return made

    def _take(self, process: Process, absolute: str, path: str, start: Callable[..., None]) -> None:
        """Map the file as the loader maps the program that it is given, and what it needs. Raises the loader's ends."""
        view = self.objects.view(absolute)
        try:
            verdict = verify(view, path, process.settings, lambda: self.objects.elf(absolute))
        except Fault as fault:
            if fault.kind != "not-a-library":  # which the program may be
                raise
            verdict = None
        if verdict is not None:
            text = "wrong ELF class: ELFCLASS32" if verdict == OTHER_CLASS else "cannot open shared object file"
            raise Fault("not-found", "search", text, path, 0 if verdict == OTHER_CLASS else 2)
        elf = self.objects.elf(absolute)
        check_segments(elf, path, process.settings, self.objects.grants, False, True)
        check_hash(elf, process.settings)
        start(process, elf, map_only=True)
