"""The Ray Data stream of episodes: the same as building them one after the other, whatever happens to its actors."""

from __future__ import annotations

import hashlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import psutil
import pytest
import ray
from made_up_tasks import made_up_vocabulary, synthetic_store, write_store
from waiting import wait_until

from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.runtime import connect_ray
from supmer.tasks.codec import encode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.train import stream
from supmer.train.stream import EpisodeStream, local_episodes

SLOTS = (0, 1, 2)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_store(synthetic_store(), tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    connect_ray()
    yield
    ray.shutdown()


def make_config(**train: object) -> Config:
    tasks = {"num_support": 8, "num_query": 8, "max_length": 128}
    return Config.model_validate({"tasks": tasks, "prompt": {"length": 8}, "train": {"prefetch_episodes": 12, **train}})


def open_stream(uri: str, config: Config, steps: range, slots: Sequence[int] = SLOTS) -> EpisodeStream:
    return EpisodeStream(uri, made_up_vocabulary(), config, steps, slots)


def encoded(batches: Iterator[list[Episode]]) -> list[bytes]:
    """The whole content of each batch."""
    return [encode(batch).to_pandas().to_json().encode() for batch in batches]


def token_hash(batches: Iterable[list[Episode]]) -> str:
    """One hash of all token ids in their order."""
    digest = hashlib.sha256()
    for episode in itertools.chain.from_iterable(batches):
        for row in (*episode.support, *episode.query, *episode.augmentation):
            digest.update(row.input_ids.tobytes() + row.target_ids.tobytes())
    return digest.hexdigest()


def built_here(uri: str, config: Config, steps: range, slots: Sequence[int] = SLOTS) -> list[bytes]:
    sampler = EpisodeSampler(TaskStore.open(uri), made_up_vocabulary(), config)
    return encoded(local_episodes(sampler, steps.start, slots, len(steps)))


def builders() -> list[psutil.Process]:
    """The actors that build episodes: Ray names a process after what it runs."""
    workers = [p for p in psutil.Process().children(recursive=True) if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    return [process for process in workers if "EpisodeBuilder" in " ".join(process.cmdline())]


def rests(process: psutil.Process) -> bool:
    """Tell whether a process leaves the processor to others for two seconds."""
    before = sum(process.cpu_times()[:2])
    time.sleep(2)
    return sum(process.cpu_times()[:2]) - before < 0.5


@pytest.mark.cluster
def test_waiting_for_a_slow_consumer_takes_no_processor(cluster: None, uri: str) -> None:
    with open_stream(uri, make_config(), range(1000)) as episodes:
        next(iter(episodes))
        wait_until(lambda: all(map(rests, builders())))
        assert rests(psutil.Process())


# Where two executions overlap, Ray Data drops the log file of one without closing it.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*ray-data-dataset:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.cluster
@pytest.mark.slow
def test_two_builders_in_short_segments_give_the_local_episodes(
    cluster: None, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCKS_PER_SEGMENT", 15)
    monkeypatch.setattr(stream, "PRELOAD_BLOCKS", 5)
    config = make_config(episode_builders=2, prefetch_episodes=24)
    with open_stream(uri, config, range(40)) as batches:
        assert encoded(iter(batches)) == built_here(uri, config, range(40))
    wait_until(lambda: builders() == [])


@pytest.mark.cluster
@pytest.mark.slow
def test_a_killed_builder_is_replaced_and_a_late_start_continues(cluster: None, uri: str) -> None:
    config = make_config()
    with open_stream(uri, config, range(25, 65), slots=(2, 0)) as opened:
        batches = iter(opened)
        received = encoded(islice(batches, 5))
        (builder,) = builders()
        builder.kill()
        received += encoded(batches)
    assert received == built_here(uri, config, range(25, 65), slots=(2, 0))


@pytest.mark.cluster
@pytest.mark.slow
def test_four_builders_and_two_trainers_give_the_same_tokens(cluster: None, uri: str) -> None:
    steps = range(30)
    with open_stream(uri, make_config(episode_builders=4, cpus_per_builder=0.25), steps) as batches:
        from_four = token_hash(batches)
    with (
        open_stream(uri, make_config(cpus_per_builder=0.5), steps, slots=(0, 2)) as first,
        open_stream(uri, make_config(cpus_per_builder=0.5), steps, slots=(1,)) as second,
    ):
        from_two = token_hash([even, one, odd] for (even, odd), (one,) in zip(first, second, strict=True))
    sampler = EpisodeSampler(TaskStore.open(uri), made_up_vocabulary(), make_config())
    assert from_four == from_two == token_hash(local_episodes(sampler, 0, SLOTS, len(steps)))


@pytest.mark.cluster
@pytest.mark.slow
def test_builders_rest_while_nobody_takes_episodes(cluster: None, uri: str) -> None:
    with open_stream(uri, make_config(), range(100_000)) as opened:
        assert len(next(iter(opened))) == len(SLOTS)
        (builder,) = builders()
        wait_until(lambda: rests(builder))
        assert rests(builder)
        assert stream._readers() != set()
    # Ray ends a process, with exit code 1 and without a word, in which one of them asks for an object after its shutdown.
    assert stream._readers() == set()
    wait_until(lambda: builders() == [])


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


def test_nothing_to_do_needs_no_cluster(uri: str) -> None:
    with open_stream(uri, make_config(), range(7, 7)) as batches:
        assert list(batches) == []


def test_a_wrong_order_is_noticed(uri: str) -> None:
    sampler = EpisodeSampler(TaskStore.open(uri), made_up_vocabulary(), make_config())
    episode = sampler.episode(3, 1)
    assert stream._expect(episode, 3, 1) is episode
    for found, step, slot in ((episode, 3, 0), (episode, 2, 1), (None, 3, 1)):
        with pytest.raises(RuntimeError, match=f"expected step {step}, slot {slot}"):
            stream._expect(found, step, slot)


def test_builders_do_without_torch() -> None:
    program = "import sys, supmer.train.episode_builder; sys.exit(int('torch' in sys.modules))"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=500)
