"""`diff` as the library has it: real builds against the real loader, and the laws that every comparison keeps."""

from __future__ import annotations

import random
import shutil
import struct
import subprocess
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.errors import UnsupportedError, UsageError
from dlwhy.pairs import family
from tests.fixtures import registries
from tests.fixtures.libraries import gcc, initial_exec, thread_local
from tests.fixtures.real_hosts import BARE, need, open_in, raw
from tests.oracle.sysroots import sysroot

if TYPE_CHECKING:
    from dlwhy.report_diff import FileChange, ShareChange, VerdictChange

LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
RANK = {"loads": 2, "fails": 1, "dies": 0}


def one(old: Path | str, new: Path | str, **more: object) -> FileChange:
    """The comparison of two files."""
    (file,) = dlwhy.diff(old, new, **more).files  # type: ignore[arg-type]
    assert file.error is None, file.error
    return file


def verdict(file: FileChange) -> VerdictChange:
    """The only verdict."""
    (found,) = file.verdicts
    return found


def by_owner(file: FileChange) -> dict[str, ShareChange]:
    """What differs by owner."""
    return {share.owner: share for share in file.owners}


def adds_up(file: FileChange) -> bool:
    """Whether all lines, padding and unnamed bytes are the difference, by variable as by owner."""
    before, after = (side.size if side is not None else 0 for side in (file.tls_old, file.tls_new))
    sums = [sum(share.bytes for share in lines) for lines in (file.variables, file.owners)]
    assert all(share.bytes == share.new - share.old != 0 for share in (*file.variables, *file.owners))
    return file.bytes == after - before == sums[0] + file.padding + file.unattributed and sums[0] == sums[1]


def really_the_same(old: Path | str, new: Path | str, file: FileChange) -> None:
    """The verdicts of both files, and how they compare, are those of the real loader in a Python process."""
    real = [open_in("python3", [str(path)]).opened[0] for path in (old, new)]
    found = verdict(file)
    assert found.old is not None
    assert found.new is not None
    assert [(side.outcome, raw(side.message)) for side in (found.old, found.new)] == [tuple(side) for side in real]
    better = RANK[real[1].outcome] - RANK[real[0].outcome]
    expected = ("worse",) if better < 0 else ("better",) if better > 0 else ("same", "otherwise")
    assert found.change in expected


PYTHON = dlwhy.Host.executable("python3", BARE)


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("later-go", "go", "worse"), ("go", "later-go", "better"), ("release", "go", "worse"),
        ("later", "release", "same"),
    ],
)  # fmt: skip
def test_the_story(old: str, new: str, change: str) -> None:
    """rand 0.6.5 in place of 0.8 and a Go archive: the bytes of each, by which way, and what the real loader says."""
    before, after = registries.valet(old), registries.valet(new)
    file = one(before, after, host=PYTHON)
    assert verdict(file).change == change
    assert file.exit_status == (10 if change == "worse" else 0)
    assert adds_up(file)
    really_the_same(before, after, file)
    owners = by_owner(file)
    later = [old.startswith("later"), new.startswith("later")]
    if later == [True, False]:
        assert owners["rand"].bytes in (4216, 4232)
        (way,) = [told for told in file.provenance if told.owner == "rand"]
        assert way.new[0].path == ("valet 1.2.0", "selfupdate 0.1.0", "backoff 0.1.6", "rand 0.6.5")
        assert way.old[0].path[:3] == ("valet 1.2.0", "selfupdate 0.1.0", "backoff 0.3.0")
    go = [old.endswith("go"), new.endswith("go")]
    fresh = [found.trigger.variable for found in file.triggers if found.presence == "new"]
    assert fresh == ["runtime.tlsg"] * (go == [False, True])
    if go == [False, True]:
        assert owners["Go runtime"].bytes == 8
        assert (file.tls_old and file.tls_old.static, file.tls_new and file.tls_new.static) == (False, True)
        assert "flag-cannot-help" in {found.rule for found in file.findings}


@pytest.mark.oracle
def test_names_compare_across_builds_without_names() -> None:
    """Of a stripped build nothing is called surely new: its bytes without a name may be the same variables."""
    paths = [registries.valet(profile) for profile in ("stripped", "release")]
    file = one(*paths)
    assert {share.basis for share in (*file.owners, *file.variables)} == {"assumed"}
    assert file.bytes == 0
    assert adds_up(file)
    back = one(*reversed(paths))
    assert {share.presence for share in back.owners} == {"gone"}
    assert {share.basis for share in back.owners} == {"assumed"}


