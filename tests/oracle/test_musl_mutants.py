"""The model of musl broken on purpose, rule by rule: a scenario must show each break, or the rule was never tested."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dlwhy.loader.musl import dso, loading, mapping, memory, process, releases, relocate, search, startup
from tests.oracle import compare, musl, real

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.oracle.scenarios import Scenario

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

SEED = 20261125
MOST = 150
"""Scenarios of a family that are tried before a break counts as unseen."""

UNSEEN = {"dynamic_tags": "of the tags that are kept since then only those of DT_RELR are used"}
"""Rows that no scenario can show, each with the reason."""

FAMILY_OF = {
    "empty_segments_map": "graph",
    "longest_lfs64": "quirks",
    "relr": "quirks",
    "relro_errno": "faults",
}


class Seen(NamedTuple):
    """A scenario that is in place, and what the real loader did with it."""

    scenario: Scenario
    root: Path
    real: real.RealRun


class Stage:
    """Scenarios put in place and run once, when a mutant first asks for them."""

    def __init__(self) -> None:
        self._roots = {name: root for name, root in musl.roots().items() if isinstance(root, Path)}
        if not self._roots:
            pytest.skip(next(why for why in musl.roots().values() if isinstance(why, str)))
        self._made = musl.workshop()
        self._seen: dict[tuple[str, str, int], Seen] = {}

    def get(self, loader: str, family: str, number: int) -> Seen | None:
        """Return a scenario and what the real loader made of it; None for one that does not fit musl."""
        key = loader, family, number
        if key not in self._seen:
            chosen = musl.make(SEED, number, family)
            if not musl.fits(chosen):
                return None
            root = self._roots[loader]
            full = compare.prepare(chosen._replace(name=f"{chosen.name}-{os.getpid()}"), root, self._made)
            self._seen[key] = Seen(full, root, musl.observe(full, root))
        return self._seen[key]

    def caught(self, family: str, broken: pytest.MonkeyPatch) -> str | None:
        """Return the first scenario that shows a difference, or None; it must be none of the unbroken model's."""
        for number in range(MOST):
            for loader in (min(self._roots), max(self._roots)):
                seen = self.get(loader, family, number)
                if seen is not None and _differences(seen):
                    broken.undo()
                    assert _differences(seen) == (), "the unbroken model is wrong here"
                    return f"{loader} {family} {number}"
        return None

    def close(self) -> None:
        """Remove what was put in place."""
        for seen in self._seen.values():
            compare.clean(seen.scenario, seen.root)


