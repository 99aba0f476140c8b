"""Sound files to begin with: images of both classes and byte orders, caches, archives, small libraries of this machine.

All but the last are built here, byte for byte the same everywhere, so that a finding can be kept as a few changes.
"""

from __future__ import annotations

import functools
import io
import os
import struct
import tarfile
import zipfile

from tests.elf.images import FORMS, everything
from tests.elf_writer import LOCAL, OBJECT, TLS, WEAK, Image, Reloc, Sym

LARGEST_LIBRARY = 16_000
"""Bytes of a library of this machine that is taken: larger ones only cost time."""
_X86_64_KEY = 0x303
_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_OLD_MAGIC = b"ld.so-1.7.0\0"
_STAMP = (1980, 1, 1, 0, 0, 0)
LOADER = "/lib64/ld-linux-x86-64.so.2"
"""The interpreter of the psABI x86-64: where a program names it, every such system has it."""


def _library(**changes: object) -> Image:
    """A library for x86-64 that loads: everything in it, but nothing missing."""
    image = everything(needed=["libc.so.6"], needs={"libc.so.6": ["GLIBC_2.2.5", "GLIBC_ABI_DT_RELR"]}, interp=None)
    image.symbols = [one for one in image.symbols if one.version not in ("F_1", "S_3") and one.shndx]
    image.symbols += [
        Sym("getpid", shndx=0, version="GLIBC_2.2.5"), Sym("perhaps", bind=WEAK, shndx=0),
        Sym("errno", type=TLS, shndx=0, bind=WEAK), Sym("environ", type=OBJECT, shndx=0),
    ]  # fmt: skip
    image.relocs = [
        Reloc(0, 8, None, 0x40), Reloc(8, 8, None, 0x48), Reloc(16, 6, "getpid"), Reloc(24, 18, "variable"),
        Reloc(32, 16, "variable"), Reloc(56, 1, "twice", 4), Reloc(96, 6, "environ"),
    ]  # fmt: skip
    image.jump = [Reloc(40, 7, "perhaps"), Reloc(48, 7, "getpid")]
    image.note = _properties() + image.note
    for name, value in changes.items():
        setattr(image, name, value)
    return image


def program(image: Image, vaddr: int = 0x40) -> bytes:
    """The bytes of a 64-bit program, with PT_PHDR before all other headers, as linkers have it."""
    image.headers = [(6, 4, 0x40, vaddr, vaddr, 56, 56, 8)]
    built = image.build()
    start, _, size = built.at["phdrs"]
    rows = built.data[start : start + size]
    return built.patched("phdrs", 0, rows[-56:] + rows[:-56])


def _properties() -> bytes:
    """A note with the processor level that every machine of the psABI has."""
    entry = struct.pack("<III", 0xC0008002, 4, 1) + bytes(4)
    return struct.pack("<III", 4, len(entry), 5) + b"GNU\0" + entry


def cache(old: bool = False) -> bytes:
    """An ld.so.cache with a dozen names, one of them in two glibc-hwcaps directories; `old`: the old format before."""
    names = [b"libn%d.so.%d" % (n, n % 3) for n in range(11, 1, -1)]
    rows = [(name, b"/lib/" + name, 0) for name in names]
    rows[3:3] = [(names[3], b"/lib/glibc-hwcaps/x86-64-v%d/" % n + names[3], 1 << 62 | n - 2) for n in (2, 3)]
    base = 48 + 24 * len(rows)
    strings, entries = b"", b""
    for key, path, hwcap in rows:
        at = base + len(strings)
        entries += struct.pack("<iIIIQ", _X86_64_KEY, at, at + len(key) + 1, 0, hwcap)
        strings += key + b"\0" + path + b"\0"
    hwcaps = base + len(strings)
    strings += b"x86-64-v2\0x86-64-v3\0"
    strings += bytes(-(base + len(strings)) % 4)
    extension = base + len(strings)
    header = _NEW_MAGIC + struct.pack("<II4BI", len(rows), len(strings), 2, 0, 0, 0, extension) + bytes(12)
    tail = struct.pack("<2I4I", 0xEAA42174, 1, 1, 0, extension + 24, 8) + struct.pack("<2I", hwcaps, hwcaps + 10)
    new = header + entries + strings + tail
    if not old:
        return new
    entries, strings = b"", b""
    for key, path, _ in rows:
        entries += struct.pack("<iII", 3, len(strings), len(strings) + len(key) + 1)
        strings += key + b"\0" + path + b"\0"
    first = _OLD_MAGIC + struct.pack("<I", len(rows)) + entries
    return first + bytes(-len(first) % 8) + new


