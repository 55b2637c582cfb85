"""Label words as tokens, and how they are scored (section 7)."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL
from supmer.corpus.unit import TokenIds
from supmer.errors import UserError


class LabelWords:
    """The label words of a task under a tokenizer.

    Where all words begin with different tokens, a word's score is the logit of its first token at decoder position 1.
    Otherwise it is the sum of the log-probabilities of its tokens, given the word's earlier ones; the closing `<Y>` counts
    as one of them if some word begins with another whole word (else the shorter would always win).

    Attributes:
        tokens: the tokens of each word, by class index.
        first_tokens: the first token of each word.
        single_position: whether position 1 decides.
    """

    def __init__(self, words: list[str], tokenizer: PreTrainedTokenizerBase, task: str) -> None:
        """Tokenize `words`; raise UserError naming `task` if two of them are the same to the tokenizer."""
        self._first, self._second = tokenizer.convert_tokens_to_ids([FIRST_SENTINEL, SECOND_SENTINEL])
        self.tokens: list[tuple[int, ...]] = [tuple(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
        self.first_tokens = [ids[0] if ids else tokenizer.unk_token_id for ids in self.tokens]
        self.single_position = len(set(self.first_tokens)) == len(words)
        for (word, ids), (other, other_ids) in permutations(zip(words, self.tokens, strict=True), 2):
            if ids == other_ids:
                raise UserError(f"task {task}: label_words: {word!r} and {other!r} are the same to the tokenizer")
        for word, ids in zip(words, self.tokens, strict=True):
            if not ids or tokenizer.unk_token_id in ids:
                raise UserError(f"task {task}: label_words: the tokenizer does not know {word!r}")
        self._closing = any(a != b and b[: len(a)] == a for a, b in permutations(self.tokens, 2))

    def target(self, label: int) -> TokenIds:
        """Return ``<X> LABEL <Y>``, the decoder target of a class."""
        return np.asarray([self._first, *self.tokens[label], self._second], dtype=np.int32)

    def scored_target(self, label: int) -> TokenIds:
        """Return the decoder target as far as it is scored (from position 1 on)."""
        if self.single_position:
            return self.target(label)[:2]
        return self.target(label) if self._closing else self.target(label)[:-1]
