"""Debug files from a server: a real one of this machine's own, by build-id, and what is said when there is none."""

from __future__ import annotations

import functools
import http.server
import os
import socket
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.elf.file import Elf
from dlwhy.elf.notes import build_id
from dlwhy.files import Files
from tests.fixtures.libraries import gcc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dlwhy.report_tls import TlsFile

SOURCE = "static __thread char hidden[900]; __thread int seen; char *f(int i) { seen++; return hidden + i; }\n"


class Served(list[str]):
    """The paths that were asked for."""

    url = ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    """A server of the directory `served`."""
    asked = Served()
    (tmp_path / "served").mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_request(self, *_: object) -> None:
            asked.append(self.path)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    made = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=str(tmp_path / "served"))
    )
    asked.url = f"http://127.0.0.1:{made.server_port}"
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    try:
        yield asked
    finally:
        made.shutdown()
        made.server_close()


@pytest.fixture
def stripped(tmp_path: Path) -> tuple[Path, Path, str]:
    """A stripped library, its debug file, and their build-id."""
    (tmp_path / "x.c").write_text(SOURCE)
    whole = gcc(tmp_path / "whole.so", "-O1", "-shared", "-fPIC", "-Wl,--build-id", tmp_path / "x.c")
    debug, bare = tmp_path / "x.debug", tmp_path / "libx.so"
    subprocess.run(["objcopy", "--only-keep-debug", whole, debug], check=True)
    subprocess.run(["strip", "-s", "-o", bare, whole], check=True)
    identity = build_id(Elf(Files().open(str(bare))))
    assert identity is not None
    return bare, debug, identity


def ask(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, urls: str, path: Path, debuginfod: bool = True) -> TlsFile:
    """The answer of `tls` with these servers and a cache of the test's own; its sum must be right."""
    monkeypatch.setenv("DEBUGINFOD_URLS", urls)
    monkeypatch.setenv("DEBUGINFOD_CACHE_PATH", str(tmp_path / "cache"))
    monkeypatch.setenv("DEBUGINFOD_TIMEOUT", "2")
    (found,) = dlwhy.tls([path], debuginfod=debuginfod).files
    assert found.error is None and found.tls is not None
    assert sum(one.bytes for one in found.tls.shares) + found.tls.padding + found.tls.unattributed == found.tls.size
    return found


def place(tmp_path: Path, debug: Path, identity: str) -> None:
    """Put a debug file where the server has it."""
    target = tmp_path / "served/buildid" / identity / "debuginfo"
    target.parent.mkdir(parents=True)
    target.write_bytes(debug.read_bytes())


def names(found: TlsFile) -> set[str | None]:
    """The variables of a bill."""
    assert found.tls is not None
    return {one.variable for one in found.tls.shares}


def test_names_from_a_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Served, stripped: tuple[Path, Path, str]
) -> None:
    """The debug file is fetched once, kept, and names every variable; without the option nobody is asked."""
    bare, debug, identity = stripped
    place(tmp_path, debug, identity)
    assert "hidden" not in names(ask(monkeypatch, tmp_path, server.url, bare, debuginfod=False))
    assert server == []
    for _ in range(2):
        found = ask(monkeypatch, tmp_path, f"{server.url}/nothing {server.url}/", bare)
        assert names(found) == {"hidden", "seen"}
        assert not [one for one in found.findings if one.rule == "unread-evidence"]
    assert server == [f"/nothing/buildid/{identity}/debuginfo", f"/buildid/{identity}/debuginfo"]
    assert os.listdir(tmp_path / "cache" / identity) == ["debuginfo"]


def test_a_server_without_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Served, stripped: tuple[Path, Path, str]
) -> None:
    """What no server has is one finding that says who was asked; the bill stands."""
    found = ask(monkeypatch, tmp_path, server.url, stripped[0])
    (one,) = [one for one in found.findings if one.rule == "unread-evidence"]
    assert "no server has a debug file" in one.message and "404" in one.message


def test_another_build(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Served, stripped: tuple[Path, Path, str]
) -> None:
    """A debug file of another build is not believed, whoever sends it."""
    bare, debug, identity = stripped
    data = debug.read_bytes()
    debug.write_bytes(data.replace(bytes.fromhex(identity), bytes(len(identity) // 2)))
    place(tmp_path, debug, identity)
    found = ask(monkeypatch, tmp_path, server.url, bare)
    assert "hidden" not in names(found)
    assert any("of another build" in one.message for one in found.findings)


@pytest.mark.parametrize("urls", ["", "ftp://example.invalid", "http://127.0.0.1:9"])
def test_no_server(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, urls: str, stripped: tuple[Path, Path, str]
) -> None:
    """Without a server, or with one that does not answer, that is said."""
    found = ask(monkeypatch, tmp_path, urls, stripped[0])
    (one,) = [one for one in found.findings if one.rule == "unread-evidence"]
    assert "DEBUGINFOD_URLS names no server" in one.message or "Connection refused" in one.message


def test_a_server_that_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, stripped: tuple[Path, Path, str]
) -> None:
    """One that takes the question and never answers is given up after DEBUGINFOD_TIMEOUT."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = ask(monkeypatch, tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", stripped[0])
    assert any("timed out" in one.message for one in found.findings)


def test_an_object_that_has_its_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: Served, stripped: tuple[Path, Path, str]
) -> None:
    """Of a file with a whole symbol table nobody is asked."""
    assert names(ask(monkeypatch, tmp_path, server.url, tmp_path / "whole.so")) == {"hidden", "seen"}
    assert server == [] and stripped
