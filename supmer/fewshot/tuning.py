"""The tuning loop that all methods share, and what a method is (section 7)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from supmer.config import Config, FewshotConfig
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import evaluate, score_labels
from supmer.fewshot.starting_points import StartingPoint
from supmer.meta.passes import PassPlan, plan_rows, run_pass, support_loss
from supmer.model.prompted import PromptedSeq2Seq
from supmer.model.regularizer import GradientRegularizer
from supmer.tasks.episode import Example

logger = logging.getLogger(__name__)

CPU_PASS_TOKENS = 1024
"""A CPU gains nothing from larger passes: they leave its caches, and short rows are padded to the longest of more rows."""


@dataclass(frozen=True)
class Bench:
    """What methods work with: the backbone on its device, and what runs have produced (None where not needed)."""

    config: Config
    model: PromptedSeq2Seq
    prompt: Tensor | None = None
    regularizer: GradientRegularizer | None = None
    ppt_prompt: Tensor | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def max_tokens(self) -> int:
        """Padded encoder positions per forward pass."""
        allowed = self.config.train.max_tokens_per_microbatch
        return min(allowed, CPU_PASS_TOKENS) if self.device.type == "cpu" else allowed


@dataclass(frozen=True)
class FewShotRows:
    """A task under one data seed: K rows a class to tune on, and as many to choose the best step by."""

    words: LabelWords
    train: list[Example]
    dev: list[Example]
    metric: str
    seed: int


class CurvePoint(NamedTuple):
    """One evaluation: mean training loss since the last, and the score on dev."""

    step: int
    loss: float
    dev_score: float


@dataclass(frozen=True)
class Tuned:
    """The result of a method: `model` under `prompt` [L, d] (L may be 0), chosen at `best_step`."""

    model: PromptedSeq2Seq
    prompt: Tensor
    best_step: int
    dev_score: float
    curve: list[CurvePoint]


class Method(NamedTuple):
    """A way to adapt to a task, and the starting points it takes from earlier runs."""

    tune: Callable[[Bench, FewShotRows], Tuned]
    needs: frozenset[StartingPoint] = frozenset()


class PromptGradient(NamedTuple):
    """Gradient of a batch's mean loss with respect to the prompt [L, d], mean encoder state [d], and the loss."""

    gradient: Tensor
    hidden: Tensor
    loss: float


def tune_prompt(
    bench: Bench, rows: FewShotRows, start: Tensor, bend: Callable[[PromptGradient], Tensor] | None = None
) -> Tuned:
    """Tune a prompt from `start` [L, d] by Adam and keep the best on dev.

    Args:
        bench: backbone and settings.
        rows: the few-shot rows.
        start: where the prompt starts.
        bend: what replaces the raw gradient; None leaves it.
    """
    prompt = start.detach().clone().to(bench.device).requires_grad_()
    optimizer = torch.optim.Adam([prompt], lr=bench.config.fewshot.learning_rate)
    best = prompt.detach().clone()
    num_skipped = 0

    def step(batch: list[Example]) -> float:
        nonlocal num_skipped
        raw = prompt_gradient(bench, prompt, batch)
        prompt.grad = raw.gradient if bend is None else bend(raw)
        if bool(torch.isfinite(prompt.grad).all()):
            optimizer.step()
        else:
            num_skipped += 1
        return raw.loss

    def keep() -> None:
        best.copy_(prompt.detach())

    def dev_score() -> float:
        return evaluate_rows(bench, bench.model, prompt.detach(), rows)

    curve = keep_best(bench.config.fewshot, rows, step, dev_score, keep)
    if num_skipped:
        logger.warning("%d of %d steps had a gradient that is not finite and were skipped", num_skipped, curve[-1].step)
    chosen = best_point(curve)
    return Tuned(bench.model, best, chosen.step, chosen.dev_score, curve)


def prompt_gradient(bench: Bench, prompt: Tensor, batch: Sequence[Example]) -> PromptGradient:
    """Return the gradient of the batch's mean cross entropy, in as many passes as the token budget asks for."""
    bench.model.train()
    # The published pooling averages over padding too, so rows must be padded as published.
    width = bench.config.max_input_tokens if bench.model.pooling == "all" else 0
    plan = PassPlan(bench.max_tokens, width)
    result = run_pass(bench.model, prompt.unsqueeze(0), plan_rows([batch], len(prompt), plan), support_loss, plan)
    return PromptGradient(result.gradients[0], result.hidden[0], result.losses.item())


def evaluate_rows(bench: Bench, model: PromptedSeq2Seq, prompt: Tensor, rows: FewShotRows) -> float:
    """Return the metric on the dev rows."""
    scores = score_labels(model, prompt, rows.dev, rows.words, bench.max_tokens)
    return evaluate(scores, rows.dev, rows.metric)


def keep_best(
    settings: FewshotConfig,
    rows: FewShotRows,
    step: Callable[[list[Example]], float],
    dev_score: Callable[[], float],
    keep: Callable[[], None],
) -> list[CurvePoint]:
    """Run the steps, evaluate every so many of them (and after the last), and call `keep` at each new best."""
    torch.manual_seed(rows.seed)  # dropout
    curve: list[CurvePoint] = []
    losses: list[float] = []
    batches = _batches(rows, settings.batch_size)
    for number in range(1, settings.steps + 1):
        losses.append(step(next(batches)))
        if number % settings.eval_every and number < settings.steps:
            continue
        point = CurvePoint(number, float(np.mean(losses)), dev_score())
        losses.clear()
        curve.append(point)
        if best_point(curve) is point:
            keep()
    return curve


def best_point(curve: Sequence[CurvePoint]) -> CurvePoint:
    """Return the evaluation with the highest dev score, the earliest of equals."""
    return max(curve, key=lambda point: point.dev_score)


def _batches(rows: FewShotRows, batch_size: int) -> Iterator[list[Example]]:
    """Yield batches for ever: every epoch a new order, batches running on across epochs."""
    generator = np.random.default_rng(rows.seed)
    pending: list[Example] = []
    while True:
        while len(pending) < batch_size:
            pending += [rows.train[index] for index in generator.permutation(len(rows.train))]
        yield pending[:batch_size]
        pending = pending[batch_size:]
