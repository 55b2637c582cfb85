"""Rows as tensors, padded to the longest."""

from __future__ import annotations

import numpy as np
import torch
from factories import random_example

from supmer.model.rows import IGNORED_LABEL, collate
from supmer.tasks.episode import NO_CENTROID, Example


def test_collate_pads_with_masked_positions() -> None:
    rng = np.random.default_rng(0)
    examples = [random_example(rng) for _ in range(5)]
    rows = collate(examples, [0, 1, 1, 2, 0], width=9)
    width = max(9, *(len(example.input_ids) for example in examples))
    assert rows.input_ids.shape == rows.attention_mask.shape == rows.centroid_ids.shape == (5, width)
    assert rows.task_index.tolist() == [0, 1, 1, 2, 0]
    for index, example in enumerate(examples):
        length = len(example.input_ids)
        assert rows.input_ids[index, :length].tolist() == example.input_ids.tolist()
        assert rows.attention_mask[index].tolist() == [1] * length + [0] * (width - length)
        assert (rows.centroid_ids[index, length:] == NO_CENTROID).all()


def test_collate_ignores_the_end_of_short_targets() -> None:
    ids = np.array([5, 6, 7], np.int32)
    none = np.full(3, NO_CENTROID, np.int32)
    long = Example(ids, none, np.array([95, 1, 2, 94], np.int32), 0)
    short = Example(ids, none, np.array([95, 1, 94], np.int32), 0)
    rows = collate([long, short], [0, 0])
    assert rows.labels.tolist() == [[95, 1, 2, 94], [95, 1, 94, IGNORED_LABEL]]
    assert rows.labels.dtype == torch.int64
