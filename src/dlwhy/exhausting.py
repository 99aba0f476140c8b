"""Exhausting: every table of an object that a check may ask for, read once, so that whoever records it has them all."""

from __future__ import annotations

from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_REL,
    DT_RELA,
    DT_STRTAB,
    DT_SYMTAB,
    DT_VERSYM,
    PT_DYNAMIC,
    PT_LOAD,
)
from dlwhy.elf.file import Elf
from dlwhy.elf.relocs import Survey, relr, survey, tables
from dlwhy.elf.tls import tls_relocations
from dlwhy.errors import DlwhyError
from dlwhy.hosts.executable import is_program, standalone
from dlwhy.loader.faults import Death, Fault, Unknown
from dlwhy.loader.mapping import check_segments, verify
from dlwhy.loader.properties import isa_and_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dlwhy.question import Question
    from dlwhy.recording import RecordedView


def exhaust(view: RecordedView, question: Question, code: bool) -> None:
    """Read every table of an object that a check may ask for, whatever is wrong with any of them.

    With `code` its instructions, too, if any may tell whose TLS it is; they are most of a file.
    """
    try:
        elf = Elf(view)
    except DlwhyError:
        return
    memory = question.settings.libc.reads_memory
    attempts: tuple[Callable[[], object], ...] = (
        lambda: _pages(elf) if memory else _own_checks(elf, view, question),
        lambda: elf.interp,
        lambda: [elf.dynamic and (elf.dynamic.soname, elf.dynamic.rpath, elf.dynamic.runpath, elf.dynamic.filters)],
        lambda: _symbols(elf),
        lambda: (elf.versions.needs, elf.versions.defined, elf.versions.versym()),
        lambda: _relocations(elf),
        lambda: (isa_and_needed(elf, True), isa_and_needed(elf, False)),
        lambda: standalone(elf) if is_program(elf) else None,
        lambda: _attribution(elf, code) if elf.tls is not None or tls_relocations(elf).tpoff else None,
        lambda: _hidden(elf, view),
    )
    for attempt in attempts:
        try:
            attempt()
        except (DlwhyError, Fault, Death, Unknown):  # what the loader would meet as well
            continue


def _own_checks(elf: Elf, view: RecordedView, question: Question) -> None:
    verify(view, view.path, question.settings)
    check_segments(elf, view.path, question.settings, question.objects.grants, True)


def _pages(elf: Elf) -> None:
    """The segments that hold the dynamic section and its tables, whole: a reader of memory takes more than tables."""
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    wanted = {
        tags[tag] for tag in (DT_HASH, DT_GNU_HASH, DT_SYMTAB, DT_STRTAB, DT_VERSYM, DT_RELA, DT_REL) if tag in tags
    }
    for kind, _, offset, vaddr, _, filesz, _, _ in elf.phdrs:
        if kind == PT_DYNAMIC or (kind == PT_LOAD and any(vaddr <= one < vaddr + filesz for one in wanted)):
            elf.view.some(offset, filesz)


def _symbols(elf: Elf) -> None:
    table = elf.symbols
    _ = table.count, table.data, table.names, table.hashed
    table.look_up(dict.fromkeys((b"%d" % number for number in range(16)), 0))


def _relocations(elf: Elf) -> None:
    for table in tables(elf):
        survey(elf, table, frozenset(), 0, Survey())
    for _ in relr(elf):
        pass


def _attribution(elf: Elf, code: bool) -> None:
    """What tells whose a TLS segment is, of objects that have one or use another's."""
    from dlwhy.attribute.bill import bill
    from dlwhy.attribute.triggers import triggers_into

    bill(elf, code=code)
    triggers_into(elf, elf)


def _hidden(elf: Elf, view: RecordedView) -> None:
    """What tells that a file hides its code; nothing of any other, whose data say no more than the lack of them."""
    from dlwhy.attribute.opaque import payload

    before = len(view.ranges)
    if payload(elf) is None:
        del view.ranges[before:]
