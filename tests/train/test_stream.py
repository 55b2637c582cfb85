"""The Ray Data stream of episodes: the same as building them one after the other, whatever happens to its actors."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st
from made_up_tasks import made_up_vocabulary, synthetic_store, write_store
from processes import descendants
from waiting import wait_until

from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.tasks.codec import encode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.train import stream
from supmer.train.stream import EpisodeStream, local_episodes

NUM_TASKS = 3


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(synthetic_store(), tmp_path_factory.mktemp("store"))


def make_config(**train: object) -> Config:
    tasks = {"num_support": 8, "num_query": 8, "max_length": 128}
    meta = {"tasks_per_step": NUM_TASKS}
    train = {"prefetch_episodes": 12, **train}
    return Config.model_validate({"tasks": tasks, "meta": meta, "prompt": {"length": 8}, "train": train})


def open_stream(uri: str, config: Config, steps: range) -> EpisodeStream:
    return EpisodeStream(uri, made_up_vocabulary(), config, steps)


def encoded(batches: Iterator[list[Episode]]) -> list[bytes]:
    """The whole content of each batch."""
    return [encode(batch).to_pandas().to_json().encode() for batch in batches]


def built_here(uri: str, config: Config, steps: range) -> list[bytes]:
    sampler = EpisodeSampler(TaskStore.open(uri), made_up_vocabulary(), config)
    return encoded(local_episodes(sampler, config, steps))


def builders() -> list[psutil.Process]:
    return descendants("EpisodeBuilder")


def rests(process: psutil.Process) -> bool:
    """Tell whether a process leaves the processor to others for two seconds."""
    before = sum(process.cpu_times()[:2])
    time.sleep(2)
    return sum(process.cpu_times()[:2]) - before < 0.5


@pytest.mark.cluster
@pytest.mark.slow
def test_two_builders_of_which_one_is_killed_give_the_local_episodes(
    cluster: None, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a late start on, in blocks that are too short for one builder to be done with all of them."""
    monkeypatch.setattr(stream, "MIN_STEPS_PER_BLOCK", 7)
    config = make_config(episode_builders=2, prefetch_episodes=24)
    with open_stream(uri, config, range(25, 75)) as opened:
        batches = iter(opened)
        received = encoded(islice(batches, 5))
        builders()[0].kill()
        received += encoded(batches)
    assert received == built_here(uri, config, range(25, 75))


@pytest.mark.cluster
@pytest.mark.slow
def test_all_rest_while_nobody_takes_episodes_and_end_with_the_stream(cluster: None, uri: str) -> None:
    with open_stream(uri, make_config(), range(100_000)) as opened:
        assert len(next(iter(opened))) == NUM_TASKS
        everyone = [psutil.Process(), *builders(), *descendants("EpisodeFeeder")]
        assert len(everyone) == 3
        wait_until(lambda: all(map(rests, everyone)))
    wait_until(lambda: builders() == descendants("EpisodeFeeder") == [])


@pytest.mark.cluster
def test_a_users_mistake_in_a_builder_reaches_the_trainer(cluster: None, tmp_path: Path) -> None:
    with open_stream(str(tmp_path), make_config(), range(4)) as batches, pytest.raises(UserError) as caught:
        next(iter(batches))
    assert str(caught.value).startswith(f"store {tmp_path}: has no manifest.json")


@pytest.mark.cluster
def test_workers_search_for_no_dashboard(cluster: None) -> None:
    """There is none, and that of another cluster on this machine must not be asked about this one."""

    @ray.remote
    def ask() -> object:
        from ray.util.state import get_actor

        return get_actor("0" * 32)

    with pytest.raises(ray.exceptions.RayTaskError, match="Invalid address format: none"):
        ray.get(ask.remote())


@given(start=st.integers(0, 50), num_steps=st.integers(0, 5000), num_builders=st.integers(1, 5))
def test_blocks_hold_each_step_once_and_are_few(start: int, num_steps: int, num_builders: int) -> None:
    steps = range(start, start + num_steps)
    blocks = stream.cut(steps, num_builders)
    assert sorted(step for block in blocks for step in block) == list(steps)
    assert len(blocks) <= (stream.MAX_BLOCKS + 1) * num_builders
    assert all(blocks)


def test_nothing_to_do_needs_no_cluster(uri: str) -> None:
    with open_stream(uri, make_config(), range(7, 7)) as batches:
        assert list(batches) == []


def test_a_wrong_order_is_noticed(uri: str) -> None:
    sampler = EpisodeSampler(TaskStore.open(uri), made_up_vocabulary(), make_config())
    episodes = [sampler.episode(3, slot) for slot in range(2)]
    assert stream.expect(episodes, 3, 2) == episodes
    for found, step, num_tasks in ((episodes, 2, 2), (episodes, 3, 3), (episodes[::-1], 3, 2), ([], 3, 1)):
        with pytest.raises(RuntimeError, match=f"expected {num_tasks} slots of step {step}, received"):
            stream.expect(found, step, num_tasks)


def test_builders_do_without_torch() -> None:
    program = "import sys, supmer.train.stream; sys.exit(int('torch' in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=500)
