"""Fixtures that every test may use."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from supmer.config import Config

# Before anything imports torch: what tests start shares few cores, and sums depend on the number of threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray starts its workers at niceness 15: beside other tests they would get next to nothing, and run into timeouts.
os.environ.setdefault("RAY_worker_niceness", "0")
# Where it is set, each process that a test starts would compile anew all that it imports: 15 s of CPU for a trainer.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# How long an example takes says more about the machine and what else it does than about our code.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")

SHARED = Path(__file__).resolve().parents[2] / "shared"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--mutants", type=int, default=100, help="damaged versions of each kind of file in tests/test_fuzzing.py"
    )
    parser.addoption(
        "--real-rows", type=int, default=20, help="rows of each task in tests/model/test_causal_real_rows.py, SmolLM2's part"
    )


@pytest.fixture(scope="session")
def num_mutants(pytestconfig: pytest.Config) -> int:
    """Damaged versions of each kind of file."""
    return int(pytestconfig.getoption("--mutants"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real corpora, tasks, tokenizer and golden numbers beside the checkout."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared material at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def tiny_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a tiny `backbone/` and a `corpus.jsonl` for it; see `tiny_run` for the settings that go with them."""
    from tiny_run import write_tiny_files  # here, because it imports torch

    return write_tiny_files(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tuned_run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run with a cell of each task and method of `tuned_cells`; tests leave its files as they are."""
    from tuned_cells import make_cells

    return make_cells(tmp_path_factory.mktemp("cells"))


@pytest.fixture(scope="session")
def test_rows(tuned_run: Config) -> dict[str, list[dict[str, Any]]]:
    """The test rows of each task of `tuned_run`."""
    from tuned_cells import rows_of

    return rows_of(tuned_run)


@pytest.fixture(scope="module", autouse=True)
def no_cluster_is_left() -> Iterator[None]:
    """End a cluster that a job started in this process: the next tests must find none, or one of their own size."""
    yield
    if "ray" in sys.modules:
        sys.modules["ray"].shutdown()
