"""The regularizer: norms kept, gate, initializations, published names, running statistics."""

from __future__ import annotations

import pytest
import torch
from meta_oracle import regularize
from torch import Tensor

from supmer.config import RegularizerConfig
from supmer.model.regularizer import GradientRegularizer

WIDTH, LENGTH, TASKS = 12, 5, 3


def build(**settings: object) -> GradientRegularizer:
    config = RegularizerConfig.model_validate({"rank": 8, "init": "xavier", **settings})
    return GradientRegularizer(WIDTH, config, torch.Generator().manual_seed(0))


def inputs(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(TASKS, LENGTH, WIDTH, generator=generator), torch.randn(TASKS, WIDTH, generator=generator)


@pytest.mark.parametrize("hidden_layers", [0, 1, 3])
def test_equals_the_equations_row_by_row(hidden_layers: int) -> None:
    psi = build(hidden_layers=hidden_layers).double()
    gradient, hidden = (tensor.double() for tensor in inputs())
    result = psi(gradient, hidden)
    for task in range(TASKS):
        expected, gate = regularize(dict(psi.named_parameters()), gradient[task], hidden[task], hidden_layers + 1)
        torch.testing.assert_close(result.gradient[task], expected)
        torch.testing.assert_close(result.gate[task], gate)


@pytest.mark.parametrize(
    ("norm", "order", "dims"),
    [("row_l2", 2, -1), ("row_l1", 1, -1), ("matrix_l2", 2, (-2, -1)), ("matrix_l1", 1, (-2, -1))],
)
def test_result_keeps_the_norm(norm: str, order: int, dims: int | tuple[int, int]) -> None:
    gradient, hidden = inputs()
    bent = build(norm=norm, gate=False, init="published")(gradient, hidden).gradient
    torch.testing.assert_close(
        torch.linalg.vector_norm(bent, order, dim=dims), torch.linalg.vector_norm(gradient, order, dim=dims)
    )
    assert not torch.allclose(bent, gradient)


def test_identity_starts_as_a_no_op() -> None:
    gradient, hidden = inputs()
    result = build(init="identity", rank=WIDTH)(gradient, hidden)
    torch.testing.assert_close(result.gradient, gradient, rtol=0, atol=0.05)
    assert (result.gate > 0.99).all()


def test_identity_still_learns() -> None:
    psi, (gradient, hidden) = build(init="identity"), inputs()
    psi(gradient, hidden).gradient.square().sum().backward()
    assert psi.mlp.layers[0].u.grad.abs().max() > 0
    assert psi.mlp.linear_2.bias.grad.abs().max() > 0


def test_published_initialization_is_normal() -> None:
    psi = GradientRegularizer(200, RegularizerConfig(init="published"), torch.Generator().manual_seed(0))
    for weights in (psi.mlp.layers[0].u, psi.mlp.layers[1].v):
        assert float(weights.detach().std()) == pytest.approx(1.0, rel=0.02)
        assert float(weights.detach().mean()) == pytest.approx(0.0, abs=0.02)


def test_rank_is_capped_at_the_width() -> None:
    assert build(rank=1920).mlp.layers[0].u.shape == (WIDTH, WIDTH)


def test_zero_rows_stay_zero_and_differentiable() -> None:
    psi, (gradient, hidden) = build(), inputs()
    gradient[0, 0] = 0
    result = psi(gradient, hidden).gradient
    result.square().sum().backward()
    assert result[0, 0].abs().max() < 1e-6
    assert all(torch.isfinite(parameter.grad).all() for parameter in psi.parameters())


def test_state_dict_has_the_published_names() -> None:
    assert set(build().state_dict()) == {
        *(f"mlp.layers.{i}.{part}" for i in range(2) for part in ("u", "v", "bias")),
        *(f"mlp.linear_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")),
        *("grad_mean", "grad_std", "grad_s", "k"),
    }
