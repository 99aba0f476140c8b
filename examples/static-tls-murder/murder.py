#!/usr/bin/env python3
"""The crime scene: a Node addon in Rust that stopped loading when a few lines with an HTTP request were added.

    examples/static-tls-murder/murder.py [VARIANT]     builds it, lets node load it, and lets dlwhy explain it
    examples/static-tls-murder/murder.py VARIANT tls   builds it, and tells what its TLS segment holds

VARIANT is one of the names below; without one every variant is built, and what node says stands beside what dlwhy said.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from lab import HERE as EXAMPLES
from lab import MissingError, Row, built, foretold, hosts, need, node_says, prediction, run, tunables, version

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "static-tls-murder"


class Variant(NamedTuple):
    """One way to build the addon."""

    told: str
    go: str | None = "c-archive"
    """How the Go part is linked: inside ("c-archive"), as a library beside ("c-shared"), or not at all."""
    words: tuple[str, ...] = ()
    """More words for cargo."""
    flags: str = ""
    """RUSTFLAGS."""
    sources: str | None = None
    """The directory below variants/ whose files replace the story's."""


VARIANTS = {
    "story": Variant("as in the story"),
    "without-go": Variant("without the Go part", go=None),
    "rand-0.8": Variant("with rand 0.8, the Go part kept", sources="rand-0.8"),
    "go-of-its-own": Variant("with the Go part in a library of its own", go="c-shared"),
    "flag": Variant("with the flag that was tried: -Z tls-model=global-dynamic", flags="-Ztls-model=global-dynamic"),
    "constructor": Variant("as in the story, registered by a constructor", words=("--features", "constructor")),
}


def addon(name: str) -> Path:
    """Return the index.node of a variant. Raises `MissingError` when it cannot be built here."""
    variant = VARIANTS[name]
    need("gcc")
    tools = (version("cargo", "--version"), *([version("go", "version")] if variant.go else []))
    return built(f"{NAME}-{name}", HERE, lambda place: _make(place, variant), *tools) / "addon/index.node"


def _make(place: Path, variant: Variant) -> None:
    if variant.sources is not None:
        shutil.copytree(place / "variants" / variant.sources, place, dirs_exist_ok=True)
    out = place / "addon"
    out.mkdir()
    environment = {"RUSTFLAGS": variant.flags, "RUSTC_BOOTSTRAP": "1" if variant.flags else "0"}
    if variant.go:
        library = out / ("libbutler.a" if variant.go == "c-archive" else "libbutler.so")
        run(["go", "build", f"-buildmode={variant.go}", "-o", library, "."], place / "butler", CGO_ENABLED="1")
        environment["BUTLER"] = str(library)
    run(["cargo", "build", "--release", "--locked", "--target-dir", "target", *variant.words], place, **environment)
    shutil.copy2(place / "target/release/libvalet.so", out / "index.node")
    shutil.rmtree(place / "target")  # a hundred megabytes that nobody needs any more


def rows() -> Iterator[Row]:
    """Yield what node says to each variant, and to each way to help it, beside what dlwhy said before."""
    for host in hosts():
        for name, variant in VARIANTS.items():
            path = addon(name)
            report = foretold([path], host)
            yield Row(NAME, f"{host}: {variant.told}", node_says(path, host), prediction(report))
        yield from _tunable(host, addon("story"))
        for name in ("story", "constructor"):
            path = addon(name)
            told = f"{host}: {VARIANTS[name].told}, with LD_PRELOAD of it"
            yield Row(NAME, told, node_says(path, host, LD_PRELOAD=str(path)), preloaded(path, host))


def _tunable(host: str, path: Path) -> Iterator[Row]:
    """The cure that dlwhy proves in its model, and the same with one byte less."""
    settings = tunables(foretold([path], host))
    if not settings:
        raise MissingError("this C library has no tunable that helps: it is older than 2.33")
    for told, setting in settings:
        environment = {"GLIBC_TUNABLES": setting}
        real = node_says(path, host, **environment)
        yield Row(NAME, f"{host}: as in the story, {told}", real, prediction(foretold([path], host, environment)))


def preloaded(path: Path, host: str) -> str:
    """What dlwhy says of LD_PRELOAD: the load succeeds, but node may miss the registration."""
    report = foretold([path], host)
    refused = [one.why for one in report.not_cures if "LD_PRELOAD" in one.title]
    quoted = [why.partition('"')[2].partition('"')[0] for why in refused if '"' in why]
    if quoted:
        return f"{quoted[0]}: '{path}'."
    return prediction(foretold([path], host, {"LD_PRELOAD": str(path)}))


def main(words: list[str]) -> int:
    """Build one variant and show what node and dlwhy say, or all of them as a table."""
    if not words:
        from run import show

        return show([NAME])
    if words[0] not in VARIANTS or words[1:] not in ([], ["tls"]):
        print(f"no variant {' '.join(words)}; there are {', '.join(VARIANTS)}", file=sys.stderr)
        return 2
    try:
        path = addon(words[0])
        if words[1:]:
            _run("tls", path)
        else:
            print(f"$ node -e 'require(\"{path}\")'\n{node_says(path)}\n")
            _run("check", path)
    except MissingError as missing:
        print(f"{NAME}: {missing}", file=sys.stderr)
        return 1
    return 0


def _run(command: str, path: Path) -> None:
    print(f"$ dlwhy {command} {path}", flush=True)
    subprocess.run([EXAMPLES.parent / "dlwhy", command, path], check=False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
