"""Libraries made to a plan: assembled and linked by gcc, then patched where no linker would write such a thing.

A `Plan` says what one shared object (or program) is; `Workshop.make` builds it. What two plans have in common is built
once: objects are kept by the hash of their plan, so a scenario that runs on four loaders is compiled once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from struct import pack_into, unpack_from
from typing import NamedTuple

_PLAIN = Path(__file__).with_name("plain.c")

# how a reference is made -> assembly; the relocation that results stands beside it
REFERENCES = {
    "data": ".data\n.balign 8\n.quad {0}\n.text\n",  # R_X86_64_64
    "got": "movq {0}@GOTPCREL(%rip), %rax\n",  # GLOB_DAT
    "call": "call {0}@PLT\n",  # JUMP_SLOT
    "ie": "movq {0}@gottpoff(%rip), %rax\n",  # TPOFF64
    # DTPMOD64, DTPOFF64
    "gd": ".byte 0x66\nleaq {0}@tlsgd(%rip), %rdi\n.value 0x6666\nrex64\ncall __tls_get_addr@PLT\n",
    "desc": "leaq {0}@tlsdesc(%rip), %rax\ncall *{0}@tlscall(%rax)\n",  # TLSDESC
    # in programs only
    "address": "movl ${0}, %eax\n",  # of a function: JUMP_SLOT of a symbol that is undefined and has a value
    "copy": "movl {0}, %eax\n",  # of an object: COPY
}

AUDITOR = "movl $1, %eax; ret"
"""la_version of an auditor that every release accepts."""


class Variable(NamedTuple):
    """A thread-local variable."""

    name: str
    size: int
    align: int
    local: bool = False


class Function(NamedTuple):
    """A function or object that a library defines."""

    name: str
    version: str | None = None
    hidden: bool = False
    """Not the default version (name@V instead of name@@V)."""
    binding: str = "globl"
    """globl, weak, unique (an object), object, wide (one of 16 bytes, the others have 8) or ifunc."""
    visibility: str | None = None


class Reference(NamedTuple):
    """A use of a symbol."""

    kind: str
    """A key of REFERENCES."""
    name: str
    weak: bool = False
    version: str | None = None
    provider: str | None = None
    """The DT_NEEDED string whose verneed carries `version`."""


class Patch(NamedTuple):
    """Bytes changed behind the linker's back, at a file offset or relative to a program header."""

    place: str
    """"file OFFSET", "phdr TYPE INDEX FIELD", "inside TYPE INDEX OFFSET" (of the bytes of a segment), "dyn TAG",
    "table TAG OFFSET", "cut" or "append"."""
    value: int
    size: int = 8


class Plan(NamedTuple):
    """One shared object."""

    path: str
    """Relative to the scenario's directory."""
    soname: str | None = None
    needed: tuple[str, ...] = ()
    rpath: str | None = None
    runpath: bool = True
    """Whether `rpath` becomes DT_RUNPATH; else DT_RPATH."""
    options: tuple[str, ...] = ()
    """Linker options."""
    variables: tuple[Variable, ...] = ()
    functions: tuple[Function, ...] = ()
    references: tuple[Reference, ...] = ()
    patches: tuple[Patch, ...] = ()
    relative: int = 0
    """How many pointers to itself it holds: relative relocations, with DT_RELACOUNT or DT_RELR."""
    constructor: str | None = None
    """A function that a constructor calls."""
    program: bool = False
    """A program that runs steps as `plain` does."""
    raw: bytes | None = None
    """The whole file, instead of all the above."""
    link: str | None = None
    """A symbolic link to this target, instead of all the above."""
    isa: int = 0
    """GNU_PROPERTY_X86_ISA_1_NEEDED of its property note."""
    needed_1: int = 0
    """GNU_PROPERTY_1_NEEDED of its property note."""


