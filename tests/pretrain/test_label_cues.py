"""Cue rows: the word asked for is among the cues, as often as they are, and the text around the sentinel is whole."""

from __future__ import annotations

from collections import Counter

import numpy as np

from supmer.pretrain.label_cues import MAX_WORDS, NUM_CUES, TEXT_LENGTH, cue_batch

FIRST_SENTINEL, EOS = 999, 1
WORDS = np.arange(500, 520, dtype=np.int32)


def test_rows_hold_cues_text_and_one_of_the_cues() -> None:
    sequences = np.arange(8 * 60, dtype=np.int32).reshape(8, 60) % 400 + 3
    inputs, targets = cue_batch(sequences, WORDS, np.random.default_rng(0), FIRST_SENTINEL, EOS)
    pieces = sequences[:, : 2 * TEXT_LENGTH].reshape(-1, TEXT_LENGTH)
    assert inputs.shape == (16, NUM_CUES + TEXT_LENGTH + 2)
    for row, target, piece in zip(inputs.tolist(), targets.tolist(), pieces.tolist(), strict=True):
        cues, rest = row[:NUM_CUES], row[NUM_CUES:-1]
        assert set(cues) <= set(WORDS.tolist()) and len(set(cues)) <= MAX_WORDS
        assert [token for token in rest if token != FIRST_SENTINEL] == piece
        assert rest.count(FIRST_SENTINEL) == 1 and row[-1] == EOS
        assert target[0::3] == [FIRST_SENTINEL, EOS] and target[2] == FIRST_SENTINEL - 1
        assert target[1] in cues


def test_answers_follow_the_cues_shares() -> None:
    sequences = np.full((4000, TEXT_LENGTH), 7, dtype=np.int32)
    inputs, targets = cue_batch(sequences, WORDS, np.random.default_rng(1), FIRST_SENTINEL, EOS)
    counts = Counter(
        row[:NUM_CUES].count(answer) for row, answer in zip(inputs.tolist(), targets[:, 1].tolist(), strict=True)
    )
    expected = Counter(count for row in inputs.tolist() for count in map(row[:NUM_CUES].count, row[:NUM_CUES]))
    for count, number in expected.items():
        assert abs(counts[count] / 4000 - number / (4000 * NUM_CUES)) < 0.03
