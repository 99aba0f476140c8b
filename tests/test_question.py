"""From the words of a question to a process, held against real processes that are asked the same."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.question import mode_words, parse_step
from tests.fixtures.libraries import gcc, initial_exec, thread_local
from tests.fixtures.real_hosts import BARE, host_program, open_in, predicted, raw, tunable

if TYPE_CHECKING:
    from collections.abc import Iterator

# -- steps -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "action", "name", "words"),
    [
        ("libfoo.so", "open", "libfoo.so", "lazy-local"),
        ("global-lazy:./libfoo.so", "open", "./libfoo.so", "lazy-global"),
        ("now-deepbind-nodelete:x", "open", "x", "now-local-deepbind-nodelete"),
        ("noload:x", "open", "x", "lazy-local-noload"),
        ("newns:x", "open", "x", "lazy-local-newns"),
        ("now:", "open", "", "now-local"),
        ("C:\\lib.so", "open", "C:\\lib.so", "lazy-local"),
        ("later:x", "open", "later:x", "lazy-local"),
        ("now-later:x", "open", "now-later:x", "lazy-local"),
        ("close:12", "close", "", "lazy-local"),
        ("sym:1:a:b", "sym", "a:b", "lazy-local"),
        ("call:2:f", "call", "f", "lazy-local"),
    ],
)
def test_steps_are_read(text: str, action: str, name: str, words: str) -> None:
    """Each form of a step is read as the grammar says; what only looks like flags is part of the name."""
    request = parse_step(text)
    assert (request.action, request.name) == (action, name)
    assert mode_words(request.mode, request.new_namespace) == words


@pytest.mark.parametrize(
    "text",
    [
        "close:", "close:0", "close:x", "close:-1", "close:1:x", "sym:1", "sym:1:", "call::f", "sym:²:f", "now-lazy:x",
        "global-local:x", "close:99999999999999999999",
    ],
)  # fmt: skip
def test_malformed_steps_are_refused(text: str) -> None:
    """A step that contradicts itself or names no step is a question that cannot be asked."""
    with pytest.raises(dlwhy.UsageError) as caught:
        dlwhy.check(["libm.so.6", text], host=dlwhy.Host.plain(BARE))
    assert "\n" not in str(caught.value)


def test_a_step_refers_back_only() -> None:
    """Close, sym and call need a step before them."""
    for text in ("close:1", "close:2", "sym:3:x"):
        with pytest.raises(dlwhy.UsageError, match="does not come before it"):
            dlwhy.check([text, "libm.so.6"], host=dlwhy.Host.plain(BARE))


# -- hosts that are inferred -------------------------------------------------------------------------------------------


def said_by(python: str, code: str) -> str:
    """What a program prints in a fresh process of a Python."""
    return subprocess.run(
        [python, "-I", "-c", code], env=BARE, capture_output=True, text=True, check=True, timeout=60
    ).stdout


@pytest.mark.oracle
def test_what_import_says(tmp_path: Path) -> None:
    """The message of an extension that Python's import cannot load is dlwhy's, the file given by a relative path."""
    host_program("python3")
    code = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
    suffix = said_by("python3", code).strip()
    version = suffix.split("-")[1]
    python = f"python3.{version[1:]}"
    host_program(python)
    source = tmp_path / "x.c"
    source.write_text(
        "extern int nobody_defines_this(void); int PyInit_broken(void) { return nobody_defines_this(); }\n"
    )
    gcc(tmp_path / f"broken{suffix}", "-shared", "-fPIC", source)
    initial_exec(tmp_path, "big", 9000).rename(tmp_path / f"big{suffix}")
    for module in ("broken", "big"):
        report = dlwhy.check([f"./{module}{suffix}"], host=dlwhy.Host.inferred(BARE), cwd=str(tmp_path))
        assert report.host.name == python
        path = f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\n"
        code = f"{path}try: import {module}\nexcept ImportError as e: print(e)"
        real = said_by(python, code).rstrip("\n")
        assert (report.steps[0].outcome, report.steps[0].message) == ("fails", real)


@pytest.mark.oracle
@pytest.mark.parametrize("link", [False, True])
def test_what_require_says(tmp_path: Path, link: bool) -> None:
    """The message of an addon that require cannot load is dlwhy's; require follows links to the file itself."""
    program = host_program("node")
    assert program is not None
    initial_exec(tmp_path, "big", 9000).rename(tmp_path / "real.node")
    name = "real.node"
    if link:
        name = "link.node"
        (tmp_path / name).symlink_to("real.node")
    report = dlwhy.check([f"./{name}"], host=dlwhy.Host.inferred(BARE), cwd=str(tmp_path))
    code = f"try {{ require('./{name}') }} catch (e) {{ console.log(e.message) }}"
    done = subprocess.run(
        [program, "-e", code], env=BARE, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert (report.host.executable, report.steps[0].message) == (program, done.stdout.rstrip("\n"))


def test_a_host_that_is_not_here_is_undecided(tmp_path: Path) -> None:
    """An extension for a Python that nobody installed is undecided, and the missing fact is named."""
    library = thread_local(tmp_path, "x", 8, 8)
    extension = tmp_path / "x.cpython-399-x86_64-linux-gnu.so"
    library.rename(extension)
    report = dlwhy.check([extension], host=dlwhy.Host.inferred(BARE))
    assert report.steps[0].outcome == "undecided" and report.exit_status == 11
    assert "no program named python3.99 is on PATH" in report.steps[0].because


# -- environment, directory, caller ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of libraries that ask for one another."""
    folder = tmp_path_factory.mktemp("libraries")
    (folder / "sub").mkdir()
    texts = {
        "provider": "int provided(void) { return 1; }",
        "wanting": "extern int provided(void); int (*wanted)(void) = provided;",
        "lazy": "extern int provided(void); int wanted(void) { return provided(); }",
        "audit": "unsigned la_version(unsigned v) { return v; }",
    }
    for name, text in texts.items():
        (folder / f"{name}.c").write_text(text)
        gcc(folder / f"lib{name}.so", "-shared", "-fPIC", "-Wl,-z,lazy", folder / f"{name}.c")
    (folder / "hidden.c").write_text("int hidden;")
    gcc(folder / "sub" / "libhidden.so", "-shared", "-fPIC", folder / "hidden.c")
    return folder


@pytest.mark.oracle
@pytest.mark.parametrize("host", ["plain", "python3"])
@pytest.mark.parametrize(
    "env",
    [
        {}, {"LD_LIBRARY_PATH": "@"}, {"LD_LIBRARY_PATH": "/no/such:@/sub:@"}, {"LD_PRELOAD": "@/libprovider.so"},
        {"LD_PRELOAD": "@/libprovider.so @/libmissing.so"}, {"LD_BIND_NOW": "1"},
        {"LD_PRELOAD": "libprovider.so", "LD_LIBRARY_PATH": "@"}, {"LD_AUDIT": "@/libaudit.so"},
        {"LD_AUDIT": "@/libaudit.so", "GLIBC_TUNABLES": "glibc.rtld.nns=2"},
        {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=8000"},
        {"GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=8000x"}, {"GLIBC_TUNABLES": "glibc.rtld.nns=16"},
    ],
    ids=str,
)  # fmt: skip
def test_the_loaders_variables(libraries: Path, tmp_path: Path, host: str, env: dict[str, str]) -> None:
    """Each variable has the effect that it has on a real process of the host."""
    host_program(host)
    full = {name: value.replace("@", str(libraries)) for name, value in env.items()}
    steps = [
        "libhidden.so", "libprovider.so", f"{libraries}/libwanting.so", f"{libraries}/liblazy.so",
        str(initial_exec(tmp_path, "a", 1600)), str(initial_exec(tmp_path, "b", 3000)),
    ]  # fmt: skip
    report = predicted(host, steps, full)
    real = open_in(host, steps, full)
    assert [(one.outcome, raw(one.message)) for one in report.steps] == [(r.outcome, r.message) for r in real.opened]


@pytest.mark.oracle
def test_lazy_hosts_and_bind_now(libraries: Path) -> None:
    """LD_BIND_NOW makes a host that binds lazily find at once what is missing."""
    host_program("node")
    step = f"{libraries}/liblazy.so"
    for env, outcome in (({}, "loads"), ({"LD_BIND_NOW": "1"}, "fails"), ({"LD_BIND_NOW": ""}, "loads")):
        (ours,) = predicted("node", [step], env).steps
        (real,) = open_in("node", [step], env).opened
        assert (ours.outcome, raw(ours.message)) == (real.outcome, real.message)
        assert ours.outcome == outcome


@pytest.mark.oracle
def test_a_sequence_of_settings(tmp_path: Path) -> None:
    """The last of several equal tunables counts, and what glibc cannot read has no effect."""
    library = str(initial_exec(tmp_path, "big", 3000))
    for text in ("glibc.rtld.optional_static_tls=9000:glibc.rtld.optional_static_tls=1", "no=such", ":::", "x",
                 "glibc.rtld.optional_static_tls=0x2000", "glibc.rtld.optional_static_tls= 9000"):  # fmt: skip
        env = {"GLIBC_TUNABLES": text}
        assert predicted("plain", [library], env).steps[0].outcome == open_in("plain", [library], env).opened[0].outcome
    assert tunable(1, "a=b") == {"GLIBC_TUNABLES": "a=b:glibc.rtld.optional_static_tls=1"}


@pytest.mark.oracle
def test_the_working_directory(libraries: Path) -> None:
    """A relative path counts from the directory of the process, and is shown as it was written."""
    program = host_program("python3")
    assert program is not None
    code = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1]); print('ok')\nexcept OSError as e: print(e)"
    for cwd, name in (
        (libraries, "sub/libhidden.so"),
        (libraries / "sub", "sub/libhidden.so"),
        (libraries, "./libno.so"),
    ):
        done = subprocess.run(
            [program, "-I", "-c", code, name],
            cwd=cwd,
            env=BARE,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        (step,) = dlwhy.check([name], host=dlwhy.Host.executable("python3", BARE), cwd=str(cwd)).steps
        assert (step.message or "ok") == done.stdout.strip()


@pytest.mark.oracle
def test_the_caller(libraries: Path, tmp_path: Path) -> None:
    """A dlopen searches the RUNPATH of the object that calls it, which `caller` names, and not the program's."""
    source = tmp_path / "caller.c"
    source.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\n"
        'void open_it(const char *n) { void *h = dlopen(n, RTLD_NOW); puts(h ? "ok" : dlerror()); }\n'
    )
    main = tmp_path / "main.c"
    main.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\nvoid open_it(const char *);\n"
        "int main(int c, char **v) { if (c > 2) open_it(v[1]);\n"
        'else { void *h = dlopen(v[1], RTLD_NOW); puts(h ? "ok" : dlerror()); } return 0; }\n'
    )
    caller = gcc(
        tmp_path / "libcaller.so", "-shared", "-fPIC", "-Wl,--enable-new-dtags", f"-Wl,-rpath,{libraries}/sub", source
    )
    program = str(gcc(tmp_path / "main", main, caller, "-Wl,--enable-new-dtags", f"-Wl,-rpath,{tmp_path}"))
    for words, given in ((["x"], str(caller)), ([], None)):
        done = subprocess.run(
            [program, "libhidden.so", *words], env=BARE, capture_output=True, text=True, check=True, timeout=60
        )
        host = dlwhy.Host.executable(program, BARE)
        (step,) = dlwhy.check(["libhidden.so"], host=host, caller=given).steps
        assert (step.message or "ok") == done.stdout.strip()
        assert (step.outcome == "loads") == bool(words)


