"""Files: this system, the inside of a sysroot, and a dict."""

from __future__ import annotations

import errno
import gc
import os
import resource
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from dlwhy.errors import FilesError
from dlwhy.files import DictFiles, Files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small tree with links of every kind, absolute ones as they stand inside it."""
    tree = tmp_path / "root"
    (tree / "usr/lib").mkdir(parents=True)
    (tree / "usr/lib/libx.so.1").write_bytes(b"inside")
    (tree / "lib").symlink_to("usr/lib")
    (tree / "usr/lib/libx.so").symlink_to("libx.so.1")
    (tree / "usr/lib/absolute.so").symlink_to("/lib/libx.so")
    (tree / "usr/lib/climbing.so").symlink_to("../../../../../../usr/lib/libx.so.1")
    (tree / "usr/lib/dangling.so").symlink_to("/nowhere/x.so")
    (tree / "usr/lib/circle.so").symlink_to("circle.so")
    (tree / "run").mkdir()
    (tree / "run/tool").write_bytes(b"#!/bin/sh\n")
    (tree / "run/tool").chmod(0o755)
    (tmp_path / "outside").write_bytes(b"outside")
    return tree


@pytest.mark.parametrize(
    "path", ["/lib/libx.so", "/usr/lib/absolute.so", "/lib/climbing.so", "/usr/../usr/./lib//libx.so.1"]
)
def test_links_stay_inside(root: Path, path: str) -> None:
    """Below a sysroot a link leads where it would after chroot(2), also an absolute one and one with too many `..`."""
    files = Files(str(root))
    assert files.open(path).head == b"inside"
    assert files.resolve(path) == "/usr/lib/libx.so.1"
    assert files.real(path) == f"{root}/usr/lib/libx.so.1"
    assert files.kind(path) == "file"


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root may chroot")
@pytest.mark.oracle
def test_the_kernel_agrees(root: Path) -> None:
    """After a real chroot(2) each path leads to the same file, or to the same error."""
    paths = [
        "/lib/libx.so", "/usr/lib/absolute.so", "/lib/climbing.so", "/lib/dangling.so", "/lib/circle.so",
        "/lib/libx.so/", "/lib/libx.so/x", "/lib/libx.so/..", "/", "/lib",
        "/lib/", "/nowhere/x", "//lib//libx.so", "/lib/./../run/tool",
        "/lib/nowhere/../libx.so", "/lib/libx.so/.",
    ]  # fmt: skip
    code = (
        "import os, sys\nroot = os.open(sys.argv[1], os.O_RDONLY); os.chroot(sys.argv[1]); os.chdir('/')\n"
        "for path in sys.argv[2:]:\n"
        "    try: print(os.stat(path).st_ino)\n"
        "    except OSError as error: print(-error.errno)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(root), *paths], capture_output=True, text=True, check=True)
    files = Files(str(root))
    for path, said in zip(paths, done.stdout.split(), strict=True):
        try:
            found = files.open(path).identity[1]
        except FilesError as error:
            found = -error.errno
        assert found == int(said), path


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/lib/dangling.so", errno.ENOENT), ("/lib/circle.so", errno.ELOOP), ("/nowhere", errno.ENOENT),
        ("/lib/libx.so.1/x", errno.ENOTDIR), ("/lib/\0.so", errno.ENOENT), ("/lib/" + "x" * 300, errno.ENAMETOOLONG),
    ],
)  # fmt: skip
def test_errors_have_their_number(root: Path, path: str, number: int) -> None:
    """What cannot be opened has the number of open(2) and a sentence with the path as the process sees it."""
    for files in (Files(str(root)), Files()):
        name = path if files.root else f"{root}{path}"
        if files.root or "dangling" not in path:
            with pytest.raises(FilesError) as caught:
                files.open(name)
            assert caught.value.errno == number
            assert str(caught.value) == f"{name}: {os.strerror(number)}"
            assert files.kind(name) is None and not files.exists(name) and not files.executable(name)


def test_kinds(root: Path) -> None:
    """A file, a directory and anything else are told apart; a program has an execute bit."""
    files = Files(str(root))
    assert [files.kind(path) for path in ("/lib/libx.so", "/lib", "/run/tool", "/lib/no")] == [
        "file",
        "directory",
        "file",
        None,
    ]
    assert Files().kind("/dev/null") == "other"
    assert files.executable("/run/tool") and not files.executable("/lib/libx.so") and not files.executable("/lib")
    assert files.link("/lib") == "usr/lib" and files.link("/run") is None
    assert files.listing("/run") == ["tool"]
    with pytest.raises(FilesError, match=r"^/nowhere: No such file"):
        files.listing("/nowhere")


def test_each_open_is_counted(root: Path) -> None:
    """How often a path was opened is kept, so that tests can hold dlwhy to once."""
    files = Files(str(root))
    files.open("/lib/libx.so")
    files.open("/lib/libx.so")
    with pytest.raises(FilesError):
        files.open("/no")
    assert files.reads == {"/lib/libx.so": 2, "/no": 1}


def test_more_files_than_descriptors(tmp_path: Path) -> None:
    """With few descriptors older views give theirs back, and read again when they are asked."""
    paths = []
    for number in range(60):
        path = tmp_path / f"{number}"
        path.write_bytes(bytes([number]) * 10_000)
        paths.append(str(path))
    code = (
        "import resource, sys\nfrom dlwhy.files import Files\nfiles = Files()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))\n"
        "views = [files.open(path) for path in sys.argv[1:]]\n"
        "print(all(view.read(9000, 2) == bytes([number]) * 2 for number, view in enumerate(views)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("True\n", "")
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 20


def test_descriptors_are_given_back(root: Path) -> None:
    """After `close` none is left open."""
    gc.collect()  # what earlier tests left to it would be closed in between
    before = len(os.listdir("/proc/self/fd"))
    files = Files(str(root))
    kept = [files.open("/lib/libx.so") for _ in range(10)]
    files.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert kept[0].head == b"inside"


def test_dict() -> None:
    """A dict of bytes answers like a file system."""
    files = DictFiles({"/lib/libx.so": b"x", "/bin/tool": b"#!"})
    assert files.open("/lib/../lib/libx.so").head == b"x"
    assert [files.kind(path) for path in ("/lib/libx.so", "/lib", "/", "/no", "/lib/lib")] == [
        "file",
        "directory",
        "directory",
        None,
        None,
    ]
    assert files.exists("/bin/tool") and files.executable("/bin/tool") and not files.exists("/no")
    assert files.listing("/") == ["bin", "lib"]
    assert files.resolve("/lib/./libx.so") == "/lib/libx.so" and files.link("/lib/libx.so") is None
    with pytest.raises(FilesError) as caught:
        files.open("/no")
    assert caught.value.errno == errno.ENOENT


def test_no_sysroot_is_the_system(tmp_path: Path) -> None:
    """The root directory as sysroot is no sysroot."""
    (tmp_path / "x").symlink_to("y")
    (tmp_path / "y").write_bytes(b"y")
    assert Files("/").root == Files("/./").root == ""
    assert Files().resolve(str(tmp_path / "x")) == os.path.realpath(tmp_path / "y")
    assert Files().real("x/../y") == "x/../y"


@pytest.mark.machine
@pytest.mark.parametrize(
    "steps", [[], ["now:libm.so.6", "libz.so.1", "now:libm.so.6", "/no/such/file.so"]], ids=["start", "loads"]
)
def test_a_run_opens_each_file_once(steps: list[str]) -> None:
    """Modelling a process with its loads and cures opens no path twice, and gives every descriptor back."""
    from dlwhy.api import Host, Options
    from dlwhy.fixes import fixes
    from dlwhy.question import ask
    from dlwhy.verdict import model

    gc.collect()  # what earlier tests left open is not this run's
    before = len(os.listdir("/proc/self/fd"))
    question = ask(steps, Host.executable(os.path.realpath(sys.executable)), Options())
    fixes(question, model(question))
    reads = question.objects.files.reads
    question.objects.files.close()
    assert len(reads) > 4
    assert {path: count for path, count in reads.items() if count > 1} == {}
    assert len(os.listdir("/proc/self/fd")) == before
