"""The meta-trained prompt, tuned by the raw gradient."""

from __future__ import annotations

from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, tune_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt."""
    assert context.prompt is not None
    return tune_prompt(context, rows, context.prompt)


METHOD = Method(tune, needs=frozenset({"prompt"}))
