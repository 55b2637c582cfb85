"""Rows of many tasks as the tensors of one micro-batch, padded only to their longest.

Shapes: B rows of a micro-batch, S encoder positions without the prompt, D decoder positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from supmer.backbone.batches import pad
from supmer.tasks.episode import NO_CENTROID, Example

IGNORED_LABEL = -100
PAD_TOKEN = 0


class Rows(NamedTuple):
    """Padded rows: `input_ids`, `attention_mask`, `centroid_ids` [B, S], `labels` [B, D], `task_index` [B].

    `is_padded` says whether the mask has a zero, so that nobody has to read it back from a GPU.
    """

    input_ids: Tensor
    attention_mask: Tensor
    centroid_ids: Tensor
    labels: Tensor
    task_index: Tensor
    is_padded: bool = True

    def to(self, device: torch.device) -> Rows:
        """Copy all tensors to a device."""
        return Rows(
            send(self.input_ids, device),
            send(self.attention_mask, device),
            send(self.centroid_ids, device),
            send(self.labels, device),
            send(self.task_index, device),
            self.is_padded,
        )


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a tensor to a device; a GPU fetches it meanwhile, from pinned memory, and nobody waits."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def collate(examples: Sequence[Example], task_index: Sequence[int], width: int | None = None) -> Rows:
    """Pad rows to `width` positions, or to the longest among them."""
    input_ids, attention_mask = pad([example.input_ids for example in examples], PAD_TOKEN, width or 0)
    centroid_ids, _ = pad([example.centroid_ids for example in examples], NO_CENTROID, width or 0)
    labels, _ = pad([example.target_ids for example in examples], IGNORED_LABEL)
    return Rows(
        torch.from_numpy(input_ids),
        torch.from_numpy(attention_mask),
        torch.from_numpy(centroid_ids),
        torch.from_numpy(labels),
        torch.from_numpy(np.asarray(task_index, dtype=np.int64)),
        is_padded=bool((attention_mask == 0).any()),
    )
