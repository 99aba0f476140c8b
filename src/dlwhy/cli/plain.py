"""Command lines without options, which most are: what argparse would make of them, without argparse.

Importing argparse and building a parser costs a tenth of the answer's time. A test holds the two to be the same.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import SimpleNamespace
else:
    SimpleNamespace = type(sys.implementation)  # as types has it, whose import would bring nothing else

OUTPUT: dict[str, object] = {"format": "text", "outputs": (), "color": "auto", "verbose": False, "quiet": False}
PROCESS: dict[str, object] = {
    "host": None, "env": (), "clear_env": False, "cwd": None, "sysroot": None, "loader": None, "library_path": None,
    "libc": None, "secure": False, "caller": None, "cpu": None,
}  # fmt: skip
"""What the options are when none is given; lists are empty tuples here."""


def plain(words: Sequence[str]) -> SimpleNamespace | None:
    """Return what a command and its operands mean, or None where an option or a mistake wants the parser."""
    if len(words) < 2 or any(word.startswith("-") for word in words):
        return None
    command, *operands = words
    if command == "check":
        return SimpleNamespace(steps=operands, each=False, on=(), lock=None, debug_dir=(), **PROCESS, **OUTPUT)
    if command == "tls":
        sources = {"code": True, "debug_dir": (), "map": None, "lock": None, "debuginfod": False}
        return SimpleNamespace(files=operands, sysroot=None, **sources, **OUTPUT)
    if command == "diff" and len(operands) == 2:
        sources = {"code": True, "debug_dir": (), "map": None, "old_map": None, "lock": None, "old_lock": None}
        return SimpleNamespace(old=operands[0], new=operands[1], on=(), **sources, **PROCESS, **OUTPUT)
    if command == "floor":
        return SimpleNamespace(files=operands, **OUTPUT)
    if command == "unresolved":
        process = {name: value for name, value in PROCESS.items() if name not in ("host", "caller")}
        return SimpleNamespace(files=operands, **process, **OUTPUT)
    if command == "tree" and len(operands) == 1:
        return SimpleNamespace(file=operands[0], **PROCESS, **OUTPUT)
    return None
