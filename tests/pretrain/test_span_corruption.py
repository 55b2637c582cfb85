"""Span corruption: what is taken out comes back, and every row of a batch has one shape."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from supmer.corpus.unit import TokenIds
from supmer.pretrain.span_corruption import corrupt, corrupt_batch, noise_mask, pack_sequences

FIRST_SENTINEL, EOS = 1099, 1


def restore(inputs: list[int], targets: list[int]) -> list[int]:
    """Put the spans of the target back into the input, by the sentinels that name them."""
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token >= 1000:
            current = spans.setdefault(token, [])
        else:
            current.append(token)
    return [piece for token in inputs for piece in spans.get(token, [token])]


@given(length=st.integers(16, 300), seed=st.integers(0, 2**32 - 1))
def test_input_and_target_hold_the_whole_sequence(length: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    sequence: TokenIds = generator.integers(3, 1000, size=length).astype(np.int32)
    mask = noise_mask(length, generator)
    inputs, targets = corrupt(sequence, mask, FIRST_SENTINEL, EOS)
    assert inputs[-1] == targets[-1] == EOS
    assert restore(inputs[:-1], targets[:-2]) == sequence.tolist()
    num_spans = sum(token >= 1000 for token in inputs)
    assert [token for token in inputs if token >= 1000] == [FIRST_SENTINEL - index for index in range(num_spans)]
    assert [token for token in targets if token >= 1000] == [FIRST_SENTINEL - index for index in range(num_spans + 1)]
    assert targets[0] == FIRST_SENTINEL


@given(length=st.integers(16, 300), seed=st.integers(0, 2**32 - 1))
def test_noise_share_does_not_depend_on_the_draw(length: int, seed: int) -> None:
    mask = noise_mask(length, np.random.default_rng(seed))
    assert len(mask) == length
    assert mask.sum() == max(1, round(0.15 * length))
    assert not mask[0]
    assert mask[-1]


def test_batches_have_no_padding_and_repeat_by_seed() -> None:
    sequences = np.arange(3, 3 + 8 * 64, dtype=np.int32).reshape(8, 64)
    inputs, targets = corrupt_batch(sequences, np.random.default_rng(1), FIRST_SENTINEL, EOS)
    again, _ = corrupt_batch(sequences, np.random.default_rng(1), FIRST_SENTINEL, EOS)
    assert inputs.shape == (8, 64 - 10 + 3 + 1)
    assert targets.shape == (8, 10 + 3 + 1 + 1)
    assert (inputs > 0).all() and (targets > 0).all()
    np.testing.assert_array_equal(inputs, again)
    assert len({tuple(row.tolist().index(FIRST_SENTINEL) for _ in [0]) for row in inputs}) > 1, "all rows have one mask"


def test_packing_keeps_order_and_document_ends() -> None:
    packed = pack_sequences([[5, 6, 7], [8], [9, 10, 11, 12]], length=4, eos=EOS)
    assert packed.tolist() == [[5, 6, 7, EOS], [8, EOS, 9, 10]]
