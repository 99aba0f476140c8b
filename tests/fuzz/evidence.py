"""python -m tests.fuzz.evidence [--runs N] [--seed S] [--kind KIND]: damaged evidence put to `dlwhy tls` and `diff`.

A small library with thread-local variables is built, and all that may tell of it: object file, archives, linker's map,
debug file, names inside, Cargo.lock, `.dep-v0`, an SBOM and RECORD of a wheel. One of them is damaged, and asked.
Wrong is: an exception; a second of processor time; a status that the interface does not allow; a document that is none;
bytes that do not add up to the segment; a finding that is told twice. What is found is written to DIR, smallest first.
Exit status 1 when there is anything.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import io
import json
import lzma
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from dlwhy.cli.main import main as command
from dlwhy.render.json_v1 import render  # noqa: F401 -- so that no question pays for the import

from . import mutators
from .stage import SECONDS, _place, _TooSlow, _trace, _within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

KEY = "_ZN4rand4rngs6thread14THREAD_RNG_KEY7__getit5__KEY17h0123456789abcdefE"
"""A variable's name by which it is a crate's."""
A = f"""__thread char big[4248] __asm__("{KEY}");""" + """
static __thread long quick __attribute__((tls_model("initial-exec")));
__thread struct { int head[4]; struct { long inner[120]; char tail; } part; } nested; __thread short seven = 7;
long hurry(long i) { return quick++ + ++nested.part.inner[i]; } char *touch(int i) { seven++; return &big[i]; }
"""
B = "static __thread int counter = 3; __thread double real; int next(void) { return ++counter + (int) real; }"
SPACE = 1 << 14
"""Bytes of the sections that are written anew for each question."""
LOCK = """version = 3

[[package]]
name = "root"
version = "0.1.0"
dependencies = ["backoff", "rand 0.6.5"]

[[package]]
name = "backoff"
version = "0.1.6"
source = "registry+https://example.org/index"
dependencies = ["rand 0.6.5 (registry+https://example.org/index)"]

