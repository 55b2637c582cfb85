"""Methods that train small parts put into the frozen backbone, under the pattern and label words (LoRA, prefixes, BitFit).

No copy of the backbone is made: the parts are put in for a tuning or for scoring, and taken out again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from supmer.config import FewshotConfig
from supmer.fewshot.labels import LabelWords
from supmer.fewshot.parameters import backward_without_prompt, tune_parameters
from supmer.fewshot.scoring import Scores, score_labels
from supmer.fewshot.tuning import Context, FewShotRows, Method, Score, Tuned, evaluate_rows
from supmer.model.prompted import PromptedModel
from supmer.tasks.episode import Example


def method_of(
    inserted: Callable[[PromptedModel, int, int], AbstractContextManager[dict[str, Tensor]]],
    rate: float,
    size: Callable[[FewshotConfig], int] = lambda _: 0,
    size_of: Callable[[Mapping[str, Tensor]], int] = lambda _: 0,
) -> Method:
    """Return the method that trains such parts.

    Args:
        inserted: called with the backbone, a size and a seed; a context in which the backbone computes with the parameters
            that it yields, float32, by name. The backbone is as it was at its end.
        rate: default learning rate.
        size: the size that the settings ask for (a rank, a length; 0 where there is none).
        size_of: the size that trained tensors have.
    """

    def tune(context: Context, rows: FewShotRows) -> Tuned:
        settings, model = context.config.fewshot, context.model
        with inserted(model, size(settings), rows.seed) as trained:
            return tune_parameters(
                context,
                rows,
                [(trained.values(), settings.learning_rate)],
                lambda batch: backward_without_prompt(context, model, batch, rows.weights_of(batch)),
                lambda: evaluate_rows(context, model, context.no_prompt, rows),
                lambda: trained,
            )

    def scorer(context: Context, tensors: dict[str, Tensor], words: LabelWords) -> Score:
        def score(examples: Sequence[Example]) -> Scores:
            with inserted(context.model, size_of(tensors), 0) as trained:
                load(trained, tensors)
                return score_labels(context.model, context.no_prompt, examples, words, context.max_tokens)

        score([])  # tensors of another backbone are refused here
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
