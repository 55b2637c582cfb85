"""Optimizer state as flat named tensors, so that checkpoints need no pickle."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim import Adam


def flatten_optimizer(prefix: str, optimizer: Adam) -> dict[str, Tensor]:
    """Return ``{prefix.index.name: tensor}`` of the state of each parameter (none before the first step)."""
    state = optimizer.state_dict()["state"]
    return {f"{prefix}.{index}.{name}": value for index, entry in state.items() for name, value in entry.items()}


def restore_optimizer(prefix: str, optimizer: Adam, flat: dict[str, Tensor]) -> None:
    """Load what `flatten_optimizer` returned under the same prefix."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in flat.items():
        if key.startswith(f"{prefix}."):
            index, name = key.removeprefix(f"{prefix}.").split(".", 1)
            state.setdefault(int(index), {})[name] = torch.as_tensor(tensor).clone()
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
