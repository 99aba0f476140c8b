"""What lazy binding left open: functions that nothing defines, and whether they are called when an object is opened.

A lazy dlopen succeeds with them; their first call ends the process (glibc elf/dl-runtime.c, _dl_fixup).
"""

from __future__ import annotations

from dlwhy.elf.constants import DT_INIT, DT_INIT_ARRAY, DT_INIT_ARRAYSZ
from dlwhy.elf.relocs import of_types, tables
from dlwhy.errors import DlwhyError
from dlwhy.loader.bind import Lookup, resolve
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.resolving import open_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.loader.bind import Definition
    from dlwhy.loader.link_map import LinkMap
    from dlwhy.loader.process import Process

    Slots = dict[int, tuple[str, Fault | Death]]

_MOST_CONSTRUCTORS = 4096
_STT_NOTYPE, _STT_FUNC = 0, 2


def left_open(process: Process, of: LinkMap) -> Slots:
    """Return slot -> (name, what its first call comes to) of what lazy binding left and nothing defines.

    Raises `ElfError` when the object's tables leave its file.
    """
    if process.slots_left_open is not None:
        return process.slots_left_open(of)
    elf, kind = of.elf, process.machine.jump_slot
    if elf is None or open_call(process, [of]) is None:
        return {}
    lookup = Lookup(process.machine, process.libc, process.namespaces[of.namespace].unique)
    result: Slots = {}
    for relocation, table in of_types(elf, (kind,)):
        if table == "DT_JMPREL":
            try:
                resolve(of, relocation.symbol, kind, process.machine, lookup)
            except (Fault, Death) as end:
                name = elf.symbols.symbol(relocation.symbol).name.decode("utf-8", "surrogateescape")
                result[relocation.offset] = (name, end)
    return result


def _open_call(process: Process, among: list[LinkMap]) -> tuple[LinkMap, bytes] | None:
    """Return (object, name) of the first call that was left to these objects and that would be the end."""
    if process.slots_left_open is None:
        return open_call(process, among)
    for one in among:
        for name, _ in process.slots_left_open(one).values():
            return one, name.encode("utf-8", "surrogateescape")
    return None


def constructors(process: Process, new: list[LinkMap]) -> tuple[str, ...]:
    """Return what must be assumed of the constructors of these new objects, if they are to return.

    Raises `Death` when one of them surely calls a function that nothing defines.
    """
    assumed: list[str] = []
    try:
        if _open_call(process, new) is None:
            return ()
    except DlwhyError:
        return ()
    process.open_calls = True
    for one in new:
        try:
            slots = left_open(process, one)
            starts = list(starts_of(one)) if slots else []
        except DlwhyError:
            continue
        if slots:
            assumed += _of_one(process, one, slots, starts)
    return tuple(assumed)


def _of_one(process: Process, one: LinkMap, slots: Slots, starts: list[int | None]) -> list[str]:
    from dlwhy.attribute.calls import calls

    assert one.elf is not None
    names = {slot: name for slot, (name, _) in slots.items()}
    doubtful: dict[str, None] = {}
    for start in starts:
        made = calls(one.elf, start, names) if start is not None else None
        if made is None:
            doubtful[next(iter(names.values()))] = None
        elif made.surely is not None:
            raise _death(process, one, slots, made.surely, f"a constructor of {one.shown}", "init")
        else:
            doubtful.update(dict.fromkeys(made.perhaps))
    return [
        f"no constructor of {one.shown} calls {name}, which nothing defines; lazy binding waits for the first call"
        for name in doubtful
    ]


def starts_of(of: LinkMap) -> Iterator[int | None]:
    """The addresses of an object's constructors in the order of their calls; None for one that cannot be told."""
    elf = of.elf
    assert elf is not None
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    if DT_INIT in tags:
        yield tags[DT_INIT]
    word = elf.layout.word
    count = tags.get(DT_INIT_ARRAYSZ, 0) // word.size if DT_INIT_ARRAY in tags else 0
    if count > _MOST_CONSTRUCTORS:
        yield None
        return
    first = tags.get(DT_INIT_ARRAY, 0)
    written = [int(word.unpack(elf.at(first + i * word.size, word.size))[0]) for i in range(count)]
    if 0 in written:  # a linker that leaves what RELA entries say to them
        addends = _addends(of, first, first + count * word.size)
        written = [value or addends.get(first + i * word.size, 0) for i, value in enumerate(written)]
    yield from (value or None for value in written)


def _addends(of: LinkMap, low: int, high: int) -> dict[int, int]:
    """Address -> addend of the RELA entries that apply to [low, high)."""
    elf = of.elf
    assert elf is not None
    layout = elf.layout.rela
    result: dict[int, int] = {}
    for table in tables(elf):
        if table.rela:
            entries = layout.iter_unpack(elf.at(table.vaddr, table.size - table.size % layout.size))
            result.update({offset: addend for offset, _, addend in entries if low <= offset < high})
    return result


def call(process: Process, handle: LinkMap, found: Definition, name: str) -> str:
    """Return why a call of a function does not end the process for want of a symbol.

    Raises `Death` when it surely does, `Unknown` when that cannot be known.
    """
    of = found.map
    try:
        slots = left_open(process, of)
        others = _open_call(process, [one for one in handle.searchlist.maps if one is not of])
    except DlwhyError as error:
        raise Unknown(str(error), "relocate") from None
    if not slots and others is None:
        return f"{name} is defined by {of.shown}, and every function that it may call is defined"
    from dlwhy.attribute.calls import calls

    names = {slot: title for slot, (title, _) in slots.items()}
    made = None
    if of.elf is not None and found.type in (_STT_NOTYPE, _STT_FUNC):
        made = calls(of.elf, found.value, names)
    if made is not None and made.surely is not None:
        raise _death(process, of, slots, made.surely, name, "relocate")
    doubtful = made.perhaps if made is not None else tuple(names.values())
    if not doubtful and others is not None and (made is None or made.leaves):
        doubtful = (others[1].decode("utf-8", "surrogateescape"),)
    if doubtful:
        raise Unknown(f"whether {name} calls {doubtful[0]}, which lazy binding left and nothing defines", "relocate")
    return f"{name} is defined by {of.shown}, and calls nothing that lazy binding left open"


def _death(process: Process, of: LinkMap, slots: Slots, name: str, who: str, stage: str) -> Death:
    end = next(end for title, end in slots.values() if title == name)
    if isinstance(end, Death):
        return end
    return Death(
        "undefined-symbol", stage, f"{who} calls {name}, which lazy binding left for this call and nothing defines",
        end.at_startup(process.settings.argv0), 127, of.shown,
    )  # fmt: skip
