"""Just enough of an ELF file for attribution: PT_TLS, `.symtab` and `.strtab`, with whatever the test wants in them."""

from __future__ import annotations

import struct


def tls_object(
    memsz: int,
    symbols: list[tuple[int, int, int, int, int, int]],
    strings: bytes,
    *,
    align: int = 16,
    tls_sections: tuple[tuple[int, int], ...] = (),
    local_symbols: int | None = None,
) -> bytes:
    """Return a 64-bit little-endian ET_DYN for x86-64 with a TLS segment of `memsz` bytes at address 0x1000.

    `symbols` are (st_name, st_info, st_other, st_shndx, st_value, st_size), the null symbol left out.
    """
    table = bytes(24) + b"".join(struct.pack("<IBBHQQ", *row) for row in symbols)
    names = b"\0.symtab\0.strtab\0.shstrtab\0.tbss\0"
    strtab_at = 64 + 56
    symtab_at = strtab_at + len(strings) + -len(strings) % 8
    names_at = symtab_at + len(table)
    headers_at = names_at + len(names) + -len(names) % 8
    if local_symbols is None:
        local_symbols = 1 + sum(1 for row in symbols if row[1] >> 4 == 0)
    sections = [
        bytes(64),
        struct.pack("<IIQQQQIIQQ", 1, 2, 0, 0, symtab_at, len(table), 2, local_symbols, 8, 24),
        struct.pack("<IIQQQQIIQQ", 9, 3, 0, 0, strtab_at, len(strings), 0, 0, 1, 0),
        struct.pack("<IIQQQQIIQQ", 17, 3, 0, 0, names_at, len(names), 0, 0, 1, 0),
        *(struct.pack("<IIQQQQIIQQ", 27, 8, 0x403, at, 0, size, 0, 0, 8, 0) for at, size in tls_sections),
    ]
    header = b"\x7fELF\2\1\1" + bytes(9) + struct.pack(
        "<HHIQQQI6H", 3, 62, 1, 0, 64, headers_at, 0, 64, 56, 1, 64, len(sections), 3
    )  # fmt: skip
    segment = struct.pack("<IIQQQQQQ", 7, 4, 0, 0x1000, 0x1000, 0, memsz, align)
    body = header + segment + strings
    body += bytes(symtab_at - len(body)) + table + names
    return body + bytes(headers_at - len(body)) + b"".join(sections)
