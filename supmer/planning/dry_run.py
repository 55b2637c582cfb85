"""One meta-step at the longest rows, measured on the hardware that is there, beside the figures of the plan.

Nothing of a run is written: the rows are random, and prompt and regularizer are thrown away.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import ray.train
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from supmer import storage
from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.corpus.fingerprint import Places, describe_inputs
from supmer.corpus.manifest import MANIFEST
from supmer.corpus.store import TaskStore
from supmer.meta.group import LocalGroup, TorchGroup
from supmer.placement import check_capacity, worker_and_builder_cpus, worker_resources
from supmer.planning.estimate import Estimate, Planner, setting_of
from supmer.planning.hardware import Hardware
from supmer.planning.measuring import Measured, measure
from supmer.planning.shapes import resolve_shape
from supmer.runtime import connect_ray
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.worker import set_threads

TIMED_EPISODES = 20


def dry_run(config: Config) -> Iterator[str]:
    """Measure one meta-step under Ray Train with the configured workers, and yield lines of what was found.

    Raises:
        UserError: the backbone cannot be used or has no plan, or the cluster has no room for the workers.
        ray.train.TrainingFailedError: a worker failed, of too little memory for one.
    """
    workers = config.train.min_workers
    planned = plan(config)  # first: a backbone that has no plan is refused before Ray starts
    tokenizer = load_tokenizer(config.backbone)
    yield f"starting Ray for one meta-step of rows of {config.tasks.max_length} positions, train.workers={workers}"
    connect_ray(workers * worker_and_builder_cpus(config.train))
    check_capacity(config)
    has_gpu = config.train.gpus_per_worker > 0
    with tempfile.TemporaryDirectory() as folder:
        trainer = TorchTrainer(
            _work,
            train_loop_config={"config": config},
            torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if has_gpu else "gloo"),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=has_gpu, resources_per_worker=worker_resources(config.train)
            ),
            run_config=ray.train.RunConfig(
                storage_path=folder, name="dry-run", logging_config=ray.train.LoggingConfig(log_level="WARNING")
            ),
        )
        measured = Measured(*trainer.fit().return_value)
    yield from compare(measured, planned)
    yield _data(config, measured, TaskVocabulary.from_tokenizer(tokenizer))
    yield "no run was written"


def compare(measured: Measured, planned: Estimate) -> Iterator[str]:
    """Yield a line for each figure."""
    rate = measured.tokens / measured.seconds
    yield f"device: {measured.device}; {measured.seconds:.3g} s a meta-step, {rate:,.0f} tokens/s"
    figures = {
        "peak memory of a worker, MiB": (measured.peak / 2**20, planned.peak / 2**20),
        "FLOPs of a worker, GFLOP": (measured.flops / 1e9, planned.flops / 1e9),
    }
    for name, (found, expected) in figures.items():
        if found:
            yield f"{name}: {found:,.1f} measured, {expected:,.1f} planned ({expected / found - 1:+.1%})"
    yield f"computing: {measured.flops / measured.seconds / 1e9:,.0f} GFLOP/s a worker"


def plan(config: Config) -> Estimate:
    """Return the plan of the same meta-step."""
    workers = config.train.min_workers
    any_hardware = Hardware(2**40, 0, 1e12, 1e10, 1e10, workers, 0.0)
    planner = Planner(config, resolve_shape(config.backbone), any_hardware)
    return planner.estimate(setting_of(config, workers, any_hardware))


def _work(arguments: dict[str, Any]) -> tuple[Any, ...]:
    config, context = arguments["config"], ray.train.get_context()
    set_threads(config, context.get_local_world_size())
    device = get_device()
    return tuple(measure(config, device, TorchGroup(device) if context.get_world_size() > 1 else LocalGroup()))


def _data(config: Config, measured: Measured, vocabulary: TaskVocabulary) -> str:
    """Say whether episodes are built faster than they are used up, if the task store is there."""
    store = Places.of(config.corpus, describe_inputs(config)).store
    if not storage.exists(storage.join(store, MANIFEST)):
        return "data: not measured, as the task store is not prepared yet"
    sampler = EpisodeSampler(TaskStore.open(store), vocabulary, config)
    steps = math.ceil(TIMED_EPISODES / config.meta.tasks_per_step)
    for number in range(2 * steps):  # the first half fills caches
        if number == steps:
            started = time.perf_counter()
        for slot in range(config.meta.tasks_per_step):
            sampler.episode(number, slot)
    built = steps * config.meta.tasks_per_step / (time.perf_counter() - started)
    built *= config.train.episode_builders  # of each worker, whose stream has all episodes
    used = config.meta.tasks_per_step / measured.seconds
    waiting = "builders wait for training" if built > used else "training waits for data: raise train.episode_builders"
    return f"data: builders make {built:,.0f} episodes/s, training uses up {used:,.1f}; {waiting}"
