"""The ranks that compute one meta-step together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, distributed


class Group(Protocol):
    """What a meta-step needs of its fellow ranks; all of them call a method together."""

    rank: int
    size: int

    def all_reduce_sum(self, flat: Tensor) -> Tensor:
        """Return the sum of all ranks' equally long tensors."""
        ...

    def all_reduce_max(self, value: int) -> int:
        """Return the largest of all ranks' numbers."""
        ...


class LocalGroup:
    """One process alone."""

    rank = 0
    size = 1

    def all_reduce_sum(self, flat: Tensor) -> Tensor:
        return flat

    def all_reduce_max(self, value: int) -> int:
        return value


class TorchGroup:
    """All processes of the initialized `torch.distributed` world."""

    def __init__(self, device: torch.device) -> None:
        self.rank = distributed.get_rank()
        self.size = distributed.get_world_size()
        self._device = device

    def all_reduce_sum(self, flat: Tensor) -> Tensor:
        distributed.all_reduce(flat, op=distributed.ReduceOp.SUM)
        return flat

    def all_reduce_max(self, value: int) -> int:
        largest = torch.tensor(value, device=self._device)
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return int(largest)


def all_reduce_together(tensors: Sequence[Tensor], group: Group) -> list[Tensor]:
    """Return the sums over all ranks of tensors of any shapes, in one flat buffer, so that a pass communicates once."""
    flat = group.all_reduce_sum(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]
