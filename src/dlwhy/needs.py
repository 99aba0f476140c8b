"""Needs: what one object asks of the system that it is loaded into, each with the symbol or property that asks.

Every need is a fact of the file: a version of a library, a property note, a segment, a mark of the header. A library's
release follows from a version's name, since each release of glibc and of GCC's runtime names its new symbols after
itself. Nothing here knows a system.
"""

from __future__ import annotations

from dlwhy.elf.constants import (
    DT_GNU_HASH,
    DT_HASH,
    DT_RELR,
    NT_GNU_ABI_TAG,
    PF_X,
    PT_NOTE,
)
from dlwhy.errors import ElfError
from dlwhy.loader.glibc import FEATURES
from dlwhy.loader.properties import isa_and_needed
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from dlwhy.elf.file import Elf

GLIBC, PROCESSOR, KERNEL = "glibc", "processor", "Linux"
FAMILIES: dict[str, tuple[str, str]] = {
    # what a version's name begins with: (what it is a version of, citation)
    "GLIBC": (GLIBC, "glibc Versions.def: the versions of glibc's libraries are its releases"),
    "GLIBCXX": ("libstdc++ GLIBCXX", "libstdc++ manual, ABI Policy and Guidelines, Versioning"),
    "CXXABI": ("libstdc++ CXXABI", "libstdc++ manual, ABI Policy and Guidelines, Versioning"),
    "GCC": ("libgcc GCC", "gcc libgcc/libgcc-std.ver.in"),
    "GFORTRAN": ("libgfortran GFORTRAN", "gcc libgfortran/gfortran.map"),
    "GOMP": ("libgomp GOMP", "gcc libgomp/libgomp.map"),
    "LIBATOMIC": ("libatomic LIBATOMIC", "gcc libatomic/libatomic.map"),
}
MARKS: dict[str, tuple[tuple[int, ...], str | None]] = {
    # versions that stand for an ability of the loader: the first release that may have it, and what else to know
    "GLIBC_ABI_DT_RELR": ((2, 36), None),
    "GLIBC_ABI_GNU2_TLS": ((2, 39), "from 2.43 on, and in builds of 2.39 to 2.42 that took it over"),
    "GLIBC_ABI_GNU_TLS": ((2, 39), "from 2.43 on, and in builds of 2.39 to 2.42 that took it over"),
    "GLIBC_ABI_DT_X86_64_PLT": ((2, 39), "from 2.43 on, and in builds of 2.39 to 2.42 that took it over"),
}
"""glibc elf/Versions, sysdeps/*/Versions, and the release branches [M: Debian's 2.41 and 2.43 have them, 2.36 only the
first, 2.31 none]."""
PRIVATE = "GLIBC_PRIVATE"
_GNU_HASH_SINCE = (2, 5)
"""glibc elf/dl-lookup.c of 2.5 reads DT_GNU_HASH, that of 2.4 does not."""
_LEVELS = {2: "x86-64-v2", 4: "x86-64-v3", 8: "x86-64-v4"}
"""GNU_PROPERTY_X86_ISA_1_* (x86-64 psABI, Program Property); the first, 1, is what every processor has."""
PAGES = (4096, 16384, 65536)
"""Page sizes of Linux in use, in bytes (Linux arch/*/Kconfig, HAVE_PAGE_SIZE_*)."""
_MOST_NOTE = 1 << 16


class Need(Record):
    """One need of one object."""

    what: str
    """"glibc", "processor", "Linux", or a library and the family of its versions."""
    order: tuple[int, ...]
    """What it is compared by."""
    value: str
    """The least release or level."""
    version: str | None
    """The symbol version; None for a property."""
    file: str | None
    """The library that the version is asked of."""
    symbols: tuple[str, ...]
    """The symbols of that version, in the order of the table."""
    property: str | None
    """The property or mark; None for a version."""
    weak: bool
    """Whether the loader goes on without it."""


