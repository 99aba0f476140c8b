"""What objects open by dlopen, in `tree`: Debian's own notes, the search of a real dlopen, and notes that are junk."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.systems import known
from tests.fixtures.libraries import gcc
from tests.fixtures.real_hosts import BARE, host_program, need
from tests.fixtures.system import build, dlopen_note
from tests.oracle.sysroots import Index, kept_root, make_root

if TYPE_CHECKING:
    from dlwhy.report import Opening, TreeNode

_OPEN = """\
import ctypes, os, sys
opener = ctypes.CDLL(sys.argv[1])
opener.open_it.restype = ctypes.c_void_p
handle = opener.open_it(os.fsencode(sys.argv[2]))
if handle:
    found = [line[line.index("/"):-1] for line in open("/proc/self/maps") if "/" in line]
    print(next(path for path in found if path.endswith(sys.argv[2])))
"""


def opens(node: TreeNode) -> dict[str, tuple[Opening, ...]]:
    """Name of each object -> what it opens."""
    found = {node.name: node.opens}
    for child in node.children:
        found |= {name: told for name, told in opens(child).items() if told or name not in found}
    return found


def root_of(path: Path | str, **more: object) -> TreeNode:
    """The tree of a file in a C program."""
    report = dlwhy.tree(path, dlwhy.Host.plain(BARE), **more)  # type: ignore[arg-type]
    assert report.error is None, report.error
    return report.root


@pytest.mark.oracle
def test_what_systemd_says(tmp_path: Path) -> None:
    """The notes of Debian's libsystemd-shared, as objcopy has them: each entry, and which libraries that root has."""

    def make(root: Path) -> None:
        index = Index("trixie")
        wanted = ["libsystemd-shared", "libsystemd0", "libkmod2", "liblzma5", "libzstd1"]
        make_root(root, index, index.closure(wanted))

    root, why = kept_root("dlopen-trixie", "trixie", make)
    if root is None:
        pytest.skip(why)
    (library,) = root.glob("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-*.so")
    section = tmp_path / "section"
    subprocess.run(
        [need("objcopy"), "-O", "binary", "--only-section=.note.dlopen", "--set-section-flags", ".note.dlopen=alloc",
         library, section],
        check=True,
    )  # fmt: skip
    data = section.read_bytes()
    entries = [
        one for part in data.split(b"FDO\0")[1:] for one in json.loads(part[: part.index(b"\0")])
    ]
    shown = opens(root_of(str(library).removeprefix(str(root)), sysroot=str(root)))
    told = shown[str(library).removeprefix(str(root))]
    assert len(entries) > 10
    assert [(list(one.sonames), one.feature, one.description, one.priority) for one in told] == [
        (one["soname"], one.get("feature"), one.get("description"), one.get("priority", "recommended"))
        for one in entries
    ]
    there = {path.name for path in root.glob("usr/lib/x86_64-linux-gnu/*.so*")}
    for one in told:
        expected = next((name for name in one.sonames if name in there), None)
        assert (one.path or "").rpartition("/")[2] == (expected or "")
        assert one.basis == "computed"
    guesses = {one.sonames[0] for name in ("libmount.so.1", "libselinux.so.1") for one in shown[name]}
    assert guesses == {"libcryptsetup.so.12", "libsepol.so.2"}


