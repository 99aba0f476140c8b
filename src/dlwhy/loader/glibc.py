"""GLIBC: how the releases differ, as rows of data. No other file tests a version.

FEATURES lists, for each way in which the loader changed, its value from the first release on and then from every
release that changed it. A release between two known ones takes the earlier row, which is how glibc itself develops;
one before the first or after the last known release is not covered. BACKPORTS are changes that distributions took
into an older release, each recognised by a string in the loader binary.

Citations are to glibc's own tree. "[M]" marks rows that the oracle compares with a real loader.
"""

from __future__ import annotations

from dlwhy.loader import tls, tunables
from dlwhy.loader.port import port
from dlwhy.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dlwhy.elf.machine import Machine

OLDEST, NEWEST = (2, 17), (2, 43)
"""The releases whose sources were read; outside them a check is undecided."""

MEASURED = ((2, 31), (2, 36), (2, 41), (2, 43))
"""The releases that are compared with real loaders (docs/agreement.md)."""

_NOT_DEFINED = "not defined in file {file} with link time reference"

_ABIS = (
    {62: 3, 3: 3, 183: 2, 40: 2, 21: 2, 22: 2, 243: 2},
    {62: 4, 3: 4, 183: 3, 40: 3, 21: 3, 22: 3, 243: 3},
    {62: 4, 3: 4, 183: 3, 40: 3, 21: 3, 22: 3, 243: 4},
)
"""By e_machine: how many values of EI_ABIVERSION are known (LIBC_ABI_MAX)."""

