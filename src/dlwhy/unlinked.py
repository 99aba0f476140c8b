"""`tls` of what is not linked yet: an object file, or an archive of them, member by member."""

from __future__ import annotations

from dlwhy.attribute.bill import by_owner
from dlwhy.attribute.object_models import ORDER
from dlwhy.attribute.objects import object_bill
from dlwhy.attribute.static_library import MAGIC, THIN, members
from dlwhy.bills import shown_object, shown_shares, shown_trigger
from dlwhy.elf.constants import ET_REL
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError, ElfError, UsageError
from dlwhy.record import Record
from dlwhy.report_tls import Access, CodeUser, TlsFile, TlsObject
from dlwhy.report_tls import Trigger as Shown
from dlwhy.rules import finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from dlwhy.api import Options
    from dlwhy.attribute.objects import ObjectBill
    from dlwhy.attribute.static_library import Member
    from dlwhy.files import Files
    from dlwhy.report import Finding
    from dlwhy.view import View

ARCHIVES = (MAGIC, THIN)
_ARCHIVE, _OBJECT = "archive", "object"
_ELF = b"\x7fELF"


class _Part(Record):
    """A member that has to do with TLS."""

    name: str
    made: ObjectBill
    shown: TlsFile


def object_file(elf: Elf, options: Options) -> TlsFile:
    """Return the entry of an object file. Raises `ElfError`, `UsageError`."""
    _no_map(elf.path, options)
    made = object_bill(elf, elf.path.rpartition("/")[2])
    entry = _entry(elf.path, made)
    return entry.but(findings=_intermediate(elf.path, ["it"] if made.intermediate else []))


def archive(view: View, files: Files, options: Options) -> TlsFile:
    """Return the entry of the archive in `view`, with one for each member that has to do with TLS. Raises `FilesError`.

    A member that cannot be examined has its reason; what is no ELF file (a compiler's own data) is only counted.
    Raises `UsageError`.
    """
    _no_map(view.path, options)
    parts: list[_Part] = []
    broken: list[TlsFile] = []
    defined: dict[str, str] = {}
    intermediate: list[str] = []
    total = foreign = searched = 0
    name = view.path.rpartition("/")[2]
    for member in members(view, files):
        total += 1
        label = f"{view.path}({member.name})"
        if member.view is not None and member.view.head[:4] != _ELF:
            foreign += 1
            continue
        try:
            made = _made(member, name)
        except DlwhyError as error:
            broken.append(TlsFile(label, str(error), None, (), kind=_OBJECT))
            continue
        searched += made.bill.searched or 0
        if made.intermediate:
            intermediate.append(member.name)
        defined.update({name: whose for name, whose in made.defines.items() if name not in defined})
        if made.bill.size or made.bill.accesses:
            parts.append(_Part(member.name, made, _entry(label, made)))
    triggers = _triggers(view.path, parts, defined)
    whole = _whole(view.path, parts, triggers)
    entries = (*(part.shown for part in parts), *broken)
    return TlsFile(
        view.path, None, whole if whole.size else None, triggers, _accesses(parts), searched,
        _intermediate(view.path, intermediate), _ARCHIVE, entries, total, foreign,
    )  # fmt: skip


def _no_map(path: str, options: Options) -> None:
    if options.map is not None:
        raise UsageError(f"{path}: it is not linked yet, and a linker's map tells of what is")


def _made(member: Member, archive_name: str) -> ObjectBill:
    """Return the bill of a member. Raises `DlwhyError` with the reason why there is none."""
    if member.view is None:
        raise DlwhyError(member.error or "")
    elf = Elf(member.view)
    if elf.type != ET_REL:
        raise ElfError(elf.path, -1, "no object file: what is linked already does not belong into an archive")
    try:
        return object_bill(elf, member.name, archive_name)
    finally:
        elf.close()


def _entry(label: str, made: ObjectBill) -> TlsFile:
    bill = made.bill
    triggers = tuple(shown_trigger(one, label) for one in bill.triggers)
    shown = shown_object(bill, label, triggers)
    accesses = tuple(Access(*one) for one in bill.accesses)
    return TlsFile(label, None, shown if bill.size else None, triggers, accesses, bill.searched, (), _OBJECT)


def _whole(path: str, parts: list[_Part], triggers: tuple[Shown, ...]) -> TlsObject:
    """Return the sum of the members' bills."""
    bills = [part.made.bill for part in parts]
    shares = tuple(sorted((share for bill in bills for share in bill.shares), key=lambda share: -share.bytes))
    words = {word for bill in bills for word in bill.model.split("+")}
    model = "+".join(word for word in (one.replace("TLSDESC", "tlsdesc") for one in ORDER) if word in words)
    return TlsObject(
        path, sum(bill.size for bill in bills), max((bill.align for bill in bills), default=0), model or "none",
        shown_shares(shares), sum(bill.padding for bill in bills), sum(bill.unattributed for bill in bills), triggers,
        (), shown_shares(by_owner(shares)), tuple(dict.fromkeys(note for bill in bills for note in bill.notes)),
    )  # fmt: skip


def _triggers(path: str, parts: list[_Part], defined: dict[str, str]) -> tuple[Shown, ...]:
    """Return the initial-exec accesses by variable: whose code has them is told by member.

    `defined` are the variables that members define for others, and whose they are.
    """
    merged: dict[tuple[str, str | None, str], Shown] = {}
    for part in parts:
        for one in part.made.bill.triggers:
            owner = defined.get(one.symbol or "", one.owner) if not one.own else one.owner
            key = (owner, one.variable, one.relocation)
            accesses = one.accesses or 0
            user = CodeUser(part.name, "unit", accesses, "relocations of the object file")
            known = merged.get(key)
            if known is None:
                known = Shown(owner, one.variable, one.relocation, 0, (), path, 0, False, functions_total=0)
            merged[key] = known.but(
                accesses=(known.accesses or 0) + accesses, relocations=known.relocations + one.relocations,
                functions=known.functions + one.functions, users=(*known.users, user),
                own=known.own or one.own or one.symbol in defined,
                functions_total=(known.functions_total or 0) + (one.functions_total or 0),
            )  # fmt: skip
    found = [one.but(users=tuple(sorted(one.users, key=lambda user: -user.accesses))) for one in merged.values()]
    return tuple(sorted(found, key=lambda one: (not one.own, -one.relocations, one.variable or "")))


def _accesses(parts: list[_Part]) -> tuple[Access, ...]:
    merged: dict[tuple[str | None, str | None, str], int] = {}
    for part in parts:
        for one in part.made.bill.accesses:
            key = (one.owner if one.variable else None, one.variable, one.model)
            merged[key] = merged.get(key, 0) + one.sites
    found = [Access(owner, variable, None, model, sites, 0) for (owner, variable, model), sites in merged.items()]
    return tuple(sorted(found, key=lambda one: (ORDER.index(one.model), -one.sites, one.variable or "")))


def _intermediate(path: str, names: list[str]) -> tuple[Finding, ...]:
    if not names:
        return ()
    who = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    told = f"{who} {'has' if len(names) == 1 else 'have'} no machine code yet, only what link-time optimisation takes"
    return (finding("not-compiled-yet", path, f"{told}: which accesses come of it is decided in the link"),)
