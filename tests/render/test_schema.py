"""The published JSON Schema: every report keeps it, and a wrong one does not."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path

import jsonschema
import pytest

import dlwhy
from dlwhy.render import json_v1
from dlwhy.report import VALUES, FailedReport
from dlwhy.rules import KINDS
from tests.render.cases import CASES
from tools import schema as tool

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests/golden"
SCHEMA = json.loads((ROOT / "docs/reference/report-1.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# What interface.md, section 3, promises: the keys of each object, by the place of the object.
PROMISED = {
    "CheckReport": "schema command host steps static_tls tls findings cures not_cures",
    "HostReport": "name executable loader libc libc_version machine environment startup",
    "Startup": "outcome message exit_status loaded",
    "Step": ("request mode outcome message kind stage object needed_by loaded unloaded because basis assumptions"),
    "StaticTls": "size tcb used free align surplus optional_left blocks",
    "StaticBlock": "object module_id size align offset when forced_by",
    "TlsObject": "object size align model shares padding unattributed triggers provenance",
    "Share": "owner kind bytes variable unit evidence",
    "Trigger": "owner variable relocation accesses functions",
    "Provenance": "owner version path source",
    "Finding": "rule severity object message basis citation",
    "Cure": "title change disposition proof cost command",
    "NotCure": "title why",
    "TlsReport": "schema command",
    "TreeReport": "schema command",
}


def objects() -> dict[str, dict[str, object]]:
    """Every object of the schema by the name of its record."""
    return {**SCHEMA["$defs"], **{one["title"]: one for one in SCHEMA["oneOf"]}}


def unknown_keys(value: object, definition: dict[str, object], place: str = "") -> list[str]:
    """Keys of a document that the schema does not describe, with their places."""
    if "$ref" in definition:
        return unknown_keys(value, SCHEMA["$defs"][str(definition["$ref"]).rpartition("/")[2]], place)
    if "anyOf" in definition:
        return [] if value is None else unknown_keys(value, definition["anyOf"][0], place)  # type: ignore[index]
    if isinstance(value, list):
        return [key for one in value for key in unknown_keys(one, definition["items"], f"{place}[]")]  # type: ignore[arg-type]
    if not isinstance(value, dict) or "properties" not in definition:
        return []
    known = definition["properties"]
    found = [f"{place}.{key}" for key in value if key not in known]  # type: ignore[operator]
    for key, part in value.items():
        if key in known:  # type: ignore[operator]
            found += unknown_keys(part, known[key], f"{place}.{key}")  # type: ignore[index]
    return found


def check(text: str) -> dict[str, object]:
    """Validate a document; it may not hold a key that the schema does not describe, either."""
    document = json.loads(text)
    VALIDATOR.validate(document)
    titles = {
        "check": "CheckReport", "tls": "TlsReport", "tree": "TreeReport", "unresolved": "UnresolvedReport",
        "floor": "FloorReport", "diff": "DiffReport",
    }  # fmt: skip
    title = titles[document["command"]]
    title = "FailedReport" if "subject" in document else "MatrixReport" if "rows" in document else title
    assert unknown_keys(document, objects()[title]) == []
    return document  # type: ignore[no-any-return]


def test_it_is_a_schema() -> None:
    """The schema is valid against its own meta-schema, and the one in the package is the same."""
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    packaged = Path(dlwhy.__file__).parent / "render/report-1.schema.json"
    assert json.loads(packaged.read_text("utf-8")) == SCHEMA


def test_everything_is_described() -> None:
    """Each object, key and word of the schema has a description."""
    for name, one in objects().items():
        for word in one.get("oneOf", ()):  # type: ignore[attr-defined]
            assert word["description"], f"{name}: {word['const']}"
        if "properties" in one:
            assert one["description"], name
            for key, told in one["properties"].items():  # type: ignore[attr-defined]
                assert told["description"], f"{name}.{key}"


@pytest.mark.parametrize("name", PROMISED)
def test_no_promised_key_is_missing(name: str) -> None:
    """Every key of the contract is required by the schema under its very name."""
    assert set(PROMISED[name].split()) <= set(objects()[name]["required"])  # type: ignore[call-overload]


def test_words_are_those_of_the_source() -> None:
    """The closed lists of the schema are the tables of the source, each kind of failure among them."""
    for name, words in {**VALUES, "Kind": KINDS}.items():
        assert [one["const"] for one in SCHEMA["$defs"][name]["oneOf"]] == list(words)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json")), ids=lambda path: path.stem)
def test_golden_cases_keep_it(path: Path) -> None:
    """The JSON of every golden case is valid, and the schema describes each of its keys."""
    check(path.read_text("utf-8"))


def test_failed_report_keeps_it() -> None:
    """What `--each` tells of a file that could not be examined is valid, and says exit status 1."""
    assert check(json_v1.render(FailedReport("a.zip", "a.zip: a damaged archive")))["exit_status"] == 1


def shared_objects() -> list[Path]:
    """A seeded sample of the libraries of this machine."""
    found = sorted(path for path in Path("/usr/lib/x86_64-linux-gnu").glob("*.so.*") if path.is_file())
    return random.Random(2).sample(found, min(25, len(found)))


@pytest.mark.machine
@pytest.mark.parametrize("path", shared_objects(), ids=lambda path: path.name)
def test_real_libraries_keep_it(path: Path) -> None:
    """check, tls and tree of a real library give valid documents."""
    for report in (dlwhy.check([path]), dlwhy.tls([path]), dlwhy.tree(path)):
        check(json_v1.render(report))


def places(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """The path of every part of a document."""
    found = [path] if path else []
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        found += places(part, (*path, key))
    return found


def at(document: object, path: tuple[object, ...]) -> object:
    """The part at a path."""
    for key in path:
        document = document[key]  # type: ignore[index]
    return document


@pytest.mark.parametrize("name", ["static-tls-exhausted", "steps", "tls", "tree", "loader-notice"])
def test_wrong_documents_are_rejected(name: str) -> None:
    """A document without one of its keys, or with a value of another type or word, is invalid, whichever part it is."""
    good = json.loads((GOLDEN / f"{name}.json").read_text("utf-8"))
    closed = {"outcome", "basis", "stage", "kind", "severity", "disposition", "state"}
    tried = 0
    every = places(good)
    for path in random.Random(3).sample(every, min(200, len(every))):
        parent, key = at(good, path[:-1]), path[-1]
        if "environment" in path or "change" in path:  # dictionaries with keys of their own
            continue
        wrongs = [object]  # take it away
        if isinstance(parent, list):
            wrongs = []
        wrongs += [3.5, {"other": 1}] if not isinstance(at(good, path), dict) else [3.5]  # type: ignore[list-item]
        wrongs += ["no such word"] if key in closed or path == ("command",) else []  # type: ignore[list-item]
        for wrong in wrongs:
            bad = copy.deepcopy(good)
            if wrong is object:
                del at(bad, path[:-1])[key]  # type: ignore[attr-defined]
            else:
                at(bad, path[:-1])[key] = wrong  # type: ignore[index]
            assert not VALIDATOR.is_valid(bad), f"{path}: {wrong}"
            tried += 1
    assert tried > 50


def test_extra_keys_are_allowed() -> None:
    """A document of a later dlwhy with one more key is still valid."""
    good = json.loads((GOLDEN / "loads.json").read_text("utf-8"))
    good["later"] = good["host"]["later"] = 1
    VALIDATOR.validate(good)


def test_the_tool_refuses_what_is_not_described() -> None:
    """A field without a docstring, or of a type that has no schema, stops the generator."""
    import ast

    [bare] = ast.parse("class A(Record):\n    x: int\n    y: int").body
    with pytest.raises(ValueError, match=r"A\.x has no docstring"):
        tool.fields(bare)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no schema"):
        tool._type("set[str]")


def test_cases_are_named_once() -> None:
    """Each golden case asks something else."""
    assert len(set(CASES.values())) == len(CASES)
