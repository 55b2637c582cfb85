"""The stream of episodes from CPU actors in Ray Data to one trainer process.

Every trainer process has a pipeline of its own, which starts at its own meta-step and holds its own slots only; so the
place in the stream is the number of the meta-step, which the checkpoint holds anyway.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from types import TracebackType
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset, ExecutionResources
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask
from typing_extensions import Self

from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.errors import UserError, users_mistake
from supmer.placement import builder_cpus, role_resources
from supmer.tasks.codec import decode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.episode_builder import EpisodeBuilder
from supmer.train.pacing import PausingScheduler

logger = logging.getLogger(__name__)

STEP_SCHEMA = pa.schema([("step", pa.int64())])

BLOCKS_PER_SEGMENT = 1000
"""Blocks of one Ray Data execution, which lists them all before it starts, at about a millisecond each."""

PRELOAD_BLOCKS = 100
"""Blocks before the end of a segment at which the next one starts, so that its actors are up in time."""

BLOCKS_AHEAD = 4
"""Blocks that make up the episodes built ahead. More of them cost more scheduling, fewer delay the first episodes."""

BYTES_PER_STEP, BYTES_PER_TOKEN = 8, 4

READER_THREADS = "iter_threaded"
"""Ray Data's name for the threads that read batches ahead of the consumer."""

WARN_AFTER_SECONDS = 60.0
CLOSE_TIMEOUT_SECONDS = 30.0
READERS_TIMEOUT_SECONDS = 10.0
"""They look every 0.1 s. Two streams that are opened in one process at once may take each other's for their own."""


class EpisodeStream:
    """Training episodes of `slots` for each meta-step of `steps`, in order: an iterable of one list for each step.

    Building starts at once, in the background, and stays about `train.prefetch_episodes` ahead of the consumer. Use it as
    a context manager, or call `close`, to stop the actors. Iterate once.

    Raises (while iterating):
        UserError: the store cannot be opened, or cannot host a kind of task.
    """

    def __init__(
        self, store_uri: str, vocabulary: TaskVocabulary, config: Config, steps: range, slots: Sequence[int]
    ) -> None:
        self._slots = tuple(slots)
        self._builder_arguments = (store_uri, vocabulary, config, self._slots)
        self._config = config
        self._steps_per_block = max(1, config.train.prefetch_episodes // (BLOCKS_AHEAD * len(self._slots)))
        self._unstarted = steps
        self._segments: deque[_Segment] = deque()
        self._start_segment()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[Episode]]:
        while self._segments:
            segment = self._segments[0]
            episodes = segment.episodes()
            start_next = max(segment.steps.start, segment.steps.stop - PRELOAD_BLOCKS * self._steps_per_block)
            for step in segment.steps:
                if step == start_next:
                    self._start_segment()
                yield [_expect(next(episodes, None), step, slot) for slot in self._slots]
            segment.close()
            self._segments.popleft()

    def close(self) -> None:
        """Stop building and release the actors."""
        while self._segments:
            self._segments.popleft().close()

    def _start_segment(self) -> None:
        num_steps = BLOCKS_PER_SEGMENT * self._steps_per_block
        steps, self._unstarted = self._unstarted[:num_steps], self._unstarted[num_steps:]
        if steps:
            self._segments.append(_Segment(self._dataset(steps), steps))

    def _dataset(self, steps: range) -> Dataset:
        """Return the lazy dataset of the encoded episodes of `steps`, one episode a row."""
        train = self._config.train
        # The same resources for both operators let Ray Data fuse them, so that no process is spent on counting.
        share = {"num_cpus": builder_cpus(train), "resources": role_resources("data") or None}
        blocks = [steps[start : start + self._steps_per_block] for start in range(0, len(steps), self._steps_per_block)]
        dataset = ray.data.read_datasource(MetaSteps(blocks), override_num_blocks=len(blocks), **share)
        dataset = dataset.map_batches(
            EpisodeBuilder,
            fn_constructor_args=self._builder_arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=train.episode_builders, max_tasks_in_flight_per_actor=2),
            **share,
        )
        context = dataset.context
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = True
        context.custom_execution_callback_classes = [PausingScheduler]
        context.execution_options.preserve_order = True
        context.execution_options.resource_limits = ExecutionResources(object_store_memory=_bytes_ahead(self._config))
        return dataset