def test_a_caller_that_is_not_there_is_assumed_away() -> None:
    """A caller that is not loaded at the start is told as an assumption."""
    (step,) = dlwhy.check(["libm.so.6"], host=dlwhy.Host.plain(BARE), caller="/no/such.so").steps
    assert step.basis == "assumed"
    assert any("/no/such.so is not loaded" in text for text in step.assumptions)


@pytest.mark.oracle
def test_another_loader_with_its_library_path(libraries: Path) -> None:
    """As `ld.so --library-path DIRS PROG`: the loader is the one given, and the directories stand for the variable."""
    program = host_program("python3")
    assert program is not None
    loader = dlwhy.check([], host=dlwhy.Host.executable(program, BARE)).host.loader
    assert loader is not None
    code = "import ctypes, sys\ntry: ctypes.CDLL(sys.argv[1]); print('ok')\nexcept OSError as e: print(e)"
    for name in ("libhidden.so", "libno.so"):
        done = subprocess.run(
            [loader, "--library-path", f"{libraries}/sub", program, "-I", "-c", code, name],
            env=BARE, capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        report = dlwhy.check(
            [name], host=dlwhy.Host.executable(program, BARE), loader=loader, library_path=f"{libraries}/sub"
        )
        assert (report.steps[0].message or "ok") == done.stdout.strip()


@pytest.fixture
def public(libraries: Path) -> Iterator[Path]:
    """A copy of the libraries that every user may read."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) / "libraries"
        shutil.copytree(libraries, folder)
        for one in (Path(made), folder, folder / "sub"):
            one.chmod(0o755)
        yield folder


@pytest.mark.oracle
def test_secure_programs(public: Path) -> None:
    """As a set-user-ID program: the variables that could hand it foreign code or settings have no effect."""
    if os.geteuid() != 0:
        pytest.skip("not run: only root can make a set-user-ID program of another user")
    main = public / "main.c"
    main.write_text(
        "#include <dlfcn.h>\n#include <stdio.h>\n#include <sys/auxv.h>\n"
        'int main(int c, char **v) { printf("%d\\n", (int)getauxval(AT_SECURE));\n'
        'for (int i = 1; i < c; i++) { void *h = dlopen(v[i], RTLD_NOW); puts(h ? "ok" : dlerror()); } return 0; }\n'
    )
    program = gcc(public / "main", main)
    program.chmod(0o4755)
    big = str(initial_exec(public, "big", 3000))
    env = {
        **BARE, "LD_LIBRARY_PATH": f"{public}/sub", "LD_PRELOAD": f"{public}/libprovider.so", "LD_BIND_NOW": "1",
        "GLIBC_TUNABLES": "glibc.rtld.optional_static_tls=9000",
    }  # fmt: skip
    steps = ["libhidden.so", f"{public}/libwanting.so", big]
    for user, secure in ((65534, True), (None, False)):
        done = subprocess.run(
            [str(program), *steps], env=env, user=user, capture_output=True, text=True, check=True, timeout=60
        )
        at_secure, *said = done.stdout.splitlines()
        if secure and at_secure == "0":
            pytest.skip("not run: set-user-ID has no effect where temporary files are")
        report = dlwhy.check(steps, host=dlwhy.Host.executable(program, env), secure=secure)
        assert [step.message or "ok" for step in report.steps] == said
        assert said == (
            ["ok"] * 3 if not secure else [said[0], said[1], f"{big}: cannot allocate memory in static TLS block"]
        )
    report = dlwhy.check([big], host=dlwhy.Host.plain(BARE), secure=True)
    assert "secure mode" in next(one.why for one in report.not_cures if "TUNABLES" in one.title)


def test_questions_that_cannot_be_asked(tmp_path: Path) -> None:
    """A sysroot that is none, a release that is none and a host that is none: one sentence each."""
    plain = dlwhy.Host.plain(BARE)
    with pytest.raises(dlwhy.UsageError, match="no such directory"):
        dlwhy.check(["x"], host=plain, sysroot=str(tmp_path / "missing"))
    with pytest.raises(dlwhy.UsageError, match="write a release"):
        dlwhy.check(["x"], host=plain, libc="musl-1.2")
    with pytest.raises(dlwhy.UsageError, match="no program of that name"):
        dlwhy.check(["x"], host=dlwhy.Host.executable("no-such-program", BARE))
    with pytest.raises(dlwhy.UsageError, match="not built yet"):
        dlwhy.Host.named("pid:1")


@pytest.mark.oracle
@pytest.mark.parametrize("value", ["1", ""])
def test_a_listing_loader_starts_nothing(tmp_path: Path, value: str) -> None:
    """With LD_TRACE_LOADED_OBJECTS set, to whatever, no program runs: what it would load is undecided."""
    main = tmp_path / "main.c"
    main.write_text("int main(void) { return 7; }")
    program = gcc(tmp_path / "main", main)
    env = {**BARE, "LD_TRACE_LOADED_OBJECTS": value}
    assert subprocess.run([str(program)], env=env, capture_output=True, check=False, timeout=60).returncode == 0
    report = dlwhy.check(["libm.so.6"], host=dlwhy.Host.executable(program, env))
    assert report.steps[0].outcome == "undecided" and "LD_TRACE_LOADED_OBJECTS" in report.steps[0].because


def test_an_unknown_release_is_undecided() -> None:
    """A release that no row covers leaves the question open, and says so."""
    (step,) = dlwhy.check(["libm.so.6"], host=dlwhy.Host.plain(BARE), libc="glibc-2.99").steps
    assert step.outcome == "undecided" and "2.99" in step.because


def test_the_process_starts_from_this_environment(monkeypatch: pytest.MonkeyPatch, libraries: Path) -> None:
    """Without an environment of its own the modelled process has this one's, as a child would."""
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{libraries}/sub")
    assert dlwhy.check(["libhidden.so"], host=dlwhy.Host.plain()).steps[0].outcome == "loads"
    assert dlwhy.check(["libhidden.so"], host=dlwhy.Host.plain({})).steps[0].outcome == "fails"
    assert os.environ["LD_LIBRARY_PATH"] == f"{libraries}/sub"
