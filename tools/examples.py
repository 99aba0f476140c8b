"""The examples in the documentation: each is a command with what it prints, to be run and compared, or written anew.

`python -m tools.examples [PAGE...]` runs those of these pages, by default of all, and writes down what they print.
An example is a fenced block of `console` whose first line begins with "$ ". Of one marked `console timed`, whose
figures differ from run to run, only the exit status counts. `./dlwhy` and what stands below examples/ are run from the
checkout; a `dlwhy` whose operands are packages of PyPI or npm, in the directory where these were downloaded to.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tools.registries import UnreachedError, package

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"```console(?P<timed> timed)?\n\$ (?P<command>.*)\n(?P<shown>(?s:.*?))```")
RECORDED = re.compile(r"<!-- recorded with: (.*) -->")
PACKAGES = (
    "libc6", "libgomp1", "libjemalloc2", "libmimalloc2.0", "libstdc++6", "libtcmalloc-minimal4", "nodejs", "gcc",
    "binutils", "python3",
)  # fmt: skip
TOOLS = (("rustc", "--version"), ("go", "version"))
CASE, LABS = "/tmp/the-case", "/tmp/the-labs"
"""Where pages say that the library of the README's picture, and what the scripts of examples/ build, are."""
_DIGEST = re.compile(r"(/tmp/the-labs/examples/[\w.-]+-)[0-9a-f]{12}")


_BUILT = re.compile(r"-[0-9a-f]{12}$")
_NAMED = re.compile(r"/tmp/the-labs/examples/(ways-to-fail|static-tls-murder|who-wants-tls)-?([\w.-]*)/")
_SCRIPTS = {"ways-to-fail": "ways.py", "static-tls-murder": "murder.py", "who-wants-tls": "counters.py"}
_CONFIGURED = (
    "CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_", "HTTP_PROXY", "HTTPS_PROXY",
    "NODE_EXTRA_CA_CERTS", "NO_PROXY", "NPM_CONFIG_", "PIP_", "RUSTUP_", "SSL_CERT_",
)  # fmt: skip
"""How variables begin that tell the clients of registries where these are; they reach no answer."""
UNREACHED = re.compile(r".*(?:cannot be (?:reached|had)|failed to download|needs Debian's).*")
"""What scripts of examples/ say of what is not here and cannot be fetched."""
REGISTRY = "registry"
"""Where packages of registries are kept, below the cache."""


class Example(NamedTuple):
    """One example of a page."""

    command: str
    shown: str
    timed: bool

    @property
    def anywhere(self) -> bool:
        """Whether it prints the same on every machine: its files and systems are pinned."""
        return bool(re.match(r"dlwhy (floor|check .*--on) ", self.command))


def pages() -> list[Path]:
    """Return every page that may hold examples."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def examples(text: str) -> list[Example]:
    """Return the examples of a page's text."""
    return [Example(one["command"], one["shown"], bool(one["timed"])) for one in BLOCK.finditer(text)]


def versions() -> str:
    """Return the releases of what the examples look at and are built with."""
    query = ("dpkg-query", "--show", "--showformat=${Version}")
    told = [f"{name} {_said(*query, name) or 'missing'}" for name in PACKAGES]
    for tool, asked in TOOLS:
        found = re.search(r"\d+\.\d+(?:\.\d+)?", _said(tool, asked))
        told.append(f"{tool} {found[0] if found else 'missing'}")
    return ", ".join(told)


def recorded() -> str:
    """Return the releases that the examples were written down with."""
    found = RECORDED.search((ROOT / "README.md").read_text("utf-8"))
    assert found is not None
    return found[1]


def _said(*words: str) -> str:
    try:
        return subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


