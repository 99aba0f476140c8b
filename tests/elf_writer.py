"""An ELF writer: exactly the bytes that a test means, in both classes and both byte orders.

An `Image` says what is in the file; `build` lays it out and tells where each part went, so that a test can also break
it on purpose. Two PT_LOAD: headers and tables at the addresses of their offsets, then data, TLS image and dynamic
section one page further up. What has no name here goes in by number: extra tags, extra headers, raw bytes.

    built = Image(bits=32, little=False, needed=["libc.so.6"], symbols=[Sym("f", 0x10)]).build()
    built.data[built.at["dynamic"].offset :]
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

PAGE = 0x1000
LOCAL, GLOBAL, WEAK = 0, 1, 2
NOTYPE, OBJECT, FUNC, SECTION, FILE, TLS = 0, 1, 2, 3, 4, 6
MACHINES = {(64, True): 62, (32, True): 3, (64, False): 22, (32, False): 20}
"""x86-64, i386, s390x, ppc: a machine for each class and byte order."""


class Sym(NamedTuple):
    """A symbol. The name is interned, or an offset into the string table when it is a number."""

    name: str | bytes | int
    value: int = 0
    size: int = 0
    bind: int = GLOBAL
    type: int = FUNC
    other: int = 0
    shndx: int = 1
    version: str | None = None
    hidden: bool = False


class Reloc(NamedTuple):
    """A relocation; `offset` counts from the start of the image's data, the symbol goes by its name."""

    offset: int
    type: int
    symbol: str | bytes | None = None
    addend: int = 0


class Place(NamedTuple):
    """Where a part of the file went."""

    offset: int
    vaddr: int
    size: int


class Built(NamedTuple):
    """The bytes of a file and where its parts are, by name."""

    data: bytes
    at: dict[str, Place]
    symbol: dict[bytes, int]
    """Name -> index in the dynamic symbol table."""

    def patched(self, part: str, offset: int, new: bytes) -> bytes:
        """The file with `new` at `offset` of a part."""
        place = self.at[part].offset + offset
        return self.data[:place] + new + self.data[place + len(new) :]


def raw(name: str | bytes) -> bytes:
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


@lru_cache(1024)
def gnu_hash(name: bytes) -> int:
    """As in the GNU hash section's description, written a second time so that the reader is not its own witness."""
    h = 5381
    for byte in name:
        h = (h * 33 + byte) % 2**32
    return h


@lru_cache(1024)
def sysv_hash(name: bytes) -> int:
    """The function printed in gABI ch. 5, in its own words."""
    h = 0
    for byte in name:
        h = ((h << 4) + byte) & 0xFFFFFFFF
        g = h & 0xF0000000
        if g:
            h ^= g >> 24
        h &= ~g
    return h


class Strings:
    """A string table that keeps each string once."""

    def __init__(self) -> None:
        self.data = bytearray(b"\0")
        self._known: dict[bytes, int] = {b"": 0}

    def add(self, name: str | bytes | int) -> int:
        """The offset of a string, added when it is new; a number is an offset already."""
        if isinstance(name, int):
            return name
        name = raw(name)
        if name not in self._known:
            self._known[name] = len(self.data)
            self.data += name + b"\0"
        return self._known[name]


@dataclass
class Image:
    """What is in the file. Sizes and addresses are bytes; everything may be left out."""

    bits: int = 64
    little: bool = True
    machine: int | None = None
    type: int = 3
    entry: int = 0
    soname: str | bytes | None = None
    needed: list[str | bytes] = field(default_factory=list)
    rpath: str | bytes | None = None
    runpath: str | bytes | None = None
    tags: list[tuple[int, int]] = field(default_factory=list)
    """More dynamic entries, as they stand in the file, before DT_NULL."""
    symbols: list[Sym] = field(default_factory=list)
    """The dynamic symbols; undefined ones have shndx 0. The null symbol is added."""
    hash: tuple[str, ...] = ("gnu",)
    """Of "gnu" and "sysv"."""
    buckets: int = 3
    needs: dict[str, list[str]] = field(default_factory=dict)
    defines: list[str] = field(default_factory=list)
    """Versions defined; the first is the file's own (VER_FLG_BASE)."""
    relocs: list[Reloc] = field(default_factory=list)
    jump: list[Reloc] = field(default_factory=list)
    """The jump table; DT_JMPREL stands right behind the other relocations."""
    rela: bool = True
    relative_count: int = 0
    relr: list[int] = field(default_factory=list)
    """Places in the data, ascending multiples of the word size."""
    data: bytes = b""
    tls: tuple[int, int, bytes] | None = None
    """(memsz, align, initialisation image)."""
    interp: str | bytes | None = None
    stack: int | None = None
    """p_flags of PT_GNU_STACK; None for none."""
    note: bytes = b""
    headers: list[tuple[int, ...]] = field(default_factory=list)
    """More program headers: (type, flags, offset, vaddr, paddr, filesz, memsz, align)."""
    symtab: list[Sym] = field(default_factory=list)
    strtab: bytes | None = None
    """The whole string table of `symtab`, for names that are numbers."""
    local_symbols: int | None = None
    """sh_info of `.symtab`; None for the number of local symbols."""
    tls_sections: tuple[tuple[int, int], ...] = ()
    """(address, size) of sections with SHF_TLS."""
    sections: bool = True
    dynamic: bool = True

    def build(self) -> Built:
        """Lay the file out."""
        return _Layout(self).build()


