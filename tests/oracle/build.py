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

from tests.oracle.machines import AMD64, Target

_PLAIN = Path(__file__).with_name("plain.c")

class NotBuilt(RuntimeError):
    """What the linker of this machine makes nothing of."""


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
    """A key of Target.references."""
    name: str
    weak: bool = False
    version: str | None = None
    provider: str | None = None
    """The DT_NEEDED string whose verneed carries `version`."""


class Patch(NamedTuple):
    """Bytes changed behind the linker's back, at a file offset or relative to a program header."""

    place: str
    """"file OFFSET", "phdr TYPE INDEX FIELD", "inside TYPE INDEX OFFSET" (of the bytes of a segment), "dyn TAG",
    "table TAG OFFSET", "kind TAG INDEX" (of a relocation), "cut" or "append". Offsets and tags are those of a 64-bit
    machine whose relocations have addends; `apply` turns them into those of the file."""
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


def assembly(plan: Plan, target: Target = AMD64) -> str:
    """The assembly text of a plan. On some machines `@` begins a comment: types are written with `%`."""
    lines = [".text"] if target.prologue is None else [target.prologue, ".text"]
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
            lines += [".data", f".type {label}, %{kind}", f"{label}: .zero {size}", f".size {label}, {size}", ".text"]
            continue
        body = target.one if one.name == "la_version" else target.returns
        if one.binding == "ifunc":
            body = target.chosen.format(f"chosen{index}") + f"\nchosen{index}: {target.returns}"
        lines += [
            f".{'globl' if one.binding == 'ifunc' else one.binding} {label}",
            f".type {label}, %{'gnu_indirect_function' if one.binding == 'ifunc' else 'function'}",
            f"{label}: {body}",
            f".size {label}, .-{label}",
        ]
    for variable in plan.variables:
        lines += [
            '.section .tbss,"awT",%nobits', f".balign {variable.align}", f".type {variable.name}, %object",
            f".size {variable.name}, {variable.size}", f"{variable.name}: .zero {variable.size}", ".text",
        ]  # fmt: skip
        if not variable.local:
            lines.append(f".globl {variable.name}")
    for index, use in enumerate(plan.references):
        lines.append(f".balign 4\nuses{index}:\n" + target.references[use.kind].format(use.name))
    lines += [f".weak {one.name}" for one in plan.references if one.weak]
    lines += _pointers(plan, target) + _note(plan, target)
    if "-z,execstack" not in ",".join(plan.options):
        lines.append('.section .note.GNU-stack,"",%progbits')
    return "\n".join(lines) + "\n"


def _pointers(plan: Plan, target: Target) -> list[str]:
    """What of a plan becomes pointers to itself, or to a constructor."""
    lines = []
    pointer = f".{target.word}byte"
    if plan.relative:
        lines += ["here:", ".data", f".balign {target.word}", *[f"{pointer} here"] * plan.relative, ".text"]
    if plan.constructor is not None:
        lines += [".balign 4", "start:", target.calls.format(plan.constructor), '.section .init_array,"aw"']
        lines += [f"{pointer} start", ".text"]
    return lines


