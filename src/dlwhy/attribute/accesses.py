"""From access sites to words: which code uses which variable, how, and whose code it is.

The code behind an initial-exec relocation is the trigger's evidence. GNU ld makes initial-exec accesses of others to
the same variable, so functions are said to access it; which of them was initial-exec before the link, only object files
tell.
"""

from __future__ import annotations

from dlwhy.attribute.evidence import NONE
from dlwhy.attribute.functions import locate
from dlwhy.attribute.owners import FOREIGN, RUNTIME, Owner, names, owner, package, shown
from dlwhy.attribute.sites import MODELS
from dlwhy.attribute.slots import TPOFF
from dlwhy.attribute.touched import Left, displacements, shared
from dlwhy.attribute.triggers import Part
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Container, Iterable

    from dlwhy.attribute.evidence import Evidence
    from dlwhy.attribute.functions import Function
    from dlwhy.attribute.linker_map import LinkerMap
    from dlwhy.attribute.panics import Source
    from dlwhy.attribute.sites import Sites
    from dlwhy.attribute.triggers import Trigger
    from dlwhy.attribute.variables import Variables
    from dlwhy.elf.file import Elf

SHOWN = 100
"""Functions that are named for one trigger; of the others only the number is told."""
OFFSET = " offset"
"""End of the model of a variable behind an access that serves several and is counted by itself."""
UNNAMED = "code that nothing names"
"""What stands for functions where nothing tells them apart."""
PANICS = "panic locations in its code, which may be inlined"
"""Evidence for the owner of a function that nothing names."""


class Access(Record):
    """How the code of one object reaches one variable."""

    owner: str | None
    """Whose the variable is; None of local-dynamic accesses, which serve all variables of the object."""
    variable: str | None
    offset: int | None
    """Bytes from the start of the segment, as the slot or the instruction says; None for another module's variable."""
    model: str
    """initial-exec, TLSDESC, general-dynamic, local-dynamic, local-exec; or one of them and `OFFSET`."""
    sites: int
    """Places in the code; of `OFFSET` the accesses of that model from which the code goes on to this variable."""
    rewritable: int
    """Of initial-exec: places that GNU ld writes for general-dynamic and TLSDESC accesses too."""


class User(Record):
    """Code of one owner that uses a trigger's variable."""

    owner: str
    kind: str
    accesses: int
    evidence: str
    assumed: bool = False
    """Whether the code may be another's, which was inlined."""


def explained(
    elf: Elf,
    triggers: Collection[Trigger],
    found: Sites,
    library: str,
    evidence: Evidence = NONE,
    only: Container[Trigger] | None = None,
) -> tuple[Trigger, ...]:
    """Return the triggers with the code behind them. `library` is what the object is called.

    Of all but `only` the accesses are counted, and whose they are is not looked for. The linker's map in `evidence`
    must be one of this very link.
    """
    if found.missing is not None:
        return tuple(triggers)
    by_target, unsure = _targets(found)
    wanted = {(one.symbol, one.offset) for one in triggers if only is None or one in only} & by_target.keys()
    functions = locate(elf, (address for key in wanted for address in by_target[key]), evidence.companions)
    pieces = {_span(one): one for one in functions.values()}
    code = {key: _counted(by_target[key], functions) for key in wanted}
    files = _sources(elf, pieces.values())
    first = {span for uses in code.values() for span, _ in uses[:SHOWN] if span is not None}
    named = names({name for span in first if (name := pieces[span].name)})
    titles = {span: _title(pieces[span], named, files) for span in first}
    owners = {span: _whose(one, library, files) for span, one in pieces.items()}
    result = []
    for one in triggers:
        key = (one.symbol, one.offset)
        if only is not None and one not in only:
            told = one.but(accesses=len(by_target.get(key, ())))
        else:
            told = _explained(one, code.get(key, []), owners, titles, library)
        if told.variable is None and told.own and told.users and told.users[0].kind == "go":
            # All that Go's compiler makes thread-local is the pointer to the running goroutine (cmd/internal/obj).
            told = told.but(owner=RUNTIME, variable="runtime.tlsg")
        result.append(told.but(rewritable=len(unsure.get(key, ()))))
    if evidence.map is not None:
        parts = _parts(evidence.map, by_target, unsure)
        result = [one.but(objects=parts.get((one.symbol, one.offset), ())) for one in result]
    return tuple(result)


