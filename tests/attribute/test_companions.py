"""Names from separate debug files and from `.gnu_debugdata`, made by objcopy and xz as distributions make them."""

# mypy: disable-error-code="union-attr"
from __future__ import annotations

import lzma
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.attribute import companions as module
from dlwhy.attribute.companions import companions
from dlwhy.elf.file import read
from dlwhy.elf.notes import build_id
from dlwhy.files import Files
from tests.attribute.test_bill import OTHER_C, TRIGGER_C, build, by_name, nameless

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_tls import TlsFile

NAMES = {"big", "counter", "exported", "quick"}


def run(*words: object) -> None:
    """Run a tool; skip where it is missing."""
    if shutil.which(str(words[0])) is None:
        pytest.skip(f"not run: no {words[0]} here")
    subprocess.run([str(word) for word in words], check=True)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with all its symbols and a build-id."""
    return build(
        tmp_path_factory.mktemp("full"), "libfull.so", "gcc", "-O1", "-g", "-shared", "-fPIC", "-Wl,--build-id",
        trigger__c=TRIGGER_C, other__c=OTHER_C,
    )  # fmt: skip


def shipped(full: Path, folder: Path, *more: object) -> Path:
    """Return the stripped library in a new folder, changed by objcopy's options `more`."""
    folder.mkdir(parents=True, exist_ok=True)
    run("objcopy", "--strip-all", *more, full, folder / "libfull.so")
    return folder / "libfull.so"


def kept(full: Path, place: Path) -> Path:
    """Write the debug file of the library at `place`."""
    place.parent.mkdir(parents=True, exist_ok=True)
    run("objcopy", "--only-keep-debug", full, place)
    return place


def asked(path: Path, *dirs: Path) -> TlsFile:
    """Return the answer of `tls`, whose sum must be right, with the findings of its evidence only."""
    (found,) = dlwhy.tls([path], debug_dirs=dirs).files
    assert found.tls is not None and found.error is None
    assert sum(one.bytes for one in found.tls.shares) + found.tls.padding + found.tls.unattributed == found.tls.size
    return found.but(findings=tuple(one for one in found.findings if one.rule in ("other-build", "unread-evidence")))


def test_by_build_id(full: Path, tmp_path: Path) -> None:
    """The debug file that the build-id leads to names every byte, and each line says that it did."""
    library = shipped(full, tmp_path)
    assert nameless(asked(library).tls) > 4000
    identity = build_id(read(Files().open(str(full))))
    assert identity is not None
    place = kept(full, tmp_path / "debug/.build-id" / identity[:2] / f"{identity[2:]}.debug")
    found = asked(library, tmp_path / "debug")
    assert {one.variable for one in found.tls.shares} == NAMES
    assert found.tls.unattributed == 0 and found.findings == ()
    exported = next(one for one in found.tls.shares if one.variable == "exported")
    assert str(place) in exported.evidence
    unstripped = asked(full).tls
    assert [(s.variable, s.bytes, s.owner, s.unit) for s in found.tls.shares] == [
        (s.variable, s.bytes, s.owner, s.unit) for s in unstripped.shares
    ]


@pytest.mark.parametrize("where", ["libfull.debug", ".debug/libfull.debug", None])
def test_by_debuglink(full: Path, tmp_path: Path, where: str | None) -> None:
    """`.gnu_debuglink` is followed beside the library, into `.debug`, and below a debug directory."""
    folder = tmp_path / "lib"
    place = folder / where if where else tmp_path / f"debug{folder}/libfull.debug"
    kept(full, place)
    library = shipped(full, folder, f"--add-gnu-debuglink={place}", "--remove-section=.note.gnu.build-id")
    found = asked(library, tmp_path / "debug")
    assert {one.variable for one in found.tls.shares} == NAMES and found.findings == ()
    place.write_bytes(place.read_bytes() + b"\0")
    found = asked(library, tmp_path / "debug")
    assert [(one.rule, "checksum" in one.message) for one in found.findings] == [("other-build", True)]
    assert by_name(found.tls) == {"exported", "quick"}