def _note(plan: Plan, target: Target) -> list[str]:
    """The property note of a plan, if it has one."""
    properties = [(0xB0008000, plan.needed_1), (0xC0008002, plan.isa)]
    asked = [one for one in properties if one[1]]
    if not asked:
        return []
    pad = ", 0" if target.word == 8 else ""
    lines = ['.section .note.gnu.property,"a"', f".balign {target.word}"]
    lines += [f".long 4, {(8 + target.word) * len(asked)}, 5", '.asciz "GNU"']
    return lines + [f".long {kind:#x}, 4, {value}{pad}" for kind, value in asked]


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

    def __init__(self, directory: Path, program_libraries: tuple[str, ...] = (), target: Target = AMD64) -> None:
        self.directory = directory
        self.target = target
        directory.mkdir(parents=True, exist_ok=True)
        self._program_libraries = program_libraries
        """What programs are linked with; the oldest glibc at hand, so that one binary starts on all."""

    def make(self, plan: Plan) -> Path:
        """Return the built file of a plan."""
        text = repr(plan._replace(path="", patches=())) + assembly(plan, self.target)
        machine = "" if self.target is AMD64 else self.target.name
        key = _digest(text + (_PLAIN.read_text() if plan.program else "") + machine)
        built = self.directory / f"{key}.so"
        if not built.exists():
            self._build(plan, built)
        if not plan.patches:
            return built
        key = _digest(key + repr(plan.patches))
        patched = self.directory / f"{key}.patched"
        if not patched.exists():
            data = bytearray(built.read_bytes())
            shape = Shape(data)
            for one in sorted(plan.patches, key=lambda patch: patch.place in ("cut", "append")):
                data = apply(data, one, shape)
            own = patched.with_name(f"{patched.stem}-{os.getpid()}-{threading.get_ident()}")
            own.write_bytes(data)
            own.rename(patched)
        return patched

    def _build(self, plan: Plan, target: Path) -> None:
        own = target.with_name(
            f"{target.stem}-{os.getpid()}-{threading.get_ident()}"
        )  # others may build the same at once
        source = own.with_suffix(".s")
        source.write_text(self._text(plan))
        command: list[str | Path] = [self.target.gcc, "-nostdlib", "-o", own.with_suffix(".tmp"), source]
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
        elif self.target.lends and any(one.kind in self.target.lent_for for one in plan.references):
            command += ["-Wl,--as-needed", self._lent()]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotBuilt(f"{plan}: {done.stderr}")
        own.with_suffix(".tmp").rename(target)
        for suffix in (".s", ".map"):
            own.with_suffix(suffix).unlink(missing_ok=True)

    def _text(self, plan: Plan) -> str:
        """What is assembled for a plan."""
        return assembly(plan, self.target)

    def _stub(self, soname: str, references: list[Reference]) -> Path:
        """A library that lends its soname, and versions for these references, to the link of another."""
        lent = tuple(
            Function(one.name, one.version, binding="object" if one.kind == "copy" else "globl")
            for one in references
            if one.version is not None or one.kind in ("address", "copy")
        )
        plan = Plan("", soname, functions=tuple(dict.fromkeys(lent)))
        return self.make(plan)

    def _lent(self) -> Path:
        """A library that lends what any real link on this machine finds."""
        return self.make(Plan("", Path(self.target.loader).name, functions=tuple(map(Function, self.target.lends))))

    def _program_object(self) -> Path:
        target = self.directory / f"plain-{self.target.debian}-{_digest(_PLAIN.read_text())}.o"
        if not target.exists():
            own = target.with_name(f"plain-{os.getpid()}-{threading.get_ident()}")
            subprocess.run([self.target.gcc, "-O1", "-fno-pie", "-c", "-o", own, _PLAIN], check=True)
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

_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_FIELDS = {
    # of a program header: (offset, size) by class; those of 8 bytes have 4 in a 32-bit file
    "type": (0, 4, 0), "flags": (4, 4, 24), "offset": (8, 8, 4), "vaddr": (16, 8, 8), "filesz": (32, 8, 16),
    "memsz": (40, 8, 20), "align": (48, 8, 28),
}  # fmt: skip
_HEADER = {20: 20, 24: 24, 32: 28, 40: 32, 48: 36, 52: 40, 54: 42, 56: 44, 58: 46, 60: 48, 62: 50}
"""Offset of a field in the header of a 64-bit file -> that in a 32-bit one."""
_TWINS = {7: 17, 8: 18, 9: 19, 0x6FFFFFF9: 0x6FFFFFFA}
"""DT_RELA and what belongs to it -> the same for relocations without addends."""
_OTHER_MACHINE = {183: 62}
"""What e_machine becomes where it is that already."""


class Shape:
    """How a file is written that nothing was changed of: class, byte order, relocations with addends or not."""

    def __init__(self, data: bytearray) -> None:
        self.wide = data[4] == 2
        self.order = "<" if data[5] == 1 else ">"
        self.machine = self.get(data, 18, 2)
        self.word = 8 if self.wide else 4
        self.rela = self.machine not in (3, 40)
        self.phoff, self.phdr = (self.get(data, 32, 8), 56) if self.wide else (self.get(data, 28, 4), 32)
        self.phnum = self.get(data, 56 if self.wide else 44, 2)
        self.hash_word = 8 if self.wide and self.machine == 22 else 4

    def get(self, data: bytearray, at: int, size: int) -> int:
        """The number at an offset of the file."""
        return int(unpack_from(self.order + _CODES[size], data, at)[0])

    def field(self, name: str) -> tuple[int, int]:
        """(offset, size) of a field of a program header."""
        offset, size, narrow = _FIELDS[name]
        return (offset, size) if self.wide else (narrow, 4)

    def tag(self, tag: int) -> int:
        """The tag that this file has instead of one."""
        return tag if self.rela else _TWINS.get(tag, tag)


def _segments(data: bytearray, shape: Shape) -> list[int]:
    every = (shape.phoff + shape.phdr * index for index in range(shape.phnum))
    return [at for at in every if at + shape.phdr <= len(data)]


