"""The start of a program under musl: from the kernel's execve to its entry point (ldso/dynlink.c, __dls3).

Every error is written to standard error at once, and the loader goes on; the first makes the exit status 127.
"""

from __future__ import annotations

from dlwhy.elf.constants import ET_DYN, PT_PHDR
from dlwhy.errors import DlwhyError, ElfError, FilesError
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.link_map import EXECUTABLE, LIBRARY
from dlwhy.loader.musl.dso import Dso, Tables
from dlwhy.loader.musl.mapping import Mapped, Refused, image_of_program, map_library
from dlwhy.loader.musl.memory import SIGSEGV
from dlwhy.loader.musl.process import queue
from dlwhy.loader.musl.releases import PORTS, strerror
from dlwhy.loader.startup import StartFailed
from dlwhy.loader.tls import Layout, Segment, StaticTls, round_up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.elf.file import Elf
    from dlwhy.loader.musl.process import MuslProcess

_SPACES = " \t\n\v\f\r"
_LEAST_ALIGN = 8
"""Alignment of a thread's record (MIN_TLS_ALIGN): a block is aligned to no less."""
_BELOW_ANY = 1 << 40


def start(process: MuslProcess, program: Elf | None, map_only: bool = False) -> None:
    """Load and relocate everything the program starts with; `program` is None for `plain`.

    With `map_only` it ends where everything is mapped. Raises `StartFailed`, `Death`, `Unknown`.
    """
    try:
        _map(process, program)
        if not map_only:
            _relocate(process)
    except ElfError as error:
        raise Unknown(f"what the kernel makes of {error}", "map") from None
    except Death as death:
        written = [one.text for one in process.lines]
        death.message = "\n".join(written) or None
        raise
    if process.lines and not (map_only and process.absent is not None):
        first = process.lines[0]
        text = "\n".join(one.text for one in process.lines)
        raise StartFailed(text, 127, first.because or first.text, first.kind, first.subject)
    process.started = True
    process.errno = 0
    assert process.program is not None
    if not map_only:
        for each in queue(process.program):
            process.check_constructors(each)
    process.program.searchlist.maps = list(process.base.maps)
    process.program.initfini = list(reversed(queue(process.program)))
    for one in process.base.maps:
        one.init_called = True


def _map(process: MuslProcess, program: Elf | None) -> None:
    settings = process.settings
    process.rtld = _loader(process)
    main = _program(process, program)
    process.program = main
    process.base.maps.append(main)
    if main.mapped is not None and main.mapped.tls is not None:
        process._reserve(main)  # noqa: SLF001 -- the loader's own two halves
    preload = "" if settings.secure else settings.env.get("LD_PRELOAD", "")
    for space in _SPACES:
        preload = preload.replace(space, ":")
    for name in preload.split(":"):
        if name:
            process.load_library(name, None, LIBRARY)  # one that fails is passed over without a word
    process.load_deps(main)
    for one in process.dsos:
        process.add_symbols(one)


def _loader(process: MuslProcess) -> Dso:
    """The loader itself, which is libc: it lies in memory already, relocated."""
    settings = process.settings
    elf = process.objects.elf(settings.interpreter)
    made = Dso(settings.interpreter, elf, "ldso", None)
    memory = image_of_program(elf.view, settings.interpreter, elf.loads, settings.page)
    dynamic = next((row for row in elf.phdrs if row[0] == 2), None)
    if dynamic is None:
        raise Unknown(f"what {settings.interpreter} is, a loader without a dynamic section", "map")
    made.memory = memory
    made.tables = Tables(memory, dynamic[3], process.libc.dynamic_tags)
    made.shortname = "libc.so"
    made.relocated = True
    made.deps = []
    made.bfs_built = True
    made.how = "the loader"
    return made


def _program(process: MuslProcess, program: Elf | None) -> Dso:
    """The program as the kernel mapped it, or as the loader does that was told to. Raises `StartFailed`, `Death`."""
    settings = process.settings
    made = Dso("", program, EXECUTABLE, None)
    by_path = "/" in settings.argv0 or settings.program is None
    made.program_name = settings.argv0 if by_path or settings.explicit else settings.program or ""
    if program is None:
        return made
    if settings.explicit:
        made.mapped = _explicit(process, made.program_name)
    else:
        made.mapped = _by_kernel(process, program)
    made.memory = made.mapped.memory
    made.tables = Tables(made.memory, made.mapped.dyn, process.libc.dynamic_tags)
    return made