@pytest.mark.oracle
@pytest.mark.parametrize("suite", ["bullseye", "trixie", "sid"])
def test_two_releases_of_debian(suite: str) -> None:
    """libstdc++ and libz of another release in this machine's Python: verdict and words are the real loader's."""
    root, why = sysroot(suite)
    if root is None:
        pytest.skip(why)
    for name in ("libstdc++.so.6", "libz.so.1", "libgcc_s.so.1"):
        paths = [str(LIBRARIES / name), str(Path(f"{root}/lib/x86_64-linux-gnu/{name}"))]
        if not all(Path(path).exists() for path in paths):
            continue
        for old, new in (paths, paths[::-1]):
            file = one(old, new, host=PYTHON)
            assert adds_up(file)
            really_the_same(old, new, file)


@pytest.mark.oracle
def test_random_sizes(tmp_path: Path) -> None:
    """Segments of random sizes and alignments, seeded: the real loader agrees that it got worse, better or neither."""
    dice = random.Random(5)
    made = []
    data = bytearray(initial_exec(tmp_path, "x", 16).read_bytes())
    (table,) = struct.unpack_from("<Q", data, 32)
    header = next(table + 56 * at for at in range(20) if struct.unpack_from("<I", data, table + 56 * at)[0] == 7)
    for number in range(12):
        size = dice.choice((16, 1500, 1712, 1713, 4000, dice.randrange(1600, 1800)))
        align = dice.choice((8, 16, 64, 128))
        struct.pack_into("<QQ", data, header + 40, size, align)
        path = tmp_path / f"lib{number}.so"
        path.write_bytes(data)
        made.append(path)
    changes = set()
    for _ in range(10):
        old, new = dice.sample(made, 2)
        file = one(old, new, host=PYTHON)
        assert adds_up(file)
        really_the_same(old, new, file)
        changes.add(verdict(file).change)
    assert {"worse", "better", "same"} <= changes


@pytest.mark.machine
def test_laws_on_this_machines_libraries() -> None:
    """Of random pairs of libraries with TLS, seeded: the lines add up, and the other way round every sign is turned."""
    found = [path for path in sorted(LIBRARIES.glob("*.so.*")) if path.is_file() and not path.is_symlink()]
    dice = random.Random(7)
    found = [path for path in found if path.stat().st_size < 4 << 20]
    found = dice.sample(found, min(len(found), 200))
    with_tls = [path for path in found if dlwhy.tls([path], code=False).files[0].tls is not None]
    for _ in range(12):
        old, new = dice.sample(with_tls, 2)
        there, back = one(old, new, code=False), one(new, old, code=False)
        assert adds_up(there)
        assert adds_up(back)
        turned = {(share.kind, share.variable, share.new, share.old) for share in back.variables}
        assert {(share.kind, share.variable, share.old, share.new) for share in there.variables} == turned
        assert one(old, old).equal


def test_one_file_and_equal_files(tmp_path: Path) -> None:
    """A file against itself, through a link too, has no verdict; a copy has one, and both say that nothing differs."""
    library = initial_exec(tmp_path, "big", 4000)
    link = tmp_path / "link.so"
    link.symlink_to(library)
    copy = shutil.copy(library, tmp_path / "copy.so")
    for other in (library, link):
        file = one(library, other)
        assert (file.equal, file.verdicts, file.exit_status) == (True, (), 0)
    file = one(library, copy)
    assert (file.equal, verdict(file).change, file.exit_status) == (True, "same", 0)
    assert (file.variables, file.triggers, file.bytes) == ((), (), 0)


