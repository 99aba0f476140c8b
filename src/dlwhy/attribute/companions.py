"""Companions: the separate debug file of an object, and the small symbol table inside it, that `strip` left.

Distributions strip what they ship and keep the names elsewhere, in one of three ways (GDB manual, Separate Debug Files
and MiniDebugInfo):

    .gnu_debugdata      an ELF file of symbols, compressed with xz, inside the object itself
    build-id            DIRECTORY/.build-id/ab/cdef....debug
    .gnu_debuglink      a file name, beside the object, in `.debug` beside it, or below DIRECTORY at its path; a CRC

Rule 1: a file of another build is not believed: the build-ids must be equal, or the CRC where one of them has none.
Rule 2: what is damaged costs names, and is told in one sentence.
"""

from __future__ import annotations

from dlwhy.elf.constants import SHT_SYMTAB, STT_FILE, STT_SECTION
from dlwhy.elf.file import Elf
from dlwhy.elf.notes import build_id
from dlwhy.errors import DlwhyError, ElfError, FilesError
from dlwhy.record import Record
from dlwhy.view import View

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dlwhy.files import Files

DIRECTORIES = ("/usr/lib/debug",)
"""Where distributions put debug files."""
MAX_INSIDE = 64 << 20
"""Bytes that `.gnu_debugdata` may unfold to."""
_MAX_PACKED = 32 << 20
_MEMORY = 256 << 20
_MAX_LINK = 4096
_CHUNK = 1 << 20
_PIECE = 1024
"""Symbols looked at in one read."""
_FILE_OR_SECTION = bytes((STT_SECTION, STT_FILE))


class Remark(Record):
    """Something that was found out while looking for names, and the rule that it falls under."""

    rule: str
    message: str


class Companion(Record):
    """One file of names for an object."""

    elf: Elf
    label: str
    """What to call it as evidence."""


def companions(
    elf: Elf, files: Files, directories: Sequence[str] = DIRECTORIES
) -> tuple[tuple[Companion, ...], tuple[Remark, ...]]:
    """Return the companions of an object that could be read, the best first, and a remark on each that could not.

    `directories` are searched as GDB searches its debug-file-directory, with paths as `files` knows them.
    """
    found: list[Companion] = []
    remarks: list[Remark] = []
    identity = build_id(elf)
    for path, crc in _places(elf, files, identity, directories):
        try:
            made = opened(path, crc, identity, elf, files)
        except _OtherBuildError as error:
            remarks.append(Remark("other-build", str(error)))
            continue
        except DlwhyError as error:
            remarks.append(Remark("unread-evidence", f"a debug file is not read: {error}"))
            continue
        if made is not None:
            found.append(made)
            break
    try:
        inside = _inside(elf)
    except ElfError as error:
        remarks.append(Remark("unread-evidence", f"names are missing: {error}"))
    else:
        if inside is not None:
            found.append(Companion(inside, ".gnu_debugdata"))
    return tuple(found), tuple(dict.fromkeys(remarks))


class _OtherBuildError(ElfError):
    """A debug file that belongs to another build of the object."""


def has_all_names(elf: Elf) -> bool:
    """Whether `.symtab` kept its local symbols: after `strip -x` it has none but those of files and sections.

    Raises `ElfError` when the table leaves the file.
    """
    lay = elf.layout
    step = lay.sym.size
    place = 4 if lay.is64 else 12  # of st_info
    for section in elf.sections:
        if section.type == SHT_SYMTAB:  # sh_info: how many symbols are local, the null symbol counted (gABI ch. 4)
            end = min(section.info * step, section.size)
            for start in range(step, end, _PIECE * step):
                infos = elf.view.read(section.offset + start, min(_PIECE * step, end - start))[place::step]
                if infos.translate(None, _FILE_OR_SECTION):
                    return True
    return False


