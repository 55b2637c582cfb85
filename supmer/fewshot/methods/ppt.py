"""PPT (Gu et al. 2022): a prompt pre-trained on the same tasks without meta-learning, tuned by the raw gradient."""

from __future__ import annotations

from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, tune_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the prompt of a run with `meta.algorithm=multitask`, that of the task's format where there is one each."""
    assert context.ppt_prompt is not None
    return tune_prompt(context, rows, context.ppt_prompt)


def tune_unified(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the one prompt of such a run on `nss`; every task is asked as multiple choice (section 9)."""
    assert context.unified_ppt_prompt is not None
    return tune_prompt(context, rows, context.unified_ppt_prompt)


METHOD = Method(tune, needs=frozenset({"ppt_prompt"}))
UNIFIED = Method(tune_unified, needs=frozenset({"unified_ppt_prompt"}), form="choices")
