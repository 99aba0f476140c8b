"""The command, through its installed entry: exit status, usage, output files, hosts, environment."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dlwhy.cli.main import main
from tests.cli.run import COMMAND, ENVIRONMENT, SOMEWHERE, dlwhy
from tests.elf_writer import Image
from tests.fixtures.real_hosts import BARE
from tests.oracle import real

SENTENCE = re.compile(r"dlwhy(?: [a-z]+)?: [^A-Z\n][^\n]*[^.\n]\n")


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("check", "/app/libgood.so"), 0),
        (("check", "/bin/host"), 0),
        (("check", "--host", "/bin/host"), 0),
        (("check", "/bin/broken"), 10),
        (("check", "/app/libneeds.so"), 10),
        (("check", "/app/notes.txt"), 10),
        (("check", "/app/nothing.so"), 10),
        (("check", "/app/libpltrel.so"), 10),
        (("check", "/app/libgood.so", "--libc", "glibc-2.99"), 11),
        (("check", "/app/libgood.so", "/app/nothing.so", "close:1"), 10),
        (("check",), 3),
        (("check", "--each", "/app/tree"), 0),
        (("check", "--each", "/app"), 10),
        (("check", "--each", "/lib64"), 0),
        (("check", "--each", "/app/folder.so"), 3),
        (("tls", "/app/index.node"), 0),
        (("tls", "/app/libgood.so"), 0),
        (("tls", "/app/index.node", "/app/notes.txt"), 1),
        (("tls", "/app/nothing.so"), 1),
        (("tls", "/app"), 1),
        (("tls",), 3),
        (("tree", "/app/libgood.so"), 0),
        (("tree", "/app/tree/top.so"), 10),
        (("tree", "/app/nothing.so"), 1),
        (("tree", "/app/notes.txt"), 1),
        (("tree",), 3),
        (("unresolved", "/app/libgood.so"), 0),
        (("unresolved", "/app/libundefined.so"), 10),
        (("unresolved", "/app/tree/top.so"), 10),
        (("unresolved", "/app/notes.txt"), 1),
        (("unresolved", "/app/nothing.so"), 1),
        (("unresolved", "/app/libgood.so", "--libc", "glibc-2.99"), 1),
        (("unresolved", "/app/folder.so"), 3),
        (("unresolved",), 3),
        (("diff", "/app/libgood.so", "/app/libgood.so"), 0),
        (("diff", "/app/libmixed.so", "/app/libbig.so"), 10),
        (("diff", "/app/libbig.so", "/app/libmixed.so"), 0),
        (("diff", "/app/libbig.so", "/app/libundefined.so"), 0),
        (("diff", "/app/libgood.so", "/app/libmixed.so", "--libc", "glibc-2.99"), 11),
        (("diff", "/app/libgood.so", "/app/notes.txt"), 1),
        (("diff", "/app/nothing.so", "/app/libgood.so"), 1),
        (("diff", "/app/folder.so", "/app/folder.so"), 3),
        (("diff",), 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_exit_status(system, words: tuple[str, ...], status: int) -> None:
    """Each outcome has the exit status of the contract, in text and in JSON."""
    if words == ("check", "--each", "/app/tree"):
        status = 10  # liba.so needs what is missing
    for form in ("text", "json"):
        done = dlwhy(*words, "--sysroot", system.root, "--format", form)
        assert done.status == status
        assert "Traceback" not in done.err
        if form == "json" and "--each" not in words and done.out:
            assert json.loads(done.out)["exit_status"] == status


@pytest.mark.parametrize(
    "words",
    [
        ("check", "--no-such-option"), ("check", "--host"), ("check", "--format", "yaml", "x.so"), ("nonsense",), (),
        ("check", "close:1"), ("check", "sym:1", "x.so"), ("check", "now-lazy:x.so"), ("check", "x.so", "close:2"),
        ("check", "--host", "no-such-program", "x.so"), ("check", "--host", "pid:1", "x.so"),
        ("check", "--env", "NAME", "x.so"), ("check", "--env", "=1", "x.so"), ("check", "--libc", "musl", "x.so"),
        ("check", "--sysroot", "/no/such", "x.so"), ("check", "-o", "json", "x.so"), ("check", "-o", "svg=x", "x.so"),
        ("check", "--lib", "x", "x.so"), ("tree", "a.so", "b.so"), ("tls", "--host", "plain", "a.so"),
        ("check", "--host", "/etc/passwd", "x.so"), ("diff", "x.so"), ("diff", "a", "b", "c"), ("diff", "/", SOMEWHERE),
        ("diff", "a", "b", "--format", "markdown"), ("diff", "a", "b", "--on", "no-such-system"),
        ("diff", "a", "b", "--on", "debian12", "--sysroot", "/"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_usage(words: tuple[str, ...]) -> None:
    """A question that cannot be asked is exit status 2 and one sentence on standard error."""
    done = dlwhy(*words)
    assert done.status == 2
    assert done.out == ""
    assert SENTENCE.fullmatch(done.err), done.err


def test_a_file_instead_of_a_command() -> None:
    """Someone who forgets the command is told it."""
    done = dlwhy(SOMEWHERE)
    assert done.status == 2
    assert done.err == f"dlwhy: name a command first, e.g. `dlwhy check {SOMEWHERE}`\n"


@pytest.mark.parametrize(
    "words", [("--help",), ("check", "--help"), ("tls", "--help"), ("tree", "-h"), ("unresolved", "-h")]
)
def test_help(words: tuple[str, ...]) -> None:
    """Help goes to standard output and tells the exit codes or the commands."""
    for width in (60, 80, 120):
        done = dlwhy(*words, env={"COLUMNS": str(width)})
        assert (done.status, done.err) == (0, "")
        assert "exit status:" in done.out or "commands:" in done.out
        assert max(map(len, done.out.splitlines())) <= width


def test_files_named_like_options(tmp_path: Path) -> None:
    """A file whose name begins like an option can be named behind `--`, or with its directory; one like a step, too."""
    for name in ("-q", "--each", "close:1", "now:x.so"):
        shutil.copy(SOMEWHERE, tmp_path / name)
        asked = [("tls", "--", name), ("tls", f"./{name}"), ("check", f"./{name}"), ("check", "--each", "--", name)]
        for words in asked:
            done = dlwhy(*words, cwd=tmp_path)
            assert done.status == 0, (words, done)
            assert name in done.out


def test_output_files(system, tmp_path: Path) -> None:
    """-o writes each format to its file, from one analysis, and standard output stays as it is."""
    words = ("check", "/app/index.node", "--sysroot", system.root, "--host", "plain")
    files = ("-o", f"json={tmp_path}/r.json", "-o", f"text={tmp_path}/r.txt", "-o", f"json={tmp_path}/again")
    both = dlwhy(*words, *files)
    assert both.status == 10
    assert both.out == dlwhy(*words).out == (tmp_path / "r.txt").read_text("utf-8")
    assert (tmp_path / "r.json").read_text("utf-8") == dlwhy(*words, "--format", "json").out
    assert (tmp_path / "again").read_bytes() == (tmp_path / "r.json").read_bytes()


def test_output_file_that_cannot_be_written(tmp_path: Path) -> None:
    """A file that cannot be written is exit status 1 and one sentence, before any work is done."""
    done = dlwhy("check", SOMEWHERE, "-o", f"json={tmp_path}/no/such/file")
    assert (done.status, done.out) == (1, "")
    assert SENTENCE.fullmatch(done.err)
    full = dlwhy("check", SOMEWHERE, "-o", "json=/dev/full")
    assert full.status == 1
    assert SENTENCE.fullmatch(full.err)


def test_environment() -> None:
    """--env sets a variable of the process, --clear-env starts from nothing, and the report tells what counts."""
    outer = {"LD_LIBRARY_PATH": "/outer", "UNRELATED": "1"}
    asked = ("check", "libm.so.6", "--format", "json")
    for words, want in (
        ((), {"LD_LIBRARY_PATH": "/outer"}),
        (("--env", "LD_LIBRARY_PATH=/inner"), {"LD_LIBRARY_PATH": "/inner"}),
        (("--env", "LD_BIND_NOW="), {"LD_LIBRARY_PATH": "/outer", "LD_BIND_NOW": ""}),
        (("--clear-env",), {}),
        (("--clear-env", "--env", "LD_LIBRARY_PATH=a=b"), {"LD_LIBRARY_PATH": "a=b"}),
    ):
        assert json.loads(dlwhy(*asked, *words, env=outer).out)["host"]["environment"] == want


def test_working_directory(tmp_path: Path) -> None:
    """--cwd is where relative names are looked up, as if the process had been started there."""
    shutil.copy(SOMEWHERE, tmp_path / "here.so")
    assert dlwhy("check", "./here.so", cwd=Path("/")).status == 10
    inside = dlwhy("check", "./here.so", "--cwd", tmp_path, cwd=Path("/"))
    assert inside.status == 0
    assert inside.out == dlwhy("check", "./here.so", cwd=tmp_path).out
    assert dlwhy("check", "--each", "here.so", "--cwd", tmp_path, cwd=Path("/")).status == 0
    assert dlwhy("check", "--each", ".", "--cwd", tmp_path, cwd=Path("/")).status == 0


def test_a_name_without_slash(tmp_path: Path) -> None:
    """A file of the working directory is not found by its bare name, as dlopen would not, and the report says so."""
    shutil.copy(SOMEWHERE, tmp_path / "here.so")
    done = dlwhy("check", "here.so", cwd=tmp_path)
    assert done.status == 10
    assert "write ./here.so" in done.out


def test_a_broken_pipe() -> None:
    """When its reader goes away dlwhy ends quietly, with the status that a shell gives for SIGPIPE."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [COMMAND, "check", SOMEWHERE], env=ENVIRONMENT, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize(
    ("words", "env", "colored"),
    [
        (("--color", "always"), {}, True),
        (("--color", "never"), {}, False),
        ((), {}, False),
        (("--color", "always"), {"NO_COLOR": "1"}, True),
        (("--color", "always", "--format", "json"), {}, False),
    ],
)
def test_colour(system, words: tuple[str, ...], env: dict[str, str], colored: bool) -> None:
    """Colour is for terminals, or for whoever asks; JSON never has any."""
    done = dlwhy("check", "/app/notes.txt", "--sysroot", system.root, *words, env=env)
    assert ("\x1b[" in done.out) is colored


