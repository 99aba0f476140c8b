"""The real inputs of `dlwhy tls`: how each is had, and whom the answer must name; `real_evidence` checks all of it.

`python -m tests.attribute.real_inputs` takes every one of them and writes the table of docs/attribution.md.
What is expected was read in the sources of the libraries, or with the tools that the evidence names, never in dlwhy.
"""

from __future__ import annotations

import sys
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.attribute import real_checks
from tests.fixtures import registries

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEM = "/usr/lib/x86_64-linux-gnu"
CROSS = "/usr/aarch64-linux-gnu/lib"
FREE = ""
"""An owner or variable that nothing in the file or beside it can name."""


class Input(NamedTuple):
    """One file, and what must be said of it."""

    name: str
    get: Callable[[], Path]
    owner: str
    """Whose most of the bytes are; `FREE` in a stripped file."""
    variable: str = FREE
    """A part of the name of the largest variable."""
    trigger: str | tuple[str, ...] = FREE
    """Owner of an initial-exec variable, or how it begins, of several either; `FREE` where there is none."""
    functions: tuple[str, ...] = ()
    """Some that must be among those that use it."""
    path: Callable[[Path], tuple[str, ...]] | None = None
    """Who is asked why the bulk, or the file, is there; names and versions from first to last."""
    suspect: str = FREE
    """What it is known as."""
    map: str = FREE
    """Name of the linker's map beside the file."""
    sample: bool = True
    """Whether a small test run has it: it is quickly had and read."""

    @property
    def id(self) -> str:
        """What the test is called."""
        return self.name.replace(" ", "-")


def system(name: str) -> Callable[[], Path]:
    """A library of this Debian, by its name."""
    return lambda: existing(f"{SYSTEM}/{name}")


def existing(pattern: str) -> Path:
    """Return the file that a pattern names; skips the test without one."""
    found = sorted(glob(pattern))
    if not found:
        pytest.skip(f"not run: no {pattern} here")
    return Path(found[0])


def within(place: Path, pattern: str) -> Path:
    """Return the one file below a directory."""
    return existing(f"{place}/{pattern}")


def debian(path: Path) -> tuple[str, ...]:
    """What dpkg says."""
    from tests.attribute.real_evidence import debian_path

    return debian_path(path)


def cargo(path: Path) -> tuple[str, ...]:
    """What cargo says of rand in `valet`."""
    from tests.attribute.real_evidence import cargo_path

    return cargo_path(path.parents[2], "rand@0.6.5", "valet")


def go(path: Path) -> tuple[str, ...]:
    """What go says."""
    from tests.attribute.real_evidence import go_path

    return go_path(path)


def wheel(path: Path) -> tuple[str, ...]:
    """What Python's list of installed files says."""
    from tests.attribute.real_evidence import wheel_path

    root = next(one for one in path.parents if list(one.glob("*.dist-info")))
    return wheel_path(root, path)


def npm(path: Path) -> tuple[str, ...]:
    """What npm says."""
    from tests.attribute.real_evidence import npm_path

    return npm_path(path)


TOOLS: dict[Callable[[Path], tuple[str, ...]], str]
TOOLS = {debian: "dpkg-query", cargo: "cargo tree", go: "go version -m", wheel: "importlib.metadata", npm: "npm pkg"}

CXX = """
#include <string>
namespace engine {
struct Cache { char room[3000]; std::string last; Cache(); };
thread_local Cache cache;
thread_local std::string label = "none";
Cache::Cache() : room(), last("first") {}
const char *name() { return label.c_str(); }
char *room(int i) { return &cache.room[i]; }
}
"""
RUST = """
use std::cell::RefCell;
thread_local! { static PARLOUR: RefCell<([u64; 400], Vec<u64>)> = RefCell::new(([1; 400], vec![0; 512])); }
#[no_mangle] pub extern "C" fn touch(i: usize) -> u64 {
    PARLOUR.with(|s| { s.borrow_mut().1.push(1); let t = s.borrow(); t.0[i % 400] + t.1.len() as u64 })
}
"""
PROGRAM = {
    "main.c": "static __thread char desk[2000]; char *work(int); int main(int n, char **v) { (void)v; desk[n] = 1; "
              "return *work(n) + desk[0]; }\n",
    "cellar.c": "static __thread char cellar[4000]; extern __thread int tally; int innocent(void) { return tally; }\n"
                "char *work(int n) { tally += n; return &cellar[n]; }\n",
    "tally.c": '__thread int tally __attribute__((tls_model("initial-exec"))); int count(void) { return tally; }\n',
}  # fmt: skip