FEATURES: dict[str, tuple[tuple[tuple[int, int], Any, str], ...]] = {
    # name: ((since, value, citation), …)
    "least_tls_align": (
        ((2, 17), {62: 64, 3: 64, 22: 16, 183: 16, 40: 16, 21: 16, 243: 16}, "sysdeps/*/nptl/tls.h, TLS_TCB_ALIGN"),
        ((2, 35), {62: 64, 3: 64, 22: 32, 183: 32, 40: 32, 21: 32, 243: 32}, "nptl/descr.h, TCB_ALIGNMENT"),
    ),
    "surplus": (
        ((2, 17), tls.surplus_fixed, "elf/dl-tls.c, TLS_STATIC_SURPLUS [M]"),
        ((2, 32), tls.surplus_formula, "elf/dl-tls.c, _dl_tls_static_surplus_init; commit 07ed32f920 [M]"),
    ),
    "tls_tunables": (
        ((2, 17), False, ""),
        ((2, 32), True, "elf/dl-tunables.list, glibc.rtld.nns and optional_static_tls; commit ffb17e7ba3 [M]"),
    ),
    "read_tunables": (
        ((2, 17), tunables.read_as_met, "elf/dl-tunables.c, parse_tunables [M]"),
        ((2, 39), tunables.read_in_order, "elf/dl-tunables.c, parse_tunables_string; commit 680c597e9c"),
        ((2, 40), tunables.read_last, "elf/dl-tunables.c, parse_tunables: one place for each tunable [M]"),
    ),
    "rseq_block": (
        ((2, 17), False, ""),
        ((2, 41), True, "sysdeps/unix/sysv/linux/dl-extra_tls.h [M]"),
    ),
    "guard_beside_stack": (
        ((2, 17), False, "nptl/allocatestack.c, allocate_stack: the guard comes out of the stack asked for"),
        ((2, 27), True, "nptl/allocatestack.c, allocate_stack: it is added to it; bug 22637 [M 2.36]"),
    ),
    "audit_by_string": (
        ((2, 17), False, "elf/rtld.c, process_dl_audit: names that count make the list"),
        ((2, 32), True, "elf/rtld.c, audit_list_add_string: any LD_AUDIT does, also without a name that counts [M]"),
    ),
    "secure_binds_now": (
        ((2, 17), True, "elf/rtld.c, process_envvars: LD_BIND_NOW counts in secure mode too [M 2.31, 2.36]"),
        ((2, 39), False, "elf/rtld.c of 2.39, process_envvars_secure: not read [M 2.41, 2.43]"),
    ),
    "auditor_profiles": (
        ((2, 17), ("la_version",), "elf/dl-reloc.c, _dl_relocate_object: consider_profiling |= GLRO(dl_audit) != NULL"),
        ((2, 35), ("la_x86_64_gnu_pltenter", "la_x86_64_gnu_pltexit"), "commit 32612615c5, bug 23734"),
    ),
    "audit_unload_dies": (
        ((2, 17), True, "elf/dl-close.c, _dl_close_worker: la_activity for a namespace without objects [M]"),
        ((2, 35), False, "elf/dl-audit.c, _dl_audit_activity_nsid; commit 3dac3959a5 [M]"),
    ),
    "machine_before_ident": (
        ((2, 17), False, "elf/dl-load.c, open_verify: e_machine is looked at when e_ident is good"),
    ),
    "refused_flags_passed_over": (
        # what is made of a file whose e_flags are refused (Port.refused)
        ((2, 17), False, "sysdeps/unix/sysv/linux/arm/ldsodefs.h, VALID_FLOAT_ABI: internal error"),
    ),
    "setup_hash_file": (
        ((2, 17), "dl-lookup.c", "elf/dl-lookup.c, _dl_setup_hash [M]"),
        ((2, 35), "dl-setup_hash.c", "elf/dl-setup_hash.c [M]"),
    ),
    "exec_refused_at_header": (
        ((2, 17), False, ""),
        ((2, 20), True, "elf/dl-load.c, open_verify"),
        ((2, 31), False, "elf/dl-load.c, _dl_map_object_from_fd [M]"),
    ),
    "p_align_checked": (
        ((2, 17), True, "elf/dl-load.c: ELF load command alignment not page-aligned [M]"),
        ((2, 35), False, "commit 163f625cf9 [M]"),
    ),
    "p_align_honoured": (
        ((2, 17), False, ""),
        ((2, 35), True, "elf/dl-map-segments.h, _dl_map_segment; bug 28676 [M]"),
    ),
    "empty_dynamic_skipped": (
        ((2, 17), False, ""),
        ((2, 27), True, "elf/dl-load.c: a PT_DYNAMIC without bytes in the file is skipped [M]"),
    ),
    "dynamic_checked_before_mapping": (
        ((2, 17), False, ""),
        ((2, 35), True, "elf/dl-load.c: object file has no dynamic section [M]"),
    ),
    "segment_order_checked": (
        ((2, 17), False, ""),
        ((2, 36), True, "elf/dl-map-segments.h"),
    ),
    "pie_refused": (
        ((2, 17), False, ""),
        ((2, 30), True, "elf/dl-load.c, DF_1_PIE; commit 2c75b545de [M]"),
    ),
    "abi_note_checked": (
        ((2, 17), True, "elf/dl-load.c, open_verify: NT_GNU_ABI_TAG"),
        ((2, 36), False, "commit b46d250656"),
    ),
    "abiversion_limit": (
        # by e_machine: those whose triple has a line IFUNC there count one more (powerpc64le has none)
        ((2, 17), _ABIS[0], "libc-abis: UNIQUE, IFUNC"),
        ((2, 28), _ABIS[1], "libc-abis: ABSOLUTE [M]"),
        ((2, 33), _ABIS[2], "libc-abis: IFUNC of riscv"),
    ),
    "takes_both_tables": (
        ((2, 17), True, "sysdeps/{i386,arm}/dl-machine.h: DT_RELA is applied beside DT_REL"),
        ((2, 37), False, "sysdeps/{i386,arm}/dl-machine-rel.h, ELF_MACHINE_NO_RELA"),
    ),
    "execstack_by_dlopen": (
        ((2, 17), True, "elf/dl-load.c, _dl_make_stacks_executable"),
        ((2, 41), False, "commit 0ca8785a28: dlopen no longer makes the stack executable [M]"),
    ),
    "execstack_forced": (
        ((2, 17), False, ""),
        ((2, 42), True, "elf/dl-execstack-tunable.c, stack_tunable_mode_force; commit 12a497c716, bug 32653 [M]"),
    ),
    "relr": (
        ((2, 17), False, ""),
        ((2, 36), True, "elf/dynamic-link.h, DT_RELR; elf/dl-version.c, GLIBC_ABI_DT_RELR [M]"),
    ),
    "isa_level_checked": (
        ((2, 17), False, ""),
        ((2, 33), True, "sysdeps/x86/dl-prop.h [M]"),
    ),
    "properties_read": (
        # on machines other than x86
        ((2, 17), False, ""),
        ((2, 32), True, "elf/dl-load.c, _dl_process_pt_gnu_property; commit 5c7e40b3e4 [M]"),
    ),
    "property_segment_counts": (
        ((2, 17), False, "sysdeps/x86/dl-prop.h: only PT_NOTE is looked through [M]"),
        ((2, 39), True, "sysdeps/x86/dl-prop.h, _dl_process_gnu_property; commit 4753e92868 [M]"),
    ),
    "protected_check": (
        # what is made of a program that copies, or takes the address of, what a library protects
        ((2, 17), "none", ""),
        ((2, 35), "refused", "sysdeps/generic/dl-protected.h: only where the library asks for indirect access"),
        ((2, 36), "told", "commit 7374c02b68: always told, refused where the library asks for indirect access [M]"),
    ),
    "indirect_function": (
        # what is made of a reference to an indirect function of an object that is not relocated yet
        ((2, 17), "called", ""),
        ((2, 25), "told", "sysdeps/x86_64/dl-machine.h, elf_machine_rela: told, but for functions of the program [M]"),
        ((2, 33), "fatal", "sysdeps/x86_64/dl-machine.h, elf_machine_rela: fatal for functions of the program [M]"),
    ),
    "unversioned_provider_dies": (
        ((2, 17), True, "elf/dl-lookup.c, check_match: assertion on version->filename [M]"),
        ((2, 41), False, "commit of bug 31932 [M]"),
    ),
    "named_file_must_define": (
        # what is said when the file that a versioned reference names does not define the symbol; None: it need not
        ((2, 17), f"symbol {{name}}, version {{version}} {_NOT_DEFINED}", "elf/dl-lookup.c"),
        ((2, 27), f"symbol {{name}} version {{version}} {_NOT_DEFINED}", "elf/dl-lookup.c"),
        ((2, 30), None, "elf/dl-lookup.c, do_lookup_x; bug 24741 [M]"),
    ),
    "base_version_as_fallback": (
        ((2, 17), False, ""),
        ((2, 42), True, "elf/dl-lookup.c, check_match; bug 32952 [M]"),
    ),
    "depth_first_sort": (
        ((2, 17), False, "elf/dl-sort-maps.c [M]"),
        ((2, 35), True, "elf/dl-sort-maps.c, _dl_sort_maps_dfs; bug 17645 [M]"),
    ),
    "filters_of_the_top": (
        ((2, 17), False, "elf/dl-deps.c, _dl_map_object_deps: assertion on the head of the search list [M]"),
        ((2, 32), True, "commit eb447b7b4b: dlopen of a filter object works; bug 16272 [M]"),
    ),
    "relocates_all_new": (
        ((2, 17), True, "elf/dl-open.c: all objects from the new one on, sorted once more [M]"),
        ((2, 32), False, "elf/dl-open.c: new->l_initfini [M]"),
    ),
    "libc_relocated_first": (
        ((2, 17), False, ""),
        ((2, 39), True, "elf/rtld.c, elf/dl-open.c: _dl_relocate_object of libc_map first"),
    ),
    "lazy_descriptors": (
        ((2, 17), True, "sysdeps/x86_64/dl-machine.h, elf_machine_lazy_rel"),
        ((2, 34), False, "commit 8f7e09f4dd: descriptors are resolved at load"),
    ),
    "glibc_hwcaps": (
        ((2, 17), False, ""),
        ((2, 33), True, "elf/dl-hwcaps.c"),
    ),
    "legacy_hwcaps": (
        ((2, 17), True, "elf/dl-hwcaps.c, _dl_important_hwcaps [M]"),
        ((2, 37), False, "commit e59ced2384 [M]"),
    ),
    "hwcap_names": (
        # by bit, from 1 on: what legacy directories and entries of the cache may be named after
        ((2, 17), (), "sysdeps/generic/dl-procinfo.h: no hwcap is important on x86-64"),
        ((2, 26), ("x86_64", "avx512_1"), "sysdeps/x86/dl-hwcap.h; x86_64: release/2.26/master, bug 22093 [M 2.31]"),
    ),
    "later_levels": (
        # subdirectories of glibc-hwcaps that are not known yet
        ((2, 17), frozenset(("z16", "z17")), "sysdeps/s390/s390-64/dl-hwcaps-subdirs.c"),
        ((2, 36), frozenset(("z17",)), "sysdeps/s390/s390-64/dl-hwcaps-subdirs.c"),
        ((2, 42), frozenset(), "sysdeps/s390/s390-64/dl-hwcaps-subdirs.c"),
    ),
    "cache_words": (
        ((2, 17), True, "elf/dl-cache.c: legacy hwcap words are held against the processor [M 2.31, 2.36]"),
        ((2, 40), False, "elf/dl-cache.c: entries with a legacy word are passed over; c5aa5fd40a [M 2.41, 2.43]"),
    ),
    "intel_platform": (
        ((2, 17), False, ""),
        ((2, 26), True, "sysdeps/x86/cpu-features.c: haswell, xeon_phi [M haswell]"),
    ),
    "enotdir_goes_on": (
        ((2, 17), False, "elf/dl-load.c, open_path"),
        ((2, 39), True, "elf/dl-load.c, open_path"),
    ),
    "dlopen_in_libdl": (
        ((2, 17), True, "dlfcn/Versions: libdl"),
        ((2, 34), False, "dlfcn/Versions: GLIBC_2.34 libc"),
    ),
    "map_errno_kept": (
        ((2, 17), True, "elf/dl-load.c: lose_errno"),
        ((2, 20), False, "elf/dl-map-segments.h: errors without errno"),
    ),
    "depaudit": (
        ((2, 17), False, ""),
        ((2, 32), True, "elf/rtld.c, audit_list_add_dynamic_tag; bug 24943"),
    ),
    "tcb_size": (
        ((2, 17), {62: 2304, 3: 1216, 22: 1808}, "sizeof (struct pthread), nptl/descr.h [M 2.31]"),
        ((2, 36), {62: 2368, 3: 1216, 22: 1856}, "sizeof (struct pthread), nptl/descr.h [M 2.36]"),
        ((2, 41), {62: 2368, 3: 1216, 22: 1824}, "nptl/descr.h: without the rseq area [M 2.41, 2.43]"),
    ),
}  # fmt: skip


