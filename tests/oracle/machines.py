"""Other machines for the oracle: how gcc builds for each, what its code looks like, and what runs its programs here.

One row a machine, by its Debian architecture. Programs of i386 run as they are; the others run in QEMU's user mode
emulation, a static binary of this machine's that is put into each root.
"""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from dlwhy.loader.processors import Model
from tests.oracle.sysroots import Index, cache

if TYPE_CHECKING:
    from pathlib import Path

EMULATOR_SUITE = "trixie"
"""Whose qemu-user is taken: the first suite where it is static and lets the page size be named."""


class Target(NamedTuple):
    """How to build and run for one machine."""

    name: str
    """As dlwhy calls it."""
    debian: str
    """Debian's name of the architecture."""
    gcc: str
    """The compiler; other tools have the same prefix."""
    triplet: str
    """The multiarch directory below lib."""
    loader: str
    references: dict[str, str]
    """How a reference is made -> assembly; {0} is the symbol."""
    returns: str
    """How a function returns."""
    one: str
    """How a function returns 1."""
    chosen: str
    """How an indirect function returns the address of {0}."""
    calls: str
    """The body of a function that calls {0}."""
    word: int = 8
    """Bytes of an address."""
    suites: tuple[str, ...] = ("bullseye", "bookworm", "trixie", "sid")
    """The Debian suites that have it in their archive."""
    qemu: str | None = None
    """The emulator; None where the kernel runs its programs."""
    model: Model | None = None
    """The processor that programs find here, where a row of dlwhy's does not tell."""
    page: int | None = None
    """Bytes of a page where programs run here, if that is not what real systems of this machine have."""
    lends: tuple[str, ...] = ()
    """Functions of the loader that change what the linker makes of references, when it sees them."""
    lent_for: tuple[str, ...] = ()
    """Of which references."""
    subdirectories: tuple[str, ...] = ()
    """Where some releases look below each directory of a list, in place of scenarios.SUBDIRECTORIES."""
    prologue: str | None = None
    """What assembly begins with."""

    @property
    def lib(self) -> str:
        """The directory of its libraries, below a root."""
        return f"lib/{self.triplet}"

    @property
    def musl(self) -> str:
        """The multiarch directory of what is built for musl."""
        return self.triplet.replace("-gnu", "-musl")

    @property
    def musl_loader(self) -> str:
        """The loader of musl, named after musl's name of the machine."""
        return f"/lib/ld-musl-{self.triplet.partition('-')[0]}.so.1"

    @property
    def prefix(self) -> str:
        """What comes before the name of a tool such as readelf."""
        return self.gcc.removesuffix("gcc")


def _data(word: int) -> str:
    return f".data\n.balign {word}\n.{word}byte {{0}}\n.text\n"


