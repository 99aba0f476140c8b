"""The small system, built once for all tests of a process."""

from __future__ import annotations

import pytest

from tests.fixtures.system import System, build


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory) -> System:
    """The small system, whose answers are the same everywhere."""
    made = tmp_path_factory.mktemp("system")
    return build(made / "root", made / "scratch")
