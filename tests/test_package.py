"""The package: the wheel is what is tested, it builds offline from its source archive, the checkout runs as it is."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dlwhy

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "dlwhy"
HOSTILE = "raise SystemExit('a module of the examined directory was imported')\n"


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = subprocess.run(
        [os.fspath(word) for word in command], cwd=cwd, env=os.environ | (env or {}), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def no_network() -> list[str]:
    """The words before a command that take its network away, where the kernel allows it."""
    words = ["unshare", "--user", "--map-root-user", "--net"]
    if not shutil.which("unshare"):
        return []
    return words if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0 else []


def pip(*words: str) -> list[str]:
    """The words of a pip command that has no network."""
    return [*no_network(), sys.executable, "-m", "pip", *words, "--quiet", "--no-index", "--no-deps", "--no-cache-dir"]


def no_proxy() -> dict[str, str]:
    """An environment in which pip reaches nothing, should the kernel not allow more."""
    dead = "http://127.0.0.1:9"
    return {"http_proxy": dead, "https_proxy": dead, "all_proxy": dead, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the source archive of this checkout, and the wheel built from that archive."""
    directory = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-B", ROOT / "tools/build_backend.py", directory)
    return directory


def only(directory: Path, pattern: str) -> Path:
    """The one file of the directory that matches."""
    [found] = directory.glob(pattern)
    return found


def test_the_wheel_is_tested_not_the_source() -> None:
    """dlwhy comes from site-packages of this environment: `./dev test` put the wheel there."""
    assert Path(dlwhy.__file__).is_relative_to(sys.prefix), "run the tests with ./dev test"
    assert "site-packages" in Path(dlwhy.__file__).parts