@pytest.mark.oracle
def test_found_where_a_real_dlopen_finds_it(tmp_path: Path) -> None:
    """A library that opens others has its own RUNPATH for it: the path is that of a real process that does so."""
    (tmp_path / "near").mkdir()
    (tmp_path / "x.c").write_text("int x;\n")
    gcc(tmp_path / "near/libnear.so.1", "-shared", "-fPIC", tmp_path / "x.c")
    gcc(tmp_path / "libother.so.1", "-shared", "-fPIC", tmp_path / "x.c")
    note = [{"soname": [name], "priority": "suggested"} for name in ("libnear.so.1", "libother.so.1", "libm.so.6")]
    (tmp_path / "opener.c").write_text(
        dlopen_note(json.dumps(note)) + "#include <dlfcn.h>\nvoid *open_it(const char *n) { return dlopen(n, 2); }\n"
    )
    opener = gcc(
        tmp_path / "libopener.so", "-shared", "-fPIC", tmp_path / "opener.c",
        "-Wl,--enable-new-dtags,-rpath,$ORIGIN/near",
    )  # fmt: skip
    told = {one.sonames[0]: one.path for one in root_of(opener).opens}
    for name, path in told.items():
        done = subprocess.run(
            ["python3", "-I", "-S", "-c", _OPEN, opener, name], executable=host_program("python3"), env=BARE,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        real = done.stdout.strip()
        assert bool(path) == bool(real)
        assert not real or Path(str(path)).resolve() == Path(real).resolve()
    assert told["libother.so.1"] is None
    assert told["libnear.so.1"] is not None


def opener(tmp_path: Path, note: str, code: str = "") -> Path:
    """A library with this text as its note."""
    (tmp_path / "o.c").write_text(dlopen_note(note) + code + "int y;\n")
    return gcc(tmp_path / "libo.so", "-shared", "-fPIC", "-O0", tmp_path / "o.c")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("", []), ("{", []), ("null", []), ("[]", []), ("[1, null, []]", []), ("[" * 5000, []),
        ('[{"soname": 3}]', []), ('[{"soname": []}]', []), ('[{"soname": [1, "liba.so"]}]', ["liba.so"]),
        ('{"soname": "libold.so.1", "priority": "required"}', ["libold.so.1"]),
        ('[{"soname": ["liba.so"], "priority": "urgent", "feature": 3}]', ["liba.so"]),
        ('[{"soname": ["../../etc/passwd"]}]', ["../../etc/passwd"]),
        ('[{"soname": ["/dev/null"]}, {"x": 1}, {"soname": ["b"]}]', ["/dev/null", "b"]),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_notes_that_are_not_as_defined(tmp_path: Path, text: str, names: list[str]) -> None:
    """What is no list of objects with names is passed by, and the rest is there; the first form of the note, too."""
    told = root_of(opener(tmp_path, text)).opens
    assert [one.sonames[0] for one in told] == names
    assert {one.priority for one in told} <= {"required", "recommended"}
    assert all(one.path is None or one.path == "/dev/null" for one in told)


def test_damaged_notes(tmp_path: Path) -> None:
    """Whatever bytes of a note are changed, the tree is drawn."""
    good = opener(tmp_path, json.dumps([{"soname": ["libm.so.6"], "description": "x" * 50}] * 3))
    data = good.read_bytes()
    place = data.index(b"FDO\0") - 12
    dice = random.Random(11)
    for _ in range(40):
        bad = bytearray(data)
        for _ in range(dice.randrange(1, 6)):
            bad[place + dice.randrange(200)] = dice.randrange(256)
        (tmp_path / "bad.so").write_bytes(bad)
        root_of(tmp_path / "bad.so")


def test_constants_are_guesses(tmp_path: Path) -> None:
    """Only of objects that import dlopen, only whole constants like sonames, and nothing that is needed anyway."""
    code = 'const char *const n[] = {"liba.so.1", "libb.so", "lib%s.so", "libc.so.6", "/x/libp.so.1", "libx.so.1x"};\n'
    calls = "void *dlopen(const char *, int); void *f(void) { return dlopen(n[0], 1); }\n"
    told = root_of(opener(tmp_path, "[]", code + calls)).opens
    assert {one.sonames[0] for one in told} == {"liba.so.1", "libb.so"}
    assert {(one.basis, one.source, one.priority) for one in told} == {("assumed", "constant", None)}
    assert root_of(opener(tmp_path, "[]", code)).opens == ()
    noted = '[{"soname": ["libb.so"]}]'
    told = root_of(opener(tmp_path, noted, code + calls)).opens
    assert [(one.sonames[0], one.basis) for one in told] == [("libb.so", "computed"), ("liba.so.1", "assumed")]
    stripped = opener(tmp_path, "[]", code + calls)
    subprocess.run([need("strip"), stripped], check=True)
    assert len(root_of(stripped).opens) == 2


def test_guesses_of_what_comes_along_are_left_out_when_not_wanted(tmp_path: Path) -> None:
    """The constants of the file itself are always looked at, those of its dependencies with `guesses` only."""
    code = 'void *dlopen(const char *, int); void *{0}(void) {{ return dlopen("lib{0}.so.1", 1); }}\n'
    for name in ("below", "above"):
        (tmp_path / f"{name}.c").write_text(code.format(name))
    below = gcc(tmp_path / "libb.so", "-shared", "-fPIC", tmp_path / "below.c")
    above = gcc(
        tmp_path / "liba.so", "-shared", "-fPIC", "-Wl,--no-as-needed,-rpath,$ORIGIN", tmp_path / "above.c", below
    )
    for wanted in (True, False):
        report = dlwhy.tree(above, dlwhy.Host.plain(BARE), guesses=wanted)
        found = {one.sonames[0] for told in opens(report.root).values() for one in told}
        assert found == ({"libabove.so.1", "libbelow.so.1"} if wanted else {"libabove.so.1"})


def test_only_an_import_counts(tmp_path: Path) -> None:
    """A function called dlopen of the object's own, or a longer name that ends like it, opens nothing."""
    guess = 'const char *n = "liba.so.1";\n'
    own = "void *dlopen(const char *p, int f) { return (void *)(p + f); }\n"
    longer = "void *xdlopen(const char *, int); void *f(void) { return xdlopen(n, 1); }\n"
    both = "void *xdlopen(const char *, int), *dlopen(const char *, int);\n"
    both += "void *f(void) { return xdlopen(dlopen(n, 1), 1); }\n"
    assert root_of(opener(tmp_path, "[]", guess + own)).opens == ()
    assert root_of(opener(tmp_path, "[]", guess + longer)).opens == ()
    assert len(root_of(opener(tmp_path, "[]", guess + both)).opens) == 1


def test_nothing_is_loaded_for_it(tmp_path: Path) -> None:
    """The objects of the tree are the same with and without such notes, and a missing one is no missing need."""
    wanted = '[{"soname": ["libm.so.6"], "priority": "required"}]'
    with_note = dlwhy.tree(opener(tmp_path, wanted), dlwhy.Host.plain(BARE))
    assert with_note.root.opens[0].path is not None
    moved = shutil.copy(tmp_path / "libo.so", tmp_path / "moved.so")
    without = dlwhy.tree(opener(tmp_path, "[]"), dlwhy.Host.plain(BARE))
    assert (with_note.objects, with_note.missing) == (without.objects, without.missing)
    gone = dlwhy.tree(opener(tmp_path, '[{"soname": ["libgone.so"], "priority": "required"}]'), dlwhy.Host.plain(BARE))
    assert (gone.missing, gone.exit_status) == (0, 0)
    assert dlwhy.tree(moved, dlwhy.Host.plain(BARE)).root.opens


@pytest.mark.parametrize("profile", sorted(known()))
def test_captured_systems_hold_less(profile: str) -> None:
    """In a profile, which holds of a file what the loader reads, nothing more is asked for than it has."""
    if profile == "musl":
        names = ["libz.so.1", "libc.so"]
    else:
        names = ["libstdc++.so.6", "libgomp.so.1", "libm.so.6", "libcrypto.so.3", "libgcc_s.so.1", "libz.so.1"]
    host = dlwhy.Host.profile(profile, {}, "plain")
    for name in names:
        assert dlwhy.tree(name, host).exit_status in (0, 1)
        assert dlwhy.check([name], host).exit_status in (0, 10, 11)


def test_under_musl(tmp_path: Path) -> None:
    """musl looks where the program would, and says its own words of what is not there."""
    system = build(tmp_path / "root", tmp_path / "scratch")

    def asked() -> dict[str, Opening]:
        report = dlwhy.tree("/plug/libopener.so", dlwhy.Host.executable("/bin/musl", {}), sysroot=str(system.root))
        return {one.sonames[-1]: one for one in report.root.opens}

    assert asked()["libdep.so.1"].path is None
    assert asked()["libgone.so.3"].how.startswith("Error loading shared library libgone.so.3")
    shutil.copy(system.root / "lib/x86_64-linux-gnu/libdep.so.1", system.root / "lib/libdep.so.1")
    assert asked()["libdep.so.1"].path == "/lib/libdep.so.1"
