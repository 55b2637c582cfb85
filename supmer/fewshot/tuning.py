"""What a method is, the tuning loop that all share, and the tuning of a prompt (section 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from supmer.backbone.batches import batch_tokens, plan_microbatches
from supmer.config import Config, FewshotConfig
from supmer.fewshot.descent import Descent
from supmer.fewshot.forms import Form
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import Scores, mean_metric, score_labels
from supmer.meta.passes import PassPlan, plan_rows, run_pass, support_loss
from supmer.model.prompted import PromptedModel
from supmer.model.regularizer import GradientRegularizer
from supmer.model.rows import Rows, collate
from supmer.tasks.episode import Example

if TYPE_CHECKING:  # they take seconds to import, or read files by pyarrow
    from transformers import PreTrainedTokenizerBase

    from supmer.fewshot.starting_points import StartingPoint


@dataclass(frozen=True)
class Context:
    """What methods work with: the backbone on its device, and what runs have produced (None where not needed).

    `at_evaluation` sees the prompt [L, d] as it is at each evaluation on dev.
    """

    config: Config
    model: PromptedModel
    prompt: Tensor | None = None
    regularizer: GradientRegularizer | None = None
    ppt_prompt: Tensor | None = None
    unified_ppt_prompt: Tensor | None = None
    tokenizer: PreTrainedTokenizerBase | None = None
    at_evaluation: Callable[[Tensor], None] | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def max_tokens(self) -> int:
        """Padded encoder positions per forward pass."""
        return batch_tokens(self.config.train.max_tokens_per_microbatch, self.device)

    @property
    def no_prompt(self) -> Tensor:
        """A prompt [0, d]."""
        return torch.empty(0, self.model.width, device=self.device)

    def passes(self, examples: Sequence[Example]) -> list[list[int]]:
        """Return the rows of each forward pass without a prompt."""
        return plan_microbatches([len(example.input_ids) for example in examples], 0, self.max_tokens)

    def collate(self, examples: Sequence[Example]) -> Rows:
        """Return rows of one task as tensors on the device."""
        return collate(examples, [0] * len(examples)).to(self.device)


@dataclass(frozen=True)
class FewShotRows:
    """A task under one data seed: K rows a class to tune on, and as many to choose the best step by.

    `seed` is the training seed: of initial values, the order of batches, and dropout. `weights` are those of the classes in
    the loss, see `supmer.fewshot.data.class_weights`; None: 1 each.
    """

    words: LabelWords
    train: list[Example]
    dev: list[Example]
    metrics: Sequence[str]
    seed: int
    weights: Sequence[float] | None = None

    def weights_of(self, batch: Sequence[Example]) -> list[float]:
        """Return the weight of each row in the loss."""
        return [1.0 if self.weights is None else self.weights[example.label] for example in batch]


class CurvePoint(NamedTuple):
    """One evaluation: mean training loss since the last, and the score on dev."""

    step: int
    loss: float
    dev_score: float


@dataclass(frozen=True)
class Tuned:
    """The result of a method: `model` under `prompt` [L, d] (L may be 0), chosen at `best_step`.

    `parts` are tensors that the method has trained in place of a prompt; its scorer computes with them.
    """

    model: PromptedModel
    prompt: Tensor
    best_step: int
    dev_score: float
    curve: list[CurvePoint]
    parts: dict[str, Tensor] = field(default_factory=dict)


Score = Callable[[Sequence[Example]], Scores]
"""Scores of rows by class [N, C]; the highest is the prediction."""


class Method(NamedTuple):
    """A way to adapt to a task.

    Attributes:
        tune: adapts to the rows of a task.
        needs: starting points that it takes from earlier runs.
        form: how the task is asked, see `supmer.fewshot.forms`.
        scorer: computes with the parts that `tune` returned; None where a prompt is all that is trained.
        revision: raised where the method begins to compute other results under the same settings: cells of an earlier
            one are computed again.
        rate: default learning rate, where `fewshot.learning_rate`, the prompt's, does not suit.
    """

    tune: Callable[[Context, FewShotRows], Tuned]
    needs: frozenset[StartingPoint] = frozenset()
    form: Form = "pattern"
    scorer: Callable[[Context, dict[str, Tensor], LabelWords], Score] | None = None
    rate: float | None = None
    revision: int = 0


class PromptGradient(NamedTuple):
    """Gradient of a batch's mean loss with respect to the prompt [L, d], mean encoder state [d], and the loss []."""

    gradient: Tensor
    hidden: Tensor
    loss: Tensor


