"""`check --each`: directories and archives walked, one report a file, streamed, and none hidden by another."""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import stat
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import dlwhy as library
from dlwhy import archives
from dlwhy.errors import UnsupportedError
from tests.cli.run import COMMAND, ENVIRONMENT, SOMEWHERE, dlwhy
from tests.fixtures.libraries import gcc


def reports(*words: str | Path, **more: object) -> tuple[int, list[dict[str, object]]]:
    """Exit status, and the document in each line of the output."""
    done = dlwhy("check", "--each", "--format", "json", *words, **more)  # type: ignore[arg-type]
    assert done.err == ""
    return done.status, [json.loads(line) for line in done.out.splitlines()]


def name_of(report: dict[str, object]) -> str:
    """What a report is about."""
    if "subject" in report:
        return str(report["subject"])
    steps = report["steps"]
    return str(steps[0]["request"] if steps else report["host"]["name"])  # type: ignore[index]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a library, and in a directory below it the one that it needs by $ORIGIN."""
    made = tmp_path_factory.mktemp("pair")
    (made / "pkg/deps").mkdir(parents=True)
    (made / "empty.c").write_text("")
    inner = gcc(made / "pkg/deps/libinner.so.1", "-shared", "-Wl,-soname,libinner.so.1", made / "empty.c")
    gcc(
        made / "pkg/outer.so", "-shared", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN/deps", made / "empty.c", inner,
    )  # fmt: skip
    (made / "empty.c").unlink()
    (made / "pkg/notes.txt").write_text("no library")
    (made / "pkg/broken.so").write_bytes(b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\x00" + b"\xff" * 100)
    return made


MEMBERS = ["pkg/broken.so", "pkg/outer.so", "pkg/deps/libinner.so.1"]
"""The files of `pair` that are looked at, in the order of the reports."""


def test_a_directory(pair: Path) -> None:
    """Every library and program below a directory has its own report, in the order of the names; none hides another."""
    status, made = reports(pair)
    assert status == 10
    assert [name_of(one) for one in made] == [f"{pair}/{name}" for name in MEMBERS]
    assert [one["exit_status"] for one in made] == [10, 0, 0]
    relative = reports(".", cwd=pair)[1]
    assert [name_of(one).rpartition("/")[2] for one in relative] == [name.rpartition("/")[2] for name in MEMBERS]


def archive(directory: Path, ending: str, target: Path) -> Path:
    """Pack a directory."""
    if ending in ("zip", "whl"):
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(directory.rglob("*")):
                packed.write(path, path.relative_to(directory))
    else:
        mode = {"tar": "w", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[ending]
        with tarfile.open(target, mode) as packed:  # type: ignore[call-overload]
            packed.add(directory, ".")
    return target


@pytest.mark.parametrize("ending", ["zip", "whl", "tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_an_archive(pair: Path, tmp_path: Path, ending: str) -> None:
    """The members of an archive find their neighbours and are named ARCHIVE!/MEMBER; nothing of it stays behind."""
    packed = archive(pair, ending, tmp_path / f"a.{ending}")
    (tmp_path / "temporary").mkdir()
    status, made = reports(packed, env={"TMPDIR": str(tmp_path / "temporary")})
    assert status == 10
    assert [name_of(one) for one in made] == [f"{packed}!/{name}" for name in MEMBERS]
    assert [one["exit_status"] for one in made] == [10, 0, 0]
    assert made[1]["steps"][0]["loaded"][-1] == f"{packed}!/pkg/deps/libinner.so.1"  # type: ignore[index]
    assert "temporary" not in json.dumps(made)
    assert list((tmp_path / "temporary").iterdir()) == []
    # found in a directory, and by a name that does not tell
    assert [name_of(one) for one in reports(tmp_path)[1]] == [f"{packed}!/{name}" for name in MEMBERS]
    packed.rename(tmp_path / "download")
    assert len(reports(tmp_path / "download")[1]) == 3


def test_reports_are_streamed(tmp_path: Path, pair: Path) -> None:
    """The first report can be read while later files are still to come."""
    fifo = tmp_path / "zz.json"
    os.mkfifo(fifo)
    running = subprocess.Popen(
        [COMMAND, "check", "--each", "-q", pair / "pkg/outer.so", fifo, pair / "pkg/outer.so"], env=ENVIRONMENT,
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout is not None
    assert "would load" in running.stdout.readline()
    running.stdout.close()  # the reader goes away
    assert running.wait(60) in {141, 10}


def test_text_of_many(pair: Path) -> None:
    """As text the reports stand one below the other, with a blank line between them."""
    done = dlwhy("check", "--each", pair / "pkg/outer.so", pair / "pkg/deps/libinner.so.1")
    assert done.status == 0
    first, second = done.out.split("\n\n" + str(pair / "pkg/deps"))
    assert first.startswith(str(pair / "pkg/outer.so"))
    assert "would load" in second
    assert done.out == dlwhy("check", "--each", pair / "pkg/outer.so").out + "\n" + dlwhy(
        "check", "--each", pair / "pkg/deps/libinner.so.1"
    ).out


def test_output_files_of_many(pair: Path, tmp_path: Path) -> None:
    """-o json=FILE has one document in each line, as standard output has."""
    done = dlwhy("check", "--each", "--format", "json", "-o", f"json={tmp_path}/lines", pair)
    assert done.out == (tmp_path / "lines").read_text("utf-8")


def damaged(directory: Path, good: Path) -> dict[str, Path]:
    """Archives that cannot be unpacked, by what is wrong with them."""
    data = good.read_bytes()
    made = {
        "cut.tgz": data[: len(data) // 2],
        "no.zip": b"PK\x03\x04 and nothing more",
        "text.tgz": b"no archive at all",
        "notar.tar.gz": __import__("gzip").compress(b"some text, compressed" * 50),
        "later.tar.zst": b"\x28\xb5\x2f\xfd" + b"\0" * 40,
        "empty.whl": b"",
        "flipped.tgz": data[:40] + bytes(byte ^ 0x55 for byte in data[40:80]) + data[80:],
    }
    for name, content in made.items():
        (directory / name).write_bytes(content)
    return {name: directory / name for name in made}


def test_bad_archives_hide_nothing(pair: Path, tmp_path: Path) -> None:
    """A damaged archive has a sentence and exit status 1, and the files after it are checked all the same."""
    good = archive(pair, "tgz", tmp_path / "good.tgz")
    (tmp_path / "bad").mkdir()
    bad = damaged(tmp_path / "bad", good)
    good.rename(tmp_path / "bad/zz.tgz")
    status, made = reports(tmp_path / "bad")
    assert status == 1
    failed = {name_of(one): one for one in made if "subject" in one}
    assert set(failed) == {str(path) for path in bad.values()}
    for path, one in failed.items():
        assert str(one["error"]).startswith(f"{path}: ")
        assert "\n" not in str(one["error"])
        assert one["exit_status"] == 1
    assert len(made) == len(bad) + 3
    done = dlwhy("check", "--each", "-q", tmp_path / "bad")
    assert done.status == 1
    assert done.out.count("not examined: ") == len(bad)
    assert "Traceback" not in done.err


def tar_of(target: Path, *entries: tuple[str, str, bytes | str]) -> Path:
    """A tar file of (name, kind, content or link target)."""
    kinds = {
        "file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE,
        "device": tarfile.CHRTYPE,
    }  # fmt: skip
    with tarfile.open(target, "w") as packed:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type = kinds[kind]
            if isinstance(content, bytes):
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                packed.addfile(info)
    return target


def unpacked(path: Path, tmp_path: Path) -> Path:
    """The directory that an archive is unpacked into."""
    target = tmp_path / "out"
    target.mkdir()
    archives.unpack(str(path), str(target))
    return target


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/../evil", "a/b/../../../evil"])
def test_no_member_lands_outside(tmp_path: Path, name: str) -> None:
    """An archive with a member that would lie outside is refused whole."""
    packed = tar_of(tmp_path / "a.tar", ("good", "file", b"x"), (name, "file", b"evil"))
    with pytest.raises(UnsupportedError, match="refused"):
        unpacked(packed, tmp_path)
    assert not (tmp_path / "evil").exists()
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr(name, "evil")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(UnsupportedError, match="refused"):
        unpacked(tmp_path / "a.zip", tmp_path)
    assert not (tmp_path / "evil").exists()


def test_an_absolute_member_stays_inside(tmp_path: Path) -> None:
    """A leading slash is dropped, as tar does."""
    packed = tar_of(tmp_path / "a.tar", (f"{tmp_path}/evil", "file", b"x"))
    target = unpacked(packed, tmp_path)
    assert (target / str(tmp_path)[1:] / "evil").exists()
    assert not (tmp_path / "evil").exists()


def test_links_never_lead_out(tmp_path: Path) -> None:
    """A link that leads out, itself or through others, is not made, and no file is written through one."""
    (tmp_path / "secret").write_text("secret")
    packed = tar_of(
        tmp_path / "a.tar",
        ("up", "link", ".."), ("abs", "link", str(tmp_path / "secret")), ("d/one", "link", "../d2"),
        ("d2/two", "link", "../.."), ("through/x", "file", b"x"), ("sneak", "link", "d2/two/secret"),
        ("up/written", "file", b"evil"), ("fine", "link", "through/x"), ("dangling", "link", "nowhere"),
        ("hard", "hard", "through/x"), ("steal", "hard", "up/secret"), ("loop", "link", "loop"),
    )  # fmt: skip
    target = unpacked(packed, tmp_path)
    for path in target.rglob("*"):
        assert Path(os.path.realpath(path)).is_relative_to(target)
    assert (target / "fine").read_bytes() == (target / "hard").read_bytes() == b"x"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "out", "secret"]
    assert not (target / "sneak").exists()


def test_only_files_are_made(tmp_path: Path) -> None:
    """Devices and FIFOs of an archive are left out."""
    packed = tar_of(tmp_path / "a.tar", ("pipe", "fifo", ""), ("null", "device", ""), ("x", "file", b"x"))
    assert [path.name for path in unpacked(packed, tmp_path).iterdir()] == ["x"]


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    """A symbolic link in a zip, as wheels sometimes have, is a link to its neighbour."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.write(SOMEWHERE, "libx.so.1")
        info = zipfile.ZipInfo("libx.so")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        zipped.writestr(info, "libx.so.1")
    target = unpacked(tmp_path / "a.zip", tmp_path)
    assert os.readlink(target / "libx.so") == "libx.so.1"
    assert (target / "libx.so").read_bytes() == Path(SOMEWHERE).read_bytes()


def test_a_member_without_a_name(tmp_path: Path) -> None:
    """A zip with a member whose name has no letter, which nobody writes, is unpacked without it."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as zipped:
        zipped.writestr("n", b"nameless")
        zipped.writestr("x", b"words")
    data = bytearray((tmp_path / "a.zip").read_bytes())
    for magic, at in ((b"PK\3\4", 26), (b"PK\1\2", 28)):
        place = data.index(magic) + at
        data[place : place + 4] = b"\0\0\1\0"  # no name, and one byte of extra data, which the name is now
    (tmp_path / "a.zip").write_bytes(data)
    assert [path.name for path in unpacked(tmp_path / "a.zip", tmp_path).iterdir()] == ["x"]


def test_what_is_no_library_costs_no_disk(tmp_path: Path) -> None:
    """Of a file that is no ELF file only the beginning is written, with its full length; a library is whole."""
    picture = os.urandom(1 << 20)
    code = Path(SOMEWHERE).read_bytes()
    packed = tar_of(tmp_path / "a.tar", ("picture", "file", picture), ("lib.so", "file", code))
    target = unpacked(packed, tmp_path)
    assert (target / "picture").stat().st_size == len(picture)
    assert (target / "picture").stat().st_blocks * 512 < len(picture) // 8
    assert (target / "picture").read_bytes()[:4096] == picture[:4096]
    assert (target / "lib.so").read_bytes() == code


def test_huge_claims_are_refused(tmp_path: Path) -> None:
    """A few bytes that claim gigabytes, as members or as headers, are refused in bounded memory and time."""
    import gzip

    info = tarfile.TarInfo("big")
    info.size = 1 << 40
    header = info.tobuf()
    (tmp_path / "members.tar").write_bytes(header + bytes(10240))
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 32
    with gzip.open(tmp_path / "header.tgz", "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(100):
            file.write(bytes(1 << 20))
    limit = 512 << 20
    for name in ("members.tar", "header.tgz"):
        done = subprocess.run(
            [COMMAND, "check", "--each", "-q", tmp_path / name], env=ENVIRONMENT, capture_output=True, text=True,
            check=False, timeout=120, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stdout.startswith(f"not examined: {tmp_path / name}: ")
        assert done.stdout.count("\n") == 1
        assert done.stderr == ""


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A small archive that unpacks to gigabytes of what looks like code is refused before they are written."""
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        for name in ("one.so", "two.so"):
            with zipped.open(name, "w") as member:
                member.write(b"\x7fELF")
                for _ in range(150):
                    member.write(bytes(1 << 20))
    limit = 200 << 20
    done = subprocess.run(
        [COMMAND, "check", "--each", "-q", tmp_path / "a.zip"], env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    told = "refused: its code is more than 100 times as large as itself"
    assert done.stdout == f"not examined: {tmp_path}/a.zip: {told}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_archive_in_archive_is_told(pair: Path, tmp_path: Path) -> None:
    """An archive inside an archive is not walked, and that is said with exit status 1: it never reads as loads."""
    inner = archive(pair, "zip", tmp_path / "inner.zip")
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as zipped:
        zipped.write(inner, "inner.zip")
    status, made = reports(tmp_path / "outer.zip")
    assert status == 1
    assert [name_of(one) for one in made] == [f"{tmp_path}/outer.zip!/inner.zip"]


@pytest.mark.skipif(os.geteuid() == 0, reason="not run: root can read every directory")
def test_an_unreadable_directory(tmp_path: Path, pair: Path) -> None:
    """A directory that cannot be listed has a sentence of its own, and the others are walked."""
    shutil.copytree(pair, tmp_path / "copy")
    (tmp_path / "closed").mkdir(mode=0)
    status, made = reports(tmp_path)
    assert status == 1
    assert [name_of(one) for one in made if "subject" in one] == [str(tmp_path / "closed")]
    assert len(made) == 4


def test_inside_a_sysroot(system) -> None:
    """Below a sysroot directories are walked as the process would see them."""
    status, made = reports("/app/tree", "--sysroot", system.root)
    assert status == 10
    assert [name_of(one) for one in made] == [f"/app/tree/{name}.so" for name in ("liba", "libb", "top")]


def test_the_library_does_the_same(pair: Path) -> None:
    """dlwhy.each yields what the command prints, and cleans up when it is closed early."""
    made = list(library.each([pair], library.Host.plain({})))
    assert [one.exit_status for one in made] == [10, 0, 0]


def test_an_archive_goes_when_the_reader_does(pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing the iterator in the middle of an archive removes what was unpacked."""
    import tempfile

    packed = archive(pair, "tgz", tmp_path / "a.tgz")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    running = library.each([packed], library.Host.plain({}))
    next(running)
    assert len(list((tmp_path / "temporary").iterdir())) == 1
    running.close()  # type: ignore[attr-defined]
    assert list((tmp_path / "temporary").iterdir()) == []


def test_public_names_stay_what_they_are() -> None:
    """No function of the library is hidden by a module of its name, whatever was called before."""
    import importlib
    import pkgutil

    for _, name, _ in pkgutil.iter_modules(library.__path__):
        assert name not in library.__all__
        if name != "__main__":
            importlib.import_module(f"dlwhy.{name}")
    assert all(callable(getattr(library, name)) for name in ("check", "each", "tls", "tree"))
