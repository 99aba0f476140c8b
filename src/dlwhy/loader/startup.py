"""The start of a program: from the kernel's execve to the loader's jump to its entry point (glibc elf/rtld.c)."""

from __future__ import annotations

from errno import ENOENT

from dlwhy.elf.constants import DT_AUDIT, DT_DEPAUDIT, ET_DYN, PT_DYNAMIC, PT_PHDR
from dlwhy.elf.symbols import gnu_hash
from dlwhy.errors import DlwhyError, ElfError
from dlwhy.loader.bind import check_versions
from dlwhy.loader.dependencies import map_dependencies
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.host import RTLD_NOW
from dlwhy.loader.image import SIGSEGV
from dlwhy.loader.link_map import EXECUTABLE, LIBRARY, LinkMap
from dlwhy.loader.mapping import died_reading, wants_execstack
from dlwhy.loader.process import TOO_NEW

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.process import Namespace, Process

_LOADER_DATA = b"_rtld_global_ro"
_SECURE_NAME_LIMIT = 255
"""Bytes from which on a name in LD_PRELOAD or LD_AUDIT is too long in secure mode (elf/rtld.c)."""
_BELOW_ANY = 1 << 40
"""Nothing is mapped below, by default: the kernel's lowest place for a program is 0x555555554000 (ELF_ET_DYN_BASE)."""


class StartFailed(Exception):
    """The program does not start: what is written to standard error, and the exit status."""

    def __init__(self, message: str | None, status: int, because: str, kind: str, object_: str | None) -> None:
        super().__init__(because)
        self.message, self.status, self.because, self.kind, self.object = message, status, because, kind, object_


def start(process: Process, program: Elf | None, map_only: bool = False) -> None:
    """Load and relocate everything the program starts with. `program` is None for `plain`.

    With `map_only` it ends where everything is mapped: nothing that follows has a part in what is found where.
    Raises `StartFailed`, `Death`, `Unknown`.
    """
    settings = process.settings
    try:
        laid_out = _map(process, program)
        if not map_only:
            _finish(process, laid_out)
    except Fault as fault:
        occasion = fault.at_startup(settings.argv0)
        raise StartFailed(
            occasion, 127, fault.because or fault.text, fault.kind, fault.subject or fault.object
        ) from None
    process.started = True
    for one in process.base.maps:
        one.init_called = True


def _map(process: Process, program: Elf | None) -> bool:
    """Map everything; return whether the static TLS is laid out already, as it is for auditors before all else."""
    settings, space = process.settings, process.base
    main = _main_map(process, program)
    main.program_name = settings.argv0
    main.scopes = [main.searchlist]
    if settings.program is not None and settings.explicit:  # found by the loader, like any other object
        main.origin = settings.program.rpartition("/")[0] or "/"
    elif settings.program is not None:
        main.origin = process.objects.files.resolve(settings.program).rpartition("/")[0] or "/"
    process.program = main
    process.execstack = program is not None and wants_execstack(program, settings)
    if not process.libc.execstack_by_dlopen:
        if process.execstack and process.execstack_mode == 0:
            text = "Fatal glibc error: executable stack is not allowed"
            why = "the program asks for an executable stack, and glibc.rtld.execstack forbids it"
            raise StartFailed(text, 127, why, "execstack", None)
        process.execstack |= process.execstack_mode == 2

    facts = process.objects.loader_facts(settings.interpreter)
    rtld = LinkMap(settings.interpreter, settings.interpreter, facts.elf, LIBRARY, None)
    rtld.program_name = settings.argv0
    # no identity: the loader never looks at its own inode, so its file under another name is mapped a second time
    if rtld.soname is not None:
        rtld.add_name(rtld.soname)
    rtld.relocated = True
    rtld.scopes = [main.searchlist]
    process.rtld = rtld
    space.maps.append(rtld)

    auditors = _audit_names(process, program)
    early = bool(auditors) or (process.libc.audit_by_string and bool(process.settings.env.get("LD_AUDIT")))
    if early:
        from dlwhy.loader.placing import lay_out_tls

        lay_out_tls(process, len(auditors))
        process.finder.remembers = False
        for name in auditors:
            _load_auditor(process, name)
        process.finder.remembers = True
    preloads = _preload(process, main)
    map_dependencies(process, main, preloads, 0, space, False)
    for one in main.searchlist.maps:
        one.global_ = True
    _place_rtld(space, main, rtld)
    return early