def _parts(
    map_: LinkerMap,
    by_target: dict[tuple[str | None, int | None], list[int]],
    unsure: dict[tuple[str | None, int | None], set[int]],
) -> dict[tuple[str | None, int | None], tuple[Part, ...]]:
    """Return which objects of the link have the accesses, the surely guilty ones first.

    Only GNU ld makes initial-exec of dynamic accesses in a shared object.
    """
    files = map_.files_at(address for places in by_target.values() for address in places)
    result = {}
    for key, places in by_target.items():
        counts: dict[str, list[int]] = {}
        for address in places:
            if address in files:
                count = counts.setdefault(files[address], [0, 0])
                count[0] += 1
                count[1] += map_.linker == "GNU ld" and address in unsure.get(key, ())
        parts = [Part(shown(file), *numbers) for file, numbers in counts.items()]
        result[key] = tuple(sorted(parts, key=lambda one: (one.rewritable - one.accesses, -one.accesses, one.file)))
    return result


def _targets(
    found: Sites,
) -> tuple[dict[tuple[str | None, int | None], list[int]], dict[tuple[str | None, int | None], set[int]]]:
    """Return (symbol, offset) of a variable -> its initial-exec accesses, and those that a linker may have made."""
    by_target: dict[tuple[str | None, int | None], list[int]] = {}
    unsure: dict[tuple[str | None, int | None], set[int]] = {}
    for address, model, place in found.found:
        slot = found.slots.get(place) if model.startswith("initial-exec") else None
        if slot is not None and slot.kind == TPOFF:
            key = (slot.symbol, slot.offset)
            by_target.setdefault(key, []).append(address)
            if model == "initial-exec?":
                unsure.setdefault(key, set()).add(address)
    return by_target, unsure


def _span(function: Function) -> tuple[int, int]:
    """Return (start, end), which no two functions share; a key by far faster than the record."""
    return function[0], function[1]


def _counted(places: list[int], functions: dict[int, Function]) -> list[tuple[tuple[int, int] | None, int]]:
    """Return (span of a function, accesses in it), most accesses first; None is code that nothing names."""
    counts: dict[tuple[int, int] | None, int] = {}
    for address in places:
        function = functions.get(address)
        span = (function[0], function[1]) if function is not None else None
        counts[span] = counts.get(span, 0) + 1
    return sorted(counts.items(), key=lambda item: (-item[1], item[0] or (0, 0)))


def _explained(
    one: Trigger,
    uses: list[tuple[tuple[int, int] | None, int]],
    owners: dict[tuple[int, int], Owner],
    titles: dict[tuple[int, int], str],
    library: str,
) -> Trigger:
    users: dict[tuple[str, str], User] = {}
    for span, number in uses:
        name, kind, evidence = owners[span] if span is not None else _whose(None, library, {})
        before = users.get((name, kind))
        assumed = evidence == PANICS and (before is None or before.assumed)
        evidence = before.evidence if before and not before.assumed else evidence
        users[name, kind] = User(name, kind, number + (before.accesses if before else 0), evidence, assumed)
    return one.but(
        accesses=sum(number for _, number in uses),
        functions=tuple(dict.fromkeys(titles[span] if span else UNNAMED for span, _ in uses[:SHOWN])),
        functions_total=len(uses),
        users=tuple(sorted(users.values(), key=lambda user: (-user.accesses, user.owner))),
    )


def _sources(elf: Elf, functions: Iterable[Function]) -> dict[int, Source]:
    """Return start -> source file, as their panic locations tell, of functions that nothing names."""
    bare = {(one.start, one.end) for one in functions if not one.name}
    if not bare:
        return {}
    from dlwhy.attribute.panics import sources

    return sources(elf, sorted(bare))


def _title(function: Function, titles: dict[str, str], files: dict[int, Source]) -> str:
    if not function.name:
        found = files.get(function.start)
        return f"function at {function.start:#x}" + (f" (perhaps {shown(found.file)})" if found else "")
    return function.name if function.source == ".gopclntab" else titles[function.name]