def test_equal_bytes_at_another_place(tmp_path: Path) -> None:
    """A copy without the neighbour that it finds by $ORIGIN got worse, although it has the same bytes."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    (tmp_path / "dep.c").write_text("int dep(void) { return 1; }\n")
    (tmp_path / "top.c").write_text("int dep(void); int top(void) { return dep(); }\n")
    gcc(here / "libnear.so", "-shared", "-fPIC", "-Wl,-soname,libnear.so", tmp_path / "dep.c")
    top = gcc(
        here / "libtop.so", "-shared", "-fPIC", tmp_path / "top.c", here / "libnear.so", "-Wl,-rpath,$ORIGIN",
        "-Wl,--no-as-needed",
    )  # fmt: skip
    file = one(top, shutil.copy(top, there))
    assert (file.equal, verdict(file).change, file.exit_status) == (True, "worse", 10)
    old = verdict(one(there / "libtop.so", top)).old
    assert old is not None
    assert old.message == "libnear.so: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize("order", [1, -1])
def test_undecided_of_either_is_no_promise(tmp_path: Path, order: int) -> None:
    """Where a fact about one of them is missing, it is 11 and never "not worse", whichever of the two it is."""
    good = thread_local(tmp_path, "good", 8, 8)
    data = bytearray(good.read_bytes())
    struct.pack_into("<H", data, 18, 0x1234)  # a machine that no row of data covers
    odd = tmp_path / "libodd.so"
    odd.write_bytes(data)
    old, new = (good, odd)[::order]
    report = dlwhy.diff(old, new, libc="glibc-2.99")
    assert report.exit_status == 11
    assert verdict(report.files[0]).change == "undecided"
    node = shutil.copy(good, tmp_path / "x.node")
    old, new = (good, Path(node))[::order]
    hosted = dlwhy.diff(old, new, host=dlwhy.Host.inferred({"PATH": "/nowhere"}))
    assert hosted.exit_status == 11


def test_both_fail_otherwise(tmp_path: Path) -> None:
    """Two failures are no change for the worse; that the reason is another one is said."""
    (tmp_path / "a.c").write_text("int a(void); int f(void) { return a(); }\n")
    (tmp_path / "b.c").write_text("int b(void); int f(void) { return b(); }\n")
    old, new = (gcc(tmp_path / f"lib{x}.so", "-shared", "-fPIC", tmp_path / f"{x}.c") for x in "ab")
    again = shutil.copy(old, tmp_path / "libagain.so")
    assert verdict(one(old, new)).change == "otherwise"
    assert verdict(one(old, again)).change == "same"
    assert one(old, new).exit_status == 0


def test_the_host_of_one_name_serves_both(tmp_path: Path) -> None:
    """index.node against index.node.orig: both in node, though only one name tells it."""
    library = thread_local(tmp_path, "x", 8, 8)
    addon, other = (shutil.copy(library, tmp_path / name) for name in ("index.node", "index.node.orig"))
    for old, new in ((addon, other), (other, addon)):
        found = verdict(one(old, new, host=dlwhy.Host.inferred({"PATH": "/nowhere"})))
        assert [side.host for side in (found.old, found.new) if side] == ["node", "node"]
    found = verdict(one(addon, other, host=dlwhy.Host.plain({})))
    assert [side.host for side in (found.old, found.new) if side] == ["plain", "plain"]


def test_programs_are_asked_whether_they_start(tmp_path: Path) -> None:
    """Two programs are compared by their starts."""
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    old = gcc(tmp_path / "old", tmp_path / "main.c")
    new = gcc(tmp_path / "new", tmp_path / "main.c", "-Wl,--dynamic-linker=/nowhere/ld.so")
    found = verdict(one(old, new))
    assert found.change == "worse"
    assert found.new is not None
    assert found.new.kind == "no-interpreter"


def test_a_file_that_cannot_be_examined(tmp_path: Path) -> None:
    """What is not there or no ELF file, on either side, is exit status 1 with a sentence."""
    library = thread_local(tmp_path, "x", 8, 8)
    text = tmp_path / "notes.txt"
    text.write_text("no library")
    for bad, words in ((text, "not an ELF file"), (tmp_path / "none.so", "No such file or directory")):
        for old, new in ((library, bad), (bad, library), (bad, bad)):
            report = dlwhy.diff(old, new)
            assert report.exit_status == 1
            assert words in (report.files[0].error or "")


def test_directories_and_archives(tmp_path: Path) -> None:
    """Files are paired by the path inside, then without what releases change; the rest is new or gone."""
    old, new = tmp_path / "old", tmp_path / "new"
    for place in (old, new):
        (place / "pkg.libs").mkdir(parents=True)
    names = {
        old: ("a.so", "pkg.libs/libomp-aaaaaaaa.so.1.0.0", "libx.so.1.2", "gone.so"),
        new: ("a.so", "pkg.libs/libomp-bbbbbbbb.so.1.0.1", "deeper/libx.so.1.3", "new.so"),
    }
    (new / "deeper").mkdir()
    for number, (place, inner) in enumerate(names.items()):
        for name in inner:
            shutil.copy(thread_local(tmp_path, "v", 8 * (number + 1), 8), place / name)
        (place / "README.txt").write_text("text")
    report = dlwhy.diff(old, new)
    assert [(file.name, file.presence) for file in report.files] == [
        ("a.so", "both"), ("deeper/libx.so.1.3", "both"), ("gone.so", "gone"), ("new.so", "new"),
        ("pkg.libs/libomp-bbbbbbbb.so.1.0.1", "both"),
    ]  # fmt: skip
    assert all(adds_up(file) for file in report.files)
    assert {file.bytes for file in report.files if file.presence == "both"} == {8}
    wheels = []
    for place in (old, new):
        wheels.append(tmp_path / f"{place.name}.whl")
        with zipfile.ZipFile(wheels[-1], "w") as archive:
            for path in sorted(place.rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(place))
    packed = dlwhy.diff(wheels[0], wheels[1])
    assert [(file.name, file.presence, file.bytes) for file in packed.files] == [
        (file.name, file.presence, file.bytes) for file in report.files
    ]
    assert packed.files[0].new == f"{wheels[1]}!/a.so"
    assert "dlwhy-" not in repr(packed)
    assert dlwhy.diff(old, wheels[1]).files[0].old == f"{old}/a.so"
    with pytest.raises(UsageError, match="name two of a kind"):
        dlwhy.diff(old, new / "a.so")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert dlwhy.diff(empty, empty).exit_status == 3


def test_what_is_new_and_does_not_load(tmp_path: Path) -> None:
    """A file that came along and fails is worse than none; one that loads, or is gone, is not."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    library = initial_exec(new, "big", 4000)
    assert dlwhy.diff(old, new).exit_status == 10
    assert dlwhy.diff(new, old).exit_status == 0
    library.unlink()
    thread_local(new, "fine", 8, 8)
    assert dlwhy.diff(old, new).exit_status == 0


