"""Token embeddings to start from: what the teacher makes of each piece alone, in the student's width.

A student that trains for an hour meets most words a few times only; so it need not learn from nothing what they mean.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from transformers import PreTrainedTokenizerBase

from supmer.pretrain.teacher import Embeddings

NOISE = 0.5
"""Share of the random initialization that is kept: the teacher takes some pieces, as `Yes` and `yes`, for the same."""

Vectors = npt.NDArray[np.float32]


def piece_texts(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[str]:
    """Return the text of each of the first `vocab_size` tokens, the special ones too."""
    return [token.replace("▁", " ").strip() or "," for token in tokenizer.convert_ids_to_tokens(list(range(vocab_size)))]


def principal_map(pieces: Embeddings, width: int) -> Vectors:
    """Return the map [d_teacher, width] onto the main directions of `pieces` [V, d_teacher], to entries of unit size."""
    centred = pieces - pieces.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:width].T
    directions /= np.sqrt(np.mean((centred @ directions) ** 2))
    return np.pad(directions, ((0, 0), (0, width - directions.shape[1]))).astype(np.float32)


@torch.no_grad()
def start_from(weight: torch.Tensor, pieces: Embeddings, to_width: Vectors, num_special: int) -> None:
    """Set the rows of the embedding table [V', d] that belong to `pieces`, all but the special tokens at its beginning."""
    vectors = torch.from_numpy((pieces - pieces.mean(axis=0)) @ to_width)
    rows = slice(num_special, len(pieces))
    weight[rows] = NOISE * weight[rows] + vectors[rows]
