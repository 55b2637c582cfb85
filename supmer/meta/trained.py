"""Parameters that the outer loop trains together (section 5): Adam, linear decay to 0, one limit on the gradient's norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from supmer.meta.state import flatten_optimizer, restore_optimizer


class Trained:
    """Parameters with an optimizer of their own.

    Args:
        name: under which the optimizer's state is kept.
        parameters: at least one, by the names that their gradients have.
        lr: Adam rate at the first meta-step.
    """

    def __init__(self, name: str, parameters: dict[str, nn.Parameter], lr: float) -> None:
        self.name = name
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters.values(), lr=lr)
        self._lr = lr

    def clip(self, gradients: dict[str, Tensor], limit: float) -> Tensor:
        """Put the parameters' gradients in place, clip them to a common norm, and return that norm before."""
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        return nn.utils.clip_grad_norm_(self.parameters.values(), limit)

    def step(self, remaining: float) -> None:
        """Move the parameters, at the rate of a meta-step before which the share `remaining` of the training is left."""
        self.optimizer.param_groups[0]["lr"] = self._lr * remaining
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimizer state by name."""
        return {**self.parameters, **flatten_optimizer(f"{self.name}_optimizer", self.optimizer)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned; KeyError or RuntimeError where it does not fit."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[name])
        restore_optimizer(f"{self.name}_optimizer", self.optimizer, state)