def test_inside_a_sysroot(full: Path, tmp_path: Path) -> None:
    """With a sysroot its own /usr/lib/debug is searched, and no other."""
    library = shipped(full, tmp_path / "opt")
    identity = build_id(read(Files().open(str(full)))) or ""
    kept(full, tmp_path / "usr/lib/debug/.build-id" / identity[:2] / f"{identity[2:]}.debug")
    (found,) = dlwhy.tls(["/opt/libfull.so"], sysroot=str(tmp_path)).files
    assert found.tls is not None and found.tls.unattributed == 0
    assert nameless(asked(library).tls) > 4000


def test_of_another_build(full: Path, tmp_path: Path) -> None:
    """A debug file with another build-id under the right name is one finding, and is not believed."""
    library = shipped(full, tmp_path)
    other = build(
        tmp_path, "other.so", "gcc", "-g", "-shared", "-fPIC", "-Wl,--build-id", a__c="__thread int exported;"
    )
    identity = build_id(read(Files().open(str(full)))) or ""
    kept(other, tmp_path / "debug/.build-id" / identity[:2] / f"{identity[2:]}.debug")
    found = asked(library, tmp_path / "debug")
    (finding,) = found.findings
    assert finding.rule == "other-build" and identity in finding.message
    assert by_name(found.tls) == {"exported", "quick"}


