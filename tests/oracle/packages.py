"""Files that people really load, in programs that load them: Debian packages, wheels and npm packages, times hosts.

Everything is unpacked into one root below the cache (this machine's own suite; nothing is installed) and entered by
chroot. Each shared object is opened in a fresh process of `plain`, of the program that it is made for, and of one that
it is not made for; by path and by soname; and once more with one of the libraries that came along taken away.
Any dynamic program becomes a host by `plain.c` compiled as a library for LD_PRELOAD (see there).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import lzma
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import traceback
import urllib.error
import zipfile
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from fcntl import LOCK_EX, flock
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import dlwhy
from dlwhy.errors import DlwhyError
from dlwhy.files import Files
from dlwhy.loader.objects import Objects
from tests.oracle import compare, real
from tests.oracle.scenarios import Scenario
from tests.oracle.sysroots import Index, archive, cache, make_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WHEELS, NODE_MODULES = "/opt/wheels", "/opt/node_modules"
SHIM = "/opt/shim.so"
WORK = Path("/tmp/dlwhy-packages")
LOADER_LIMIT = 120
"""Seconds for one question to dlwhy, of which each should take well below one."""


class Group(NamedTuple):
    """Packages whose shared objects are opened, and where."""

    name: str
    kind: str
    """"deb", "wheel" or "npm"."""
    packages: str
    """Names, parted by spaces; patterns of the names of Debian packages, because suites number them."""
    host: str
    """The program that loads them: a pattern of its path inside the root."""
    wrong: str
    """A program that does not."""
    needs: str = ""
    """Debian packages, as above, that bring the two programs."""


_PYTHON, _NODE, _PERL = "/usr/bin/python3", "/usr/bin/node", "/usr/bin/perl"
SAMPLE = (
    Group("PAM", "deb", "libpam-modules", "/usr/bin/su", _PYTHON, "util-linux python3-minimal"),
    Group("Perl", "deb", r"libperl5\.\d+", _PERL, "/usr/bin/su", "perl util-linux"),
    Group("a wheel", "wheel", "markupsafe", _PYTHON, _PERL, "python3-minimal perl"),
    Group("an npm package", "npm", "bcrypt", _NODE, _PYTHON, "nodejs python3-minimal"),
)  # fmt: skip
GROUPS = (
    Group("gstreamer", "deb", r"gstreamer1\.0-plugins-(base|good)",
          "/usr/bin/gst-launch-1.0", _PERL, r"gstreamer1\.0-tools perl"),
    Group("apache", "deb", "apache2-bin libaprutil1-dbd-.*",
          "/usr/sbin/apache2", _PYTHON, "python3-minimal"),
    Group("php", "deb", r"php8\.\d+-(opcache|common|mbstring|xml|gd|mysql|intl|curl|sqlite3|pgsql|zip|bz2)",
          "/usr/bin/php8.*", "/usr/sbin/apache2", r"php8\.\d+-cli apache2-bin"),
    Group("perl", "deb", r"libperl5\.\d+ perl-base libdbd-sqlite3-perl libxml-libxml-perl libjson-xs-perl",
          _PERL, "/usr/bin/ruby3.*", r"perl ruby3\.\d+"),
    Group("ruby", "deb", r"libruby3\.\d+ ruby-nokogiri ruby-ffi ruby-bcrypt ruby-sqlite3",
          "/usr/bin/ruby3.*", _PERL, r"ruby3\.\d+ perl"),
    Group("R", "deb", "r-base-core r-cran-(rcpp|mass|lattice|nnet|matrix|mgcv)",
          "/usr/lib/R/bin/exec/R", _PYTHON, "python3-minimal"),
    Group("postgresql", "deb", r"postgresql-\d+ postgresql-pl(python3|perl|tcl)-\d+",
          "/usr/lib/postgresql/*/bin/postgres", _PERL, "perl"),
    Group("gimp", "deb", r"gimp libgimp2\.0 libgegl-0\.4-0 libbabl-0\.1-0",
          "/usr/bin/gimp-2.*", _PYTHON, "python3-minimal"),
    Group("vlc", "deb", "vlc-plugin-base vlc-plugin-video-output libvlccore9",
          "/usr/bin/vlc", "/usr/bin/gst-launch-1.0", r"vlc-bin gstreamer1\.0-tools"),
    Group("openjdk", "deb", r"openjdk-\d+-jre-headless",
          "/usr/lib/jvm/java-*-openjdk-amd64/bin/java", _NODE, "nodejs"),
    Group("qemu", "deb", "qemu-system-x86 qemu-system-gui qemu-block-extra qemu-system-common",
          "/usr/bin/qemu-system-x86_64", _PYTHON, "python3-minimal"),
    Group("qt", "deb", "libqt5gui5 libqt5network5 libqt5sql5-sqlite qml-module-qtquick2 qml-module-qtquick-controls",
          "/usr/lib/qt5/bin/qmlscene", "/usr/bin/vlc", "qmlscene vlc-bin"),
    Group("python", "deb", r"python3-(numpy|lxml|pil|cryptography|yaml|psycopg2|dbus|gi) libpython3\.\d+-stdlib",
          _PYTHON, _PERL, "python3-minimal perl"),
    Group("collectd", "deb", "collectd-core",
          "/usr/sbin/collectd", _PERL, "perl"),
    Group("nginx", "deb", "libnginx-mod-(http-.*|stream.*|mail)",
          "/usr/sbin/nginx", "/usr/sbin/apache2", "nginx apache2-bin"),
    Group("iptables", "deb", "iptables",
          "/usr/sbin/xtables-nft-multi", _PYTHON, "python3-minimal"),
    Group("PAM and NSS", "deb", "libpam-modules libsasl2-modules libnss-.*",
          "/usr/bin/su", _PYTHON, "util-linux python3-minimal"),
    Group("C library", "deb", "libc6",
          "/usr/bin/iconv", _PERL, "libc-bin perl"),
    Group("samba", "deb", "samba-vfs-modules",
          "/usr/sbin/smbd", _PERL, "samba perl"),
    *(Group(name, "wheel", name, _PYTHON, _PERL, "python3-minimal perl") for name in (
        "numpy", "scipy", "pandas", "pyarrow", "grpcio", "opencv-python-headless", "lxml", "cryptography", "pillow",
        "pyzmq", "h5py", "onnxruntime", "scikit-learn", "psycopg2-binary", "uvloop", "tokenizers",
        "jaxlib", "polars-runtime-32", "xgboost", "faiss-cpu")),
    *(Group(name, "npm", name, _NODE, _PYTHON, "nodejs python3-minimal") for name in (
        "@img/sharp-linux-x64 @img/sharp-libvips-linux-x64", "@swc/core-linux-x64-gnu", "bcrypt", "onnxruntime-node",
        "sodium-native", "zeromq", "@napi-rs/canvas-linux-x64-gnu", "@duckdb/node-bindings-linux-x64",
        "@rollup/rollup-linux-x64-gnu", "lightningcss-linux-x64-gnu", "@parcel/watcher-linux-x64-glibc",
        "@libsql/linux-x64-gnu", "@serialport/bindings-cpp", "@node-rs/argon2-linux-x64-gnu",
        "@tailwindcss/oxide-linux-x64-gnu", "@oxc-parser/binding-linux-x64-gnu", "@napi-rs/snappy-linux-x64-gnu")),
)  # fmt: skip


class Run(NamedTuple):
    """One process: what was asked of it, and what came of it."""

    group: str
    file: str
    host: str
    """"plain", "natural" or "wrong"."""
    way: str
    """"path", "name", "without NAME" of the library taken away, "closed" after it was opened, "preloaded", or
    "together with N" others in one process."""
    outcome: str
    """What really happened: "loads", "fails", "dies" or "no start"."""
    verdict: str
    """"agrees", "undecided", "explained" or "differs"."""
    words: str
    """What the loader said, the missing fact, the cause or the differences."""


def _suite() -> str:
    """The suite of this machine."""
    found = re.search(r"(?m)^VERSION_CODENAME=\"?([a-z]+)", Path("/etc/os-release").read_text("utf-8"))
    if found is None:
        raise OSError("/etc/os-release names no suite")
    return found[1]


def fetched(command: list[str | Path], directory: Path, pattern: str) -> Path:
    """Return the file that a registry's client puts into a directory, kept from then on. Raises `OSError`."""
    if not list(directory.glob(pattern)):
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=1200)
        if done.returncode:
            raise OSError(f"{command[-1]}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
    return next(directory.glob(pattern))


def fetch_wheel(name: str, python: str, machine: str = "x86_64") -> Path:
    """The newest wheel of a name for a release of Python, kept in the cache. Raises `OSError`."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(36, 4, -1)]
    kept = f"{name}-{python}" if machine == "x86_64" else f"{name}-{python}-{machine}"
    return fetched(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-cache-dir",
         "--implementation=cp", f"--python-version={python}", *platforms, f"--platform=manylinux2014_{machine}",
         f"--platform=manylinux1_{machine}", name],
        cache() / "wheels" / kept, "*.whl",
    )  # fmt: skip


def _wheel(name: str, root: Path) -> str:
    """Unpack a wheel for the root's Python; its version."""
    file = fetch_wheel(name, os.readlink(root / "usr/bin/python3").removeprefix("python"))
    with zipfile.ZipFile(file) as wheel:
        wheel.extractall(f"{root}{WHEELS}")
        listed = [f"{WHEELS}/{one}" for one in wheel.namelist() if not one.endswith("/")]
    (root / "packages" / name).write_text("".join(f".{one}\n" for one in listed))
    return file.name.split("-")[1]


def fetch_npm(name: str) -> Path:
    """The newest archive of an npm package, kept in the cache. Raises `OSError`."""
    plain = name.replace("@", "").replace("/", "-")
    return fetched(["npm", "pack", "--silent", name], cache() / "npm" / plain, "*.tgz")


def _npm(name: str, root: Path) -> str:
    """Unpack an npm package; its version."""
    plain = name.replace("@", "").replace("/", "-")
    file = fetch_npm(name)
    place = Path(f"{root}{NODE_MODULES}/{name}")
    place.mkdir(parents=True)
    listed = []
    with tarfile.open(file) as tar:
        for member in tar.getmembers():
            inside = member.name.partition("/")[2]
            if member.isfile() and inside:
                target = place / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                data = tar.extractfile(member)
                assert data is not None
                target.write_bytes(data.read())
                listed.append(f".{NODE_MODULES}/{name}/{inside}\n")
    (root / "packages" / plain).write_text("".join(listed))
    version: str = json.loads((place / "package.json").read_text("utf-8"))["version"]
    return version


def _shim(root: Path) -> None:
    """Compile the library that turns a program of this root into a host."""
    target = Path(f"{root}{SHIM}")
    target.parent.mkdir(parents=True, exist_ok=True)
    command: list[str | Path] = [
        "gcc", "-DSHIM", "-O1", "-shared", "-fPIC", "-nostdlib", "-fvisibility=hidden", "-Wl,-z,now", "-o", target,
        real.HERE / "plain.c", *real.libc_files(root),
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)


def _add(groups: Iterable[Group], versions: dict[str, str], root: Path) -> None:
    """What make_root adds to the Debian packages."""
    for group in groups:
        for name in group.packages.split() if group.kind != "deb" else ():
            versions[name] = (_wheel if group.kind == "wheel" else _npm)(name, root)
    _shim(root)
    # the links of update-alternatives(1), which only a package's own script makes
    directories = [one for one in ("blas", "lapack") if (root / real.LIB / one).is_dir()]
    text = "".join(f"/usr/{real.LIB}/{one}\n" for one in directories)
    (root / "etc/ld.so.conf.d/alternatives.conf").write_text(text)
    (root / "packages/VERSIONS.json").write_text(json.dumps(versions))


@functools.cache
def packages_root(groups: tuple[Group, ...]) -> tuple[Path | None, str]:
    """(a root that holds the packages of all groups, "") or (None, why it cannot be had)."""
    if os.geteuid() != 0:
        return None, "not run: only root may chroot"
    try:
        suite = _suite()
        if archive() is None:
            return None, "not run: not reachable: apt's configuration names no Debian archive"
        content = [(one.kind, one.packages, one.needs) for one in groups], (real.HERE / "plain.c").read_bytes()
        tag = hashlib.sha256(repr(content).encode()).hexdigest()[:12]
        root = cache() / "sysroots" / f"packages-{suite}-{tag}"
        root.parent.mkdir(parents=True, exist_ok=True)
        with Path(f"{root}.lock").open("w") as lock:
            flock(lock, LOCK_EX)
            if not root.is_dir():
                index = Index(suite)
                wanted = index.matching(" ".join(f"{one.needs} {one.packages * (one.kind == 'deb')}" for one in groups))
                versions = {name: index.version(name) for name in wanted}
                make_root(root, index, index.closure(wanted), functools.partial(_add, groups, versions))
    except (OSError, urllib.error.URLError, subprocess.SubprocessError, lzma.LZMAError) as error:
        return None, f"not run: not reachable: {error}"
    return root, ""


def versions(root: Path) -> dict[str, str]:
    """Name -> version of what was asked for."""
    found: dict[str, str] = json.loads((root / "packages/VERSIONS.json").read_text())
    return found


def packages(group: Group, root: Path) -> list[str]:
    """The names of a group's packages."""
    if group.kind != "deb":
        return group.packages.split()
    return [one for one in versions(root) if any(re.fullmatch(each, one) for each in group.packages.split())]


def files(group: Group, root: Path) -> list[str]:
    """The shared objects of a group, as seen inside the root: regular ELF files by the names of such."""
    found = dict[str, None]()
    for name in packages(group, root):
        listed = root / "packages" / (name if group.kind != "npm" else name.replace("@", "").replace("/", "-"))
        for line in listed.read_text("utf-8", "surrogateescape").splitlines():
            path = line.removeprefix(".")
            outside = f"{root}{path}"
            if (".so" in path or path.endswith(".node")) and os.path.isfile(outside) and not os.path.islink(outside):
                with open(outside, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        found[path] = None
    return sorted(found)


def _program(pattern: str, root: Path) -> str:
    """The path inside the root of a host."""
    found = sorted(root.glob(pattern.lstrip("/")))
    if not found:
        raise OSError(f"{root} has no {pattern}")
    return str(found[-1]).removeprefix(str(root))


def scenario(
    root: Path, group: Group, host: str, *steps: str, library_path: str | None = None, preload: str | None = None
) -> Scenario:
    """The question: which program, with which environment, opens what."""
    env = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "LC_ALL": "C"}
    if library_path is not None:
        env["LD_LIBRARY_PATH"] = library_path
    program = None
    if host != "plain":
        program = _program(group.host if host == "natural" else group.wrong, root)
        env |= {"DLWHY_STEPS": f"{WORK}/steps", "DLWHY_REPORT": f"{WORK}/report"}
        env["LD_PRELOAD"] = f"{SHIM}:{preload}" if preload else SHIM
    return Scenario(group.name, group.kind, (), steps, env, program, "/tmp")


def observe(one: Scenario, root: Path, words: tuple[int, int] | None) -> real.RealRun:
    """Run it in the real loader."""
    if one.program is None:
        return real.run(root, list(one.steps), one.env, one.cwd, WORK, words)
    report = real.ready(Path(f"{root}{WORK}"), list(one.steps))
    env = dict(one.env)
    if words:
        env |= {"DLWHY_USED": str(words[0]), "DLWHY_OPTIONAL": str(words[1])}
    with real.proc(root, Path(one.program)):
        status, stderr = real.spawn(root, [one.program], Path(one.program), env, one.cwd)
    return real.read(report, status, stderr)


def predict(one: Scenario, root: Path) -> dlwhy.CheckReport:
    """Ask dlwhy."""
    if one.program is None:
        return dlwhy.check(list(one.steps), dlwhy.Host.plain(one.env), sysroot=str(root), cwd=one.cwd)
    host = dlwhy.Host.executable(one.program, one.env)
    return dlwhy.check(list(one.steps), host, sysroot=str(root), cwd=one.cwd, caller=SHIM)


def _explanation(one: Scenario, root: Path, seen: real.RealRun, said: dlwhy.CheckReport) -> str | None:
    """Whether the first difference came when the loader had done what was predicted, and run code of a library."""
    debug = observe(one._replace(env={**one.env, "LD_DEBUG": "files"}), root, None).stderr
    start = said.host.startup
    if not seen.started or seen.start_maps[1:] != start.loaded[1:]:
        outcome, loaded, more = start.outcome, start.loaded[1:], seen.start_maps[len(start.loaded) :]
        if more and seen.start_maps[1 : len(start.loaded)] != loaded:
            return None
    else:
        pairs = [pair for pair in zip(said.steps, seen.steps, strict=False)
                 if (pair[0].outcome, pair[0].loaded) != (pair[1].outcome, pair[1].loaded)]  # fmt: skip
        if not pairs:
            return None
        mine, theirs = pairs[0]
        outcome, loaded, more = mine.outcome, mine.loaded, theirs.loaded[len(mine.loaded) :]
        ended = any(b"calling fini: " + os.fsencode(name) + b" [0]" in debug for name in mine.unloaded)
        if (outcome, theirs.outcome) == ("loads", "dies") and mine.request.startswith("close:") and ended:
            return "a destructor ends the process"
        if theirs.outcome != "dies" and (theirs.outcome != "loads" or theirs.loaded[: len(loaded)] != loaded):
            return None
    if outcome != "loads":
        return None
    places = [place for name in loaded if (place := debug.find(b"calling init: " + os.fsencode(name) + b"\n")) >= 0]
    first = min(places, default=0)
    made = [os.fsdecode(name) for name in re.findall(rb"file=(\S+) \[0\];  generating link map", debug[:first])]
    mapped = [name for name in loaded if name != real.LOADER]  # the kernel maps that one
    if not made or _bases(made[-len(mapped) :]) != _bases(mapped):
        return None
    if not more:
        return "a constructor ends the process"
    found = max(debug.find(b"file=" + os.fsencode(name) + b" [0]") for name in (more[0], *_bases(more[:1])))
    return "a constructor loads more" if found > first else None


def _bases(names: Iterable[str]) -> list[str]:
    return [name.rpartition("/")[2] for name in names]


def _judge(
    group: Group, file: str, host: str, way: str, root: Path, one: Scenario, offsets: tuple[int, int] | None
) -> tuple[Run, real.RealRun | None]:
    """One process, compared."""
    seen = None
    try:
        signal.alarm(LOADER_LIMIT)
        seen = observe(one, root, offsets)
        outcome = next((step.outcome for step in seen.steps if step.outcome != "loads"), "loads")
        outcome = outcome if seen.started else "no start"
        said = predict(one, root)
        verdict = compare.judge(one, seen, said, noisy=True)
        mark, words = "agrees", b"\n".join(verdict.messages[:1]).decode(errors="replace")
        if verdict.undecided:
            facts = [said.host.startup.because, *(step.because for step in said.steps if step.outcome == "undecided")]
            mark, words = "undecided", facts[-1] or "not told"
        elif verdict.differences:
            why = _explanation(one, root, seen, said)
            mark, words = ("explained", why) if why else ("differs", "; ".join(verdict.differences))
        return Run(group.name, file, host, way, outcome, mark, words), seen
    except Exception:  # noqa: BLE001 -- one file never hides another
        return Run(group.name, file, host, way, "?", "differs", traceback.format_exc()[-1500:]), seen
    finally:
        signal.alarm(0)


@contextlib.contextmanager
def without(root: Path, path: str) -> Iterator[None]:
    """Take a library away for a while: the file that a name inside the root leads to."""
    with contextlib.closing(Files(str(root))) as opened:
        inside = opened.resolve(path)
    file = Path(f"{root}{inside}")
    gone = file.with_name(f"{file.name}.taken-away")
    file.rename(gone)
    try:
        yield
    finally:
        gone.rename(file)


def _soname(root: Path, file: str) -> str:
    """How a library is asked for by name: as it calls itself, else as its file is called."""
    with contextlib.suppress(DlwhyError), contextlib.closing(Files(str(root))) as opened:
        dynamic = Objects(opened).elf(file).dynamic
        if dynamic is not None and dynamic.soname:
            return dynamic.soname
    return file.rpartition("/")[2]


def examine(group: Group, file: str, root: Path, offsets: tuple[int, int] | None) -> list[Run]:
    """All processes of one file."""
    result = []
    random_of = random.Random(file)
    came: list[str] = []
    start: list[str] = []
    for host in ("plain", "natural", "wrong"):
        one = scenario(root, group, host, f"now:{file}")
        run, seen = _judge(group, file, host, "path", root, one, offsets)
        result.append(run)
        if host == "natural" and seen is not None and seen.steps:
            came = [name for name in seen.steps[0].loaded if name != file]
            start = [name for name in seen.start_maps[2:] if name != real.LOADER]
    name = _soname(root, file)
    for host, step, library_path in (
        ("natural", f"lazy-global:{name}", file.rpartition("/")[0]), ("plain", f"now:{name}", None),
    ):  # fmt: skip
        one = scenario(root, group, host, step, library_path=library_path)
        result.append(_judge(group, file, host, "name", root, one, offsets)[0])
    one = scenario(root, group, "natural", f"now:{file}")
    for names in (came, start if random_of.randrange(8) == 0 else []):
        if names:
            taken = random_of.choice(names)
            with without(root, taken):
                result.append(_judge(group, file, "natural", f"without {taken}", root, one, offsets)[0])
    return result + examine_ends(group, file, root, offsets)


def examine_ends(group: Group, file: str, root: Path, offsets: tuple[int, int] | None) -> list[Run]:
    """A file that goes again, and one that was there from the start, in its program or the wrong one, as drawn."""
    one = scenario(root, group, "natural", f"now:{file}", "close:1")
    closed = _judge(group, file, "natural", "closed", root, one, offsets)[0]
    host = random.Random(f"{file} preloaded").choice(("natural", "wrong"))
    one = scenario(root, group, host, preload=file)
    return [closed, _judge(group, file, host, "preloaded", root, one, offsets)[0]]


TOGETHER = 25
"""Files opened in one process, one after the other."""


def examine_together(group: Group, chosen: list[str], root: Path, offsets: tuple[int, int] | None) -> list[Run]:
    """Files in one process of their own program, in a random order and in random modes."""
    random_of = random.Random(chosen[0])
    mixed = random_of.sample(chosen, len(chosen))
    steps = [f"{random_of.choice(('now', 'now', 'lazy', 'now-global', 'lazy-global'))}:{file}" for file in mixed]
    one = scenario(root, group, "natural", *steps)
    return [_judge(group, chosen[0], "natural", f"together with {len(chosen) - 1}", root, one, offsets)[0]]


_own_root: Path | None = None


def _enter(root: Path, copies: Path) -> None:
    """Give a worker its own copy of the root, of links, so that taking a file away disturbs nobody."""
    global _own_root  # noqa: PLW0603 -- a worker process has one
    _own_root = copies / str(os.getpid())
    subprocess.run(["cp", "-al", root, _own_root], check=True)


def _task(group: Group, chosen: list[str]) -> list[Run]:
    assert _own_root is not None
    offsets = real.rtld_words(_own_root)
    if len(chosen) > 1:
        return examine_together(group, chosen, _own_root, offsets)
    return examine(group, chosen[0], _own_root, offsets)


def campaign(
    groups: Iterable[Group], root: Path, workers: int = 2, most: int | None = None, seed: int = 0
) -> Iterator[Run]:
    """Yield what came of every process of every file of the groups; of `most` files of each, drawn by `seed`."""
    signal.signal(signal.SIGALRM, _late)
    copies = Path(tempfile.mkdtemp(prefix="copies-", dir=root.parent))
    try:
        with ProcessPoolExecutor(workers, get_context("fork"), _enter, (root, copies)) as pool:
            tasks = []
            for group in groups:
                chosen = files(group, root)
                if most is not None and most < len(chosen):
                    chosen = random.Random(f"{seed}/{group.name}").sample(chosen, most)
                tasks += [pool.submit(_task, group, [file]) for file in chosen]
                parts = [chosen[first : first + TOGETHER] for first in range(0, len(chosen), TOGETHER)]
                tasks += [pool.submit(_task, group, part) for part in parts if len(part) > 1]
            for task in as_completed(tasks):
                yield from task.result()
    finally:
        shutil.rmtree(copies, ignore_errors=True)


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {LOADER_LIMIT} seconds")


HEAD = ("packages", "host", "files", "processes", "loads", "refused", "agree", "explained", "undecided", "differ")


def table(groups: Iterable[Group], runs: Iterable[Run], root: Path) -> list[list[str]]:
    """Rows of counts, the head first."""
    counts: Counter[tuple[str, str]] = Counter()
    counts.update((group, "files") for group, _ in {(run.group, run.file) for run in runs})
    for run in runs:
        marks = ("processes", "loads" if run.outcome == "loads" else "refused",
                 {"agrees": "agree", "differs": "differ"}.get(run.verdict, run.verdict))  # fmt: skip
        counts.update((run.group, mark) for mark in marks)
    shown = [group for group in groups if counts[group.name, "files"]]
    rows = [
        [one.name, _program(one.host, root).rpartition("/")[2], *(str(counts[one.name, mark]) for mark in HEAD[2:])]
        for one in shown
    ]
    total = [sum(counts[one.name, mark] for one in shown) for mark in HEAD[2:]]
    return [list(HEAD), *rows, ["all", "", *map(str, total)]]


def causes(runs: Iterable[Run]) -> list[str]:
    """What keeps processes from agreeing, with how many and where: one sentence each."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        if run.verdict != "agrees":
            words = run.words.replace(run.file, "FILE") if run.verdict != "differs" else f"{run.file}: {run.words}"
            found.setdefault((run.verdict, words[:600]), []).append(run)
    result = []
    for (verdict, words), those in sorted(found.items()):
        groups = Counter(run.group for run in those)
        where = ", ".join(f"{name} {number}" for name, number in sorted(groups.items()))
        result.append(f"{len(those)} {verdict}: {words} ({where})")
    return result


def taken(groups: Iterable[Group], root: Path) -> str:
    """The packages whose files were opened, with their versions."""
    known = versions(root)
    names = dict.fromkeys(name for group in groups for name in packages(group, root) if files(group, root))
    return ", ".join(f"{name} {known[name]}" for name in names)
