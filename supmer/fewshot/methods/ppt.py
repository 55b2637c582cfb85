"""PPT (Gu et al. 2022): a prompt pre-trained on the same tasks without meta-learning, tuned by the raw gradient."""

from __future__ import annotations

from supmer.fewshot.tuning import Bench, FewShotRows, Method, Tuned, tune_prompt


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Tune from the prompt of a run with `meta.algorithm=multitask`."""
    assert bench.ppt_prompt is not None
    return tune_prompt(bench, rows, bench.ppt_prompt)


METHOD = Method(tune, needs=frozenset({"ppt_prompt"}))