class Stage:
    """Where examples are run: in directories with names as long as those that pages show, so that lines break alike."""

    def __init__(self, case: str, labs: str, command: str | os.PathLike[str]) -> None:
        self._case, self._labs, self._command = case, labs, os.fspath(command)

    def output(self, command: str) -> str:
        """Return what an example prints, at 100 columns, with the names that the pages show.

        Raises `ChildProcessError` with what it says to standard error, which no example does, and `UnreachedError`.
        """
        for script, name in _NAMED.findall(command):
            self._build(script, name)
        words = shlex.split(command.replace(CASE, self._case).replace(LABS, self._labs))
        directory = self._packages(words[1:]) if words[0] == "dlwhy" else ROOT
        if words[0].endswith("dlwhy"):
            words[0] = self._command
        elif words[0].endswith(".py"):
            words.insert(0, sys.executable)  # which has all that ./dev installs
        done = self._run(words, directory)
        if unreached := UNREACHED.search(done.stderr):
            raise UnreachedError(unreached[0])
        if done.stderr or done.returncode not in (0, 10, 11):
            raise ChildProcessError(f"{command}: exit status {done.returncode}: {done.stderr.strip() or done.stdout}")
        return _DIGEST.sub(rf"\g<1>{'0' * 12}", done.stdout.replace(self._case, CASE).replace(self._labs, LABS))

    def _packages(self, words: Sequence[str]) -> Path:
        """Return the directory that holds all packages that words name."""
        folder = Path(self._labs, REGISTRY).resolve()
        for word in words:
            if word.endswith((".whl", ".tgz")):
                package(word, folder)
        return folder

    def _build(self, script: str, name: str) -> None:
        """Build what a command names below examples/, once; lab.py gives it a name without a digest."""
        words = [f"examples/{script}/{_SCRIPTS[script]}", *([name] if name else [])]
        if not os.path.isdir(f"{self._labs}/examples/{'-'.join(filter(None, (script, name)))}"):
            self._run([sys.executable, *words])

    def _run(self, words: list[str], directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
        env = {
            "PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C.UTF-8", "COLUMNS": "100",
            "DLWHY_CACHE": self._labs,
            **{key: os.path.abspath(os.environ[key]) for key in ("PYTHONPATH",) if key in os.environ},
            **{key: value for key, value in os.environ.items() if key.upper().startswith(_CONFIGURED)},
        }  # fmt: skip
        return subprocess.run(words, cwd=directory, env=env, capture_output=True, text=True, timeout=600, check=False)


@contextmanager
def stage(cache: Path, command: str | os.PathLike[str] = ROOT / "dlwhy") -> Iterator[Stage]:
    """Give the library of the README's picture, and a place with a name of known length for the scripts of examples/.

    What they have built in `cache` before is copied there, and what is new is kept for the next time.
    """
    kept = cache / "examples"
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="", dir="/tmp") as case:
        assert len(case) == len(CASE)
        subprocess.run([ROOT / "examples/story.sh", case], check=True, capture_output=True)
        labs = Path(f"{case[:-1]}-")
        try:
            _copy(kept, labs / "examples")
            for shared in ("sysroots", REGISTRY):
                (cache / shared).mkdir(exist_ok=True)
                (labs / shared).symlink_to(cache / shared)
            yield Stage(case, str(labs), command)
            _copy(labs / "examples", kept)
        finally:
            shutil.rmtree(labs, ignore_errors=True)


def _copy(of: Path, to: Path) -> None:
    """Copy what is in one directory and not in the other; whole or not at all, for others may do the same."""
    to.mkdir(parents=True, exist_ok=True)
    for one in of.iterdir():
        if one.is_dir() and _BUILT.search(one.name) and not (to / one.name).exists():
            fresh = to / f"{one.name}.{os.getpid()}"
            shutil.copytree(one, fresh, symlinks=True)
            try:
                fresh.rename(to / one.name)
            except OSError:
                shutil.rmtree(fresh)


def written(text: str, place: Stage) -> str:
    """Return a page's text with every example run and what it prints written down."""
    return BLOCK.sub(
        lambda one: f"```console{one['timed'] or ''}\n$ {one['command']}\n{place.output(one['command'])}```", text
    )


def main(words: list[str]) -> int:
    """Write the examples of pages anew, and in the README what they were made with; 1 when one cannot be run."""
    from tests.oracle.sysroots import cache

    try:
        with stage(cache()) as place:
            for page in [Path(word).resolve() for word in words] or pages():
                text = page.read_text("utf-8")
                if examples(text):
                    print(page.relative_to(ROOT))
                    page.write_text(written(text, place), "utf-8")
    except (ChildProcessError, UnreachedError) as error:
        print(error, file=sys.stderr)
        return 1
    readme = ROOT / "README.md"
    readme.write_text(RECORDED.sub(f"<!-- recorded with: {versions()} -->", readme.read_text("utf-8")), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
