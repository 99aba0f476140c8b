"""The layers of src/dlwhy: the one list of its files in the order in which they build on one another.

A file may import only what stands above it in this list; `tests/test_layers.py` enforces it and `./dev docs` prints it
into docs/design.md. So the source reads in this order, from the first file to the last, without looking ahead.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).resolve().parent.parent / "src/dlwhy"

# Layer by layer, each with what it is for and its files in order: dotted names below dlwhy.
LAYERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "L0": (
        "the ground: our own failures and records, bytes, paths",
        ("__init__", "errors", "record", "view", "files", "overlay"),
    ),
    "L1": (
        "bytes → facts",
        (
            "elf", "elf.constants", "elf.records", "elf.machine", "elf.dynamic", "elf.symbols", "elf.versions",
            "elf.file", "elf.notes", "elf.relocs", "elf.tls",
        ),
    ),
    "L2": (
        "facts and a host → what the loader does",
        (
            "loader", "loader.faults", "loader.tokens", "loader.tunables", "loader.cache", "loader.tls",
            "loader.port", "loader.glibc", "loader.cpu", "loader.processors", "loader.host", "loader.objects",
            "loader.starts", "loader.beside", "loader.link_map", "loader.image", "loader.mapping", "loader.bind",
            "loader.properties", "loader.relocate", "loader.search", "loader.sort", "loader.dependencies",
            "loader.placing", "loader.resolving", "loader.closing", "loader.process", "loader.startup",
            "loader.unresolved", "loader.room",
            "loader.musl", "loader.musl.releases", "loader.musl.memory", "loader.musl.dso", "loader.musl.mapping",
            "loader.musl.search", "loader.musl.relocate", "loader.musl.loading", "loader.musl.process",
            "loader.musl.startup",
        ),
    ),
    "L3": (
        "who calls dlopen, and whose bytes these are",
        (
            "hosts", "hosts.known", "hosts.executable", "hosts.packed", "hosts.held", "hosts.profile", "hosts.kept",
            "attribute", "attribute.rust_v0", "attribute.rust_legacy", "attribute.demangle_rust", "attribute.owners",
            "attribute.demangle", "attribute.ledger", "attribute.companions", "attribute.linker_map",
            "attribute.evidence", "attribute.debuginfod", "attribute.variables", "attribute.triggers",
            "attribute.slots",
            "attribute.code_x86_64", "attribute.code_aarch64", "attribute.sites", "attribute.frames",
            "attribute.go_table", "attribute.functions", "attribute.panics", "attribute.calls",
            "attribute.held", "attribute.ways",
            "attribute.effects_aarch64", "attribute.behind_aarch64",
            "attribute.operands_x86_64", "attribute.effects_x86_64", "attribute.behind_x86_64",
            "attribute.touched", "attribute.spans", "attribute.type_chain", "attribute.declarations", "attribute.dwarf",
            "attribute.accesses", "attribute.bill",
            "attribute.static_library", "attribute.object_models", "attribute.object_accesses",
            "attribute.objects", "attribute.remarks",
            "attribute.graph", "attribute.opened", "attribute.embedded", "attribute.opaque",
            "attribute.installed", "attribute.suspects",
        ),
    ),
    "L4": (
        "what it means: the report's records, the question, the verdict and its cures",
        ("report", "report_tls", "report_systems", "report_diff", "rules", "needs", "api", "captured", "question",
         "systems", "lazy", "first_use", "verdict", "fixes", "rebuilds"),
    ),
    "L5": (
        "the one road from a question to a report, or to a profile",
        (
            "origins", "copies", "latent", "forcing", "bills", "unlinked", "diagnose", "openings", "trees", "definers",
            "archives", "walk", "load_sets", "matrix", "pairs", "changes", "diffs", "brought", "floors", "recording",
            "exhausting", "capturing",
        ),
    ),
    "L6": (
        "a report → text",
        ("render", "render.json_v1", "render.style", "render.qualified", "render.text_unlinked", "render.text_tls",
         "render.text_unresolved", "render.text", "render.text_tree", "render.notes", "render.text_matrix",
         "render.markdown", "render.text_floor", "render.text_changes", "render.text_diff"),
    ),
    "L7": ("the command", ("cli", "cli.plain", "cli.arguments", "cli.main", "__main__")),
}  # fmt: skip

# Imports that look ahead all the same, each with its reason. They stand inside functions.
AHEAD = {
    ("api", "diagnose"): "the library's functions start the analysis only when they are called",
    ("api", "bills"): "as above",
    ("api", "trees"): "as above",
    ("api", "walk"): "as above",
    ("api", "load_sets"): "as above",
    ("api", "capturing"): "as above",
    ("api", "matrix"): "as above",
    ("api", "floors"): "as above",
    ("bills", "unlinked"): "object files are examined only when one is named",
    ("bills", "definers"): "dependencies are searched only when a variable of theirs is used as initial-exec",
    ("api", "diffs"): "as above",
    ("loader.process", "loader.unresolved"): "all that a load lacks is listed only when it lacks something",
    ("attribute.owners", "attribute.demangle"): "names are unfolded only when there are any",
}

# Packages of one layer that never import one another.
APART = ("hosts", "observe", "attribute")

# What computes does not touch the world: layers that import none of these modules, and of os only what asks nothing.
PURE = ("elf", "loader", "rules", "verdict", "fixes", "report", "report_tls", "report_systems", "report_diff", "render")
WORLD = frozenset((
    "ctypes", "glob", "io", "locale", "logging", "multiprocessing", "pathlib", "shutil", "signal", "socket",
    "subprocess", "sys", "tempfile", "threading", "time", "urllib",
))  # fmt: skip
BUILTINS = frozenset(("open", "print", "input", "exit", "exec", "eval"))
OS_ALLOWED = frozenset(("fsdecode", "fsencode", "path", "strerror"))

# All that a renderer may know: a report and the words in it, never a function that computes.
RENDERERS_KNOW = (
    "__init__", "errors", "record", "report", "report_tls", "report_systems", "report_diff", "rules", "render",
)  # fmt: skip


class Import(NamedTuple):
    """One import of a module of dlwhy."""

    module: str
    """Dotted name below dlwhy; `__init__` is the package itself."""
    line: int
    typing: bool
    """It stands under `if TYPE_CHECKING` and is not there at run time."""
    inside: bool
    """It stands inside a function."""


def order() -> list[str]:
    """Return the files of all layers, first to last."""
    return [name for _, names in LAYERS.values() for name in names]


def layer_of(name: str) -> str:
    """Return the layer of a file. Raises `KeyError` for one that is not listed."""
    for layer, (_, names) in LAYERS.items():
        if name in names:
            return layer
    raise KeyError(name)


def sources(root: Path = SOURCE) -> dict[str, Path]:
    """Return every file of the package by its dotted name; a package's own file goes by the package's name."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