def _whose(function: Function | None, library: str, files: dict[int, Source]) -> Owner:
    """Return whose a function is: as with a variable, but for Go, whose own table writes the import path."""
    found = files.get(function.start) if function is not None and function.name is None else None
    if found is not None and found.crate is not None:
        return Owner(shown(found.crate), "crate", PANICS)
    if function is None or function.name is None:
        return owner("", None, ".eh_frame", library).but(evidence="code of this object, no name")
    if function.source == ".gopclntab":
        return package(function.name)
    return owner(function.name, function.unit, function.source, library)


def accesses(elf: Elf, found: Sites, variables: Variables) -> tuple[Access, ...]:
    """Return by which models each variable is reached, the object's own by offset first, then other modules'.

    Behind accesses that variables share, the code is followed to the variables that it goes on to.
    """
    models: dict[tuple[str | None, int | None, bool], dict[str, int]] = {}
    size = variables.ledger.memsz
    for site in found.found:
        slot = found.slots.get(site.slot) if site.model != "local-exec" else None
        if site.model == "local-dynamic":
            key: tuple[str | None, int | None, bool] = (None, None, True)
        elif slot is not None:
            key = (slot.symbol, slot.offset, False)
        else:
            key = _direct(site.slot, variables, size)
        counts = models.setdefault(key, {})
        counts[site.model] = counts.get(site.model, 0) + 1
    for key, numbers in _behind(elf, found, variables, size).items():
        models.setdefault(key, {}).update(numbers)
    symbols = {key: _written(key, variables) for key in models}
    titles = names({name for name in symbols.values() if name})
    result = []
    for key, counts in models.items():
        written = symbols[key]
        unsure = counts.pop("initial-exec?", 0)
        if unsure:
            counts["initial-exec"] = counts.get("initial-exec", 0) + unsure
        whose, title = _owner(key, variables), titles[written] if written else None
        result += [
            Access(whose, title, key[1], model, counts[model], unsure if model == "initial-exec" else 0)
            for model in (*MODELS, *(model + OFFSET for model in MODELS))
            if model in counts
        ]
    return tuple(sorted(result, key=lambda one: (one.offset is None, one.offset or 0, one.variable or "", -one.sites)))


def _behind(
    elf: Elf, found: Sites, variables: Variables, size: int
) -> dict[tuple[str | None, int | None, bool], dict[str, int]]:
    """Return target -> model with `OFFSET` -> how many accesses the code goes on from to this variable.

    Of a slot behind which nothing but its own variable is reached there is nothing to tell, and of a file where it
    would take too long either.
    """
    result: dict[tuple[str | None, int | None, bool], dict[str, int]] = {}
    left = Left()
    counts: dict[tuple[str, int], dict[tuple[str | None, int | None, bool], int]] = {}
    for address, model, start in shared(elf, found.slots, found):
        told = counts.setdefault((model, start), {})
        offsets = (start + one for one in displacements(elf, address, model, left))
        for key in {_direct(offset, variables, size) for offset in offsets if 0 <= offset < size}:
            told[key] = told.get(key, 0) + 1
    if left.steps < 0:
        return result
    for (model, start), told in counts.items():
        if model != "local-dynamic" and told.keys() <= {_direct(start, variables, size)}:
            continue
        for key, number in told.items():
            numbers = result.setdefault(key, {})
            numbers[model + OFFSET] = numbers.get(model + OFFSET, 0) + number
    return result


def _owner(key: tuple[str | None, int | None, bool], variables: Variables) -> str | None:
    """Return whose a variable is; None for the module as a whole."""
    symbol, offset, module = key
    if module:
        return None
    if offset is not None:
        aliases = variables.at(offset)
        return variables.owner(aliases).name if aliases else variables.library
    return owner(symbol, None, ".dynsym", FOREIGN).name if symbol else FOREIGN


def _direct(offset: int, variables: Variables, size: int) -> tuple[str | None, int | None, bool]:
    """Return the target of a local-exec access: the start of the variable that it lies in."""
    aliases = variables.at(offset) if 0 <= offset < size else ()
    return (None, aliases[0].offset if aliases else offset, False)


def _written(key: tuple[str | None, int | None, bool], variables: Variables) -> str | None:
    symbol, offset, _ = key
    aliases = variables.at(offset) if offset is not None else ()
    return aliases[0].name if aliases else symbol
