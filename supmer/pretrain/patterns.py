"""Rows of labelled sentences from short patterns: marks and parts with spaces between, such as ``S : X .``"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from supmer.pretrain.tokenizer import WHOLE_WORDS

Ints = npt.NDArray[np.int64]

NONE = -1


class Position(NamedTuple):
    """One position of the encoder's input: a token, the vector of a sentence (by its number), or the sum of both."""

    token: int = NONE
    sentence: int = NONE


class LabelledRows(NamedTuple):
    """Encoder inputs as tokens and sentences (see `Position`) and mask [B, S], and targets ``<X> word <Y> eos`` [B, 4]."""

    tokens: Ints
    sentences: Ints
    mask: Ints
    targets: Ints


class PatternFiller:
    """Turns patterns into rows.

    Args:
        patterns: all that will be filled.
        parts: names of what is filled in; every other word of a pattern is a mark, which stays as it is.
        tokenizer: a tokenizer in T5's layout that has all label words.
    """

    def __init__(self, patterns: Sequence[str], parts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        marks = {mark for pattern in patterns for mark in pattern.split()} - set(parts)
        self.marks = {mark: as_positions(tokenizer(mark, add_special_tokens=False)["input_ids"]) for mark in marks}
        self.words = np.asarray(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]))
        self.eos: int = tokenizer.eos_token_id
        self.first_sentinel: int = tokenizer.convert_tokens_to_ids("<extra_id_0>")

    def fill(self, pattern: str, parts: Mapping[str, Sequence[Position]]) -> list[Position]:
        """Return the positions of a pattern with `parts` put in by name."""
        return [position for name in pattern.split() for position in (parts[name] if name in parts else self.marks[name])]

    def batch(self, rows: Sequence[Sequence[Position]], answers: Sequence[int]) -> LabelledRows:
        """Return rows, an end token behind each and padded on the right, with targets that hold the answers' words."""
        lengths = np.array([len(row) + 1 for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        positions = np.full((*mask.shape, 2), NONE, dtype=np.int64)
        positions[mask] = np.concatenate([[*row, Position(self.eos)] for row in rows])
        targets = [[self.first_sentinel, answer, self.first_sentinel - 1, self.eos] for answer in answers]
        return LabelledRows(positions[..., 0], positions[..., 1], mask.astype(np.int64), np.asarray(targets, dtype=np.int64))


def as_positions(tokens: Iterable[int]) -> list[Position]:
    return [Position(token) for token in tokens]