class Backport(Record):
    """A change taken into an older release by a distribution, with how to recognise it."""

    release: tuple[int, int] | None
    """The release that it was taken into; None for any."""
    probe: bytes
    """A string in the loader binary, or in the words that the library says of itself."""
    changes: dict[str, Any]
    cite: str


BACKPORTS: tuple[Backport, ...] = (
    Backport(
        None, b"Debian GLIBC", {"machine_before_ident": True, "refused_flags_passed_over": True},
        "Debian: a file of another machine is passed over whatever else is wrong with e_ident behind its class [M], "
        "and so is, on arm, one of another floating-point ABI [M]",
    ),
    Backport(
        None, b"Ubuntu GLIBC", {"machine_before_ident": True, "refused_flags_passed_over": True},
        "Ubuntu: built from Debian's patches",
    ),
    Backport(
        None, b"creates an unsatisfiable circular dependency", {"indirect_function": "fatal"},
        "release/2.31/master and Debian 2.31-13: commit 6ea5b57afa, bug 20019 [M]",
    ),
    Backport(
        (2, 31), b"glibc.rtld.optional_static_tls",
        {"surplus": tls.surplus_first_edition, "tls_tunables": True, "audit_by_string": True},
        "Debian 2.31-13+deb11u*: commit ffb17e7ba3 in its first edition [M]",
    ),
    Backport(
        (2, 41), b"cannot enable executable stack as tunable requires",
        {"execstack_forced": True},
        "release/2.41/master and Debian 2.41-12: commit 12a497c716 [M]",
    ),
)  # fmt: skip


