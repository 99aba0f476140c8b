"""The model broken on purpose, rule by rule: some scenario must show each break, or the rule was never tested."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from dlwhy.elf.relocs import survey
from dlwhy.elf.symbols import DynamicSymbols
from dlwhy.elf.versions import Versions
from dlwhy.loader import (
    closing,
    dependencies,
    glibc,
    image,
    link_map,
    mapping,
    placing,
    process,
    properties,
    relocate,
    resolving,
    search,
    sort,
    startup,
    tls,
)
from dlwhy.loader.tunables import DEFAULTS, Reading
from tests.oracle import compare, real
from tests.oracle.agreement import workshop
from tests.oracle.scenarios import scenario
from tests.oracle.sysroots import roots

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.oracle.scenarios import Scenario

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

SEED = 20261125
MOST = 200
"""Scenarios of a family that are tried before a break counts as unseen."""

# rows that no scenario can show here, each with the reason
UNSEEN = {
    "abi_note_checked": "no file of the generator asks for another kernel",
    "abiversion_limit": "all loaders at hand accept the same versions",
    "audit_by_string": "every LD_AUDIT of the generator has a name that counts",
    "auditor_profiles": "the one lazy jump table without DT_PLTGOT in a few hundred is kept in test_scenarios.FOUND",
    "base_version_as_fallback": "needs a library with several unversioned entries of one name",
    "cache_words": "depends on the processor: test_processors.py shows it",
    "depaudit": "GNU ld writes DT_DEPAUDIT, but the generator does not ask for it",
    "dlopen_in_libdl": "how `plain` is linked; every start would differ",
    "empty_dynamic_skipped": "all loaders at hand skip it",
    "dynamic_checked_before_mapping": "needs two faults in one file",
    "enotdir_goes_on": "needs a file where a directory is searched",
    "exec_refused_at_header": "all loaders at hand refuse it at the same place",
    "execstack_forced": "2.41 and 2.43 at hand both have it",
    "guard_beside_stack": "only what dlwhy says of a cure's cost",
    "glibc_hwcaps": "depends on the processor",
    "hwcap_names": "depends on the processor: test_processors.py shows it",
    "intel_platform": "depends on the processor",
    "lazy_descriptors": "shows in 2.31 only, by bytes of the block; see test_lazy_descriptors",
    "least_tls_align": "the same on x86-64 in every release",
    "later_levels": "of s390x only",
    "legacy_hwcaps": "depends on the processor",
    "libc_relocated_first": "libc has no relocation that can fail",
    "map_errno_kept": "all loaders at hand drop it",
    "named_file_must_define": "all loaders at hand are newer",
    "pie_refused": "all loaders at hand refuse it",
    "properties_read": "of other machines: test_machines.FOUND keeps one on aarch64",
    "read_tunables": "2.39 reads as 2.40 does unless a name is set twice",
    "refused_flags_passed_over": "of arm only",
    "secure_binds_now": "secure starts are no family: test_ways.test_bind_now_of_a_secure_start shows it",
    "segment_order_checked": "only hostile files have such an order",
    "takes_both_tables": "of i386 and arm only, and no linker there writes DT_RELA",
    "tcb_size": "only what dlwhy prints of it",
}


class Seen(NamedTuple):
    """A scenario that is in place, and what the real loader did with it."""

    scenario: Scenario
    root: Path
    real: real.RealRun


class Stage:
    """Scenarios put in place and run once, when a mutant first asks for them."""

    def __init__(self) -> None:
        self._made = workshop()
        self._seen: dict[tuple[str, str, int], Seen] = {}

    def get(self, loader: str, family: str, number: int) -> Seen:
        """Return a scenario and what the real loader made of it."""
        key = (loader, family, number)
        if key not in self._seen:
            root = roots()[loader]
            assert isinstance(root, Path)
            chosen = scenario(SEED, number, family)
            full = compare.prepare(chosen._replace(name=f"{chosen.name}-{os.getpid()}"), root, self._made)
            self._seen[key] = Seen(full, root, compare.observe(full, root, real.rtld_words(root)))
        return self._seen[key]

    def close(self) -> None:
        """Remove what was put in place."""
        for seen in self._seen.values():
            compare.clean(seen.scenario, seen.root)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """The scenarios that the mutants of this module share."""
    made = Stage()
    yield made
    made.close()


def caught(stage: Stage, loaders: list[str], families: list[str], broken: pytest.MonkeyPatch) -> str | None:
    """Return the first scenario that shows a difference, or None; it must be none of the unbroken model's."""
    for number in range(MOST):
        for loader in loaders:
            for family in families:
                seen = stage.get(loader, family, number)
                if _differences(seen):
                    broken.undo()
                    assert _differences(seen) == (), "the unbroken model is wrong here"
                    return f"{loader} {family} {number}"
    return None