def needs(elf: Elf) -> list[Need]:
    """Return everything that an object needs a least release or level of. Raises `ElfError`."""
    return [*_versions(elf), *_properties(elf), *_kernel(elf)]


def release(version: str) -> tuple[str, tuple[int, ...]] | None:
    """Return (family, release) of a version such as GLIBCXX_3.4.29 or OPENSSL_1_1_0; None where its name tells none."""
    parts = version.split("_")
    numbers: list[int] = []
    while len(parts) > 1 and (found := _numbers(parts[-1])) is not None:
        numbers[:0] = found
        parts.pop()
    return ("_".join(parts), tuple(numbers)) if numbers and parts[0] else None


def _numbers(text: str) -> list[int] | None:
    parts = text.split(".")
    return [int(part) for part in parts] if all(part.isdecimal() and len(part) < 10 for part in parts) else None


def dotted(order: tuple[int, ...]) -> str:
    """Return a release as it is written."""
    return ".".join(map(str, order))


def _versions(elf: Elf) -> Iterator[Need]:
    wanted = [(file, need) for file, found in elf.versions.need_files for need in found]
    if elf.versions.astray is not None:
        raise elf.versions.astray
    users = _users(elf, {need.index for _, need in wanted}) if wanted else {}
    for file, need in wanted:
        symbols = users.get(need.index, ())
        if need.name in MARKS:
            order, _ = MARKS[need.name]
            yield Need(GLIBC, order, dotted(order), need.name, file, symbols, None, need.weak)
            continue
        told = release(need.name)
        if told is None:
            continue
        what = FAMILIES[told[0]][0] if told[0] in FAMILIES else f"{file} {told[0]}"
        if what == GLIBC and not of_the_c_library(file):  # libgcc_s has versions of glibc's name
            what = f"{file} {told[0]}"
        yield Need(what, told[1], dotted(told[1]), need.name, file, symbols, None, need.weak)