def _members() -> dict[str, bytes]:
    return {"pkg/lib.so": _library().build().data, "pkg/notes.txt": b"words\n" * 20}


def _zip(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as made:
        for name, data in _members().items():
            made.writestr(zipfile.ZipInfo(name, _STAMP), data, compress_type=method)
        link = zipfile.ZipInfo("pkg/link.so", _STAMP)
        link.create_system, link.external_attr = 3, 0o120777 << 16
        made.writestr(link, "lib.so")
    return out.getvalue()


def _tar(mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as made:  # type: ignore[call-overload]
        for name, data in _members().items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
        for kind, name in ((tarfile.SYMTYPE, "pkg/link.so"), (tarfile.LNKTYPE, "pkg/hard" + "x" * 120 + ".so")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "lib.so" if kind == tarfile.SYMTYPE else "pkg/lib.so"
            made.addfile(info)
    return out.getvalue()


@functools.cache
def built() -> dict[str, bytes]:
    """Name -> the bytes of every seed that is built here: `elf-...`, `cache-...`, `archive-...`."""
    found = {f"elf-{bits}-{'le' if little else 'be'}": everything(bits, little).build().data for bits, little in FORMS}
    local = [Sym("here", 8, 8, LOCAL, TLS), *(Sym(f"v{n}", 8 * n, 8, type=TLS) for n in range(6))]
    images = {
        "library": _library(),
        "library-gnu": _library(hash=("gnu",), relative_count=0),
        "library-sysv": _library(hash=("sysv",), relr=[]),
        "library-static-tls": _library(tls=(5000, 64, b"much")),
        "names": _library(
            needed=["libc.so.6", "libn1.so", "$ORIGIN/libn2.so"], rpath="$ORIGIN/../lib:/lib:$LIB", runpath=None
        ),
        "filter": _library(tags=[(0x7FFFFFFD, 1), (0x7FFFFFFF, 14), (30, 8), (0x6FFFFFFB, 0x41)]),
        "constructors": _library(tags=[(12, 0x100), (25, 0x2000), (27, 16), (13, 0x110), (26, 0x2010), (28, 16)]),
        "executable": _library(type=2, entry=0x400, interp=LOADER),
        "static-program": Image(type=2, entry=0x100, dynamic=False, tls=(64, 8, b"x"), symtab=local),
        "tls-only": Image(tls=(48, 8, b""), symbols=local[1:], symtab=local, data=bytes(64), relocs=[Reloc(0, 18)]),
        "bare": Image(sections=False, symbols=[Sym("f", 0x10)]),
        "object": Image(type=1, symbols=local[1:], symtab=local),
    }
    found |= {f"elf-{name}": image.build().data for name, image in images.items()}
    found["elf-program"] = program(_library(entry=0x100, interp=LOADER, tags=[(0x6FFFFFFB, 0x08000001)]))
    found |= {"cache-new": cache(), "cache-both": cache(old=True)}
    found |= {"archive-zip": _zip(zipfile.ZIP_STORED), "archive-whl": _zip(zipfile.ZIP_DEFLATED)}
    found |= {f"archive-{mode}": _tar(f"w:{mode}") for mode in ("", "bz2", "xz")}
    return found


def of_machine(directories: tuple[str, ...] = ("/usr/lib/x86_64-linux-gnu", "/usr/lib")) -> dict[str, bytes]:
    """Name -> bytes of small libraries of this machine, one for each size: those of one size are near relations."""
    found: dict[int, tuple[str, bytes]] = {}
    for directory in directories:
        for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else ():
            path = os.path.join(directory, name)
            if ".so" in name and os.path.isfile(path) and os.path.getsize(path) < LARGEST_LIBRARY:
                with open(path, "rb") as file:
                    data = file.read()
                if data[:4] == b"\x7fELF":
                    found.setdefault(len(data) >> 8, (f"machine-{name}", data))
    return dict(found.values())
