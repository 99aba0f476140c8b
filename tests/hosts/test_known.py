"""What is known of hosts, held against the hosts themselves."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.hosts.known import HOSTS, inferred, known_host
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, host_program, predicted

if TYPE_CHECKING:
    from pathlib import Path

LAZY = "extern void nobody_defines_this(void); void never_called(void) { nobody_defines_this(); }\n"


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("/app/index.node", "node"),
        ("a/_x.cpython-311-x86_64-linux-gnu.so", "python3.11"),
        ("_x.cpython-38-x86_64-linux-gnu.so", "python3.8"),
        ("_x.cpython-313t-x86_64-linux-gnu.so", "python3.13"),
        ("/x/_rust.abi3.so", "python3"),
        ("libfoo.so", None),
        ("index.node.so", None),
        ("/a.node/libfoo.so", None),
        ("abi3.so", None),
    ],
)
def test_the_name_of_a_file_tells_its_host(name: str, host: str | None) -> None:
    """Addons and extensions are loaded by the host that their name says; any other file by nobody in particular."""
    found = inferred(name)
    assert (found and found[0]) == host


@pytest.mark.oracle
def test_the_suffixes_are_pythons_own() -> None:
    """The suffix of this system's Python leads back to that very Python."""
    program = host_program("python3")
    assert program is not None
    code = "import sysconfig, sys; print(sysconfig.get_config_var('EXT_SUFFIX')); print('%d.%d' % sys.version_info[:2])"
    suffix, version = subprocess.run(
        [program, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    found = inferred(f"/x/_y{suffix}")
    assert found is not None and found[0] == f"python{version}"
    report = dlwhy.check([f"/x/_y{suffix}"], host=dlwhy.Host.inferred(BARE))
    assert report.host.executable is not None
    assert os.path.samefile(report.host.executable, os.path.realpath(program))


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/usr/bin/node", "node"), ("/opt/nodejs", "node"), ("/usr/bin/python3.13", "python"), ("/x/python", "python"),
        ("/usr/bin/perl5.36.0", "perl"), ("/usr/lib/jvm/bin/java", ""), ("/usr/bin/nodemon", ""), (None, ""),
        ("/usr/bin/node18", ""), ("/usr/bin/pypy3", "python"), ("/usr/bin/python3.11d", ""),
    ],
)  # fmt: skip
def test_rows_by_base_name(path: str | None, kind: str) -> None:
    """A host is known by the last part of its path, and only by the whole of it."""
    assert known_host(path).kind == kind


def test_every_row_is_cited() -> None:
    """Each row says where its figures come from, and no host has two."""
    assert all(len(row.cite) > 20 and row.names for row in HOSTS)
    names = [name for row in HOSTS for name in row.names]
    assert len(names) == len(set(names))


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("host", "binding"), [("python3", "now"), ("node", "lazy"), ("perl", "lazy"), ("plain", "now")]
)
def test_how_each_host_binds(tmp_path: Path, host: str, binding: str) -> None:
    """A function that nothing defines is found missing at once only by hosts that bind now, as each row says."""
    program = host_program(host)
    source = tmp_path / "lazy.c"
    source.write_text(LAZY)
    library = str(gcc(tmp_path / "lazy.so", "-shared", "-fPIC", "-Wl,-z,lazy", source))
    (step,) = predicted(host, [library]).steps
    assert step.mode == f"{binding}-local"
    commands = {
        "python3": ["-I", "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])", library],
        "node": ["-e", "process.dlopen({exports: {}}, process.argv[1])", library],
        "perl": ["-MDynaLoader", "-e", "DynaLoader::dl_load_file($ARGV[0]) or die DynaLoader::dl_error()", library],
    }
    if program is None:
        assert step.outcome == "fails"
        return
    said = subprocess.run([program, *commands[host]], capture_output=True, check=False, env=BARE, timeout=60).stderr
    assert (b"undefined symbol: nobody_defines_this" in said) == (step.outcome == "fails") == (binding == "now")


@pytest.mark.oracle
def test_java_binds_lazily(tmp_path: Path) -> None:
    """System.load takes a library with a function that nothing defines: java opens lazily."""
    program = host_program("java")
    assert program is not None
    source = tmp_path / "lazy.c"
    source.write_text(LAZY)
    library = str(gcc(tmp_path / "liblazy.so", "-shared", "-fPIC", "-Wl,-z,lazy", source))
    (tmp_path / "Load.java").write_text(
        'class Load { public static void main(String[] a) { System.load(a[0]); System.out.println("ok"); } }'
    )
    done = subprocess.run(
        [program, str(tmp_path / "Load.java"), library], capture_output=True, check=False, env=BARE, timeout=120
    )
    if b"ok" not in done.stdout and b"undefined symbol" not in done.stderr:
        pytest.skip(f"not run: this java runs no source file: {done.stderr.decode(errors='replace')[:80]}")
    (step,) = predicted("java", [library]).steps
    assert (step.mode, step.outcome) == ("lazy-local", "loads")
    assert done.stdout.strip() == b"ok"