def test_cut_short(full: Path, tmp_path: Path) -> None:
    """A debug file that was cut anywhere gives names, or one finding and no names; the sum stays right."""
    library = shipped(full, tmp_path)
    identity = build_id(read(Files().open(str(full)))) or ""
    place = kept(full, tmp_path / "debug/.build-id" / identity[:2] / f"{identity[2:]}.debug")
    data = place.read_bytes()
    for size in (0, 3, 40, 64, 200, 1000, len(data) // 2, len(data) - 1):
        place.write_bytes(data[:size])
        found = asked(library, tmp_path / "debug")
        assert [one.rule for one in found.findings] == ["unread-evidence"], size
        assert "exported" in {one.variable for one in found.tls.shares}


def test_gnu_debugdata(full: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The symbols that `strip` left compressed in the library itself are read; damaged or too large, one finding."""
    small = tmp_path / "mini"
    run("objcopy", "--only-keep-debug", "--strip-debug", full, small)
    packed = lzma.compress(small.read_bytes())
    (tmp_path / "mini.xz").write_bytes(packed)
    library = shipped(full, tmp_path / "a", f"--add-section=.gnu_debugdata={tmp_path / 'mini.xz'}")
    found = asked(library)
    assert {one.variable for one in found.tls.shares} == NAMES and found.findings == ()
    assert any(".gnu_debugdata" in one.evidence for one in found.tls.shares)
    for data in (packed[:-20], packed[:30] + b"\xff" * 8 + packed[38:], b"", b"no xz at all"):
        (tmp_path / "mini.xz").write_bytes(data or b"\0")
        library = shipped(full, tmp_path / "b", f"--add-section=.gnu_debugdata={tmp_path / 'mini.xz'}")
        found = asked(library)
        assert [one.rule for one in found.findings] == ["unread-evidence"]
        assert ".gnu_debugdata" in found.findings[0].message
    (tmp_path / "mini.xz").write_bytes(packed)
    library = shipped(full, tmp_path / "b", f"--add-section=.gnu_debugdata={tmp_path / 'mini.xz'}")
    monkeypatch.setattr(module, "MAX_INSIDE", 1000)
    assert "more than 1000 bytes" in asked(library).findings[0].message


def test_nothing_is_looked_for_without_need(full: Path) -> None:
    """A library with its full symbol table is not searched a debug file for."""
    files = Files()
    assert companions(read(files.open(str(full))), files) == ((), ())
    (found,) = dlwhy.tls([full], debug_dirs=["/nowhere"]).files
    assert {one.rule for one in found.findings} <= {"static-tls-taker"}


def too_big(folder: Path) -> tuple[Path, Path]:
    """Return a stripped library whose static TLS fits nowhere, and a directory with its debug file by build-id."""
    (folder / "x.c").write_text(
        "static __thread char huge[9000]; __thread int small; char *f(int i) { small++; return huge + i; }\n"
    )
    whole = folder / "whole.so"
    options = ("-O1", "-g", "-shared", "-fPIC", "-ftls-model=initial-exec", "-Wl,--build-id")
    run("gcc", *options, folder / "x.c", "-o", whole)
    identity = build_id(read(Files().open(str(whole))))
    assert identity is not None
    kept(whole, folder / "debug" / ".build-id" / identity[:2] / f"{identity[2:]}.debug")
    run("strip", "-s", "-o", folder / "libx.so", whole)
    return folder / "libx.so", folder / "debug"


@pytest.mark.parametrize("host", ["plain", "profile:debian12"])
def test_check_takes_names_from_the_same_places(tmp_path: Path, host: str) -> None:
    """`check` names the variables of a stripped library by its debug file, also in a captured system."""
    library, debug = too_big(tmp_path)
    chosen = dlwhy.Host.named(host)
    before = dlwhy.check([library], chosen)
    after = dlwhy.check([library], chosen, debug_dirs=[debug])
    assert before.steps == after.steps and before.steps[0].kind == "static-tls-exhausted"
    (bare,), (named,) = before.tls, after.tls
    assert bare.size == named.size and "huge" not in [one.variable for one in bare.shares]
    assert {one.variable for one in named.shares} == {"huge", "small"}
    assert "huge" in [one.variable for one in named.triggers]
    assert sum(one.bytes for one in named.shares) + named.padding + named.unattributed == named.size
    words = [sys.executable, "-m", "dlwhy", "check", "--host", host, "--debug-dir", str(debug), str(library)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 10 and "huge" in done.stdout


def test_check_says_of_what_it_did_not_believe(tmp_path: Path) -> None:
    """A debug file of another build is a finding of `check` too, and changes nothing else."""
    library, debug = too_big(tmp_path)
    (place,) = debug.rglob("*.debug")
    data = place.read_bytes()
    identity = bytes.fromhex(place.parent.name + place.stem)
    place.write_bytes(data.replace(identity, bytes(len(identity))))
    report = dlwhy.check([library], dlwhy.Host.plain(), debug_dirs=[debug])
    assert "other-build" in [one.rule for one in report.findings]
    assert report.steps == dlwhy.check([library], dlwhy.Host.plain()).steps


def test_check_inside_a_sysroot(tmp_path: Path) -> None:
    """With a sysroot the debug directories are inside of it."""
    library, debug = too_big(tmp_path)
    root = tmp_path / "root"
    host = dlwhy.check([]).host
    for path in (host.loader, *host.startup.loaded[1:]):
        assert path is not None
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    shutil.copy(library, root / "libx.so")
    shutil.copytree(debug, root / "usr/lib/debug")
    (bill,) = dlwhy.check(["/libx.so"], dlwhy.Host.plain({}), sysroot=str(root)).tls
    assert {one.variable for one in bill.shares} == {"huge", "small"}


def test_functions_are_named_by_debug_files(tmp_path: Path) -> None:
    """Without its own symbols a library's debug file, or else its `.gnu_debugdata`, names the code behind a trigger."""
    full = build(
        tmp_path, "libfull.so", "gcc", "-O1", "-shared", "-fPIC", "-fvisibility=hidden", "-Wl,--build-id",
        trigger__c=TRIGGER_C, other__c=OTHER_C,
    )  # fmt: skip
    wanted = {function for trigger in asked(full).triggers for function in trigger.functions}
    assert wanted and not any(name.startswith("function at") for name in wanted)
    bare = shipped(full, tmp_path / "bare")
    hidden = {function for trigger in asked(bare).triggers for function in trigger.functions}
    kept(full, tmp_path / "bare/.debug/libfull.so")
    run("objcopy", f"--add-gnu-debuglink={tmp_path}/bare/.debug/libfull.so", bare)
    assert {function for trigger in asked(bare).triggers for function in trigger.functions} == wanted
    small = tmp_path / "small.debug"
    run("objcopy", "--only-keep-debug", "--strip-debug", full, small)
    packed = tmp_path / "small.xz"
    packed.write_bytes(lzma.compress(small.read_bytes()))
    inside = shipped(full, tmp_path / "inside", f"--add-section=.gnu_debugdata={packed}")
    found = asked(inside).triggers
    assert {function for trigger in found for function in trigger.functions} == wanted != hidden
    assert any(".gnu_debugdata" in user.evidence for trigger in found for user in trigger.users)
