"""What a cluster that a job starts for itself does for the runs on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import ray.train
from ray.train.torch import TorchTrainer

from supmer.runtime import connect_ray

pytestmark = pytest.mark.cluster

SECONDS = 120
"""For Ray to start two processes, or to learn that one has gone, on a machine with other work."""


@pytest.fixture
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    connect_ray(2, hosts_trials=True)
    yield
    ray.shutdown()


def group_states() -> list[str]:
    """Return the state of each placement group there was."""
    return [str(group["state"]) for group in ray.util.placement_group_table().values()]


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < give_up, f"waited in vain; placement groups are {group_states()}"
        time.sleep(0.1)


def work(config: dict[str, Path]) -> None:
    """Tell that the worker runs, and never end."""
    config["sign"].touch()
    time.sleep(1e6)


@ray.remote(num_cpus=0)
class Trial:
    def fit(self, sign: Path) -> None:
        scaling = ray.train.ScalingConfig(resources_per_worker={"CPU": 0.75})
        run_config = ray.train.RunConfig(storage_path=str(sign.parent))
        TorchTrainer(work, train_loop_config={"sign": sign}, scaling_config=scaling, run_config=run_config).fit()


@pytest.mark.usefixtures("own_cluster")
def test_a_trial_that_is_gone_reserves_nothing(tmp_path: Path) -> None:
    trial = Trial.remote()  # type: ignore[attr-defined]
    trial.fit.remote(tmp_path / "sign")
    wait_until((tmp_path / "sign").exists)
    assert group_states() == ["CREATED"]
    ray.kill(trial)
    wait_until(lambda: group_states() == ["REMOVED"])
