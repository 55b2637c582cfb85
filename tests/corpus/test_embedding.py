"""Embeddings against one unit at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from supmer.backbone.load import load_backbone
from supmer.config import BackboneConfig
from supmer.corpus.embedding import Encoder, length_batches


def test_batches_give_what_single_units_give(backbone: Path) -> None:
    config = BackboneConfig(name=str(backbone))
    rng = np.random.default_rng(0)
    units = [rng.integers(3, 100, size, dtype=np.int32) for size in rng.integers(1, 40, 50)]
    embeddings = Encoder(config, max_batch_tokens=200).embed(units)
    encoder = load_backbone(config).get_encoder()
    for unit, embedding in zip(units, embeddings, strict=True):
        with torch.no_grad():
            states = encoder(input_ids=torch.from_numpy(unit).long()[None]).last_hidden_state[0]
        np.testing.assert_allclose(embedding, states.mean(dim=0).numpy(), rtol=1e-5, atol=1e-6)
    assert embeddings.dtype == np.float32
    assert Encoder(config, 64).embed([]).shape == (0, embeddings.shape[1])


@given(st.lists(st.integers(1, 300), max_size=80), st.integers(64, 1000))
def test_batches_cover_all_rows_within_the_budget(lengths: list[int], budget: int) -> None:
    array = np.array(lengths, dtype=np.int64)
    batches = list(length_batches(array, budget))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * array[batch].max() <= budget for batch in batches)
