"""Full fine-tuning: all weights of a copy of the backbone, on the pattern without any prompt."""

from __future__ import annotations

import copy

import torch

from supmer.fewshot.descent import Descent
from supmer.fewshot.tuning import (
    Context,
    FewShotRows,
    Method,
    Tuned,
    backward_without_prompt,
    best_point,
    evaluate_rows,
    keep_best,
)
from supmer.tasks.episode import Example


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Train the copy, in fp32, at `fewshot.fine_tuning_rate` and keep the best on dev."""
    model = copy.deepcopy(context.model).float().requires_grad_(True)
    prompt = torch.empty(0, model.width, device=context.device)
    descent = Descent([(model.parameters(), context.config.fewshot.fine_tuning_rate)], context.config.fewshot)

    def step(batch: list[Example]) -> torch.Tensor:
        descent.zero_grad()
        loss = backward_without_prompt(context, model, batch, rows.weights_of(batch))
        descent.step()
        return loss

    def dev_score() -> float:
        return evaluate_rows(context, model, prompt, rows)

    curve, best = keep_best(context.config.fewshot, rows, step, dev_score, model.state_dict)
    descent.report_skipped()
    model.load_state_dict(best)
    chosen = best_point(curve)
    return Tuned(model.requires_grad_(False), prompt, chosen.step, chosen.dev_score, curve)


METHOD = Method(tune)
