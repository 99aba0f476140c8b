"""Archives: a zip (wheel, jar) or tar in a directory of our own, so that its libraries find their neighbours.

Nothing in an archive is trusted. Rule 1: no member lands outside the directory: names that would are refused, files
are written before any link is made, and a link that leads out is not kept. Rule 2: every size is bounded before its
bytes are read. Rule 3: of what is no ELF file only the beginning is written, in a file of its full length: the loader
looks no further, and pictures cost no disk. What tells where a library comes from (a RECORD, an SBOM) is written whole.
"""

from __future__ import annotations

import os
import stat

from dlwhy.errors import UnsupportedError
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from tarfile import TarFile
    from typing import Any
    from zipfile import ZipFile

ENDINGS = (
    ".egg", ".jar", ".tar", ".tar.bz2", ".tar.gz", ".tar.xz", ".tar.zst", ".tbz2", ".tgz", ".txz", ".whl", ".zip",
)  # fmt: skip
"""Names that are taken for archives in a directory; a file that is named itself is judged by its bytes."""
MAX_MEMBERS = 200_000
MAX_BYTES = 8 << 30
"""Bytes that the members of one archive may have together, unpacked."""
_ANYWAY = 256 << 20
_DENSEST = 100
"""How much larger than its archive code may be, beyond what is written anyway; machine code packs 2 to 5 times."""
_LARGEST_READ = 64 << 20
"""Bytes that tarfile may ask for at once; it reads headers of any length whole (a link name, a PAX header)."""
_BLOCK = 512
_BEGINNING = 4096
_CHUNK = 1 << 20
_TELLING = ("/RECORD", ".json", "Cargo.lock", "/METADATA")
"""Ends of the names of files that tell where libraries come from (dlwhy.attribute.installed)."""
_MOST_TOLD = 16 << 20
"""Bytes of one such file at most."""
_LONGEST_TARGET = 4096

