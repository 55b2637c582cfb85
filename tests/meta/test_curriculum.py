"""The mixing curriculum: its ends, its growth, and the distribution of lambda."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supmer.config import CurriculumConfig
from supmer.meta.curriculum import draw_lambda, mixup_b, update_average


def test_ends_of_the_curriculum() -> None:
    assert mixup_b(0.0, CurriculumConfig()) == pytest.approx(1e-7)
    assert mixup_b(1.0, CurriculumConfig(m=5)) == pytest.approx(1 + 1e-7)
    assert mixup_b(0.5, CurriculumConfig(m=4)) == pytest.approx((2 - 1) / 3 + 1e-7)


@given(low=st.floats(0, 1), high=st.floats(0, 1), m=st.floats(1.01, 50))
def test_augmentation_grows_with_similarity(low: float, high: float, m: float) -> None:
    low, high = sorted((low, high))
    config = CurriculumConfig(m=m)
    assert mixup_b(low, config) <= mixup_b(high, config)


def test_modes() -> None:
    assert mixup_b(0.3, CurriculumConfig(mode="mixup")) == 1.0
    none = CurriculumConfig(mode="none")
    assert draw_lambda(mixup_b(0.3, none), none, 0, 0, 0) == 1.0


def test_first_step_does_not_augment() -> None:
    config = CurriculumConfig()
    draws = [draw_lambda(mixup_b(0.0, config), config, 0, step, 0) for step in range(200)]
    assert min(draws) > 0.999


@pytest.mark.parametrize(("alpha", "similarity"), [(1.0, 1.0), (0.5, 0.6), (2.0, 0.3)])
def test_lambda_has_the_mean_of_its_beta(alpha: float, similarity: float) -> None:
    config = CurriculumConfig(alpha=alpha)
    b = mixup_b(similarity, config)
    draws = np.array([draw_lambda(b, config, 7, step, slot) for step in range(1000) for slot in range(4)])
    assert draws.mean() == pytest.approx(1 / (1 + b), abs=0.03)
    assert ((draws >= 0) & (draws <= 1)).all()


def test_lambda_is_a_function_of_seed_step_and_slot() -> None:
    config = CurriculumConfig()
    places = [(0, 5, 1), (1, 5, 1), (0, 6, 1), (0, 5, 2)]
    draws = [draw_lambda(1.0, config, *place) for place in places]
    assert draws == [draw_lambda(1.0, config, *place) for place in places]
    assert len(set(draws)) == len(places)


def test_average_halves_the_distance() -> None:
    assert update_average(0.2, 0.6) == pytest.approx(0.4)