def _main_map(process: Process, program: Elf | None) -> LinkMap:
    """The program's link map, with what is read of any program: dynamic section and DT_SONAME (elf/rtld.c, dl_main).

    Raises `Death`, `Unknown`.
    """
    try:
        if program is not None and not process.settings.explicit:
            _check_load_address(program)
        made = LinkMap("", "", program, EXECUTABLE, None)
        process._join_namespace(made, process.base)  # noqa: SLF001 -- the loader's own two halves
        process.read_properties(made)
    except ElfError as error:
        raise died_reading(error, "map") from None
    return made


def _check_load_address(program: Elf) -> None:
    """Raise how it ends when the loader takes a program that the kernel mapped to lie elsewhere than it does.

    Where it lies is told by PT_PHDR, against the address of the headers that the kernel hands over, and by nothing
    else: without one before PT_DYNAMIC it is taken to lie where it was linked to (elf/rtld.c, rtld_setup_main_map).
    """
    told = dynamic = None
    for row in program.phdrs:
        if row[0] == PT_PHDR:
            told = row[3]
        elif row[0] == PT_DYNAMIC:
            dynamic = row[3]
            break
    if dynamic is None or (told is None and program.type != ET_DYN):
        return
    if told is None:
        if dynamic >= _BELOW_ANY:
            raise Unknown(f"what lies at {dynamic:#x}, where the loader looks for the dynamic section", "map")
        why = "no PT_PHDR stands before PT_DYNAMIC, so the loader looks for it at address 0"
        because = f"{program.path}: {why}: the process is killed by SIGSEGV"
        raise Death("signal", "map", because, None, -SIGSEGV, program.path)
    phoff = program.phoff
    where = next((row[3] - row[2] + phoff for row in program.loads if row[2] <= phoff < row[2] + row[5]), None)
    if where != told:
        raise Unknown(f"what lies where the loader takes {program.path} to be: its PT_PHDR does not tell", "map")


def _finish(process: Process, laid_out: bool) -> None:
    """Check the versions, lay out static TLS unless auditors had it laid out before, relocate."""
    from dlwhy.loader.placing import initialise_tls, lay_out_tls  # `tree` maps, and comes to none of it
    from dlwhy.loader.resolving import relocate

    space, main = process.base, process.program
    assert main is not None
    _check_versions(process)
    if not laid_out:
        lay_out_tls(process, 0)
    for one in reversed(main.initfini):
        lacks = process.lacks_level(one)
        if lacks is not None:  # _rtld_main_check
            raise StartFailed(f"{one.shown}: {TOO_NEW}", 127, lacks, "isa-level", one.shown)
    order = [one for one in reversed(main.initfini) if not one.relocated]
    if process.libc.libc_relocated_first and space.libc is not None:
        order = [space.libc, *(one for one in order if one is not space.libc)]
    relocate(process, order, not process._bind_now(), space, 0)  # noqa: SLF001
    for one in space.maps:
        initialise_tls(process, one)
    _one_loader(process)


def _one_loader(process: Process) -> None:
    """Raise `Unknown` where libc was bound to the data of a copy of the loader that does not run.

    A file of the loader's under another name is mapped once more, and preloaded it comes first in the scope. Nobody has
    filled in what libc then reads in `_rtld_global_ro`: 2.36, 2.41 and 2.43 divide by a zero of it, before
    any constructor (sysdeps/nptl/pthread_early_init.h, __pthread_early_init; nptl/nptl-stack.h).
    """
    rtld = process.rtld
    assert process.program is not None
    assert rtld is not None
    for one in process.program.searchlist.maps:
        if one is rtld or process.base.libc is None:
            break
        if one.elf is None or one.soname is None or one.soname != rtld.soname:
            continue
        if one.elf.symbols.look_up({_LOADER_DATA: gnu_hash(_LOADER_DATA)}).get(_LOADER_DATA):
            raise Unknown(f"what libc makes of {_LOADER_DATA.decode()} in {one.shown}, a loader that does not run")


def _check_versions(process: Process) -> None:
    """Check the versions of every object: what is missing is told line by line, and only then ends the start."""
    settings, space = process.settings, process.base
    lines: list[str | Fault] = []

    def told(*last: str) -> str:
        """All from the first fault on, as one message; what came before it are notices."""
        first = next((i for i, one in enumerate(lines) if isinstance(one, Fault)), len(lines))
        process.notices += [one for one in lines[:first] if isinstance(one, str)]
        rest = (one if isinstance(one, str) else f"{settings.argv0}: {one.object}: {one.text}" for one in lines[first:])
        return "\n".join([*rest, *last])

    for one in list(space.maps):
        if one.elf is None:
            continue
        try:
            check_versions(one, space.maps, process.libc, settings.argv0, lines)
        except Fault as fault:
            text = told(fault.at_startup(settings.argv0))
            subject = fault.subject or fault.object
            raise StartFailed(text, 127, fault.because or fault.text, fault.kind, subject) from None
        except Death as death:
            death.message = (told() if death.message is None else told(death.message)) or None
            raise
        one.versions_checked = True
    text = told()
    missing = next((one for one in lines if isinstance(one, Fault)), None)
    if missing is not None:
        raise StartFailed(text, 1, missing.because, missing.kind, missing.subject)


