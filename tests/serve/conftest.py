"""An endpoint for a run with tuned prompts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from endpoint import Endpoint, running_endpoint

from supmer.config import Config


@pytest.fixture(scope="session")
def endpoint(tuned_run: Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with running_endpoint(tuned_run, tmp_path_factory.mktemp("served")) as running:
        yield running
