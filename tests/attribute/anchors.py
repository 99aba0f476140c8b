"""Which variables each function of a library uses: as we see it in the code, and by the relocations of objects.

    python -m tests.attribute.anchors [--runs N] [--seed S] [--compiler gcc|clang] [--machine aarch64|x86-64]

Sources are made from a seed. With gcc the yardstick is the same source compiled with -fno-section-anchors, where every
variable has relocations of its own, and what is read is the library compiled as usual, where one place serves all
variables of the file. clang is asked for local-dynamic code, whose objects have a DTPREL relocation for each variable;
so have those of gcc and clang on x86-64: a DTPOFF relocation.
"""

from __future__ import annotations

import argparse
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from dlwhy.attribute.functions import locate
from dlwhy.attribute.sites import sites
from dlwhy.attribute.touched import Left, displacements, shared
from dlwhy.elf.file import read
from dlwhy.elf.machine import EM_AARCH64
from dlwhy.elf.symbols import StaticSymbols
from dlwhy.files import Files

GCC = ("aarch64-linux-gnu-gcc",)
CLANG = ("clang", "--target=aarch64-linux-gnu", "-ftls-model=local-dynamic", "-mllvm", "-aarch64-elf-ldtls-generation")
X86_GCC = ("gcc", "-ftls-model=local-dynamic")
X86_CLANG = ("clang", "--target=x86_64-linux-gnu", "-ftls-model=local-dynamic")
LINKERS = {GCC: GCC, CLANG: GCC, X86_GCC: ("gcc",), X86_CLANG: ("gcc",)}
"""What links the objects of each compiler."""
COMPILERS = {("aarch64", "gcc"): GCC, ("aarch64", "clang"): CLANG,
             ("x86-64", "gcc"): X86_GCC, ("x86-64", "clang"): X86_CLANG}  # fmt: skip
LEVELS = ("-O0", "-O1", "-O2", "-O3", "-Os")
DIALECTS = (("-mtls-dialect=trad",), ("-mtls-dialect=desc",), ("-ftls-model=initial-exec",))
_BEGINS = re.compile(
    r"R_X86_64_DTPOFF32\s+([\w.]+)|"
    r"R_AARCH64_TLS(?:DESC_ADR_PAGE21|GD_ADR_PAGE21|IE_ADR_GOTTPREL_PAGE21|LD_ADD_DTPREL_HI12)\s+([\w.]+)"
)
"""Relocations that begin an access to the variable they name (ELF for the Arm 64-bit Architecture; psABI x86-64)."""
_OWN = re.compile(r"R_X86_64_GOTPC32_TLSDESC\s+([\w.]+?)-0x4")
"""Those of x86-64 for the descriptor of a variable."""
_BESIDE = """\
typedef unsigned long size_t;
extern void *memset(void *, int, size_t);
extern void sink(void *, long);
extern int cond(int);
struct pair { long a; int b[3]; char c; };
"""


class Agreement(NamedTuple):
    """How (function, variable) pairs agree."""

    same: int
    only_ours: frozenset[tuple[str, str]]
    only_theirs: frozenset[tuple[str, str]]


def source(seed: int) -> str:
    """Return C code: some static variables of all sorts, and functions that use some of them in all sorts of ways."""
    chance = random.Random(seed)
    lines, variables = [_BESIDE], []
    for number in range(chance.randrange(3, 9)):
        kind = chance.choice(["int", "long", "char", "short", "double", "array", "struct", "big"])
        name = f"v{number}"
        lines.append("static __thread " + {
            "array": f"{chance.choice(['int', 'long', 'char'])} {name}[{chance.randrange(2, 40)}];",
            "big": f"char {name}[{chance.choice([4096, 5000, 9000])}];",
            "struct": f"struct pair {name};",
        }.get(kind, f"{kind} {name}{chance.choice(['', ' = 3'])};"))  # fmt: skip
        variables.append((name, kind))
    for number in range(chance.randrange(5, 15)):
        body = []
        for _ in range(chance.randrange(1, 6)):
            use = _use(chance, *chance.choice(variables))
            body.append(chance.choice([
                use, use, f"if (cond(i)) {{ {use} }}", f"for (int q = 0; q < i; q++) {{ cond(q); {use} }}",
                f"switch (i) {{ case 1: {use} break; case 2: s++; break; default: cond(3); }}",
            ]))  # fmt: skip
        lines.append(f"long f{number}(int i) {{ long s = 0; void *p = 0; {' '.join(body)} if (p) sink(p, s); "
                     "return s + (p != 0); }")  # fmt: skip
        if chance.random() < 0.3:
            lines.append(f"void *g{number}(void) {{ return &{chance.choice(variables)[0]}; }}")
    return "\n".join(lines) + "\n"