[[package]]
name = "rand"
version = "0.6.5"
source = "registry+https://example.org/index"
"""
DEP: list[dict[str, object]] = [
    {"name": "root", "version": "0.1.0", "source": "local", "root": True, "dependencies": [1]},
    {"name": "backoff", "version": "0.1.6", "source": "crates.io", "dependencies": [2]},
    {"name": "rand", "version": "0.6.5", "source": "crates.io"},
]
SBOM = {
    "bomFormat": "CycloneDX", "specVersion": "1.4",
    "metadata": {"component": {"bom-ref": "r", "name": "pkg", "version": "1"}},
    "components": [
        {"bom-ref": "g", "name": "libgomp", "version": "12.2", "purl": "pkg:rpm/almalinux/libgomp@12.2"},
        {"bom-ref": "q", "name": "rand", "version": "0.6.5", "purl": "pkg:cargo/rand@0.6.5"},
    ],
    "dependencies": [{"ref": "r", "dependsOn": ["g", "q"]}, {"ref": "g", "dependsOn": ["q"]}],
}  # fmt: skip
VALUES = (b"0", b"-1", b"1e999", b"0x0", b"0xffffffffffffffff", b"99999999999999999999", b"4294967296", b"[]", b"{}")
PIECES = (b"\0", b"\xff\xfe", b"\r", b"\xe2\x80\xae", b"(", b"[", b"{", b'"', b"\t" * 50, b"9" * 5000, b"[" * 3000)
DEEP = (b"[" * 100_000, b'{"a":' * 50_000, b"x" * 300_000, b"a=[" * 40_000)
"""Nested or long beyond all sense."""


class Fault(NamedTuple):
    """Something that is wrong with an answer."""

    kind: str
    where: str
    text: str


class Scene:
    """A directory with the library and its evidence. `whole` has the sound bytes of each file by its name."""

    def __init__(self, directory: str) -> None:
        self.root = Path(directory)
        self.root.mkdir(parents=True, exist_ok=True)
        self._build()
        self.whole = {
            str(path.relative_to(self.root)): path.read_bytes() for path in self.root.rglob("*") if path.is_file()
        }
        self.library = str(self.root / "site/lib.so")
        self.names = lzma.decompress(self.whole["names.xz"])
        self.symbols = self._section(self.whole["full.so"], ".symtab")

    def _run(self, *words: str) -> None:
        subprocess.run(words, cwd=self.root, check=True, capture_output=True)

    def _build(self) -> None:
        root = self.root
        for name, text in (("a.c", A), ("b.c", B), ("Cargo.lock", LOCK), ("space", "\0" * SPACE)):
            (root / name).write_text(text)
        for name in ("a", "b"):
            self._run("gcc", "-g", "-O1", "-fPIC", "-fdata-sections", "-c", f"{name}.c")
        self._run("ar", "rcs", "libb.a", "b.o", "a.o")
        self._run("ar", "rcsT", "libthin.a", "b.o", "a.o")
        link = ("gcc", "-shared", "-Wl,--build-id", "-Wl,-Map=map", "-fuse-ld=bfd", "a.o", "b.o", "-o", "full.so")
        self._run(*link)
        (root / "site/pkg-1.dist-info/sboms").mkdir(parents=True)
        self._run("objcopy", "--only-keep-debug", "full.so", "site/lib.debug")
        self._run("objcopy", "--strip-all", f"--keep-symbol={KEY}", "full.so", "names")
        (root / "names.xz").write_bytes(lzma.compress((root / "names").read_bytes()))
        space = ("--add-section", ".dep-v0=space", "--add-section", ".gnu_debugdata=space")
        self._run("objcopy", "--strip-all", *space, "--add-gnu-debuglink=site/lib.debug", "full.so", "site/lib.so")
        data = (root / "site/lib.so").read_bytes()
        dep = zlib.compress(json.dumps({"packages": DEP}).encode())
        data = self._with(self._with(data, ".dep-v0", dep), ".gnu_debugdata", (root / "names.xz").read_bytes())
        (root / "site/lib.so").write_bytes(data)
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        row = f"lib.so,sha256={digest},{len(data)}\n"
        (root / "site/pkg-1.dist-info/RECORD").write_text("a.py,,\n" + row)
        (root / "site/pkg-1.dist-info/sboms/a.cdx.json").write_text(json.dumps(SBOM))

    def _with(self, data: bytes, name: str, inside: bytes) -> bytes:
        """A file with other bytes in one of its sections, filled up with zeros."""
        offset, size = self._section(data, name)
        return data[:offset] + inside[:size].ljust(size, b"\0") + data[offset + size :]

    @staticmethod
    def _section(data: bytes, name: str) -> tuple[int, int]:
        """(offset, size) of a section, read by other code than dlwhy's."""
        shoff, count, names = _number(data, 40, 8), _number(data, 60, 2), _number(data, 62, 2)
        strings = _number(data, shoff + 64 * names + 24, 8)
        for at in range(shoff, shoff + 64 * count, 64):
            start = strings + _number(data, at, 4)
            if data[start : data.index(b"\0", start)].decode() == name:
                return _number(data, at + 24, 8), _number(data, at + 32, 8)
        return 0, 0

    def put(self, name: str, data: bytes) -> str:
        """Write one file; its path."""
        path = self.root / name
        path.write_bytes(data)
        return str(path)

    def restore(self, *names: str) -> None:
        """Write sound files again."""
        for name in names:
            self.put(name, self.whole[name])

    def with_section(self, name: str, data: bytes) -> None:
        """Write the library with other bytes in one of its sections."""
        self.put("site/lib.so", self._with(self.whole["site/lib.so"], name, data))


_DEBUG = (".debug_info", ".debug_abbrev", ".debug_str", ".debug_line")


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


# -- damage ------------------------------------------------------------------------------------------------------------


def text_damaged(data: bytes, rng: random.Random) -> bytes:
    """A text with some lines cut, moved, doubled, with other numbers or with what no text has."""
    if rng.random() < 0.02:
        return rng.choice(DEEP)
    lines = data.split(b"\n")
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind == 0:
            lines[at] = lines[at][: rng.randrange(len(lines[at]) + 1)]
        elif kind == 1:
            del lines[at : at + rng.choice((1, 1, 5, 50))]
        elif kind == 2:
            lines[at:at] = [lines[at]] * rng.choice((1, 1, 40, 2000))
        elif kind == 3:
            lines[at] = lines[rng.randrange(len(lines))]
        elif kind == 4:
            numbers = list(re.finditer(rb"(?:0x)?[0-9a-fA-F]+", lines[at]))
            if numbers:
                one = rng.choice(numbers)
                lines[at] = lines[at][: one.start()] + rng.choice(VALUES) + lines[at][one.end() :]
        elif kind == 5:
            place = rng.randrange(len(lines[at]) + 1)
            lines[at] = lines[at][:place] + rng.choice(PIECES) + lines[at][place:]
        elif kind == 6:
            lines = lines[: at + 1]
        else:
            words = lines[at].split(b" ")
            rng.shuffle(words)
            lines[at] = b" ".join(words)
        lines = lines or [b""]
    return b"\n".join(lines)


