"""Full fine-tuning: all weights of a copy of the backbone, on the pattern without any prompt."""

from __future__ import annotations

import copy
from dataclasses import replace

from supmer.fewshot.parameters import backward_without_prompt, tune_parameters
from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, evaluate_rows


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Train the copy, in fp32, at `fewshot.fine_tuning_rate` and keep the best on dev."""
    model = copy.deepcopy(context.model).float().requires_grad_(True)
    tuned = tune_parameters(
        context,
        rows,
        [(model.parameters(), context.config.fewshot.fine_tuning_rate)],
        lambda batch: backward_without_prompt(context, model, batch, rows.weights_of(batch)),
        lambda: evaluate_rows(context, model, context.no_prompt, rows),
        model.state_dict,
    )
    model.load_state_dict(tuned.parts)
    return replace(tuned, model=model.requires_grad_(False), parts={})


METHOD = Method(tune)
