"""From the words of a question to a process that can be modelled: steps, host, loader and release."""

from __future__ import annotations

import os

from dlwhy.api import Host, Options
from dlwhy.elf.machine import EM_X86_64, MACHINES, machine_name
from dlwhy.errors import DlwhyError, ElfError, UnsupportedError, UsageError
from dlwhy.files import Files
from dlwhy.hosts import executable
from dlwhy.hosts.known import KnownHost, inferred, known_host
from dlwhy.loader.faults import Unknown
from dlwhy.loader.glibc import glibc
from dlwhy.loader.host import (
    RTLD_DEEPBIND,
    RTLD_GLOBAL,
    RTLD_LAZY,
    RTLD_NODELETE,
    RTLD_NOLOAD,
    RTLD_NOW,
    ProcessSettings,
)
from dlwhy.loader.objects import Objects
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.elf.machine import Machine
    from dlwhy.hosts.executable import Standalone, Unstartable
    from dlwhy.loader.glibc import Glibc
    from dlwhy.loader.musl.releases import Musl
    from dlwhy.loader.objects import LoaderFacts

_NEWNS = 1 << 30
_FLAGS = {
    "now": RTLD_NOW, "lazy": RTLD_LAZY, "global": RTLD_GLOBAL, "local": 0, "deepbind": RTLD_DEEPBIND,
    "nodelete": RTLD_NODELETE, "noload": RTLD_NOLOAD, "newns": _NEWNS,
}  # fmt: skip
LOADER_VARIABLES = (
    "LD_LIBRARY_PATH", "LD_PRELOAD", "LD_AUDIT", "LD_BIND_NOW", "LD_BIND_NOT", "LD_DYNAMIC_WEAK", "LD_ORIGIN_PATH",
    "GLIBC_TUNABLES",
)  # fmt: skip
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where programs are looked for when nothing tells."""
_OVERRIDE = r"(?:glibc-)?2\.([0-9]+)$"


class Request(Record):
    """One parsed step."""

    text: str
    action: str
    """"open", "close", "sym" or "call"."""
    name: str
    mode: int
    """RTLD_* of an open; 0 where the host's own binding is to be used."""
    new_namespace: bool
    step: int
    """For close, sym and call: the step (from 1) whose handle is meant."""


class Question(Record):
    """Everything a model run needs. The environment may be exchanged to try a cure."""

    settings: ProcessSettings
    program: Elf | None
    requests: tuple[Request, ...]
    objects: Objects
    host_name: str
    inferred: str | None
    remarks: tuple[str, ...]
    known: KnownHost
    caller: str | None
    missing: str | None
    """A fact without which nothing can be said about this process; None when all are there."""
    shell: dict[str, str]
    """The loader's variables in this process's own environment: what a command printed for a shell starts from."""
    elsewhere: bool
    """Whether the process's directory was named, so that a shell has to go there first."""
    standalone: Standalone | None
    """What a statically linked host can load by itself; None for any other."""
    unstartable: Unstartable | None
    """Why the kernel refuses to start the program; None where it does not, as far as is known."""
    profile: str | None = None
    """The profile of the system that all this is asked of; None for this machine, or a sysroot of it."""


def parse_step(text: str) -> Request:
    """Return the parsed form of a STEP. Raises `UsageError`."""
    head, colon, rest = text.partition(":")
    if colon and head in ("close", "sym", "call"):
        number, _, name = rest.partition(":")
        if not number.isdecimal() or len(number) > 9 or int(number) < 1 or (head != "close") != bool(name):
            wanted = "close:N" if head == "close" else f"{head}:N:NAME"
            raise UsageError(f"step {text!r}: write {wanted}, N being the number of an earlier step")
        return Request(text, head, name, 0, False, int(number))
    if colon and head and all(word in _FLAGS for word in head.split("-")):
        words = head.split("-")
        if {"now", "lazy"} <= set(words) or {"global", "local"} <= set(words):
            raise UsageError(f"step {text!r}: {head} contradicts itself")
        mode = 0
        for word in words:
            mode |= _FLAGS[word]
        return Request(text, "open", rest, mode & ~_NEWNS, bool(mode & _NEWNS), 0)
    return Request(text, "open", text, 0, False, 0)


