"""Label-word scores of rows, and the metrics made of them (section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from statistics import mean
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from supmer.backbone.batches import plan_microbatches
from supmer.corpus.unit import TokenIds
from supmer.fewshot.labels import LabelWords
from supmer.model.prompted import PromptedModel
from supmer.model.rows import IGNORED_LABEL, Rows, collate
from supmer.tasks.episode import Example

Scores = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class PromptedTask(NamedTuple):
    """A prompt [L, d] (L may be 0), and the label words by which rows under it are scored."""

    prompt: Tensor
    words: LabelWords


def score_labels(
    model: PromptedModel, prompt: Tensor, examples: Sequence[Example], words: LabelWords, max_tokens: int
) -> Scores:
    """Return the score of every label word for every row of one task [N, C]; the highest is the prediction.

    Arguments are those of `score_rows`.
    """
    task = PromptedTask(prompt, words)
    rows = score_rows(model, [task], examples, [0] * len(examples), max_tokens)
    return np.stack(rows) if rows else np.empty((0, max(words.classes) + 1), dtype=np.float32)


@torch.inference_mode()
def score_rows(
    model: PromptedModel,
    tasks: Sequence[PromptedTask],
    examples: Sequence[Example],
    task_index: Sequence[int],
    max_tokens: int,
) -> list[Scores]:
    """Return the scores of its task's label words [C] for each row; rows of different tasks share forward passes.

    Args:
        model: the backbone; it is left in evaluation mode.
        tasks: T tasks; their prompts may differ in length.
        examples: N rows; their labels are not looked at.
        task_index: the task of each row.
        max_tokens: padded encoder positions per forward pass.
    """
    model.eval()
    # A shorter prompt is filled up at its start: the positions of prompt and row by each other, and so all states, stay.
    longest = max((len(task.prompt) for task in tasks), default=0)
    prompts = torch.stack([functional.pad(task.prompt, (0, 0, longest - len(task.prompt), 0)) for task in tasks])
    mask = None
    if any(len(task.prompt) < longest for task in tasks):
        lengths = torch.tensor([len(task.prompt) for task in tasks], device=prompts.device)
        mask = (torch.arange(longest, device=prompts.device) >= longest - lengths.unsqueeze(1)).long()

    def logits_of(chosen: Sequence[tuple[int, TokenIds]]) -> tuple[Tensor, Rows]:
        """Return the logits [B, D, V] of rows with their targets."""
        targets = [replace(examples[row], target_ids=target) for row, target in chosen]
        rows = collate(targets, [task_index[row] for row, _ in chosen]).to(prompts.device)
        return model(prompts, rows, prompt_mask=mask).logits, rows

    scores: list[Scores] = [np.empty(0, dtype=np.float32)] * len(examples)
    words = [tasks[task].words for task in task_index]
    for single in (True, False):
        chosen = [row for row, of_row in enumerate(words) if of_row.single_position is single]
        copies = 1 if single else max((len(words[row].tokens) for row in chosen), default=1)
        sizes = [len(examples[row].input_ids) for row in chosen]
        for group in plan_microbatches(sizes, overhead=longest, max_tokens=max_tokens, copies=copies):
            rows = [chosen[index] for index in group]
            score = _score_first_tokens if single else _score_whole_words
            for row, found in zip(rows, score(model, logits_of, rows, words), strict=True):
                scores[row] = words[row].by_class(found.numpy())
    return scores


Logits = Callable[[Sequence[tuple[int, TokenIds]]], tuple[Tensor, Rows]]


def _score_first_tokens(
    model: PromptedModel, logits_of: Logits, rows: list[int], words: list[LabelWords]
) -> Iterator[Tensor]:
    tokens = list(dict.fromkeys(token for row in rows for token in words[row].first_tokens))
    column = {token: index for index, token in enumerate(tokens)}
    with _head_for(model, tokens):
        # The first token of a word sees at most `<X>` before it, so which class's target stands in makes no difference.
        logits = logits_of([(row, words[row].scored_target(0)) for row in rows])[0].cpu()  # all rows in one copy
    for number, row in enumerate(rows):
        yield logits[number, words[row].first_position, [column[token] for token in words[row].first_tokens]]


@contextmanager
def _head_for(model: PromptedModel, tokens: list[int]) -> Iterator[None]:
    """Let the model compute the logits of these tokens only, not of the whole vocabulary."""
    backbone = model.backbone
    whole = backbone.get_output_embeddings()
    narrow = nn.Linear(whole.in_features, len(tokens), bias=whole.bias is not None, device="meta")
    narrow.weight = nn.Parameter(whole.weight[tokens], requires_grad=False)
    if whole.bias is not None:
        narrow.bias = nn.Parameter(whole.bias[tokens], requires_grad=False)
    backbone.set_output_embeddings(narrow)
    try:
        yield
    finally:
        backbone.set_output_embeddings(whole)


def _score_whole_words(
    model: PromptedModel, logits_of: Logits, rows: list[int], words: list[LabelWords]
) -> Iterator[Tensor]:
    counts = [len(words[row].tokens) for row in rows]
    logits, copies = logits_of(
        [(row, words[row].scored_target(label)) for row, count in zip(rows, counts, strict=True) for label in range(count)]
    )
    scored = copies.labels.clone()
    scored[:, : words[rows[0]].first_position] = IGNORED_LABEL
    picked = logits.log_softmax(dim=-1).gather(-1, scored.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    ends = np.cumsum(counts)
    sums = picked.where(scored != IGNORED_LABEL, 0.0).sum(dim=1).cpu()
    yield from (sums[end - count : end] for end, count in zip(ends, counts, strict=True))


def accuracy(predictions: Ints, labels: Ints, weights: Floats) -> Floats:
    """Return the share of correct predictions."""
    return np.asarray(weights @ (predictions == labels).astype(float).T / weights.sum(axis=1, keepdims=True))


def macro_f1(predictions: Ints, labels: Ints, weights: Floats) -> Floats:
    """Return the mean F1 over the classes that occur or are predicted; a class never predicted has F1 0."""
    classes = np.union1d(labels, predictions)
    occur = [weights @ ((predictions == label) | (labels == label)).astype(float).T > 0 for label in classes]
    return np.asarray(sum(f1(predictions, labels, weights, label) for label in classes) / np.sum(occur, axis=0))


def f1(predictions: Ints, labels: Ints, weights: Floats, label: int = 1) -> Floats:
    """Return the F1 of class 1, or another; 0 where it neither occurs nor is predicted."""
    hits = weights @ ((predictions == label) & (labels == label)).astype(float).T
    occurrences = weights @ ((predictions == label).astype(float) + (labels == label)).T
    return np.asarray(np.divide(2 * hits, occurrences, out=np.zeros_like(hits), where=occurrences > 0))


METRICS: dict[str, Callable[[Ints, Ints, Floats], Floats]] = {"accuracy": accuracy, "macro_f1": macro_f1, "f1": f1}
"""Of predictions [P, N] for labels [N], rows weighted by [B, N]: the metric [B, P]."""


def evaluate(scores: Scores, examples: Sequence[Example], metrics: Sequence[str]) -> dict[str, float]:
    """Return metrics of the predictions that scores [N, C] make."""
    labels, predictions = np.asarray([example.label for example in examples]), scores.argmax(axis=1)
    every_row = np.ones((1, len(labels)))
    return {metric: float(METRICS[metric](predictions[None], labels, every_row).item()) for metric in metrics}


def mean_metric(scores: Scores, examples: Sequence[Example], metrics: Sequence[str]) -> float:
    """Return the mean of the metrics."""
    return mean(evaluate(scores, examples, metrics).values())
