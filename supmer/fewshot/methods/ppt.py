"""PPT (Gu et al. 2022): a prompt pre-trained on the same tasks without meta-learning, tuned by the raw gradient."""

from __future__ import annotations

from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, tune_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the prompt of a run with `meta.algorithm=multitask`, that of the task's format where there is one each."""
    assert context.ppt_prompt is not None
    return tune_prompt(context, rows, context.ppt_prompt)


METHOD = Method(tune, needs=frozenset({"ppt_prompt"}))