def mode_words(mode: int, new_namespace: bool) -> str:
    """Return a mode as words, e.g. "now-local"."""
    words = ["now" if mode & RTLD_NOW else "lazy", "global" if mode & RTLD_GLOBAL else "local"]
    words += [word for word in ("deepbind", "nodelete", "noload") if mode & _FLAGS[word]]
    return "-".join(words + (["newns"] if new_namespace else []))


def ask(steps: list[str], host: Host | None, options: Options, files: Files | None = None) -> Question:
    """Return the question, asked of `files`: by default those of this system or of the sysroot.

    Raises `UsageError`, `FilesError`, `ElfError`.
    """
    if options.sysroot is not None and not os.path.isdir(options.sysroot):
        raise UsageError(f"--sysroot {options.sysroot}: no such directory")
    if host is not None and host.captured is not None:
        return _ask_there(steps, host, options)
    files = files or Files(options.sysroot or "/")
    try:
        return _ask(steps, host, options, Objects(files))
    except DlwhyError:
        files.close()
        raise


def _ask_there(steps: list[str], host: Host, options: Options) -> Question:
    """The question of a process in a captured system: what it asks of that system, the profile tells."""
    from dlwhy.captured import captured

    there = captured(host, options, [one.name for one in map(parse_step, steps) if one.action == "open"])
    question = _ask(steps, there.host, there.options, Objects(there.files), there.program)
    return question.but(shell=there.profile.shell, profile=there.profile.name)


def ask_of(
    steps: list[str], host: Host | None, options: Options, objects: Objects, program: executable.Program | None = None
) -> Question:
    """Return the question, asked of objects that are there already, with the host's `program` if it was found.

    Raises as `ask`; the files of `objects` stay open.
    """
    return _ask(steps, host, options, objects, program)


def _ask(
    steps: list[str], host: Host | None, options: Options, objects: Objects, captured: executable.Program | None = None
) -> Question:
    """The question, asked of the files of `objects`; `captured` is the program of a process that was captured."""
    files = objects.files
    cwd = options.cwd or ("/" if files.root else os.getcwd())
    requests = [parse_step(step) for step in steps]
    for number, request in enumerate(requests, 1):
        if request.action != "open" and not request.step < number:
            raise UsageError(f"step {request.text!r}: step {request.step} does not come before it")
    remarks: list[str] = []
    why = None
    missing = None
    if host is None or host.kind == "inferred":
        given = host
        host, why, requests, missing = _infer(requests, cwd, objects)
        if given is not None:
            host = host.but(env=given.env, captured=given.captured, ours=given.ours)
        if host.kind == "executable" and missing is None and "/" not in host.target:
            try:
                captured = executable.find(host.target, _path_of(host, files), cwd, objects)
            except UsageError:
                missing = f"its host: no program named {host.target} is on PATH (name one with --host)"
            except Unknown as unknown:
                missing = str(unknown)
    env = dict(os.environ if host.env is None else host.env)
    alone: Standalone | None = None
    program, argv0, path = None, host.target, None
    if host.kind != "plain" and missing is None:
        try:
            found = captured or executable.find(host.target, _path_of(host, files), cwd, objects)
            argv0, path = found.argv0, found.path
            remarks += found.remarks
            env.update(found.env)
            program, alone = _program(host, path, objects, options)
        except Unknown as unknown:
            missing = str(unknown)
    if program is None and why is not None:
        options = _as_opened(requests, cwd, objects, options)
    settings, gap = _settings(program, path, argv0, env, cwd, objects, options)
    refused = executable.unstartable(program, objects) if program is not None and options.loader is None else None
    gap = gap if refused is None else None
    # glibc elf/rtld.c, process_envvars: whatever its value
    if "LD_TRACE_LOADED_OBJECTS" in env and alone is None and settings.libc.traces:
        gap = gap or "a process: with LD_TRACE_LOADED_OBJECTS set the loader lists objects and starts no program"
    return Question(
        settings, program, tuple(requests), objects, host.target, why, tuple(remarks), known_host(path), options.caller,
        missing or gap, {name: os.environ[name] for name in LOADER_VARIABLES if name in os.environ},
        options.cwd is not None, alone, refused,
    )  # fmt: skip


