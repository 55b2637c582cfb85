"""Batches of sequences: every row once, within the budget, padding without weight."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from supmer.backbone.batches import deal_microbatches, mean_pool, pad, plan_microbatches


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    overhead=st.integers(0, 20),
    max_tokens=st.integers(1, 400),
    copies=st.sampled_from([1, 2]),
)
def test_plan_covers_every_row_within_the_budget(lengths: list[int], overhead: int, max_tokens: int, copies: int) -> None:
    groups = plan_microbatches(lengths, overhead, max_tokens, copies)
    assert sorted(index for group in groups for index in group) == list(range(len(lengths)))
    for group in groups:
        padded = copies * len(group) * (max(lengths[index] for index in group) + overhead)
        assert padded <= max_tokens or len(group) == 1
    tops = [max(lengths[index] for index in group) for group in groups]
    assert tops == sorted(tops, reverse=True)


@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40),
    max_tokens=st.integers(1, 400),
    num_ranks=st.integers(1, 9),
)
def test_ranks_share_rows_evenly(lengths: list[int], max_tokens: int, num_ranks: int) -> None:
    """Each row once; no rank has more work than an even part of that of one rank, and two rows."""
    ranks = deal_microbatches(lengths, 5, max_tokens, 1, num_ranks, float)
    assert len(ranks) == num_ranks
    assert sorted(index for rank in ranks for group in rank for index in group) == list(range(len(lengths)))

    def padded(groups: list[list[int]]) -> int:
        return sum(len(group) * (max(lengths[index] for index in group) + 5) for group in groups)

    alone = plan_microbatches(lengths, 5, max_tokens)
    if num_ranks == 1:
        assert ranks == [alone]
    assert max(map(padded, ranks)) <= padded(alone) / num_ranks + 2 * (max(lengths) + 5)


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), min_size=1, max_size=9), st.integers(0, 12))
def test_padding_has_no_weight_in_means(sequences: list[list[int]], width: int) -> None:
    padded, mask = pad(sequences, value=1000, width=width)
    assert padded.shape == (len(sequences), max(width, *(len(sequence) for sequence in sequences), 0))
    states = torch.from_numpy(padded)[:, :, None].to(torch.bfloat16)
    found = mean_pool(states, torch.from_numpy(mask))
    assert found.dtype == torch.float32
    expected = [[np.mean(sequence)] for sequence in sequences]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
