"""Every sentence of the loader that a scenario could provoke, to count which of them real loaders were heard to say."""

from __future__ import annotations

import re
from collections import Counter

ROWS: dict[str, str] = {
    # row -> what the loader writes; source: glibc elf/, by file
    "file too short": r"file too short",
    "cannot read file data": r"cannot read file data",
    "invalid ELF header": r"invalid ELF header",
    "wrong ELF class": r"wrong ELF class: ELFCLASS32",
    "data encoding": r"ELF file data encoding not little-endian",
    "version ident": r"ELF file version ident does not match current one",
    "OS ABI": r"ELF file OS ABI invalid",
    "ABI version": r"ELF file ABI version invalid",
    "nonzero padding": r"nonzero padding in e_ident",
    "file version": r"ELF file version does not match current one",
    "only ET_DYN": r"only ET_DYN and ET_EXEC can be loaded",
    "phentsize": r"ELF file's phentsize not the expected size",
    "cannot open": r"cannot open shared object file",
    "alignment not page-aligned": r"ELF load command alignment not page-aligned",
    "not properly aligned": r"ELF load command address/offset not properly aligned",
    "address/offset not page-aligned": r"ELF load command address/offset not page-aligned",
    "no loadable segments": r"object file has no loadable segments",
    "executable": r"cannot dynamically load executable",
    "no dynamic section": r"object file has no dynamic section",
    "failed to map": r"failed to map segment from shared object",
    "memory protections": r"cannot change memory protections",
    "zero-fill pages": r"cannot map zero-fill pages",
    "assertion of the dynamic section": r"get-dynamic-info\.h: .*Assertion",
    "position-independent executable": r"cannot dynamically load position-independent executable",
    "NOOPEN": r"shared object cannot be dlopen\(\)ed",
    "executable stack": r"cannot enable executable stack as shared object requires",
    "executable stack not allowed": r"Fatal glibc error: executable stack is not allowed",
    "assertion of the hash table": r"_dl_setup_hash: Assertion",
    "version not found": r"version `[^']*' not found \(required by",
    "weak version not found": r"weak version `[^']*' not found \(required by",
    "no version information": r"no version information available \(required by",
    "Verneed record": r"unsupported version \d+ of Verneed record",
    "Verdef record": r"unsupported version \d+ of Verdef record",
    "DT_RELR without": r"DT_RELR without GLIBC_ABI_DT_RELR dependency",
    "assertion of needed versions": r"_dl_check_map_versions: Assertion",
    "ISA level": r"CPU ISA level is lower than required",
    "copy of a protected object": r"warning: copy relocation against non-copyable protected symbol",
    "address of a protected function": r"warning: direct reference to protected function",
    "indirect access": r"error due to GNU_PROPERTY_1_NEEDED_INDIRECT_EXTERN_ACCESS",
    "relink for an indirect function": r"Relink `.*' with `.*' for IFUNC symbol",
    "indirect function of the program": r"creates an unsatisfiable circular dependency",
    "address of more than 32 bits": r"causes overflow in R_X86_64_32 relocation",
    "size of a copied object": r"has different size in shared object, consider re-linking",
    "undefined symbol": r"undefined symbol: \S+(?!.*version)",
    "undefined symbol with version": r"undefined symbol: \S+, version",
    "unexpected reloc type": r"unexpected reloc type 0x",
    "unexpected PLT reloc type": r"unexpected PLT reloc type 0x",
    "static TLS": r"cannot allocate memory in static TLS block",
    "RELRO": r"cannot apply additional memory protection after relocation",
    "assertion of relative relocations": r"elf_machine_rela_relative: Assertion",
    "assertion of an unversioned provider": r"check_match: Assertion",
    "assertion of the TLS image": r"_dl_allocate_tls_init: Assertion",
    "assertion of filters": r"_dl_map_object_deps: Assertion",
    "token in a set-user-ID program": r"DST not allowed in SUID/SGID programs",
    "invalid mode": r"invalid mode",
    "namespaces": r"no more namespaces available for dlmopen\(\)",
    "not open": r"shared object not open",
    "preload": r"ERROR: ld\.so: object '.*' from LD_PRELOAD cannot be preloaded \(",
    "auditor": r"ERROR: ld\.so: object '.*' cannot be loaded as audit interface: ",
    "too many auditors": r"Failed loading \d+ audit modules",
    "tunables": r"WARNING: ld\.so: invalid GLIBC_TUNABLES",
}

MUSL: dict[str, str] = {
    # row -> what musl writes; source: ldso/dynlink.c
    "No such file": r"Error loading shared library [^\n]*: No such file or directory",
    "Exec format error": r"Error loading shared library [^\n]*: Exec format error",
    "Invalid argument": r"Error loading shared library [^\n]*: Invalid argument",
    "Out of memory": r"Error loading shared library [^\n]*: Out of memory",
    "Is a directory": r"Error loading shared library [^\n]*: Is a directory",
    "Resource busy": r"Error loading shared library [^\n]*: Resource busy",
    "Symbolic link loop": r"Error loading shared library [^\n]*: Symbolic link loop",
    "Value too large": r"Error loading shared library [^\n]*: Value too large for data type",
    "needed by": r"\(needed by ",
    "symbol not found": r"Error relocating [^\n]*: symbol not found",
    "initial-exec TLS": r"initial-exec TLS resolves to dynamic definition in ",
    "unsupported relocation": r"unsupported relocation type -?\d+",
    "RELRO protection": r"RELRO protection failed: ",
    "preparing lazy": r"Error preparing lazy relocation for ",
    "not already loaded": r"Library [^\n]* is not already loaded",
    "Symbol not found": r"Symbol not found: ",
}
"""The same of musl."""

SELDOM: dict[str, str] = {
    "alignment not page-aligned": "up to 2.34 only",
    "not properly aligned": "up to 2.34 only",
    "address/offset not page-aligned": "from 2.35 on",
    "failed to map": "up to 2.34 by no alignment",
    "memory protections": "up to 2.35: later releases refuse such an order of segments with another sentence",
    "executable stack": "dlopen refuses one from 2.41 on",
    "executable stack not allowed": "from 2.41 on",
    "DT_RELR without": "from 2.36 on",
    "ISA level": "from 2.33 on",
    "copy of a protected object": "from 2.36 on",
    "address of a protected function": "from 2.36 on",
    "indirect access": "from 2.36 on",
    "Value too large": "only of offsets that no file has",
    "preparing lazy": "one damaged size of many",
    "RELRO protection": "one fault of ninety",
    "assertion of the hash table": "one fault of ninety, which this seed draws nine times or less",
    "Out of memory": "on aarch64 the seed of this table draws twice or less what QEMU does not grant",
    "assertion of filters": "up to 2.31",
    "assertion of an unversioned provider": "up to 2.40",
    "token in a set-user-ID program": "no scenario is started so; tests/oracle/test_ways.py does it",
    "tunables": "from 2.39 on",
}
"""Rows that not every loader is heard to say ten times, with the reason."""


def rows_of(message: bytes, rows: dict[str, str] = ROWS) -> list[str]:
    """Return the rows that a message holds."""
    text = message.decode("utf-8", "replace")
    return [name for name, pattern in rows.items() if re.search(pattern, text)]


def count(messages: list[bytes], rows: dict[str, str] = ROWS) -> Counter[str]:
    """Return how often each row was heard."""
    heard: Counter[str] = Counter()
    for message in messages:
        heard.update(rows_of(message, rows))
    return heard