def _program(host: Host, path: str, objects: Objects, options: Options) -> tuple[Elf, Standalone | None]:
    """The program of the host, and what it loads by itself when no loader takes part in its start."""
    program = objects.elf(path)
    if not _has_interpreter(program) and not executable.is_program(program):
        raise UsageError(f"host {host.target!r}: {path} is a library, not a program")
    alone = options.loader is None and not _has_interpreter(program)
    return program, executable.standalone(program) if alone else None


def _has_interpreter(program: Elf) -> bool:
    try:
        return program.interp is not None
    except ElfError:  # there is one, and it is none that the kernel takes
        return True


def _path_of(host: Host, files: Files) -> str:
    """Where a host without a slash is looked up: PATH of its environment, else of this process, else the usual."""
    own = None if files.root or host.captured is not None else os.environ.get("PATH")
    return (host.env or {}).get("PATH") or own or DEFAULT_PATH


def _infer(requests: list[Request], cwd: str, objects: Objects) -> tuple[Host, str, list[Request], str | None]:
    """The host when none is named: by what the files are."""
    opens = [request for request in requests if request.action == "open"]
    if len(requests) == 1 and opens and opens[0].mode == 0 and not opens[0].new_namespace:
        name = opens[0].name
        path = name if name.startswith("/") else f"{cwd.rstrip('/')}/{name}"
        if "/" in name:
            try:
                elf = objects.elf(path)
                if executable.is_program(elf):
                    return Host("executable", name, None), "the file itself is a program", [], None
            except (DlwhyError, Unknown):
                pass
    found = next((hit for hit in (inferred(request.name) for request in opens) if hit is not None), None)
    made = []
    for request in requests:
        name = request.name
        relative = request.action == "open" and name and not name.startswith("/")
        here = f"{cwd.rstrip('/')}/{name}"
        if relative and ("/" in name or (inferred(name) is not None and surely_there(here, objects))):
            name = os.path.normpath(here)
            if found is not None and found[0] == "node":
                name = _followed(name, objects)
        made.append(request.but(name=name))
    if found is None:
        return (
            Host("plain", "plain", None),
            "a C program that needs only libc, since the name tells no other host",
            made,
            None,
        )
    return Host("executable", found[0], None), found[1], made, None


def surely_there(path: str, objects: Objects) -> bool:
    """Whether a file is there, beyond doubt: of a captured system that may not be known."""
    try:
        return objects.files.exists(path)
    except Unknown:
        return False


def _followed(name: str, objects: Objects) -> str:
    """The path that Node's require() opens: links are followed first, if they can be (node lib, Module._findPath)."""
    try:
        return objects.files.resolve(name)
    except (DlwhyError, Unknown):
        return name


