"""A program by path or name: held against what execve(2), env(1) and a shell's PATH really start."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dlwhy
from dlwhy.elf.file import Elf
from dlwhy.files import Files
from dlwhy.hosts.executable import is_program, standalone
from dlwhy.view import View
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, need, predicted

PRINTER = 'import os, sys; print(os.readlink("/proc/self/exe")); print(" ".join(sys.argv[1:]))\n'


def program(source: str, folder: Path, *flags: str, name: str = "program") -> Path:
    """A program that gcc builds from C."""
    file = folder / f"{name}.c"
    file.write_text(source)
    return gcc(folder / name, "-w", *flags, file)


def script(path: Path, text: str) -> Path:
    """A script with its execute bit."""
    path.write_text(text)
    path.chmod(0o755)
    return path


def chosen(host: str | Path, env: dict[str, str] | None = None, cwd: Path | str = "/") -> str | None:
    """The executable that dlwhy takes for a HOST."""
    return dlwhy.check([], host=dlwhy.Host.executable(host, env or BARE), cwd=str(cwd)).host.executable


def started(path: Path, cwd: Path | str = "/", env: dict[str, str] | None = None) -> str:
    """The executable that the kernel really runs for a script of ours, as the interpreter itself tells."""
    done = subprocess.run([str(path)], capture_output=True, text=True, check=True, cwd=cwd, env=env or BARE)
    return done.stdout.splitlines()[0]


PYTHON = os.path.realpath("/usr/bin/python3")


@pytest.mark.oracle
@pytest.mark.parametrize(
    "line",
    [
        "#!/usr/bin/python3",
        "#! /usr/bin/python3",
        "#!\t/usr/bin/python3 -I",
        "#!/usr/bin/env python3",
        "#!/usr/bin/env -S python3 -I",
        "#!/usr/bin/env -S -u HOME -i PATH=/usr/bin:/bin LANG=C python3 -I",
    ],
)
def test_first_lines(tmp_path: Path, line: str) -> None:
    """Of a script by path the program is the one that the kernel and env start."""
    if not Path("/usr/bin/python3").exists():
        pytest.skip("not run: no /usr/bin/python3 here")
    path = script(tmp_path / "run", f"{line}\n{PRINTER}")
    found = chosen(path)
    assert found is not None
    assert os.path.realpath(found) == started(path) == PYTHON
    report = dlwhy.check([], host=dlwhy.Host.executable(path, BARE))
    assert any(str(path) in finding.message for finding in report.findings if finding.rule == "host-script")


@pytest.mark.oracle
def test_a_script_for_a_script(tmp_path: Path) -> None:
    """An interpreter may be a script; after five in a row the kernel gives up, and so does dlwhy."""
    real: str | None = ""
    previous = script(tmp_path / "s0", f"#!/usr/bin/python3\n{PRINTER}")
    for level in range(1, 8):
        path = script(tmp_path / f"s{level}", f"#!{previous}\n{PRINTER}")
        try:
            real = started(path)
        except OSError:
            real = None
        if real is None:
            with pytest.raises(dlwhy.UsageError, match="scripts one behind the other"):
                chosen(path)
        else:
            assert os.path.realpath(chosen(path) or "") == real, level
        previous = path
    assert real is None


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("#!/usr/bin/env python3 -I", "'python3 -I'"),
        ("#!/no/such/interpreter", "No such file"),
        ("#!", "names no interpreter"),
        ("echo hello", "neither an ELF program nor a script"),
    ],
)
def test_first_lines_that_start_nothing(tmp_path: Path, line: str, word: str) -> None:
    """What the kernel or env cannot start is refused with one sentence that says why."""
    path = script(tmp_path / "run", f"{line}\n")
    with pytest.raises(dlwhy.UsageError) as caught:
        chosen(path)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    with contextlib.suppress(OSError):
        assert subprocess.run([str(path)], capture_output=True, check=False, env=BARE, timeout=10).returncode != 0


def test_env_without_a_program(tmp_path: Path) -> None:
    """Behind env -S must stand a program; without one env starts the script again, for ever (not tried here)."""
    path = script(tmp_path / "run", "#!/usr/bin/env -S -i\n")
    with pytest.raises(dlwhy.UsageError, match="names no program"):
        chosen(path)


def test_a_host_that_is_no_program(tmp_path: Path) -> None:
    """A directory, a missing file and a library are no hosts: one sentence each."""
    library = next(Path("/lib/x86_64-linux-gnu").glob("libz.so.*"), None)
    for host in (tmp_path, tmp_path / "missing", *([library] if library else [])):
        with pytest.raises(dlwhy.UsageError) as caught:
            chosen(host)
        assert str(host) in str(caught.value)


@pytest.mark.oracle
def test_scripts_on_path_are_passed_over(tmp_path: Path) -> None:
    """A shell script found on PATH, such as pyenv's shims, is reported and the next ELF file of that name is taken."""
    first, second, third = (tmp_path / name for name in ("shims", "other", "real"))
    for folder in (first, second, third):
        folder.mkdir()
    script(first / "tool", "#!/bin/sh\nexit 0\n")
    (second / "tool").write_text("not executable")
    real = program("int main(void) { return 0; }", third, name="tool")
    env = {**BARE, "PATH": f"{first}:{second}:{third}"}
    report = dlwhy.check([], host=dlwhy.Host.executable("tool", env))
    assert (report.host.name, report.host.executable) == ("tool", str(real))
    (finding,) = [one for one in report.findings if one.rule == "host-script"]
    assert str(first / "tool") in finding.message
    (third / "tool").unlink()
    with pytest.raises(dlwhy.UsageError, match="no program of that name on PATH"):
        dlwhy.check([], host=dlwhy.Host.executable("tool", env))


