"""The meta-gradient regularizer psi_phi (section 4): a small network that regularizes raw few-shot gradients.

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
        rows: Tensor = torch.relu(x @ self.v.T @ self.u.T + self.bias)
        return rows


class RegularizerNetwork(nn.Module):
    """The stack of low-rank layers and the gate's two linear layers."""

    def __init__(self, width: int, config: RegularizerConfig) -> None:
        super().__init__()
        rank = min(config.rank, width)
        self.layers = nn.ModuleList(LowRankLayer(width, rank) for _ in range(config.hidden_layers + 1))
        self.linear_1 = nn.Linear(width, config.gate_hidden)
        self.linear_2 = nn.Linear(config.gate_hidden, 1)

    def forward(self, gradient: Tensor) -> Tensor:
        """Pass rows [..., d] through the stack of layers."""
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

    Example:
        >>> psi = GradientRegularizer(8, RegularizerConfig(rank=4))
        >>> psi(torch.randn(2, 5, 8), torch.randn(2, 8)).gradient.shape
        torch.Size([2, 5, 8])
    """

    def __init__(self, width: int, config: RegularizerConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        self.mlp = RegularizerNetwork(width, config)
        # The published state dicts hold running statistics that the published runs never use; files keep their names.
        self.register_buffer("grad_mean", torch.zeros(width))
        self.register_buffer("grad_std", torch.ones(width))
        self.register_buffer("grad_s", torch.zeros(width))
        self.register_buffer("k", torch.zeros(1))
        initialize(self.mlp, config.init, generator)

    def forward(self, gradient: Tensor, hidden: Tensor) -> RegularizedGradient:
        """Return g~ and z.

        Args:
            gradient: raw prompt gradients [T, L, d].
            hidden: mean encoder states of the same rows [T, d].
        """
        y = self.mlp(gradient)
        y = y * (_norm(gradient, self.config.norm) + EPSILON) / (_norm(y, self.config.norm) + EPSILON)
        if not self.config.gate:
            return RegularizedGradient(y, torch.zeros_like(hidden[:, 0]))
        gate = self.mlp.gate(hidden)
        z = gate.view(-1, 1, 1)
        return RegularizedGradient((1 - z) * y + z * gradient, gate)


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
