"""Rows that teach the small model to compare two sentences and to answer with the word that the row gives for the outcome.

A row says which label word stands for sentences that are alike and which for sentences that are not, then shows two
sentences and asks for the word. What is alike is up to the teacher, or one sentence is a thinned copy of the other. Words
are drawn anew for each row; a soft prompt takes the place of the row's key later. No pattern is that of a meta-task.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer.pretrain.patterns import Ints, LabelledRows, PatternFiller, Position, as_positions
from supmer.pretrain.teacher import Embeddings

POOL_SIZE = 1024
"""Sentences among which the second one is chosen, ordered by their likeness to the first."""
ALIKE, SOMEWHAT = slice(0, 4), slice(16, 64)
"""Ranks in the pool of sentences that count as alike, and of half of those that do not; the other half is any sentence."""
COPY_SHARE, KEPT_SHARE = 0.5, 0.7
"""So many of the alike are copies, of so many tokens."""
MAX_TOKENS = 24
KEYS = ("alike : Y . different : N .", "different : N . alike : Y .", "Y if alike , else N .", "N if different , else Y .")
"""Y and N are the words for alike and not."""
PATTERNS = ("A ? X , B", "A . B ? X .", "A and B : X .", "A / B = X", "X : A - B", '" A " ( X ) " B "')
"""A and B are the sentences, X the sentinel."""


class PairRows:
    """Draws rows from sentences (token ids) with unit-length teacher embeddings [N, d_teacher]."""

    def __init__(
        self, sentences: Sequence[Sequence[int]], embeddings: Embeddings, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.sentences, self.embeddings = sentences, embeddings
        self.centre = embeddings.mean(axis=0)
        self.filler = PatternFiller((*KEYS, *PATTERNS), ("Y", "N", "A", "B", "X"), tokenizer)

    def draw(self, batch_size: int, generator: np.random.Generator) -> LabelledRows:
        """Return a batch of rows; no position is a vector."""
        rows, answers = zip(*(self._row(generator) for _ in range(batch_size)), strict=True)
        return self.filler.batch(rows, answers)

    def choose(self, is_alike: bool, generator: np.random.Generator) -> tuple[list[int], list[int]]:
        """Return the tokens of two sentences, in an order drawn by chance."""
        first = int(generator.integers(len(self.sentences)))
        if is_alike and generator.random() < COPY_SHARE:
            second = self._thinned(self.sentences[first], generator)
        else:
            second = list(self.sentences[self._partner(first, is_alike, generator)])
        pair = [list(self.sentences[first]), second]
        order = generator.permutation(2)
        return pair[order[0]], pair[order[1]]

    def _partner(self, first: int, is_alike: bool, generator: np.random.Generator) -> int:
        pool = generator.integers(len(self.sentences), size=POOL_SIZE)
        pool = pool[pool != first]
        if not is_alike and generator.random() < 0.5:
            return int(pool[0])
        likeness = (self.embeddings[pool] - self.centre) @ (self.embeddings[first] - self.centre)
        ranked: Ints = pool[np.argsort(-likeness, kind="stable")]
        return int(generator.choice(ranked[ALIKE if is_alike else SOMEWHAT]))

    @staticmethod
    def _thinned(sentence: Sequence[int], generator: np.random.Generator) -> list[int]:
        is_kept = generator.random(len(sentence)) < KEPT_SHARE
        return [token for token, kept in zip(sentence, is_kept, strict=True) if kept] or list(sentence)

    def _row(self, generator: np.random.Generator) -> tuple[list[Position], int]:
        is_alike = bool(generator.random() < 0.5)
        yes, no = generator.choice(self.filler.words, size=2, replace=False).tolist()
        first, second = (as_positions(sentence[:MAX_TOKENS]) for sentence in self.choose(is_alike, generator))
        key, pattern = KEYS[generator.integers(len(KEYS))], PATTERNS[generator.integers(len(PATTERNS))]
        question = {"A": first, "B": second, "X": [Position(self.filler.first_sentinel)]}
        row = self.filler.fill(key, {"Y": [Position(yes)], "N": [Position(no)]})
        return row + self.filler.fill(pattern, question), yes if is_alike else no