@pytest.mark.oracle
def test_an_empty_part_of_path_is_the_current_directory(tmp_path: Path) -> None:
    """PATH is searched as a shell does: an empty part, and a relative one, count from the working directory."""
    inner = tmp_path / "bin"
    inner.mkdir()
    here, there = (program("int main(void) { return 0; }", folder, name="mine") for folder in (tmp_path, inner))
    for path, expected in ((":/bin", here), ("bin:/bin", there)):
        found = chosen("mine", {**BARE, "PATH": path}, tmp_path)
        told = subprocess.run(
            ["/bin/sh", "-c", "command -v mine"], capture_output=True, text=True, check=True, cwd=tmp_path,
            env={"PATH": path},
        ).stdout.strip()  # fmt: skip
        assert found is not None
        assert os.path.samefile(found, expected) and os.path.samefile(tmp_path / told, expected)


def test_env_on_the_first_line_sets_variables(tmp_path: Path) -> None:
    """What env -S sets for the interpreter is in the modelled process's environment."""
    path = script(tmp_path / "run", "#!/usr/bin/env -S LD_BIND_NOW=1 true\n")
    need("true")
    report = dlwhy.check([], host=dlwhy.Host.executable(path, BARE))
    assert report.host.environment["LD_BIND_NOW"] == "1"


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [(("-no-pie",), True), (("-pie", "-fPIE"), True), (("-static",), True), (("-static-pie",), True)],
)
def test_programs_and_libraries_are_told_apart(tmp_path: Path, flags: tuple[str, ...], wanted: bool) -> None:
    """What gcc links as a program is one, a shared library is none, nor is libc, which has an entry point."""
    files = Files()
    built = program("int main(void) { return 0; }", tmp_path, *flags)
    assert is_program(Elf(files.open(str(built)))) == wanted
    library = gcc(tmp_path / "lib.so", "-shared", "-fPIC", tmp_path / "program.c")
    assert not is_program(Elf(files.open(str(library))))
    libc = next(iter(sorted(Path("/lib").glob("*/libc.so.6"))), None)
    if libc is not None:
        assert not is_program(Elf(files.open(str(libc))))
    files.close()


@pytest.mark.oracle
def test_a_program_given_as_step_is_the_host(tmp_path: Path) -> None:
    """One program without flags and without a host asks whether it starts; with a flag, whether dlopen takes it."""
    source = "int main(void) { return 0; }"
    for flags, message in ((("-pie", "-fPIE"), "position-independent executable"), (("-no-pie",), "dynamically load")):
        built = program(source, tmp_path, *flags)
        alone = dlwhy.check([built], host=dlwhy.Host.inferred(BARE))
        assert (alone.steps, alone.host.startup.outcome, alone.host.executable) == ((), "loads", str(built))
        assert subprocess.run([str(built)], check=False, env=BARE).returncode == 0
        opened = dlwhy.check([f"now:{built}"], host=dlwhy.Host.inferred(BARE))
        assert opened.host.name == "plain"
        assert opened.steps[0].message is not None and message in opened.steps[0].message


