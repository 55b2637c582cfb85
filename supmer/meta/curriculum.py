"""Curriculum task augmentation (section 5): how strongly a meta-step mixes in another domain."""

from __future__ import annotations

import numpy as np

from supmer.config import CurriculumConfig

SMALLEST_B = 1e-7
AVERAGE_DECAY = 0.5
MIXING_STREAM = 1
"""Key that keeps the random numbers of mixing apart from those of episodes."""


def mixup_b(similarity: float, config: CurriculumConfig) -> float:
    """Return b of ``lambda ~ Beta(alpha, alpha * b)``.

    ``(m^s - 1) / (m - 1) + 1e-7`` in the curriculum (0 at first: no augmentation; 1 when inner and outer gradients
    agree), always 1 in plain mixup, and 0 without augmentation.
    """
    if config.mode == "none":
        return 0.0
    if config.mode == "mixup":
        return 1.0
    return float((config.m**similarity - 1) / (config.m - 1) + SMALLEST_B)


def draw_lambda(b: float, config: CurriculumConfig, seed: int, step: int, slot: int) -> float:
    """Draw the weight of the query rows, a pure function of (seed, step, slot) and b."""
    if b == 0.0:
        return 1.0
    rng = np.random.default_rng([seed, MIXING_STREAM, step, slot])
    return float(rng.beta(config.alpha, config.alpha * b))


def update_average(average: float, value: float) -> float:
    """Return the exponential moving average of the gradient similarity after one meta-step."""
    return AVERAGE_DECAY * average + (1 - AVERAGE_DECAY) * value