def test_a_damaged_archive_and_a_map_of_many(tmp_path: Path) -> None:
    """An archive that cannot be read, and a map for directories, are refused in a sentence."""
    bad = tmp_path / "bad.whl"
    bad.write_bytes(b"PK\x03\x04junk")
    with pytest.raises(UnsupportedError, match="damaged archive"):
        dlwhy.diff(bad, bad)
    with pytest.raises(UsageError, match="a map tells of one file"):
        dlwhy.diff(tmp_path, tmp_path, map=bad)


def test_object_files_and_archives(tmp_path: Path) -> None:
    """What is not linked yet has no verdict; its TLS and access models are compared, an archive as a whole."""
    (tmp_path / "x.c").write_text("__thread int x; int *f(void) { return &x; }\n")
    old = gcc(tmp_path / "old.o", "-c", "-fPIC", tmp_path / "x.c")
    new = gcc(tmp_path / "new.o", "-c", "-fPIC", "-ftls-model=initial-exec", tmp_path / "x.c")
    report = dlwhy.diff(old, new)
    (file,) = report.files
    assert (file.kind, file.verdicts, file.exit_status) == ("object", (), 0)
    assert [(found.presence, found.trigger.variable) for found in file.triggers] == [("new", "x")]
    assert file.variables == ()
    assert adds_up(file)
    for made in (old, new):
        subprocess.run([need("ar"), "rcs", made.with_suffix(".a"), made], check=True)
    (file,) = dlwhy.diff(old.with_suffix(".a"), new.with_suffix(".a")).files
    assert (file.kind, file.verdicts) == ("archive", ())
    assert adds_up(file)


def test_other_systems(tmp_path: Path) -> None:
    """With systems there is one verdict each; a file of a machine that a system is not for got worse there."""
    small, big = initial_exec(tmp_path, "small", 16), initial_exec(tmp_path, "big", 4000)
    file = one(small, big, systems=["debian12", "debian13"])
    assert [(v.system, v.change) for v in file.verdicts] == [("debian12", "worse"), ("debian13", "worse")]
    data = bytearray(small.read_bytes())
    struct.pack_into("<H", data, 18, 243)  # EM_RISCV
    other = tmp_path / "libother.so"
    other.write_bytes(data)
    assert verdict(one(small, other, systems=["debian12"])).change == "undecided"


def test_maps_and_lock_files_of_both(tmp_path: Path) -> None:
    """`map` and `lock` are NEW's, `old_map` and `old_lock` OLD's."""
    paths = []
    for name, size in (("old", 40), ("new", 72)):
        (tmp_path / f"{name}.c").write_text(f"static __thread char hid[{size}]; char *f(void) {{ return hid; }}\n")
        paths.append(gcc(
            tmp_path / f"lib{name}.so", "-O1", "-shared", "-fPIC", "-s", f"-Wl,-Map={tmp_path}/{name}.map",
            tmp_path / f"{name}.c",
        ))  # fmt: skip
    bare = one(*paths)
    assert (bare.unattributed, bare.variables) == (32, ())
    told = one(*paths, old_map=tmp_path / "old.map", map=tmp_path / "new.map")
    assert told.unattributed == 0
    assert adds_up(told)
    (tmp_path / "junk.lock").write_text("{")
    assert any("junk.lock is not read" in note for note in one(*paths, old_lock=tmp_path / "junk.lock").notes)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("libx-1a2b3c4d.so.1", "libx.so.#"), ("libssl.so.1.1", "libssl.so.#"), ("libssl.so.3", "libssl.so.#"),
        ("m.cpython-311-x86_64-linux-gnu.so", "m.cpython-#-x#_#-linux-gnu.so"), ("pkg-1.2/a.so", "pkg-#/a.so"),
    ],
)  # fmt: skip
def test_families(name: str, stem: str) -> None:
    """What releases change in a name is left out: numbers, and the hash that auditwheel writes."""
    assert family(name) == stem