def _settings(
    program: Elf | None, path: str | None, argv0: str, env: dict[str, str], cwd: str, objects: Objects, options: Options
) -> tuple[ProcessSettings, str | None]:
    """The loader, its release and what the process starts with; with the fact that is missing, if one is."""
    gap: str | None = None
    explicit = options.loader is not None
    row: Machine | None
    if program is not None:
        row = program.row
        if row is None:
            name = machine_name(program.machine, program.class_)
            row = MACHINES[EM_X86_64, 2].but(e_machine=program.machine, name=name)  # nothing is computed with it
            gap = f"how {name} loads {program.path}: no row of data covers that machine"
        try:
            interpreter = options.loader or program.interp
        except ElfError as error:
            interpreter, gap = row.interp, gap or f"how the kernel starts {error}"
    else:
        row = _plain_machine(objects, options)
        interpreter = options.loader or options.interp or _loader_of(row, objects)
    if interpreter is None:  # statically linked
        bare = ProcessSettings(
            path, argv0, env, cwd, options.secure, row, glibc((0, 0)), "", None, False, row.page, 0, (0, 0)
        )
        return bare, gap
    if explicit and not interpreter.startswith("/"):
        interpreter = f"{cwd.rstrip('/')}/{interpreter}"
    release, banner, strings = None, None, b""
    own: Musl | None = None
    try:
        facts = objects.loader_facts(interpreter)
        release, banner, strings = facts.release, facts.banner, facts.strings
        if facts.elf.machine != row.e_machine:
            gap = (
                gap
                or f"a loader for {row.name}: {interpreter} is for {machine_name(facts.elf.machine, facts.elf.class_)}"
            )
        own = _musl(facts)
        if release is None and own is None:
            directories = [*(options.library_path or "").split(":"), *facts.directories]
            for directory in directories:
                told = objects.libc_release(f"{directory.rstrip('/')}/libc.so.6") if directory else None
                if told is not None:
                    release, banner = told
                    break
    except DlwhyError as error:
        gap = gap or f"the loader: {error}"
    except Unknown as unknown:
        gap = gap or str(unknown)
    personality: Glibc | Musl
    if own is not None or (options.libc or "").startswith("musl-"):
        personality, unread = _musl_release(own, options.libc, strings, row, interpreter)
    else:
        personality, unread = _glibc_release(release, banner, strings, options.libc, interpreter, objects)
    gap = gap or unread
    if options.cpu is not None:
        from dlwhy.loader.cpu import refused
        from dlwhy.loader.processors import names_of

        names = names_of(row.e_machine)
        if names and options.cpu not in names:
            raise UsageError(f"--cpu {options.cpu}: of {row.name}, write {', '.join(names[:-1])} or {names[-1]}")
        gap = gap or refused(options.cpu, strings, interpreter)
    known = known_host(path)
    settings = ProcessSettings(
        path, argv0, env, cwd, options.secure, row, personality,  # type: ignore[arg-type]  # of the same shape
        interpreter, options.library_path, explicit, row.page, known.binding, (28, 32), options.cpu,
    )  # fmt: skip
    return settings, gap


def _glibc_release(
    release: tuple[int, int] | None,
    banner: str | None,
    strings: bytes,
    override: str | None,
    interpreter: str,
    objects: Objects,
) -> tuple[Glibc, str | None]:
    """The release of glibc that files tell or that was named, and what is not known of it. Raises `UsageError`.

    It is made once for all questions of one run: what was checked of a file for it is not checked again.
    """
    gap = None
    if override is not None:
        import re

        match = re.match(_OVERRIDE, override)
        if match is None:
            raise UsageError(f"--libc {override}: write a release such as glibc-2.31 or musl-1.2.3")
        release, banner = (2, int(match[1])), None
    if release is None:
        gap = f"the C library's release: neither {interpreter} nor a libc.so.6 beside it tells one"
    key = release, banner, interpreter
    personality = objects.releases.get(key)
    if personality is None or personality.strings is not strings:
        personality = objects.releases[key] = glibc(release or (0, 0), banner, strings)
    if release is not None and not personality.known:
        gap = f"how glibc {personality.text} decides: its sources were not read (2.17 to 2.43 were)"
    return personality, gap


def _musl(facts: LoaderFacts) -> Musl | None:
    """The release of musl, when this loader is musl's; None for any other loader."""
    if b"musl libc (" not in facts.strings:  # nearly all are glibc's, and need no more than this look
        return None
    from dlwhy.loader.musl.releases import musl, told

    found = told(facts.strings)
    return musl(*found, facts.strings) if found is not None else None


