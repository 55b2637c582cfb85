"""Distillation: the loss, and batches of sentences of like length."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from supmer.pretrain.distillation import NUM_NEIGHBOURS, distillation_loss, draw_alike, pad


def test_loss_is_zero_for_the_teacher_itself_and_positive_for_others():
    teacher = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert distillation_loss(teacher, teacher, 0.05).item() == pytest.approx(0, abs=1e-5)
    assert distillation_loss(teacher.roll(1, 0), teacher, 0.05).item() > 0.5


def test_padding_is_masked():
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_batch_holds_different_sentences_of_like_length():
    by_length = np.arange(1000)
    drawn = [draw_alike(by_length, 10, np.random.default_rng(seed)) for seed in range(200)]
    assert all(len(set(rows.tolist())) == 10 and np.ptp(rows) < 10 * NUM_NEIGHBOURS for rows in drawn)
    assert np.ptp(np.concatenate(drawn)) > 900
    assert sorted(draw_alike(np.arange(4), 10, np.random.default_rng(0)).tolist()) == [0, 1, 2, 3]
