"""Profiles as files: what is no profile, what is damaged, and what is hostile; and those that come with dlwhy."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING, Any

import pytest

import dlwhy
from dlwhy.hosts import profile as module
from dlwhy.hosts.held import LARGEST_PART
from dlwhy.hosts.profile import Profile, load, shipped, split
from dlwhy.loader.faults import Unknown
from tools.profiles import SOURCES

if TYPE_CHECKING:
    from pathlib import Path

LEAST: dict[str, Any] = {
    "format": "dlwhy profile", "schema": 1, "process": {}, "kernel": {}, "tree": {}, "files": {},
}  # fmt: skip
LIMIT = 5_000_000


def packed(data: bytes) -> str:
    """The text of a part."""
    return base64.b64encode(zlib.compress(data)).decode()


def described(**files: Any) -> Profile:
    """A profile of a root directory with these files."""
    return Profile("x", {**LEAST, "files": {f"/{name}": row for name, row in files.items()}})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "the file is empty"),
        (b" \n", "the file is empty"),
        (json.dumps(LEAST).encode()[:-9], "no JSON text: it is cut off, or damaged"),
        (b"\x7fELF\x02\x01", "no JSON text: it does not begin as one"),
        (b"{\xff}", "no JSON text: it is cut off, or damaged"),
        (b"[" * 200_000, "no JSON text: it does not begin as one"),
        (b'{"a":' * 200_000, "no JSON text: it is cut off, or damaged"),
        (b'{"schema":' + b"9" * 9999 + b"}", "no JSON text: it is cut off, or damaged"),
        (json.dumps(LEAST).encode() + b"{}", "something stands behind the JSON text"),
        (b"[]", "JSON, but no profile"),
        (b'{"schema": 1, "command": "check"}', "JSON, but no profile"),
        (json.dumps(LEAST | {"schema": 2}).encode(), "of schema 2, which a newer dlwhy wrote; this one reads 1"),
        (json.dumps(LEAST | {"schema": "1"}).encode(), "its schema is '1', no number from 1 on"),
        (json.dumps(LEAST | {"schema": True}).encode(), "its schema is True, no number from 1 on"),
        *((json.dumps(LEAST | {key: []}).encode(), f"'{key}' is not what it must be") for key in list(LEAST)[2:]),
        (json.dumps(LEAST | {"kernel": {"/proc/cpuinfo": 1}}).encode(), "'kernel' is not what it must be"),
    ],
)  # fmt: skip
def test_no_profile(text: bytes, told: str, tmp_path: Path) -> None:
    """Each file that is no profile is refused in one sentence, which names it."""
    path = tmp_path / "p.json"
    path.write_bytes(text)
    with pytest.raises(dlwhy.ProfileError) as error:
        load(path)
    assert str(error.value).startswith(f"profile {path}: ")
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "process",
    [
        {"host": 1}, {"host": "a\0b"}, {"program": "relative"}, {"program": []}, {"program": "/p", "remarks": 1},
        {"environment": []}, {"environment": {"LD_PRELOAD": 1}}, {"cwd": 3}, {"loader": {}},
    ],
)  # fmt: skip
def test_a_process_that_is_none(process: dict[str, Any]) -> None:
    """A part of the process of the wrong kind is an error, not a traceback."""
    with pytest.raises(dlwhy.ProfileError, match=r"'process\..*' is not what it must be"):
        dlwhy.check([], dlwhy.Host.profile(Profile("x", LEAST | {"process": process})))


def test_no_file() -> None:
    """A name that is neither a file nor a profile of dlwhy's own is a usage error, and so is a directory's."""
    with pytest.raises(dlwhy.UsageError, match=r"profile nosuch: No such file or directory; .*debian12"):
        load("nosuch")
    with pytest.raises(dlwhy.ProfileError, match="profile /dev: no regular file"):
        load("/dev")
    with pytest.raises(dlwhy.ProfileError, match="no regular file"):
        load("/dev/zero")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """A FIFO that nobody writes into is refused at once."""
    os.mkfifo(tmp_path / "p")
    with pytest.raises(dlwhy.ProfileError, match="no regular file"):
        load(tmp_path / "p")


def test_a_profile_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file beyond the bound is not read."""
    (tmp_path / "p.json").write_text(json.dumps(LEAST))
    monkeypatch.setattr(module, "_LARGEST_FILE", 10)
    with pytest.raises(dlwhy.ProfileError, match="bytes, where dlwhy reads at most 10"):
        load(tmp_path / "p.json")