def _explicit(process: MuslProcess, name: str) -> Mapped:
    """`LDSO PROGRAM`: the loader maps the program itself, and makes few words when it cannot."""
    settings = process.settings
    path = settings.program or ""
    try:
        view = process.objects.view(path)
    except FilesError as error:
        text = f"{settings.interpreter}: cannot load {name}: {strerror(error.errno)}"
        raise StartFailed(text, 1, f"{name} cannot be opened", "not-found", name) from None
    try:
        return map_library(view, name, settings, process.objects.grants, (0, 0))
    except Refused as refused:
        text = f"{settings.interpreter}: {name}: Not a valid dynamic program"
        raise StartFailed(text, 1, str(refused), "bad-header", name) from None


def _by_kernel(process: MuslProcess, program: Elf) -> Mapped:
    """What the kernel maps. Where it lies is told by PT_PHDR, else it is taken to lie where it was linked to."""
    rows = program.phdrs
    memory = image_of_program(program.view, program.path, program.loads, process.settings.page)
    told = next((row[3] for row in rows if row[0] == PT_PHDR), None)
    dynamic = next((row for row in reversed(rows) if row[0] == 2), None)
    if dynamic is None:
        raise memory.killed(SIGSEGV, "it has no PT_DYNAMIC, and the loader reads one through a null pointer")
    if told is None and program.type == ET_DYN:
        if dynamic[3] >= _BELOW_ANY:
            raise Unknown(f"what lies at {dynamic[3]:#x}, where the loader looks for the dynamic section", "map")
        raise memory.killed(SIGSEGV, "it has no PT_PHDR, so that the loader takes it to lie at address 0")
    phoff = program.phoff
    where = next((row[3] - row[2] + phoff for row in program.loads if row[2] <= phoff < row[2] + row[5]), None)
    if told is not None and where != told:
        raise Unknown(f"what lies where the loader takes {program.path} to be: its PT_PHDR does not tell", "map")
    tls = relro = None
    page = process.settings.page
    for row in rows:
        if row[0] == 7:
            tls = (row[3], row[5], row[6], row[7]) if row[6] else None
        elif row[0] == 0x6474E552:
            relro = (row[3] & -page, (row[3] + row[6]) & -page)
    return Mapped(memory, dynamic[3], tuple(rows), tls, relro or (0, 0), program.entry, textrel=False)


def _relocate(process: MuslProcess) -> None:
    _lay_out(process)
    process.static_count = process.tls_count
    process.relocate([*process.dsos[1:], process.dsos[0]] if process.dsos[0].tables is not None else process.dsos[1:])
    for one in process.dsos:
        if one.tls_id:
            process.copy_image(one)


def _lay_out(process: MuslProcess) -> None:
    """Every module of the start gets its place, one behind the other, and nobody else does (load_library, __dls3)."""
    end, align = 0, _LEAST_ALIGN
    above = process.machine.variant == 1
    gap = PORTS[process.machine.e_machine, process.machine.elf_class].gap
    offsets = []
    modules = [one for one in process.dsos if one.tls_id]
    for one in modules:
        assert one.mapped is not None
        assert one.mapped.tls is not None
        image, _, size, unit = one.mapped.tls
        if unit <= 0 or unit & unit - 1:
            raise Unknown(f"what a start makes of TLS aligned to {unit} in {one.shown}", "init")
        before = gap if one is process.program else end
        one.tls_offset, end = (_above if above else _below)(before, one is process.program, image, size, unit)
        one.tls = Segment(size, unit, image & unit - 1)
        one.static_since = "startup"
        offsets.append(one.tls_offset)
        align = max(align, unit)
    process.start_used = end
    process.static = StaticTls(Layout(tuple(offsets), end, align, end), process.machine.variant, None)


def _below(end: int, first: bool, image: int, size: int, unit: int) -> tuple[int, int]:
    """(distance of a module below the thread pointer, the same: where the next begins); `first` is the program's."""
    mask = unit - 1
    if first:
        end = size + (-(image + size) & mask)
    else:
        end += size + mask
        end -= end + image & mask
    return end, end


def _above(end: int, first: bool, image: int, size: int, unit: int) -> tuple[int, int]:  # noqa: ARG001 -- as _below
    """(distance of a module above the thread pointer, where it ends): TLS_ABOVE_TP."""
    offset = end + (image - end & unit - 1)
    return offset, offset + size


__all__ = ["Death", "DlwhyError", "Fault", "StartFailed", "round_up", "start"]
