"""Who defines a variable of another module that a file uses as initial-exec: as the real loader binds it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dlwhy
from tests.fixtures.registries import tool

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_tls import Trigger

USER = """
extern __thread int quick __attribute__((tls_model("initial-exec")));
int touch(void) { return quick++; }
"""
HERE = ("-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed")


def linked(folder: Path, name: str, text: str, *needs: str) -> Path:
    """Build lib<name>.so that needs others of the same folder, and finds them there."""
    source, library = folder / f"{name}.c", folder / f"lib{name}.so"
    source.write_text(text)
    words = [tool("gcc"), "-shared", "-fPIC", f"-Wl,-soname,lib{name}.so", *HERE, f"-L{folder}", "-o", str(library)]
    allowed = "-Wl,--allow-shlib-undefined"
    subprocess.run([*words, str(source), allowed, *(f"-l{one}" for one in needs)], check=True)
    return library


def trigger(library: Path) -> Trigger:
    """Return the one trigger of a library."""
    (found,) = dlwhy.tls([library]).files
    (one,) = found.triggers
    assert not one.own
    return one


def bound(library: Path) -> str:
    """Return the file that the real loader takes `quick` from."""
    command = [sys.executable, "-c", f"import ctypes; ctypes.CDLL({str(library)!r})"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"LD_DEBUG": "bindings"}).stderr
    found = re.findall(rf"binding file {re.escape(str(library))} \[0\] to (\S+) \[0\]: normal symbol `quick'", told)
    return str(found[0])


@pytest.mark.oracle
@pytest.mark.parametrize("order", list(itertools.permutations(("plain", "left", "right"))), ids="-".join)
def test_the_definer_is_the_loaders(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Of two objects that define the variable, one of them behind another, the one that ld.so binds to is named."""
    linked(tmp_path, "deep", "__thread int quick = 1;\n")
    linked(tmp_path, "left", "int left(void) { return 1; }\n", "deep")
    linked(tmp_path, "right", "__thread int quick = 2;\n")
    linked(tmp_path, "plain", "int plain(void) { return 1; }\n")
    library = linked(tmp_path, "user", USER, *order)
    one = trigger(library)
    assert one.definer == bound(library) == str(tmp_path / "libright.so")
    assert (one.owner, one.variable) == ("libright.so", "quick")
    linked(tmp_path, "right", "int right(void) { return 1; }\n")
    one = trigger(library)
    assert one.definer == bound(library) == str(tmp_path / "libdeep.so") and one.owner == "libdeep.so"


def test_what_is_not_found_has_no_name(tmp_path: Path) -> None:
    """Without the dependency, and where it does not define the variable, it is another library's as before."""
    provider = linked(tmp_path, "owner", "__thread int quick = 1;\n")
    library = linked(tmp_path, "user", USER, "owner")
    assert trigger(library).definer == str(provider)
    provider.write_bytes(b"\x7fELF and no more")
    assert (trigger(library).owner, trigger(library).definer) == ("another library", None)
    provider.unlink()
    assert (trigger(library).owner, trigger(library).definer) == ("another library", None)


def test_the_command_names_it(tmp_path: Path) -> None:
    """Text and JSON name the object that defines the variable and pays; so does every way to access it."""
    provider = linked(tmp_path, "owner", "__thread int quick = 1;\n")
    library = linked(tmp_path, "user", USER, "owner")
    words = [sys.executable, "-m", "dlwhy", "tls", library.name]
    shown = subprocess.run(words, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    joined = " ".join(shown.split())
    assert "forces the TLS segment of libowner.so into the static TLS block" in joined
    assert "libowner.so (quick) initial-exec: 2 accesses" in joined and f"defined in {provider}" in joined
    made = subprocess.run([*words, "--format", "json"], capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    (file,) = json.loads(made)["files"]
    assert (file["triggers"][0]["owner"], file["triggers"][0]["definer"]) == ("libowner.so", str(provider))
    assert {one["owner"] for one in file["accesses"]} == {"libowner.so"}
