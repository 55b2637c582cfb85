"""What a cluster that a job starts for itself does for the runs on it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import ray.train
from ray.train.torch import TorchTrainer
from waiting import wait_until

from supmer.runtime import connect_ray

pytestmark = pytest.mark.cluster

SECONDS_TO_FREE = 60
"""On a machine with other work; Ray looks every second."""

ELSEWHERE = "http://127.0.0.1:9"
"""The dashboard of another cluster, to which this user submits jobs."""


@pytest.fixture
def own_cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", ELSEWHERE)
    connect_ray(2, hosts_trials=True)
    yield
    assert os.environ["RAY_API_SERVER_ADDRESS"] == ELSEWHERE
    ray.shutdown()


def group_states() -> list[str]:
    """Return the state of each placement group there was."""
    return [str(group["state"]) for group in ray.util.placement_group_table().values()]


def make_trial() -> Any:
    """Return an actor whose run never ends. It is made here, so that Ray's processes need not import this module."""

    def work(config: dict[str, Path]) -> None:
        config["sign"].touch()
        time.sleep(1e6)

    @ray.remote(num_cpus=0)
    class Trial:
        def fit(self, sign: Path) -> None:
            scaling = ray.train.ScalingConfig(resources_per_worker={"CPU": 0.75})
            run_config = ray.train.RunConfig(storage_path=str(sign.parent))
            TorchTrainer(work, train_loop_config={"sign": sign}, scaling_config=scaling, run_config=run_config).fit()

    return Trial.remote()  # type: ignore[attr-defined]


@pytest.mark.usefixtures("own_cluster")
def test_a_trial_that_is_gone_reserves_nothing(tmp_path: Path) -> None:
    trial = make_trial()
    trial.fit.remote(tmp_path / "sign")
    wait_until((tmp_path / "sign").exists)
    assert group_states() == ["CREATED"]
    ray.kill(trial)
    wait_until(lambda: group_states() == ["REMOVED"], SECONDS_TO_FREE)
