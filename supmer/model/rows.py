"""Micro-batches: rows of many tasks, grouped by length under a token budget and padded only to their longest.

Shapes: B rows of a micro-batch, S encoder positions without the prompt, D decoder positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from supmer.tasks.episode import NO_CENTROID, Example

IGNORED_LABEL = -100
PAD_TOKEN = 0


class Rows(NamedTuple):
    """Padded rows: `input_ids`, `attention_mask`, `centroid_ids` [B, S], `labels` [B, D], `task_index` [B]."""

    input_ids: Tensor
    attention_mask: Tensor
    centroid_ids: Tensor
    labels: Tensor
    task_index: Tensor

    def to(self, device: torch.device) -> Rows:
        """Copy all tensors to a device."""
        return Rows(*(tensor.to(device, non_blocking=True) for tensor in self))


def plan_microbatches(lengths: Sequence[int], overhead: int, max_tokens: int, copies: int = 1) -> list[list[int]]:
    """Group rows by length so that each group's padded size stays within the budget.

    Args:
        lengths: tokens of each row.
        overhead: positions that every row has besides (the prompt's).
        max_tokens: padded positions that a group may have; a single row is always taken.
        copies: rows encoded per row (2 where each is mixed with an augmentation row).

    Returns:
        Indices into `lengths`, longest rows first: the pass needs its peak memory at once, not by surprise.
    """
    groups: list[list[int]] = []
    width = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if groups and (len(groups[-1]) + 1) * copies * width <= max_tokens:
            groups[-1].append(index)
        else:
            groups.append([index])
            width = lengths[index] + overhead
    return groups


def collate(examples: Sequence[Example], task_index: Sequence[int], width: int | None = None) -> Rows:
    """Pad rows to `width` positions, or to the longest among them."""
    longest = max(len(example.input_ids) for example in examples)
    size = (len(examples), max(longest, width or 0))
    input_ids = np.full(size, PAD_TOKEN, dtype=np.int64)
    centroid_ids = np.full(size, NO_CENTROID, dtype=np.int64)
    attention_mask = np.zeros(size, dtype=np.int64)
    labels = np.full((len(examples), max(len(e.target_ids) for e in examples)), IGNORED_LABEL, dtype=np.int64)
    for row, example in enumerate(examples):
        length = len(example.input_ids)
        input_ids[row, :length] = example.input_ids
        centroid_ids[row, :length] = example.centroid_ids
        attention_mask[row, :length] = 1
        labels[row, : len(example.target_ids)] = example.target_ids
    arrays = (input_ids, attention_mask, centroid_ids, labels, np.asarray(task_index, dtype=np.int64))
    return Rows(*(torch.from_numpy(array) for array in arrays))