def tune_prompt(
    context: Context, rows: FewShotRows, start: Tensor, regularize: Callable[[PromptGradient], Tensor] | None = None
) -> Tuned:
    """Tune a prompt from `start` [L, d] and keep the best on dev.

    Args:
        context: backbone and settings.
        rows: the few-shot rows.
        start: where the prompt starts.
        regularize: what replaces the raw gradient; None leaves it.
    """
    prompt = start.detach().clone().to(context.device).requires_grad_()
    descent = Descent([([prompt], context.config.fewshot.learning_rate)], context.config.fewshot)

    def step(batch: list[Example]) -> Tensor:
        return step_prompt(context, descent, prompt, batch, rows.weights_of(batch), regularize)

    def dev_score() -> float:
        if context.at_evaluation is not None:
            context.at_evaluation(prompt.detach().clone())
        return evaluate_rows(context, context.model, prompt.detach(), rows)

    curve, best = keep_best(context.config.fewshot, rows, step, dev_score, lambda: {"prompt": prompt})
    descent.report_skipped()
    chosen = best_point(curve)
    return Tuned(context.model, best["prompt"], chosen.step, chosen.dev_score, curve)


def step_prompt(
    context: Context,
    descent: Descent,
    prompt: Tensor,
    batch: Sequence[Example],
    weights: Sequence[float],
    regularize: Callable[[PromptGradient], Tensor] | None = None,
) -> Tensor:
    """Move the prompt [L, d], which `descent` holds, along the gradient of a batch; return the batch's loss [].

    Nothing is read from the device.
    """
    raw = prompt_gradient(context, prompt, batch, weights)
    prompt.grad = raw.gradient if regularize is None else regularize(raw)
    descent.step()
    return raw.loss


def prompt_gradient(context: Context, prompt: Tensor, batch: Sequence[Example], weights: Sequence[float]) -> PromptGradient:
    """Return the gradient of the mean of the rows' weighted cross entropies; the token budget says in how many passes."""
    context.model.train()
    # The published pooling averages over padding too, so rows must be padded as published.
    width = context.config.max_input_tokens if context.model.pooling == "all" else 0
    plan = PassPlan(context.max_tokens, width)
    prompts = prompt.unsqueeze(0)
    result = run_pass(context.model, prompts, plan_rows([batch], prompts, plan, weights=[weights]), support_loss, plan)
    return PromptGradient(result.gradients[0], result.hidden[0], result.losses[0])


def evaluate_rows(context: Context, model: PromptedModel, prompt: Tensor, rows: FewShotRows) -> float:
    """Return the mean of the metrics on the dev rows."""
    scores = score_labels(model, prompt, rows.dev, rows.words, context.max_tokens)
    return mean_metric(scores, rows.dev, rows.metrics)


def keep_best(
    settings: FewshotConfig,
    rows: FewShotRows,
    step: Callable[[list[Example]], Tensor],
    dev_score: Callable[[], float],
    trained: Callable[[], Mapping[str, Tensor]],
) -> tuple[list[CurvePoint], dict[str, Tensor]]:
    """Run the steps, evaluate every so many of them (and after the last); return the curve, and copies of the best state.

    A step returns its loss [], which is read at the next evaluation: until then nobody waits for a GPU. With `patience`,
    tuning ends after so many evaluations in a row that were not better.
    """
    torch.manual_seed(rows.seed)  # dropout
    curve: list[CurvePoint] = []
    best: dict[str, Tensor] = {}
    losses: list[Tensor] = []
    generator = np.random.default_rng(rows.seed)
    pending: list[Example] = []
    for number in range(1, settings.steps + 1):
        while len(pending) < settings.batch_size:  # every epoch in a new order, batches running on across epochs
            pending += [rows.train[index] for index in generator.permutation(len(rows.train))]
        batch, pending = pending[: settings.batch_size], pending[settings.batch_size :]
        losses.append(step(batch))
        if number % settings.eval_every and number < settings.steps:
            continue
        point = CurvePoint(number, float(np.mean(torch.stack(losses).tolist())), dev_score())
        losses.clear()
        curve.append(point)
        if best_point(curve) is point:
            best = {name: tensor.detach().clone() for name, tensor in trained().items()}
        elif settings.patience and len(curve) - curve.index(best_point(curve)) > settings.patience:
            break
    return curve, best


def best_point(curve: Sequence[CurvePoint]) -> CurvePoint:
    """Return the evaluation with the highest dev score, the earliest of equals."""
    return max(curve, key=lambda point: point.dev_score)
