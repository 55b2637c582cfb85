"""Parameters that the outer loop trains together (section 5): Adam, one schedule, one limit on the gradient's norm."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ParameterGroup:
    """Parameters with an optimizer of their own.

    Args:
        name: name under which the optimizer's state is kept.
        parameters: at least one, by the names of their gradients.
        lr: Adam rate before the schedule.
    """

    def __init__(self, name: str, parameters: dict[str, nn.Parameter], lr: float) -> None:
        self.name = name
        self.parameters = parameters
        self.optimizer = torch.optim.Adam(parameters.values(), lr=lr)
        self._lr = lr

    def clip(self, gradients: dict[str, Tensor], limit: float) -> Tensor:
        """Put the parameters' gradients in place, clip them to a common norm, and return the norm before."""
        for name, parameter in self.parameters.items():
            parameter.grad = gradients[name]
        return nn.utils.clip_grad_norm_(self.parameters.values(), limit)

    def step(self, remaining: float) -> None:
        """Move the parameters at the first rate times `remaining`, the part that the schedule leaves of it."""
        self.optimizer.param_groups[0]["lr"] = self._lr * remaining
        self.optimizer.step()

    def state(self) -> dict[str, Tensor]:
        """Return parameters and optimizer state as flat named tensors, so that checkpoints need no pickle."""
        moments = self.optimizer.state_dict()["state"]
        flat = {f"{self._prefix}{index}.{key}": value for index, entry in moments.items() for key, value in entry.items()}
        return {**self.parameters, **flat}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restore what `state` returned; KeyError or RuntimeError where the tensors do not fit."""
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state[name])
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            if name.startswith(self._prefix):
                index, key = name.removeprefix(self._prefix).split(".", 1)
                moments.setdefault(int(index), {})[key] = torch.as_tensor(tensor).clone()
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})

    @property
    def _prefix(self) -> str:
        return f"{self.name}_optimizer."
