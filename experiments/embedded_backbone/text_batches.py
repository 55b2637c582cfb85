"""Batches from packed text: span corruption, and label cues.

Span corruption is T5's: spans of tokens are replaced by sentinels, the target lists the sentinels with their spans. All
sequences have the same length and the same number of spans, so that batches hold no padding.

Span corruption never shows a label word in the target's second position, and a model that never emits one cannot be steered
into it by a prompt. A cue row puts some label words before a piece of text and asks, at a sentinel, for one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from experiments.embedded_backbone.tokenizer import word_ids

NOISE_DENSITY = 0.15
MEAN_SPAN_LENGTH = 3.0
NUM_CUES, MAX_CUE_WORDS, CUE_TEXT_LENGTH = 6, 4, 24

TokenIds = npt.NDArray[np.int32]
Batch = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def pack_sequences(documents: Sequence[Sequence[int]], length: int, eos: int) -> TokenIds:
    """Return all documents one after the other, each closed by `eos`, cut into sequences [N, length]; a rest is dropped."""
    stream = np.concatenate([np.asarray([*document, eos], dtype=np.int32) for document in documents])
    num_sequences = len(stream) // length
    return stream[: num_sequences * length].reshape(num_sequences, length)


def noise_mask(length: int, generator: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Return which of `length` tokens are noise: 15% in spans of 3 on average, never the first token."""
    num_noise = max(1, round(length * NOISE_DENSITY))
    num_spans = max(1, round(num_noise / MEAN_SPAN_LENGTH))
    noise = _random_lengths(num_noise, num_spans, generator)
    kept = _random_lengths(length - num_noise, num_spans, generator)
    lengths = np.stack([kept, noise], axis=1).reshape(-1)
    return np.repeat(np.arange(2 * num_spans) % 2 == 1, lengths)


def corrupt(sequence: TokenIds, mask: npt.NDArray[np.bool_], first_sentinel: int, eos: int) -> tuple[list[int], list[int]]:
    """Return encoder input and decoder target of one sequence that begins with a kept token and ends with a noise token.

    Sentinels count down from `first_sentinel`; the target closes with one more of them, and `eos` ends both.
    """
    num_spans = int((mask & ~np.roll(mask, 1)).sum())
    inputs = _replace_spans(sequence, mask, first_sentinel)
    targets = _replace_spans(sequence, ~mask, first_sentinel)
    return [*inputs, eos], [*targets, first_sentinel - num_spans, eos]


def span_batch(sequences: TokenIds, generator: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Return encoder inputs [B, S] and decoder targets [B, D] of sequences [B, length]."""
    first_sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    pairs = [corrupt(row, noise_mask(len(row), generator), first_sentinel, tokenizer.eos_token_id) for row in sequences]
    inputs, targets = zip(*pairs, strict=True)
    return np.asarray(inputs, dtype=np.int64), np.asarray(targets, dtype=np.int64)


def cue_batch(sequences: TokenIds, generator: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Return encoder inputs ``cues A <X> B eos`` and decoder targets ``<X> word <Y> eos`` for pieces of `sequences`.

    The 6 cues are drawn from one to four label words, and the word asked for is one of the 6 cues drawn at random: the best
    answer is their distribution.
    """
    words, first_sentinel, eos = word_ids(tokenizer), tokenizer.convert_tokens_to_ids("<extra_id_0>"), tokenizer.eos_token_id
    pieces = sequences[:, : sequences.shape[1] // CUE_TEXT_LENGTH * CUE_TEXT_LENGTH].reshape(-1, CUE_TEXT_LENGTH)
    inputs, targets = [], []
    for piece in pieces:
        some = generator.choice(words, size=int(generator.integers(1, MAX_CUE_WORDS + 1)), replace=False)
        cues = generator.choice(some, size=NUM_CUES)
        gap = int(generator.integers(1, CUE_TEXT_LENGTH + 1))
        inputs.append([*cues, *piece[:gap], first_sentinel, *piece[gap:], eos])
        targets.append([first_sentinel, generator.choice(cues), first_sentinel - 1, eos])
    return np.asarray(inputs, dtype=np.int64), np.asarray(targets, dtype=np.int64)


def _replace_spans(sequence: TokenIds, mask: npt.NDArray[np.bool_], first_sentinel: int) -> list[int]:
    """Put one sentinel in place of each span of `mask`."""
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    sentinels = first_sentinel + 1 - np.cumsum(starts)
    replaced: list[int] = np.where(starts, sentinels, sequence)[starts | ~mask].tolist()
    return replaced


def _random_lengths(total: int, parts: int, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Cut `total` into `parts` lengths of at least 1, all cuts equally likely."""
    cuts = np.sort(generator.choice(np.arange(1, total), size=parts - 1, replace=False))
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(np.int64)
