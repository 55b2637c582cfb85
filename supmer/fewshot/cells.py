"""Cells of the comparison, task x pattern x method x data seed: what they are and how one is computed (section 7)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from supmer.backbone.load import backbone_identity, load_tokenizer
from supmer.config import Config
from supmer.fewshot.data import Row, TaskRows, draw_split
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods import METHODS
from supmer.fewshot.scoring import Scores, evaluate, score_labels
from supmer.fewshot.starting_points import StartingPoints, build_regularizer
from supmer.fewshot.task import Task
from supmer.fewshot.template import Template
from supmer.fewshot.tuning import Bench, CurvePoint, FewShotRows, Tuned
from supmer.model.prompted import build_model

TEST_CAP_SEED = 0


@dataclass(frozen=True)
class Cell:
    """One tuning run: the pattern is an index into the task's list."""

    task: str
    pattern: int
    method: str
    seed: int
    k: int

    @property
    def name(self) -> str:
        """Name of the cell's folder."""
        return f"{self.task}.{self.method}.k{self.k}.pattern{self.pattern}.seed{self.seed}"


@dataclass(frozen=True)
class PreparedTask:
    """A task with its rows; the test rows are those that will be scored."""

    task: Task
    rows: TaskRows

    @cached_property
    def digest(self) -> str:
        """SHA-256 over definition and rows."""
        digest = hashlib.sha256(self.task.model_dump_json(exclude={"folder", "hub"}).encode())
        for row in (*self.rows.train, *self.rows.test):
            digest.update(json.dumps([sorted(row.fields.items()), row.label]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class TransferScore:
    """The score of a cell's tuned prompt on another task."""

    target: str
    metric: str
    score: float
    num_test: int


@dataclass(frozen=True)
class CellResult:
    """What a cell found: test scores [N, C] of the rows with `labels` [N], and the tuned prompt [L, d] (L may be 0)."""

    cell: Cell
    pattern_text: str
    label_words: list[str]
    metric: str
    score: float
    dev_score: float
    best_step: int
    num_train: int
    num_dev: int
    seconds: float
    scores: Scores
    labels: list[int]
    curve: list[CurvePoint]
    prompt: np.ndarray[Any, Any]
    transfer: list[TransferScore]


def plan_cells(config: Config, tasks: Mapping[str, PreparedTask]) -> list[Cell]:
    """List all cells, those of a task together."""
    settings = config.fewshot
    return [
        Cell(name, pattern, method, seed, k)
        for name, prepared in tasks.items()
        for pattern in range(len(prepared.task.patterns) if settings.patterns == "all" else 1)
        for k in settings.k
        for method in settings.methods
        for seed in settings.seeds
    ]


def cap_test_rows(rows: TaskRows, max_test_rows: int | None) -> TaskRows:
    """Keep so many test rows, drawn by a fixed seed (files are often sorted by class), in their order."""
    if max_test_rows is None or len(rows.test) <= max_test_rows:
        return rows
    kept = np.random.default_rng(TEST_CAP_SEED).permutation(len(rows.test))[:max_test_rows]
    return rows._replace(test=[rows.test[index] for index in sorted(kept)])


TUNING_SETTINGS = ("steps", "batch_size", "learning_rate", "fine_tuning_rate", "eval_every", "norm", "transfer")
"""Settings of `fewshot` that decide how a cell turns out."""


def cell_keys(
    config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints, cells: list[Cell]
) -> dict[Cell, str]:
    """Return a hash per cell over all that its result depends on; a finished cell with the same key is not run again."""
    shared = {
        "backbone": backbone_identity(config.backbone),
        "model": config.backbone.model_dump(include={"dtype", "dropout"}),
        "lengths": [config.tasks.max_length, config.prompt.length],
        "pooling": config.meta.pooling,
        "regularizer": config.regularizer.model_dump(include={"gate", "normalize"}),
    }
    digests = {"prompt": points.prompt, "regularizer": points.regularizer, "ppt_prompt": points.ppt_prompt}
    starts = {name: _tensor_digest(value) for name, value in digests.items()}
    others = sorted(prepared.digest for prepared in tasks.values()) if config.fewshot.transfer else []

    def key(cell: Cell) -> str:
        settings = config.fewshot.for_method(cell.method).model_dump(include=set(TUNING_SETTINGS))
        own_starts = [starts[need] for need in sorted(METHODS[cell.method].needs)]
        return _digest([{**shared, "fewshot": settings}, others, tasks[cell.task].digest, vars(cell), own_starts])

    return {cell: key(cell) for cell in cells}


class CellRunner:
    """Computes cells on one backbone, loaded once.

    Args:
        config: the configuration.
        tasks: all tasks of the comparison by name.
        points: starting points of the methods.
    """

    def __init__(self, config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints) -> None:
        torch.set_num_threads(max(1, int(config.fewshot.cpus_per_cell)))
        device = torch.device("cuda" if config.fewshot.gpus_per_cell > 0 else "cpu")
        self.config = config
        self.tasks = tasks
        self.tokenizer = load_tokenizer(config.backbone)
        self.bench = _build_bench(config, points, device)
        self._encoded_test: dict[tuple[str, int], EncodedTask] = {}

    def run(self, cell: Cell) -> CellResult:
        """Tune and score one cell."""
        started = time.monotonic()
        rows = self._few_shot_rows(cell)
        tuned = METHODS[cell.method].tune(self._bench_of(cell.method), rows)
        test = self._encoded(cell.task, cell.pattern)
        scores = self._scores(tuned, test)
        return CellResult(
            cell=cell,
            pattern_text=self.tasks[cell.task].task.patterns[cell.pattern],
            label_words=self.tasks[cell.task].task.label_words,
            metric=rows.metric,
            score=evaluate(scores, test.examples, rows.metric),
            dev_score=tuned.dev_score,
            best_step=tuned.best_step,
            num_train=len(rows.train),
            num_dev=len(rows.dev),
            scores=scores,
            labels=[example.label for example in test.examples],
            curve=tuned.curve,
            prompt=tuned.prompt.cpu().numpy(),
            transfer=list(self._transfer(cell, tuned)),
            seconds=time.monotonic() - started,
        )

    def _bench_of(self, method: str) -> Bench:
        settings = self.config.fewshot.for_method(method)
        return replace(self.bench, config=self.config.model_copy(update={"fewshot": settings}))

    def _few_shot_rows(self, cell: Cell) -> FewShotRows:
        prepared = self.tasks[cell.task]
        split = draw_split(prepared.task, prepared.rows.train, cell.k, cell.seed)
        template = build_template(self.config, prepared.task, cell.pattern, self.tokenizer)
        train, dev = ([prepared.rows.train[index] for index in indices] for indices in split)
        encoded = template.encode(train), template.encode(dev)
        return FewShotRows(template.words, *encoded, metric=prepared.task.metric, seed=cell.seed)

    def _encoded(self, task: str, pattern: int) -> EncodedTask:
        if (task, pattern) not in self._encoded_test:
            prepared = self.tasks[task]
            template = build_template(self.config, prepared.task, pattern, self.tokenizer)
            self._encoded_test[task, pattern] = EncodedTask(template, prepared.rows.test)
        return self._encoded_test[task, pattern]

    def _scores(self, tuned: Tuned, test: EncodedTask) -> Scores:
        return score_labels(tuned.model, tuned.prompt, test.examples, test.words, self.bench.max_tokens)

    def _transfer(self, cell: Cell, tuned: Tuned) -> Iterator[TransferScore]:
        if not self.config.fewshot.transfer:
            return
        for target in transfer_targets(self.tasks, cell.task):
            test = self._encoded(target, 0)
            metric = self.tasks[target].task.metric
            score = evaluate(self._scores(tuned, test), test.examples, metric)
            yield TransferScore(target, metric, score, len(test.examples))


class EncodedTask:
    """The test rows of a task as examples."""

    def __init__(self, template: Template, rows: list[Row]) -> None:
        self.words: LabelWords = template.words
        self.examples = template.encode(rows)


def transfer_targets(tasks: Mapping[str, PreparedTask], source: str) -> list[str]:
    """Return the other tasks of the same format that share no sentences with `source`."""
    task = tasks[source].task
    return [
        name
        for name, other in tasks.items()
        if name != source
        and other.task.format == task.format
        and name not in task.shares_text_with
        and source not in other.task.shares_text_with
    ]


def build_template(config: Config, task: Task, pattern: int, tokenizer: Any) -> Template:
    """Return the encoder of a task's rows under one of its patterns; UserError for unusable label words."""
    words = LabelWords(task.label_words, tokenizer, task.name)
    return Template(task, task.patterns[pattern], words, tokenizer, config.max_input_tokens)


def _build_bench(config: Config, points: StartingPoints, device: torch.device) -> Bench:
    model = build_model(config).to(device)
    regularizer = None
    if points.regularizer is not None:
        width = model.backbone.config.d_model
        regularizer = build_regularizer(points.regularizer, config, width, "fewshot.from_run").to(device)
    prompts = [None if prompt is None else prompt.to(device) for prompt in (points.prompt, points.ppt_prompt)]
    return Bench(config, model, prompts[0], regularizer, prompts[1])


def _tensor_digest(value: torch.Tensor | dict[str, torch.Tensor] | None) -> str | None:
    if value is None:
        return None
    tensors = value if isinstance(value, dict) else {"": value}
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
