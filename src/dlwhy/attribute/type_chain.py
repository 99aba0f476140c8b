"""Types of debug information (DWARF 2 to 5): from a variable inwards, each time into the largest member."""

from __future__ import annotations

from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_DEPTH = 32
_LONGEST = 400
"""Characters of a type's name."""
_NAMELESS = "a type without a name"
_STRUCTURES = ("DW_TAG_structure_type", "DW_TAG_class_type", "DW_TAG_union_type")
_THROUGH = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_atomic_type", "DW_TAG_restrict_type")


class Part(Record):
    """One step inwards: the variable itself first, then each time the largest member."""

    member: str | None
    """Its name in what is around it; None of the variable itself, and of what has no name."""
    type: str
    """As the source has it, with its namespaces."""
    bytes: int


def chain_of(variable: Any) -> tuple[Part, ...]:
    """Return the type of a variable, then that of its largest member, and so on as long as one has half the bytes.

    What only wraps something as large as itself is left out, but for the variable's own type.
    """
    chain = list(_chain(variable))
    last = len(chain) - 1
    return tuple(
        one for place, one in enumerate(chain) if place in (0, last) or chain[place + 1].bytes < one.bytes
    )  # fmt: skip


def texts(die: Any, keys: Iterable[str]) -> Iterator[str]:
    """Yield attributes of a DIE and of the declaration that it completes."""
    for _ in range(3):
        for key in keys:
            if key in die.attributes:
                yield die.attributes[key].value.decode("utf-8", "replace")
        if "DW_AT_specification" not in die.attributes:
            return
        die = die.get_DIE_from_attribute("DW_AT_specification")


def _chain(variable: Any) -> Iterator[Part]:
    die = variable
    for _ in range(3):
        if "DW_AT_type" in die.attributes or "DW_AT_specification" not in die.attributes:
            break
        die = die.get_DIE_from_attribute("DW_AT_specification")
    member: str | None = None
    for _ in range(_DEPTH):
        kind = _type(die)
        if kind is None:
            return
        size = _size(kind)
        yield Part(member, _type_name(die), size)
        if kind.tag not in _STRUCTURES:
            return
        best, most = None, -1
        for one in _members(kind):
            inner = _type(one)
            number = _size(inner) if inner is not None else 0
            if number > most:
                best, most = one, number
        if best is None or 2 * most < size or not most:
            return
        die = best
        member = next(texts(best, ("DW_AT_name",)), None)


def _type(die: Any) -> Any | None:
    """Return what a DIE is of, through typedefs and qualifiers."""
    for _ in range(_DEPTH):
        if "DW_AT_type" not in die.attributes:
            return None
        die = die.get_DIE_from_attribute("DW_AT_type")
        if die.tag not in _THROUGH:
            return die
    return None


def _type_name(die: Any) -> str:
    """Return what to call the type that a DIE is of: a typedef names what has no name itself."""
    kind = _type(die)
    if kind is None:
        return "?"
    name = _name(kind)
    for _ in range(_DEPTH):
        die = die.get_DIE_from_attribute("DW_AT_type")
        if name != _NAMELESS or die is kind or die.tag not in _THROUGH:
            break
        if die.tag == "DW_TAG_typedef":
            name = _name(die)
    return name


def _members(die: Any) -> Iterator[Any]:
    """Yield the members of a structure, those of variants and base classes too."""
    todo = [die]
    while todo:
        for child in todo.pop().iter_children():
            if child.tag in ("DW_TAG_member", "DW_TAG_inheritance") and "DW_AT_external" not in child.attributes:
                yield child
            elif child.tag in ("DW_TAG_variant_part", "DW_TAG_variant"):
                todo.append(child)


def _size(die: Any) -> int:
    """Return the bytes of a type; 0 where it does not tell."""
    if "DW_AT_byte_size" in die.attributes:
        value = die.attributes["DW_AT_byte_size"].value
        return value if isinstance(value, int) else 0
    if die.tag == "DW_TAG_array_type":
        inner = _type(die)
        number = 1
        for count in _counts(die):
            number *= count
        return _size(inner) * number if inner is not None else 0
    if die.tag in ("DW_TAG_pointer_type", "DW_TAG_reference_type", "DW_TAG_rvalue_reference_type"):
        return int(die.cu["address_size"])
    return 0


def _counts(die: Any) -> list[int]:
    """Return how many elements an array has, by dimension."""
    result = []
    for child in die.iter_children():
        if child.tag == "DW_TAG_subrange_type":
            count, upper = child.attributes.get("DW_AT_count"), child.attributes.get("DW_AT_upper_bound")
            number = count.value if count is not None else upper.value + 1 if upper is not None else 0
            result.append(number if isinstance(number, int) and number >= 0 else 0)
    return result


def _name(die: Any) -> str:
    """Return what to call a type, its namespaces before it."""
    if die.tag == "DW_TAG_array_type":
        element = _type_name(die) if "DW_AT_type" in die.attributes else "?"
        return element + "".join(f"[{count}]" for count in _counts(die))
    if die.tag == "DW_TAG_pointer_type":
        return f"{_type_name(die) if 'DW_AT_type' in die.attributes else 'void'} *"
    name = next(texts(die, ("DW_AT_name",)), None)
    if name is None:
        return _NAMELESS
    around: list[str] = []
    parent = die.get_parent()
    while parent is not None and parent.tag in ("DW_TAG_namespace", *_STRUCTURES) and len(around) < _DEPTH:
        around.append(next(texts(parent, ("DW_AT_name",)), "(anonymous)"))
        parent = parent.get_parent()
    return "::".join((*reversed(around), name))[:_LONGEST]
