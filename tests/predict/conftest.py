"""A run with tuned prompts."""

from __future__ import annotations

from typing import Any

import pytest
from tuned_cells import make_cells, rows_of

from supmer.config import Config


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="session")
def test_rows(run: Config) -> dict[str, list[dict[str, Any]]]:
    """The test rows of each task."""
    return rows_of(run)
