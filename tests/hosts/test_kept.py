"""The tree of a captured system: links, what is there once under two names, and what of this machine is in it."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import pytest

from dlwhy.errors import FilesError
from dlwhy.hosts.kept import KeptFiles
from dlwhy.hosts.profile import Profile
from dlwhy.loader.faults import Unknown
from tests.hosts.test_profile import LEAST, packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def row(data: bytes, **more: Any) -> dict[str, Any]:
    """A file that is held whole."""
    return {"size": len(data), "parts": [[0, len(data), packed(data)]] if data else [], **more}


TREE = {
    "/": {
        "complete": True, "directory": ["usr", "dev", "half", "closed"], "link": {"lib": "usr/lib", "round": "/round"},
    },
    "/usr": {"complete": True, "directory": ["lib", "bin"]},
    "/usr/lib": {
        "complete": True, "file": ["a.so", "b.so", "named.so", "secret.so"],
        "link": {"a.so.1": "a.so", "up.so": "../lib/a.so", "none.so": "/nowhere"}, "set-user-ID": ["s.so"],
    },
    "/usr/bin": {"complete": True, "program": ["tool"]},
    "/dev": {"complete": True, "other": ["null"]},
    "/half": {"complete": False, "file": ["seen.so"]},
}  # fmt: skip
FILES = {
    "/usr/lib/a.so": row(b"abc"), "/usr/lib/b.so": row(b"abc"), "/usr/lib/s.so": row(b""), "/usr/bin/tool": row(b"#!"),
    "/usr/lib/secret.so": {"errno": 13},
    "/half/seen.so": {"size": 100, "parts": [[0, 10, packed(b"0123456789")], [50, 5, packed(b"abcde")]]},
}  # fmt: skip


@pytest.fixture
def files() -> KeptFiles:
    """A small captured system, with nothing of this machine."""
    same = [["/usr/lib/a.so", "/usr/lib/b.so"]]
    return KeptFiles(Profile("x", LEAST | {"tree": TREE, "files": FILES, "same": same}))


def number(ask: Callable[[], object]) -> int:
    """The errno of what is refused."""
    with pytest.raises(FilesError) as error:
        ask()
    return error.value.errno


def test_paths_are_followed_inside(files: KeptFiles) -> None:
    """Links, dots and slashes lead where they would lead there."""
    assert files.resolve("/lib/a.so.1") == "/usr/lib/a.so"
    assert files.resolve("/lib/../bin/./tool") == "/usr/bin/tool"
    assert files.resolve("/usr/lib/up.so") == "/usr/lib/a.so"
    assert files.resolve("/lib/new.so") == "/usr/lib/new.so"
    assert files.link("/lib/a.so.1") == "a.so"
    assert files.link("/lib/a.so") is None
    assert files.listing("/usr") == ["bin", "lib"]
    assert files.open("/lib/a.so.1").head == b"abc"


def test_refusals_have_their_number(files: KeptFiles) -> None:
    """What cannot be opened fails with the errno of open(2)."""
    assert number(lambda: files.open("/lib/new.so")) == errno.ENOENT
    assert number(lambda: files.open("/lib/none.so")) == errno.ENOENT
    assert number(lambda: files.open("/lib/a.so/")) == errno.ENOTDIR
    assert number(lambda: files.open("/lib/a.so/b")) == errno.ENOTDIR
    assert number(lambda: files.open("/round")) == errno.ELOOP
    assert number(lambda: files.open("/lib/secret.so")) == errno.EACCES
    assert number(lambda: files.listing("/lib/a.so")) == errno.ENOTDIR
    assert files.open("/usr").read_errno == errno.EISDIR


def test_kinds(files: KeptFiles) -> None:
    """Each name is what it was."""
    kinds = [files.kind(path) for path in ("/lib", "/lib/a.so", "/dev/null", "/no")]
    assert kinds == ["directory", "file", "other", None]
    assert files.executable("/usr/bin/tool")
    assert not files.executable("/lib/a.so")
    assert files.set_user_id("/lib/s.so")
    assert not files.set_user_id("/lib/none.so")


def test_two_names_of_one_file(files: KeptFiles) -> None:
    """Names of one file share its identity, others do not."""
    one, two, other = (files.open(f"/lib/{name}").identity for name in ("a.so.1", "b.so", "s.so"))
    assert one == two != other


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/closed/x.so", "does not tell what is in /closed"),
        ("/half/other.so", "whether there is /half/other.so: profile x does not tell"),
        ("/lib/named.so", "what is in /usr/lib/named.so: profile x has its name only, no facts"),
        ("/dev/null", "what reading /dev/null would give"),
    ],
)
def test_what_is_not_held(files: KeptFiles, path: str, told: str) -> None:
    """What the profile does not tell is unknown, never absent."""
    with pytest.raises(Unknown, match=told):
        files.open(path)


def test_bytes_that_are_not_held(files: KeptFiles) -> None:
    """A read that leaves what is kept is unknown; one inside, across parts and at the end is answered."""
    view = files.open("/half/seen.so")
    assert (view.size, view.read(2, 3), view.read(51, 2), view.some(100, 4)) == (100, b"234", b"bc", b"")
    for offset, size in ((8, 4), (48, 4), (54, 3), (60, 1)):
        with pytest.raises(Unknown, match=r"what stands in /half/seen\.so from"):
            view.read(offset, size)
    with pytest.raises(Unknown, match="does not hold it"):
        view.around(b"mark", 0, 10)


def test_of_this_machine_only_the_directory_comes_along(tmp_path: Path) -> None:
    """A file that is examined brings its neighbours and what $ORIGIN leads to, not what a captured directory has."""
    for name in ("pkg/lib/x.so", "pkg/lib/y.so", "pkg.libs/z.so", "pkg/other.so"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"mine")
    tree = TREE | {str(tmp_path / "pkg"): {"complete": True}}
    own = str(tmp_path / "pkg/lib/x.so")
    files = KeptFiles(Profile("x", LEAST | {"tree": tree, "files": FILES}), (own, "/usr/lib/named.so"))
    assert files.open(own).head == b"mine"
    assert files.open(str(tmp_path / "pkg/lib/y.so")).head == b"mine"
    assert files.open(str(tmp_path / "pkg/lib/../../pkg.libs/z.so")).head == b"mine"
    assert files.kind(str(tmp_path)) == "directory"
    for refused in (str(tmp_path / "pkg/lib/../other.so"), str(tmp_path / "pkg.libs/z.so"), "/usr/lib/mine.so"):
        with pytest.raises((FilesError, Unknown)):
            files.open(refused)


def test_whose_file_it_is(tmp_path: Path) -> None:
    """The captured system's file is taken before this machine's of the same path, unless that is the one meant."""
    path = tmp_path / "a.so"
    path.write_bytes(b"mine")
    steps = str(tmp_path).split("/")[1:]
    tree = {"/" + "/".join(steps[:i]): {"complete": True, "directory": [name]} for i, name in enumerate(steps)}
    tree[str(tmp_path)] = {"complete": True, "file": ["a.so"]}
    made = Profile("x", LEAST | {"tree": tree, "files": {str(path): row(b"theirs")}})
    assert KeptFiles(made, (str(path),)).open(str(path)).head == b"theirs"
    assert KeptFiles(made, (str(path),), ours_first=True).open(str(path)).head == b"mine"
    named = Profile("x", LEAST | {"tree": tree})
    assert KeptFiles(named, (str(path),)).open(str(path)).head == b"mine"
