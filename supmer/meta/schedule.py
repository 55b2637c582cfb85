"""How the outer rates change over the meta-steps (section 5): as published they fall linearly to 0."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["linear", "cosine", "constant"]


def rate_factor(schedule: Schedule, step: int, num_steps: int, warmup_steps: int = 0) -> float:
    """Return what the rates are multiplied with at meta-step `step`, counted from 0.

    Over the first `warmup_steps` the factor grows in equal parts to 1; only then the schedule begins. It is never 0: the
    inner rate follows the outer one.

    >>> [rate_factor("linear", step, num_steps=6, warmup_steps=2) for step in range(6)]
    [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    left = (num_steps - step) / (num_steps - warmup_steps)
    if schedule == "constant":
        return 1.0
    return left if schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left))