def graph_damaged(document: object, rng: random.Random) -> bytes:
    """A document of JSON with a value that does not belong there, or with cycles and multitudes."""
    made = json.loads(json.dumps(document))
    rows = made if isinstance(made, list) else made["components"]
    kind = rng.randrange(6)
    if kind == 0:
        rows += [{"name": f"n{n}", "version": "1", "bom-ref": f"n{n}"} for n in range(rng.choice((10, 3000)))]
    elif kind == 1:
        rows[0]["dependencies"] = rows[-1]["dependencies"] = list(range(-2, 3000))
    elif kind == 2:
        rng.choice(rows)[rng.choice(("name", "version", "dependencies", "root", "purl"))] = rng.choice(
            (None, 7, -1, [], [[0]], {}, "x" * 5000, True, [1e99], "\ud800")
        )
    elif kind == 3 and isinstance(made, dict):
        made[rng.choice(("dependencies", "components", "metadata", "bomFormat"))] = rng.choice((None, [], {}, 7, [7]))
    elif kind == 4 and isinstance(made, dict):
        made["dependencies"] = [{"ref": a, "dependsOn": ["r", "g", "q"] * 50} for a in "rgq"]
    text = json.dumps({"packages": made} if isinstance(made, list) else made, indent=1).encode()
    return text_damaged(text, rng) if kind == 5 or rng.random() < 0.2 else text