def _of_segment(data: bytearray, shape: Shape, at: int, name: str) -> int:
    offset, size = shape.field(name)
    return shape.get(data, at + offset, size)


def find_segment(data: bytearray, kind: int, index: int = 0, shape: Shape | None = None) -> int | None:
    """File offset of the program header of the index-th segment of a type."""
    shape = shape or Shape(data)
    found = [at for at in _segments(data, shape) if shape.get(data, at, 4) == kind]
    return found[index] if index < len(found) else None


def _dynamic(data: bytearray, tag: int, shape: Shape) -> int | None:
    at = find_segment(data, 2, 0, shape)
    if at is None:
        return None
    offset, size = _of_segment(data, shape, at, "offset"), _of_segment(data, shape, at, "filesz")
    step = 2 * shape.word
    for place in range(offset, min(offset + size, len(data) - step), step):
        if shape.get(data, place, shape.word) == tag & (1 << 8 * shape.word) - 1:
            return place
    return None


def _table(data: bytearray, tag: int, offset: int, shape: Shape) -> int | None:
    """File offset of the byte `offset` of what a tag points to."""
    at = _dynamic(data, tag, shape)
    if at is None:
        return None
    address = shape.get(data, at + shape.word, shape.word) + offset
    for header in _segments(data, shape):
        start, vaddr, filesz = (_of_segment(data, shape, header, name) for name in ("offset", "vaddr", "filesz"))
        if shape.get(data, header, 4) == 1 and vaddr <= address < vaddr + filesz:
            return address - vaddr + start
    return None


def _kind(data: bytearray, tag: int, index: int, shape: Shape) -> tuple[int | None, int]:
    """(file offset, size) of the type of the index-th relocation of a table."""
    entry = shape.word * (3 if shape.rela else 2)
    behind = 0 if shape.order == "<" else shape.word - (4 if shape.wide else 1)
    place = _table(data, shape.tag(tag), entry * index + shape.word, shape)
    return None if place is None else place + behind, 4 if shape.wide else 1


def _in_header(patch: Patch, offset: int, shape: Shape) -> tuple[int, int, int]:
    """(offset, size, value) of a change to the ELF header."""
    value, size = patch.value, patch.size
    if offset == 18 and value == shape.machine:
        value = _OTHER_MACHINE.get(value, 183)
    elif size == 1 and value in (1, 2) and ((offset == 4 and not shape.wide) or (offset == 5 and shape.order == ">")):
        value = 3 - value
    if not shape.wide and offset in _HEADER:
        offset, size = _HEADER[offset], min(size, 4)
    return offset, size, value


def apply(data: bytearray, patch: Patch, shape: Shape | None = None) -> bytearray:
    """Return the bytes with one patch made; unchanged where the place does not exist."""
    word, *rest = patch.place.split()
    if word == "cut":
        return data[: max(len(data) - patch.value, 0)] if patch.size else data[: patch.value]
    if word == "append":
        return data + bytes(patch.value)
    shape = shape or Shape(data)
    value, size = patch.value, patch.size
    if word == "file":
        offset, size, value = _in_header(patch, int(rest[0], 0), shape)
        place: int | None = offset
    elif word == "phdr":
        at = find_segment(data, int(rest[0], 0), int(rest[1]), shape)
        offset, size = shape.field(rest[2])
        place = None if at is None else at + offset
    elif word == "inside":
        at = find_segment(data, int(rest[0], 0), int(rest[1]), shape)
        place = None if at is None else _of_segment(data, shape, at, "offset") + int(rest[2], 0)
    elif word == "dyn":
        tag, size = int(rest[0], 0), shape.word
        value = _dynamic_value(tag, value, len(rest) > 1, shape)
        place = _dynamic(data, shape.tag(tag), shape)
        place = None if place is None else place + (size if len(rest) < 2 else 0)
    elif word == "table":
        tag, offset = int(rest[0], 0), int(rest[1], 0)
        scale = shape.hash_word // 4 if tag == 4 else 1
        place, size = _table(data, tag, offset * scale, shape), size * scale
    elif word == "kind":
        place, size = _kind(data, int(rest[0], 0), int(rest[1]), shape)
    else:
        raise ValueError(patch.place)
    if place is not None and place + size <= len(data):
        pack_into(shape.order + _CODES[size], data, place, value & (1 << 8 * size) - 1)
    return data


def _dynamic_value(tag: int, value: int, is_tag: bool, shape: Shape) -> int:
    """What a change to the dynamic section writes: the other of the two kinds of relocations, where one is named."""
    if shape.rela or not (tag == 20 or is_tag):
        return value
    return {17: 7, **_TWINS}.get(value, value)
