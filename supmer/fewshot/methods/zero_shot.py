"""No tuning: the backbone reads the pattern alone, without any prompt."""

from __future__ import annotations

import torch

from supmer.fewshot.tuning import Bench, FewShotRows, Method, Tuned, evaluate_rows


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Return the backbone as it is."""
    prompt = torch.empty(0, bench.model.backbone.config.d_model, device=bench.device)
    return Tuned(bench.model, prompt, 0, evaluate_rows(bench, bench.model, prompt, rows), [])


METHOD = Method(tune)