def _use(chance: random.Random, name: str, kind: str) -> str:
    if kind in ("array", "big"):
        return chance.choice([
            f"{name}[i & 1]++;", f"s += {name}[1];", f"sink({name}, 1);", f"memset({name}, i, sizeof {name});",
            f"for (int j = 0; j < 2; j++) s += {name}[j];", f"p = &{name}[i & 1];",
        ])  # fmt: skip
    if kind == "struct":
        return chance.choice([
            f"{name}.b[i & 1]++;", f"s += {name}.a + {name}.c;", f"sink(&{name}, 1);",
            f"{name} = (struct pair){{i}};", f"p = &{name}.b[1];",
        ])  # fmt: skip
    return chance.choice([
        f"{name}++;", f"s += {name};", f"sink(&{name}, 1);", f"{name} = i;", f"p = &{name};",
        f"while ({name}) {{ {name}--; s++; }}",
    ])  # fmt: skip


def compared(place: Path, seed: int, compiler: tuple[str, ...]) -> Agreement:
    """Build the source of a seed in a directory and compare."""
    chance = random.Random(seed)
    options = [*compiler, chance.choice(LEVELS), "-fPIC", "-fno-inline"]
    if compiler == X86_GCC:
        options += [chance.choice(("-mtls-dialect=gnu", "-mtls-dialect=gnu2")), *chance.choice([(), ("-fno-plt",)])]
    if compiler == GCC:
        options += [*chance.choice(DIALECTS), *chance.choice([(), ("-fno-plt",)])]
    text, plain, library = place / f"{seed}.c", place / f"{seed}.o", place / f"{seed}.so"
    text.write_text(source(seed))
    apart = ["-fno-section-anchors"] if compiler == GCC else []
    subprocess.run([*options, *apart, "-c", text, "-o", plain], check=True)
    object_ = text if apart else plain
    linker = options if apart else LINKERS[compiler]
    subprocess.run([*linker, "-shared", object_, "-o", library], check=True)
    return agreement(plain, library)


def agreement(object_: Path, library: Path) -> Agreement:
    """Compare an object file's relocations with what is seen in a library's code."""
    theirs, ours = by_relocations(object_), by_code(library)
    own = by_relocations(object_, _OWN)  # of x86-64 the first variable's descriptor looks like that of the module
    return Agreement(len(theirs & ours), frozenset(ours - theirs - own), frozenset(theirs - ours))


def by_relocations(path: Path, wanted: re.Pattern[str] = _BEGINS) -> set[tuple[str, str]]:
    """Return (function, variable) as objdump shows the relocations of an object file."""
    tool = "aarch64-linux-gnu-objdump" if read(Files().open(str(path))).machine == EM_AARCH64 else "objdump"
    told = subprocess.run([tool, "-dr", path], capture_output=True, text=True, check=True).stdout
    result, function = set(), ""
    for line in told.splitlines():
        begins = re.match(r"\w+ <(.*)>:", line)
        function = begins[1] if begins else function
        names = wanted.search(line)
        name = names[names.lastindex or 0] if names else None
        if name and name != "_TLS_MODULE_BASE_":
            result.add((function, name))
    return result


def by_code(path: Path) -> set[tuple[str, str]]:
    """Return (function, variable) as dlwhy sees it in the code of a library; an offset where no variable is."""
    elf = read(Files().open(str(path)))
    found = sites(elf)
    variables = [one for one in StaticSymbols(elf).tls() if one.size]
    functions = locate(elf, [one.address for one in found.found])
    result = set()
    for address, model, start in shared(elf, found.slots, found):
        name = functions[address].name or ""
        for offset in (start + one for one in displacements(elf, address, model, Left())):
            told = [one.name for one in variables if one.offset <= offset < one.offset + one.size]
            result |= {(name.removesuffix(".localalias"), one) for one in told or [f"at {offset:#x}"]}
    return result


def main() -> int:
    """Compare many; print what differs and the sums."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compiler", choices=("gcc", "clang"), default="gcc")
    parser.add_argument("--machine", choices=("aarch64", "x86-64"), default="aarch64")
    asked = parser.parse_args()
    same = ours = theirs = 0
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(asked.seed, asked.seed + asked.runs):
            one = compared(Path(directory), seed, COMPILERS[asked.machine, asked.compiler])
            same, ours, theirs = same + one.same, ours + len(one.only_ours), theirs + len(one.only_theirs)
            if one.only_ours or one.only_theirs:
                print(seed, "only ours:", *sorted(one.only_ours), "only theirs:", *sorted(one.only_theirs), flush=True)
    print(f"{asked.runs} sources: {same} uses agree, {ours} are only ours, {theirs} only of the objects")
    return 1 if ours or theirs else 0


if __name__ == "__main__":
    sys.exit(main())