@pytest.mark.parametrize(
    ("env", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colour_on_a_terminal(system, env: dict[str, str], colored: bool) -> None:
    """On a terminal there is colour, unless NO_COLOR or a dumb terminal forbids it; its width is used."""
    import pty
    import struct
    import termios
    from fcntl import ioctl

    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 90, 0, 0))
    given = {**ENVIRONMENT, "TERM": "xterm", **env}
    done = subprocess.run(
        [COMMAND, "check", "/app/libneeds.so", "--sysroot", system.root], env=given, stdout=theirs,
        stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False,
    )  # fmt: skip
    os.close(theirs)
    shown = os.read(ours, 65536).decode("utf-8")
    os.close(ours)
    assert (done.returncode, done.stderr) == (10, b"")
    assert ("\x1b[" in shown) is colored
    first = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()[0]
    assert len(first) == 90
    assert first.endswith("not-found")


def test_ascii_terminal(system) -> None:
    """Where the output cannot carry more than ASCII, nothing more is written."""
    done = dlwhy("tree", "/app/tree/top.so", "--sysroot", system.root, env={"PYTHONIOENCODING": "ascii"})
    assert done.out.isascii()
    assert "|-- " in done.out


def test_columns(system) -> None:
    """COLUMNS is believed when it is a number, and ignored when it is none."""
    words = ("check", "/app/libneeds.so", "--sysroot", system.root)
    assert len(dlwhy(*words, env={"COLUMNS": "85"}).out.splitlines()[0]) == 85
    for nonsense in ("", "0", "-3", "wide", "9" * 5000, "²"):
        done = dlwhy(*words, env={"COLUMNS": nonsense})
        assert (done.status, len(done.out.splitlines()[0])) == (10, 120)