TARGETS = {
    row.debian: row
    for row in (
        Target(
            "x86-64", "amd64", "gcc", "x86_64-linux-gnu", "/lib64/ld-linux-x86-64.so.2",
            {
                "data": ".data\n.balign 8\n.quad {0}\n.text\n",  # R_X86_64_64
                "got": "movq {0}@GOTPCREL(%rip), %rax\n",  # GLOB_DAT
                "call": "call {0}@PLT\n",  # JUMP_SLOT
                "ie": "movq {0}@gottpoff(%rip), %rax\n",  # TPOFF64
                # DTPMOD64, DTPOFF64
                "gd": ".byte 0x66\nleaq {0}@tlsgd(%rip), %rdi\n.value 0x6666\nrex64\ncall __tls_get_addr@PLT\n",
                "desc": "leaq {0}@tlsdesc(%rip), %rax\ncall *{0}@tlscall(%rax)\n",  # TLSDESC
                # in programs only
                "address": "movl ${0}, %eax\n",  # of a function: JUMP_SLOT of an undefined symbol that has a value
                "copy": "movl {0}, %eax\n",  # of an object: COPY
            },
            "ret", "movl $1, %eax; ret", "leaq {0}(%rip), %rax\nret",
            "subq $8, %rsp\ncall {0}@PLT\naddq $8, %rsp\nret",
        ),
        Target(
            "aarch64", "arm64", "aarch64-linux-gnu-gcc", "aarch64-linux-gnu", "/lib/ld-linux-aarch64.so.1",
            {
                "data": _data(8),
                "got": "adrp x0, :got:{0}\nldr x0, [x0, :got_lo12:{0}]\n",
                "call": "bl {0}\n",
                "ie": "adrp x0, :gottprel:{0}\nldr x0, [x0, :gottprel_lo12:{0}]\n",
                "gd": "adrp x0, :tlsgd:{0}\nadd x0, x0, :tlsgd_lo12:{0}\nbl __tls_get_addr\nnop\n",
                "desc": "adrp x0, :tlsdesc:{0}\nldr x1, [x0, :tlsdesc_lo12:{0}]\nadd x0, x0, :tlsdesc_lo12:{0}\n"
                ".tlsdesccall {0}\nblr x1\n",
                "address": "adrp x0, {0}\nadd x0, x0, :lo12:{0}\n",
                "copy": "adrp x0, {0}\nadd x0, x0, :lo12:{0}\n",
            },
            "ret", "ret", "adr x0, {0}\nret",
            "stp x29, x30, [sp, -16]!\nbl {0}\nldp x29, x30, [sp], 16\nret",
            qemu="qemu-aarch64", model=Model("aarch64", (), ("atomics",)),
            subdirectories=("glibc-hwcaps/any", "atomics", "tls", "aarch64", "aarch64/atomics", "tls/aarch64"),
        ),
        Target(
            "i386", "i386", "i686-linux-gnu-gcc", "i386-linux-gnu", "/lib/ld-linux.so.2",
            {
                "data": _data(4),
                "got": "movl {0}@GOT(%ebx), %eax\n",
                "call": "call {0}@PLT\n",
                "ie": "movl {0}@gotntpoff(%ebx), %eax\n",
                "gd": "leal {0}@tlsgd(,%ebx,1), %eax\ncall ___tls_get_addr@PLT\n.zero 8\n",
                "desc": "leal {0}@tlsdesc(%ebx), %eax\ncall *{0}@tlscall(%eax)\n",
                "address": "movl ${0}, %eax\n",
                "copy": "movl {0}, %eax\n",
            },
            "ret", "movl $1, %eax; ret", "call 1f\n1: popl %eax\nleal {0}-1b(%eax), %eax\nret",
            "pushl %ebx\ncall 1f\n1: popl %ebx\naddl $_GLOBAL_OFFSET_TABLE_+[.-1b], %ebx\nsubl $8, %esp\n"
            "call {0}@PLT\naddl $8, %esp\npopl %ebx\nret",
            4, subdirectories=("glibc-hwcaps/any", "i686", "tls", "sse2", "i686/sse2", "tls/i686"),
        ),
        Target(
            "arm", "armhf", "arm-linux-gnueabihf-gcc", "arm-linux-gnueabihf", "/lib/ld-linux-armhf.so.3",
            {
                "data": _data(4),
                "got": ".word {0}(GOT)\n",
                "call": "bl {0}(PLT)\n",
                "ie": ".word {0}(GOTTPOFF)\n",
                "gd": ".word {0}(TLSGD)\nbl __tls_get_addr(PLT)\n",
                "desc": "1: bl {0}(tlscall)\n.word {0}(tlsdesc)+(.-1b)\n",
                "address": ".word {0}\n",
                "copy": ".word {0}\n",
            },
            "bx lr", "mov r0, #1; bx lr", "adr r0, {0}\nbx lr", "push {{r4, lr}}\nbl {0}(PLT)\npop {{r4, pc}}",
            4, prologue=".eabi_attribute 28, 1", qemu="qemu-arm",  # Tag_ABI_VFP_args
            model=Model("v8l", (), ("vfp", "neon")),
            subdirectories=("neon", "v8l", "tls", "vfp", "neon/vfp", "tls/v8l"),
        ),
        Target(
            "ppc64", "ppc64el", "powerpc64le-linux-gnu-gcc", "powerpc64le-linux-gnu", "/lib64/ld64.so.2",
            {
                "data": _data(8),
                "got": "addis 3, 2, {0}@got@ha\nld 3, {0}@got@l(3)\n",
                "call": "bl {0}\nnop\n",
                "ie": "addis 3, 2, {0}@got@tprel@ha\nld 3, {0}@got@tprel@l(3)\n",
                "gd": "addis 3, 2, {0}@got@tlsgd@ha\naddi 3, 3, {0}@got@tlsgd@l\nbl __tls_get_addr({0}@tlsgd)\nnop\n",
                "desc": "addis 3, 2, {0}@got@tlsgd@ha\naddi 3, 3, {0}@got@tlsgd@l\n"
                "bl __tls_get_addr({0}@tlsgd)\nnop\n",  # it has no descriptors
                "address": "lis 3, {0}@ha\naddi 3, 3, {0}@l\n",
                "copy": "lis 3, {0}@ha\naddi 3, 3, {0}@l\n",
            },
            "blr", "li 3, 1; blr", "mflr 0\nbcl 20, 31, 1f\n1: mflr 3\naddi 3, 3, {0}-1b\nmtlr 0\nblr",
            "0: addis 2, 12, .TOC.-0b@ha\naddi 2, 2, .TOC.-0b@l\nmflr 0\nstd 0, 16(1)\nstdu 1, -32(1)\nbl {0}\nnop\n"
            "addi 1, 1, 32\nld 0, 16(1)\nmtlr 0\nblr",
            lends=("__tls_get_addr", "__tls_get_addr_opt"), lent_for=("gd",), prologue=".abiversion 2",
            suites=("bookworm", "trixie", "sid"), qemu="qemu-ppc64le", page=4096,
            model=Model(None, ("power9",), ("dfp", "altivec")),
            subdirectories=("glibc-hwcaps/power9", "glibc-hwcaps/power10", "tls", "altivec", "altivec/dfp", "tls/dfp"),
        ),
        Target(
            "s390x", "s390x", "s390x-linux-gnu-gcc", "s390x-linux-gnu", "/lib/ld64.so.1",
            {
                "data": _data(8),
                "got": "lgrl %r1, {0}@GOTENT\n",
                "call": "brasl %r14, {0}@PLT\n",
                "ie": "larl %r1, {0}@INDNTPOFF\n",
                "gd": ".balign 8\n.quad {0}@TLSGD\nbrasl %r14, __tls_get_offset@PLT:tls_gdcall:{0}\n",
                "desc": ".balign 8\n.quad {0}@TLSGD\nbrasl %r14, __tls_get_offset@PLT:tls_gdcall:{0}\n",
                "address": "larl %r1, {0}\n",
                "copy": "larl %r1, {0}\n",
            },
            "br %r14", "lghi %r2, 1; br %r14", "larl %r2, {0}\nbr %r14",
            "stmg %r14, %r15, 112(%r15)\naghi %r15, -160\nbrasl %r14, {0}@PLT\nlmg %r14, %r15, 272(%r15)\nbr %r14",
            suites=("bookworm", "trixie", "sid"), qemu="qemu-s390x",
            model=Model(None, ("z13",), ("zarch", "ldisp", "eimm", "vx", "vxe", "vxe2")),
            subdirectories=("glibc-hwcaps/z13", "glibc-hwcaps/z14", "tls", "vxe2", "vx/zarch", "tls/eimm"),
        ),
        Target(
            "riscv64", "riscv64", "riscv64-linux-gnu-gcc", "riscv64-linux-gnu", "/lib/ld-linux-riscv64-lp64d.so.1",
            {
                "data": _data(8),
                "got": "la a0, {0}\n",
                "call": "call {0}@plt\n",
                "ie": "la.tls.ie a0, {0}\n",
                "gd": "la.tls.gd a0, {0}\ncall __tls_get_addr@plt\n",
                "desc": "la.tls.gd a0, {0}\ncall __tls_get_addr@plt\n",
                "address": "lui a0, %hi({0})\naddi a0, a0, %lo({0})\n",
                "copy": "lui a0, %hi({0})\naddi a0, a0, %lo({0})\n",
            },
            "ret", "li a0, 1; ret", "lla a0, {0}\nret",
            "addi sp, sp, -16\nsd ra, 8(sp)\ncall {0}@plt\nld ra, 8(sp)\naddi sp, sp, 16\nret",
            suites=("trixie", "sid"), qemu="qemu-riscv64",
        ),
    )
}  # fmt: skip
AMD64 = TARGETS["amd64"]


