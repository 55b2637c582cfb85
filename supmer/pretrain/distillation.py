"""The student's encoder follows a sentence encoder: batches of sentences, and the loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

NUM_NEIGHBOURS = 8
"""A batch is drawn from so many times its size in sentences of neighbouring lengths, so that little of it is padding."""


def draw_alike(by_length: npt.NDArray[np.int64], batch_size: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return `batch_size` different sentences of similar length; `by_length` [N] lists all from short to long."""
    window = min(len(by_length), NUM_NEIGHBOURS * batch_size)
    start = int(generator.integers(len(by_length) - window + 1))
    return by_length[start + generator.choice(window, size=min(window, batch_size), replace=False)]


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return cosine distance plus the divergence of in-batch similarities, both 0 for equal unit vectors [B, d].

    The second term compares, sentence by sentence, whom the student and whom the teacher find similar.
    """
    cosine = 1 - (student * teacher).sum(dim=-1).mean()
    theirs = (teacher @ teacher.T / temperature).log_softmax(dim=-1)
    ours = (student @ teacher.T / temperature).log_softmax(dim=-1)
    return cosine + nn.functional.kl_div(ours, theirs, log_target=True, reduction="batchmean")


def pad(sentences: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids and mask [B, S] of sentences, padded by 0 on the right."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(sentence) for sentence in sentences], batch_first=True)
    lengths = torch.tensor([len(sentence) for sentence in sentences])
    return ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long()