_MAGIC = (
    (b"PK\x03\x04", "zip"), (b"PK\x05\x06", "zip"), (b"\x1f\x8b", "gzip"), (b"BZh", "bzip2"), (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)  # fmt: skip


class _Member(Record):
    """One member that is kept."""

    name: str
    """As it stands in the archive."""
    kind: str
    """"directory", "file", "link" (symbolic) or "hard"."""
    size: int
    target: str
    """Of a link."""
    executable: bool
    open: Callable[[], Any]


def kind(path: str) -> str | None:
    """Return "zip", "tar", "gzip", "bzip2", "xz" or "zstd" for a file that begins like an archive, else None."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            head = file.read(512)
    except (OSError, ValueError):
        return None
    if head[257:262] == b"ustar":
        return "tar"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def unpack(path: str, directory: str) -> None:
    """Unpack the archive at `path` into `directory`, which is empty. Raises `UnsupportedError` with one sentence."""
    import lzma
    import tarfile
    import zipfile
    import zlib

    what = kind(path)
    if what is None or what == "zstd":
        told = f"compressed with {what}, which dlwhy does not read: unpack it first"
        raise UnsupportedError(f"{path}: {told if what else 'no archive that dlwhy can read, whatever its name says'}")
    try:
        if what == "zip":
            with zipfile.ZipFile(path) as archive:
                _write(path, directory, _zip_members(path, archive))
        else:
            with _decompressed(path, what) as file:
                bounded: Any = _Bounded(path, file)
                with tarfile.open(fileobj=bounded, mode="r:") as tar:
                    _write(path, directory, _tar_members(tar))
                    bounded.seek(tar.offset)  # tarfile takes a header that is cut short for the end
                    if bounded.read(_BLOCK) != bytes(_BLOCK):
                        raise EOFError("it ends before its end mark")  # noqa: TRY301 -- as the decompressors say it
    except UnsupportedError:
        raise
    except (EOFError, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise UnsupportedError(f"{path}: a damaged archive: {_sentence(error)}") from None
    except (NotImplementedError, RuntimeError) as error:  # an unknown compression, or a password is wanted
        raise UnsupportedError(f"{path}: an archive that cannot be read: {_sentence(error)}") from None
    except (OSError, ValueError) as error:
        raise UnsupportedError(f"{path}: cannot be unpacked: {_sentence(error)}") from None


def _sentence(error: Exception) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return " ".join(text.split())[:200]


def _decompressed(path: str, what: str) -> Any:
    import bz2
    import gzip
    import lzma

    if what == "gzip":
        return gzip.open(path, "rb")
    if what == "bzip2":
        return bz2.open(path, "rb")
    return lzma.open(path, "rb") if what == "xz" else open(path, "rb")


class _Bounded:
    """A file whose reader can neither ask for too much at once nor go further than an honest archive reaches."""

    def __init__(self, path: str, file: Any) -> None:
        self._path = path
        self._file = file

    def read(self, size: int = -1) -> Any:
        """Return up to `size` bytes."""
        if not 0 <= size <= _LARGEST_READ:
            raise UnsupportedError(f"{self._path}: a header of more than {_LARGEST_READ} bytes")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> Any:
        """Go to `offset`. Raises `UnsupportedError` where no archive that is read goes."""
        if offset > 2 * MAX_BYTES:
            raise _too_large(self._path)
        return self._file.seek(offset, whence)

    def tell(self) -> Any:
        """Return where the next byte is read."""
        return self._file.tell()


def _too_large(path: str) -> UnsupportedError:
    most = f"{MAX_MEMBERS} members or {MAX_BYTES >> 30} GiB"
    return UnsupportedError(f"{path}: an archive of more than {most} is not examined: unpack it first")


def _zip_members(path: str, archive: ZipFile) -> Iterator[_Member]:
    for info in archive.infolist():
        mode = info.external_attr >> 16 if info.create_system == 3 else 0
        if info.filename.endswith("/"):  # not is_dir(), which fails for a name without a letter
            sort = "directory"
        elif stat.S_ISLNK(mode):
            sort = "link"
        elif stat.S_IFMT(mode) in (0, stat.S_IFREG):
            sort = "file"
        else:
            continue
        target = ""
        if sort == "link":
            if info.file_size > _LONGEST_TARGET:
                raise UnsupportedError(f"{path}: a damaged archive: a link of {info.file_size} bytes")
            target = os.fsdecode(archive.read(info))

        def opened(info: Any = info) -> Any:
            return archive.open(info)

        yield _Member(info.filename, sort, info.file_size, target, bool(mode & 0o111), opened)


def _tar_members(archive: TarFile) -> Iterator[_Member]:
    for info in archive:
        sorts = ((info.isdir(), "directory"), (info.issym(), "link"), (info.islnk(), "hard"), (info.isreg(), "file"))
        sort = next((name for is_so, name in sorts if is_so), None)
        if sort is None:  # a device or FIFO
            continue

        def opened(info: Any = info) -> Any:
            return archive.extractfile(info)

        yield _Member(info.name, sort, info.size, info.linkname, bool(info.mode & 0o111), opened)


def _write(path: str, directory: str, members: Iterator[_Member]) -> None:
    links: list[tuple[str, str]] = []
    count = total = 0
    left = max(_ANYWAY, _DENSEST * os.path.getsize(path))
    for one in members:
        count += 1
        total += max(one.size, 0)
        if count > MAX_MEMBERS or total > MAX_BYTES:
            raise _too_large(path)
        place = _place(path, directory, one.name)
        if place == directory:
            continue
        if one.kind == "directory":
            os.makedirs(place, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        if one.kind == "link":
            links.append((place, one.target))
        elif one.kind == "hard":
            source = _place(path, directory, one.target)
            if os.path.isfile(source) and source != place:
                _make_room(place)
                os.link(source, place)
        else:
            _make_room(place)
            left -= _write_file(one, place, left)
            if left < 0:
                raise UnsupportedError(f"{path}: refused: its code is more than {_DENSEST} times as large as itself")
    _write_links(directory, links)


def _place(path: str, directory: str, name: str) -> str:
    """Where a member goes. A leading slash is dropped, as tar does."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in name:
        raise UnsupportedError(f"{path}: refused: its member {name!r} would lie outside of it")
    return "/".join([directory, *parts])


def _make_room(place: str) -> None:
    if os.path.isfile(place):  # the later of two members of one name counts
        os.unlink(place)


def _write_file(one: _Member, place: str, most: int) -> int:
    """Write a member; return its bytes if they count, which are not written when they are more than `most`."""
    source = one.open()
    if source is None:
        return 0
    counted = 0
    with source, open(place, "xb") as file:
        data = source.read(min(_BEGINNING, one.size))
        file.write(data)
        left = one.size - len(data)
        if data.startswith(b"\x7fELF") or (one.name.endswith(_TELLING) and one.size <= _MOST_TOLD):
            counted = one.size
            while counted <= most and left > 0 and (data := source.read(min(_CHUNK, left))):
                file.write(data)
                left -= len(data)
        file.truncate(one.size)
    if one.executable:
        os.chmod(place, 0o755)  # noqa: S103 -- it is run by nobody, and its directory is ours alone
    return counted


def _write_links(directory: str, links: list[tuple[str, str]]) -> None:
    """Make the symbolic links that stay inside; only now, so that no file was ever written through one."""
    made = []
    for place, target in links:
        if not target or "\0" in target or target.startswith("/") or os.path.lexists(place):
            continue
        os.symlink(target, place)
        made.append(place)
    inside = directory + "/"
    while True:  # without one link another may lead elsewhere
        out = [place for place in made if not os.path.realpath(place).startswith(inside)]
        for place in out:
            os.unlink(place)
            made.remove(place)
        if not out:
            return
