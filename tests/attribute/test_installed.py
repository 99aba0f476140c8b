"""Whose file it is, against the package managers themselves."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from dlwhy.attribute.installed import installed
from dlwhy.files import DictFiles, Files
from tests.fixtures import registries

if TYPE_CHECKING:
    from pathlib import Path

LIBRARIES = ("/usr/lib/x86_64-linux-gnu", "/lib/x86_64-linux-gnu", "/usr/bin")


@pytest.mark.machine
def test_dpkg_says_the_same() -> None:
    """For a sample of the system's files, also by names that the merge of /usr made, package and version are dpkg's."""
    registries.tool("dpkg-query")
    paths = []
    for directory in LIBRARIES:
        if os.path.isdir(directory):
            paths += [f"{directory}/{name}" for name in sorted(os.listdir(directory))[::150]]
    compared = 0
    for path in paths:
        told = subprocess.run(["dpkg-query", "-S", path], capture_output=True, text=True, check=False).stdout
        if not told or "diversion" in told or "," in told:
            continue
        package = told.partition(": ")[0]
        version = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Version}", package], capture_output=True, text=True, check=True
        ).stdout
        found = installed(path, Files())
        assert found is not None, path
        assert (found.name, found.version) == (package.partition(":")[0], version)
        compared += 1
    assert compared > 5


@pytest.mark.machine
def test_every_wheel_of_this_python_is_known_by_its_files() -> None:
    """The extension modules of this environment belong to the distributions that importlib.metadata names."""
    compared = 0
    for one in importlib.metadata.distributions():
        natives = [file for file in one.files or () if file.name.endswith(".so")]
        if natives:
            path = os.path.normpath(str(natives[0].locate()))
            found = installed(path, Files())
            assert found is not None
            assert (found.manager, found.version) == ("wheel", one.version)
            assert found.notes == ()
            compared += 1
    assert compared


def test_a_file_that_was_changed_since_is_told(tmp_path: Path) -> None:
    """Another size, and another hash at the same size, each have a sentence."""
    info = tmp_path / "pkg-1.0.dist-info"
    info.mkdir()
    library = tmp_path / "pkg" / "a.so"
    library.parent.mkdir()
    library.write_bytes(b"hello")
    info.joinpath("RECORD").write_text("pkg/a.so,sha256=LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ,5\n")
    assert installed(str(library), Files()).notes == ()  # type: ignore[union-attr]
    library.write_bytes(b"hallo")
    assert "another SHA-256" in installed(str(library), Files()).notes[0]  # type: ignore[union-attr]
    library.write_bytes(b"hello!")
    assert "6 bytes, and 5 there" in installed(str(library), Files()).notes[0]  # type: ignore[union-attr]


@pytest.mark.oracle
def test_rpm_says_the_same(tmp_path: Path) -> None:
    """A package that rpm itself built and installed into a root of its own is told as `rpm -qf` tells it."""
    registries.tool("rpmbuild")
    spec = tmp_path / "x.spec"
    spec.write_text(
        "Name: dlwhyfixture\nVersion: 1.2\nRelease: 3\nSummary: s\nLicense: MIT\nBuildArch: noarch\n%description\nd\n"
        "%install\nmkdir -p %{buildroot}/usr/lib64 %{buildroot}/opt\necho 1 > %{buildroot}/usr/lib64/libx.so.1\n"
        "echo 2 > %{buildroot}/opt/libx.so.1\n%files\n/usr/lib64/libx.so.1\n/opt/libx.so.1\n"
    )
    registries.run(["rpmbuild", "-bb", "--define", f"_topdir {tmp_path}/b", spec], tmp_path)
    (package,) = (tmp_path / "b/RPMS").rglob("*.rpm")
    root = tmp_path / "root"
    root.mkdir()
    base = ["--root", str(root), "--dbpath", "/var/lib/rpm", "--define", "_db_backend sqlite"]
    registries.run(["rpm", *base, "--nodeps", "-i", package], tmp_path)
    told = registries.run(["rpm", *base, "-qf", "/opt/libx.so.1"], tmp_path).strip()
    for path in ("/opt/libx.so.1", "/usr/lib64/libx.so.1"):
        found = installed(path, Files(str(root)))
        assert found is not None
        assert f"{found.name}-{found.version}.noarch" == told
        assert found.manager == "rpm"
    (root / "opt/other.so").write_text("")
    assert installed("/opt/other.so", Files(str(root))) is None


def test_apk_and_conda_and_npm() -> None:
    """The databases of apk and conda and the nearest package.json with a version are read, and no more is believed."""
    apk = b"P:musl\nV:1.2.5-r1\nF:lib\nR:libc.so\n\nP:libgomp\nV:14.2.0-r4\nF:usr\nF:usr/lib\nR:libgomp.so.1\n"
    meta = json.dumps({"name": "libgomp", "version": "13.2.0", "files": ["lib/libgomp.so.1"]}).encode()
    files = DictFiles({
        "/lib/apk/db/installed": apk, "/usr/lib/libgomp.so.1": b"", "/opt/env/conda-meta/libgomp-13.json": meta,
        "/opt/env/lib/libgomp.so.1": b"", "/app/node_modules/@swc/x/lib/a.node": b"",
        "/app/node_modules/@swc/x/lib/package.json": b'{"type": "module"}',
        "/app/node_modules/@swc/x/package.json": b'{"name": "@swc/x", "version": "1.0.0"}',
        "/app/node_modules/bare/a.node": b"", "/app/package.json": b'{"name": "app", "version": "9"}',
    })  # fmt: skip
    told = {
        "/usr/lib/libgomp.so.1": ("apk", "libgomp", "14.2.0-r4"),
        "/opt/env/lib/libgomp.so.1": ("conda", "libgomp", "13.2.0"),
        "/app/node_modules/@swc/x/lib/a.node": ("npm", "@swc/x", "1.0.0"),
    }
    for path, expected in told.items():
        found = installed(path, files)
        assert found is not None
        assert (found.manager, found.name, found.version) == expected
    assert installed("/app/node_modules/bare/a.node", files) is None


@pytest.mark.parametrize("junk", [b"", b"\xff\xfe{", b"[" * 10_000, b'"', b"{}", b"a,b\n\0"])
def test_damaged_databases_are_passed_by(junk: bytes) -> None:
    """Junk in every database at once leaves the file without an owner, and nothing fails."""
    names = (
        "/lib/apk/db/installed", "/conda-meta/a.json", "/a/package.json", "/a/x-1.dist-info/RECORD",
        "/var/lib/dpkg/info/x.list", "/var/lib/dpkg/status", "/var/lib/rpm/rpmdb.sqlite",
    )  # fmt: skip
    assert installed("/a/x.so", DictFiles(dict.fromkeys(names, junk) | {"/a/x.so": b""})) is None
