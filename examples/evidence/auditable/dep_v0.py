"""Writes what cargo-auditable puts into a file: the crates of a build and who needs whom, as compressed JSON.

    dep_v0.py DIRECTORY FILE     of the Cargo.toml in a directory
"""

from __future__ import annotations

import json
import subprocess
import sys
import zlib
from pathlib import Path

SOURCES = {True: "local", False: "crates.io"}


def dep_v0(directory: str) -> bytes:
    """The section's bytes (cargo-auditable, PARSING.md), from what cargo itself says of the build."""
    words = ["cargo", "metadata", "--locked", "--format-version=1"]
    told = json.loads(subprocess.run(words, cwd=directory, capture_output=True, check=True).stdout)
    nodes = {one["id"]: one for one in told["resolve"]["nodes"]}
    listed = [one for one in told["packages"] if one["id"] in nodes]
    places = {one["id"]: place for place, one in enumerate(listed)}
    packages = []
    for one in listed:
        needs = [
            need["pkg"] for need in nodes[one["id"]]["deps"] if any(kind["kind"] is None for kind in need["dep_kinds"])
        ]
        row: dict[str, object] = {key: one[key] for key in ("name", "version")}
        row |= {"source": SOURCES[one["source"] is None], "dependencies": sorted(places[need] for need in needs)}
        packages.append(row | ({"root": True} if one["id"] == told["resolve"]["root"] else {}))
    return zlib.compress(json.dumps({"packages": packages}).encode())


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(dep_v0(sys.argv[1]))
