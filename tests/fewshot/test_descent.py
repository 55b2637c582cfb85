"""The optimizer of few-shot tuning against the published schedule written out in plain arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from supmer.config import FewshotConfig
from supmer.fewshot.descent import Descent
from supmer.fewshot.tuning import FewShotRows, keep_best

STEPS = 20


def gradients(seed: int = 0) -> np.ndarray:
    """Draw gradients [STEPS, 3, 4], some longer than the limit of 1, some shorter."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(STEPS, 3, 4)) * rng.uniform(0.05, 2.0, size=(STEPS, 1, 1))


def reference(start: np.ndarray, factor: list[float], clip: float | None, decay: float) -> np.ndarray:
    """AdamW as its paper has it, in float64, at a rate of 0.1 times the schedule's factor."""
    value, first, second = start.copy(), np.zeros_like(start), np.zeros_like(start)
    for step, raw in enumerate(gradients(), start=1):
        gradient = raw if clip is None else raw * min(1.0, clip / (np.sqrt((raw**2).sum()) + 1e-6))
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        rate = 0.1 * factor[step - 1]
        value -= rate * decay * value
        value -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return value


LINEAR = [1 - step / STEPS for step in range(STEPS)]
WARM = [step / 5 if step < 5 else (STEPS - step) / 15 for step in range(STEPS)]
COSINE = [0.5 * (1 + math.cos(math.pi * step / STEPS)) for step in range(STEPS)]


@pytest.fixture(params=[(), ("cpu",)], ids=["plain", "fused"], autouse=True)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with the kernels of a GPU too."""
    monkeypatch.setattr(Descent, "FUSED_ON", request.param)


@pytest.mark.parametrize(
    ("settings", "factor"),
    [
        ({"schedule": "linear", "clip_norm": 1.0}, LINEAR),  # published
        ({"schedule": "linear", "warmup_steps": 5}, WARM),
        ({"schedule": "cosine", "weight_decay": 0.1}, COSINE),
        ({"schedule": "constant", "warmup_steps": 4}, [min(1.0, step / 4) for step in range(STEPS)]),
        ({}, LINEAR),
    ],
)
def test_twenty_steps(settings: dict[str, object], factor: list[float]) -> None:
    config = FewshotConfig.model_validate({"steps": STEPS, **settings})
    start = np.random.default_rng(1).normal(size=(3, 4))
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    descent = Descent([([parameter], 0.1)], config)
    for gradient in gradients():
        parameter.grad = torch.from_numpy(gradient.copy())
        descent.step()
    expected = reference(start, factor, config.clip_norm, config.weight_decay)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-6, atol=1e-6)


def test_a_gradient_that_is_not_finite_is_skipped(caplog: pytest.LogCaptureFixture) -> None:
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    descent = Descent([([parameter], 0.1) for parameter in parameters], FewshotConfig(steps=3, schedule="linear"))
    for broken in (False, True, False):
        for parameter in parameters:
            parameter.grad = torch.ones(2)
        before = [parameter.detach().clone() for parameter in parameters]
        if broken:
            assert parameters[1].grad is not None
            parameters[1].grad[0] = torch.nan
        descent.step()
        moved = [not torch.equal(old, new) for old, new in zip(before, parameters, strict=True)]
        assert moved == [not broken] * 2
    assert descent.optimizer.param_groups[0]["lr"] == 0  # the schedule went on
    descent.report_skipped()
    assert "1 of 3 steps" in caplog.text


@pytest.mark.parametrize(("patience", "evaluated"), [(1, 3), (2, 5), (None, 6)])
def test_patience_counts_evaluations_that_are_not_better(patience: int | None, evaluated: int) -> None:
    scores = [0.5, 0.6, 0.6, 0.7, 0.7, 0.7] if patience == 1 else [0.5, 0.6, 0.7, 0.7, 0.6, 0.9]
    given = iter(scores)
    rows = FewShotRows(None, [None] * 4, [], ["accuracy"], seed=0)  # type: ignore[arg-type, list-item]
    settings = FewshotConfig(steps=12, eval_every=2, batch_size=2, patience=patience)
    curve, _ = keep_best(settings, rows, lambda batch: torch.ones(()), lambda: next(given), dict)
    assert len(curve) == evaluated
