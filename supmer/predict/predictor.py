"""Labels for new rows by a tuned prompt before its frozen backbone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax
from torch import Tensor

from supmer import storage
from supmer.backbone.batches import batch_tokens
from supmer.backbone.load import is_causal, load_tokenizer
from supmer.config import BackboneConfig, Config, FewshotConfig
from supmer.errors import UserError, one_line
from supmer.fewshot.data import Row
from supmer.fewshot.definition import DEFINITION_FILE, PromptDefinition, read_definition
from supmer.fewshot.labels import LabelWords, words_of
from supmer.fewshot.methods import METHODS
from supmer.fewshot.places import local_place
from supmer.fewshot.results import RESULTS_FILE, Results, cell_of
from supmer.fewshot.scoring import PromptedTask, Scores, score_rows
from supmer.fewshot.starting_points import read_prompt, read_tensors
from supmer.fewshot.template import Template
from supmer.fewshot.tuning import Context, Score
from supmer.model.build import build_model
from supmer.predict.rows import UnusableRowError, read_row
from supmer.tasks.episode import Example

GPU_PASS_TOKENS = 16384
"""Padded encoder positions per forward pass on a GPU."""


class Predictions(NamedTuple):
    """The label word of each of N rows, and the probability of each of C label words [N, C], in the task's order.

    >>> labels, probabilities = Predictions(["graphs"], np.array([[0.25, 0.75]], np.float32))
    >>> labels[0], probabilities[0].max()
    ('graphs', np.float32(0.75))
    """

    labels: list[str]
    probabilities: npt.NDArray[np.float32]


class FrozenBackbone:
    """A backbone, loaded once, before which many tuned prompts stand; rows of all of them are computed together.

    Args:
        config: which model.
        device: where to compute; default: the GPU where there is one.
    """

    def __init__(self, config: BackboneConfig, device: torch.device | str | None = None) -> None:
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = build_model(Config(backbone=config)).to(self.device)
        self.tokenizer = load_tokenizer(config)
        self.causal = is_causal(config)
        self.tasks: dict[str, tuple[PromptedTask | Score, Template]] = {}

    def add(self, name: str, definition: PromptDefinition, tuned: Tensor | dict[str, Tensor]) -> None:
        """Take what was tuned, a prompt [L, d] of any length or the parts of a method, in place of what has the name.

        Raises:
            UserError: prompt, parts, label words or pattern do not fit the backbone.
        """
        task, room = definition.task, definition.max_input_tokens
        words = words_of(task, self.tokenizer, causal=self.causal)
        template = Template(task, task.patterns[0], words, self.tokenizer, room, definition.num_masks)
        if isinstance(tuned, dict):
            self.tasks[name] = self._scorer(definition, tuned, words), template
            return
        if tuned.shape[1] != self.model.width:
            problem = f"has width {tuned.shape[1]}, backbone {definition.backbone.name} has {self.model.width}"
            raise UserError(f"task {task.name}: its prompt {problem}")
        self.tasks[name] = PromptedTask(tuned.to(self.device), words), template

    def _scorer(self, definition: PromptDefinition, parts: dict[str, Tensor], words: LabelWords) -> Score:
        scorer = METHODS[definition.method].scorer if definition.method else None
        assert scorer is not None, "parts are read by `read_tuned`"
        fewshot = {} if definition.perfect is None else {"perfect": definition.perfect}
        try:
            return scorer(Context(Config(fewshot=FewshotConfig(**fewshot)), self.model), parts, words)
        except (KeyError, RuntimeError) as error:
            problem = f"the parts of {definition.method} do not fit backbone {definition.backbone.name}"
            raise UserError(f"task {definition.task.name}: {problem} ({one_line(error)})") from error

    def scores(self, rows: Sequence[tuple[str, Row]]) -> list[Scores]:
        """Return the scores of its task's label words [C] for each of N rows, which are named by the task's name."""
        scores: list[Scores] = [np.empty(0, dtype=np.float32)] * len(rows)
        prompted: dict[str, PromptedTask] = {}
        encoded: dict[int, Example] = {}
        for name in dict.fromkeys(name for name, _ in rows):
            tuned, template = self.tasks[name]
            own = [index for index, (of_row, _) in enumerate(rows) if of_row == name]
            examples = template.encode([rows[index][1] for index in own])
            if isinstance(tuned, PromptedTask):
                prompted[name] = tuned
                encoded.update(zip(own, examples, strict=True))
                continue
            for index, found in zip(own, tuned(examples), strict=True):
                scores[index] = found
        if together := sorted(encoded):
            number = {name: index for index, name in enumerate(prompted)}
            found_scores = score_rows(
                self.model,
                list(prompted.values()),
                [encoded[index] for index in together],
                [number[rows[index][0]] for index in together],
                batch_tokens(GPU_PASS_TOKENS, self.device),
            )
            for index, found in zip(together, found_scores, strict=True):
                scores[index] = found
        return scores


class Predictor:
    """A frozen backbone under one tuned prompt.

    Args:
        definition: the task, the backbone, and how long a row may be.
        tuned: the prompt [L, d], or the parts of a method.
        device: where to compute; default: the GPU where there is one.

    Examples:
        >>> from supmer import Predictor
        >>> predictor = Predictor.load("runs/quickstart")  # doctest: +SKIP
        >>> predictor.predict([{"text": "Return the shortest path between two nodes."}]).labels  # doctest: +SKIP
        ['graphs']
    """

    def __init__(
        self,
        definition: PromptDefinition,
        tuned: Tensor | dict[str, Tensor],
        device: torch.device | str | None = None,
    ) -> None:
        self.task = definition.task
        self.backbone = FrozenBackbone(definition.backbone, device)
        self.backbone.add(self.task.name, definition, tuned)

    @classmethod
    def load(cls, run: str, cell: str | None = None, device: torch.device | str | None = None) -> Predictor:
        """Load a prompt that `prompt_tune` has tuned.

        Args:
            run: a run directory, the folder of one of its cells (which may be a copy), a PEFT adapter exported from one,
                or `hf://user/repo` with any of these.
            cell: name of a folder in `<run>/fewshot`; default: the one with the best score on dev (the first of equals).
            device: where to compute; default: the GPU where there is one.

        Raises:
            UserError: there is no such run, cell or prompt, or the run has prompts of several tasks and none is named.
        """
        folder = find_cell(run, cell)
        definition = read_definition(folder)
        return cls(definition, read_tuned(folder, definition), device)

    def predict(self, rows: Sequence[Mapping[str, Any]]) -> Predictions:
        """Label rows, each a mapping with the task's fields; other keys are left alone.

        Raises:
            UserError: a row (named by its index) lacks a field, or holds one that is no text or empty.
        """
        read = []
        for index, row in enumerate(rows):
            try:
                read.append(read_row(self.task, row))
            except UnusableRowError as error:
                raise UserError(f"row {index}: {error}") from error
        return self.label(read)

    def label(self, rows: Sequence[Row]) -> Predictions:
        """Label rows that have been read."""
        scores = self.scores(rows)
        words = [self.task.label_words[index] for index in scores.argmax(axis=1)]
        return Predictions(words, probabilities(scores))

    def scores(self, rows: Sequence[Row]) -> Scores:
        """Return what probabilities are made of by softmax, the score of each label word [N, C], as in `details.json`."""
        found = self.backbone.scores([(self.task.name, row) for row in rows])
        return np.stack(found) if found else np.empty((0, len(self.task.label_words)), dtype=np.float32)


def probabilities(scores: Scores) -> npt.NDArray[np.float32]:
    """Return the probabilities that scores [..., C] make."""
    found: npt.NDArray[np.float32] = softmax(scores.astype(np.float64), axis=-1).astype(np.float32)
    return found


def read_tuned(folder: str, definition: PromptDefinition) -> Tensor | dict[str, Tensor]:
    """Return the prompt [L, d] in the folder of a cell, or the parts that its method has trained.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    if definition.method is None:
        return read_prompt(folder, "--run")
    if definition.method not in METHODS or METHODS[definition.method].scorer is None:
        raise UserError(f"{folder}: {DEFINITION_FILE} names a method that leaves no parts: {definition.method!r}")
    return read_tensors(folder, f"{definition.method}.safetensors", "--run")


