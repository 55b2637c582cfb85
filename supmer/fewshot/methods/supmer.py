"""SUPMER: the meta-trained prompt, tuned by regularized gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from supmer.fewshot.tuning import Context, FewShotRows, Method, PromptGradient, Tuned, tune_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt; at every step psi(g, h) takes the place of g."""
    assert context.prompt is not None and context.regularizer is not None
    regularizer = context.regularizer

    @torch.no_grad()
    def regularize(raw: PromptGradient) -> Tensor:
        regularized: Tensor = regularizer(raw.gradient.unsqueeze(0), raw.hidden.unsqueeze(0)).gradient
        return regularized[0]

    return tune_prompt(context, rows, context.prompt, regularize)


METHOD = Method(tune, needs=frozenset({"prompt", "regularizer"}))
