"""Known suspects: the data and its schema, and real libraries that are or are not among them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

import dlwhy
from dlwhy.attribute import suspects
from tests.fixtures import registries
from tests.fixtures.libraries import gcc, initial_exec

DATA = Path(suspects.__file__).parent
DEBIAN = {
    "libjemalloc.so.2": "jemalloc", "libgomp.so.1": "libgomp", "libtcmalloc_minimal.so.4": "tcmalloc-gperftools",
    "libmimalloc.so.2": "mimalloc", "libGLdispatch.so.0": "libglvnd", "libtsan.so.2": "sanitizers",
}  # fmt: skip


def known(path: Path | str) -> dict[str, str]:
    """Suspect -> basis, of a file."""
    (file,) = dlwhy.tls([str(path)]).files
    assert file.tls is not None
    return {one.id: one.basis for one in file.tls.suspects}


def test_the_data_keeps_its_schema() -> None:
    """Every row has what the schema asks for, a name of its own, and patterns that compile."""
    data = json.loads((DATA / "suspects.json").read_text("utf-8"))
    jsonschema.validate(data, json.loads((DATA / "suspects-1.schema.json").read_text("utf-8")))
    names = [row["id"] for row in data["suspects"]]
    assert len(set(names)) == len(names) > 15
    for row in data["suspects"]:
        assert all(re.compile(pattern) for pattern in row["sonames"])
        assert row["sonames"] or row["exports"] or row["variables"]


@pytest.mark.machine
@pytest.mark.parametrize("name", DEBIAN)
def test_libraries_of_the_system_are_known(name: str, tmp_path: Path) -> None:
    """Each is known by its name; a copy under another name and stripped is still known by what it exports."""
    path = Path("/usr/lib/x86_64-linux-gnu") / name
    if not path.exists():
        pytest.skip(f"not run: no {name} here")
    assert known(path) == {DEBIAN[name]: "computed"}
    copy = tmp_path / "other.node"
    shutil.copy(path, copy)
    subprocess.run([registries.tool("strip"), "-s", copy], check=True)
    assert DEBIAN[name] in known(copy)


@pytest.mark.oracle
def test_rand_is_known_by_its_variable_and_go_by_its_exports() -> None:
    """The story's two: THREAD_RNG_KEY of more than 300 bytes, and the runtime of Go."""
    assert known(registries.valet()) == {"rust-rand": "computed"}
    assert known(registries.butler()) == {"go-runtime": "computed"}


def test_an_upstream_option_is_named_only_where_it_forces(tmp_path: Path) -> None:
    """A library that defines mallctl and is initial-exec has jemalloc's configure option in the text; dynamic, not."""
    source = tmp_path / "a.c"
    source.write_text(
        "__thread char tsd_tls[2632];\nchar *f(void) { return tsd_tls; }\nint mallctl(void) { return 0; }\n"
    )
    texts = []
    for model in ("initial-exec", "global-dynamic"):
        built = gcc(tmp_path / f"{model}.so", "-shared", "-fPIC", f"-ftls-model={model}", source)
        assert known(built) == {"jemalloc": "computed"}
        done = subprocess.run(
            [sys.executable, "-m", "dlwhy", "tls", built], capture_output=True, text=True, check=True
        )
        texts.append("--disable-initial-exec-tls" in done.stdout)
    assert texts == [True, False]


def test_a_size_alone_is_a_guess_and_a_small_one_is_none(tmp_path: Path) -> None:
    """2632 bytes with one relocation are jemalloc's signature, and marked so; 8 bytes are everybody's."""
    assert known(initial_exec(tmp_path, "big", 2632)) == {"jemalloc": "assumed"}
    assert known(initial_exec(tmp_path, "small", 8)) == {}