def _differences(seen: Seen) -> tuple[str, ...]:
    return compare.judge(seen.scenario, seen.real, compare.predict(seen.scenario, seen.root)).differences


def available() -> list[str]:
    """The loaders that can be had."""
    return [name for name, root in roots().items() if isinstance(root, Path)]


FAMILY_OF = {
    "tls": ("surplus", "rseq_block", "tls_tunables", "audit_unload_dies"),
    "flags": ("execstack_by_dlopen", "filters_of_the_top"),
    "versions": ("unversioned_provider_dies", "relr"),
    "marks": ("indirect_function", "isa_level_checked", "property_segment_counts", "protected_check"),
    "graph": ("depth_first_sort", "relocates_all_new"),
    "corrupt": ("p_align_checked", "machine_before_ident"),
    "faults": ("setup_hash_file", "p_align_honoured"),
}


@pytest.mark.parametrize("feature", sorted(set(glibc.FEATURES) - set(UNSEEN)))
def test_rows(feature: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row of the releases decides something: with the value of another release some scenario differs."""
    families = [family for family, names in FAMILY_OF.items() if feature in names]
    assert families, f"say in FAMILY_OF which scenarios show {feature}, or in UNSEEN why none can"
    rows = glibc.FEATURES[feature]
    made = glibc.glibc
    values = [value for _, value, _ in rows] + ([not rows[0][1]] if len(rows) == 1 else [])

    def mutated(release: tuple[int, int], banner: str | None = None, loader_bytes: bytes = b"") -> glibc.Glibc:
        right = made(release, banner, loader_bytes)
        other = next(value for value in values if value != right.values[feature])
        return right.but(**{feature: other})

    monkeypatch.setattr("dlwhy.question.glibc", mutated)
    assert caught(stage, available(), families, monkeypatch), f"no scenario notices another {feature}"


def test_unseen_rows_exist() -> None:
    """What is excused is still a row."""
    assert set(UNSEEN) <= set(glibc.FEATURES)


def _constant(value: object) -> Callable[..., Any]:
    return lambda *_args, **_named: value


def _whole(versions: Versions, files: Any = Versions.need_files) -> object:
    if versions.astray is not None:
        raise versions.astray
    return files.fget(versions)


def _no_gap(
    segments: Any, variant: int, start: int, least: int, surplus: int, rseq: Any, _real: Any = tls.lay_out
) -> Any:
    end, offsets, align = start, [], least
    for one in segments:
        layout = (
            _real((tls.Segment(end, 1, 0), one), variant, start, least, surplus, None)
            if end
            else _real((one,), variant, start, least, surplus, None)
        )
        end = layout.offsets[-1]
        offsets.append(end)
        align = max(align, one.align)
    whole = _real((tls.Segment(end, 1, 0),), variant, start, max(align, least), surplus, rseq)
    return whole.but(offsets=tuple(offsets))


def _unrounded(block: tls.StaticTls, segment: tls.Segment) -> tuple[int, int] | None:
    if segment.align > block.align or block.free < segment.memsz:
        return None
    return block.used + segment.memsz, segment.memsz


def _unlimited(
    block: tls.StaticTls, segment: tls.Segment, *, optional: bool, _real: Any = tls.StaticTls.take
) -> tuple[int, int] | None:
    del optional
    place: tuple[int, int] | None = _real(block, segment, optional=False)
    return place


def _runpath_first(finder: Any, of: Any, kind: str, _real: Any = search.Finder.path_list) -> Any:
    return _real(finder, of, "RUNPATH" if kind == "RPATH" else kind)


def _uncounted(elf: Any, table: Any, *rest: Any, _real: Any = survey) -> None:
    _real(elf, table.but(relative=0), *rest)


def _newest_processor(*_args: Any) -> Any:
    return iter(((0xC0008002, 0x80),))


def _each_once(elf: Any, machine: Any, libc: Any, lazy: bool, _real: Any = relocate.every_entry) -> Any:
    return iter(dict.fromkeys(_real(elf, machine, libc, lazy)))


def _by_list(of: Any, top: Any, _real: Any = process.Process._check_properties) -> None:
    class Listed:
        initfini = top.searchlist.maps

    _real(of, Listed)


class _Everything(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return int.__hash__(self)


MUTANTS: dict[str, tuple[object, str, object, str]] = {
    # what is broken: (where, name, what stands there instead, which family shows it)
    "gaps are not used at the start": (tls, "lay_out", _no_gap, "tls"),
    "a latecomer is not rounded": (tls.StaticTls, "place", _unrounded, "tls"),
    "nothing is given back": (tls.StaticTls, "give_back", _constant(None), "tls"),
    "descriptors have no budget": (tls.StaticTls, "take", _unlimited, "tls"),
    "the flag DF_BIND_NOW is not seen": (resolving, "is_lazy", lambda _of, lazy, _prelinked: lazy, "flags"),
    "versions are not checked": (startup, "check_versions", _constant(None), "versions"),
    "versions are not checked by dlopen": (process, "check_versions", _constant(None), "versions"),
    "relocation in load order": (dependencies, "depth_first", lambda maps, *_a, **_n: list(maps), "graph"),
    "tokens stand for themselves": (search.Finder, "expand", lambda _s, text, _of: text, "search"),
    "the class is not looked at": (mapping, "OTHER_CLASS", None, "search"),
    "the machine is not looked at": (mapping, "OTHER_MACHINE", None, "search"),
    "RUNPATH is RPATH": (search.Finder, "path_list", _runpath_first, "search"),
    "no LD_LIBRARY_PATH": (search.Finder, "environment_list", _constant([]), "search"),
    "one name is enough": (link_map.LinkMap, "answers_to", lambda s, name: s.has_name(name), "search"),
    "pages behind the end of the file are there": (image.Image, "touch", _constant(None), "corrupt"),
    "the end of a long table wraps round early": (relocate, "_LOWEST", 1 << 63, "faults"),
    "needs are read before any is checked": (Versions, "need_files", property(_whole), "faults"),
    "no chain leads astray": (DynamicSymbols, "_follow", _constant({}), "faults"),
    "processor levels are not checked": (process.Process, "lacks_level", _constant(None), "marks"),
    "processor levels are checked in the order of the list": (process.Process, "_check_properties", _by_list, "marks"),
    "every property note asks for a new processor": (properties, "_properties", _newest_processor, "marks"),
    "directories are always looked into": (search.Finder, "_is_directory", _constant(True), "search"),
    "every remark is made once": (resolving, "every_entry", _each_once, "marks"),
    "protected symbols are like others": (resolving, "_check_protected", _constant(None), "marks"),
    "hash tables are not looked at": (process, "check_hash", _constant(None), "faults"),
    "relocation counts are not looked at": (relocate, "survey", _uncounted, "faults"),
    "RELRO always works": (resolving, "_protect", _constant(None), "faults"),
    "e_ident is never bad": (mapping, "_bad_ident", _constant(False), "corrupt"),
    "executable stacks are free": (process, "wants_execstack", _constant(False), "flags"),
    "nothing is ever closed": (closing, "collect", lambda _process, _space: [], "tls"),
    "TLS that nobody has used cannot move": (placing, "DYNAMIC", None, "tls"),
    "filters are needs": (dependencies, "DT_NEEDED", _Everything(1), "flags"),
    "no selection sort": (sort, "_depends_directly", _constant(False), "graph"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_rules(name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule decides something: without it some scenario differs."""
    where, attribute, value, family = MUTANTS[name]
    monkeypatch.setattr(where, attribute, value)
    assert caught(stage, available(), [family], monkeypatch), f"no scenario notices that {name}"


def test_the_unbroken_model(stage: Stage) -> None:
    """The same scenarios agree with the model as it is, so that what differs is the break."""
    for family in ("tls", "graph", "search", "versions", "flags", "corrupt"):
        for number in range(10):
            seen = stage.get("this machine", family, number)
            assert compare.judge(seen.scenario, seen.real, compare.predict(seen.scenario, seen.root)).differences == ()


def test_reading_of_tunables(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GLIBC_TUNABLES some scenario differs."""
    made = glibc.glibc

    def blind(release: tuple[int, int], banner: str | None = None, loader_bytes: bytes = b"") -> glibc.Glibc:
        right = made(release, banner, loader_bytes)
        return right.but(read_tunables=lambda *_: Reading(DEFAULTS, ()))

    monkeypatch.setattr("dlwhy.question.glibc", blind)
    assert caught(stage, available(), ["tls"], monkeypatch)