def imports(name: str, text: str, known: set[str]) -> list[Import]:
    """Return what a file of this dotted name and text imports from dlwhy, wherever in the file it does so.

    `known` are the dotted names of all files: `from dlwhy.elf import tls` imports the file elf.tls if there is one,
    else a name that elf/__init__.py holds.
    """
    found: list[Import] = []

    def target(module: str) -> str | None:
        if module == "dlwhy":
            return "__init__"
        return module.removeprefix("dlwhy.") if module.startswith("dlwhy.") else None

    def visit(node: ast.AST, typing: bool, inside: bool) -> None:
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"{name}, line {node.lineno}: relative imports hide which layer is meant")
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [one if target(one) in known else str(node.module) for one in within]
        else:
            modules = []
        targets = [to for to in map(target, dict.fromkeys(modules)) if to is not None]
        found.extend(Import(to, getattr(node, "lineno", 0), typing, inside) for to in targets)
        inner = inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            for statement in node.body:
                visit(statement, typing=True, inside=inner)
            for statement in node.orelse:
                visit(statement, typing, inner)
        else:
            for child in ast.iter_child_nodes(node):
                visit(child, typing, inner)

    visit(ast.parse(text), typing=False, inside=False)
    return found


def faults(name: str, wanted: list[Import]) -> list[str]:
    """Return what is wrong with the imports of the file `name`, one sentence each."""
    places = {one: place for place, one in enumerate(order())}
    if name not in places:
        return [f"{name} is in no layer: give it its place in tools/layers.py"]
    wrong = []
    for one in wanted:
        what = f"{name}, line {one.line}: import of {one.module}"
        if one.module not in places:
            wrong.append(f"{what}, which is in no layer")
        elif one.typing and name != "__init__" and layer_of(one.module) > layer_of(name):
            wrong.append(f"{what}: even types come only from the own layer and those before it")
        elif not one.typing and places[one.module] >= places[name] and not (one.inside and (name, one.module) in AHEAD):
            wrong.append(f"{what}, which comes later")
        packages = name.partition(".")[0], one.module.partition(".")[0]
        if packages[0] != packages[1] and set(packages) <= set(APART):
            wrong.append(f"{what}: {' and '.join(packages)} stand apart")
        if packages[0] == "render" and packages[1] not in RENDERERS_KNOW:
            wrong.append(f"{what}: a renderer knows the report and its words, nothing that computes")
    return wrong


def touches(text: str) -> list[str]:
    """Return where a file of this text touches the world outside the process, one sentence each."""
    found = []
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                modules = [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), names=names):
                modules = [module, *(f"{module}.{alias.name}" for alias in names if module == "os")]
            case ast.Attribute(value=ast.Name(id="os"), attr=attr):
                modules = [f"os.{attr}"]
            case ast.Call(func=ast.Name(id=called)):
                modules = [called]
            case _:
                continue
        for name in modules:
            top, _, rest = name.partition(".")
            asks = top == "os" and rest and rest.partition(".")[0] not in OS_ALLOWED
            if asks or top in WORLD or name in BUILTINS:
                found.append(f"line {node.lineno}: {name}")
    return found


def as_markdown() -> str:
    """Return the list as the table of docs/design.md, with the first line of each file's docstring."""
    lines = ["| layer | file | what it is |", "|---|---|---|"]
    paths = sources()
    for layer, (purpose, names) in LAYERS.items():
        lines.append(f"| **{layer}** | | **{purpose}** |")
        for name in filter(paths.__contains__, names):
            summary = ast.get_docstring(ast.parse(paths[name].read_text("utf-8"))) or "gathers the files below it"
            cell = summary.splitlines()[0].removesuffix(".").replace("|", "\\|")
            lines.append(f"| | `{paths[name].relative_to(SOURCE)}` | {cell} |")
    lines += ["", "Imports that look ahead, each inside a function:", ""]
    lines += [f"- `{name}` → `{module}`: {reason}." for (name, module), reason in AHEAD.items()]
    return "\n".join(lines)
