"""Computing a cell: the task's rows are encoded, the method tunes, the test rows are scored (section 7)."""

from __future__ import annotations

import functools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import mean
from typing import Any

import numpy as np
import torch

from supmer.backbone.load import is_causal, load_tokenizer
from supmer.config import Config
from supmer.fewshot.cells import Cell, PreparedTask, settings_of
from supmer.fewshot.data import class_weights, draw_split
from supmer.fewshot.definition import PromptDefinition, define
from supmer.fewshot.forms import Form, asked
from supmer.fewshot.labels import LabelWords, words_of
from supmer.fewshot.methods import METHODS
from supmer.fewshot.scoring import Scores, evaluate, score_labels
from supmer.fewshot.starting_points import StartingPoints, build_regularizer
from supmer.fewshot.task import Task
from supmer.fewshot.template import Template
from supmer.fewshot.tuning import Context, CurvePoint, FewShotRows
from supmer.memory import peak_memory, reset_peak_memory
from supmer.model.build import build_model
from supmer.tasks.episode import Example


@dataclass(frozen=True)
class TransferScore:
    """The score of a cell's tuned prompt on another task."""

    target: str
    metric: str
    score: float
    num_test: int


@dataclass(frozen=True)
class CellResult:
    """What a cell found: test scores [N, C] of the rows with `labels` [N], and the tuned prompt [L, d] (L may be 0).

    `metrics` are those of the task on the test rows, `score` is their mean. `parts` are what the method trained in place of
    a prompt, `definition` is what either is to be used with, `peak_bytes` is the most memory in use meanwhile (0 where
    unknown), `processor_seconds` are those of all threads of the process, whatever else the machine did.
    """

    cell: Cell
    pattern_text: str
    label_words: list[str]
    metrics: dict[str, float]
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
    definition: PromptDefinition
    peak_bytes: int = 0
    processor_seconds: float = 0.0
    parts: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """The mean of the metrics."""
        return mean(self.metrics.values())


class CellRunner:
    """Computes cells on one backbone, loaded once; `tasks` are all those of the comparison."""

    def __init__(self, config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints) -> None:
        torch.set_num_threads(max(1, int(config.fewshot.cpus_per_cell)))
        self.config, self.tasks, self.points = config, tasks, points
        self.tokenizer = load_tokenizer(config.backbone)
        model = build_model(config).to("cuda" if config.fewshot.gpus_per_cell > 0 else "cpu")
        regularizer = None
        if points.regularizer is not None:
            regularizer = build_regularizer(points.regularizer, config, model.width, "fewshot.from_run").to(model.device)
        unified = points.unified_ppt_prompt
        self.context = Context(
            config, model, points.prompt, regularizer, unified_ppt_prompt=unified, tokenizer=self.tokenizer
        )
        self.test_rows = functools.cache(self._encode_test_rows)

    def run(self, cell: Cell) -> CellResult:
        """Tune and score one cell."""
        started, worked = time.monotonic(), time.process_time()
        reset_peak_memory(self.context.device)
        method, rows = METHODS[cell.method], self.tasks[cell.task].rows
        task = asked(self.tasks[cell.task].task, method.form)
        template = build_template(self.config, self.tasks[cell.task].task, cell.pattern, self.tokenizer, method.form)
        split = draw_split(task, rows.train, cell.k, cell.seed)
        train, dev = (template.encode([rows.train[index] for index in indices]) for indices in split)
        ppt_prompt = self.points.ppt_prompt_of(task.format)
        context = replace(self.context, config=settings_of(self.config, cell.method), ppt_prompt=ppt_prompt)
        weights = class_weights(task, [example.label for example in train])
        few_shot = FewShotRows(template.words, train, dev, task.metrics, cell.training_seed, weights)
        tuned = method.tune(context, few_shot)

        def score(name: str, pattern: int) -> tuple[Scores, dict[str, float], list[int]]:
            words, examples = self.test_rows(name, pattern, method.form)
            if method.scorer is None:
                found = score_labels(tuned.model, tuned.prompt, examples, words, context.max_tokens)
            else:
                found = method.scorer(context, tuned.parts, words)(examples)
            return found, evaluate(found, examples, self.tasks[name].task.metrics), [row.label for row in examples]

        scores, metrics, labels = score(cell.task, cell.pattern)
        transfer = []
        # What a method without label words has trained is of its task's classes.
        moves = self.config.fewshot.transfer and method.form != "plain"
        for target in transfer_targets(self.tasks, cell.task) if moves else []:
            _, found, target_labels = score(target, 0)
            transfer.append(TransferScore(target, " and ".join(found), mean(found.values()), len(target_labels)))
        return CellResult(
            cell=cell,
            pattern_text=task.patterns[cell.pattern],
            label_words=task.label_words,
            metrics=metrics,
            dev_score=tuned.dev_score,
            best_step=tuned.best_step,
            num_train=len(train),
            num_dev=len(dev),
            scores=scores,
            labels=labels,
            curve=tuned.curve,
            prompt=tuned.prompt.cpu().numpy(),
            transfer=transfer,
            definition=define(self.config, task, cell.pattern, cell.method if tuned.parts else None),
            parts={name: tensor.cpu().numpy() for name, tensor in tuned.parts.items()},
            peak_bytes=peak_memory(self.context.device),
            seconds=time.monotonic() - started,
            processor_seconds=time.process_time() - worked,
        )

    def _encode_test_rows(self, task: str, pattern: int, form: Form) -> tuple[LabelWords, list[Example]]:
        """Return the test rows of a task, asked in a form, and what its classes are scored by."""
        template = build_template(self.config, self.tasks[task].task, pattern, self.tokenizer, form)
        return template.words, template.encode(self.tasks[task].rows.test)


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


def build_template(config: Config, task: Task, pattern: int, tokenizer: Any, form: Form) -> Template:
    """Return the encoder of a task's rows, asked in a form under one of its patterns; UserError for unusable label words."""
    task = asked(task, form)
    words = words_of(task, tokenizer, causal=is_causal(config.backbone))
    num_masks = config.fewshot.perfect.num_masks if form == "plain" else 0
    return Template(task, task.patterns[pattern], words, tokenizer, config.max_input_tokens, num_masks)