def _users(elf: Elf, indexes: set[int]) -> dict[int, tuple[str, ...]]:
    """Version index -> the symbols that refer to it; also those that a program copies, which it defines itself."""
    raw = elf.versions.versym()
    found: dict[int, list[str]] = {index: [] for index in indexes}
    for number in range(1, min(len(raw) // 2, elf.symbols.count)):
        index = int.from_bytes(raw[2 * number : 2 * number + 2], "little" if elf.little else "big") & 0x7FFF
        if index in found:
            found[index].append(elf.symbols.symbol(number).name.decode("utf-8", "surrogateescape"))
    return {index: tuple(dict.fromkeys(names)) for index, names in found.items()}


def _since(feature: str) -> tuple[int, int]:
    """The first release of glibc in which the loader has a feature."""
    return next(since for since, value, _ in FEATURES[feature] if value)


def _properties(elf: Elf) -> Iterator[Need]:
    tags = elf.dynamic.tags if elf.dynamic is not None else {}
    if DT_RELR in tags:
        order: tuple[int, ...] = _since("relr")
        yield Need(GLIBC, order, dotted(order), None, None, (), "DT_RELR: relative relocations in packed form", False)
    if DT_GNU_HASH in tags and DT_HASH not in tags:
        told = "DT_GNU_HASH without DT_HASH"
        yield Need(GLIBC, _GNU_HASH_SINCE, dotted(_GNU_HASH_SINCE), None, None, (), told, False)
    version = elf.view.head[8]
    if version and elf.ident[7] == 3:
        rows = FEATURES["abiversion_limit"]
        first = next((since for since, limits, _ in rows if version < limits.get(elf.machine, 0)), None)
        if first is not None and first > rows[0][0]:
            told = f"EI_ABIVERSION {version} of EI_OSABI GNU"
            yield Need(GLIBC, first, dotted(first), None, None, (), told, False)
    if elf.row is not None and elf.row.name == "x86-64":
        isa, _ = isa_and_needed(elf, property_segment=True)
        level = 1 << (isa.bit_length() - 1) if isa else 0
        if level in _LEVELS:
            told = "GNU_PROPERTY_X86_ISA_1_NEEDED, which glibc checks from 2.33 on"
            yield Need(PROCESSOR, (level,), _LEVELS[level], None, None, (), told, False)


def _kernel(elf: Elf) -> Iterator[Need]:
    """The release of Linux in .note.ABI-tag, which glibc compared up to 2.35 (elf/dl-load.c, open_verify)."""
    word = elf.layout.u32
    for row in elf.phdrs:
        if row[0] != PT_NOTE or row[7] not in (4, 8):
            continue
        data = elf.view.some(row[2], min(row[5], _MOST_NOTE))
        at = 0
        while at + 32 <= len(data):
            (namesz,), (descsz,), (kind,) = word.iter_unpack(data[at : at + 12])
            if (namesz, kind, data[at + 12 : at + 16]) == (4, NT_GNU_ABI_TAG, b"GNU\0") and descsz >= 16:
                system, *order = (number for (number,) in word.iter_unpack(data[at + 16 : at + 32]))
                if system == 0:
                    told = ".note.ABI-tag, which glibc compares up to 2.35"
                    yield Need(KERNEL, tuple(order), dotted(tuple(order)), None, None, (), told, False)
                return
            at += 12 + namesz + -namesz % 4
            at += descsz + -descsz % row[7]


# -- what is no least release ------------------------------------------------------------------------------------------


def pages(elf: Elf) -> int:
    """Return the largest page size in bytes on which every segment can be mapped by itself, 0 without segments.

    A segment is mapped in whole pages of the kernel, so that its address and its offset must agree modulo a page
    (gABI ch. 5, Program Loading; glibc elf/dl-load.c: not page-aligned), and segments that are less than a page apart
    would share one, with the rights of the last. p_align is what the linker kept them apart by.
    """
    fits = [size for size in PAGES if all(row[7] >= size and (row[3] - row[2]) % size == 0 for row in elf.loads)]
    return max(fits, default=0) if elf.loads else 0


def executable_stack(elf: Elf) -> str | None:
    """Return why an object asks for an executable stack, or None (glibc sysdeps/*/stackinfo.h, DEFAULT_STACK_PERMS)."""
    flags = elf.stack_flags
    if flags is not None:
        return "PT_GNU_STACK is executable" if flags & PF_X else None
    return "it has no PT_GNU_STACK" if elf.row is not None and elf.row.default_execstack else None


def c_library(elf: Elf) -> str | None:
    """Return "glibc", "musl", "both" or None: whose C library an object names among what it needs, and its loader."""
    names = list(elf.dynamic.needed) if elf.dynamic is not None else []
    names.append(_interp(elf).rpartition("/")[2])
    files = {file for file, _ in elf.versions.need_rows}
    glibc = any(_of_glibc(name) for name in [*names, *files])
    musl = any(name == "libc.so" or name.startswith(("libc.musl-", "ld-musl-")) for name in names)
    return "both" if glibc and musl else "glibc" if glibc else "musl" if musl else None


def _interp(elf: Elf) -> str:
    try:
        return elf.interp or ""
    except ElfError:  # there is one, and it is none that the kernel takes
        return ""


def _of_glibc(name: str) -> bool:
    return name == "libc.so.6" or name.startswith(("ld-linux", "ld64.so"))


PARTS_OF_GLIBC = frozenset((
    "libBrokenLocale.so.1", "libanl.so.1", "libc.so.6", "libdl.so.2", "libm.so.6", "libmvec.so.1", "libnsl.so.1",
    "libpthread.so.0", "libresolv.so.2", "librt.so.1", "libthread_db.so.1", "libutil.so.1",
))  # fmt: skip
"""Libraries that glibc itself has (glibc shlib-versions)."""


def of_the_c_library(name: str) -> bool:
    """Whether a name is one that a C library has itself, loaders included."""
    return name in PARTS_OF_GLIBC or _of_glibc(name) or name == "libc.so" or name.startswith(("libc.musl-", "ld-musl-"))
