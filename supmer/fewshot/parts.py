"""Methods that train small parts put into the frozen backbone, under the pattern and label words (LoRA, prefixes, BitFit).

No copy of the backbone is made: the parts are put in for a tuning or for scoring, and taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from supmer.config import FewshotConfig
from supmer.fewshot.descent import Descent
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.scoring import Scores, score_labels
from supmer.fewshot.tuning import (
    Context,
    FewShotRows,
    Method,
    Score,
    Tuned,
    backward_without_prompt,
    best_point,
    evaluate_rows,
    keep_best,
)
from supmer.model.prompted import PromptedModel
from supmer.tasks.episode import Example


class Parts(NamedTuple):
    """What is trained, and how it gets into a backbone.

    Attributes:
        insert: called with the backbone, a size and a seed; a context in which the backbone computes with the parameters
            that it yields, float32, by name. The backbone is as it was at its end.
        size: the size that the settings ask for (a rank, a length; 0 where there is none).
        size_of: the size that trained tensors have.
    """

    insert: Callable[[PromptedModel, int, int], AbstractContextManager[dict[str, Tensor]]]
    size: Callable[[FewshotConfig], int] = lambda _: 0
    size_of: Callable[[Mapping[str, Tensor]], int] = lambda _: 0


def method_of(parts: Parts, rate: float) -> Method:
    """Return the method that trains such parts, by default at `rate`."""

    def tune(context: Context, rows: FewShotRows) -> Tuned:
        settings, prompt = context.config.fewshot, _no_prompt(context)
        with parts.insert(context.model, parts.size(settings), rows.seed) as trained:
            descent = Descent([(trained.values(), settings.learning_rate)], settings)

            def step(batch: list[Example]) -> Tensor:
                descent.zero_grad()
                loss = backward_without_prompt(context, context.model, batch, rows.weights_of(batch))
                descent.step()
                return loss

            def dev_score() -> float:
                return evaluate_rows(context, context.model, prompt, rows)

            curve, best = keep_best(settings, rows, step, dev_score, lambda: trained)
        descent.report_skipped()
        chosen = best_point(curve)
        return Tuned(context.model, prompt, chosen.step, chosen.dev_score, curve, best)

    def scorer(context: Context, tensors: dict[str, Tensor], words: LabelWords) -> Score:
        def score(examples: Sequence[Example]) -> Scores:
            with parts.insert(context.model, parts.size_of(tensors), 0) as trained:
                load(trained, tensors)
                return score_labels(context.model, _no_prompt(context), examples, words, context.max_tokens)

        with parts.insert(context.model, parts.size_of(tensors), 0) as trained:
            load(trained, tensors)  # tensors of another backbone are refused here
        return score

    return Method(tune, scorer=scorer, rate=rate)


@torch.no_grad()
def load(trained: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Give parameters the values of tensors; KeyError or RuntimeError where names or shapes differ."""
    if trained.keys() != tensors.keys():
        raise KeyError(sorted(trained.keys() ^ tensors.keys())[0])
    for name, parameter in trained.items():
        if parameter.shape != tensors[name].shape:
            raise RuntimeError(f"{name} has shape {tuple(tensors[name].shape)}, must be {tuple(parameter.shape)}")
        parameter.copy_(tensors[name])


def _no_prompt(context: Context) -> Tensor:
    return torch.empty(0, context.model.width, device=context.device)
