"""No tuning: the backbone reads the pattern alone, without any prompt."""

from __future__ import annotations

from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, evaluate_rows


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Return the backbone as it is."""
    prompt = context.no_prompt
    return Tuned(context.model, prompt, 0, evaluate_rows(context, context.model, prompt, rows), [])


METHOD = Method(tune)