def cxx(compiler: str, *options: str) -> Callable[[], Path]:
    """C++ objects with constructors, thread-local: each access goes through a function that sees to them."""
    words = (compiler, "-O1", "-shared", "-fPIC", *options, "a.cc", "-o", "libengine.so")
    return lambda: registries.made("cxx", {"a.cc": CXX}, words, result="libengine.so")


def rust(*more: str, target: str = "") -> Callable[[], Path]:
    """A cdylib of one source with `thread_local!`."""
    words: tuple[str, ...] = ("rustc", "-O", "--crate-type=cdylib", "--crate-name=parlour")
    words += (f"--target={target}", "-Clinker=aarch64-linux-gnu-gcc") if target else ()
    commands = ((*words, "a.rs", "-o", "libparlour.so"), *((word, "-s", "libparlour.so") for word in more))
    return lambda: registries.made("rust", {"a.rs": RUST}, *commands, result="libparlour.so")


def linked(linker: str, *, program: bool) -> Callable[[], Path]:
    """Three sources, one of them in an archive, linked by each of the four with a map; then stripped."""
    kind = ("-pie",) if program else ("-shared", "-Wl,-u,work")
    compiled = ("gcc", "-O1", "-fPIC", "-c", *(PROGRAM if program else tuple(PROGRAM)[1:]))
    first = "main.o" if program else "cellar.o"
    commands = (
        compiled, ("ar", "rc", "libparts.a", "tally.o", *(("cellar.o",) * program)),
        ("gcc", *kind, f"-fuse-ld={linker}", "-Wl,-Map=map", first, "libparts.a", "-o", "linked"),
        ("strip", "-s", "linked"),
    )  # fmt: skip
    return lambda: registries.made(f"linked-{linker}", PROGRAM, *commands, result="linked")


def rustc_driver() -> Path:
    """The Rust compiler's own library."""
    root = registries.run([registries.tool("rustc"), "--print", "sysroot"], Path("/")).strip()
    return existing(f"{root}/lib/librustc_driver-*.so")


def _wheel(name: str, pattern: str) -> Callable[[], Path]:
    return lambda: within(registries.wheel(name), pattern)


def _npm(name: str) -> Callable[[], Path]:
    return lambda: within(registries.npm(name), "*.node")


def _deb(package: str, file: str) -> Callable[[], Path]:
    return lambda: registries.debian(package, f"usr/lib/x86_64-linux-gnu/{file}", "amd64")


def _arm(package: str, file: str) -> Callable[[], Path]:
    return lambda: registries.debian(package, f"usr/lib/aarch64-linux-gnu/{file}")