def test_the_installed_wheel_is_that_of_this_source() -> None:
    """Every source file is installed with the very bytes of the checkout."""
    installed = Path(dlwhy.__file__).parent
    for path in sorted((ROOT / "src/dlwhy").rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            twin = installed / path.relative_to(ROOT / "src/dlwhy")
            assert twin.exists(), f"{twin} is missing: run ./dev test"
            assert twin.read_bytes() == path.read_bytes(), f"{twin} differs: run ./dev test"


def test_builds_offline_from_the_source_archive(built: Path, tmp_path: Path) -> None:
    """pip builds the wheel from the source archive without a network, the very bytes that the checkout gives."""
    run(*pip("wheel"), "--wheel-dir", tmp_path, only(built, "*.tar.gz"), env=no_proxy())
    assert only(tmp_path, "*.whl").read_bytes() == only(built, "*.whl").read_bytes()


def test_builds_are_reproducible(built: Path, tmp_path: Path) -> None:
    """The same sources give the same archive and wheel, byte for byte, at another time and in another directory."""
    run(sys.executable, "-B", ROOT / "tools/build_backend.py", tmp_path / "again", cwd=tmp_path, env={"TZ": "UTC-13"})
    for path in built.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_an_editable_install_points_at_the_source(tmp_path: Path) -> None:
    """`pip install -e` works offline too, and imports from src/."""
    where = tmp_path / "site"
    run(*pip("install"), "--target", where, "--editable", ROOT, env=no_proxy())
    assert only(where, "*.pth").read_text("utf-8").strip() == str(ROOT / "src")


def test_the_source_archive_holds_what_the_tests_need(built: Path) -> None:
    """The archive has the tests, the workshop and the launcher with its mode, and nothing that a run left behind."""
    stem = f"dlwhy-{dlwhy.__version__}"
    with tarfile.open(only(built, "*.tar.gz")) as archive:
        entries = {entry.name: entry for entry in archive}
    for name in ("LICENSE", "PKG-INFO", "pyproject.toml", "tests/conftest.py", "tools/layers.py"):
        assert f"{stem}/{name}" in entries
    assert all(entries[f"{stem}/{name}"].mode == 0o755 for name in (".ci/run", "dev", "dlwhy"))
    assert not [name for name in entries if re.search(r"\.pyc$|__pycache__|_cache/|/\.venv/|\.\.", name)]


def test_the_record_of_the_wheel_is_right(built: Path) -> None:
    """RECORD lists each file of the wheel once, with its digest and size, and no file has a surprising name."""
    import base64
    import hashlib

    with zipfile.ZipFile(only(built, "*.whl")) as wheel:
        assert wheel.testzip() is None
        [name] = [name for name in wheel.namelist() if name.endswith("/RECORD")]
        rows = {row[0]: row[1:] for row in csv.reader(io.StringIO(wheel.read(name).decode()))}
        assert sorted(rows) == sorted(wheel.namelist())
        for path, (digest, size) in rows.items():
            if path != name:
                data = wheel.read(path)
                told = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                assert (digest, size) == (f"sha256={told}", str(len(data)))
        stem = f"dlwhy-{dlwhy.__version__}"
        assert {path.partition("/")[0] for path in rows} == {"dlwhy", f"{stem}.dist-info", f"{stem}.data"}
        assert {"dlwhy/py.typed", "dlwhy/__init__.py"} <= set(rows)


def test_metadata() -> None:
    """The installed metadata has the version of the code, needs nothing, and names the command."""
    told = importlib.metadata.distribution("dlwhy")
    assert told.version == dlwhy.__version__
    assert all("; extra == " in one for one in told.requires or ()), "nothing is needed, some things may be wished for"
    assert told.metadata["License-Expression"] == "MIT"
    assert told.metadata["Requires-Python"] == ">=3.11"
    assert [(one.name, one.value) for one in told.entry_points] == [("dlwhy", "dlwhy.cli.main:main")]


def test_the_changelog_knows_this_version() -> None:
    """The newest entry of the changelog is the version that the package tells."""
    [newest, *_] = re.findall(r"^## ([0-9][^ \n]*)", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert newest == dlwhy.__version__


@pytest.mark.parametrize(
    "path",
    [
        "share/man/man1/dlwhy.1", "share/bash-completion/completions/dlwhy", "share/zsh/site-functions/_dlwhy",
        "share/fish/vendor_completions.d/dlwhy.fish",
    ],
)  # fmt: skip
def test_man_page_and_completions_are_installed(path: str) -> None:
    """The wheel puts the man page and the completions where their readers look."""
    assert (Path(sys.prefix) / path).read_text("utf-8")


def test_the_installed_command() -> None:
    """The wheel installs a command that tells the version, and `python -m dlwhy` is the same."""
    version = f"dlwhy {dlwhy.__version__}\n"
    assert run(Path(sys.prefix) / "bin/dlwhy", "--version") == version
    assert run(sys.executable, "-P", "-m", "dlwhy", "--version") == version


@pytest.fixture
def trap(tmp_path: Path) -> Path:
    """A directory as one examines it, with modules in it that must never be imported."""
    for name in ("argparse", "dlwhy", "encodings", "os", "re", "sitecustomize", "struct", "usercustomize"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    (tmp_path / "dlwhy.py").rename(tmp_path / "dlwhy_.py")
    (tmp_path / "dlwhy").mkdir()
    (tmp_path / "dlwhy/__init__.py").write_text(HOSTILE)
    return tmp_path


def test_the_launcher_runs_from_anywhere(trap: Path) -> None:
    """./dlwhy works from any directory, by any path to it, whatever that directory and PYTHON* variables offer."""
    version = f"dlwhy {dlwhy.__version__}\n"
    (trap / "link").symlink_to(LAUNCHER)
    (trap / "a link of a link").symlink_to("link")
    env = {"PYTHONPATH": str(trap), "PYTHONHOME": str(trap), "PYTHONSTARTUP": str(trap / "re.py")}
    relative = os.path.relpath(LAUNCHER, trap.resolve())
    for command in ([LAUNCHER], [relative], ["./link"], ["./a link of a link"], ["sh", "link"]):
        assert run(*command, "--version", cwd=trap.resolve(), env=env) == version
    assert run("link", "--version", cwd=trap, env=env | {"PATH": f"{trap}:{os.environ['PATH']}"}) == version


def test_the_launcher_becomes_python(tmp_path: Path) -> None:
    """./dlwhy is one process: the shell becomes Python and starts nothing beside it."""
    if not shutil.which("strace"):
        shell = LAUNCHER.read_text("utf-8").partition("import os")[0]
        assert "exec" in shell
        assert not re.search(r"\$\(|`|\|(?!\|)|&(?!&|\d)", shell.replace("2>&1", "").replace(">&2", ""))
        return
    run("strace", "-f", "-e", "trace=process", "-o", tmp_path / "log", LAUNCHER, "--version")
    log = (tmp_path / "log").read_text()
    assert len({line.split()[0] for line in log.splitlines()}) == 1


def launcher_in(directory: Path, **pythons: str) -> Path:
    """A launcher that knows no other Python than these scripts, by name."""
    programs = directory / "bin"
    programs.mkdir()
    for name, text in pythons.items():
        (programs / name.replace("_", ".")).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name.replace("_", ".")).chmod(0o755)
    launcher = directory / "launcher"
    launcher.write_text(LAUNCHER.read_text("utf-8").replace("/usr/bin/python3", str(directory / "nowhere")))
    launcher.chmod(0o755)
    return launcher


def test_the_launcher_without_python(tmp_path: Path) -> None:
    """Without any Python the launcher says one sentence and fails."""
    done = subprocess.run(
        ["/bin/sh", launcher_in(tmp_path), "--version"], env={"PATH": str(tmp_path / "bin")}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("dlwhy needs Python 3.11 or newer")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("newer", [True, False])
def test_the_launcher_with_an_old_python(tmp_path: Path, newer: bool) -> None:
    """A python3 that is too old hands over to a newer one beside it, or the launcher says one sentence and fails."""
    # An old Python, acted by this one: it reads the launcher after being told that its version is 3.9.
    act = """import sys
sys.version_info, sys.argv = (3, 9), sys.argv[3:]
exec(compile(open(sys.argv[0]).read(), sys.argv[0], "exec"), {"__file__": sys.argv[0]})"""
    old = f"""exec {sys.executable} -c '{act}' "$@" """
    pythons = {"python3": old, "python3_13": 'echo "$@"'} if newer else {"python3": old}
    launcher = launcher_in(tmp_path, **pythons)
    done = subprocess.run(
        ["/bin/sh", launcher, "tree", "x y"], env={"PATH": str(tmp_path / "bin")}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if newer:
        assert (done.returncode, done.stdout) == (0, f"-I -S {launcher} tree x y\n")
    else:
        assert done.returncode == 1
        assert done.stderr.startswith("dlwhy needs Python 3.11 or newer")
        assert done.stderr.count("\n") == 1
