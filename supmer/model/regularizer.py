"""The meta-gradient regularizer psi_phi (section 4): a small network that bends raw few-shot gradients.

Shapes: T tasks, L prompt length, d model width, r rank. Parameters carry the names of the published state dicts
(`mlp.layers.{i}.u` [d, r], `.v` [r, d], `.bias` [d], `mlp.linear_1.*`, `mlp.linear_2.*`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from supmer.config import RegularizerConfig

EPSILON = 1e-8
IDENTITY_GATE_LOGIT = 5.0
"""Gate logit of the identity initialization: z = 0.993. Larger values saturate the gate's gradient in fp32."""

Norm = Literal["row_l2", "matrix_l2", "row_l1", "matrix_l1"]


class RegularizedGradient(NamedTuple):
    """`gradient` [T, L, d] (g~ in the paper) and `gate` [T] (z, the share of the raw gradient)."""

    gradient: Tensor
    gate: Tensor


class LowRankLayer(nn.Module):
    """``x -> relu(U (V x) + b)`` on rows x of width d."""

    def __init__(self, width: int, rank: int) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.zeros(width, rank))
        self.v = nn.Parameter(torch.zeros(rank, width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        bent: Tensor = torch.relu(x @ self.v.T @ self.u.T + self.bias)
        return bent


class RegularizerNetwork(nn.Module):
    """The stack of low-rank layers and the gate's two linear layers."""

    def __init__(self, width: int, config: RegularizerConfig) -> None:
        super().__init__()
        rank = min(config.rank, width)
        self.layers = nn.ModuleList(LowRankLayer(width, rank) for _ in range(config.hidden_layers + 1))
        self.linear_1 = nn.Linear(width, config.gate_hidden)
        self.linear_2 = nn.Linear(config.gate_hidden, 1)

    def bend(self, gradient: Tensor) -> Tensor:
        """Pass rows [..., d] through the stack."""
        for layer in self.layers:
            gradient = layer(gradient)
        return gradient

    def gate(self, hidden: Tensor) -> Tensor:
        """Return z [T] of pooled encoder states [T, d]."""
        return torch.sigmoid(self.linear_2(torch.relu(self.linear_1(hidden)))).squeeze(-1)


class GradientRegularizer(nn.Module):
    """psi_phi: ``g~ = (1 - z) * y + z * g``, where y is g through the stack, rescaled to the norm of g.

    Args:
        width: d.
        config: depth, rank, norm, gate and initialization.
        generator: source of the initial weights.
    """

    grad_mean: Tensor
    grad_std: Tensor
    grad_s: Tensor
    k: Tensor

    def __init__(self, width: int, config: RegularizerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.mlp = RegularizerNetwork(width, config)
        self.register_buffer("grad_mean", torch.zeros(width))
        self.register_buffer("grad_std", torch.ones(width))
        self.register_buffer("grad_s", torch.zeros(width))
        self.register_buffer("k", torch.zeros(1))
        initialize(self.mlp, config.init, generator)

    def forward(self, gradient: Tensor, hidden: Tensor) -> RegularizedGradient:
        """Bend raw gradients.

        Args:
            gradient: raw prompt gradients [T, L, d].
            hidden: mean encoder states of the same rows [T, d].
        """
        bent = self.mlp.bend(self._normalize(gradient))
        bent = bent * (_norm(gradient, self.config.norm) + EPSILON) / (_norm(bent, self.config.norm) + EPSILON)
        if not self.config.gate:
            return RegularizedGradient(bent, torch.zeros_like(hidden[:, 0]))
        gate = self.mlp.gate(hidden)
        z = gate.view(-1, 1, 1)
        return RegularizedGradient((1 - z) * bent + z * gradient, gate)

    @torch.no_grad()
    def observe(self, count: Tensor, total: Tensor, squares: Tensor) -> None:
        """Merge a batch of gradient rows into the running statistics (parallel variance, Chan et al. 1983).

        Args:
            count: number of rows, a scalar tensor.
            total, squares: sum of the rows and of their squares [d].
        """
        mean = total / count
        deviation = squares - count * mean * mean
        merged = self.k + count
        delta = mean - self.grad_mean
        self.grad_s += deviation.clamp(min=0) + delta * delta * self.k * count / merged
        self.grad_mean += delta * count / merged
        self.k.copy_(merged)
        self.grad_std.copy_((self.grad_s / (merged - 1).clamp(min=1)).sqrt())

    def _normalize(self, gradient: Tensor) -> Tensor:
        if not self.config.normalize or self.k.item() < 2:
            return gradient
        return (gradient - self.grad_mean) / (self.grad_std + EPSILON)


def _norm(matrix: Tensor, norm: Norm) -> Tensor:
    dims = -1 if norm.startswith("row") else (-2, -1)
    length: Tensor = torch.linalg.vector_norm(matrix, ord=1 if norm.endswith("l1") else 2, dim=dims, keepdim=True)
    return length


@torch.no_grad()
def initialize(network: RegularizerNetwork, init: str, generator: torch.Generator | None = None) -> None:
    """Fill the weights: `published` (normal U and V), `xavier`, or `identity` (starts as a no-op, by an open gate)."""
    for parameter in network.parameters():
        if parameter.dim() == 2:
            nn.init.xavier_uniform_(parameter, generator=generator)
        else:
            parameter.zero_()
    for layer in network.layers:
        assert isinstance(layer, LowRankLayer)
        if init == "published":
            layer.u.normal_(generator=generator)
            layer.v.normal_(generator=generator)
        elif init == "identity":
            nn.init.orthogonal_(layer.v, generator=generator)
            layer.u.copy_(layer.v.T)
    if init == "identity":
        network.linear_2.weight.zero_()
        network.linear_2.bias.fill_(IDENTITY_GATE_LOGIT)
