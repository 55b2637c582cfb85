"""The meta-trained prompt, tuned by the raw gradient."""

from __future__ import annotations

from supmer.fewshot.tuning import Bench, FewShotRows, Method, Tuned, tune_prompt


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Tune from the meta-trained prompt."""
    assert bench.prompt is not None
    return tune_prompt(bench, rows, bench.prompt)


METHOD = Method(tune, needs=frozenset({"prompt"}))
