"""What tools other than dlwhy say of one file: readelf, objdump, nm, c++filt, `cargo tree`, `go version -m`, dpkg, npm.

Nothing here reads a file with dlwhy but `access_oracle`, whose slots are looked at in the disassembly of objdump.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from bisect import bisect_right
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.fixtures.registries import run, tool

if TYPE_CHECKING:
    from collections.abc import Iterable


_TYPES = r"R_X86_64_TPOFF64|R_AARCH64_TLS_TPREL(?:64)?"
_ROW = re.compile(rf"^([0-9a-f]+)\s+[0-9a-f]+\s+({_TYPES})\s+(.*)$", re.MULTILINE)
_SYMBOL = re.compile(
    r"^\s*\d+: ([0-9a-f]+)\s+(\d+|0x[0-9a-f]+) (\w+)\s+(\w+)\s+\w+(?:\s+\[[^]]*\])?\s+(\w+) (\S+)", re.MULTILINE
)
_FRAME = re.compile(r"FDE .*pc=([0-9a-f]+)\.\.([0-9a-f]+)")
_MORE = re.compile(r"(?<=\w)\[[0-9a-f]{4,16}\]|: (?:[iu](?:8|16|32|64|128|size)|bool|char)\b")
"""What c++filt adds to Rust names, and nobody else: hashes of crates, types of numbers."""
_SUFFIX = re.compile(r"(?:\.(?:llvm|lto_priv|constprop|isra|part)\.[0-9A-F]+|\.cold|\.warm|\.[0-9]+)+\Z")


class Symbol(NamedTuple):
    """One defined symbol, as readelf shows it."""

    value: int
    size: int
    type: str
    name: str


class Slot(NamedTuple):
    """One initial-exec relocation, as readelf shows it."""

    symbol: str | None
    offset: int | None
    """In the file's own segment; None for another's variable."""


def said(*words: str | Path) -> str:
    """Return what a tool prints."""
    return subprocess.run(
        [tool(str(words[0])), *words[1:]], capture_output=True, text=True, check=True, errors="surrogateescape"
    ).stdout


def memsz(path: Path) -> int:
    """Return p_memsz by `readelf -l`."""
    found = re.search(r"(?m)^\s+TLS\s+\S+ \S+ \S+ \S+ (\S+)", said("readelf", "-lW", path))
    return int(found[1], 16) if found else 0


def symbols(path: Path) -> list[Symbol]:
    """Return every defined symbol of both tables by `readelf -s`."""
    found = []
    for value, size, kind, _, index, name in _SYMBOL.findall(said("readelf", "-sW", path)):
        if index != "UND":
            found.append(Symbol(int(value, 16), int(size, 0), kind, name.partition("@")[0]))
    return found


def packed_symbols(path: Path) -> list[Symbol]:
    """Return the symbols of `.gnu_debugdata`, taken out by objcopy and xz; none without it."""
    if ".gnu_debugdata" not in said("readelf", "-SW", path):
        return []
    with tempfile.TemporaryDirectory() as folder:
        said("objcopy", "--dump-section", f".gnu_debugdata={folder}/names.xz", path, f"{folder}/copy")
        said("xz", "-d", f"{folder}/names.xz")
        return symbols(Path(folder) / "names")


def readable(names: Iterable[str]) -> dict[str, str]:
    """Return name -> what `c++filt` makes of it, without what optimisers append."""
    listed = sorted(set(names))
    plain = [_SUFFIX.sub("", name) for name in listed]
    done = subprocess.run(
        [tool("c++filt"), "--no-strip-underscores"], input="\n".join(plain), capture_output=True, text=True, check=True
    )
    return dict(zip(listed, _MORE.sub("", done.stdout).splitlines(), strict=False))


def largest(path: Path) -> tuple[set[str], int]:
    """Return the names by c++filt of the largest TLS symbols, and their size; 0 without any."""
    found = [one for one in symbols(path) if one.type == "TLS"]
    size = max((one.size for one in found), default=0)
    return set(readable({one.name for one in found if one.size == size}).values()), size


def slots(path: Path) -> dict[int, Slot]:
    """Return address -> what the initial-exec relocation there is about, by `readelf -r`."""
    found = {}
    defined = {one.name: one.value for one in symbols(path) if one.type == "TLS"}
    for place, _, rest in _ROW.findall(said("readelf", "-rW", path)):
        named = re.fullmatch(r"[0-9a-f]{16}\s+(\S+) \+ ([0-9a-f]+)", rest.strip())
        if named is None:
            found[int(place, 16)] = Slot(None, int(rest, 16))
            continue
        name, _, version = named[1].partition("@")
        own = defined.get(name)
        here = own is not None and (not version or "@" + version in named[1])
        found[int(place, 16)] = Slot(name, own + int(named[2], 16) if here and own is not None else None)
    return found


class Function(NamedTuple):
    """One function, and every name of it."""

    start: int
    names: frozenset[str]


class Functions:
    """Where functions begin and end: the smallest symbol of `readelf -s` around an address, else `readelf -wf`."""

    def __init__(self, path: Path) -> None:
        self._names: dict[tuple[int, int], set[str]] = {}
        unsized: dict[int, set[str]] = {}
        for one in (*symbols(path), *packed_symbols(path)):
            if one.type in ("FUNC", "IFUNC") and one.size:
                self._names.setdefault((one.value, one.value + one.size), set()).add(one.name)
            elif one.type in ("FUNC", "IFUNC"):
                unsized.setdefault(one.value, set()).add(one.name)
        self._bounds = sorted(self._names)
        self._longest = max((end - start for start, end in self._bounds), default=0)
        self._frames: list[tuple[int, int]] | None = None
        self._unsized = sorted(unsized.items())
        self._path = path

    def at(self, address: int) -> Function:
        """Return the function at an address: with no names where only its frame is known, and start -1 for nothing."""
        best = None
        place = bisect_right(self._bounds, (address, 1 << 64)) - 1
        while place >= 0 and address - self._bounds[place][0] < self._longest:
            start, end = self._bounds[place]
            if address < end and (best is None or end - start < best[1] - best[0]):
                best = (start, end)
            place -= 1
        if best is not None:
            return Function(best[0], frozenset(self._names[best]))
        if self._frames is None:
            text = said("readelf", "-wf", self._path)
            self._frames = sorted((int(a, 16), int(b, 16)) for a, b in _FRAME.findall(text))
        place = bisect_right(self._frames, (address, 1 << 64)) - 1
        if place >= 0 and address < self._frames[place][1]:
            return Function(self._frames[place][0], frozenset())
        place = bisect_right(self._unsized, address, key=lambda one: one[0]) - 1
        if 0 <= place < len(self._unsized) - 1:
            return Function(self._unsized[place][0], frozenset(self._unsized[place][1]))
        return Function(-1, frozenset())


def cargo_path(workspace: Path, crate: str, root: str) -> tuple[str, ...]:
    """Return the shortest way from `root` to a crate ("rand@0.6.5") that `cargo tree --invert` shows."""
    words = ["cargo", "tree", "--locked", "--invert", crate, "--prefix=depth", "--format", " {p}", "--edges=normal"]
    stack: list[str] = []
    ways = []
    for line in run(words, workspace).splitlines():
        found = re.match(r"(\d+) (\S+) v(\S+)", line)
        if found:
            del stack[int(found[1]) :]
            stack.append(f"{found[2]} {found[3]}")
            if found[2] == root:
                ways.append(tuple(reversed(stack)))
    return min(ways, key=len)


def go_path(path: Path) -> tuple[str, ...]:
    """Return the main module and the toolchain by `go version -m`."""
    text = said("go", "version", "-m", path)
    module = re.search(r"(?m)^\tmod\t(\S+)\t(\S+)", text)
    main = f"{module[1]} {module[2]}" if module else re.findall(r"(?m)^\tpath\t(\S+)", text)[0]
    return main, f"Go runtime {text.split()[1]}"


def debian_path(path: Path) -> tuple[str, ...]:
    """Return the package that `dpkg-query` says a file belongs to."""
    for one in (path, path.resolve()):
        done = subprocess.run([tool("dpkg-query"), "-S", one], capture_output=True, text=True, check=False)
        if not done.returncode:
            name = done.stdout.split(": ")[0].split(",")[0].strip()
            return (" ".join(said("dpkg-query", "-W", "-f", "${Package}\t${Version}", name).split("\t")),)
    return ()


def wheel_path(directory: Path, path: Path) -> tuple[str, ...]:
    """Return the distribution whose list of files has a path, as Python's own library reads it."""
    for one in metadata.distributions(path=[str(directory)]):
        if any(directory / str(file) == path for file in one.files or ()):
            return (f"{one.metadata['Name']} {one.version}",)
    return ()


def npm_path(path: Path) -> tuple[str, ...]:
    """Return name and version that npm reads from the package.json of a directory above a file."""
    place = next(one for one in path.parents if (one / "package.json").exists())
    told = json.loads(run([tool("npm"), "pkg", "get", "name", "version"], place))
    return (f"{told['name']} {told['version']}",)


def has_symbols(path: Path) -> bool:
    """Whether a file has `.symtab`, by `readelf -S`."""
    return re.search(r"\] \.symtab\s", said("readelf", "-SW", path)) is not None


def go_functions(path: Path) -> set[str]:
    """Return the names of all functions that `go tool nm` shows, of the file or of the same one before it was stripped.

    A file of Go without symbols has them in the directory `-release` beside, or in that of its archive.
    """
    kept = Path(str(path).replace("household-stripped", "household-release"))
    names = {name.rpartition(" ")[2] for name in said("go", "tool", "nm", kept).splitlines()}
    return {name.removesuffix(".abi0") for name in names}
