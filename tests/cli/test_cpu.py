"""--cpu, and what is said where nothing tells the processor."""

from __future__ import annotations

import shutil

import pytest

import dlwhy
from dlwhy.cli.main import main
from dlwhy.errors import UsageError
from dlwhy.loader.objects import Objects


def test_other_machine_leaves_it_open(system, monkeypatch):
    """Where /proc/cpuinfo tells nothing an object that asks for a level is undecided, until --cpu names a processor."""
    monkeypatch.setattr(Objects, "cpu", lambda _: (None, None))

    def ask(cpu):
        host = dlwhy.Host.plain({})
        return dlwhy.check(["/app/libfuture.so"], host, sysroot=str(system.root), cpu=cpu).steps[0]

    assert ask(None).outcome == "undecided"
    assert "--cpu" in ask(None).because
    assert ask("x86-64-v3").outcome == "loads"
    assert ask("x86-64-v2").kind == "isa-level"


def test_bad_name_is_a_usage_error(system):
    """A name that is none is refused in one sentence that lists the others."""
    with pytest.raises(UsageError, match=r"--cpu i386: of x86-64, write x86-64, .* or avx512_1"):
        dlwhy.check(["/app/libgood.so"], dlwhy.Host.plain({}), sysroot=str(system.root), cpu="i386")


def test_loader_for_newer_processors(system, tmp_path):
    """A loader that was built for a higher level may refuse a processor: which, its strings do not tell."""
    root = tmp_path / "root"
    shutil.copytree(system.root, root, symlinks=True)
    loader = (root / "lib64/ld-linux-x86-64.so.2").resolve()
    assert loader.is_relative_to(root)
    old = b"/lib/x86_64-linux-gnu/\0/usr/lib/x86_64-linux-gnu/\0/lib/\0/usr/lib/\0"
    new = b"CPU does not support x86-64-v%d\0/lib/x86_64-linux-gnu/\0".ljust(len(old), b"\0")
    data = loader.read_bytes()
    assert old in data
    loader.write_bytes(data.replace(old, new))

    def ask(cpu):
        return dlwhy.check(["/app/libgood.so"], dlwhy.Host.plain({}), sysroot=str(root), cpu=cpu).steps[0]

    assert ask("x86-64-v2").outcome == "undecided"
    assert "built for x86-64-v2 or higher" in ask("x86-64-v2").because
    assert ask("x86-64-v4").outcome == "loads"
    assert ask(None).outcome == "loads"


def test_option(system, capsys):
    """--cpu of check and tree takes the names of the library and no other."""
    root = ["--sysroot", str(system.root), "--clear-env"]
    assert main(["check", "/app/libfuture.so", "--cpu", "x86-64-v3", *root]) == 0
    assert "taken to be x86-64-v3" in capsys.readouterr().out
    assert main(["check", "/app/libfuture.so", "--cpu", "x86-64", *root]) == 10
    assert main(["tree", "/app/libgood.so", "--cpu", "haswell", *root]) == 0
    capsys.readouterr()
    for command in ("check", "tree"):
        assert main([command, "/app/libgood.so", "--cpu", "i386", *root]) == 2
        complaint = capsys.readouterr().err
        assert "--cpu" in complaint
        assert complaint.count("\n") == 1
