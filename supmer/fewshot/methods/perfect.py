"""PERFECT: adapters, layer norms and label embeddings; no pattern, no label words (Karimi Mahabadi et al. 2022).

The published system has masked language models only. What it is on a T5 is this project's own definition: docs/fewshot.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from supmer.backbone.batches import plan_microbatches
from supmer.config import FewshotConfig
from supmer.config.values import with_settings
from supmer.fewshot.descent import Descent
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods.perfect_parts import PerfectParts
from supmer.fewshot.methods.perfect_scores import class_means, class_scores, hinge, label_scores, mask_states
from supmer.fewshot.scoring import Scores, mean_metric
from supmer.fewshot.tuning import Context, FewShotRows, Method, Score, Tuned, best_point, keep_best
from supmer.model.rows import Rows, collate, send
from supmer.tasks.episode import Example

ROWS_AT_ONCE = 4096
"""Rows whose states are kept at once while prototypes are made."""


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Train the parts by the hinge, under steps and rates of their own, and keep the best on dev."""
    settings = own_protocol(context.config.fewshot)
    parts = PerfectParts(context.model, len(rows.words.tokens), settings.perfect, rows.seed)
    others = [parameter for name, parameter in parts.named_parameters() if name != "labels"]
    descent = Descent([(others, settings.perfect.rate), ([parts.labels], settings.perfect.label_rate)], settings)

    def step(batch: list[Example]) -> Tensor:
        context.model.train()
        descent.zero_grad()
        loss = backward(context, parts, batch, rows.weights_of(batch))
        descent.step()
        return loss

    def dev_score() -> float:
        set_prototypes(context, parts, rows.train)
        return mean_metric(score_rows(context, parts, rows.dev), rows.dev, rows.metrics)

    with parts.inserted(context.model):
        curve, best = keep_best(settings, rows, step, dev_score, parts.state_dict)
    descent.report_skipped()
    chosen = best_point(curve)
    prompt = torch.empty(0, context.model.width, device=context.device)
    return Tuned(context.model, prompt, chosen.step, chosen.dev_score, curve, best)


def own_protocol(settings: FewshotConfig) -> FewshotConfig:
    """Return the settings with PERFECT's steps, a linear schedule, and the gradient norm limited to 1."""
    own = {name: getattr(settings.perfect, name) for name in ("steps", "eval_every", "batch_size")}
    fixed = {"schedule": "linear", "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1.0, "patience": None}
    return with_settings(settings, {**own, **fixed})


def backward(context: Context, parts: PerfectParts, batch: Sequence[Example], weights: Sequence[float]) -> Tensor:
    """Add the gradient of the mean of the rows' weighted losses to the parts, which are inserted; return that mean []."""
    loss = torch.zeros((), dtype=torch.float64, device=context.device)
    for group in _passes(context, batch):
        microbatch = _collate(context, [batch[index] for index in group])
        classes = send(torch.tensor([batch[index].label for index in group]), context.device)
        scores = label_scores(mask_states(context.model, microbatch, parts.states), parts.labels)
        losses = hinge(scores, classes)
        share = (
            losses @ send(torch.tensor([weights[index] for index in group], dtype=losses.dtype), context.device) / len(batch)
        )
        torch.autograd.backward([share])
        loss += share.detach()
    return loss


@torch.no_grad()
def states_of(context: Context, parts: PerfectParts, examples: Sequence[Example]) -> Tensor:
    """Return the states [N, M, d] of rows in evaluation mode; the parts are inserted."""
    context.model.eval()
    states = torch.empty(len(examples), *parts.labels.shape[1:], device=context.device)
    for group in _passes(context, examples):
        states[group] = mask_states(context.model, _collate(context, [examples[index] for index in group]), parts.states)
    return states


def set_prototypes(context: Context, parts: PerfectParts, examples: Sequence[Example]) -> None:
    """Make the prototypes the mean states of the classes' rows; the parts are inserted."""

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(examples), ROWS_AT_ONCE):
            some = examples[start : start + ROWS_AT_ONCE]
            yield states_of(context, parts, some), torch.tensor([row.label for row in some], device=context.device)

    parts.prototypes.copy_(class_means(batches(), len(parts.labels)))


def score_rows(context: Context, parts: PerfectParts, examples: Sequence[Example]) -> Scores:
    """Return the scores of rows [N, C]; the parts are inserted."""
    states, settings = states_of(context, parts, examples), context.config.fewshot.perfect
    scores: Scores = class_scores(states, parts.labels.detach(), parts.prototypes, settings).cpu().numpy()
    return scores


def scorer(context: Context, tensors: dict[str, Tensor], _: LabelWords) -> Score:
    """Return what scores rows by trained parts; the backbone is as it was after each call."""
    parts = PerfectParts(context.model, len(tensors["labels"]), context.config.fewshot.perfect, seed=0)
    parts.load_state_dict(tensors)

    def score(examples: Sequence[Example]) -> Scores:
        with parts.inserted(context.model):
            return score_rows(context, parts, examples)

    return score


def _passes(context: Context, examples: Sequence[Example]) -> list[list[int]]:
    return plan_microbatches([len(example.input_ids) for example in examples], 0, context.max_tokens)


def _collate(context: Context, examples: Sequence[Example]) -> Rows:
    return collate(examples, [0] * len(examples)).to(context.device)


METHOD = Method(tune, form="plain", scorer=scorer)
