"""Vanilla prompt tuning: from embeddings of random vocabulary entries, by the raw gradient."""

from __future__ import annotations

from supmer.config import PromptConfig
from supmer.fewshot.tuning import Bench, FewShotRows, Method, Tuned, tune_prompt
from supmer.model.prompted import initial_prompt


def tune(bench: Bench, rows: FewShotRows) -> Tuned:
    """Tune from the vocabulary; the data seed also draws the entries."""
    start = initial_prompt(PromptConfig(length=bench.config.prompt.length, init="vocabulary"), bench.model, rows.seed)
    return tune_prompt(bench, rows, start)


METHOD = Method(tune)
