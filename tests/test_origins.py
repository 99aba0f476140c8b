"""Why an owner is in a file: bills of real libraries with their lock files, SBOMs and packages."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest

import dlwhy
from dlwhy.errors import FilesError
from dlwhy.origins import unhashed
from tests.fixtures import registries
from tests.fixtures.libraries import initial_exec

if TYPE_CHECKING:
    from pathlib import Path

    from dlwhy.report_tls import Provenance, TlsObject

RAND_WAY = ("valet 1.2.0", "selfupdate 0.1.0", "backoff 0.1.6", "rand 0.6.5")
OTHER_LOCK = """\
version = 4
[[package]]
name = "valet"
version = "1.2.0"
dependencies = ["rand"]
[[package]]
name = "rand"
version = "0.7.3"
source = "registry+https://example.invalid"
"""


def billed(path: Path | str, sysroot: str | None = None, lock: str | None = None) -> TlsObject:
    """The bill of a file."""
    (file,) = dlwhy.tls([str(path)], sysroot=sysroot, lock=lock).files
    assert file.error is None
    assert file.tls is not None
    return file.tls


def why(bill: TlsObject, owner: str) -> Provenance:
    """The one reason for an owner."""
    (found,) = [one for one in bill.provenance if one.owner == owner]
    return found


@pytest.mark.oracle
@pytest.mark.parametrize("profile", ["release", "auditable"])
def test_rand_is_there_because_backoff_wants_it(profile: str) -> None:
    """The story's question: 4232 or 4248 bytes of rand, by way of backoff, as short as `cargo tree` has it."""
    path = registries.valet(profile)
    bill = billed(path)
    assert bill.owners[0].owner == "rand"
    assert bill.owners[0].bytes in (4232, 4248)
    found = why(bill, "rand")
    assert (found.version, found.path, found.basis) == ("0.6.5", RAND_WAY, "computed")
    assert found.source.split(",")[0] == ("Cargo.lock" if profile == "release" else ".dep-v0")
    tree = registries.run(
        [registries.tool("cargo"), "tree", "--locked", "--prefix", "depth", "--no-dedupe", "--target", "all"],
        path.parents[2],
    )
    depths = [int(depth) for depth in re.findall(r"(?m)^(\d+)rand v0\.6\.5", tree)]
    assert min(depths) == len(found.path) - 1


@pytest.mark.oracle
def test_every_crate_of_the_lock_is_as_near_as_cargo_says(tmp_path: Path) -> None:
    """The length of the shortest way to each package of the lock file is its least depth in `cargo tree`."""
    from dlwhy.files import Files
    from dlwhy.origins import read_lock

    path = registries.valet()
    lock = read_lock(str(path.parents[2] / "Cargo.lock"), Files())
    assert lock.graph is not None
    tree = registries.run(
        [
            registries.tool("cargo"),
            "tree",
            "--locked",
            "--prefix",
            "depth",
            "--no-dedupe",
            "--target",
            "all",
            "--edges", "normal,build,dev",
        ],
        path.parents[2],
    )
    least: dict[tuple[str, str], int] = {}
    for depth, name, version in re.findall(r"(?m)^(\d+)(\S+) v(\S+)", tree):
        least[name, version] = min(int(depth), least.get((name, version), 99))
    assert len(least) > 5
    for at, one in enumerate(lock.graph.packages):
        if (one.name, one.version) in least:
            assert len(lock.graph.path(at)) - 1 == least[one.name, one.version], one
    assert tmp_path.exists()


@pytest.mark.oracle
def test_a_stripped_file_keeps_its_crates() -> None:
    """Without a symbol no byte has a crate as its owner, but the identity lists what the panic locations show."""
    bill = billed(registries.valet("stripped"))
    assert bill.identity is not None
    assert ("rand", "0.6.5") in {(one.name, one.version) for one in bill.identity.packages}


@pytest.mark.oracle
def test_a_lock_file_of_another_build_is_said() -> None:
    """A lock with rand 0.7.3 for a file with 0.6.5: one note names both, and no way is taken from it."""
    path = registries.valet()
    other = path.parent / "other.lock"
    other.write_text(OTHER_LOCK)
    bill = billed(path, lock=str(other))
    assert any("is of another build" in note for note in bill.notes)
    found = why(bill, "rand")
    assert (found.version, found.path, found.source) == ("0.6.5", (), "panic locations")


def test_a_lock_file_that_is_none(tmp_path: Path) -> None:
    """Junk is told in a note of the bill; a lock file that is not there is an error of the question."""
    library = initial_exec(tmp_path, "x", 16)
    (tmp_path / "junk.lock").write_text("{")
    assert "is not read: no lock file of cargo" in billed(library, lock=str(tmp_path / "junk.lock")).notes[-1]
    with pytest.raises(FilesError, match="No such file"):
        dlwhy.tls([str(library)], lock=str(tmp_path / "none.lock"))


