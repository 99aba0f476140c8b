#!/usr/bin/env python3
"""The article's own tools, each classic command beside a few lines over dlwhy's library that find the same, or more.

    examples/detective-work/detective.py [TOOL [FILE]]

TOOL is dependencies, segment, variables, preload or debug; without one all of them compare their figures. FILE is an
ELF file, the crime scene's index.node without one.
"""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "static-tls-murder"), str(HERE.parent.parent / "src")]

from lab import MissingError, Row, clean, foretold, need, node_says
from murder import addon, preloaded

import dlwhy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dlwhy.report import TreeNode

NAME = "detective-work"


def classic(*words: str | Path, **environment: str) -> str:
    """Return what a classic tool prints, to either side."""
    need(str(words[0]))
    done = subprocess.run(
        words, capture_output=True, text=True, errors="replace", check=False, env={**clean(), **environment}
    )
    return done.stdout + done.stderr


# -- one TLS segment ---------------------------------------------------------------------------------------------------


def segment(file: Path) -> Iterator[tuple[str, str, str]]:
    """`readelf -Wl FILE | grep TLS`: there is a segment, and how big it is. Whose it is stays open."""
    yield "bytes of TLS", str(tls_by_readelf(file)), str(tls_by_dlwhy(file))


def tls_by_readelf(file: Path) -> int:
    """Return p_memsz of PT_TLS as readelf prints it."""
    found = re.search(r"(?m)^ +TLS +(?:0x\w+ +){4}(0x\w+)", classic("readelf", "-Wl", file))
    return int(found[1], 16) if found else 0


def tls_by_dlwhy(file: Path) -> int:
    """Return the same by dlwhy."""
    (told,) = dlwhy.tls([file]).files
    return told.tls.size if told.tls is not None else 0


# -- of every dependency -----------------------------------------------------------------------------------------------


def dependencies(file: Path) -> Iterator[tuple[str, str, str]]:
    """The author's script: `ldd`, then `readelf -Wl` of every line. ldd runs the loader; dlwhy only reads."""
    lines = re.findall(r"(?m)^\s+(?:\S+ => )?(/\S+) \(0x", classic("ldd", file))
    by_ldd = {Path(line).resolve(): tls_by_readelf(Path(line)) for line in lines}
    by_dlwhy = {path: size for path, size in _sizes(dlwhy.tree(file, dlwhy.Host.plain()).root) if path != file}
    for path in sorted(by_ldd.keys() | by_dlwhy.keys()):
        yield f"bytes of TLS in {path.name}", str(by_ldd.get(path)), str(by_dlwhy.get(path))


def _sizes(node: TreeNode) -> Iterator[tuple[Path, int]]:
    if node.path is not None:
        yield Path(node.path).resolve(), node.tls_size
    for child in node.children:
        yield from _sizes(child)


# -- of every variable -------------------------------------------------------------------------------------------------


def variables(file: Path) -> Iterator[tuple[str, str, str]]:
    """`objdump -t FILE | grep .tbss`, demangled and sorted: the bulk. What forces all of it is not in the list."""
    table = classic("objdump", "-t", file)
    sizes = [int(size, 16) for size in re.findall(r"(?m)^\w+ [lgu ].{5}O?\s*\.t(?:bss|data)\S*\t(\w+)", table)]
    (told,) = dlwhy.tls([file]).files
    shares = told.tls.shares if told.tls is not None else ()
    yield "bytes of variables with a name", str(sum(sizes)), str(sum(share.bytes for share in shares))
    yield "bytes of the largest", str(max(sizes, default=0)), str(max((share.bytes for share in shares), default=0))


# -- trying to help ----------------------------------------------------------------------------------------------------


def preload(file: Path) -> Iterator[tuple[str, str, str]]:
    """LD_PRELOAD: the segment gets its place at the start; but an addon that registers itself does so too early."""
    for path in (file, addon("constructor")):
        told = f"node with LD_PRELOAD of {path.parent.parent.name.rpartition('-')[0]}"
        yield told, node_says(path, LD_PRELOAD=str(path)), preloaded(path, "node")


# -- listening to the loader -------------------------------------------------------------------------------------------


def debug(file: Path) -> Iterator[tuple[str, str, str]]:
    """LD_DEBUG=all: thousands of lines, and not one says how big the block is or who wants it.

    What it does tell is which objects come along; dlwhy knows them without running anything.
    """
    log = classic("node", "-e", "require(process.argv[1])", file, LD_DEBUG="all")
    _, _, late = log.partition("transferring control: ")
    by_loader = re.findall(r"file=(\S+) \[0\];  generating link map", late)
    tree = dlwhy.tree(file, dlwhy.Host.executable("node", env=clean()))
    by_dlwhy = [str(file), *(node.name for node in _late(tree.root) if node.path != str(file))]
    yield "objects that come along", " ".join(by_loader), " ".join(by_dlwhy)
    words = [line for line in late.splitlines() if re.match(r" +\d+:", line) and "static TLS" in line]
    cause = foretold([file], "node").steps[0].because
    print(f"    {len(log.splitlines())} lines of LD_DEBUG=all, of which {len(words)} speak of static TLS;\n    {cause}")


def _late(node: TreeNode) -> Iterator[TreeNode]:
    if not node.at_startup and node.state == "first":
        yield node
        for child in node.children:
            yield from _late(child)


TOOLS: dict[str, Callable[[Path], Iterator[tuple[str, str, str]]]] = {
    "segment": segment,
    "dependencies": dependencies,
    "variables": variables,
    "preload": preload,
    "debug": debug,
}


def rows() -> Iterator[Row]:
    """Yield every figure as the classic tool has it, beside dlwhy's."""
    for name, tool in TOOLS.items():
        for told, theirs, ours in tool(addon("story")):
            yield Row(NAME, f"{name}: {told}", theirs, ours)


def main(words: list[str]) -> int:
    """Show what one tool and dlwhy say of a file, or all of them of the crime scene."""
    if not words:
        from run import show

        return show([NAME])
    if words[0] not in TOOLS:
        print(f"no tool {words[0]}; there are {', '.join(TOOLS)}", file=sys.stderr)
        return 2
    try:
        file = Path(words[1]).resolve() if len(words) > 1 else addon("story")
        print(inspect.cleandoc(TOOLS[words[0]].__doc__ or ""))
        for told, theirs, ours in TOOLS[words[0]](file):
            print(f"  {told}\n    classic  {theirs}\n    dlwhy    {ours}")
    except MissingError as missing:
        print(f"{NAME}: {missing}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