@pytest.mark.parametrize(
    "row",
    [
        1, {}, {"size": -1, "parts": []}, {"size": 1 << 63, "parts": []}, {"size": "9", "parts": []},
        {"size": 9, "parts": {}}, {"size": 9, "parts": [7]}, {"size": 9, "parts": [[0, 9]]},
        {"size": 9, "parts": [[0, 10, packed(b"x" * 10)]]}, {"size": 9, "parts": [[0, 0, packed(b"")]]},
        {"size": 9, "parts": [[4, 2, packed(b"ab")], [0, 4, packed(b"abcd")]]},
        {"size": 9, "parts": [[0, 4, packed(b"abcd")], [3, 2, packed(b"ab")]]},
        {"size": 9, "parts": [[-2, 4, packed(b"abcd")]]}, {"size": 9, "parts": [[True, 4, packed(b"abcd")]]},
        {"size": 1 << 40, "parts": [[0, LARGEST_PART + 1, packed(b"a")]]},
        {"size": 9, "parts": [[0, 4, packed(b"abc")]]}, {"size": 9, "parts": [[0, 4, packed(b"abcde")]]},
        {"size": 9, "parts": [[0, 4, "!!!"]]}, {"size": 9, "parts": [[0, 4, "Zm9vYmFy"]]},
        {"size": 9, "parts": [[0, 4, packed(b"abcd")[:-8]]]}, {"size": 9, "parts": [[0, 4, 0, 9]]},
        {"size": 9, "parts": [[0, 4, "a", "b"]]}, {"size": 9, "parts": [[0, 4, 5]]},
    ],
)  # fmt: skip
def test_a_damaged_part_is_a_missing_fact(row: Any) -> None:
    """What is wrong with one file is said of that file, when it is asked for."""
    made = described(a=row)

    def read() -> None:
        made.held.extent("/a")
        made.held.part("/a", 0)

    with pytest.raises(Unknown, match="what is in /a: that part of profile x is damaged"):
        read()


def test_a_bomb_is_not_unpacked() -> None:
    """A part that makes more than it says stops there, whatever it would make."""
    bomb = packed(bytes(1 << 28))
    made = described(a={"size": 4096, "parts": [[0, 4096, bomb]]})
    made.held.extent("/a")
    with pytest.raises(Unknown, match="damaged"):
        made.held.part("/a", 0)


def test_a_blob_is_beside_its_profile(tmp_path: Path) -> None:
    """A blob elsewhere, or shorter than its parts say, is damage."""
    for name in ("../blob", "/etc/passwd", 7, None, "blob"):
        text = json.dumps(LEAST | {"blob": name, "files": {"/a": {"size": 4, "parts": [[0, 4, 0, 99]]}}})
        (tmp_path / "p.json").write_text(text)
        (tmp_path / "blob").write_bytes(b"short")
        made = load(tmp_path / "p.json")
        made.held.extent("/a")
        with pytest.raises(Unknown, match="damaged"):
            made.held.part("/a", 0)


@pytest.mark.parametrize("row", [1, {"file": 7}, {"link": ["a"]}, {"link": {"a": 1}}, {"program": [1, [2]]}])
def test_a_damaged_directory_is_a_missing_fact(row: Any) -> None:
    """So is a directory whose names are not as they must be."""
    with pytest.raises(Unknown, match="damaged"):
        Profile("x", LEAST | {"tree": {"/": row}}).directory("/", "/a")


def test_profile_and_host_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands behind `profile:` is the longest name of a profile, and a host behind the colon that follows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b.json").write_text("")
    (tmp_path / "a").write_text("")
    assert split("debian12") == ("debian12", None)
    assert split("debian12:node") == ("debian12", "node")
    assert split("debian12:/a:b/c") == ("debian12", "/a:b/c")
    assert split("a:b.json") == ("a:b.json", None)
    assert split("a:c") == ("a", "c")
    assert split("none:c") == ("none:c", None)


def test_shipped_profiles_are_small() -> None:
    """All profiles together keep their bound, and each says which packages it was made of."""
    there = os.path.dirname(next(iter(shipped().values())))
    assert sum(os.path.getsize(f"{there}/{name}") for name in os.listdir(there)) <= LIMIT
    names = ["debian-sid", "debian11", "debian12", "debian13", "musl"]
    assert {*names, *(f"{name}-aarch64" for name in names[:-1])} <= set(shipped()) <= set(SOURCES)
    for name in shipped():
        made = load(name)
        assert made.data["packages"]
        assert made.kernel == {} == made.environment == made.shell


@pytest.mark.parametrize(
    ("name", "release"),
    [("debian11", "2.31"), ("debian12", "2.36"), ("debian13", "2.41"), ("debian-sid", None)],
)
@pytest.mark.parametrize("machine", ["", "-aarch64"])
def test_shipped_hosts_start(name: str, release: str | None, machine: str) -> None:
    """The hosts of each shipped profile start, and load the libraries that all have."""
    name += machine
    words = ["libstdc++.so.6", "libm.so.6", "libglib-2.0.so.0", "libnone.so.1"]
    for host in (None, "python3", "node"):
        report = dlwhy.check(words, dlwhy.Host.profile(name, host=host))
        assert report.host.startup.outcome == "loads", report.host.startup
        assert [step.outcome for step in report.steps] == ["loads", "loads", "loads", "fails"]
        assert release in (None, report.host.libc_version)
        assert report.host.profile == f"profile {name}"


def test_musl_is_read_as_memory() -> None:
    """Of musl's libc, whose model reads memory and hash tables, the profile has the bytes themselves."""
    rows = load("musl").data["files"]
    assert "/usr/lib/x86_64-linux-musl/libc.so" in rows
    assert not [path for path, row in rows.items() if "names" in row or any(len(part) > 4 for part in row["parts"])]
