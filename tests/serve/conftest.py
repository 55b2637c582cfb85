"""A run with tuned prompts, and an endpoint for it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from endpoint import Endpoint, running_endpoint
from tuned_cells import make_cells, rows_of

from supmer.config import Config


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return make_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="session")
def test_rows(run: Config) -> dict[str, list[dict[str, Any]]]:
    """The test rows of each task."""
    return rows_of(run)


@pytest.fixture(scope="session")
def endpoint(run: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(run, tmp_path_factory.mktemp("served")) as running:
        yield running