def find_cell(run: str, cell: str | None = None) -> str:
    """Return the folder of a tuned prompt: `run` itself, the named cell of a run, or its best by the score on dev.

    Raises:
        UserError: there is none, or the run has prompts of several tasks and none is named.
    """
    run = local_place(run, "--run")
    if cell is None and storage.exists(storage.join(run, DEFINITION_FILE)):
        return run
    if not storage.exists(storage.join(run, RESULTS_FILE)):
        raise UserError(f"--run {run}: has no {RESULTS_FILE}; tune a prompt first (supmer prompt-tune), or name another run")
    records = Results(run).records
    folders = {cell_of(record).name: storage.join(run, "fewshot", cell_of(record).name) for record in records}
    if cell is not None:
        if cell not in folders:
            raise UserError(f"--cell {cell}: must be one of {', '.join(sorted(folders)) or 'none: the run has no results'}")
        if not storage.exists(storage.join(folders[cell], DEFINITION_FILE)):
            raise UserError(f"--cell {cell}: its method leaves no prompt")
        return folders[cell]
    best = sorted(records, key=lambda record: -record["dev_score"])
    with_prompt = [record for record in best if storage.exists(storage.join(folders[cell_of(record).name], DEFINITION_FILE))]
    tasks = sorted({record["task"] for record in with_prompt})
    if not tasks:
        raise UserError(f"--run {run}: none of its cells left a prompt")
    if len(tasks) > 1:
        raise UserError(f"--cell must name a cell: {run} has prompts of the tasks {', '.join(tasks)}")
    return folders[cell_of(with_prompt[0]).name]
