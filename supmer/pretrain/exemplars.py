"""Rows that teach the small model to label a sentence as its input says, which is what a soft prompt does later.

A row draws a few prototype sentences and as many label words, shows each prototype with its word, and asks for the word of
one more sentence that the teacher finds close to one of them. Words belong to prototypes for this row only, so that they
can be read nowhere but in the row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer.pretrain.patterns import Ints, LabelledRows, PatternFiller, Position, as_positions
from supmer.pretrain.teacher import Embeddings

Form = Literal["merged", "vector", "text"]
"""A prototype is one position that holds the sum of its vector and its word, its vector beside its word, or spelled out."""
POOL_SIZE = 1024
"""Sentences among which the one in question is chosen."""
NUM_CLOSEST = 8
"""It is one of so many whose likeness to their prototype exceeds that to the others most."""
PROTOTYPE_TOKENS, QUERY_TOKENS = 12, 24
PATTERNS = ("S X", "S : X .", "X : S", "S is X .", "S ( X )", "S = X .", "text : S label : X")
"""S is the sentence (or its vector), X the label word or the sentinel."""


class Difficulty(NamedTuple):
    """Numbers of classes, shares of the three forms, and whether the sentence in question is a prototype itself."""

    min_classes: int
    max_classes: int
    form_shares: tuple[float, float, float]
    is_lookup: bool


LOOKUP = Difficulty(min_classes=2, max_classes=3, form_shares=(1, 0, 0), is_lookup=True)
"""Learnt first: to find a word in the row at all."""
LIKENESS = Difficulty(min_classes=2, max_classes=6, form_shares=(0.5, 0.25, 0.25), is_lookup=False)


class ExemplarRows:
    """Draws rows from sentences (token ids) with unit-length teacher embeddings [N, d_teacher]."""

    def __init__(
        self,
        sentences: Sequence[Sequence[int]],
        embeddings: Embeddings,
        tokenizer: PreTrainedTokenizerBase,
        difficulty: Difficulty = LIKENESS,
    ) -> None:
        self.sentences, self.embeddings, self.difficulty = sentences, embeddings, difficulty
        self.centre = embeddings.mean(axis=0)
        self.filler = PatternFiller(PATTERNS, ("S", "X"), tokenizer)

    def draw(self, batch_size: int, generator: np.random.Generator) -> LabelledRows:
        """Return a batch whose rows share the number of classes and the form of prototypes."""
        num_classes = int(generator.integers(self.difficulty.min_classes, self.difficulty.max_classes + 1))
        form: Form = get_args(Form)[int(generator.choice(3, p=self.difficulty.form_shares))]
        rows, answers = zip(*(self._row(num_classes, form, generator) for _ in range(batch_size)), strict=True)
        return self.filler.batch(rows, answers)

    def choose(self, num_classes: int, generator: np.random.Generator) -> tuple[Ints, int, int]:
        """Return the prototypes [C], a sentence, and which prototype it is (look-up) or is closest to by teacher."""
        prototypes: Ints = generator.choice(len(self.sentences), size=num_classes, replace=False)
        answer = int(generator.integers(num_classes))
        if self.difficulty.is_lookup:
            return prototypes, int(prototypes[answer]), answer
        pool = generator.integers(len(self.sentences), size=POOL_SIZE)
        pool = pool[~np.isin(pool, prototypes)]
        likeness = (self.embeddings[pool] - self.centre) @ (self.embeddings[prototypes] - self.centre).T
        margin = likeness[:, answer] - np.delete(likeness, answer, axis=1).max(axis=1)
        closest = np.argsort(-margin, kind="stable")[:NUM_CLOSEST]
        return prototypes, int(pool[generator.choice(closest)]), answer

    def _row(self, num_classes: int, form: Form, generator: np.random.Generator) -> tuple[list[Position], int]:
        prototypes, query, answer = self.choose(num_classes, generator)
        words = generator.choice(self.filler.words, size=num_classes, replace=False).tolist()
        pattern = PATTERNS[generator.integers(len(PATTERNS))]
        row: list[Position] = []
        for prototype, word in zip(prototypes.tolist(), words, strict=True):
            row += self._prototype(prototype, word, form, pattern)
        sentence = as_positions(self.sentences[query][:QUERY_TOKENS])
        row += self.filler.fill(pattern, {"S": sentence, "X": [Position(self.filler.first_sentinel)]})
        return row, words[answer]

    def _prototype(self, prototype: int, word: int, form: Form, pattern: str) -> list[Position]:
        if form == "merged":
            return [Position(word, prototype)]
        text = as_positions(self.sentences[prototype][:PROTOTYPE_TOKENS])
        sentence = text if form == "text" else [Position(sentence=prototype)]
        return self.filler.fill(pattern, {"S": sentence, "X": [Position(word)]})
