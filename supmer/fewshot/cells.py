"""Cells of the comparison, task x pattern x method x seeds: what they are and what their results depend on (section 7)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from supmer.backbone.identity import backbone_identity
from supmer.config import Config, FewshotConfig
from supmer.config.effects import digest
from supmer.config.fewshot import RowCount
from supmer.config.values import with_settings
from supmer.fewshot.data import TaskRows
from supmer.fewshot.forms import asked
from supmer.fewshot.methods import METHODS
from supmer.fewshot.starting_points import StartingPoints
from supmer.fewshot.task import Task

TEST_CAP_SEED = 0

OWN_SETTINGS = {
    "perfect": "perfect",
    "lora_rank": "lora",
    "prefix_length": "prefix_tuning",
    "init": "prompt_tuning",
    "init_text": "prompt_tuning",
}
"""Settings of `fewshot` that one method alone reads."""


@dataclass(frozen=True)
class Cell:
    """One tuning run: the pattern is an index into the task's list, `seed` draws the rows, `training_seed` all else."""

    task: str
    pattern: int
    method: str
    seed: int
    k: RowCount
    training_seed: int

    @property
    def name(self) -> str:
        """Name of the cell's folder; the training seed is left out where it is the data seed."""
        training = "" if self.training_seed == self.seed else f".training{self.training_seed}"
        return f"{self.task}.{self.method}.k{self.k}.pattern{self.pattern}.seed{self.seed}{training}"


@dataclass(frozen=True)
class PreparedTask:
    """A task with its rows; the test rows are those that will be scored.

    `unknown` is the share of the rows' tokens that the tokenizer does not know.
    """

    task: Task
    rows: TaskRows
    unknown: float = 0.0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over definition and rows."""
        # How a method asks the task beside its patterns is of that method's cells only: `cell_keys`.
        asked_otherwise = {"folder", "hub", "causal_patterns", "answers", "plain"}
        unset = {name for name in ("further_words", "label_weights") if getattr(self.task, name) is None}
        digest = hashlib.sha256(self.task.model_dump_json(exclude=asked_otherwise | unset).encode())
        for row in (*self.rows.train, *self.rows.test):
            digest.update(json.dumps([sorted(row.fields.items()), row.label]).encode())
        return digest.hexdigest()


def plan_cells(config: Config, tasks: Mapping[str, PreparedTask]) -> list[Cell]:
    """List all cells, those of a task together."""
    settings = config.fewshot
    return [
        Cell(name, pattern, method, seed, k, training_seed)
        for name, prepared in tasks.items()
        for pattern in range(len(prepared.task.patterns) if settings.patterns == "all" else 1)
        for k in settings.k
        for method in settings.methods
        if pattern < len(asked(prepared.task, METHODS[method].form).patterns)
        for seed in settings.seeds
        for training_seed in ([seed] if settings.training_seeds is None else settings.training_seeds)
    ]


def cap_test_rows(rows: TaskRows, max_test_rows: int | None) -> TaskRows:
    """Keep so many test rows, drawn by a fixed seed (files are often sorted by class), in their order."""
    if max_test_rows is None or len(rows.test) <= max_test_rows:
        return rows
    kept = np.random.default_rng(TEST_CAP_SEED).permutation(len(rows.test))[:max_test_rows]
    return rows._replace(test=[rows.test[index] for index in sorted(kept)])


def cell_keys(
    config: Config, tasks: Mapping[str, PreparedTask], points: StartingPoints, cells: list[Cell]
) -> dict[Cell, str]:
    """Return a hash per cell over all that its result depends on; a finished cell with the same key is not run again."""
    backbone = backbone_identity(config.backbone)
    named = {"prompt": points.prompt, "regularizer": points.regularizer, "unified_ppt_prompt": points.unified_ppt_prompt}
    starts = {name: _tensor_digest(value) for name, value in named.items()}
    of_format = {
        task_format: starts | {"ppt_prompt": _tensor_digest(points.ppt_prompt_of(task_format))}
        for task_format in {prepared.task.format for prepared in tasks.values()}
    }
    others = sorted(prepared.digest for prepared in tasks.values()) if config.fewshot.transfer else []

    keys = {}
    for cell in cells:
        settings = digest(settings_of(config, cell.method), "tuning", sources=False)
        method, task = METHODS[cell.method], tasks[cell.task]
        own_starts = [of_format[task.task.format][need] for need in sorted(method.needs)]
        own_form = [asked(task.task, method.form).patterns] if method.form != "pattern" else []
        identity = dict(vars(cell))
        if cell.training_seed == cell.seed:  # so that cells stay finished that know one seed only
            del identity["training_seed"]
        revision = [{"revision": method.revision}] if method.revision else []
        decisive = [backbone, settings, others, task.digest, identity, own_starts, *own_form, *revision]
        keys[cell] = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]
    return keys


def settings_of(config: Config, method: str) -> Config:
    """Return the settings as a method sees them: with its own learning rate, and without those of another method."""
    default = METHODS[method].rate or config.fewshot.learning_rate
    rate, unset = config.fewshot.learning_rates.get(method, default), FewshotConfig()
    foreign = {name: getattr(unset, name) for name, of_method in OWN_SETTINGS.items() if method != of_method}
    own = {"learning_rate": rate, "learning_rates": {}, **foreign}
    return with_settings(config, {f"fewshot.{name}": value for name, value in own.items()})


def _tensor_digest(value: torch.Tensor | dict[str, torch.Tensor] | None) -> str | None:
    if value is None:
        return None
    tensors = value if isinstance(value, dict) else {"": value}
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.float().contiguous().numpy().tobytes())
    return digest.hexdigest()
