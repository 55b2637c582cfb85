"""Sequences of tokens as batches: groups of similar length under a budget, padding, means over what is not padding.

Shapes: B sequences of a batch, S positions, d width of states.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

LIMITS_TRIED = 12
"""Bisections of the most work that a rank may have: to a part in 4,000 of all work."""

CPU_BATCH_TOKENS = 1024
"""A CPU gains nothing from larger batches: their states leave its caches, and short rows are padded to longer ones.

Sentences of 25 tokens through the embedded encoder, tokens per second of one core: 4,040 in batches of 16,384 padded
tokens, 6,960 of 4,096, 7,830 of 2,048, 8,400 of 1,024, 8,510 of 512.
"""


def batch_tokens(allowed: int, device: torch.device) -> int:
    """Return the padded tokens of a batch: what the settings allow, and on a CPU what its caches hold.

    >>> batch_tokens(16_384, torch.device("cpu")), batch_tokens(16_384, torch.device("cuda"))
    (1024, 16384)
    """
    return min(allowed, CPU_BATCH_TOKENS) if device.type == "cpu" else allowed


def plan_microbatches(lengths: Sequence[int], overhead: int, max_tokens: int, copies: int = 1) -> list[list[int]]:
    """Group rows by length so that each group's padded size stays within the budget.

    Args:
        lengths: tokens of each row.
        overhead: positions that every row has besides (the prompt's).
        max_tokens: padded positions that a group may have; a single row is always taken.
        copies: rows encoded per row (2 where each is mixed with an augmentation row).

    Returns:
        Indices into `lengths`, longest rows first: the pass needs its peak memory at once, not by surprise.

    >>> plan_microbatches([3, 9, 4], overhead=0, max_tokens=9)
    [[1], [2, 0]]
    """
    return [group for rank in _fill_ranks(lengths, overhead, max_tokens, copies, float, math.inf) for group in rank]


def deal_microbatches(
    lengths: Sequence[int], overhead: int, max_tokens: int, copies: int, num_ranks: int, work: Callable[[int], float]
) -> list[list[list[int]]]:
    """Group rows as `plan_microbatches` does, for each of several ranks, so that the busiest has the least work.

    Neighbours in length go to the same rank, so that rows shared by more ranks are padded no more.

    Args:
        lengths, overhead, max_tokens, copies: see `plan_microbatches`.
        num_ranks: the ranks that share the rows.
        work: the work of one row that is padded to this many positions.

    Returns:
        The micro-batches of each rank; none for a rank that no row is left for.

    >>> deal_microbatches([4, 9, 5, 3], 0, 9, 1, num_ranks=2, work=float)
    [[[1]], [[2], [0, 3]]]
    """
    low, high = 0.0, sum(work(max(lengths) + overhead) for _ in lengths)
    for _ in range(LIMITS_TRIED if num_ranks > 1 else 0):
        limit = (low + high) / 2
        fits = len(_fill_ranks(lengths, overhead, max_tokens, copies, work, limit)) <= num_ranks
        low, high = (low, limit) if fits else (limit, high)
    ranks = _fill_ranks(lengths, overhead, max_tokens, copies, work, high)
    return ranks + [[] for _ in range(num_ranks - len(ranks))]


def _fill_ranks(
    lengths: Sequence[int],
    overhead: int,
    max_tokens: int,
    copies: int,
    work: Callable[[int], float],
    limit: float,
) -> list[list[list[int]]]:
    """Group rows from the longest on, and begin another rank where one would have more work than `limit`."""
    ranks: list[list[list[int]]] = []
    width, done = 0, 0.0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        joins = bool(ranks) and (len(ranks[-1][-1]) + 1) * copies * width <= max_tokens
        padded = width if joins else lengths[index] + overhead
        if not ranks or done + work(padded) > limit:
            ranks.append([[index]])
            width = lengths[index] + overhead
            done = work(width)
            continue
        if joins:
            ranks[-1][-1].append(index)
        else:
            ranks[-1].append([index])
            width = padded
        done += work(padded)
    return ranks


def pad(sequences: Sequence[npt.ArrayLike], value: int = 0, width: int = 0) -> tuple[npt.NDArray[np.int64], ...]:
    """Fill sequences up to the longest, or to `width`; return them [B, S], and a mask [B, S] of what was there.

    >>> pad([[5, 6], [7]], value=-1)[0].tolist()
    [[5, 6], [7, -1]]
    """
    rows = [np.asarray(sequence) for sequence in sequences]
    size = (len(rows), max([width, *(len(row) for row in rows)]))
    padded, mask = np.full(size, value, dtype=np.int64), np.zeros(size, dtype=np.int64)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return padded, mask


def masked_sum(states: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum [B, d], in float32 or more, of states [B, S, d] where mask [B, S] is 1, and how many these are [B]."""
    return (at_least_float32(states) * mask.unsqueeze(-1)).sum(dim=1), mask.sum(dim=1)


def mean_pool(states: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [B, d], in float32 or more, of states [B, S, d] where mask [B, S] is 1."""
    total, count = masked_sum(states, mask)
    return total / count.unsqueeze(-1)


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return a tensor in float32, or in its own type where that is more precise."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
