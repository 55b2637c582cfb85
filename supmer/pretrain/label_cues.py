"""Rows that teach the small model to answer with a label word when it is told which ones are in question.

Span corruption never shows a label word in the target's second position, and a model that never emits one cannot be steered
into it by a prompt. A cue row puts some label words before a piece of text and asks, at a sentinel, for one of them.
"""

from __future__ import annotations

import numpy as np

from supmer.corpus.unit import TokenIds
from supmer.pretrain.span_corruption import Batch

NUM_CUES = 6
MAX_WORDS = 4
TEXT_LENGTH = 24


def cue_batch(sequences: TokenIds, words: TokenIds, generator: np.random.Generator, first_sentinel: int, eos: int) -> Batch:
    """Return encoder inputs ``cues A <X> B eos`` and decoder targets ``<X> word <Y> eos`` for pieces of `sequences`.

    The 6 cues are drawn from one to four of `words`, and the word asked for is one of the 6 cues drawn at random: the best
    answer is their distribution.
    """
    pieces = sequences[:, : sequences.shape[1] // TEXT_LENGTH * TEXT_LENGTH].reshape(-1, TEXT_LENGTH)
    inputs, targets = [], []
    for piece in pieces:
        some = generator.choice(words, size=int(generator.integers(1, MAX_WORDS + 1)), replace=False)
        cues = generator.choice(some, size=NUM_CUES)
        gap = int(generator.integers(1, TEXT_LENGTH + 1))
        inputs.append([*cues, *piece[:gap], first_sentinel, *piece[gap:], eos])
        targets.append([first_sentinel, generator.choice(cues), first_sentinel - 1, eos])
    return np.asarray(inputs, dtype=np.int64), np.asarray(targets, dtype=np.int64)
