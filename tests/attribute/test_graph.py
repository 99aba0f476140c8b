"""Dependency graphs: lock files, `.dep-v0`, CycloneDX; shortest ways; documents that nobody should have written."""

from __future__ import annotations

import json
import random
import time
import zlib
from itertools import pairwise

import pytest

from dlwhy.attribute import graph
from dlwhy.attribute.graph import Graph, GraphError, Package, from_cyclonedx, from_dep_v0, from_lock

LOCK = b"""
version = 3
[[package]]
name = "app"
version = "0.1.0"
dependencies = ["mid", "rand 0.7.3", "lone 1.0.0 (registry+https://a)"]
[[package]]
name = "mid"
version = "0.2.0"
source = "registry+https://a"
dependencies = ["rand 0.6.5 (registry+https://a)"]
[[package]]
name = "rand"
version = "0.6.5"
source = "registry+https://a"
[[package]]
name = "rand"
version = "0.7.3"
source = "registry+https://a"
[[package]]
name = "lone"
version = "1.0.0"
source = "registry+https://a"
[[package]]
name = "lone"
version = "1.0.0"
source = "git+https://b"
"""


def words(found: tuple[Package, ...]) -> list[str]:
    """Packages as text."""
    return [f"{one.name} {one.version}" for one in found]


def test_dependencies_of_a_lock_file_are_told_by_name_version_and_source() -> None:
    """Each of the three spellings that cargo writes leads to the package that it means."""
    found = from_lock(LOCK)
    six, seven = found.named("rand")
    assert words(found.path(six)) == ["app 0.1.0", "mid 0.2.0", "rand 0.6.5"]
    assert words(found.path(seven)) == ["app 0.1.0", "rand 0.7.3"]
    registry, git = found.named("lone")
    assert words(found.path(registry)) == ["app 0.1.0", "lone 1.0.0"]
    assert found.path(git) == ()


def test_the_wanted_root_comes_first() -> None:
    """Of several roots that need a package the one that the file is called after is taken, though its way is longer."""
    packages = tuple(Package(name, "1", "cargo") for name in ("tool", "my-lib", "mid", "rand"))
    made = Graph(packages, ((3,), (2,), (3,), ()), (0, 1))
    assert [one.name for one in made.path(3)] == ["tool", "rand"]
    assert [one.name for one in made.path(3, ("my_lib",))] == ["my-lib", "mid", "rand"]


def test_ways_are_shortest_and_cycles_end() -> None:
    """In random graphs full of cycles the way found is one, and as short as Bellman and Ford say."""
    rng = random.Random(5)
    for _ in range(200):
        size = rng.randint(1, 30)
        needs = tuple(tuple({rng.randrange(size) for _ in range(rng.randint(0, 3))}) for _ in range(size))
        made = Graph(tuple(Package(str(i), "1", "") for i in range(size)), needs, (0,))
        distance = {0: 0}
        for _ in range(size):
            for at, wanted in enumerate(needs):
                for to in wanted:
                    if at in distance:
                        distance[to] = min(distance.get(to, size), distance[at] + 1)
        for target in range(size):
            way = [int(one.name) for one in made.path(target)]
            assert len(way) == (distance[target] + 1 if target in distance else 0)
            assert all(to in needs[at] for at, to in pairwise(way))


def test_an_enormous_graph_is_walked_in_time() -> None:
    """Forty thousand packages in a chain, and as many that need the first, take well below a second."""
    count = 40_000
    rows = [
        {"name": f"p{i}", "version": "1", "dependencies": [min(i + 1, count - 1), 0], "root": i == 0}
        for i in range(count)
    ]
    found = from_dep_v0(zlib.compress(json.dumps({"packages": rows}).encode()))
    begin = time.process_time()
    assert len(found.path(count - 1)) == count
    assert time.process_time() - begin < 1


def test_a_cyclonedx_document_becomes_a_graph() -> None:
    """The root is the component of the metadata; the kinds come from the package URLs."""
    document = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"bom-ref": "r", "name": "w", "version": "2", "components": [{}]}},
        "components": [{"bom-ref": "a", "name": "libgomp", "version": "8", "purl": "pkg:rpm/almalinux/libgomp@8"}],
        "dependencies": [{"ref": "r", "dependsOn": ["a", "gone", 7]}, {"ref": "nobody"}, "x"],
    }  # fmt: skip
    found = from_cyclonedx(json.dumps(document).encode())
    assert [(one.name, one.kind) for one in found.path(1)] == [("w", ""), ("libgomp", "rpm")]


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (from_lock, b""), (from_lock, b"\xff\xfe"), (from_lock, b"package = 3"), (from_lock, b"x = " + b"[" * 5000),
        (from_lock, b"# only a remark"), (from_lock, b'[[package]]\nname = "a"\n' * 60_000), (from_dep_v0, b"junk"),
        (from_dep_v0, zlib.compress(b"[]")), (from_dep_v0, zlib.compress(b'{"packages": [1]}')),
        (from_dep_v0, zlib.compress(b'{"packages": []}')[:-6]), (from_dep_v0, zlib.compress(bytes(64 << 20))),
        (from_dep_v0, zlib.compress(b"[" * 100_000)), (from_cyclonedx, b"{"),
        (from_cyclonedx, b'{"bomFormat": "SPDX"}'),
        (from_cyclonedx, b'{"bomFormat": "CycloneDX", "components": 4}'), (from_cyclonedx, bytes(17 << 20)),
    ],
)  # fmt: skip
def test_what_is_no_document_has_one_sentence(read: object, data: bytes) -> None:
    """Empty, damaged, too deep, too large: one sentence each, in well below a second, and never an empty graph."""
    begin = time.process_time()
    with pytest.raises(GraphError) as told:
        read(data)  # type: ignore[operator]
    assert time.process_time() - begin < 3
    assert "\n" not in str(told.value)
    assert 3 < len(str(told.value)) < 300


def test_mutated_documents_never_break_the_readers() -> None:
    """Random damage to each kind of document gives a graph whose indices are valid, or one sentence."""
    rng = random.Random(11)
    plain_dep = json.dumps({"packages": [{"name": "a", "version": "1", "dependencies": [1]}, {"name": "b"}]}).encode()
    sbom = (
        b'{"bomFormat":"CycloneDX","components":[{"name":"a","bom-ref":"a"},{"name":"b"}],'
        b'"dependencies":[{"ref":"a","dependsOn":["b@None"]}]}'
    )
    cases = [(from_lock, LOCK), (lambda data: from_dep_v0(zlib.compress(data)), plain_dep), (from_cyclonedx, sbom)]
    for read, data in cases:
        for _ in range(400):
            broken = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                broken[rng.randrange(len(broken))] = rng.choice(b'{}[]",:0123456789ab\n\xff')
            try:
                found = read(bytes(broken))
            except GraphError:
                continue
            size = len(found.packages)
            assert len(found.needs) == size
            assert all(0 <= to < size for one in (*found.needs, found.roots) for to in one)
            for target in range(size):
                found.path(target)


def test_names_are_found_with_either_dash() -> None:
    """A crate's symbols have underscores where its name may have dashes."""
    made = Graph((Package("rand-core", "1", "cargo"),), ((),), (0,))
    assert made.named("rand_core") == (0,)
    assert graph.plain("a-b_c") == "a_b_c"