def _differences(seen: Seen) -> tuple[str, ...]:
    return compare.judge(seen.scenario, seen.real, compare.predict(seen.scenario, seen.root)).differences


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The scenarios that the mutants of this module share."""
    made = Stage()
    yield made
    made.close()


def _constant(value: object) -> Callable[..., Any]:
    return lambda *_args, **_named: value


def _own_only(self: Any, name: str, path: str, into: Any, where: str, _real: Any = search.Finder._along) -> bool:
    return bool(_real(self, name, path, into, where)) if not where.startswith("RPATH") else False


def _no_chain(self: Any, name: str, needed_by: Any, _real: Any = search.Finder.find) -> Any:
    if needed_by is None:
        return _real(self, name, None)
    above, needed_by.needed_by = needed_by.needed_by, None
    try:
        return _real(self, name, needed_by)
    finally:
        needed_by.needed_by = above


def _unversioned(self: Any, index: int, name: bytes) -> bool:
    return bool(self._same(self.strings + self.symbol(index)[1], name))


def _with_ifuncs(symbol: Any, need: bool, _real: Any = dso.counts) -> bool:
    return bool(_real(symbol, need)) or (symbol is not None and symbol[2] & 15 == 10 and bool(symbol[3]))


def _program_first(self: Any, todo: list[Any], _real: Any = process.MuslProcess.relocate) -> None:
    _real(self, list(reversed(todo)))


def _forgetful(self: Any, *of: Any, _real: Any = relocate.Relocator.table) -> None:
    self._entry_name = "(null)"
    _real(self, *of)


def _by_class(view: Any, path: str, _real: Any = mapping.headers_of) -> Any:
    if view.head[4:5] != b"\2":
        raise mapping.Refused(mapping.ENOEXEC, "of another class")
    return _real(view, path)


def _by_magic(view: Any, path: str, _real: Any = mapping.headers_of) -> Any:
    if view.head[:4] != b"\x7fELF":
        raise mapping.Refused(mapping.ENOEXEC, "no magic")
    return _real(view, path)


MUTANTS: dict[str, tuple[object, str, object, str]] = {
    # what is broken: (where, name, what stands there instead, which family shows it)
    "libc names are searched": (loading, "is_builtin", lambda name: name == "libc.so", "versions"),
    "no search path of an object": (search.Finder, "_along", _own_only, "graph"),
    "search paths are not inherited": (search.Finder, "find", _no_chain, "quirks"),
    "LD_LIBRARY_PATH is not read": (search.Finder, "environment_path", _constant(None), "search"),
    "tokens are not filled in": (search.Finder, "_origin", _constant(None), "graph"),
    "every error of open lets the search go on": (search, "_GO_ON", frozenset(range(200)), "quirks"),
    "one file may be loaded twice": (process.MuslProcess, "_by_inode", _constant(None), "graph"),
    "the class counts": (mapping, "headers_of", _by_class, "search"),
    "the magic counts": (mapping, "headers_of", _by_magic, "search"),
    "late initial-exec access is let through": (process.MuslProcess, "refuse_late", _constant(None), "tls"),
    "a variable without a name has none": (relocate.Relocator, "table", _forgetful, "tls"),
    "hidden versions are seen": (dso.Tables, "_is", _unversioned, "versions"),
    "indirect functions are found": (dso, "counts", _with_ifuncs, "marks"),
    "dependencies are relocated first": (process.MuslProcess, "relocate", _program_first, "graph"),
    "lazy loads lack nothing": (process.MuslProcess, "_prepare_lazy", _constant(None), "graph"),
    "lazy slots are never tried again": (process.MuslProcess, "_redo_lazy", _constant(None), "flags"),
    "global loads stay local": (process, "RTLD_GLOBAL", 0, "quirks"),
    "local loads stay global": (process, "RTLD_GLOBAL", 0xFFFF, "graph"),
    "RTLD_NOLOAD loads": (process, "RTLD_NOLOAD", 0, "graph"),
    "needs of needs are not opened with a library": (process.MuslProcess, "extend", _constant(None), "graph"),
    "preloads are not read": (startup, "_SPACES", "/:" + startup._SPACES, "graph"),
    "all relocations are known": (relocate.Relocator, "_write", _constant(None), "corrupt"),
    "gaps of segments are not mapped": (memory.Memory, "write", _constant(None), "corrupt"),
    "text relocations need no permission": (mapping, "_has_textrel", _constant(True), "corrupt"),
    "RELRO always works": (relocate.Relocator, "_protect", _constant(None), "faults"),
    "nothing is too large": (mapping, "_mmap", _constant(None), "faults"),
    "another libc is mapped": (process.MuslProcess, "_is_libc", _constant(False), "quirks"),
    "a constructor runs without DT_RELR": (process.MuslProcess, "check_constructors", _constant(None), "quirks"),
    "errors have glibc's words": (loading, "strerror", os.strerror, "faults"),
    "a fixed place is always free": (mapping, "_check_place", _constant(None), "flags"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_rules(name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule decides something: without it some scenario differs."""
    where, attribute, value, family = MUTANTS[name]
    monkeypatch.setattr(where, attribute, value)
    assert stage.caught(family, monkeypatch), f"no scenario notices that {name}"


@pytest.mark.parametrize("feature", sorted(set(releases.FEATURES) - set(UNSEEN)))
def test_rows(feature: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of the releases decides something: with the value of another release some scenario differs."""
    made = releases.musl
    values = [value for _, value, _ in releases.FEATURES[feature]]

    def mutated(release: tuple[int, int, int], text: str, loader_bytes: bytes = b"") -> releases.Musl:
        right = made(release, text, loader_bytes)
        other = next(value for value in values if value != right.values[feature])
        return right.but(values={**right.values, feature: other})

    monkeypatch.setattr(releases, "musl", mutated)
    assert stage.caught(FAMILY_OF[feature], monkeypatch), f"no scenario notices another {feature}"


def test_unseen_rows_exist() -> None:
    """What is excused is still a row, and every other row has a family."""
    assert set(UNSEEN) | set(FAMILY_OF) == set(releases.FEATURES)
