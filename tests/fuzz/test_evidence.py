"""Damaged evidence put to `dlwhy tls` and `diff`: some hundred pieces by chance, and each kind of damage by itself."""

from __future__ import annotations

import json
import lzma
import time
import zlib
from typing import TYPE_CHECKING, NamedTuple

import pytest

from .evidence import DEP, KEY, KINDS, LOCK, RULES, SPACE, Scene, ask, campaign, judged

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = 420
SECONDS = 1.0


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A library and all that may tell of it."""
    return Scene(str(tmp_path_factory.mktemp("evidence") / "scene"))


@pytest.mark.slow
def test_hundreds_of_damaged_pieces(scene: Scene) -> None:
    """Each kind of evidence is damaged in thirty ways of a fixed choice, and nothing is wrong with any answer."""
    found = campaign(scene, RUNS, 20261124)
    assert found.faults == {}
    assert {kind for kind, _ in found.statuses} == set(KINDS)


def test_the_sound_scene_is_sound(scene: Scene) -> None:
    """Without damage each piece of evidence tells its part, and none is complained of."""
    text = ask(["tls", scene.library, "--map", str(scene.root / "map")], "text")[1]
    for told in ("rand (crate)", "root 0.1.0", "backoff 0.1.6", ".dep-v0", "RECORD", "inner: long int[120] 960", "a.o"):
        assert told in text, told
    for name in ("site/lib.so", "full.so", "libb.a", "libthin.a", "a.o"):
        assert told_of(ask(["tls", str(scene.root / name)], "json")[1]) == set()


def told_of(document: str) -> set[str]:
    """What a document says of evidence: findings, notes, and why members are not examined."""
    told = set()
    for one in json.loads(document)["files"]:
        told |= {found["message"] for found in one["findings"] if found["rule"] in RULES}
        told |= set(one["tls"]["notes"]) if one["tls"] is not None else set()
        told |= {member["error"] for member in one["members"] if member["error"]}
    return told


class Damage(NamedTuple):
    """One kind of damage: what is asked about it, and words of the one sentence that must tell it."""

    make: Callable[[Scene], list[str]]
    says: str
    also: tuple[str, ...] = ()
    """Words of sentences that follow from it."""


def _library(scene: Scene, *more: str) -> list[str]:
    return [scene.library, *more]


def _lock(scene: Scene, text: str) -> list[str]:
    return [str(scene.root / "full.so"), "--lock", scene.put("made.lock", text.encode())]


def _other_map(scene: Scene) -> list[str]:
    (scene.root / "c.c").write_text("__thread int another[99]; int f(void) { return another[3]; }")
    scene._run("gcc", "-shared", "-fPIC", "-Wl,-Map=other.map", "-fuse-ld=bfd", "c.c", "a.o", "-o", "other.so")
    return _library(scene, "--map", str(scene.root / "other.map"))


def _no_map(scene: Scene) -> list[str]:
    return _library(scene, "--map", str(scene.root / "a.c"))


def _debug(scene: Scene, cut: int) -> list[str]:
    scene.put("site/lib.debug", scene.whole["site/lib.debug"][:cut])
    return _library(scene)


def _other_debug(scene: Scene) -> list[str]:
    scene._run("gcc", "-shared", "-g", "-Wl,--build-id=0x1234567890", "a.o", "-o", "other.so")
    scene._run("objcopy", "--only-keep-debug", "other.so", "site/lib.debug")
    return _library(scene)


def _dwarf(scene: Scene) -> list[str]:
    made = bytearray(scene.whole["full.so"])
    offset, _ = scene._section(bytes(made), ".debug_info")
    made[offset + 4 : offset + 6] = (9).to_bytes(2, "little")
    return [scene.put("made.so", bytes(made))]


def _dep(scene: Scene, packed: bytes) -> list[str]:
    scene.with_section(".dep-v0", packed)
    return _library(scene)


def _packages(rows: list[dict[str, object]]) -> bytes:
    return zlib.compress(json.dumps({"packages": rows}).encode(), 9)


def _names(scene: Scene, packed: bytes) -> list[str]:
    scene.with_section(".gnu_debugdata", packed)
    return _library(scene)


def _thin(scene: Scene, member: bytes | None) -> list[str]:
    if member is None:
        (scene.root / "b.o").unlink()
    else:
        scene.put("b.o", member)
    return [str(scene.root / "libthin.a")]


def _archive(scene: Scene) -> list[str]:
    return [scene.put("made.a", scene.whole["libb.a"][:-900])]


def _symbols(scene: Scene, **fields: tuple[int, int]) -> list[str]:
    """`full.so` with another value (8) or size (16) of thread-local symbols."""
    made = bytearray(scene.whole["full.so"])
    offset, size = scene.symbols
    rows = [at for at in range(offset, offset + size - 23, 24) if made[at + 4] & 15 == 6]
    for name, (field, value) in fields.items():
        at = rows[int(name[1:])] + field
        made[at : at + 8] = value.to_bytes(8, "little")
    return [scene.put("made.so", bytes(made))]


def _record(scene: Scene) -> list[str]:
    scene.put("site/pkg-1.dist-info/RECORD", b"lib.so,sha256=x,7\n")
    return _library(scene)


def _sbom(scene: Scene) -> list[str]:
    scene.put("site/pkg-1.dist-info/sboms/a.cdx.json", b"[" * 100_000)
    return _library(scene)


RING: list[dict[str, object]] = [
    {"name": f"n{n}" if n else "rand", "version": "0.6.5", "dependencies": [(n + 1) % 3000]} for n in range(3000)
]
CHANGED = ("is not the file that its RECORD lists",)
ALL = "version = 3\n" + "".join(
    f'[[package]]\nname = "rand"\nversion = "{n}.0.0"\ndependencies = ["rand"]\n' for n in range(20_000)
)
LOCK_RING = "version = 3\n" + "".join(
    f'[[package]]\nname = "n{n}"\nversion = "1.0.0"\ndependencies = ["n{(n + 1) % 20000}"]\n' for n in range(20_000)
)
DAMAGES: dict[str, Damage] = {
    "map of another link": Damage(_other_map, "a linker map of another link"),
    "no map": Damage(_no_map, "no linker map"),
    "debug file of another build": Damage(_other_debug, "build-id", ("have no name",)),
    "debug file cut in its header": Damage(lambda scene: _debug(scene, 40), "inside the ELF header", ("have no name",)),
    "debug file cut in its sections": Damage(lambda scene: _debug(scene, 3000), "outside the file", ("have no name",)),
    "debug file without a byte": Damage(lambda scene: _debug(scene, 0), "too short", ("have no name",)),
    "DWARF of unknown version": Damage(_dwarf, "has version 9, and what is read is 2 to 5"),
    "lock file of other versions": Damage(
        lambda scene: [scene.library, *_lock(scene, LOCK.replace("0.6.5", "0.8.5"))[1:]], "lock file has rand 0.8.5"
    ),
    "lock file of another crate": Damage(
        lambda scene: _lock(scene, 'version = 3\n[[package]]\nname = "elsewhere"\nversion = "1.0.0"\n'),
        "no crate called rand",
    ),
    "lock file cut": Damage(lambda scene: _lock(scene, LOCK[:150]), "no lock file of cargo"),
    "lock file of cycles": Damage(lambda scene: _lock(scene, LOCK_RING), "no crate called rand"),
    "lock file of all to all": Damage(lambda scene: _lock(scene, ALL), "more than 50000 packages"),
    "lock file without an end": Damage(lambda scene: _lock(scene, "#\n" * (3 << 20)), "reads at most"),
    ".dep-v0 of one cycle": Damage(lambda scene: _dep(scene, _packages(RING)), "", CHANGED),
    ".dep-v0 of itself": Damage(lambda scene: _dep(scene, _packages([{**DEP[2], "dependencies": [0]}])), "", CHANGED),
    ".dep-v0 without an end": Damage(
        lambda scene: _dep(scene, zlib.compress(bytes(14 << 20), 9)[:SPACE]), "inflates to more", CHANGED
    ),
    ".dep-v0 cut": Damage(lambda scene: _dep(scene, _packages(DEP)[:40]), ".dep-v0 is not read", CHANGED),
    ".gnu_debugdata without an end": Damage(
        lambda scene: _names(scene, lzma.compress(bytes(100 << 20))[:SPACE]), "unfolds to more", CHANGED
    ),
    ".gnu_debugdata of junk": Damage(lambda scene: _names(scene, b"junk"), ".gnu_debugdata is damaged", CHANGED),
    "archive with a missing member": Damage(lambda scene: _thin(scene, None), "a member is missing"),
    "archive with a broken member": Damage(
        lambda scene: _thin(scene, scene.whole["b.o"][:200]), "section headers lie outside"
    ),
    "archive cut": Damage(_archive, "but the file ends"),
    "symbols that overlap": Damage(
        lambda scene: _symbols(scene, n0=(16, 900), n1=(16, 900), n2=(8, 10)), "inside of another"
    ),
    "symbols beyond the segment": Damage(
        lambda scene: _symbols(scene, n0=(16, 1 << 40), n1=(8, 1 << 63)), "(and 1 more) would lie beyond the end"
    ),
    "RECORD of another file": Damage(_record, "is not the file that its RECORD lists"),
    "SBOM of brackets": Damage(_sbom, "a.cdx.json is not read"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_one_sentence(scene: Scene, name: str) -> None:
    """Damage is told once and in time, by `tls` and `diff`, and the bytes still add up."""
    damage = DAMAGES[name]
    try:
        words = damage.make(scene)
        began = time.process_time()
        status, out, err = ask(["tls", *words], "json")
        assert time.process_time() - began < SECONDS
        assert (status, err) == (1 if "archive" in name else 0, "")
        assert judged(json.loads(out)) == []
        told = {one for one in told_of(out) if not any(words in one for words in damage.also)}
        assert len(told) == (1 if damage.says else 0), told
        assert all(damage.says in one for one in told)
        if "archive" not in name:
            began = time.process_time()
            status, out, err = ask(["diff", str(scene.root / "full.so"), *words], "text")
            assert time.process_time() - began < SECONDS
            assert status in (0, 10), (out, err)
            assert err == ""
            assert damage.says in " ".join(out.split())
    finally:
        scene.restore(*scene.whole)


def test_the_crate_in_the_scene_is_one() -> None:
    """The variable's name is one that Rust makes, or lock files would say nothing of its crate."""
    assert KEY.startswith("_ZN4rand") and KEY.endswith("E")
