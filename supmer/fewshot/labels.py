"""Label words as tokens, and how they are scored (section 7)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase

from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL
from supmer.backbone.pieces import following, start_tokens
from supmer.corpus.unit import TokenIds
from supmer.errors import UserError

if TYPE_CHECKING:
    from supmer.fewshot.task import Task


class LabelWords:
    """The label words of a task under a tokenizer.

    An encoder-decoder says ``<X> LABEL <Y>``. A decoder-only model goes on where the row ends: with ``LABEL`` as it follows
    a blank (section 10).

    Where all words begin with different tokens, a word's score is the logit of its first token. Otherwise it is the sum of
    the log-probabilities of its tokens, given the word's earlier ones; the closing `<Y>` counts as one of them if some word
    begins with another whole word (else the shorter would always win). A decoder-only model closes a label by nothing, so
    such words are refused there.

    Attributes:
        causal: whether the words are those of a decoder-only model.
        start: tokens before each row: a decoder-only model's beginning of a sequence.
        tokens: the tokens of each word, by class index.
        first_tokens: the first token of each word.
        first_position: label position of the first token.
        single_position: whether that position decides.
        classes: the class of each word, where classes have several; a class's score is the sum of its words' probabilities.
        closing: whether the closing `<Y>` counts, where it does not.
    """

    def __init__(
        self,
        words: list[str],
        tokenizer: PreTrainedTokenizerBase,
        task: str,
        *,
        further: Sequence[Sequence[str]] = (),
        causal: bool = False,
    ) -> None:
        """Tokenize `words`, and the `further` ones by class; raise UserError naming `task` if two are the same so."""
        self.causal = causal
        self.classes = [*range(len(words)), *(number for number, more in enumerate(further) for _ in more)]
        words = [*words, *(word for more in further for word in more)]
        self.start, self._opening, self._ending = np.zeros(0, dtype=np.int32), [], []
        if causal:
            self.start = start_tokens(tokenizer)
            self.tokens: list[tuple[int, ...]] = [tuple(following(tokenizer, word).tolist()) for word in words]
        else:
            self._opening, self._ending = ([tokenizer.convert_tokens_to_ids(x)] for x in (FIRST_SENTINEL, SECOND_SENTINEL))
            self.tokens = [tuple(ids) for ids in tokenizer(words, add_special_tokens=False)["input_ids"]]
        self.first_position = len(self._opening)
        self.first_tokens = [ids[0] if ids else tokenizer.unk_token_id for ids in self.tokens]
        self.single_position = len(set(self.first_tokens)) == len(words)
        for (word, ids), (other, other_ids) in permutations(zip(words, self.tokens, strict=True), 2):
            if ids == other_ids:
                raise UserError(f"task {task}: label_words: {word!r} and {other!r} are the same to the tokenizer")
        for word, ids in zip(words, self.tokens, strict=True):
            if not ids or tokenizer.unk_token_id in ids:
                raise UserError(f"task {task}: label_words: the tokenizer does not know {word!r}")
        self.closing = any(a != b and b[: len(a)] == a for a, b in permutations(self.tokens, 2))
        if self.closing and causal:
            raise UserError(f"task {task}: label_words: none may begin with another's tokens for a decoder-only backbone")

    def by_class(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return the scores of classes [C] from those of words: the logarithm of the sum of the words' probabilities."""
        num_classes = max(self.classes) + 1
        if len(self.classes) == num_classes:
            return scores
        found = np.full(num_classes, -np.inf, dtype=np.float32)
        np.logaddexp.at(found, self.classes, scores)
        return found

    def target(self, label: int) -> TokenIds:
        """Return what the model is to say for a class."""
        return np.asarray([*self._opening, *self.tokens[label], *self._ending], dtype=np.int32)

    def scored_target(self, label: int) -> TokenIds:
        """Return the target as far as it is scored (from `first_position` on)."""
        if self.single_position:
            return self.target(label)[: self.first_position + 1]
        return self.target(label) if self.closing else self.target(label)[: self.first_position + len(self.tokens[label])]


def words_of(task: Task, tokenizer: PreTrainedTokenizerBase, *, causal: bool) -> LabelWords:
    """Return what a task's classes are scored by: its answers, or the words of its classes; UserError for unusable ones."""
    if task.answers:
        return LabelWords(task.answers, tokenizer, task.name, causal=causal)
    return LabelWords(task.label_words, tokenizer, task.name, further=task.further_words or (), causal=causal)
