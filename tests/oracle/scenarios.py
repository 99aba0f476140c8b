"""Random scenarios from a seed: a few libraries, perhaps a program, an environment, and steps to take with them.

`scenario(seed, number)` is the same on every machine and for every loader. Each family below leans on one part of the
loader; `MIX` says how often each comes. `{D}` stands for the scenario's own directory wherever a path is written.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, NamedTuple

from tests.oracle.build import Function, Patch, Plan, Reference, Variable
from tests.oracle.machines import AMD64

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.oracle.machines import Target

ROOT = "/tmp/dlwhy-oracle"
LOADER_NAME = AMD64.loader.rpartition("/")[2]
MODES = (
    "now", "lazy", "now-global", "lazy-global", "now-deepbind", "lazy-deepbind", "now-nodelete", "now-noload",
    "lazy-local",
)  # fmt: skip
ODD_NUMBERS = ("0x400", "0777", " 12", "-1", "+9", "12x", "", "99999999999999999999", "08")
"""Values of a tunable that ld.so reads in a way of its own."""
SUBDIRECTORIES = ("glibc-hwcaps/x86-64-v2", "glibc-hwcaps/x86-64-v3", "tls", "x86_64", "haswell", "tls/x86_64")
"""Where some releases look below each directory of a list."""


class Scenario(NamedTuple):
    """One process to run."""

    name: str
    """SEED-NUMBER; also the name of its directory."""
    family: str
    plans: tuple[Plan, ...]
    steps: tuple[str, ...]
    env: dict[str, str]
    program: str | None
    """Path of the program below the directory, None for `plain`."""
    cwd: str

    @property
    def directory(self) -> str:
        """Where its files are, inside every root."""
        return f"{ROOT}/{self.name}"


def _size(r: random.Random) -> int:
    return r.choice(
        (r.randint(1, 16), r.randint(1, 200), r.randint(100, 900), r.randint(500, 1800), r.randint(1500, 6000))
    )


def _align(r: random.Random) -> int:
    return r.choice((1, 1, 2, 4, 8, 8, 8, 16, 16, 32, 64, 64, r.choice((128, 256, 1024, 4096))))


def _tls_patches(r: random.Random) -> tuple[Patch, ...]:
    patches = []
    if r.random() < 0.25:
        patches.append(Patch("phdr 7 0 vaddr", 0x4000 + r.randint(0, 255)))
    if r.random() < 0.15:
        patches.append(Patch("phdr 7 0 memsz", r.choice((_size(r), _size(r), r.randint(1600, 1800)))))
    if r.random() < 0.1:
        patches.append(Patch("phdr 7 0 align", r.choice((1, 2, 4, 16, 32, 64, 128, 512, 0, r.choice((3, 24, 48))))))
    return tuple(patches)


def _edges(r: random.Random, names: list[str], index: int, dense: float, cycles: float) -> tuple[str, ...]:
    """DT_NEEDED of the index-th library: mostly later ones, so that most graphs have no cycle."""
    found = [name for other, name in enumerate(names) if other > index and r.random() < dense]
    found += [name for other, name in enumerate(names) if other < index and r.random() < cycles]
    r.shuffle(found)
    return tuple(found)


def _tunables(r: random.Random) -> str:
    def item() -> str:
        return r.choice((
            f"glibc.rtld.nns={r.choice((1, 2, 4, 8, 16, 0, 17))}",
            f"glibc.rtld.optional_static_tls={r.choice((0, 64, 512, 1000, 2048, 4096, 10000, r.randint(0, 8000)))}",
            f"glibc.rtld.optional_static_tls={r.choice(ODD_NUMBERS)}",
            f"glibc.pthread.rseq={r.choice((0, 1, 2))}",
            f"glibc.rtld.dynamic_sort={r.choice((1, 2, 3))}",
            "glibc.malloc.check=0",
            r.choice(("glibc.rtld.nns", "nonsense", "=", "glibc.rtld.nns=4=5", "a=b", "")),
        ))  # fmt: skip

    return ":".join(item() for _ in range(r.randint(1, 3)))


def _steps(r: random.Random, names: list[str], symbols: list[str], most: int = 7) -> list[str]:
    """Opens, and now and then a close, a lookup or an open that only asks."""
    steps: list[str] = []
    opens: list[int] = []
    for number in range(1, r.randint(1, most) + 1):
        chance = r.random()
        if opens and chance < 0.18:
            steps.append(f"close:{opens.pop(r.randrange(len(opens)))}")  # twice would be a use of freed memory
        elif opens and symbols and chance < 0.27:
            steps.append(f"sym:{r.choice(opens)}:{r.choice(symbols)}")
        else:
            flags = r.choice(MODES) if r.random() < 0.5 else r.choice(("now", "lazy"))
            name = r.choice(names)
            steps.append(f"{flags}:{name if r.random() < 0.15 else '{D}/' + name}")
            opens.append(number)
    return steps


def tls(r: random.Random, name: str) -> Scenario:
    """Static TLS: sizes, alignments, models, triggers in other modules, tunables, preloads, auditors, closes."""
    count = r.randint(1, 6)
    names = [f"t{index}.so" for index in range(count)]
    variables = {
        one: [
            Variable(f"v{index}_{k}", _size(r), _align(r), r.random() < 0.3)
            for k in range(r.choice((0, 1, 1, 1, 2, 3)))
        ]
        for index, one in enumerate(names)
    }
    public = [variable.name for own in variables.values() for variable in own if not variable.local]
    plans = []
    for index, one in enumerate(names):
        references = [
            Reference(r.choices(("ie", "gd", "desc"), (6, 2, 3))[0], variable.name)
            for variable in variables[one]
            if r.random() < 0.85
        ]
        for _ in range(r.choice((0, 0, 1, 2))):
            if public:
                weak = r.random() < 0.2
                references.append(Reference(r.choices(("ie", "gd", "desc"), (5, 2, 3))[0], r.choice(public), weak))
        if r.random() < 0.08:
            references.insert(
                r.randint(0, len(references)), Reference(r.choice(("data", "call", "ie")), "nowhere", r.random() < 0.3)
            )
        own = {variable.name for variable in variables[one]}
        references = [ref for ref in references if not (ref.weak and ref.name in own)]
        options = []
        if r.random() < 0.2:
            options.append(r.choice(("-z,now", "-Bsymbolic", "-z,nodelete", "-z,lazy")))
        plans.append(Plan(
            one, one if r.random() < 0.8 else None, _edges(r, names, index, 0.3, 0.05), "$ORIGIN", r.random() < 0.5,
            tuple(options), tuple(variables[one]), (Function(f"f{index}"),), tuple(references),
            _tls_patches(r) if variables[one] else (),
        ))  # fmt: skip
    env: dict[str, str] = {}
    if r.random() < 0.4:
        env["GLIBC_TUNABLES"] = _tunables(r)
    if r.random() < 0.3:
        env["LD_PRELOAD"] = r.choice((" ", ":")).join(
            "{D}/" + one for one in r.sample(names, min(len(names), r.randint(1, 2)))
        )
    if r.random() < 0.12:
        auditors = r.randint(1, 3)
        plans += [
            Plan(f"audit{number}.so", functions=(Function("la_version"),) if r.random() < 0.9 else ())
            for number in range(auditors)
        ]
        env["LD_AUDIT"] = ":".join(f"{{D}}/audit{number}.so" for number in range(auditors))
    program = None
    if r.random() < 0.3:
        program = "prog"
        thread_local = (Variable("vp", _size(r), _align(r)),) if r.random() < 0.6 else ()
        plans.append(Plan(
            program, None, tuple(r.sample(names, r.randint(0, min(2, len(names))))), "$ORIGIN", r.random() < 0.5, (),
            thread_local, program=True,
        ))  # fmt: skip
    steps = _steps(r, names, public + [f"f{index}" for index in range(count)], 8)
    return Scenario(name, "tls", tuple(plans), tuple(steps), env, program, "/tmp")


def graph(r: random.Random, name: str) -> Scenario:
    """Dependency graphs: missing libraries, cycles, relocation order, which undefined symbol is first."""
    count = r.randint(2, 9)
    names = [f"g{index}.so" for index in range(count)]
    missing = {one for one in names if r.random() < 0.04}
    plans = []
    defined = [f"f{index}" for index in range(count)]
    for index, one in enumerate(names):
        references = []
        for _ in range(r.choice((0, 1, 1, 2, 3))):
            symbol = r.choice(defined) if r.random() < 0.85 else f"u{r.randint(0, 9)}"
            references.append(
                Reference(
                    r.choice(("call", "call", "got", "data")), symbol, r.random() < 0.12 and symbol != f"f{index}"
                )
            )
        functions = [Function(f"f{index}")]
        if r.random() < 0.3:
            functions.append(Function(r.choice([*defined, "shared"]), binding=r.choice(("globl", "weak", "unique"))))
            functions = list({f.name: f for f in functions}.values())
        # what others call must be code: only `shared`, which nobody calls, is data
        functions = [
            f._replace(binding="globl") if f.binding == "unique" and f.name != "shared" else f for f in functions
        ]
        own = {f.name for f in functions}
        references = [ref for ref in references if not (ref.weak and ref.name in own)]
        options = [option for option in ("-z,now", "-Bsymbolic", "-z,nodelete") if r.random() < 0.08]
        if r.random() < 0.15:
            options.append(f"--hash-style={r.choice(('sysv', 'both'))}")
        constructor = r.choice([*defined, "u1"]) if r.random() < 0.05 else None
        references = [ref._replace(weak=ref.weak and ref.name != constructor) for ref in references]  # it is called
        plans.append(Plan(
            one, one if r.random() < 0.85 else f"other-{one}", _edges(r, names, index, 0.35, 0.08), "$ORIGIN",
            r.random() < 0.6, tuple(options), (), tuple(functions), tuple(references), (), 0, constructor,
        ))  # fmt: skip
    env = {}
    if r.random() < 0.15:
        env["LD_BIND_NOW"] = r.choice(("1", ""))
    if r.random() < 0.15:
        env["GLIBC_TUNABLES"] = f"glibc.rtld.dynamic_sort={r.choice((1, 2))}"
    if r.random() < 0.15:
        preload = r.choice(names)
        env["LD_PRELOAD"] = "{D}/" + preload
        if r.random() < 0.2:  # it answers to the loader's own name
            plans = [one._replace(soname=LOADER_NAME) if one.path == preload else one for one in plans]
    program = None
    if r.random() < 0.25:
        program = "prog"
        plans.append(Plan(
            program, None, tuple(r.sample(names, r.randint(1, 3) if count > 2 else 1)), "$ORIGIN", r.random() < 0.6,
            ("-z,now",) if r.random() < 0.2 else (), program=True,
        ))  # fmt: skip
    placed = [plan for plan in plans if plan.path not in missing]
    steps = _steps(r, names, [*defined, "shared", "u1"], 6)
    return Scenario(name, "graph", tuple(placed), tuple(steps), env, program, "/tmp")


_DECOYS: tuple[Callable[[Plan], Plan], ...] = (
    lambda p: p._replace(patches=(Patch("file 4", 1, 1),)),  # other class
    lambda p: p._replace(patches=(Patch("file 18", 183, 2),)),  # other machine
    lambda p: p._replace(raw=b"/* GNU ld script */ INPUT(x)" + b" " * 80),
    lambda p: p._replace(raw=b"short"),
    lambda p: p._replace(raw=b""),
    lambda p: p._replace(link="nowhere"),
    lambda p: p._replace(path=p.path + "/inside"),  # a directory of that name
    lambda p: p._replace(patches=(Patch("file 5", 2, 1),)),  # other byte order
)


def _path_list(r: random.Random, directories: list[str]) -> str:
    parts = []
    for _ in range(r.randint(1, 3)):
        d = r.choice(directories)
        parts.append(r.choice((
            f"$ORIGIN/../{d}", f"${{ORIGIN}}/../{d}", f"{{D}}/{d}", f"{{D}}/{d}/", f"{{D}}/{d}//", "$ORIGIN",
            "{D}/none", d, "", f"$ORIGINX/{d}", "{D}/$LIB", f"{{D}}/{d}/$PLATFORM", f"$FOO/{d}", f"{{D}}/{d}",
        )))  # fmt: skip
    return ":".join(parts)


def search(r: random.Random, name: str) -> Scenario:
    """Where a name is found: RPATH, RUNPATH, LD_LIBRARY_PATH, tokens, decoys of every kind, links, duplicates."""
    directories = [f"d{index}" for index in range(4)]
    names = [f"s{index}.so" for index in range(r.randint(2, 5))]
    plans: list[Plan] = []
    taken: set[str] = set()
    for index, one in enumerate(names):
        rpath = _path_list(r, directories) if r.random() < 0.7 else None
        needed = list(_edges(r, names, index, 0.5, 0.05))
        if r.random() < 0.1:
            needed.append(r.choice((
                f"$ORIGIN/{r.choice(names)}", f"./{r.choice(names)}", "libm.so.6", "libgone.so",
                f"{{D}}/d0/{r.choice(names)}",
            )))  # fmt: skip
        base = Plan(one, one if r.random() < 0.7 else None, tuple(needed), rpath, r.random() < 0.5,
                    ("-z,nodefaultlib",) if r.random() < 0.05 else (), functions=(Function(f"f{index}"),))  # fmt: skip
        for d in r.sample(directories, r.randint(1, 3)):
            placed = base._replace(path=f"{d}/{one}")
            if r.random() < 0.15:
                placed = placed._replace(path=f"{d}/{r.choice(SUBDIRECTORIES)}/{one}")
            if r.random() < 0.3:
                placed = r.choice(_DECOYS)(placed)
            elif r.random() < 0.1:
                placed = placed._replace(link=f"../{r.choice(directories)}/{one}")
            if placed.path not in taken and not any(
                other.startswith(placed.path + "/") or placed.path.startswith(other + "/") for other in taken
            ):
                taken.add(placed.path)
                plans.append(placed)
    env = {}
    if r.random() < 0.6:
        env["LD_LIBRARY_PATH"] = _path_list(r, directories).replace(":", r.choice((":", ";")))
    if r.random() < 0.15:
        env["LD_PRELOAD"] = r.choice(names) if r.random() < 0.6 else "{D}/d0/" + r.choice(names)
    program = None
    if r.random() < 0.35:
        program = "bin/prog"
        plans.append(Plan(
            program, None, tuple(r.sample(names, r.randint(0, 1))), _path_list(r, directories), r.random() < 0.5,
            program=True,
        ))  # fmt: skip
    steps = []
    for _ in range(r.randint(1, 5)):
        one = r.choice(names)
        place = r.choice((
            one, one, f"{{D}}/{r.choice(directories)}/{one}", f"{r.choice(directories)}/{one}",
            f"./{r.choice(directories)}/{one}", f"$ORIGIN/{one}",
            f"{{D}}/{r.choice(directories)}/../{r.choice(directories)}/{one}",
        ))  # fmt: skip
        steps.append(f"{r.choice(('now', 'lazy', 'now-noload'))}:{place}")
    return Scenario(name, "search", tuple(plans), tuple(steps), env, program, r.choice(("{D}", "{D}/d0", "/tmp")))


def versions(r: random.Random, name: str) -> Scenario:
    """Symbol versions: missing, hidden, default, none at all; unversioned references; dlsym."""
    count = r.randint(1, 3)
    providers = [f"p{index}.so" for index in range(count)]
    labels = ["V1", "V2", "V3", "W1"]
    symbols = ["s", "t", "u", "w"]
    plans = []
    for one in providers:
        functions = []
        for symbol in symbols:
            if r.random() < 0.75:
                if r.random() < 0.7:
                    chosen = r.sample(labels, r.randint(1, 2))
                    functions += [
                        Function(symbol, label, hidden=k > 0 or r.random() < 0.3) for k, label in enumerate(chosen)
                    ]
                else:
                    functions.append(Function(symbol, binding=r.choice(("globl", "weak"))))
        seen: set[tuple[str, bool]] = set()
        kept = []
        for function in functions:
            key = (function.name, function.version is None or not function.hidden)
            if key not in seen:
                seen.add(key)
                kept.append(function)
        plans.append(Plan(one, one, (), "$ORIGIN", functions=tuple(kept)))
    users = [f"q{index}.so" for index in range(r.randint(1, 3))]
    for one in users:
        references = []
        needed = tuple(r.sample(providers, r.randint(1, count)))
        for symbol in r.sample(symbols, r.randint(1, 3)):
            version = r.choice((*labels, None, None))
            references.append(Reference(
                r.choice(("call", "got", "data")), symbol, r.random() < 0.2, version,
                r.choice(needed) if version else None,
            ))  # fmt: skip
        options = [
            option for option, chance in (("-z,now", 0.2), ("-z,pack-relative-relocs", 0.15)) if r.random() < chance
        ]
        libc = ("libc.so.6",) if r.random() < 0.3 else ()
        plans.append(Plan(
            one, one, (*needed, *libc), "$ORIGIN", r.random() < 0.5, tuple(options), references=tuple(references),
            relative=r.choice((0, 3)),
        ))  # fmt: skip
    env = {}
    if r.random() < 0.25:
        env["LD_PRELOAD"] = "{D}/" + r.choice(providers + users)
    if r.random() < 0.1:
        env["LD_BIND_NOW"] = "1"
    program = None
    if r.random() < 0.25:
        program = "prog"
        needed = tuple(r.sample(providers, r.randint(1, count)))
        references = (
            [Reference("got", r.choice(symbols), r.random() < 0.2, r.choice(labels), needed[0])]
            if r.random() < 0.6
            else []
        )
        plans.append(Plan(
            program, None, needed, "$ORIGIN", references=tuple(references),
            options=("--unresolved-symbols=ignore-all",), program=True,
        ))  # fmt: skip
    steps = _steps(r, providers + users, symbols, 5)
    return Scenario(name, "versions", tuple(plans), tuple(steps), env, program, "/tmp")


_NUMBERS = (
    0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 56, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 1 << 20, 1 << 31,
    (1 << 32) - 1, 1 << 40, 1 << 47, 1 << 62, 1 << 63, (1 << 64) - 1, (1 << 64) - 4096,
)  # fmt: skip


def _corruption(r: random.Random) -> tuple[Patch, ...]:
    def one() -> Patch:
        chance = r.random()
        if chance < 0.25:
            return Patch(f"file {r.randint(0, 15)}", r.choice((0, 1, 2, 3, 4, 64, 255, r.randint(0, 255))), 1)
        if chance < 0.5:
            offset, size = r.choice((
                (16, 2), (18, 2), (20, 4), (24, 8), (32, 8), (40, 8), (48, 4), (52, 2), (54, 2), (56, 2), (58, 2),
                (60, 2), (62, 2),
            ))  # fmt: skip
            return Patch(f"file {offset}", r.choice((*_NUMBERS, r.randint(0, 70))), size)
        if chance < 0.75:
            kind, index = r.choice(
                ((1, 0), (1, 1), (1, 2), (1, 3), (2, 0), (0x6474E551, 0), (0x6474E552, 0), (7, 0), (4, 0))
            )
            field = r.choice(("type", "flags", "offset", "vaddr", "filesz", "memsz", "align"))
            value = r.choice((*_NUMBERS, 0x1000 * r.randint(0, 8), r.randint(0, 0x6000)))
            return Patch(f"phdr {kind} {index} {field}", value)
        if chance < 0.87:
            tag = r.choice((
                1, 4, 5, 6, 7, 8, 9, 10, 11, 14, 20, 23, 2, 30,
                0x6FFFFEF5, 0x6FFFFFFB, 0x6FFFFFF9, 0x6FFFFFF9, 0x6FFFFFFE, 0x6FFFFFF0,
            ))  # fmt: skip
            return Patch(
                f"dyn {tag}" + (" tag" if r.random() < 0.4 else ""), r.choice((*_NUMBERS, 0x6FFFFFFB, 24, 30, 22, 0x16))
            )
        if chance < 0.97:
            return Patch(
                "cut",
                r.choice(
                    (0, 10, 40, 63, 64, 100, 400, 600, 831, 832, 833, 1000, 4096, 8192, 12288, r.randint(0, 14000))
                ),
                0,
            )
        return Patch("append", r.randint(1, 5000))

    return tuple(one() for _ in range(r.choice((1, 1, 1, 1, 2, 3))))


def corrupt(r: random.Random, name: str) -> Scenario:
    """Damaged files: every field of header, program headers and dynamic section, truncation; alone or needed."""
    plans = []
    names = []
    for index in range(r.randint(1, 3)):
        one = f"c{index}.so"
        names.append(one)
        variables = (Variable("v", 100, 8),) if r.random() < 0.5 else ()
        references = [Reference("call", "malloc"), Reference("data", f"f{index}")]
        if variables:
            references.append(Reference("ie", "v"))
        plans.append(Plan(
            one, one if r.random() < 0.8 else None, ("libc.so.6",) if r.random() < 0.4 else (), "$ORIGIN", True, (),
            variables, (Function(f"f{index}"),), tuple(references), _corruption(r), r.choice((0, 0, 2, 9)),
        ))  # fmt: skip
    if r.random() < 0.4:
        plans.append(Plan("top.so", "top.so", tuple(names), "$ORIGIN"))
        names.append("top.so")
    env = {"LD_PRELOAD": "{D}/" + names[0]} if r.random() < 0.15 else {}
    steps = [f"{r.choice(('now', 'lazy'))}:{{D}}/{one}" for one in r.sample(names, len(names))]
    program = None
    if r.random() < 0.1:
        program = "prog"
        plans.append(Plan(program, None, (r.choice(names),), "$ORIGIN", program=True))
    return Scenario(name, "corrupt", tuple(plans), tuple(steps), env, program, "/tmp")


def flags(r: random.Random, name: str) -> Scenario:
    """What a library asks for: executable stack, NOOPEN, NODELETE, PIE, text relocations, filters, processor levels."""
    names = [f"x{index}.so" for index in range(r.randint(1, 4))]
    plans = []
    for index, one in enumerate(names):
        options = [option for option in (
            "-z,execstack", "-z,nodlopen", "-z,nodelete", "-z,now", "-Bsymbolic", "-z,initfirst", "-z,nodefaultlib",
            "-z,global", "-z,relro", "-z,norelro", "-z,x86-64-v2", "-z,x86-64-v4", "-z,pack-relative-relocs",
            "-z,interpose", "-z,origin", "-z,combreloc", "-z,nocombreloc",
        ) if r.random() < 0.09]  # fmt: skip
        if r.random() < 0.12:
            options.append(f"{r.choice(('-f', '-F'))},{r.choice(names)}")
        patches: tuple[Patch, ...] = ()
        if r.random() < 0.08:
            patches = (Patch("phdr 0x6474e551 0 type", 0),)  # no PT_GNU_STACK
        references = [
            Reference(
                r.choice(("call", "got", "data")), r.choice((f"f{index}", "malloc", "f0", "nowhere")), r.random() < 0.3
            )
        ]
        references = [ref for ref in references if not (ref.weak and ref.name == f"f{index}")]
        plans.append(Plan(
            one, one, (*_edges(r, names, index, 0.4, 0.05), *(("libc.so.6",) if r.random() < 0.5 else ())), "$ORIGIN",
            r.random() < 0.5, tuple(options), (),
            (Function(f"f{index}"), *((Function("only", binding="unique"),) if r.random() < 0.2 else ())),
            tuple(references), patches, r.choice((0, 2)),
        ))  # fmt: skip
    env = {}
    if r.random() < 0.2:
        env["GLIBC_TUNABLES"] = f"glibc.rtld.execstack={r.choice((0, 1, 2))}"
    if r.random() < 0.2:
        env["LD_PRELOAD"] = "{D}/" + r.choice(names)
    program = None
    if r.random() < 0.3:
        program = "prog"
        asked = ("-z,execstack",) if r.random() < 0.15 else ("-z,now",) if r.random() < 0.2 else ()
        if r.random() < 0.1:
            asked, env["GLIBC_TUNABLES"] = ("-z,execstack",), "glibc.rtld.execstack=0"
        plans.append(Plan(
            program, None, tuple(r.sample(names, r.randint(0, min(2, len(names))))), "$ORIGIN", True, asked,
            program=True,
        ))  # fmt: skip
    targets = names + (["prog"] if program and r.random() < 0.4 else [])
    steps = _steps(r, targets, ["only", "f0", "f1"], 6)
    return Scenario(name, "flags", tuple(plans), tuple(steps), env, program, "/tmp")


def spaces(r: random.Random, name: str) -> Scenario:
    """Namespaces of their own: a second libc and its TLS, what they share and what not, how many there can be."""
    count = r.randint(1, 4)
    names = [f"n{index}.so" for index in range(count)]
    plans = []
    for index, one in enumerate(names):
        variables = tuple(Variable(f"v{index}_{k}", _size(r) // 3 + 1, _align(r)) for k in range(r.choice((0, 1, 1))))
        models = ("ie", "gd", "desc")
        references = [Reference(r.choices(models, (5, 2, 2))[0], variable.name) for variable in variables]
        references += [
            Reference(r.choice(("call", "got")), r.choice(("f0", "f1", "malloc", "nowhere")), r.random() < 0.4)
            for _ in range(r.choice((0, 1, 1)))
        ]
        references = [one for one in references if not (one.weak and one.name == f"f{index}")]
        libc = ("libc.so.6",) if r.random() < 0.6 else ()
        options = ("-z,nodelete",) if r.random() < 0.1 else ()
        plans.append(Plan(
            one, one if r.random() < 0.8 else None, (*_edges(r, names, index, 0.4, 0.05), *libc), "$ORIGIN", True,
            options, variables,
            (Function(f"f{index}"), *((Function("u", binding="unique"),) if r.random() < 0.2 else ())),
            tuple(references),
        ))  # fmt: skip
    env = {}
    if r.random() < 0.3:
        env["GLIBC_TUNABLES"] = _tunables(r)
    if r.random() < 0.2:
        env["LD_PRELOAD"] = "{D}/" + r.choice(names)
    steps: list[str] = []
    closable: list[int] = []
    opens: list[int] = []
    for number in range(1, r.randint(2, 7) + 1):
        chance = r.random()
        if closable and chance < 0.12:
            steps.append(f"close:{closable.pop(r.randrange(len(closable)))}")
        elif opens and chance < 0.25:
            steps.append(f"sym:{r.choice(opens)}:{r.choice(('f0', 'f1', 'v0_0', 'malloc', 'u'))}")
        else:
            mode = r.choice(("now-newns", "lazy-newns", "now-newns", "now", "lazy", "now-global", "now-global-newns"))
            steps.append(f"{mode}:{{D}}/{r.choice(names)}")
            opens.append(number)
            if "newns" not in mode:
                closable.append(number)
    return Scenario(name, "spaces", tuple(plans), tuple(steps), env, None, "/tmp")


# one fault each, so that every sentence of the loader is heard: what is patched, and how the victim is linked
_FAULTS: tuple[tuple[tuple[Patch, ...], tuple[str, ...]], ...] = (
    ((Patch("file 7", 9, 1),), ()),
    ((Patch("file 8", 1, 1),), ()),
    ((Patch("file 7", 3, 1), Patch("file 8", 4, 1)), ()),
    ((Patch("file 54", 57, 2),), ()),
    ((Patch("file 16", 1, 2),), ()),
    ((Patch("file 16", 4, 2),), ()),
    ((Patch("file 16", 2, 2),), ()),
    ((Patch("file 32", 1 << 20),), ()),
    ((Patch("phdr 1 1 align", 512),), ()),
    ((Patch("phdr 1 1 align", 0x1800),), ()),
    ((Patch("phdr 1 0 align", 1 << 47),), ()),
    ((Patch("phdr 1 1 vaddr", 0x1008),), ()),
    ((Patch("phdr 1 3 vaddr", 0x8000), Patch("phdr 1 1 vaddr", 0x6000)), ()),
    ((Patch("phdr 1 0 filesz", 0x8000), Patch("phdr 1 0 memsz", 0x8000)), ()),  # the first ends behind the last
    ((Patch("phdr 1 3 memsz", 1 << 44),), ()),
    ((Patch("phdr 1 3 memsz", 1 << 43),), ()),
    ((Patch("phdr 1 3 vaddr", (1 << 42) + 0x3000),), ()),  # behind a hole of 4 TiB
    ((Patch("phdr 1 3 memsz", 3 << 30),), ()),
    ((Patch("phdr 1 0 type", 0),) * 4, ()),  # no PT_LOAD is left
    ((Patch("phdr 2 0 type", 0),), ()),
    ((Patch("phdr 2 0 filesz", 0),), ()),
    ((Patch("dyn 0x6ffffffb", 0x8000001),), ("-z,now",)),
    ((Patch("dyn 20", 17),), ()),
    ((Patch("dyn 9", 23),), ()),
    ((Patch("dyn 8", (1 << 64) - (1 << 56)),), ()),
    ((Patch("dyn 8", (1 << 64) - (1 << 40)),), ()),
    ((Patch("dyn 0x6ffffff9", 8),), ()),
    ((Patch("table 0x6ffffef5 8", 3, 4),), ()),
    ((Patch("table 0x6ffffef5 4", 1 << 26, 4),), ()),  # symoffset: the chains lead to before the object
    ((Patch("table 0x6ffffef5 4", 5, 4),), ()),
    ((Patch("table 4 4", 1, 4),), ("--hash-style=sysv",)),  # nchain, which no loader looks at
    ((Patch("table 4 0", 40, 4),), ("--hash-style=sysv",)),  # nbucket
    ((Patch("table 4 8", 12, 4),), ("--hash-style=sysv",)),  # the first bucket
    ((Patch("table 0x6ffffffe 0", 2, 2),), ()),  # vn_version
    ((Patch("table 0x6ffffffe 8", 0x200, 4),), ()),  # vn_aux
    ((Patch("table 0x6ffffffe 20", 2, 2), Patch("table 0x6ffffffe 16", 77, 4)), ()),  # vna_flags: weak; vna_hash
    ((Patch("table 0x6ffffffe 16", 77, 4),), ()),
    ((Patch("table 0x6ffffffe 28", 1 << 30, 4),), ()),  # vna_next
    ((Patch("table 0x6ffffffe 16", 77, 4), Patch("table 0x6ffffffe 28", 1 << 30, 4)), ()),
    ((Patch("table 0x6ffffffe 4", 1, 4),), ()),  # vn_file
    ((Patch("table 0x6ffffffc 0", 2, 2),), ()),  # vd_version, of the provider
    ((Patch("kind 7 0", 300),), ()),
    ((Patch("kind 7 2", 64),), ()),
    ((Patch("kind 7 2", 10),), ()),  # R_X86_64_32
    ((Patch("kind 7 2", 2),), ()),  # R_X86_64_PC32
    ((Patch("kind 23 0", 5),), ()),
    ((Patch("kind 23 0", 99),), ()),
    ((Patch("phdr 0x6474e552 0 vaddr", 1 << 40), Patch("phdr 0x6474e552 0 memsz", 1 << 14)), ()),
    ((Patch("phdr 7 0 filesz", 4000),), ()),
    ((Patch("phdr 7 0 align", 4096),), ()),
    ((Patch("phdr 7 0 memsz", 9000),), ()),
    ((Patch("phdr 7 0 memsz", 1),), ()),  # less than its image
    ((), ("-z,execstack",)),
    ((), ("-z,nodlopen",)),
    ((), ("-z,pack-relative-relocs",)),
)  # fmt: skip
# the same, of what shows when a program starts
_START_FAULTS: tuple[tuple[Patch, ...], ...] = (
    (Patch("table 0x6ffffffe 20", 2, 2), Patch("table 0x6ffffffe 16", 77, 4)),  # vna_flags: weak; vna_hash
    (Patch("table 0x6ffffffe 16", 77, 4),),
    (Patch("phdr 7 0 filesz", 4000),),
    (Patch("dyn 0x6ffffffc tag", 0x6FFF0000), Patch("dyn 0x6ffffff0 tag", 0x6FFF0001)),  # the provider's versions
)  # fmt: skip


def faults(r: random.Random, name: str) -> Scenario:
    """One fault, alone: in what is opened, in what that needs, in a preload, or in what the program needs."""
    starts = r.random() < 0.08
    patches, options = (r.choice(_START_FAULTS), ()) if starts else r.choice(_FAULTS)
    provider = Plan("p.so", "p.so", functions=(Function("s", "V1"), Function("t", "V2")))
    if any("0x6ffffffc" in one.place for one in patches):
        provider, patches = provider._replace(patches=patches), ()
    victim = Plan(
        "x.so", "x.so", ("p.so", "libc.so.6"), "$ORIGIN", True, options, (Variable("v", 100, 8),), (Function("f"),),
        (Reference("data", "s", False, "V1", "p.so"), Reference("got", "t", False, "V2", "p.so"), Reference("ie", "v"),
         Reference("call", "malloc")),
        patches, relative=2,
    )  # fmt: skip
    top = Plan("top.so", "top.so", ("x.so",), "$ORIGIN")
    program = Plan("prog", None, ("x.so",), "$ORIGIN", program=True) if starts or r.random() < 0.25 else None
    env: dict[str, str] = {}
    if r.random() < 0.2:
        env["LD_PRELOAD"] = "{D}/x.so"
    if r.random() < 0.04:
        env["LD_AUDIT"] = ":".join(f"{{D}}/a{k}.so" for k in range(r.randint(11, 18)))
    if r.random() < 0.2:
        env["GLIBC_TUNABLES"] = r.choice((_tunables(r), f"glibc.rtld.execstack={r.choice((0, 2))}"))
    mode = r.choice(("now", "lazy"))
    steps = [f"{mode}:{{D}}/{r.choice(('x.so', 'top.so'))}", f"{r.choice(('now', 'lazy', 'now-noload'))}:{{D}}/x.so"]
    if r.random() < 0.04:
        steps = ["now-newns:{D}/p.so"] * 17
    elif r.random() < 0.04:
        env["LD_PRELOAD"], steps = "{D}/p.so", ["now:{D}/p.so", "close:1", "close:1"]
    plans = [provider, victim, top, *([program] if program else [])]
    return Scenario(name, "faults", tuple(plans), tuple(steps), env, "prog" if program else None, "/tmp")


_NOTES: tuple[Patch, ...] = (
    Patch("phdr 4 0 align", 4), Patch("phdr 4 0 vaddr", 1 << 40), Patch("phdr 4 0 memsz", 14),
    Patch("phdr 4 0 memsz", 1 << 20), Patch("phdr 4 0 type", 0), Patch("phdr 0x6474e553 0 type", 0),
    Patch("phdr 0x6474e553 0 type", 4), Patch("phdr 0x6474e553 0 vaddr", 1 << 40),
    Patch("phdr 0x6474e553 0 align", 4), Patch("inside 4 0 0", 5, 4), Patch("inside 4 0 8", 4, 4),
    *(Patch("inside 4 0 4", value, 4) for value in (4, 8, 12, 24, 1 << 20)),
    *(Patch("inside 4 0 16", value, 4) for value in (0, 0xC0008002, 0xC0008003, 0xFFFF0000)),
    *(Patch("inside 4 0 20", value, 4) for value in (0, 8, 64)),
)  # fmt: skip
"""Damage to a property note, and to what leads to it."""


def marks(r: random.Random, name: str) -> Scenario:
    """What libraries ask of the processor and the program: property notes, protected symbols, indirect functions."""
    names = [f"m{index}.so" for index in range(r.randint(1, 4))]
    plans = []
    for index, one in enumerate(names):
        shown = [None, None, "protected"]
        functions = (
            Function(f"g{index}", binding=r.choice(("ifunc", "globl")), visibility=r.choice(shown)),
            Function(f"p{index}", visibility=r.choice(("protected", "protected", None))),
            Function(
                f"d{index}", binding=r.choice(("object", "wide")), visibility=r.choice(("protected", "protected", None))
            ),
        )
        references = [
            Reference(r.choice(("got", "data", "data", "call")), f"g{r.choice(('p', *range(len(names))))}")
            for _ in range(r.choice((0, 1, 2, 3)))
        ]
        references = [ref._replace(weak=ref.name != f"g{index}" and r.random() < 0.6) for ref in references]
        asks = r.random()
        plans.append(Plan(
            one, one if r.random() < 0.8 else None, _edges(r, names, index, 0.4, 0.15), "$ORIGIN", True,
            ("-z,now",) if r.random() < 0.4 else (), (), functions, tuple(references),
            (r.choice(_NOTES),) if asks < 0.5 and r.random() < 0.4 else (),
            isa=r.choice((1, 3, 7, 0x80, 0x81)) if asks < 0.5 else 0, needed_1=int(r.random() < 0.5),
        ))  # fmt: skip
    program = None
    if r.random() < 0.6:
        program = "prog"
        chosen = tuple(r.sample(names, r.randint(1, len(names))))
        uses = [
            Reference(kind, f"{'p' if kind == 'address' else 'd'}{one[1]}", provider=one)
            for one in chosen for kind in ("address", "copy") if r.random() < 0.4
        ]  # fmt: skip
        plans.append(Plan(
            program, None, chosen, "$ORIGIN", True, ("-E", *(("-z,now",) if r.random() < 0.5 else ())), (),
            (Function("gp", binding="ifunc"),) if r.random() < 0.4 else (), tuple(uses), program=True,
            isa=r.choice((0, 0, 0, 1, 0x80)), needed_1=int(not uses and r.random() < 0.3),
        ))  # fmt: skip
    env = {}
    if r.random() < 0.2:
        env["LD_BIND_NOW"] = "1"
    if r.random() < 0.15:
        env["LD_PRELOAD"] = "{D}/" + r.choice(names)
    steps = [f"{r.choice(('now', 'lazy', 'now-global'))}:{{D}}/{one}" for one in r.sample(names, len(names))]
    if r.random() < 0.2:  # which of several is refused first
        plans = [one if one.program else one._replace(isa=0x80, patches=()) for one in plans]
    return Scenario(name, "marks", tuple(plans), tuple(steps), env, program, "/tmp")


MIX: tuple[tuple[Callable[[random.Random, str], Scenario], int], ...] = (
    (tls, 30), (graph, 15), (search, 15), (versions, 12), (corrupt, 20), (flags, 8),
)  # fmt: skip
FAMILIES = {family.__name__: family for family in (*(family for family, _ in MIX), spaces, faults, marks)}

TIMES = {"faults": 3}
"""How many scenarios of a family stand for one of another: each single fault is to be met often enough."""


def scenario(seed: int, number: int, family: str | None = None) -> Scenario:
    """Return the scenario of a seed and number, of a family chosen by chance or named."""
    r = random.Random(f"{seed}/{number}/{family}")
    make = FAMILIES[family] if family else r.choices([f for f, _ in MIX], [w for _, w in MIX])[0]
    return make(r, f"{seed}-{number}" + (f"-{family}" if family else ""))


def adapted(one: Scenario, target: Target) -> Scenario:
    """Return the scenario with the names that belong to x86-64 exchanged for those of another machine."""
    if target is AMD64:
        return one
    names = dict(zip(SUBDIRECTORIES, (*target.subdirectories, *SUBDIRECTORIES), strict=False))

    def moved(path: str) -> str:
        head, _, tail = path.partition("/")
        inside, _, name = tail.rpartition("/")
        return f"{head}/{names[inside]}/{name}" if inside in names else path

    loader = target.loader.rpartition("/")[2]
    plans = tuple(
        plan._replace(path=moved(plan.path), soname=loader if plan.soname == LOADER_NAME else plan.soname)
        for plan in one.plans
    )
    return one._replace(plans=plans)


def placed(one: Scenario) -> Scenario:
    """Return the scenario with `{D}` filled in everywhere."""

    def fill(text: str) -> str:
        return text.replace("{D}", one.directory)

    plans = tuple(
        plan._replace(
            needed=tuple(map(fill, plan.needed)),
            rpath=None if plan.rpath is None else fill(plan.rpath),
            references=tuple(
                ref._replace(provider=None if ref.provider is None else fill(ref.provider)) for ref in plan.references
            ),
        )
        for plan in one.plans
    )
    return one._replace(
        plans=plans,
        steps=tuple(map(fill, one.steps)),
        env={key: fill(value) for key, value in one.env.items()},
        cwd=fill(one.cwd),
    )
