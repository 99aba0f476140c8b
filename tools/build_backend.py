"""The build backend (PEP 517, PEP 660): makes the source archive and the wheel with the standard library alone.

It is in the tree so that the package builds offline from its source archive: there is nothing to fetch first. It reads
the project's own pyproject.toml and supports what stands there, no more. The same sources give the same bytes: entries
are sorted, owners and modes are fixed, and times are SOURCE_DATE_EPOCH (by default the earliest a zip can tell).

By hand: `python tools/build_backend.py DIRECTORY` writes the source archive and, from it, the wheel.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import re
import sys
import tarfile
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any

# Paths are relative: whoever calls a backend does so in the root of the source tree (PEP 517).

# What the source archive holds, besides pyproject.toml: all that ./dev test needs. Byte code and caches never.
SOURCES = (
    ".ci", ".gitignore", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "benchmarks", "completions", "dev",
    "dlwhy", "docs", "examples", "man", "pyproject.toml", "src", "tests", "tools",
)  # fmt: skip

# What the wheel installs below the environment's prefix: generated files, and where their readers look for them.
SHARED = {
    "man/dlwhy.1": "share/man/man1/dlwhy.1",
    "completions/dlwhy.bash": "share/bash-completion/completions/dlwhy",
    "completions/_dlwhy": "share/zsh/site-functions/_dlwhy",
    "completions/dlwhy.fish": "share/fish/vendor_completions.d/dlwhy.fish",
}

EARLIEST = 315532800  # 1980-01-01, where the times of zip files begin

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(_settings: Settings = None) -> list[str]:
    """What has to be installed before a build: nothing."""
    return []


get_requires_for_build_sdist = get_requires_for_build_editable = get_requires_for_build_wheel


def build_sdist(directory: str, _settings: Settings = None) -> str:
    """Write the source archive into `directory` and return its name."""
    project = _project()
    stem = f"{project['name']}-{project['version']}"
    entries = {f"{stem}/{path}": Path(path).read_bytes() for path in _sources()}
    entries[f"{stem}/PKG-INFO"] = _metadata(project)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(entries.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mtime = _epoch()
            entry.mode = 0o755 if os.access(name.partition("/")[2], os.X_OK) else 0o644
            archive.addfile(entry, io.BytesIO(data))
    target = Path(directory, f"{stem}.tar.gz")
    target.write_bytes(gzip.compress(plain.getvalue(), mtime=_epoch()))
    return target.name


def build_wheel(directory: str, _settings: Settings = None, _metadata_directory: str | None = None) -> str:
    """Write the wheel into `directory` and return its name."""
    project = _project()
    package = {
        path.removeprefix("src/"): Path(path).read_bytes() for path in _sources() if path.startswith("src/")
    }
    shared = f"{project['name']}-{project['version']}.data/data"
    return _write_wheel(
        directory, project, package | {f"{shared}/{place}": Path(path).read_bytes() for path, place in SHARED.items()}
    )


def build_editable(directory: str, _settings: Settings = None, _metadata_directory: str | None = None) -> str:
    """Write a wheel into `directory` that points at src/ instead of holding it, and return its name."""
    return _write_wheel(directory, _project(), {"_dlwhy_editable.pth": f"{Path('src').resolve()}\n".encode()})


def _project() -> dict[str, Any]:
    """[project] of pyproject.toml, with the version that the package itself tells."""
    with Path("pyproject.toml").open("rb") as file:
        project: dict[str, Any] = tomllib.load(file)["project"]
    source = Path("src/dlwhy/__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "([0-9][0-9a-z.]*)"$', source, re.MULTILINE)
    if not found:
        raise SystemExit('src/dlwhy/__init__.py has no line __version__ = "..."')
    return project | {"version": found[1]}


def _sources() -> list[str]:
    """Paths of all files of the source archive, relative to the root, sorted."""
    found = []
    for name in SOURCES:
        top = Path(name)
        for path in top.rglob("*") if top.is_dir() else [top]:
            hidden = any(part == "__pycache__" or part.endswith("_cache") for part in path.parts)
            if path.is_file() and not hidden and path.suffix not in {".pyc", ".pyo"}:
                found.append(path.as_posix())
    return sorted(found)


def _metadata(project: dict[str, Any]) -> bytes:
    """METADATA of the wheel and PKG-INFO of the source archive (core metadata 2.4)."""
    lines = [
        "Metadata-Version: 2.4",
        f"Name: {project['name']}",
        f"Version: {project['version']}",
        f"Summary: {project['description']}",
        f"Author: {', '.join(author['name'] for author in project['authors'])}",
        f"License-Expression: {project['license']}",
        *(f"License-File: {name}" for name in project["license-files"]),
        f"Keywords: {','.join(project['keywords'])}",
        *(f"Classifier: {name}" for name in project["classifiers"]),
        f"Requires-Python: {project['requires-python']}",
        *(f"Requires-Dist: {need}" for need in project["dependencies"]),
    ]
    for extra, needs in project.get("optional-dependencies", {}).items():
        lines.append(f"Provides-Extra: {extra}")
        lines += [f"Requires-Dist: {need} ; extra == '{extra}'" for need in needs]
    lines += ["Description-Content-Type: text/markdown", ""]
    return "\n".join([*lines, Path(project["readme"]).read_text("utf-8")]).encode()


def _write_wheel(directory: str, project: dict[str, Any], contents: dict[str, bytes]) -> str:
    """Write a wheel of these files and the project's metadata; return its name."""
    stem = f"{project['name']}-{project['version']}"
    info = f"{stem}.dist-info"
    scripts = "".join(f"{name} = {entry}\n" for name, entry in project["scripts"].items())
    contents = contents | {
        f"{info}/METADATA": _metadata(project),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: dlwhy\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}".encode(),
        **{f"{info}/licenses/{name}": Path(name).read_bytes() for name in project["license-files"]},
    }
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(contents.items()))
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    moment = time.gmtime(_epoch())[:6]
    target = Path(directory, f"{stem}-py3-none-any.whl")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        # The metadata comes last, as the wheel format asks.
        for name in sorted(contents, key=lambda name: (name.startswith(info), name)):
            entry = zipfile.ZipInfo(name, moment)
            entry.external_attr = 0o100644 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, contents[name])
    return target.name


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _epoch() -> int:
    return max(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), EARLIEST)


def _main(directory: str) -> None:
    """Build the source archive and, out of it, the wheel: what the archive lacks, the wheel lacks too."""
    output = Path(directory).resolve()
    output.mkdir(parents=True, exist_ok=True)
    os.chdir(Path(__file__).resolve().parent.parent)
    archive = build_sdist(str(output))
    print(output / archive)
    with tempfile.TemporaryDirectory() as scratch:
        with tarfile.open(output / archive) as opened:
            # The archive is our own; Python 3.12 wants to be told a filter, 3.11 before its fourth patch knows none.
            opened.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            opened.extractall(scratch)  # noqa: S202  (see above)
        os.chdir(Path(scratch, archive.removesuffix(".tar.gz")))
        print(output / build_wheel(str(output)))
        os.chdir("/")


if __name__ == "__main__":
    _main(sys.argv[1] if len(sys.argv) > 1 else "dist")