def _places(
    elf: Elf, files: Files, identity: str | None, directories: Sequence[str]
) -> Iterator[tuple[str, int | None]]:
    """Yield (path, CRC or None) of each place where a debug file may be and something is."""
    if identity is not None and len(identity) > 2:
        for directory in directories:
            path = f"{directory.rstrip('/')}/.build-id/{identity[:2]}/{identity[2:]}.debug"
            if files.kind(path) == "file":
                yield path, None
    link = _link(elf)
    if link is None:
        return
    name, crc = link
    try:
        here = files.resolve(elf.path).rpartition("/")[0]
    except FilesError:
        return
    beside = (f"{here}/{name}", f"{here}/.debug/{name}")
    for path in (*beside, *(f"{directory.rstrip('/')}{here}/{name}" for directory in directories)):
        if files.kind(path) == "file" and path != elf.path:
            yield path, crc


def _link(elf: Elf) -> tuple[str, int] | None:
    """Return what `.gnu_debuglink` says: a name, NUL, zeros up to a multiple of four, a CRC."""
    section = next((one for one in elf.sections if one.name == ".gnu_debuglink"), None)
    if section is None or section.size > _MAX_LINK:
        return None
    data = elf.view.some(section.offset, section.size)
    raw, nul, _ = data.partition(b"\0")
    at = (len(raw) + 4) & -4
    if not raw or not nul or b"/" in raw or len(data) < at + 4:
        return None
    return raw.decode("utf-8", "surrogateescape"), elf.layout.u32.unpack_from(data, at)[0]


def opened(path: str, crc: int | None, identity: str | None, of: Elf, files: Files) -> Companion | None:
    """Return the debug file at `path`; None for the object itself.

    Raises `ElfError` when it is damaged or of another build, `FilesError`.
    """
    view = files.open(path)
    if view.identity == of.view.identity:
        return None
    elf = Elf(view)
    if (elf.class_, elf.data, elf.machine) != (of.class_, of.data, of.machine):
        raise _OtherBuildError(path, -1, f"a debug file of another machine than {of.path}")
    if elf.shoff and not elf.sections:
        raise ElfError(path, elf.shoff, f"its section headers lie outside the file, which ends at {view.size:#x}")
    other = build_id(elf)
    if identity is not None and other is not None:
        if identity != other:
            raise _OtherBuildError(
                path, -1, f"a debug file of another build than {of.path}: its build-id is {other}, not {identity}"
            )
    elif crc is None or _crc(view) != crc:
        raise _OtherBuildError(path, -1, f"a debug file of another build than {of.path}: its checksum differs")
    return Companion(elf, path)


def _crc(view: View) -> int:
    """Return the CRC-32 of a file, as `.gnu_debuglink` has it."""
    import zlib

    value = 0
    for offset in range(0, view.size, _CHUNK):
        value = zlib.crc32(view.read(offset, min(_CHUNK, view.size - offset)), value)
    return value


def _inside(elf: Elf) -> Elf | None:
    """Return the ELF file in `.gnu_debugdata`, or None. Raises `ElfError` when it is damaged or too large."""
    section = next((one for one in elf.sections if one.name == ".gnu_debugdata"), None)
    if section is None:
        return None
    if section.size > _MAX_PACKED:
        raise ElfError(elf.path, section.offset, f".gnu_debugdata of {section.size} bytes is not unfolded")
    packed = elf.view.read(section.offset, section.size)
    try:
        import lzma
    except ImportError:
        raise ElfError(elf.path, -1, ".gnu_debugdata is not read: this Python was built without lzma") from None
    try:
        reader = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        data = reader.decompress(packed, MAX_INSIDE)
    except lzma.LZMAError as error:
        raise ElfError(elf.path, section.offset, f".gnu_debugdata is damaged: {error}") from None
    if not reader.eof:
        why = f"unfolds to more than {MAX_INSIDE} bytes" if len(data) >= MAX_INSIDE else "ends too early"
        raise ElfError(elf.path, section.offset, f".gnu_debugdata {why}")
    return Elf(View(f"{elf.path} (.gnu_debugdata)", data))