GO = ("runtime.casgstatus", "runtime.gcStart")
"""Functions of Go's runtime that ask which goroutine runs (runtime/proc.go, runtime/mgc.go: getg)."""
JEMALLOC = ("malloc", "free", "mallocx")
"""Exported functions that fetch the thread's data (jemalloc.c: tsd_fetch)."""
MIMALLOC = ("mi_malloc_small", "mi_zalloc")
"""Exported functions that fetch the thread's heap (alloc.c: mi_prim_get_default_heap)."""
TCMALLOC = ("tcmalloc::ThreadCache::CreateCacheIfNecessary()",)
"""Exported too (thread_cache.cc)."""
GOMP = ("GOMP_target_ext", "omp_set_nest_lock", "GOACC_data_start")
"""Exported functions that look at their own thread (libgomp: gomp_thread, gomp_icv)."""
INPUTS = (
    Input("libjemalloc2 of Debian", system("libjemalloc.so.2"), FREE, FREE, "libjemalloc.so.2", JEMALLOC, debian,
          "jemalloc"),
    Input("libgomp1 of Debian", system("libgomp.so.1"), FREE, FREE, "libgomp.so.1", GOMP, debian, "libgomp"),
    Input("libtcmalloc of Debian", system("libtcmalloc.so.4"), FREE, "tcmalloc::ThreadCache::threadlocal_data_",
          "libtcmalloc.so.4", TCMALLOC, debian, "tcmalloc-gperftools"),
    Input("libmimalloc of Debian", system("libmimalloc.so.2"), FREE, FREE, "libmimalloc.so.2", MIMALLOC, debian,
          "mimalloc"),
    Input("libGL of Debian", _deb("libgl1", "libGL.so.1"), FREE, FREE,
          ("libGLdispatch.so.0", "another library"), ("glAccum", "glBegin")),
    Input("libGLdispatch of Debian", _deb("libglvnd0", "libGLdispatch.so.0"), "libGLdispatch.so.0",
          "_glapi_tls_Current", "libGLdispatch.so.0", ("code that nothing names",), suspect="libglvnd"),
    Input("Go c-shared", registries.butler, "Go runtime", "runtime.tlsg", "Go runtime", GO, go, "go-runtime"),
    Input("Rust cdylib with a Go c-archive", registries.household, "rand", "THREAD_RNG_KEY", "Go runtime", GO, cargo,
          "rust-rand"),
    Input("Rust cdylib with a Go c-archive, stripped", lambda: registries.household("stripped"), FREE, FREE,
          "Go runtime", GO, go),
    Input("Rust cdylib, thread_local!", rust(), "parlour", "parlour::PARLOUR"),
    Input("Rust cdylib, thread_local!, stripped", rust("strip"), FREE),
    Input("rand 0.6.5 through backoff 0.1.6", registries.valet, "rand", "THREAD_RNG_KEY", path=cargo,
          suspect="rust-rand"),
    Input("rand 0.6.5 through backoff 0.1.6, stripped", lambda: registries.valet("stripped"), FREE),
    Input("rand 0.6.5 through backoff 0.1.6, with .dep-v0", lambda: registries.valet("auditable"), "rand",
          "THREAD_RNG_KEY", path=cargo, suspect="rust-rand"),
    Input("C++ thread_local objects", cxx("g++"), "engine", "engine::cache"),
    Input("C++ thread_local objects, initial-exec", cxx("g++", "-ftls-model=initial-exec"), "engine",
          "engine::cache", "engine", ("engine::room(int)", "__tls_init")),
    *(Input(f"a program, stripped, with the map of {linker}", linked(linker, program=True), "libparts.a", "cellar",
            map="map") for linker in ("bfd", "gold", "lld", "mold")),
    *(Input(f"a library, stripped, with the map of {linker}", linked(linker, program=False), "cellar.o", "cellar",
            "libparts.a", map="map") for linker in ("bfd", "gold", "lld", "mold")),
    Input("scikit-learn: libgomp", _wheel("scikit-learn", "scikit_learn.libs/libgomp-*"), FREE, FREE, "libgomp-",
          GOMP[2:], wheel, "libgomp"),
    Input("numpy", _wheel("numpy", "numpy/_core/_multiarray_umath.*"), "dragon4.c", "_bigint_static", path=wheel,
          sample=False),
    Input("numpy: OpenBLAS", _wheel("numpy", "numpy.libs/libscipy_openblas64_-*"), "gemv_thread.c", "y_dummy",
          path=wheel, suspect="openblas", sample=False),
    Input("scipy: HiGHS", _wheel("scipy", "scipy/optimize/_highspy/_core.*"), "HighsTaskExecutor",
          "HighsTaskExecutor::globalExecutorHandle", path=wheel, sample=False),
    Input("scipy: pocketfft", _wheel("scipy", "scipy/fft/_pocketfft/pypocketfft.*"), "pocketfft", "pocketfft::detail::",
          path=wheel, sample=False),
    Input("polars", _wheel("polars-runtime-32", "_polars_runtime_32/_polars_runtime.abi3.so"), "jemalloc",
          "_rjem_je_tsd_tls", path=wheel, suspect="jemalloc", sample=False),
    Input("pyarrow", _wheel("pyarrow", "pyarrow/libarrow.so.*"), "opentelemetry", "NextRetryTime", path=wheel,
          suspect="mimalloc", sample=False),
    Input("pyarrow: S3", _wheel("pyarrow", "pyarrow/libarrow_s3.so.*"), "Aws", "Aws::Utils::GetRandomValue", path=wheel,
          sample=False),
    Input("@next/swc", _npm("@next/swc-linux-x64-gnu"), FREE, path=npm, sample=False),
    Input("lightningcss", _npm("lightningcss-linux-x64-gnu"), FREE, path=npm),
    Input("@rollup/rollup", _npm("@rollup/rollup-linux-x64-gnu"), FREE, path=npm, sample=False),
    Input("librustc_driver", rustc_driver, "rustc_attr_parsing", "STATE_OBJECT", "rustc_", sample=False),
    Input("libgomp of gcc for aarch64", lambda: existing(f"{CROSS}/libgomp.so.1"), FREE, FREE, "libgomp.so.1", GOMP,
          debian, "libgomp"),
    Input("C++ thread_local objects, aarch64", cxx("aarch64-linux-gnu-g++"), "engine", "engine::cache"),
    Input("C++ thread_local objects, initial-exec, aarch64", cxx("aarch64-linux-gnu-g++", "-ftls-model=initial-exec"),
          "engine", "engine::cache", "engine", ("engine::room(int)", "__tls_init")),
    Input("Go c-shared, aarch64", lambda: registries.butler(machine="arm64"), "Go runtime", "runtime.tls_g",
          "Go runtime", ("runtime.load_g.abi0", "runtime.save_g.abi0"), go, "go-runtime"),
    Input("Rust cdylib, aarch64", rust(target="aarch64-unknown-linux-gnu"), "parlour", "parlour::PARLOUR"),
    Input("libjemalloc2 of Debian, arm64", _arm("libjemalloc2", "libjemalloc.so.2"), FREE, FREE, "libjemalloc.so.2",
          JEMALLOC, suspect="jemalloc", sample=False),
    Input("libtcmalloc of Debian, arm64", _arm("libtcmalloc-minimal4", "libtcmalloc_minimal.so.4"), FREE, FREE,
          "tcmalloc", TCMALLOC, suspect="tcmalloc-gperftools", sample=False),
    Input("libmimalloc of Debian, arm64", _arm("libmimalloc2.0", "libmimalloc.so.2.0"), FREE, FREE,
          "libmimalloc.so.2", MIMALLOC, suspect="mimalloc", sample=False),
    Input("libGLdispatch of Debian, arm64", _arm("libglvnd0", "libGLdispatch.so.0"), "libGLdispatch.so.0",
          "_glapi_tls_Current", "libGLdispatch.so.0", suspect="libglvnd", sample=False),
    Input("libGL of Debian, arm64", _arm("libgl1", "libGL.so.1"), FREE, sample=False),
)  # fmt: skip


