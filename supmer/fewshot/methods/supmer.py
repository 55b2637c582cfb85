"""SUPMER: the meta-trained prompt, tuned by regularized gradients, or by raw ones."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from supmer.fewshot.tuning import Context, FewShotRows, Method, PromptGradient, Tuned, tune_prompt
from supmer.model.regularizer import GradientRegularizer


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt; at every step psi(g, h) takes the place of g."""
    assert context.prompt is not None and context.regularizer is not None
    return tune_prompt(context, rows, context.prompt, partial(regularized, context.regularizer))


@torch.no_grad()
def regularized(regularizer: GradientRegularizer, raw: PromptGradient) -> Tensor:
    """Return psi(g, h) [L, d] of the gradient and the mean state of a batch."""
    both = regularizer(raw.gradient.unsqueeze(0), raw.hidden.unsqueeze(0))
    gradient: Tensor = both.gradient[0]
    return gradient


def tune_without_regularizer(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt by the raw gradient."""
    assert context.prompt is not None
    return tune_prompt(context, rows, context.prompt)


METHOD = Method(tune, needs=frozenset({"prompt", "regularizer"}))
NO_REGULARIZER = Method(tune_without_regularizer, needs=frozenset({"prompt"}))
