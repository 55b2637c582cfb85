"""SUPMER: the meta-trained prompt, tuned by gradients that the meta-trained regularizer bends."""

from __future__ import annotations

import torch
from torch import Tensor

from supmer.fewshot.tuning import Bench, FewShotRows, Method, PromptGradient, Tuned, tune_prompt


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt; at every step psi(g, h) takes the place of g."""
    assert bench.prompt is not None and bench.regularizer is not None
    regularizer = bench.regularizer

    @torch.no_grad()
    def bend(raw: PromptGradient) -> Tensor:
        bent: Tensor = regularizer(raw.gradient.unsqueeze(0), raw.hidden.unsqueeze(0)).gradient
        return bent[0]

    return tune_prompt(bench, rows, bench.prompt, bend)


METHOD = Method(tune, needs=frozenset({"prompt", "regularizer"}))