def checked(one: Input) -> real_checks.Checked:
    """Ask of one input and compare all of the answer. Raises `AssertionError` where anything differs."""
    path = one.get()
    found = real_checks.asked(path, one.map)
    size = real_checks.sizes(found, path)
    tools = real_checks.triggers(found, path)
    bill = found.tls
    first = bill.owners[0] if bill and bill.owners and one.owner else None
    assert (first.owner if first else FREE) == one.owner
    if first is not None:
        assert one.variable in (first.variable or one.variable)
    owners = {trigger.owner for trigger in found.triggers}
    assert any(owner.startswith(one.trigger) for owner in owners) if one.trigger else not owners
    named = {name for trigger in found.triggers for name in trigger.functions}
    wanted = set(one.functions)
    assert wanted <= named, wanted - named
    way: tuple[str, ...] = ()
    if one.path is not None and bill is not None:
        way = one.path(path)
        assert way
        real_checks.way(bill, way)
    suspects = [known.id for known in bill.suspects] if bill else []
    assert one.suspect in suspects or not one.suspect
    if one.path is not None:
        tools += (TOOLS[one.path],)
    return real_checks.row(found, size, one.functions, way, tools)


HEAD = """| input | p_memsz | most bytes | forced by | functions, among them | why it is there | compared with |
|---|---|---|---|---|---|---|
"""
MARKS = ("<!-- real inputs: python -m tests.attribute.real_inputs -->", "<!-- end of real inputs -->")


def main() -> int:
    """Check every input, and write the table of docs/attribution.md; the exit status says whether all agreed."""
    rows, failed = [], 0
    for one in INPUTS:
        try:
            row = checked(one)
        except pytest.skip.Exception as skipped:
            failed += 1
            print(f"{one.name}: {skipped}", file=sys.stderr)
            continue
        except AssertionError as error:
            failed += 1
            print(f"{one.name}: differs: {error!r}", file=sys.stderr)
            continue
        rows.append(f"| {one.name} | {row.size:,} | " + " | ".join(row[1:]) + " |")
        print(rows[-1], flush=True)
    page = Path(__file__).parents[2] / "docs/attribution.md"
    before, start, rest = page.read_text("utf-8").partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not failed and start and end:
        page.write_text(f"{before}{start}\n{HEAD}" + "\n".join(rows) + f"\n{end}{after}", "utf-8")
    return failed


if __name__ == "__main__":
    sys.exit(main())
