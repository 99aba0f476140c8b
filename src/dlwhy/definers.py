"""Definers: which object of a file's load defines a thread-local variable that the file itself does not.

Where its dependencies are found is for a host to say: the search is that of `tree` without a host, and what it does
not find keeps no name. The first definition in the order of the load counts, as it does for the loader.
"""

from __future__ import annotations

from dlwhy.attribute.variables import collect
from dlwhy.elf.constants import SHN_UNDEF
from dlwhy.elf.file import Elf
from dlwhy.errors import DlwhyError
from dlwhy.loader.faults import Unknown
from dlwhy.record import Record
from dlwhy.trees import tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.api import Options
    from dlwhy.files import Files
    from dlwhy.report import TreeNode


class Definer(Record):
    """Who defines a variable."""

    path: str
    """Of the object, as the search found it."""
    owner: str
    """Whose the variable is, as the object's own bill tells."""


def definers(path: str, wanted: set[str], files: Files, options: Options) -> dict[str, Definer]:
    """Return symbol -> who defines it, of those of `wanted` that are found.

    `path` is the file whose dependencies are searched, `files` those of its system. Never raises: what cannot be read
    tells nothing.
    """
    result: dict[str, Definer] = {}
    try:
        top = tree(path if "/" in path else f"./{path}", None, options.but(guesses=False)).root
    except (DlwhyError, Unknown):
        return result
    for place in _places(top):
        try:
            _add(Elf(files.open(place)), place, wanted, result)
        except (DlwhyError, Unknown):
            continue
        if len(result) == len(wanted):
            break
    return result


def _add(elf: Elf, place: str, wanted: set[str], result: dict[str, Definer]) -> None:
    """Add what an object defines and none before it did."""
    found = {one.name: one.offset for one in elf.symbols.tls() if one.shndx != SHN_UNDEF and one.name in wanted}
    new = {name: offset for name, offset in found.items() if name not in result}
    if not new:
        return
    variables = collect(elf)
    for name, offset in new.items():
        aliases = variables.at(offset)
        result[name] = Definer(place, variables.owner(aliases).name if aliases else variables.library)


def _places(top: TreeNode) -> Iterator[str]:
    """Yield the files below a node, once each, breadth first: the order in which the loader asks them."""
    told: dict[str, None] = {}
    todo = [top]
    for node in todo:
        for child in node.children:
            if child.path is not None and child.path not in told:
                told[child.path] = None
                yield child.path
            todo.append(child)
