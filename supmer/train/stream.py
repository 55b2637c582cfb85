"""The stream of episodes from CPU actors in Ray Data to one trainer process.

Every trainer process has a pipeline of its own, which yields whole meta-batches, as ranks share rows and not episodes. Its
place is the number of the meta-step, which the checkpoint holds anyway. Ray Data runs in an actor of its own, the feeder,
and leaves the trainer's process alone. Nothing here imports torch: builders are many, and each would pay for it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from typing_extensions import Self

from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.errors import UserError, users_mistake
from supmer.placement import builder_cpus, role_resources
from supmer.tasks.codec import decode, encode
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

logger = logging.getLogger(__name__)

MAX_BLOCKS, MIN_STEPS_PER_BLOCK = 200, 50
"""Ray Data lists all blocks before it starts, and builds a block again from its start when the builder of it is lost."""

REQUESTS_AHEAD = 2
"""Meta-steps that are on their way to the trainer."""

SECONDS_TO_WAIT = 5.0
WARN_AFTER_SECONDS = 60.0


class EpisodeStream:
    """The training episodes of each meta-step of `steps`, in order: an iterable of one list for each step.

    Building starts at once, in the background, and stays about `train.prefetch_episodes` ahead of the consumer. Use it as
    a context manager, or call `close`, to stop the actors. Iterate once.

    Raises (while iterating):
        UserError: the store cannot be opened, or cannot host a kind of task.
    """

    def __init__(self, store_uri: str, vocabulary: TaskVocabulary, config: Config, steps: range) -> None:
        self._steps = steps
        self._num_tasks = config.meta.tasks_per_step
        self._feeder: Any = None
        self._requests: deque[Any] = deque()
        if not steps:
            return
        builders = config.train.episode_builders
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        feeder = ray.remote(num_cpus=0, scheduling_strategy=here, concurrency_groups={"pace": 2 * builders})(EpisodeFeeder)
        self._feeder = feeder.remote(store_uri, vocabulary, config, cut(steps, builders), steps.start)
        self._requests.extend(self._feeder.next.remote() for _ in steps[:REQUESTS_AHEAD])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[list[Episode]]:
        early: dict[int, list[Episode]] = {}  # several builders may finish in another order
        num_left = len(self._steps) - len(self._requests)
        for step in self._steps:
            while step not in early and self._requests:
                batch = decode(_received(self._requests.popleft()))
                early[batch[0].step] = batch
                if num_left:
                    self._requests.append(self._feeder.next.remote())
                    num_left -= 1
            yield expect(early.pop(step, []), step, self._num_tasks)

    def close(self) -> None:
        """Stop building; Ray ends the builders with the feeder that started them."""
        if self._feeder is not None:
            ray.kill(self._feeder)
            self._feeder = None
        self._requests.clear()


class EpisodeFeeder:
    """The actor that runs the Ray Data pipeline of one trainer, and keeps the builders at its pace.

    Ray Data's own limit on what is ahead is one of memory. Where it is reached, Ray Data's scheduler finds output that it
    may not take, round after round, and never rests; so the builders themselves wait until a step is wanted.
    """

    def __init__(
        self,
        store_uri: str,
        vocabulary: TaskVocabulary,
        config: Config,
        blocks: Sequence[range],
        start: int,
    ) -> None:
        import ray.data  # takes a second, and trainers do without

        train = config.train
        # Every builder must be able to work on a step of its own.
        self._wanted = start + max(train.episode_builders, train.prefetch_episodes // config.meta.tasks_per_step) + 1
        self._moved_on = threading.Condition()
        dataset = ray.data.from_items(
            [{"start": block.start, "stop": block.stop, "by": block.step} for block in blocks],
            override_num_blocks=len(blocks),
        )
        dataset = dataset.map_batches(
            EpisodeBuilder,
            fn_constructor_args=(store_uri, vocabulary, config, ray.get_runtime_context().current_actor),
            batch_size=None,
            batch_format="pyarrow",
            # One: a builder that has a second block to do would keep the others' trainer waiting for it.
            compute=ray.data.ActorPoolStrategy(size=train.episode_builders, max_tasks_in_flight_per_actor=1),
            num_cpus=builder_cpus(train),
            resources=role_resources("data") or None,
        )
        context = dataset.context
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.raise_original_map_exception = True
        context.target_max_block_size = 1  # what a builder yields goes on at once
        self._tables = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))

    def next(self) -> bytes | None:
        """Return the encoded episodes of a meta-step, in the order in which they are built; None after the last."""
        with self._moved_on:
            self._wanted += 1
            self._moved_on.notify_all()
        table = next(self._tables, None)
        return None if table is None else table["episodes"][0].as_py()

    @ray.method(concurrency_group="pace")  # type: ignore[untyped-decorator]
    def wait_until_wanted(self, step: int) -> int:
        """Return up to which step episodes are wanted, as soon as `step` is among them or a few seconds have gone by."""
        with self._moved_on:
            self._moved_on.wait_for(lambda: step < self._wanted, SECONDS_TO_WAIT)
            return self._wanted


class EpisodeBuilder:
    """The actor that builds the encoded episodes of each meta-step of a block, one step a row."""

    def __init__(self, store_uri: str, vocabulary: TaskVocabulary, config: Config, feeder: Any) -> None:
        self._store_uri = store_uri
        self._vocabulary = vocabulary
        self._config = config
        self._feeder = feeder
        self._wanted = 0
        self._sampler: EpisodeSampler | None = None

    def __call__(self, blocks: pa.Table) -> Iterator[pa.Table]:
        # Not made in __init__: Ray hands on the type of an actor's error only when a call failed, not its creation.
        sampler = self._sampler or EpisodeSampler(TaskStore.open(self._store_uri), self._vocabulary, self._config)
        self._sampler = sampler
        for block in blocks.to_pylist():
            for step in range(block["start"], block["stop"], block["by"]):
                while step >= self._wanted:
                    self._wanted = ray.get(self._feeder.wait_until_wanted.remote(step))
                sink = pa.BufferOutputStream()
                table = encode(sampler.episode(step, slot) for slot in range(self._config.meta.tasks_per_step))
                with pa.ipc.new_stream(sink, table.schema) as writer:
                    writer.write_table(table)
                yield pa.table({"episodes": [sink.getvalue().to_pybytes()]})


def cut(steps: range, num_builders: int) -> list[range]:
    """Cut meta-steps into blocks; as many as there are builders interleave, so that all work on what is needed next.

    >>> cut(range(3, 8), 2)
    [range(3, 8, 2), range(4, 8, 2)]
    """
    length = max(MIN_STEPS_PER_BLOCK, -(-len(steps) // MAX_BLOCKS)) * num_builders
    stretches = [steps[first : first + length] for first in range(0, len(steps), length)]
    return [stretch[first::num_builders] for stretch in stretches for first in range(min(num_builders, len(stretch)))]


def local_episodes(sampler: EpisodeSampler, config: Config, steps: range) -> Iterator[list[Episode]]:
    """Build the same episodes in this process, one meta-step at a time."""
    for step in steps:
        yield [sampler.episode(step, slot) for slot in range(config.meta.tasks_per_step)]


def expect(episodes: list[Episode], step: int, num_tasks: int) -> list[Episode]:
    """Return the episodes if they are those that are due; training must not trust that they are."""
    found = [(episode.step, episode.slot) for episode in episodes]
    if found != [(step, slot) for slot in range(num_tasks)]:
        raise RuntimeError(f"episode stream out of order: expected {num_tasks} slots of step {step}, received {found}")
    return episodes


def _received(request: Any) -> pa.Table:
    """Wait for what the feeder answers; UserError where a builder met a mistake of the user."""
    while True:
        try:
            content = ray.get(request, timeout=WARN_AFTER_SECONDS)
            break
        except ray.exceptions.GetTimeoutError:
            logger.warning("still waiting for episodes: are there free CPUs for train.episode_builders?")
        except ray.exceptions.RayError as error:
            mistake = users_mistake(error)
            if mistake is None:
                raise
            raise UserError(str(mistake)) from error
    if content is None:
        raise RuntimeError("the episode stream ended early")
    return pa.ipc.open_stream(content).read_all()
