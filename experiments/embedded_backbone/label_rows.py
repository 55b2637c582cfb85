"""Rows that teach the small model to answer with a label word that its input gives, which is what a soft prompt asks later.

An exemplar row draws a few prototype sentences and as many label words, shows each prototype with its word, and asks for
the word of one more sentence that the teacher finds close to one of them. A pair row says which label word stands for
sentences that are alike and which for sentences that are not, then shows two sentences and asks for the word; what is alike
is up to the teacher, or one sentence is a thinned copy of the other. Words are drawn anew for each row, so that they can be
read nowhere but in the row. No pattern is that of a meta-task.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from experiments.embedded_backbone.teacher import Embeddings
from experiments.embedded_backbone.tokenizer import word_ids

Ints = npt.NDArray[np.int64]

NONE = -1
Form = Literal["merged", "vector", "text"]
"""A prototype is one position that holds the sum of its vector and its word, its vector beside its word, or spelled out."""
POOL_SIZE = 1024
"""Sentences among which the one in question, or the second one of a pair, is chosen by its likeness."""
NUM_CLOSEST = 8
"""It is one of so many whose likeness to their prototype exceeds that to the others most."""
PROTOTYPE_TOKENS, QUERY_TOKENS = 12, 24
EXEMPLAR_PATTERNS = ("S X", "S : X .", "X : S", "S is X .", "S ( X )", "S = X .", "text : S label : X")
"""S is the sentence (or its vector), X the label word or the sentinel."""
ALIKE, SOMEWHAT = slice(0, 4), slice(16, 64)
"""Ranks in the pool of sentences that count as alike, and of half of those that do not; the other half is any sentence."""
COPY_SHARE, KEPT_SHARE = 0.5, 0.7
"""So many of the alike are copies, of so many tokens."""
PAIR_TOKENS = 24
KEYS = ("alike : Y . different : N .", "different : N . alike : Y .", "Y if alike , else N .", "N if different , else Y .")
"""Y and N are the words for alike and not."""
PAIR_PATTERNS = ("A ? X , B", "A . B ? X .", "A and B : X .", "A / B = X", "X : A - B", '" A " ( X ) " B "')
"""A and B are the sentences, X the sentinel."""


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
    """Turns patterns into rows: marks and parts with spaces between, such as ``S : X .``

    Args:
        patterns: all that will be filled.
        parts: names of what is filled in; every other word of a pattern is a mark, which stays as it is.
        tokenizer: a tokenizer in T5's layout that has all label words.
    """

    def __init__(self, patterns: Sequence[str], parts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        marks = {mark for pattern in patterns for mark in pattern.split()} - set(parts)
        self.marks = {mark: as_positions(tokenizer(mark, add_special_tokens=False)["input_ids"]) for mark in marks}
        self.words = word_ids(tokenizer)
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
        self.filler = PatternFiller(EXEMPLAR_PATTERNS, ("S", "X"), tokenizer)

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
        pattern = EXEMPLAR_PATTERNS[generator.integers(len(EXEMPLAR_PATTERNS))]
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


class PairRows:
    """Draws rows from sentences (token ids) with unit-length teacher embeddings [N, d_teacher]."""

    def __init__(
        self, sentences: Sequence[Sequence[int]], embeddings: Embeddings, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self.sentences, self.embeddings = sentences, embeddings
        self.centre = embeddings.mean(axis=0)
        self.filler = PatternFiller((*KEYS, *PAIR_PATTERNS), ("Y", "N", "A", "B", "X"), tokenizer)

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
        first, second = (as_positions(sentence[:PAIR_TOKENS]) for sentence in self.choose(is_alike, generator))
        key, pattern = KEYS[generator.integers(len(KEYS))], PAIR_PATTERNS[generator.integers(len(PAIR_PATTERNS))]
        question = {"A": first, "B": second, "X": [Position(self.filler.first_sentinel)]}
        row = self.filler.fill(key, {"Y": [Position(yes)], "N": [Position(no)]})
        return row + self.filler.fill(pattern, question), yes if is_alike else no
