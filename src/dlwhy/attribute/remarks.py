"""What an object's code and relocations show beyond its bill: flags that disagree, and flags that cannot help."""

from __future__ import annotations

from dlwhy.attribute.accesses import OFFSET
from dlwhy.attribute.owners import RUNTIME
from dlwhy.elf.constants import DF_1_PIE, DF_STATIC_TLS, DT_FLAGS, ET_DYN
from dlwhy.elf.tls import tls_relocations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.attribute.bill import Bill
    from dlwhy.attribute.triggers import Trigger
    from dlwhy.elf.file import Elf


def remarks(elf: Elf, bill: Bill) -> Iterator[tuple[str, str]]:
    """Yield (rule, message). Raises `ElfError` when a relocation table leaves the file."""
    yield from _flag(elf)
    yield from _useless(bill)


def _flag(elf: Elf) -> Iterator[tuple[str, str]]:
    """DF_STATIC_TLS of a library against its relocations. No loader looks at it, and some linkers never set it."""
    dynamic = elf.dynamic
    if dynamic is None or elf.type != ET_DYN or dynamic.flags_1 & DF_1_PIE or elf.row is None:
        return
    flagged = bool(dynamic.tags.get(DT_FLAGS, 0) & DF_STATIC_TLS)
    number = len(tls_relocations(elf).tpoff)
    if flagged and not number:
        yield (
            "static-flag-disagrees",
            "DF_STATIC_TLS is set, but no relocation is initial-exec: nothing forces static TLS",
        )
    elif number and not flagged:
        what = "relocation is" if number == 1 else "relocations are"
        yield "static-flag-disagrees", f"DF_STATIC_TLS is not set, but {number} {what} initial-exec: these decide"


def _useless(bill: Bill) -> Iterator[tuple[str, str]]:
    """Flags of one language's compiler, when another's code is what forces static TLS."""
    own = [one for one in bill.triggers if one.own]
    if bill.searched is None or not own:
        return
    crates = {share.owner for share in bill.shares if share.kind == "crate"}
    forced = {one.owner for one in own} | {user.owner for one in own for user in one.users if user.kind == "crate"}
    if crates and not crates & forced:
        counts: dict[str, int] = {}
        for access in bill.accesses:
            if access.model == "local-dynamic" or (access.owner in crates and not access.model.endswith(OFFSET)):
                counts[access.model] = counts.get(access.model, 0) + access.sites
        already = ", ".join(f"{number} {model}" for model, number in sorted(counts.items(), key=lambda c: -c[1]))
        yield (
            "flag-cannot-help",
            "rustc's -Z tls-model=global-dynamic cannot help: no Rust variable is initial-exec"
            + (f" (its accesses: {already})" if already else "")
            + f"; what forces static TLS is {_who(own[0])}, which rustc does not compile",
        )
    go = next((one for one in own if one.owner == RUNTIME), None)
    if go is not None:
        yield (
            "flag-cannot-help",
            f"no flag of the Go compiler helps: it always reaches {go.variable or 'runtime.tlsg'} as initial-exec"
            + ("; only in a library of its own it leaves the rest of this segment dynamic" if bill.size > 8 else ""),
        )


def _who(one: Trigger) -> str:
    variable = f" ({one.variable})" if one.variable and one.variable != one.owner else ""
    return f"{one.owner}{variable}"
