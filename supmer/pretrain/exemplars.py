"""Rows that teach the small model to label a sentence as its input says, which is what a soft prompt does later.

A row draws a few prototype sentences and as many label words, shows each prototype with its word, and asks for the word of
one more sentence that the teacher finds close to one of them. Words belong to prototypes for this row only, so that they
can be read nowhere but in the row. In half of the rows a prototype is not spelled out: one position holds its vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from supmer.pretrain.teacher import Embeddings
from supmer.pretrain.tokenizer import WHOLE_WORDS

Ints = npt.NDArray[np.int64]

MIN_CLASSES, MAX_CLASSES = 2, 6
POOL_SIZE = 1024
"""Sentences among which the one in question is chosen."""
NUM_CLOSEST = 8
"""It is one of so many whose likeness to their prototype exceeds that to the others most."""
PROTOTYPE_TOKENS, QUERY_TOKENS = 16, 32
VECTOR_SHARE = 0.5
PATTERNS = ("S X", "S : X .", "X : S", "S is X .", "S ( X )", "S = X .", "text : S label : X")
"""S is the sentence (or its vector), X the label word or the sentinel."""


class ExemplarBatch(NamedTuple):
    """Encoder inputs and mask [B, S], and targets ``<X> word <Y> eos`` [B, 4].

    An input below 0 stands for the vector of a sentence: -1 for the first, -2 for the second.
    """

    inputs: Ints
    mask: Ints
    targets: Ints


class ExemplarRows:
    """Draws rows from sentences (token ids) with unit-length teacher embeddings [N, d_teacher]."""

    def __init__(
        self, sentences: Sequence[Sequence[int]], embeddings: Embeddings, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.sentences, self.embeddings = sentences, embeddings
        self.centre = embeddings.mean(axis=0)
        self.words = np.asarray(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]))
        self.eos: int = tokenizer.eos_token_id
        self.first_sentinel: int = tokenizer.convert_tokens_to_ids("<extra_id_0>")
        marks = {mark for pattern in PATTERNS for mark in pattern.split()} - {"S", "X"}
        self.marks: dict[str, list[int]] = {mark: tokenizer(mark, add_special_tokens=False)["input_ids"] for mark in marks}

    def draw(self, batch_size: int, generator: np.random.Generator) -> ExemplarBatch:
        """Return a batch whose rows share the number of classes and whether prototypes are vectors."""
        num_classes = int(generator.integers(MIN_CLASSES, MAX_CLASSES + 1))
        as_vectors = bool(generator.random() < VECTOR_SHARE)
        rows, answers = zip(*(self._row(num_classes, as_vectors, generator) for _ in range(batch_size)), strict=True)
        lengths = np.array([len(row) for row in rows])
        mask = np.arange(lengths.max()) < lengths[:, None]
        inputs = np.zeros(mask.shape, dtype=np.int64)
        inputs[mask] = np.concatenate(rows)
        targets = [[self.first_sentinel, answer, self.first_sentinel - 1, self.eos] for answer in answers]
        return ExemplarBatch(inputs, mask.astype(np.int64), np.asarray(targets, dtype=np.int64))

    def choose(self, num_classes: int, generator: np.random.Generator) -> tuple[Ints, int, int]:
        """Return the prototypes [C], a sentence, and which prototype it is closest to by teacher."""
        prototypes = generator.integers(len(self.sentences), size=num_classes)
        pool = generator.integers(len(self.sentences), size=POOL_SIZE)
        pool = pool[~np.isin(pool, prototypes)]
        likeness = (self.embeddings[pool] - self.centre) @ (self.embeddings[prototypes] - self.centre).T
        answer = int(generator.integers(num_classes))
        margin = likeness[:, answer] - np.delete(likeness, answer, axis=1).max(axis=1)
        closest = np.argsort(-margin, kind="stable")[:NUM_CLOSEST]
        return prototypes, int(pool[generator.choice(closest)]), answer

    def _row(self, num_classes: int, as_vectors: bool, generator: np.random.Generator) -> tuple[list[int], int]:
        prototypes, query, answer = self.choose(num_classes, generator)
        words = generator.choice(self.words, size=num_classes, replace=False).tolist()
        pattern = PATTERNS[generator.integers(len(PATTERNS))]
        row: list[int] = []
        for prototype, word in zip(prototypes.tolist(), words, strict=True):
            sentence = [-1 - prototype] if as_vectors else self.sentences[prototype][:PROTOTYPE_TOKENS]
            row += self._fill(pattern, sentence, word)
        row += self._fill(pattern, self.sentences[query][:QUERY_TOKENS], self.first_sentinel)
        return [*row, self.eos], words[answer]

    def _fill(self, pattern: str, sentence: Sequence[int], answer: int) -> list[int]:
        parts = {**self.marks, "S": sentence, "X": [answer]}
        return [token for mark in pattern.split() for token in parts[mark]]