def assembly(plan: Plan) -> str:
    """The assembly text of a plan."""
    lines = [".text"]
    for index, one in enumerate(plan.functions):
        label = one.name
        if one.version is not None:
            label = f"impl{index}"
            lines.append(f".symver {label}, {one.name}{'@' if one.hidden else '@@'}{one.version}")
        if one.visibility is not None:
            lines.append(f".{one.visibility} {label}")
        if one.binding in ("unique", "object", "wide"):
            kind = "gnu_unique_object" if one.binding == "unique" else f"object\n.globl {label}"
            size = 16 if one.binding == "wide" else 8
            lines += [".data", f".type {label}, @{kind}", f"{label}: .zero {size}", f".size {label}, {size}", ".text"]
            continue
        body = AUDITOR if one.name == "la_version" else "ret"
        if one.binding == "ifunc":
            body = f"leaq chosen{index}(%rip), %rax\nret\nchosen{index}: ret"
        lines += [
            f".{'globl' if one.binding == 'ifunc' else one.binding} {label}",
            f".type {label}, @{'gnu_indirect_function' if one.binding == 'ifunc' else 'function'}",
            f"{label}: {body}",
            f".size {label}, .-{label}",
        ]
    for variable in plan.variables:
        lines += [
            '.section .tbss,"awT",@nobits', f".balign {variable.align}", f".type {variable.name}, @object",
            f".size {variable.name}, {variable.size}", f"{variable.name}: .zero {variable.size}", ".text",
        ]  # fmt: skip
        if not variable.local:
            lines.append(f".globl {variable.name}")
    lines += [f"uses{index}:\n" + REFERENCES[one.kind].format(one.name) for index, one in enumerate(plan.references)]
    lines += [f".weak {one.name}" for one in plan.references if one.weak]
    if plan.relative:
        lines += ["here:", ".data", ".balign 8", *[".quad here"] * plan.relative, ".text"]
    if plan.constructor is not None:
        lines += [
            "start:",
            "subq $8, %rsp",
            f"call {plan.constructor}@PLT",
            "addq $8, %rsp",
            "ret",
            '.section .init_array,"aw"',
            ".quad start",
            ".text",
        ]
    properties = [(0xB0008000, plan.needed_1), (0xC0008002, plan.isa)]
    asked = [one for one in properties if one[1]]
    if asked:
        lines += ['.section .note.gnu.property,"a"', ".balign 8", f".long 4, {16 * len(asked)}, 5", '.asciz "GNU"']
        lines += [f".long {kind:#x}, 4, {value}, 0" for kind, value in asked]
    if "-z,execstack" not in ",".join(plan.options):
        lines.append('.section .note.GNU-stack,"",@progbits')
    return "\n".join(lines) + "\n"


def version_script(plan: Plan) -> str:
    """The version script of a plan: every version of its functions, in order, each the child of the one before."""
    versions = list(dict.fromkeys(one.version for one in plan.functions if one.version is not None))
    text, parent = "", ""
    for version in versions:
        text += f"{version} {{ }}{parent};\n"
        parent = f" {version}"
    return text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:24]


class Workshop:
    """Builds plans below one directory."""

    def __init__(self, directory: Path, program_libraries: tuple[str, ...] = ()) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._program_libraries = program_libraries
        """What programs are linked with; the oldest glibc at hand, so that one binary starts on all."""

    def make(self, plan: Plan) -> Path:
        """Return the built file of a plan."""
        key = _digest(
            repr(plan._replace(path="", patches=())) + assembly(plan) + (_PLAIN.read_text() if plan.program else "")
        )
        built = self.directory / f"{key}.so"
        if not built.exists():
            self._build(plan, built)
        if not plan.patches:
            return built
        key = _digest(key + repr(plan.patches))
        patched = self.directory / f"{key}.patched"
        if not patched.exists():
            data = bytearray(built.read_bytes())
            for one in sorted(plan.patches, key=lambda patch: patch.place in ("cut", "append")):
                data = apply(data, one)
            own = patched.with_name(f"{patched.stem}-{os.getpid()}-{threading.get_ident()}")
            own.write_bytes(data)
            own.rename(patched)
        return patched

    def _build(self, plan: Plan, target: Path) -> None:
        own = target.with_name(
            f"{target.stem}-{os.getpid()}-{threading.get_ident()}"
        )  # others may build the same at once
        source = own.with_suffix(".s")
        source.write_text(assembly(plan))
        command: list[str | Path] = ["gcc", "-nostdlib", "-o", own.with_suffix(".tmp"), source]
        if plan.program:
            command += ["-no-pie", self._program_object(), "-Wl,--no-as-needed"]
        else:
            command += ["-shared"]
        command += ["-Wl,--hash-style=gnu"] if not any("hash-style" in one for one in plan.options) else []
        if plan.soname is not None:
            command.append(f"-Wl,-soname,{plan.soname}")
        if plan.rpath is not None:
            command += [
                f"-Wl,-rpath,{plan.rpath}",
                "-Wl,--enable-new-dtags" if plan.runpath else "-Wl,--disable-new-dtags",
            ]
        script = version_script(plan)
        if script:
            own.with_suffix(".map").write_text(script)
            command.append(f"-Wl,--version-script={own.with_suffix('.map')}")
        command += [f"-Wl,{one}" for one in plan.options]
        command.append("-Wl,--no-as-needed")
        for needed in plan.needed:
            command.append(self._stub(needed, [one for one in plan.references if one.provider == needed]))
        if plan.program:
            command += [*self._program_libraries]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{plan}: {done.stderr}")
        own.with_suffix(".tmp").rename(target)
        for suffix in (".s", ".map"):
            own.with_suffix(suffix).unlink(missing_ok=True)

    def _stub(self, soname: str, references: list[Reference]) -> Path:
        """A library that lends its soname, and versions for these references, to the link of another."""
        lent = tuple(
            Function(one.name, one.version, binding="object" if one.kind == "copy" else "globl")
            for one in references
            if one.version is not None or one.kind in ("address", "copy")
        )
        plan = Plan("", soname, functions=tuple(dict.fromkeys(lent)))
        return self.make(plan)

    def _program_object(self) -> Path:
        target = self.directory / f"plain-{_digest(_PLAIN.read_text())}.o"
        if not target.exists():
            own = target.with_name(f"plain-{os.getpid()}-{threading.get_ident()}")
            subprocess.run(["gcc", "-O1", "-fno-pie", "-c", "-o", own, _PLAIN], check=True)
            own.rename(target)
        return target

    def place(self, plan: Plan, directory: Path) -> None:
        """Put the file of a plan where the scenario wants it."""
        target = directory / plan.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if plan.link is not None:
            target.symlink_to(plan.link)
        elif plan.raw is not None:
            target.write_bytes(plan.raw)
        else:
            shutil.copyfile(self.make(plan), target)
            target.chmod(0o755)