def _place_rtld(space: Namespace, main: LinkMap, rtld: LinkMap) -> None:
    """Put ld.so where the search list has it; out of the list when nothing needs it."""
    space.maps.remove(rtld)
    space.known.clear()
    listed = main.searchlist.maps
    if rtld in listed[1:]:
        before = listed[listed.index(rtld) - 1]
        space.maps.insert(space.maps.index(before) + 1, rtld)


def _preload(process: Process, main: LinkMap) -> list[LinkMap]:
    settings = process.settings
    text = settings.env.get("LD_PRELOAD", "")
    found: list[LinkMap] = []
    for name in text.replace(" ", ":").split(":"):
        if name and _valid(process, name):
            _preload_one(process, main, name, "LD_PRELOAD", found)
    try:
        view = process.objects.view("/etc/ld.so.preload")
        content = view.some(0, view.size).decode("utf-8", "surrogateescape")
    except DlwhyError:
        content = ""
        process.finder.open_error = ENOENT  # which the question for the file leaves behind
    for line in content.splitlines():
        for name in line.partition("#")[0].replace(":", " ").replace("\t", " ").split(" "):
            if name:
                _preload_one(process, main, name, "/etc/ld.so.preload", found)
    return found


def _valid(process: Process, name: str) -> bool:
    """dso_name_valid_for_suid (elf/rtld.c): in secure mode only short names without a slash count."""
    return not process.settings.secure or (len(name) < _SECURE_NAME_LIMIT and "/" not in name)


def _preload_one(process: Process, main: LinkMap, name: str, source: str, found: list[LinkMap]) -> None:
    loaded = len(process.base.maps)
    process.guarded = process.settings.secure
    try:
        expanded = process.finder.expand(name, main)
        process.map_object(expanded if expanded is not None else name, main, LIBRARY, 0, process.base, False, main)
    except Fault as fault:
        process.notices.append(
            f"ERROR: ld.so: object '{name}' from {source} cannot be preloaded ({fault.text}): ignored."
        )
        return
    finally:
        process.guarded = False
    found += process.base.maps[loaded:]


def _audit_names(process: Process, program: Elf | None) -> list[str]:
    names = [name for name in process.settings.env.get("LD_AUDIT", "").split(":") if name and _valid(process, name)]
    if program is not None and program.dynamic is not None and process.libc.depaudit:
        for tag in (DT_AUDIT, DT_DEPAUDIT):
            if tag in program.dynamic.tags:
                names += [name for name in program.dynamic.string(program.dynamic.tags[tag]).split(":") if name]
    return list(dict.fromkeys(names))


def _load_auditor(process: Process, name: str) -> None:
    """Load one auditor into a namespace of its own (elf/rtld.c, load_audit_module)."""
    space = process.new_namespace(name)
    process.guarded = process.settings.secure
    try:
        handle = process.dlopen(name, RTLD_NOW, process.program, 0, space)
        assert handle is not None
        process.dlsym(handle, "la_version")
        process.guarded = False
        process.auditors += 1
        process.profiling |= any(_defines(process, handle, one) for one in process.libc.auditor_profiles)
    except Fault as fault:
        process.guarded = False
        if space.maps:
            if process.auditors and process.libc.audit_unload_dies:
                why = f"{name} is refused as an auditor, and unloading it beside another one kills the loader"
                raise Death("signal", "none", why, None, -11, name) from None
            for one in space.maps:
                one.opened = 0
            from dlwhy.loader.closing import collect

            collect(process, space)
        text = f"ERROR: ld.so: object '{name}' cannot be loaded as audit interface: {fault.text}; ignored."
        process.notices.append(text)


def _defines(process: Process, handle: LinkMap, name: str) -> bool:
    try:
        process.dlsym(handle, name)
    except Fault:
        return False
    return True


__all__ = ["Death", "ElfError", "StartFailed", "Unknown", "died_reading", "start"]
