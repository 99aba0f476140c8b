"""The small system, built once for all tests of a process."""

from __future__ import annotations

import pytest

from tests.fixtures.system import Others, System, build, build_others


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """The small system that the golden cases ask about."""
    made = tmp_path_factory.mktemp("system")
    return build(made / "root", made / "scratch")


@pytest.fixture(scope="session")
def others(tmp_path_factory: pytest.TempPathFactory) -> Others:
    """Systems of several releases, and files outside of them."""
    return build_others(tmp_path_factory.mktemp("others"))