def episode_stream(store_uri: str, config: Config, start_step: int, slots: Sequence[int], num_steps: int) -> EpisodeStream:
    """Open the stream of one trainer process; needs a running Ray and the backbone's tokenizer, not its weights."""
    vocabulary = TaskVocabulary.from_tokenizer(load_tokenizer(config.backbone))
    return EpisodeStream(store_uri, vocabulary, config, range(start_step, start_step + num_steps), slots)


def local_episodes(
    sampler: EpisodeSampler, start_step: int, slots: Sequence[int], num_steps: int
) -> Iterator[list[Episode]]:
    """Build the same episodes in this process, one meta-step at a time."""
    for step in range(start_step, start_step + num_steps):
        yield [sampler.episode(step, slot) for slot in slots]


class MetaSteps(Datasource):  # type: ignore[misc]
    """Blocks of consecutive numbers of meta-steps. There is nothing to read."""

    def __init__(self, blocks: Sequence[range]) -> None:
        super().__init__()
        self._blocks = blocks

    def estimate_inmemory_data_size(self) -> int:
        return BYTES_PER_STEP * sum(len(steps) for steps in self._blocks)

    def get_read_tasks(self, parallelism: int, *unused: Any, **unused_options: Any) -> list[ReadTask]:
        return [ReadTask(_reader(steps), _block_metadata(steps), schema=STEP_SCHEMA) for steps in self._blocks]


class _Segment:
    """One Ray Data execution, which starts in a thread of its own as soon as it is made."""

    def __init__(self, dataset: Dataset, steps: range) -> None:
        self.steps = steps
        self._tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
        self._first: Future[pa.Table | None] = Future()
        self._readers: set[threading.Thread] = set()
        # A daemon, so that a cluster without room for the builders cannot keep the process from ending.
        threading.Thread(target=self._fetch_first, name="first-episodes", daemon=True).start()

    def episodes(self) -> Iterator[Episode]:
        """Yield the episodes in order."""
        try:
            table = self._wait_for_first()
            while table is not None:
                yield from decode(table)
                table = next(self._tables, None)
        except ray.exceptions.RayError as error:
            mistake = users_mistake(error)
            if mistake is None:
                raise
            raise UserError(str(mistake)) from error

    def close(self) -> None:
        """Stop the execution, and wait for the threads that read ahead.

        Ray Data asks them to end and goes on. One that still holds an object when Ray is shut down ends this process.
        """
        try:
            self._first.exception(timeout=CLOSE_TIMEOUT_SECONDS)
        except FutureTimeoutError:
            logger.warning("episode builders had not started when the stream was closed; Ray ends them with this process")
            return
        self._tables.close()
        give_up = time.monotonic() + READERS_TIMEOUT_SECONDS
        for reader in self._readers:
            reader.join(max(0.0, give_up - time.monotonic()))

    def _fetch_first(self) -> None:
        others = _readers()
        try:
            first = next(self._tables, None)
            self._readers = _readers() - others
            self._first.set_result(first)
        except BaseException as error:
            self._first.set_exception(error)

    def _wait_for_first(self) -> pa.Table | None:
        while True:
            try:
                return self._first.result(timeout=WARN_AFTER_SECONDS)
            except FutureTimeoutError:
                logger.warning("still waiting for the first episodes: are there free CPUs for train.episode_builders?")


def _expect(episode: Episode | None, step: int, slot: int) -> Episode:
    """Return the episode if it is the one that is due: Ray Data promises the order, and training must not trust that."""
    if episode is None or (episode.step, episode.slot) != (step, slot):
        found = "nothing" if episode is None else f"step {episode.step}, slot {episode.slot}"
        raise RuntimeError(f"episode stream out of order: expected step {step}, slot {slot}, received {found}")
    return episode


def _readers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == READER_THREADS}


def _bytes_ahead(config: Config) -> int:
    """Return the memory for `train.prefetch_episodes` episodes with rows of full length."""
    num_rows = config.tasks.num_support + 2 * config.tasks.num_query
    return config.train.prefetch_episodes * num_rows * config.max_input_tokens * BYTES_PER_TOKEN


def _reader(steps: range) -> Callable[[], list[pa.Table]]:
    return lambda: [pa.table({"step": pa.array(steps, pa.int64())}, schema=STEP_SCHEMA)]


def _block_metadata(steps: range) -> BlockMetadata:
    return BlockMetadata(num_rows=len(steps), size_bytes=BYTES_PER_STEP * len(steps), input_files=None, exec_stats=None)