def hostile(directory: Path) -> str:
    """A file whose name holds an escape code, a C1 control and a byte that is no UTF-8."""
    name = os.fsdecode(b"e\x1b]0;x\x07\xc2\x9b31m\xff.so")
    (directory / name).write_text("no library")
    return name


@pytest.mark.oracle
def test_hostile_names(tmp_path: Path) -> None:
    """A name with escape codes reaches the terminal escaped, and JSON with the very bytes that dlerror() returns."""
    name = hostile(tmp_path)
    path = f"{tmp_path}/{name}"
    [step] = real.run(Path("/"), [path], BARE, "/", tmp_path / "work", None).steps
    report = json.loads(dlwhy("check", path, "--format", "json").out)
    assert os.fsencode(report["steps"][0]["message"]) == step.message
    for words in (("check",), ("tls",), ("tree",), ("check", "--each", str(tmp_path)), ("check", "x", "--host")):
        done = dlwhy(*words, path)
        for shown in (done.out, done.err):
            assert all(one == "\n" or one.isprintable() for one in shown), words
        assert "\\x1b]0;x\\x07\\x9b31m\\xff.so" in done.out + done.err


def test_a_chain_of_a_thousand(tmp_path: Path) -> None:
    """A chain of a thousand libraries is checked; a tree that is too deep to be drawn is told in a sentence."""
    last = 1200
    for place in range(last + 1):
        needs: list[str | bytes] = [f"lib{place + 1}.so"] if place < last else ["libc.so.6"]
        (tmp_path / f"lib{place}.so").write_bytes(Image(needed=needs, soname=f"lib{place}.so").build().data)
    first = str(tmp_path / "lib0.so")
    env = ("--env", f"LD_LIBRARY_PATH={tmp_path}")
    assert dlwhy("check", first, *env).status == 0
    for form in ("text", "json"):
        done = dlwhy("tree", first, *env, "--format", form)
        assert done.status in {0, 1}
        assert done.status == 0 or SENTENCE.fullmatch(done.err)


@pytest.mark.parametrize("collects", [True, False])
def test_who_calls_main_goes_on_as_before(collects: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """A call from Python leaves the garbage collector as it found it."""
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        assert main(["check", SOMEWHERE]) == 0
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
    assert "would load" in capsys.readouterr().out


def test_json_of_a_failed_command() -> None:
    """When dlwhy itself fails, JSON is not half written: standard output stays empty."""
    done = dlwhy("check", "--loader", "/etc/passwd", "x.so", "--format", "json")
    assert (done.status, done.out) == (1, "")
    assert SENTENCE.fullmatch(done.err)
