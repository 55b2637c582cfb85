"""PERFECT: adapters, layer norms and label embeddings; no pattern, no label words (Karimi Mahabadi et al. 2022).

The published system has masked language models only. What it is on a T5 is this project's own definition: docs/fewshot.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from supmer.config.values import with_settings
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.methods.perfect_parts import PerfectParts
from supmer.fewshot.methods.perfect_scores import class_means, class_scores, hinge, label_scores, mask_states
from supmer.fewshot.parameters import backward_of_rows, tune_parameters
from supmer.fewshot.scoring import Scores, mean_metric
from supmer.fewshot.tuning import Context, FewShotRows, Method, Score, Tuned
from supmer.model.rows import Rows, send
from supmer.tasks.episode import Example

ROWS_AT_ONCE = 4096
"""Rows whose states are kept at once while prototypes are made."""


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Train the parts by the hinge and keep the best on dev.

    PERFECT has steps and rates of its own, a linear schedule, and the gradient norm limited to 1.
    """
    settings = context.config.fewshot.perfect
    protocol = {"schedule": "linear", "warmup_steps": 0, "weight_decay": 0.0, "clip_norm": 1.0, "patience": None}
    protocol |= {name: getattr(settings, name) for name in ("steps", "eval_every", "batch_size")}
    own = {f"fewshot.{name}": value for name, value in protocol.items()}
    context = replace(context, config=with_settings(context.config, own))
    parts = PerfectParts(context.model, len(rows.words.tokens), settings, rows.seed)

    def add_gradients(batch: list[Example]) -> Tensor:
        context.model.train()
        return backward(context, parts, batch, rows.weights_of(batch))

    def dev_score() -> float:
        set_prototypes(context, parts, rows.train)
        return mean_metric(score_rows(context, parts, rows.dev), rows.dev, rows.metrics)

    others = [parameter for name, parameter in parts.named_parameters() if name != "labels"]
    groups = [(others, settings.rate), ([parts.labels], settings.label_rate)]
    with parts.inserted(context.model):
        return tune_parameters(context, rows, groups, add_gradients, dev_score, parts.state_dict)


def backward(context: Context, parts: PerfectParts, batch: Sequence[Example], weights: Sequence[float]) -> Tensor:
    """Add the gradient of the mean of the rows' weighted losses to the parts, which are inserted; return that mean []."""

    def losses(some: Rows, group: list[int]) -> Tensor:
        classes = send(torch.tensor([batch[index].label for index in group]), context.device)
        return hinge(label_scores(mask_states(context.model, some, parts.states), parts.labels), classes)

    return backward_of_rows(context, batch, weights, losses)


@torch.no_grad()
def states_of(context: Context, parts: PerfectParts, examples: Sequence[Example]) -> Tensor:
    """Return the states [N, M, d] of rows in evaluation mode; the parts are inserted."""
    context.model.eval()
    states = torch.empty(len(examples), *parts.labels.shape[1:], device=context.device)
    for group in context.passes(examples):
        rows = context.collate([examples[index] for index in group])
        states[group] = mask_states(context.model, rows, parts.states)
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


METHOD = Method(tune, form="plain", scorer=scorer)
