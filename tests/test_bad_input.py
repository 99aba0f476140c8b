"""Bad input through the command: a prediction or one sentence, soon, and never a traceback.

`check` always predicts (10 would fail, 11 undecided); `tls` and `tree` end with 1 and one sentence where there is
nothing to tell. A larger campaign of damaged libraries: `python -m tests.mutations COUNT [SEED]`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import pytest

import dlwhy
from dlwhy.cli.main import main
from tests import mutations
from tests.elf.images import everything
from tests.elf_writer import LOCAL, TLS, Image, Reloc, Sym
from tests.fuzz.seeds import LOADER, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMANDS = ("check", "tls", "tree", "unresolved")
LONG = b"n" * 1_000_000


class Answer(NamedTuple):
    status: int
    out: str
    err: str


def ask(capsys: pytest.CaptureFixture[str], command: str, path: str, form: str = "text") -> Answer:
    """Run one command in this process."""
    status = main([command, path, "--format", form])
    found = capsys.readouterr()
    return Answer(status, found.out, found.err)


def one_sentence(text: str, path: str) -> None:
    """Whether an error says what is wrong with which file, in one paragraph without a traceback."""
    assert "Traceback" not in text
    assert text.endswith("\n") and not text.strip().count("\n\n")
    assert os.path.basename(path) in text


def reasonable(answer: Answer, command: str, path: str, form: str) -> None:
    """Whether an answer about a bad file is one that the interface allows."""
    if form == "json" and answer.out:
        made = json.loads(answer.out)
        assert made["command"] == command
        assert made["exit_status"] == answer.status
    if command == "check":
        assert answer.status in (10, 11), answer
        assert answer.err == ""
    elif command == "unresolved" and answer.status != 1:  # refused by the loader, or a directory with nothing in it
        assert answer.status in ((3,) if answer.err else (10, 11)), answer
    else:
        assert answer.status == 1, answer
        if form == "text":
            one_sentence(answer.out + answer.err, path)


# -- what is no library ----------------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Name -> path of things that are no library."""
    made = {
        "empty": b"", "short": b"\x7fEL", "text": b"hello\n" * 20, "script": b"#!/bin/true\n", "zeros": bytes(5000),
        "linker-script": b"/* GNU ld script */\nGROUP ( /lib/libc.so.6 AS_NEEDED ( /lib/ld.so ) )\n",
        "archive": b"!<arch>\n" + bytes(60), "ident-only": b"\x7fELF\2\1\1" + bytes(9),
        "other-class": b"\x7fELF\7\1\1" + bytes(100), "other-order": b"\x7fELF\2\7\1" + bytes(100),
        "header-only": everything().build().data[:64], "debug-file": debug_file(),
    }  # fmt: skip
    for name, data in made.items():
        (tmp_path / f"{name}.so").write_bytes(data)
    (tmp_path / "directory.so").mkdir()
    (tmp_path / "dangling.so").symlink_to("nowhere")
    (tmp_path / "circle.so").symlink_to("circle.so")
    os.mkfifo(tmp_path / "fifo.so")
    (tmp_path / "null.so").symlink_to("/dev/null")
    (tmp_path / "endless.so").symlink_to("/dev/zero")
    (tmp_path / "terminal.so").symlink_to("/dev/tty")
    names = [*made, "directory", "dangling", "circle", "fifo", "null", "endless", "terminal"]
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        here = os.open(tmp_path, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket.so")
        os.close(here)
        paths = {name: str(tmp_path / f"{name}.so") for name in [*names, "socket", "missing"]}
        paths["below-a-file"] = str(tmp_path / "text.so/x.so")
        paths["long"] = str(tmp_path / ("x" * 300)) + ".so"
        yield paths


def debug_file() -> bytes:
    """What objcopy --only-keep-debug leaves: headers with memory sizes but no bytes."""
    built = everything().build()
    data = bytearray(built.data)
    for number in range(7):
        at = built.at["phdrs"].offset + 56 * number
        data[at + 32 : at + 40] = bytes(8)
    return bytes(data)


ODD = (
    "empty", "short", "text", "script", "zeros", "linker-script", "archive", "ident-only", "other-class", "other-order",
    "header-only", "debug-file", "directory", "dangling", "circle", "fifo", "null", "endless", "terminal", "socket",
    "missing", "below-a-file", "long",
)  # fmt: skip


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", ODD)
def test_no_library(
    odd: dict[str, str], name: str, command: str, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is no library is predicted by `check`, and told in one sentence by `tls` and `tree`; nothing blocks."""
    reasonable(ask(capsys, command, odd[name], form), command, odd[name], form)


WORDS = {
    "empty": "file too short", "text": "invalid ELF header", "linker-script": "invalid ELF header",
    "zeros": "invalid ELF header", "directory": "cannot read file data: Is a directory",
    "dangling": "cannot open shared object file: No such file or directory",
    "circle": "cannot open shared object file: Too many levels of symbolic links",
    "endless": "invalid ELF header", "null": "file too short",
    "socket": "cannot open shared object file: No such device or address",
    "below-a-file": "cannot open shared object file: Not a directory",
    "long": "cannot open shared object file: File name too long",
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_the_loader_s_words(odd: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the loader would say something, `check` predicts its words."""
    answer = ask(capsys, "check", odd[name], "json")
    step = json.loads(answer.out)["steps"][0]
    assert (answer.status, step["message"]) == (10, f"{odd[name]}: {WORDS[name]}")


@pytest.mark.oracle
@pytest.mark.parametrize("name", WORDS)
def test_the_loader_says_so(odd: dict[str, str], name: str) -> None:
    """The real loader of this machine says the same words of each."""
    code = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1])\nexcept OSError as error: print(error)"
    done = subprocess.run(
        [sys.executable, "-c", code, odd[name]], capture_output=True, text=True, timeout=20, check=True
    )
    assert done.stdout == f"{odd[name]}: {WORDS[name]}\n"