# -- patching ----------------------------------------------------------------------------------------------------------

_FIELDS = {
    "type": (0, 4),
    "flags": (4, 4),
    "offset": (8, 8),
    "vaddr": (16, 8),
    "filesz": (32, 8),
    "memsz": (40, 8),
    "align": (48, 8),
}
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


def _segments(data: bytearray) -> list[int]:
    (phoff,) = unpack_from("<Q", data, 32)
    (phnum,) = unpack_from("<H", data, 56)
    return [at for at in (phoff + 56 * index for index in range(phnum)) if at + 56 <= len(data)]


def find_segment(data: bytearray, kind: int, index: int = 0) -> int | None:
    """File offset of the program header of the index-th segment of a type."""
    found = [at for at in _segments(data) if unpack_from("<I", data, at)[0] == kind]
    return found[index] if index < len(found) else None


def _dynamic(data: bytearray, tag: int) -> int | None:
    at = find_segment(data, 2)
    if at is None:
        return None
    offset, size = unpack_from("<Q", data, at + 8)[0], unpack_from("<Q", data, at + 32)[0]
    for place in range(offset, min(offset + size, len(data) - 16), 16):
        if unpack_from("<q", data, place)[0] == tag:
            return place
    return None


def _table(data: bytearray, tag: int, offset: int) -> int | None:
    """File offset of the byte `offset` of what a tag points to."""
    at = _dynamic(data, tag)
    if at is None:
        return None
    address = unpack_from("<Q", data, at + 8)[0] + offset
    for header in _segments(data):
        kind, _, start, vaddr, _, filesz = unpack_from("<IIQQQQ", data, header)
        if kind == 1 and vaddr <= address < vaddr + filesz:
            return int(address - vaddr + start)
    return None


def apply(data: bytearray, patch: Patch) -> bytearray:
    """Return the bytes with one patch made; unchanged where the place does not exist."""
    word, *rest = patch.place.split()
    if word == "cut":
        return data[: max(len(data) - patch.value, 0)] if patch.size else data[: patch.value]
    if word == "append":
        return data + bytes(patch.value)
    if word == "file":
        place: int | None = int(rest[0], 0)
        size = patch.size
    elif word == "phdr":
        at = find_segment(data, int(rest[0], 0), int(rest[1]))
        offset, size = _FIELDS[rest[2]]
        place = None if at is None else at + offset
    elif word == "inside":
        at, size = find_segment(data, int(rest[0], 0), int(rest[1])), patch.size
        place = None if at is None else unpack_from("<Q", data, at + 8)[0] + int(rest[2], 0)
    elif word == "dyn":
        place, size = _dynamic(data, int(rest[0], 0)), 8
        place = None if place is None else place + (8 if len(rest) < 2 else 0)
    elif word == "table":
        place, size = _table(data, int(rest[0], 0), int(rest[1], 0)), patch.size
    else:
        raise ValueError(patch.place)
    if place is not None and place + size <= len(data):
        pack_into("<" + _CODES[size], data, place, patch.value & (1 << 8 * size) - 1)
    return data
