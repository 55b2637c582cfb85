"""What a sweep optimizes: names and directions."""

from __future__ import annotations

import math

QUERY_LOSS = "validation_query_loss"
FEWSHOT = "fewshot_dev_score"

WORST = 1e30
"""The cost of what is not finite: Ray Tune's percentiles and Optuna need numbers."""


def cost_of(objective: str, value: float | None) -> float:
    """Return an objective's value as a finite number of which less is better; Ray Tune and Optuna get these.

    >>> cost_of(QUERY_LOSS, 2.5), cost_of(FEWSHOT, 0.8), cost_of(FEWSHOT, None)
    (2.5, -0.8, 1e+30)
    """
    if value is None or not math.isfinite(value):
        return WORST
    return -value if objective == FEWSHOT else value
