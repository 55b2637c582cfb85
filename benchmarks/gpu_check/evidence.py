"""A result from a short lease: meta-training of a real model, then the tuning of a few cells, in this process alone.

All is kept as the jobs keep it: the state of training every 20 seconds, each finished cell at once. The same command goes on
where it was stopped, so several leases add up. Needs pyarrow besides, a store that `supmer prepare` has made, and files of
tasks.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load as load_safetensors
from torch import Tensor

from gpu_check.report import Report, device_name
from supmer import storage
from supmer.backbone.load import is_causal
from supmer.config import Config
from supmer.config.scalars import parse_yaml
from supmer.config.values import to_yaml, validate
from supmer.corpus.store import TaskStore
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import PreparedTask, cap_test_rows, cell_keys, plan_cells
from supmer.fewshot.data import load_rows
from supmer.fewshot.results import Results
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.task import load_task
from supmer.meta.group import LocalGroup
from supmer.meta.learner import Learner, build_learner
from supmer.meta.record import StepRecord
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.checkpoint import serialize
from supmer.train.loop import Episodes, Request, train
from supmer.train.metrics import MetricsLog
from supmer.train.run_dir import RunDirectory

SECTION = "evidence"
TRAINING_SHARE = 0.6
"""Of the minutes; the rest is for cells."""
SAVE_SECONDS = 20
STATE_FILE = "state.safetensors"
METHODS = ("zero_shot", "prompt_tuning", "supmer_no_regularizer", "supmer")


@dataclass(frozen=True)
class Evidence:
    """What the command line says: a model's folder, its store, the folder of task data, minutes, where results go."""

    model: str
    store: str
    data_dir: str
    run: str
    minutes: float
    tasks: tuple[str, ...]
    settings: dict[str, dict[str, object]]

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> Evidence:
        """Return what `benchmarks/gpu.py` was told."""
        settings = parse_yaml(Path(arguments.settings).read_text(encoding="utf-8")) if arguments.settings else {}
        run, tasks = str(Path(arguments.run).absolute()), tuple(arguments.tasks)
        return cls(arguments.evidence, arguments.store, arguments.data_dir, run, arguments.minutes, tasks, settings)

    def config(self, device: torch.device) -> Config:
        """Return the configuration: published settings, unless `settings` say otherwise."""
        folder, name = str(Path(self.run).parent), Path(self.run).name
        cells = {"tasks": list(self.tasks), "data_dir": self.data_dir, "methods": list(METHODS), "seeds": [1, 2, 3]}
        own: dict[str, dict[str, object]] = {
            "run": {"dir": folder, "name": name},
            "backbone": {"name": self.model, "dtype": "bfloat16" if device.type == "cuda" else "float32"},
            "fewshot": {**cells, "gpus_per_cell": int(device.type == "cuda"), "max_test_rows": 1000},
        }
        for section, values in self.settings.items():
            own[section] = {**own.get(section, {}), **values}
        return validate(own)


class Lease:
    """The process that the training loop runs in: keeps records and the state, and stops when the time is up."""

    def __init__(self, config: Config, learner: Learner, seconds: float) -> None:
        self._metrics = MetricsLog(RunDirectory(config.run_dir).metrics, learner.next_step)
        self._state = storage.join(config.run_dir, STATE_FILE)
        self._end, self._saved = time.monotonic() + seconds, time.monotonic()

    def record(self, record: StepRecord) -> None:
        self._metrics.append(record)

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        if "validation_query_loss" in metrics:
            print(f"step {metrics['step']}: validation query loss {metrics['validation_query_loss']:.3f}", flush=True)
        if state is not None:
            self._metrics.sync()
            storage.write_bytes(self._state, serialize(state))
            self._saved = time.monotonic()

    def warn(self, text: str) -> None:
        print(f"warning: {text}", flush=True)

    def request(self) -> Request:
        if time.monotonic() >= self._end:
            return Request.STOP
        return Request.SAVE if time.monotonic() - self._saved > SAVE_SECONDS else Request.NOTHING


def run(evidence: Evidence, device: torch.device, report: Report) -> None:
    """Train for a part of the minutes, then compute cells until they are over."""
    end = time.monotonic() + 60 * evidence.minutes
    config = evidence.config(device)
    learner = _train(config, TaskStore.open(evidence.store), device, 60 * evidence.minutes * TRAINING_SHARE)
    what = f"{Path(evidence.model).name} on {device_name(device)}, meta-steps"
    report.line(SECTION, what, f"{learner.next_step} of {config.meta.steps}")
    regularizer = None if learner.regularizer is None else learner.regularizer.state_dict()
    points = StartingPoints(learner.prompt.detach(), regularizer)
    for line, figure in _cells(config, points, end):
        report.line(SECTION, line, figure)


def _train(config: Config, store: TaskStore, device: torch.device, seconds: float) -> Learner:
    learner = build_learner(config, store.centroids, device, LocalGroup())
    state = storage.join(config.run_dir, STATE_FILE)
    if storage.exists(state):
        learner.load_state_dict(load_safetensors(storage.read_bytes(state)))
    directory = RunDirectory(config.run_dir)
    storage.write_bytes(directory.config, to_yaml(config).encode())
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)

    def coming() -> Iterator[list[Episode]]:
        for step in range(learner.next_step, config.meta.steps):
            yield [sampler.episode(step, slot) for slot in range(config.meta.tasks_per_step)]

    kinds, count = config.tasks.kinds, range(config.train.validation_episodes)
    validation = {kind: [sampler.validation_episode(kind, index) for index in count] for kind in kinds}
    if learner.next_step < config.meta.steps:
        train(config, learner, Episodes(coming(), validation), Lease(config, learner, seconds))
    storage.write_bytes(directory.prompt, serialize({"prompt": learner.prompt.detach().float()}))
    if learner.regularizer is not None:
        storage.write_bytes(directory.regularizer, serialize(learner.regularizer.state_dict()))
    return learner


def _cells(config: Config, points: StartingPoints, end: float) -> Iterator[tuple[str, str]]:
    """Compute missing cells, one seed of all tasks and methods before the next, and yield each one's name and score."""
    tasks = {}
    for name in config.fewshot.tasks:
        task = load_task(name)
        task = task.for_causal() if is_causal(config.backbone) else task
        rows = load_rows(task, config.fewshot.data_dir)
        tasks[task.name] = PreparedTask(task, cap_test_rows(rows, config.fewshot.max_test_rows))
    cells = plan_cells(config, tasks)
    keys, results = cell_keys(config, tasks, points, cells), Results(config.run_dir)
    runner = CellRunner(config, tasks, points)
    for cell in sorted(cells, key=lambda cell: (cell.seed, cell.task, cell.method)):
        if time.monotonic() >= end:
            break
        if not results.is_finished(cell, keys[cell]):
            results.add(runner.run(cell), keys[cell])
    for record in results.of(cells):
        name = f"{record['task']}, {record['method']}, data seed {record['seed']}"
        yield name, f"{record['score']:.3f} of {record['num_test']} test rows, dev {record['dev_score']:.3f}"