class _Layout:
    def __init__(self, image: Image) -> None:
        self.image = image
        self.order = "<" if image.little else ">"
        self.wide = image.bits == 64
        self.word = 8 if self.wide else 4
        self.code = "Q" if self.wide else "I"
        self.strings = Strings()
        self.at: dict[str, Place] = {}
        self.out = bytearray()
        self.shift = 0
        self.versions: dict[str, int] = {}
        self.dynsym: list[Sym] = []
        self.index: dict[bytes, int] = {}
        self.symoffset = 1

    def pack(self, fields: str, *values: int) -> bytes:
        return struct.pack(self.order + fields.replace("W", self.code), *values)

    # -- the tables -----------------------------------------------------------------------------------------------

    def sym(self, one: Sym, name: int) -> bytes:
        info = one.bind << 4 | one.type
        if self.wide:
            return self.pack("IBBHQQ", name, info, one.other, one.shndx, one.value, one.size)
        return self.pack("IIIBBH", name, one.value, one.size, info, one.other, one.shndx)

    def sorted_symbols(self) -> None:
        """GNU hash wants what is hashed last, bucket by bucket."""
        image = self.image
        symbols = list(image.symbols)
        self.symoffset = 1
        if "gnu" in image.hash:
            hashed = [one for one in symbols if one.shndx and one.bind != LOCAL]
            first = [one for one in symbols if not (one.shndx and one.bind != LOCAL)]
            hashed.sort(key=lambda one: gnu_hash(self.name(one)) % image.buckets)
            self.symoffset, symbols = 1 + len(first), first + hashed
        self.dynsym = symbols
        for number, one in enumerate(symbols, 1):
            self.index.setdefault(self.name(one), number)

    @staticmethod
    def name(one: Sym) -> bytes:
        assert not isinstance(one.name, int)
        return raw(one.name)

    def gnu_table(self) -> bytes:
        buckets, bits = self.image.buckets, 8 * self.word
        hashes = [gnu_hash(self.name(one)) for one in self.dynsym[self.symoffset - 1 :]]
        shift, words = 6, 2
        bloom = [0] * words
        heads, chain = [0] * buckets, []
        for place, h in enumerate(hashes):
            bloom[h // bits % words] |= 1 << h % bits | 1 << (h >> shift) % bits
            heads[h % buckets] = heads[h % buckets] or self.symoffset + place
            last = place + 1 == len(hashes) or hashes[place + 1] % buckets != h % buckets
            chain.append(h & ~1 | last)
        return (
            self.pack("4I", buckets, self.symoffset, words, shift)
            + self.pack(f"{words}W", *bloom)
            + self.pack(f"{buckets}I", *heads)
            + self.pack(f"{len(chain)}I", *chain)
        )

    def sysv_table(self) -> bytes:
        buckets, count = self.image.buckets, len(self.dynsym) + 1
        heads, chain = [0] * buckets, [0] * count
        for number in range(count - 1, 0, -1):
            place = sysv_hash(self.name(self.dynsym[number - 1])) % buckets
            chain[number], heads[place] = heads[place], number
        code = "Q" if self.wide and not self.image.little else "I"  # s390x has wide entries (bits/elfclass.h)
        return self.pack(f"{2 + buckets + count}{code}", buckets, count, *heads, *chain)

    def number_versions(self) -> None:
        names = [*self.image.defines, *(name for needs in self.image.needs.values() for name in needs)]
        self.versions = {name: number for number, name in enumerate(names, 1 if self.image.defines else 2)}

    def versym(self) -> bytes:
        entries = [0]
        for one in self.dynsym:
            plain = 0 if one.bind == LOCAL else 1
            entries.append(self.versions[one.version] if one.version else plain)
            entries[-1] |= 0x8000 if one.hidden else 0
        return self.pack(f"{len(entries)}H", *entries)

    def verneed(self) -> bytes:
        out = b""
        files = list(self.image.needs.items())
        for place, (file, names) in enumerate(files):
            aux = b""
            for number, name in enumerate(names):
                following = 16 if number + 1 < len(names) else 0
                fields = (sysv_hash(raw(name)), 0, self.versions[name], self.strings.add(name), following)
                aux += self.pack("IHHII", *fields)
            following = 16 + len(aux) if place + 1 < len(files) else 0
            out += self.pack("HHIII", 1, len(names), self.strings.add(file), 16, following) + aux
        return out

    def verdef(self) -> bytes:
        out = b""
        names = self.image.defines
        for place, name in enumerate(names):
            following = 28 if place + 1 < len(names) else 0
            fields = (1, int(place == 0), self.versions[name], 1, sysv_hash(raw(name)), 20, following)
            out += self.pack("HHHHIII", *fields) + self.pack("II", self.strings.add(name), 0)
        return out

    def relocations(self, relocs: list[Reloc], data_at: int) -> bytes:
        out = bytearray()
        for one in relocs:
            symbol = self.index[raw(one.symbol)] if one.symbol is not None else 0
            info = symbol << 32 | one.type if self.wide else symbol << 8 | one.type
            out += self.pack("WW", data_at + one.offset, info)
            if self.image.rela:
                out += self.pack(self.code.lower(), one.addend)
        return bytes(out)

    def relr_words(self, data_at: int) -> list[int]:
        """The encoding of the generic ABI proposal: an address, then bitmaps of the words behind it."""
        bits, out, here = 8 * self.word - 1, [], -1
        todo = [data_at + place for place in self.image.relr]
        while todo:
            if here < 0 or not here <= todo[0] < here + bits * self.word:
                out.append(todo[0])
                here = todo.pop(0) + self.word
                continue
            bitmap = 1
            while todo and todo[0] < here + bits * self.word:
                bitmap |= 2 << (todo.pop(0) - here) // self.word
            out.append(bitmap)
            here += bits * self.word
        return out

    # -- the file -------------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes, align: int = 8) -> Place:
        self.out += bytes(-len(self.out) % align)
        place = self.at[name] = Place(len(self.out), len(self.out) + self.shift, len(data))
        self.out += data
        return place

    def build(self) -> Built:
        image = self.image
        self.sorted_symbols()
        self.number_versions()
        verneed, verdef = self.verneed(), self.verdef()
        dynsym = bytes(24 if self.wide else 16) + b"".join(
            self.sym(one, self.strings.add(one.name)) for one in self.dynsym
        )
        words = [image.soname, image.rpath, image.runpath, *image.needed]
        for word in words:
            if word is not None:
                self.strings.add(word)
        phnum = 2 + bool(image.dynamic) + bool(image.tls) + bool(image.interp) + (image.stack is not None)
        phnum += bool(image.note) + len(image.headers)
        self.put("ehdr", bytes(64 if self.wide else 52))
        self.put("phdrs", bytes(phnum * (56 if self.wide else 32)))
        if image.interp:
            self.put("interp", raw(image.interp) + b"\0", 1)
        if image.note:
            self.put("note", image.note)
        if image.dynamic:
            if "sysv" in image.hash:
                self.put("sysv", self.sysv_table())
            if "gnu" in image.hash:
                self.put("gnu", self.gnu_table())
            self.put("dynsym", dynsym)
            self.put("dynstr", bytes(self.strings.data), 1)
            if self.versions:
                self.put("versym", self.versym())
            if verneed:
                self.put("verneed", verneed)
            if verdef:
                self.put("verdef", verdef)
            self._put_relocations()
        tables_end = len(self.out)
        self.shift = PAGE
        self.out += bytes(-len(self.out) % 64)
        data_start = len(self.out)
        self.put("data", image.data, 64)
        if image.tls:
            self.put("tls", image.tls[2], max(min(image.tls[1], 64), 1))
        if image.dynamic:
            self.put("dynamic", self.dynamic())
        data_end = len(self.out)
        self.shift = 0
        headers = self.headers(tables_end, data_start, data_end)
        assert len(headers) == self.at["phdrs"].size
        start = self.at["phdrs"].offset
        self.out[start : start + len(headers)] = headers
        shoff, shnum = self.section_headers() if image.sections else (0, 0)
        ident = b"\x7fELF" + bytes((2 if self.wide else 1, 1 if image.little else 2, 1)) + bytes(9)
        machine = image.machine if image.machine is not None else MACHINES[image.bits, image.little]
        sizes = (64, 56, phnum, 64) if self.wide else (52, 32, phnum, 40)
        ehdr = ident + self.pack(
            "HHIWWWI6H", image.type, machine, 1, image.entry, start if phnum else 0, shoff, 0, *sizes, shnum,
            max(shnum - 1, 0),
        )  # fmt: skip
        self.out[: len(ehdr)] = ehdr
        return Built(bytes(self.out), self.at, self.index)

    def _put_relocations(self) -> None:
        # the data's address depends on how long these tables are, not on what they hold
        step = (3 if self.image.rela else 2) * self.word
        size = step * len(self.image.relocs), step * len(self.image.jump)
        end = len(self.out) + -len(self.out) % 8 + sum(size) + self.word * len(self.relr_words(0)) + 8
        end += -end % 64
        data_at = end + PAGE
        relr = self.relr_words(data_at)
        if self.image.relocs:
            self.put("relocs", self.relocations(self.image.relocs, data_at))
        if self.image.jump:
            self.put("jump", self.relocations(self.image.jump, data_at), self.word)
        if relr:
            self.put("relr", self.pack(f"{len(relr)}W", *relr), self.word)
        self.out += bytes(max(end - len(self.out), 0))
        assert data_at == len(self.out) + PAGE

    def dynamic(self) -> bytes:
        image, at, strings = self.image, self.at, self.strings
        step = (3 if image.rela else 2) * self.word
        entries = [(1, strings.add(name)) for name in image.needed]
        for tag, word in ((14, image.soname), (15, image.rpath), (29, image.runpath)):
            if word is not None:
                entries.append((tag, strings.add(word)))
        for tag, part in ((4, "sysv"), (0x6FFFFEF5, "gnu"), (6, "dynsym"), (5, "dynstr"), (0x6FFFFFF0, "versym"),
                          (0x6FFFFFFE, "verneed"), (0x6FFFFFFC, "verdef")):  # fmt: skip
            if part in at:
                entries.append((tag, at[part].vaddr))
        entries += [(10, at["dynstr"].size), (11, 24 if self.wide else 16)]
        if "verneed" in at:
            entries.append((0x6FFFFFFF, len(image.needs)))
        if "verdef" in at:
            entries.append((0x6FFFFFFD, len(image.defines)))
        if "relocs" in at:
            place = at["relocs"]
            entries += [(7 if image.rela else 17, place.vaddr), (8 if image.rela else 18, place.size)]
            entries += [(9 if image.rela else 19, step)]
            if image.relative_count:
                entries.append((0x6FFFFFF9 if image.rela else 0x6FFFFFFA, image.relative_count))
        if "jump" in at:
            entries += [(23, at["jump"].vaddr), (2, at["jump"].size), (20, 7 if image.rela else 17)]
        if "relr" in at:
            entries += [(36, at["relr"].vaddr), (35, at["relr"].size), (37, self.word)]
        entries += [*image.tags, (0, 0)]
        return b"".join(self.pack("WW", *entry) for entry in entries)

    def headers(self, tables_end: int, data_start: int, data_end: int) -> bytes:
        image, at = self.image, self.at
        rows: list[tuple[int, ...]] = []
        if image.interp:
            place = at["interp"]
            rows.append((3, 4, place.offset, place.vaddr, place.vaddr, place.size, place.size, 1))
        rows.append((1, 5, 0, 0, 0, tables_end, tables_end, PAGE))
        start = data_start + PAGE
        rows.append((1, 6, data_start, start, start, data_end - data_start, data_end - data_start, PAGE))
        if image.dynamic:
            place = at["dynamic"]
            rows.append((2, 6, place.offset, place.vaddr, place.vaddr, place.size, place.size, self.word))
        if image.tls:
            place = at["tls"]
            rows.append((7, 4, place.offset, place.vaddr, place.vaddr, place.size, image.tls[0], image.tls[1]))
        if image.stack is not None:
            rows.append((0x6474E551, image.stack, 0, 0, 0, 0, 0, 16))
        if image.note:
            place = at["note"]
            rows.append((4, 4, place.offset, place.vaddr, place.vaddr, place.size, place.size, 8))
        rows += image.headers
        if self.wide:
            return b"".join(self.pack("IIQQQQQQ", *row) for row in rows)
        return b"".join(self.pack("8I", kind, o, v, p, fs, ms, fl, al) for kind, fl, o, v, p, fs, ms, al in rows)

    def section_headers(self) -> tuple[int, int]:
        """Section headers of everything that was put, then `.symtab` and its strings; (e_shoff, e_shnum)."""
        image, names = self.image, Strings()
        sym_size = 24 if self.wide else 16
        dyn, plt, kind, step = (".rela.dyn", ".rela.plt", 4, 3) if image.rela else (".rel.dyn", ".rel.plt", 9, 2)
        alloc: dict[str, tuple[str, int, int, int]] = {
            "interp": (".interp", 1, 2, 0), "note": (".note", 7, 2, 0),
            "sysv": (".hash", 5, 2, 8 if self.wide and not image.little else 4),
            "gnu": (".gnu.hash", 0x6FFFFFF6, 2, 0), "dynsym": (".dynsym", 11, 2, sym_size),
            "dynstr": (".dynstr", 3, 2, 0), "versym": (".gnu.version", 0x6FFFFFFF, 2, 2),
            "verneed": (".gnu.version_r", 0x6FFFFFFE, 2, 0), "verdef": (".gnu.version_d", 0x6FFFFFFD, 2, 0),
            "relocs": (dyn, kind, 2, step * self.word), "jump": (plt, kind, 2, step * self.word),
            "relr": (".relr.dyn", 19, 2, self.word), "data": (".data", 1, 3, 0), "tls": (".tdata", 1, 0x403, 0),
            "dynamic": (".dynamic", 6, 3, 2 * self.word),
        }  # fmt: skip
        order = [name for name in alloc if name in self.at]
        number = {name: place for place, name in enumerate(order, 1)}
        links = {
            "sysv": "dynsym", "gnu": "dynsym", "dynsym": "dynstr", "versym": "dynsym", "verneed": "dynstr",
            "verdef": "dynstr", "relocs": "dynsym", "jump": "dynsym", "dynamic": "dynstr",
        }  # fmt: skip
        infos = {"verneed": len(image.needs), "verdef": len(image.defines), "dynsym": 1}
        rows: list[tuple[int, ...]] = [(0,) * 10]
        for name in order:
            title, kind, flags, entsize = alloc[name]
            place = self.at[name]
            link = number.get(links.get(name, ""), 0)
            info = infos.get(name, 0)
            rows.append((names.add(title), kind, flags, place.vaddr, place.offset, place.size, link, info, 1, entsize))
        for address, size in image.tls_sections:
            rows.append((names.add(".tbss"), 8, 0x403, address, 0, size, 0, 0, 8, 0))
        if image.symtab:
            strings = Strings()
            table = bytes(24 if self.wide else 16)
            table += b"".join(self.sym(one, strings.add(one.name)) for one in image.symtab)
            locals_ = image.local_symbols
            if locals_ is None:
                locals_ = 1 + sum(one.bind == LOCAL for one in image.symtab)
            place = self.put("symtab", table)
            link = len(rows) + 1
            rows.append((names.add(".symtab"), 2, 0, 0, place.offset, place.size, link, locals_, 8, sym_size))
            place = self.put("strtab", bytes(strings.data) if image.strtab is None else image.strtab, 1)
            rows.append((names.add(".strtab"), 3, 0, 0, place.offset, place.size, 0, 0, 1, 0))
        last = names.add(".shstrtab")
        place = self.put("shstrtab", bytes(names.data), 1)
        rows.append((last, 3, 0, 0, place.offset, place.size, 0, 0, 1, 0))
        form = "IIQQQQIIQQ" if self.wide else "10I"
        return self.put("shdrs", b"".join(self.pack(form, *row) for row in rows)).offset, len(rows)


def tls_object(
    memsz: int,
    symbols: list[tuple[int, int, int, int, int, int]],
    strings: bytes,
    *,
    align: int = 16,
    tls_sections: tuple[tuple[int, int], ...] = (),
    local_symbols: int | None = None,
) -> bytes:
    """Return a library for x86-64 with a TLS segment of `memsz` bytes and `.symtab`, but without a dynamic section.

    `symbols` are (st_name, st_info, st_other, st_shndx, st_value, st_size), the null symbol left out; `strings` is the
    string table that st_name counts in.
    """
    rows = [
        Sym(name, value, size, info >> 4, info & 15, other, shndx) for name, info, other, shndx, value, size in symbols
    ]
    image = Image(tls=(memsz, align, b""), symtab=rows, strtab=strings, dynamic=False)
    image.tls_sections, image.local_symbols = tls_sections, local_symbols
    return image.build().data