def test_a_lock_file_is_looked_for_up_to_the_workspace(tmp_path: Path) -> None:
    """Found beside the file or beside a Cargo.toml above it, and not in directories that no package is in."""
    deep = tmp_path / "target/release"
    deep.mkdir(parents=True)
    library = initial_exec(deep, "x", 16)
    (tmp_path / "Cargo.lock").write_text("{")
    assert billed(library).notes == ()
    (tmp_path / "Cargo.toml").write_text("")
    assert "Cargo.lock is not read" in billed(library).notes[0]


def test_check_takes_the_lock_file_too(tmp_path: Path) -> None:
    """The Cargo.lock that is named for a check is that of the failing file's bill, and nothing else of the question."""
    library = initial_exec(tmp_path, "x", 4000)
    (tmp_path / "junk.lock").write_text("{")
    report = dlwhy.check([str(library)], lock=str(tmp_path / "junk.lock"))
    assert "junk.lock is not read" in report.tls[0].notes[-1]
    assert report.steps[0].kind == "static-tls-exhausted"


@pytest.mark.oracle
def test_go_is_there_because_of_its_main_module() -> None:
    """The 8 bytes of Go lead to the module that was built, at the toolchain's version."""
    found = why(billed(registries.butler()), "Go runtime")
    assert found.path[0].startswith("example.com/butler")
    assert found.path[1] == f"Go runtime {found.version}"
    assert found.source == ".go.buildinfo"


@pytest.mark.oracle
@pytest.mark.slow
def test_a_library_that_auditwheel_vendored_has_two_origins() -> None:
    """scikit-learn's libgomp-<hash> comes from the wheel, and into it from the package that its SBOM names."""
    (library,) = registries.wheel("scikit-learn").glob("*.libs/libgomp-*.so*")
    found = why(billed(library), library.name)
    assert found.path[0].startswith("scikit_learn ")
    assert re.match(r"libgomp \S+ \((rpm|deb)\)", found.path[1])


@pytest.mark.oracle
@pytest.mark.slow
def test_a_wheel_brings_the_ways_to_its_crates() -> None:
    """tokenizers' SBOM has the way to each crate of the bill; the file's panic locations confirm most versions."""
    (library,) = registries.wheel("tokenizers").glob("tokenizers/*.so")
    bill = billed(library)
    tokio = why(bill, "tokio")
    assert tokio.basis == "computed"
    assert [step.split()[0] for step in tokio.path] == ["tokenizers-python", "tokio"]
    crates = {one.owner for one in bill.owners if one.kind == "crate"}
    assert crates <= {one.owner for one in bill.provenance}


@pytest.mark.oracle
@pytest.mark.slow
def test_a_prebuilt_addon_belongs_to_its_npm_package() -> None:
    """The stripped addon of lightningcss: its package.json, and the crates that are in it."""
    (addon,) = registries.npm("lightningcss-linux-x64-gnu").glob("*.node")
    bill = billed(addon)
    assert bill.provenance[-1].path[0].startswith("lightningcss-linux-x64-gnu ")
    assert bill.identity is not None
    assert "rayon-core" in {one.name for one in bill.identity.packages}


@pytest.mark.oracle
def test_check_tells_why_as_well(tmp_path: Path) -> None:
    """Where static TLS is what fails, the bill of `check` has its provenance, also of a member of a wheel."""
    folder = tmp_path / "wheel"
    (folder / "pkg").mkdir(parents=True)
    built = initial_exec(folder / "pkg", "x", 5000)
    (folder / "pkg-1.0.dist-info").mkdir()
    (folder / "pkg-1.0.dist-info/RECORD").write_text("# " * 4000 + f"\npkg/{built.name},,\n")
    archive = shutil.make_archive(str(tmp_path / "pkg"), "zip", folder)
    (report,) = dlwhy.each([archive], dlwhy.Host.plain())
    assert report.steps[0].kind == "static-tls-exhausted"  # type: ignore[union-attr]
    (line,) = report.tls[0].provenance  # type: ignore[union-attr]
    assert line.path == ("pkg 1.0",)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("libgomp-e985bcbb.so.1.0.0", "libgomp.so.1.0.0"), ("libgomp.so.1", "libgomp.so.1"),
        ("libquadmath-96973f99-934c22de.so.0.0.0", "libquadmath.so.0.0.0"), ("-12345678.so", "-12345678.so"),
        ("libicu-deadbee.so", "libicu-deadbee.so"), ("x", "x"),
        ("libopenblaso-r0-d77a1985.3.15.so", "libopenblaso-r0.3.15.so"), ("libx.so.1-12345678", "libx.so.1-12345678"),
    ],
)  # fmt: skip
def test_hashes_of_auditwheel_are_taken_off(name: str, plain: str) -> None:
    """Eight digits after a dash, once or twice, and nothing else."""
    assert unhashed(name) == plain
