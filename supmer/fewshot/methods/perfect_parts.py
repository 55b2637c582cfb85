"""What PERFECT trains beside a frozen backbone, and how it is put into the backbone and taken out again.

Shapes: C classes, M mask slots, d model width. Parameters and buffers are always float32: a step of 1e-4 would be lost in
the bfloat16 of a backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from supmer.config import PerfectConfig
from supmer.errors import setting_error
from supmer.model.prompted import PromptedModel

ADAPTER_STD = 0.02


class Adapter(nn.Module):
    """``u + W_up gelu(W_down u + b_down) + b_up`` with the tanh form of gelu, bottleneck `size`.

    Weights are drawn from N(0, 0.02^2) and biases are 0, so that a new adapter is close to the identity.
    """

    def __init__(self, width: int, size: int, generator: torch.Generator) -> None:
        super().__init__()
        with torch.device("meta"):  # draws nothing from the global random state
            self.down, self.up = nn.Linear(width, size), nn.Linear(size, width)
        for layer in (self.down, self.up):
            layer.to_empty(device="cpu")
            nn.init.normal_(layer.weight, std=ADAPTER_STD, generator=generator)
            nn.init.zeros_(layer.bias)

    def forward(self, states: Tensor) -> Tensor:
        precise = states.to(self.down.weight.dtype)
        added = self.up(nn.functional.gelu(self.down(precise), approximate="tanh"))
        adapted: Tensor = (precise + added).to(states.dtype)
        return adapted


class PerfectParts(nn.Module):
    """Adapters after the feed-forward networks, copies of the layer norms, label embeddings and prototypes [C, M, d].

    The frozen backbone is only looked at; `seed` is that of the initial values.

    >>> parts = PerfectParts(model, num_classes=2, settings=PerfectConfig(), seed=0)  # doctest: +SKIP
    >>> with parts.inserted(model):  # doctest: +SKIP
    ...     states = mask_states(model, rows, "decoder")
    """

    prototypes: Tensor

    def __init__(self, model: PromptedModel, num_classes: int, settings: PerfectConfig, seed: int) -> None:
        super().__init__()
        self.states = settings.states
        generator = torch.Generator().manual_seed(seed)
        width = model.width
        size = max(1, width // settings.reduction)
        stacks = self._stacks(model)
        self.adapters = nn.ModuleList(Adapter(width, size, generator) for _ in _feed_forwards(stacks))
        self.norms = nn.ParameterList(
            parameter.detach().float().clone()
            for parent, name in _layer_norms(stacks)
            for parameter in getattr(parent, name).parameters()
        )
        shape = (num_classes, settings.num_masks, width)
        self.labels = nn.Parameter(torch.randn(shape, generator=generator) * settings.init_std)
        self.register_buffer("prototypes", torch.zeros(shape))
        self.to(model.device)

    @contextmanager
    def inserted(self, model: PromptedModel) -> Iterator[None]:
        """Let the backbone compute with adapters and layer norms; at the end its own modules are back, untouched."""
        stacks, norms = self._stacks(model), iter(self.norms)
        originals: list[tuple[nn.Module, str, nn.Module]] = []

        def replace(parent: nn.Module, name: str, module: nn.Module) -> None:
            originals.append((parent, name, getattr(parent, name)))
            setattr(parent, name, module)

        try:
            for (parent, name), adapter in zip(_feed_forwards(stacks), self.adapters, strict=True):
                replace(parent, name, nn.Sequential(getattr(parent, name), adapter))
            for parent, name in _layer_norms(stacks):
                norm = getattr(parent, name)
                replace(parent, name, _TrainedNorm(norm, {key: next(norms) for key, _ in norm.named_parameters()}))
            yield
        finally:
            for parent, name, original in originals:
                setattr(parent, name, original)

    def _stacks(self, model: PromptedModel) -> list[Any]:
        backbone = model.backbone
        if not backbone.config.is_encoder_decoder:
            return [backbone.get_decoder()]
        return [backbone.get_encoder(), backbone.get_decoder()] if self.states == "decoder" else [backbone.get_encoder()]


class _TrainedNorm(nn.Module):
    """A layer norm of the backbone under other parameters."""

    def __init__(self, norm: nn.Module, trained: dict[str, nn.Parameter]) -> None:
        super().__init__()
        self.norm = norm
        self.trained = trained

    def forward(self, states: Tensor) -> Tensor:
        types = {name: parameter.dtype for name, parameter in self.norm.named_parameters()}
        values = {name: parameter.to(types[name]) for name, parameter in self.trained.items()}
        result: Tensor = functional_call(self.norm, values, states)
        return result


def _feed_forwards(stacks: Sequence[Any]) -> list[tuple[nn.Module, str]]:
    """Return the feed-forward network of each block as its parent and name: before dropout and the residual sum."""
    if hasattr(stacks[0], "block"):
        return [(block.layer[-1], "DenseReluDense") for stack in stacks for block in stack.block]
    found = [(parent, "mlp") for stack in stacks for parent in stack.modules() if "mlp" in dict(parent.named_children())]
    if not found:
        raise setting_error("fewshot.methods", "perfect", "the blocks of backbone.name have no `mlp` to adapt")
    return found


def _layer_norms(stacks: Sequence[Any]) -> list[tuple[nn.Module, str]]:
    """Return all layer norms as parent and name."""
    return [
        (parent, name)
        for stack in stacks
        for parent in stack.modules()
        for name, child in parent.named_children()
        if type(child).__name__.endswith("Norm")
    ]
