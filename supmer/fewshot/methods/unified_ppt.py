"""Unified PPT (Gu et al. 2022): every task asked as multiple choice, from one pre-trained prompt (section 9)."""

from __future__ import annotations

from supmer.fewshot.tuning import Context, FewShotRows, Method, Tuned, tune_prompt


def tune(context: Context, rows: FewShotRows) -> Tuned:
    """Tune from the prompt of a run with `meta.algorithm=multitask` on `nss`, by the raw gradient."""
    assert context.unified_ppt_prompt is not None
    return tune_prompt(context, rows, context.unified_ppt_prompt)


METHOD = Method(tune, needs=frozenset({"unified_ppt_prompt"}), form="choices")