def bytes_damaged(data: bytes, rng: random.Random, places: Sequence[tuple[int, int]] = ()) -> bytes:
    """A file with other bytes, most of them in `places` (offset, size); without any as the fuzzer of libraries does."""
    if not places:
        return mutators.mutate(data, rng, [data])
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 30))):
        offset, size = rng.choice([one for one in places if one[1]])
        at = offset + rng.randrange(size)
        width = rng.choice((1, 1, 2, 4, 8))
        made[at : at + width] = (rng.choice(mutators.LIMITS) & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(made[: rng.randrange(len(made))] if rng.random() < 0.05 else made)


def rows_damaged(data: bytes, rng: random.Random, place: tuple[int, int]) -> bytes:
    """A symbol table whose thread-local symbols overlap, exceed the segment, or are of other kinds."""
    made = bytearray(data)
    offset, size = place
    rows = [at for at in range(offset, offset + size - 23, 24) if made[at + 4] & 15 == 6] or [offset]
    for _ in range(rng.choice((1, 1, 3, len(rows)))):
        at = rng.choice(rows)
        field = rng.choice((8, 8, 16, 16, 0, 4))
        value = rng.choice((*mutators.LIMITS, *(rng.randrange(6000) for _ in range(30))))
        width = 8 if field >= 8 else 4
        made[at + field : at + field + width] = (value & (1 << 8 * width) - 1).to_bytes(width, "little")
    return bytes(made)


def packed(data: bytes, rng: random.Random, pack: Callable[[bytes], bytes]) -> bytes:
    """Bytes as packed, seldom damaged once more, or with a multitude inside."""
    if rng.random() < 0.03:
        data = bytes(100 << 20)
    made = pack(data)
    return bytes_damaged(made, rng, [(0, len(made))]) if rng.random() < 0.3 else made


# -- questions ---------------------------------------------------------------------------------------------------------


def _object(scene: Scene, rng: random.Random) -> list[str]:
    return ["tls", scene.put("made.o", bytes_damaged(scene.whole["a.o"], rng))]


def _archive(scene: Scene, rng: random.Random) -> list[str]:
    data = scene.whole["libb.a"]
    header = data.index(b"b.o/")
    places = [(0, 80), (header - 60, 130), (0, len(data))]
    return ["tls", scene.put("made.a", bytes_damaged(data, rng, places))]


def _thin(scene: Scene, rng: random.Random) -> list[str]:
    if rng.random() < 0.5:
        scene.put("b.o", bytes_damaged(scene.whole["b.o"], rng))
    data = scene.whole["libthin.a"]
    return ["tls", scene.put("made.a", bytes_damaged(data, rng, [(0, len(data))]))]


def _map(scene: Scene, rng: random.Random) -> list[str]:
    path = scene.put("made.map", text_damaged(scene.whole["map"], rng))
    return ["tls", rng.choice((scene.library, str(scene.root / "full.so"))), "--map", path]


def _lock(scene: Scene, rng: random.Random) -> list[str]:
    return ["tls", scene.library, "--lock", scene.put("made.lock", text_damaged(scene.whole["Cargo.lock"], rng))]


def _sbom(scene: Scene, rng: random.Random) -> list[str]:
    scene.put("site/pkg-1.dist-info/sboms/a.cdx.json", graph_damaged(SBOM, rng))
    return ["tls", scene.library]


def _record(scene: Scene, rng: random.Random) -> list[str]:
    name = "site/pkg-1.dist-info/RECORD"
    scene.put(name, text_damaged(scene.whole[name], rng))
    return ["tls", scene.library]


def _debug(scene: Scene, rng: random.Random) -> list[str]:
    data = scene.whole["site/lib.debug"]
    scene.put("site/lib.debug", data[: rng.randrange(len(data))] if rng.random() < 0.2 else bytes_damaged(data, rng))
    return ["tls", scene.library, "--debug-dir", str(scene.root / "debug")]


def _dwarf(scene: Scene, rng: random.Random) -> list[str]:
    """Debug information: beside the library its CRC would tell, so it is inside of one with all its sections."""
    places = [scene._section(scene.whole["full.so"], name) for name in _DEBUG]
    data = scene.whole["full.so"]
    if rng.random() < 0.3:  # the version of a unit stands behind its length
        made = bytearray(data)
        made[places[0][0] + 4 : places[0][0] + 6] = rng.choice((0, 1, 6, 7, 0xFFFF)).to_bytes(2, "little")
        data = bytes(made)
    return ["tls", scene.put("made.so", bytes_damaged(data, rng, places))]


def _names(scene: Scene, rng: random.Random) -> list[str]:
    inner = bytes_damaged(scene.names, rng) if rng.random() < 0.8 else scene.names
    scene.with_section(".gnu_debugdata", packed(inner, rng, lzma.compress))
    return ["tls", scene.library]


def _dep(scene: Scene, rng: random.Random) -> list[str]:
    scene.with_section(".dep-v0", packed(graph_damaged(DEP, rng), rng, zlib.compress))
    return ["tls", scene.library]


def _symbols(scene: Scene, rng: random.Random) -> list[str]:
    return ["tls", scene.put("made.so", rows_damaged(scene.whole["full.so"], rng, scene.symbols))]


def _library(scene: Scene, rng: random.Random) -> list[str]:
    return ["tls", scene.put("made.so", bytes_damaged(scene.whole["full.so"], rng))]


def _diff(scene: Scene, rng: random.Random) -> list[str]:
    """Any of the others as NEW, beside the sound library."""
    words = rng.choice((_symbols, _library, _map, _lock, _names, _dep))(scene, rng)
    return ["diff", str(scene.root / "full.so"), *words[1:]]


KINDS: dict[str, Callable[[Scene, random.Random], list[str]]] = {
    "object": _object, "archive": _archive, "thin": _thin, "map": _map, "lock": _lock, "sbom": _sbom,
    "record": _record, "debug": _debug, "dwarf": _dwarf, "names": _names, "dep": _dep, "symbols": _symbols,
    "library": _library, "diff": _diff,
}  # fmt: skip
ALLOWED = {"tls": (0, 1), "diff": (0, 1, 10, 11)}
RULES = ("other-build", "unread-evidence")


def ask(words: list[str], form: str) -> tuple[int, str, str]:
    """Run one command in this process; status, standard output and error."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = command([*words, "--format", form])
    return status, out.getvalue(), err.getvalue()


def fault(words: list[str], form: str, seconds: float = SECONDS) -> Fault | None:
    """Ask one question; what is wrong with the answer."""
    try:
        with _within(seconds):
            status, out, err = ask(words, form)
    except _TooSlow as error:
        return Fault("time", _place(error), _trace(error))
    except MemoryError as error:
        return Fault("memory", _place(error), _trace(error))
    except Exception as error:  # noqa: BLE001 -- whatever leaves dlwhy is what is looked for
        return Fault("exception", f"{type(error).__name__} {_place(error)}", _trace(error))
    if status not in ALLOWED[words[0]] or "Traceback" in out + err or not (out + err).strip():
        return Fault("status", words[0], f"{status}: {(out + err)[-2000:]}")
    if form == "json" and out:
        document = json.loads(out)
        for wrong in judged(document) if document["command"] == "tls" else ():
            return wrong
    return None


def judged(document: dict[str, object]) -> list[Fault]:
    """What is wrong with the document of `tls`: sums, and findings about evidence that are there twice."""
    wrong = []
    for one in document["files"]:  # type: ignore[attr-defined]
        for file in (one, *one["members"]):
            bill = file["tls"]
            if bill is not None:
                for rows in (bill["shares"], bill["owners"]):
                    total = sum(row["bytes"] for row in rows) + bill["padding"] + bill["unattributed"]
                    if total != bill["size"]:
                        wrong.append(Fault("sum", "shares", f"{total} of {bill['size']}"))
        told = [(found["rule"], found["message"]) for found in one["findings"] if found["rule"] in RULES]
        notes = one["tls"]["notes"] if one["tls"] is not None else []
        if len(set(told)) < len(told) or len(set(notes)) < len(notes):
            wrong.append(Fault("twice", "findings", f"{told} {notes}"))
    return wrong


class Campaign(NamedTuple):
    """What came of it."""

    runs: int
    statuses: Counter[tuple[str, int | str]]
    faults: dict[tuple[str, str], tuple[list[str], Fault]]


def campaign(scene: Scene, runs: int, seed: int, kinds: Sequence[str] = tuple(KINDS), keep: str = "") -> Campaign:
    """Ask so many questions, each kind as often as any other; `keep` is where files of faults go."""
    found = Campaign(runs, Counter(), {})
    changed = ("b.o", "site/lib.so", "site/lib.debug", "site/pkg-1.dist-info/RECORD",
               "site/pkg-1.dist-info/sboms/a.cdx.json")  # fmt: skip
    for number in range(runs):
        kind = kinds[number % len(kinds)]
        rng = random.Random(f"{seed} {number}")
        words = KINDS[kind](scene, rng)
        wrong = fault(words, rng.choice(("json", "json", "text")))
        found.statuses[kind, wrong.kind if wrong else "sound"] += 1
        if wrong is not None and (wrong.kind, wrong.where) not in found.faults:
            found.faults[wrong.kind, wrong.where] = [kind, f"{seed} {number}", *words], wrong
            if keep:
                _write_down(scene, Path(keep), len(found.faults), words, wrong)
        scene.restore(*changed)
    return found


def _write_down(scene: Scene, directory: Path, number: int, words: list[str], wrong: Fault) -> None:
    place = directory / f"{number:02}-{wrong.kind}"
    place.mkdir(parents=True, exist_ok=True)
    text = f"{wrong.kind} at {wrong.where}\n{' '.join(words)}\n\n{wrong.text}\n"
    (place / "told.txt").write_text(text, "utf-8", "backslashreplace")
    for path in (Path(word) for word in words[1:]):
        if path.is_file() and scene.root in path.parents:
            (place / path.name).write_bytes(path.read_bytes())


def main() -> int:
    """Run a campaign by hand."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.evidence")
    parser.add_argument("--runs", type=int, default=10_000, help="questions (10000)")
    parser.add_argument("--seed", type=int, help="what the damage is drawn from (a fresh one, which is printed)")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this (may be given again)")
    parser.add_argument("--directory", default="fuzz-findings", help="where findings go (fuzz-findings)")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 31) if given.seed is None else given.seed
    print(f"seed {seed}", flush=True)
    began = time.process_time()
    with tempfile.TemporaryDirectory() as work:
        scene = Scene(os.path.join(work, "scene"))
        found = campaign(scene, given.runs, seed, given.kind or tuple(KINDS), given.directory)
    for (kind, what), count in sorted(found.statuses.items(), key=str):
        print(f"{kind:12} {what!s:12} {count:8}")
    for where, (words, wrong) in found.faults.items():
        print(f"\n{where}: {' '.join(words)}\n{wrong.text[-1500:]}")
    seconds = time.process_time() - began
    print(f"{found.runs} questions, {len(found.faults)} findings, {seconds:.0f} s of processor time")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