@pytest.mark.oracle
@pytest.mark.parametrize("flag", ["-static", "-static-pie"])
def test_a_static_program_starts(tmp_path: Path, flag: str) -> None:
    """No loader takes part in the start of a static program: it starts whatever LD_PRELOAD says, and loads nothing."""
    built = program("int main(void) { return 0; }", tmp_path, flag)
    env = {**BARE, "LD_PRELOAD": "/no/such.so"}
    report = dlwhy.check([], host=dlwhy.Host.executable(built, env))
    assert (report.host.startup.outcome, report.host.startup.loaded) == ("loads", (str(built),))
    assert (report.host.loader, report.host.libc, report.static_tls) == (None, None, None)
    done = subprocess.run([str(built)], env=env, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    step = predicted(str(built), ["libz.so.1"]).steps[0]
    assert step.outcome == "undecided" and "statically linked" in step.because


@pytest.mark.oracle
def test_a_program_whose_interpreter_is_not_there(tmp_path: Path) -> None:
    """The kernel refuses a program whose PT_INTERP leads nowhere, and a shell exits as dlwhy says."""
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("no directory")
    for name in ("none", "loop", "file/loader", "n" * 300):
        built = program("int main(void) { return 0; }", tmp_path, f"-Wl,--dynamic-linker={tmp_path}/{name}")
        with pytest.raises(OSError) as refusal:  # noqa: PT011 -- its number is compared below
            subprocess.run([str(built)], check=False)
        report = dlwhy.check([built])
        start = report.host.startup
        assert (start.outcome, start.message, start.kind) == ("fails", None, "no-interpreter")
        assert os.strerror(refusal.value.errno or 0) in (start.because or "")
        shell = subprocess.run(["/bin/sh", "-c", str(built)], capture_output=True, check=False)
        assert start.exit_status == shell.returncode
        assert predicted(str(built), ["libz.so.1"]).steps[0].outcome == "fails"


@pytest.mark.oracle
def test_a_program_without_dlopen_loads_nothing(tmp_path: Path) -> None:
    """A static program that has no dlopen at all opens nothing, and steps that need its handle fail."""
    source = 'void _start(void) { __asm__ volatile("mov $60, %eax; xor %edi, %edi; syscall"); }'
    built = program(source, tmp_path, "-static", "-nostdlib")
    assert subprocess.run([str(built)], check=False).returncode == 0
    report = predicted(str(built), ["/lib/libz.so.1", "close:1", "sym:1:x"])
    assert [(one.outcome, one.kind, one.message) for one in report.steps] == [
        ("fails", "no-dlopen", None), ("fails", "not-open", None), ("fails", "not-open", None),
    ]  # fmt: skip
    assert report.exit_status == 10
    tree = dlwhy.tree(built)
    assert (tree.error, tree.objects, tree.root.path) == (None, 1, str(built))


def test_the_dlopen_of_musl(tmp_path: Path) -> None:
    """A static musl program has a dlopen that always fails with one sentence, which dlwhy gives."""
    source = (
        'const char text[] = "Dynamic loading not supported"; void _start(void) { for (;;) *(volatile char *)text; }'
    )
    built = program(source, tmp_path, "-static", "-nostdlib")
    (step,) = predicted(str(built), ["/lib/libz.so.1"]).steps
    assert (step.outcome, step.kind, step.message) == ("fails", "no-dlopen", "Dynamic loading not supported")


def test_a_text_across_two_pieces_is_found(tmp_path: Path) -> None:
    """The words of a dlopen are found wherever in the file they stand."""
    source = "void _start(void) { for (;;) ; }"
    data = bytearray(program(source, tmp_path, "-static", "-nostdlib", "-Wl,-z,noseparate-code").read_bytes())
    from struct import pack_into, unpack_from

    (phoff,) = unpack_from("<Q", data, 32)
    size = (1 << 20) + 4096
    pack_into("<QQQQQ", data, phoff + 8, 0, 0x400000, 0x400000, size, size)  # the first PT_LOAD: all of it
    for place in (5000, (1 << 20) - 7, (1 << 20) + 100):
        whole = bytes(data[:4096]).ljust(place, b"\0") + b"invalid mode for dlopen()"
        found = standalone(Elf(View("made", whole.ljust(size, b"\0"))))
        assert found is not None and found.dlopen == "own", place
    found = standalone(Elf(View("made", bytes(data[:4096]).ljust(size, b"\0"))))
    assert found is not None and found.dlopen == "none"


def test_this_python_is_dynamically_linked() -> None:
    """A program with PT_INTERP is no standalone one."""
    files = Files()
    elf = Elf(files.open(os.path.realpath(sys.executable)))
    assert elf.interp is not None
    assert standalone(elf) is None
    files.close()