@pytest.mark.parametrize("name", ["fifo", "terminal"])
def test_what_has_to_be_waited_for_is_undecided(
    odd: dict[str, str], name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the loader would read from a FIFO or a terminal is not known: it waits for whoever writes to it."""
    answer = ask(capsys, "check", odd[name])
    assert answer.status == 11 or "No such device or address" in answer.out
    if name == "fifo":
        assert f"whether anybody writes into {odd[name]}" in " ".join(answer.out.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="not run: only root can act another user")
@pytest.mark.parametrize("command", COMMANDS)
def test_unreadable(tmp_path: Path, command: str) -> None:
    """A file that may not be read is the loader's `Permission denied`, or one sentence."""
    path = tmp_path / "secret.so"
    path.write_bytes(everything().build().data)
    path.chmod(0)
    for directory in [tmp_path, *tmp_path.parents[:3]]:
        if directory.stat().st_uid == os.getuid() and str(directory) != "/tmp":
            directory.chmod(directory.stat().st_mode | 0o755)
    script = "import os, sys\nfrom dlwhy.cli.main import main\nos.setuid(65534)\nsys.exit(main(sys.argv[1:]))"
    warm = "import dlwhy.diagnose, dlwhy.render.json_v1, dlwhy.cli.arguments, dlwhy.fixes\n"
    done = subprocess.run(
        [sys.executable, "-c", warm + script, command, str(path), "--format", "json"], capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr or not os.access("/root", os.R_OK), done.stderr
    if "Traceback" in done.stderr:
        pytest.skip("not run: the other user cannot read this Python's own library")
    assert done.returncode == (10 if command == "check" else 1)
    assert os.strerror(errno.EACCES) in done.stdout + done.stderr


def test_names_that_are_no_text(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A file whose name, and whose symbols' names, are no UTF-8 is told by its bytes, in text and in JSON."""
    path = os.fsencode(tmp_path) + b"/lib\xff\xfe.so"
    image = everything(needed=[b"lib\xfd.so"], symtab=[Sym(b"v\xfc", 0, 8, LOCAL, TLS)])
    with open(path, "wb") as file:
        file.write(image.build().data)
    for command in COMMANDS:
        for form in ("text", "json"):
            done = subprocess.run(
                [sys.executable, "-m", "dlwhy", command, path, "--format", form],
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert b"Traceback" not in done.stderr
            assert done.returncode in ({"check": (10,), "tls": (0,), "tree": (10,), "unresolved": (10,)}[command])
            if form == "text":
                shown = b"".join(done.stdout.split())
                assert b"lib\xff\xfe.so" in shown or rb"lib\xff\xfe.so" in shown
            else:
                json.loads(done.stdout)
    assert capfdbinary.readouterr().out == b""


# -- hostile files: in a child with little time and memory -----------------------------------------------------------


def with_relocations(image: Image, kind: int, stride: int) -> bytes:
    """One relocation for each dynamic symbol; with a stride each name begins so many bytes behind the one before."""
    image.relocs, image.data = [Reloc(0, kind)] * len(image.symbols), bytes(64)
    built = image.build()
    data = bytearray(built.data)
    relocs, symbols = built.at["relocs"].offset, built.at["dynsym"].offset
    for number in range(1, len(image.symbols) + 1):
        at = relocs + 24 * (number - 1) + 12
        data[at : at + 4] = number.to_bytes(4, "little")
        if stride:
            data[symbols + 24 * number : symbols + 24 * number + 4] = (1 + stride * number).to_bytes(4, "little")
    return bytes(data)


def many(**fields: object) -> list[Sym]:
    """Fifty thousand symbols with one name of a megabyte."""
    return [Sym(LONG, **{"value": 8, "size": 8} | fields)] * 50_000  # type: ignore[arg-type]


def header(place: int, value: bytes) -> bytes:
    return everything().build().patched("ehdr", place, value)


def sparse() -> bytes:
    return Image(tags=[(10, 1 << 40)], symbols=[Sym("a", 1)]).build().data


HOSTILE: dict[str, Callable[[], bytes]] = {
    "phnum": lambda: header(56, b"\xff\xff"),
    "shnum": lambda: header(60, b"\xff\xff"),
    "phoff near 2^64": lambda: header(32, b"\xc8" + b"\xff" * 7),
    "phoff 2^63": lambda: header(32, bytes(7) + b"\x80"),
    "shoff": lambda: header(40, b"\xff" * 8),
    "one long name, wanted": lambda: with_relocations(Image(symbols=many(shndx=0)), 6, 0),
    "one long name, overlapping": lambda: with_relocations(Image(symbols=many(shndx=0)), 6, 7),
    "one long name, defined": lambda: with_relocations(Image(symbols=many(type=1), buckets=1), 6, 0),
    "one long name, SysV hash": lambda: with_relocations(Image(symbols=many(type=1), buckets=1, hash=("sysv",)), 6, 0),
    "one long name, TLS": lambda: with_relocations(Image(symbols=many(type=TLS), buckets=1, tls=(800, 8, b"")), 18, 0),
    "one long name, TLS overlapping": lambda: with_relocations(
        Image(symbols=many(type=TLS), buckets=1, tls=(800, 8, b"")), 18, 3
    ),
    "one long name, .symtab": lambda: Image(symtab=many(type=TLS, bind=LOCAL), tls=(800, 8, b"")).build().data,
    "60000 needed": lambda: Image(needed=[f"libnowhere{n}.so" for n in range(60_000)]).build().data,
    "4000 needed": lambda: Image(needed=[f"libnowhere{n}.so" for n in range(4000)]).build().data,
    "needed of a million digits": lambda: Image(needed=["9" * 1_000_000]).build().data,
    "needed of a megabyte": lambda: Image(needed=[LONG]).build().data,
    "runpath of 100000": lambda: Image(needed=["lx"], runpath=":".join(f"/d{n}" for n in range(100_000))).build().data,
    "runpath of tokens": lambda: Image(needed=["lx"], runpath="$ORIGIN" * 100_000).build().data,
    "30000 versions": lambda: Image(
        soname="v.so",
        needs={"v.so": [f"V{n}" for n in range(30_000)]},
        defines=["v.so", *(f"V{n}" for n in range(30_000))],
    ).build().data,
    "long interpreter": lambda: Image(type=2, entry=1, interp="x" * 100_000).build().data,
    "TLS of a terabyte": lambda: Image(tls=(1 << 40, 8, b""), symbols=[Sym("v", 0, 8, type=TLS)],
                                       relocs=[Reloc(0, 18, "v")], data=bytes(64)).build().data,
    "sparse": sparse,
}  # fmt: skip


def little() -> None:
    """A gigabyte of addresses and twenty seconds of processor time, which no answer needs."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (20, 20))


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(tmp_path: Path, name: str) -> None:
    """Whatever numbers stand in a file, each command answers within little memory and time."""
    path = tmp_path / "hostile.so"
    path.write_bytes(HOSTILE[name]())
    if name == "sparse":
        os.truncate(path, 1 << 42)
    for command, form in (("check", "text"), ("tls", "json"), ("tree", "text"), ("unresolved", "json")):
        done = subprocess.run(
            [sys.executable, "-m", "dlwhy", command, path, "--format", form], capture_output=True, preexec_fn=little,
            timeout=60, check=False,
        )  # fmt: skip
        assert b"Traceback" not in done.stderr, done.stderr[-500:]
        assert done.returncode in ((0, 10, 11) if command == "check" else (0, 1, 10, 11)), done


@pytest.mark.parametrize("size", range(0, 700, 23))
@pytest.mark.parametrize("command", COMMANDS)
def test_truncated(tmp_path: Path, command: str, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A library cut inside its headers or tables is predicted, or told in one sentence."""
    path = tmp_path / "cut.so"
    path.write_bytes(everything(needed=[]).build().data[:size])
    answer = ask(capsys, command, str(path))
    assert answer.status in ((10, 11) if command == "check" else (0, 1, 10))
    assert "Traceback" not in answer.out + answer.err


# -- damaged real libraries -----------------------------------------------------------------------------------------


@pytest.mark.machine
@pytest.mark.slow
@pytest.mark.parametrize("seed", [20, None], ids=["fixed", "fresh"])
def test_damaged_libraries(tmp_path: Path, seed: int | None) -> None:
    """Thousands of cut and bit-flipped copies of this machine's libraries: every answer is one the interface allows."""
    found = mutations.campaign(str(tmp_path / "damaged.so"), 1200, seed)
    print(f"seed {found.seed}: {found.statuses}")
    assert found.faults == [], f"seed {found.seed}"
    assert {("check", 10), ("tls", 0), ("tls", 1), ("tree", 0), ("tree", 1)} <= found.statuses.keys()


# -- programs that the loader cannot read ------------------------------------------------------------------------------


def _program(*patches: tuple[str, int, int, int], type_: int = 3, phdr: int | None = 0x40) -> bytes:
    """A program; each patch is (part of the file, where in it, bytes, value)."""
    image = Image(type=type_, entry=0x100, interp=LOADER, needed=["libc.so.6"], soname="libself.so")
    data = bytearray(image.build().data if phdr is None else program(image, phdr))
    built = image.build()
    for part, at, width, value in patches:
        place = built.at[part].offset + at
        data[place : place + width] = value.to_bytes(width, "little")
    return bytes(data)


def _tag(tag: int, new: int, value: int) -> tuple[tuple[str, int, int, int], ...]:
    """The patches that change an entry of the dynamic section of that program."""
    order = (1, 14, 0x6FFFFEF5, 6, 5)
    at = 16 * order.index(tag)
    return ("dynamic", at, 8, new), ("dynamic", at + 8, 8, value)


PROGRAMS = {
    "sound": (_program(), 0),
    "sound, at a fixed address": (_program(type_=2), 0),
    "fixed, without PT_PHDR": (_program(type_=2, phdr=None), 0),
    "without PT_PHDR": (_program(phdr=None), -11),
    "no string table": (_program(*_tag(5, 30, 0)), -11),
    "string table far away": (_program(*_tag(5, 5, 1 << 40)), -11),
    "its own name far away": (_program(*_tag(14, 14, 1 << 40)), -11),
    "PT_PHDR elsewhere": (_program(phdr=0x1040), None),
    "PT_PHDR far away": (_program(phdr=1 << 40), None),
}  # fmt: skip
"""Name -> bytes, and the exit status that dlwhy tells; None where it says that it does not know."""


@pytest.mark.oracle
@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A program that the loader cannot read dies of the same signal in the model, before any library is looked for."""
    data, told = PROGRAMS[name]
    path = tmp_path / "program"
    path.write_bytes(data)
    path.chmod(0o755)
    real = subprocess.run([path], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, timeout=20, check=False)
    report = dlwhy.check([], dlwhy.Host.executable(str(path)))
    startup = report.host.startup
    if told is None:
        assert (startup.outcome, report.exit_status) == ("undecided", 11)
        return
    assert (startup.exit_status or 0, report.exit_status) == (told, 10 if told else 0)
    assert real.returncode == told
    assert startup.outcome == ("dies" if told else "loads")