def _musl_release(
    own: Musl | None, override: str | None, strings: bytes, row: Machine, interpreter: str
) -> tuple[Musl, str | None]:
    """The release of musl that the loader tells or that was named, and what is not known of it. Raises `UsageError`."""
    from dlwhy.loader.musl.releases import NEWEST, OLDEST, PORTS, musl

    if override is not None:
        import re

        match = re.match(r"musl-([0-9]+)\.([0-9]+)\.([0-9]+)$", override)
        if match is None:
            raise UsageError(f"--libc {override}: write a release such as musl-1.2.3, for musl's loader")
        release = int(match[1]), int(match[2]), int(match[3])
        own = musl(release, override.removeprefix("musl-"), strings) if own is not None else None
    if own is None:
        raise UsageError(f"--libc {override}: {interpreter} is no loader of musl's (--loader names another)")
    if not own.text:
        return own, f"the release of musl: {interpreter} does not tell it"
    if not own.known:
        read = " to ".join(".".join(map(str, one)) for one in (OLDEST, NEWEST))
        return own, f"how musl {own.text} decides: its sources were not read ({read} were)"
    port = PORTS.get((row.e_machine, row.elf_class))
    if port is None or not port.relocations:
        compared = " and ".join(MACHINES[key].name for key, one in PORTS.items() if one.relocations)
        return own, f"musl's rules on {row.name}: only {compared} were compared with real loaders so far"
    return own, None


def alone(path: str, env: dict[str, str], objects: Objects, options: Options) -> tuple[ProcessSettings, str | None]:
    """Return the process in which the loader is started with one file, a library or a program, as ldd does.

    `path` is absolute. The second value is a fact that is missing. Raises `UsageError`, `FilesError`, `ElfError`.
    """
    elf = objects.elf(path)
    try:
        interpreter = elf.interp
    except ElfError:  # nobody asks the kernel to start it
        interpreter = None
    if interpreter is None or not objects.files.exists(interpreter):
        interpreter = _loader_of(elf.row, objects) if elf.row is not None else None
    loader = options.loader or interpreter
    cwd = options.cwd or ("/" if objects.files.root else os.getcwd())
    return _settings(elf, path, path, env, cwd, objects, options.but(loader=loader))


def _as_opened(requests: list[Request], cwd: str, objects: Objects, options: Options) -> Options:
    """Let an inferred `plain` be of the machine of what is opened first by its path, where there is a loader for it."""
    names = [request.name for request in requests if request.action == "open" and "/" in request.name]
    if options.loader is not None or options.interp is not None or not names:
        return options
    try:
        row = objects.elf(names[0] if names[0].startswith("/") else f"{cwd.rstrip('/')}/{names[0]}").row
    except DlwhyError:
        return options
    return options.but(interp=row.interp) if row is not None and surely_there(row.interp, objects) else options


def _plain_machine(objects: Objects, options: Options) -> Machine:
    loader = options.loader or options.interp
    if loader is not None:
        elf = objects.elf(loader)
        if elf.row is not None:
            return elf.row
        raise UnsupportedError(f"{loader}: no row of data covers {machine_name(elf.machine, elf.class_)}")
    for row in MACHINES.values():
        if surely_there(row.interp, objects):
            return row
    for row in MACHINES.values():
        if surely_there(_other_loader(row) or row.interp, objects):
            return row
    return MACHINES[EM_X86_64, 2]


def _other_loader(row: Machine) -> str | None:
    """Where musl's loader of a machine is; None for a machine that it was not ported to."""
    from dlwhy.loader.musl.releases import PORTS

    port = PORTS.get((row.e_machine, row.elf_class))
    return port.interp if port is not None else None


def _loader_of(row: Machine, objects: Objects) -> str:
    """The loader of a program that names none: the psABI's, or musl's where that is the only one."""
    other = None if surely_there(row.interp, objects) else _other_loader(row)
    return other if other is not None and surely_there(other, objects) else row.interp