class Glibc:
    """One release as this loader model needs it: an attribute for every feature. Immutable."""

    def __init__(
        self, release: tuple[int, int], banner: str | None, values: dict[str, Any], strings: bytes = b""
    ) -> None:
        self.release = release
        self.text = ".".join(map(str, release))
        """The release as files name it, e.g. "2.36"."""
        self.banner = banner
        """The distribution's own words, e.g. "Debian GLIBC 2.36-9"."""
        self.known = OLDEST <= release <= NEWEST
        """Whether a row covers this release."""
        self.strings = strings
        """The read-only data of the loader binary."""
        self.values = values
        self.__dict__.update(values)

    def but(self, **changes: Any) -> Glibc:
        """Return this release with other values for some features."""
        return Glibc(self.release, self.banner, {**self.values, **changes}, self.strings)

    @property
    def measured(self) -> tuple[tuple[int, int], ...]:
        """The releases that were compared with real loaders."""
        return MEASURED

    @property
    def reads_memory(self) -> bool:
        """Whether the model reads tables wherever they lead, page by page, instead of as what the file says."""
        return False

    @property
    def traces(self) -> bool:
        """Whether LD_TRACE_LOADED_OBJECTS makes the loader list objects instead of starting a program."""
        return True

    @property
    def late_static_tls(self) -> bool:
        """Whether a library that comes after the start may be given a place in the static TLS block."""
        return True

    @property
    def takes_libc_names(self) -> bool:
        """Whether the loader takes names such as libc.so.6 for itself, whatever file they mean."""
        return False

    @property
    def no_tunables(self) -> str | None:
        """Why GLIBC_TUNABLES does nothing; None where it is read."""
        return None

    @property
    def name(self) -> str:
        """What the report calls it."""
        return "glibc"

    def assertion(self, file: str, function: str, expression: str) -> str:
        """Return what the loader writes when it stops with an assertion (__assert_fail); line 0 stands for any.

        The source file is named as the loader binary has it: with the directory that its build was told.
        """
        import re

        found = re.search(rb"\0(\.\./[\w./-]*/)" + re.escape(file.encode()) + rb"\0", self.strings)
        place = found[1].decode() if found else ""
        return f"Inconsistency detected by ld.so: {place}{file}: 0: {function}: Assertion `{expression}' failed!"

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...

    def tables(self, machine: Machine) -> tuple[int, ...]:
        """Return which of DT_REL and DT_RELA are applied, in order."""
        every = port(machine).tables
        return every if self.takes_both_tables else every[:1]


def default_surplus() -> tuple[int, str]:
    """Return the bytes of static TLS that the releases set aside for late loads unless told otherwise, and which do.

    The fewest of all rows, which at present all have the same: four namespaces, no auditor, 512 bytes of optional TLS
    (elf/dl-tls.c, elf/dl-tunables.list).
    """
    rows = [value for _, value, _ in FEATURES["surplus"]]
    rows += [backport.changes["surplus"] for backport in BACKPORTS if "surplus" in backport.changes]
    releases = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    return min(row(4, 0, 512) for row in rows), releases


def glibc(release: tuple[int, int], banner: str | None = None, loader_bytes: bytes = b"") -> Glibc:
    """Return the personality of a release; `loader_bytes` are searched for the marks of backports."""
    values = {
        name: next((value for since, value, _ in reversed(rows) if since <= release), rows[0][1])
        for name, rows in FEATURES.items()
    }
    told = loader_bytes + b"\0" + (banner or "").encode()
    for backport in BACKPORTS:
        if backport.release in (release, None) and backport.probe in told:
            values.update(backport.changes)
    return Glibc(release, banner, values, loader_bytes)