@functools.cache
def target_of(root: Path) -> Target:
    """The machine that a root is for, by the loader in it."""
    pairs = ((row, path) for row in TARGETS.values() for path in (row.loader, row.musl_loader))
    return next((row for row, path in pairs if os.path.lexists(f"{root}{path}")), AMD64)


@functools.cache
def emulator(qemu: str) -> tuple[Path | None, str]:
    """(path, "") of the static emulator of a machine, or (None, why there is none)."""
    place = cache() / "qemu" / EMULATOR_SUITE
    if not (place / qemu).exists():
        place.mkdir(parents=True, exist_ok=True)
        with (place / "lock").open("w") as lock:  # the workers of one run start together
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (place / qemu).exists():
                try:
                    _unpack(Index(EMULATOR_SUITE).package("qemu-user"), place)
                except (OSError, subprocess.SubprocessError) as error:
                    return None, f"not run: no {qemu}: {error}"
    return place / qemu, ""


def _unpack(package: Path, place: Path) -> None:
    """Take the emulators of all rows out of their package at once: it is large. Each appears when it is complete."""
    wanted = [f"./usr/bin/{row.qemu}" for row in TARGETS.values() if row.qemu is not None]
    own = place / f"{os.getpid()}.part"
    own.mkdir()
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as tar:
        unpack: list[str | Path] = ["tar", "-x", "-C", own, "--strip-components=3", *wanted]
        subprocess.run(unpack, stdin=tar.stdout, check=True, capture_output=True)
        assert tar.stdout is not None
        tar.stdout.close()
    for one in own.iterdir():
        one.rename(place / one.name)
    own.rmdir()


def inside(target: Target, root: Path) -> tuple[str, ...]:
    """The words that run a program of a machine inside a root, the emulator put there; none where it runs as it is.

    Raises `OSError` when there is no emulator.
    """
    if target.qemu is None:
        return ()
    found, why = emulator(target.qemu)
    if found is None:
        raise OSError(why)
    there = root / target.qemu
    if not there.exists():
        own = there.with_suffix(".part")
        shutil.copy(found, own)
        own.rename(there)
    return (f"/{target.qemu}",)


def why_not(target: Target) -> str | None:
    """Why nothing can be built or run for a machine here; None when it can."""
    if shutil.which(target.gcc) is None:
        return f"not run: no {target.gcc}"
    return emulator(target.qemu)[1] or None if target.qemu is not None else None
