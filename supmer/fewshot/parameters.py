"""Tuning of parameters in place of a prompt: what fine-tuning, PERFECT and the methods of `supmer.fewshot.parts` share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from supmer.fewshot.descent import Descent
from supmer.fewshot.tuning import Context, FewShotRows, Tuned, best_point, keep_best
from supmer.meta.losses import cross_entropy
from supmer.model.prompted import PromptedModel
from supmer.model.rows import Rows, send
from supmer.tasks.episode import Example


def tune_parameters(
    context: Context,
    rows: FewShotRows,
    groups: Sequence[tuple[Iterable[Tensor], float]],
    backward: Callable[[list[Example]], Tensor],
    dev_score: Callable[[], float],
    trained: Callable[[], Mapping[str, Tensor]],
) -> Tuned:
    """Tune parameters by AdamW; return the best state on dev as parts of the frozen backbone, without a prompt.

    Args:
        context: backbone and settings.
        rows: the few-shot rows.
        groups: parameters, and their rate before the schedule.
        backward: gives the parameters the gradients of a batch, and returns its mean loss [].
        dev_score: scores the parameters as they are.
        trained: names what is kept of the best state.
    """
    settings = context.config.fewshot
    descent = Descent(groups, settings)

    def step(batch: list[Example]) -> Tensor:
        descent.zero_grad()
        loss = backward(batch)
        descent.step()
        return loss

    curve, best = keep_best(settings, rows, step, dev_score, trained)
    descent.report_skipped()
    chosen = best_point(curve)
    return Tuned(context.model, context.no_prompt, chosen.step, chosen.dev_score, curve, best)


def backward_of_rows(
    context: Context, batch: Sequence[Example], weights: Sequence[float], losses: Callable[[Rows, list[int]], Tensor]
) -> Tensor:
    """Add the gradient of the mean of the rows' weighted losses to what is trained; return that mean [].

    `losses` returns those of some rows [B], given with their places in the batch; the token budget says of how many at once.
    """
    total = torch.zeros((), dtype=torch.float64, device=context.device)
    for group in context.passes(batch):
        found = losses(context.collate([batch[index] for index in group]), group)
        of_rows = send(torch.tensor([weights[index] for index in group], dtype=found.dtype), context.device)
        share = found @ of_rows / len(batch)
        torch.autograd.backward([share])
        total += share.detach()
    return total


def backward_without_prompt(
    context: Context, model: PromptedModel, batch: Sequence[Example], weights: Sequence[float]
) -> Tensor:
    """Do the same with cross entropies; the model, which is trained or holds what is, reads the pattern alone."""
    model.train()
    prompts = context.no_prompt.unsqueeze(0)
    return backward_of_rows(context, batch, weights, lambda rows, _: cross_entropy(model(prompts, rows).logits, rows.labels))
