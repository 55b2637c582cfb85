"""The tokens of a row besides the text itself: sentinels, label words, pieces of the question (section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np

from supmer.corpus.unit import TokenIds
from supmer.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PAIR_LABELS = ("yes", "no", "maybe")
"""Label words of the sentence-pair format in class order; `scsp` uses the first two."""


@dataclass(frozen=True, eq=False)
class TaskVocabulary:
    """Token ids of the fixed parts of a row.

    `pair_targets` and `letter_targets` hold the decoder target ``<X> LABEL <Y>`` of each label in class order. Labels of
    one format differ in their first token, which is the decoder position the losses and predictions look at; letters
    that would repeat an earlier letter's first token are left out, so `letter_targets` may have fewer than 26 entries.
    """

    first_sentinel: int
    placeholder: int
    pair_targets: tuple[TokenIds, ...]
    letter_targets: tuple[TokenIds, ...]
    letter_marks: tuple[TokenIds, ...]
    question_mark: TokenIds
    full_stop: TokenIds
    ending: TokenIds

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase) -> TaskVocabulary:
        """Encode the fixed parts with the backbone's tokenizer.

        Raises:
            UserError: two of the words yes, no and maybe begin with the same token.
        """
        # Here, not above: episode builders receive the finished vocabulary and start faster without torch.
        from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL

        first, second = (int(tokenizer.convert_tokens_to_ids(token)) for token in (FIRST_SENTINEL, SECOND_SENTINEL))
        words = [_encode(tokenizer, word) for word in PAIR_LABELS]
        if _num_distinct(words) < len(words):
            raise UserError(
                f"backbone.tokenizer={tokenizer.name_or_path}: the label words {', '.join(PAIR_LABELS)} must begin with "
                f"different tokens, they are {[tokenizer.convert_ids_to_tokens(word.tolist()) for word in words]}"
            )
        letters = [_encode(tokenizer, letter) for letter in ascii_uppercase]
        letters = letters[: _num_distinct(letters)]
        return cls(
            first_sentinel=first,
            placeholder=int(tokenizer.unk_token_id),
            pair_targets=tuple(_ids([first, *word, second]) for word in words),
            letter_targets=tuple(_ids([first, *letter, second]) for letter in letters),
            letter_marks=tuple(_encode(tokenizer, f"{letter}.") for letter in ascii_uppercase[: len(letters)]),
            question_mark=_encode(tokenizer, "?"),
            full_stop=_encode(tokenizer, "."),
            ending=_ids([*_encode(tokenizer, "? The correct one is"), first]),
        )

    def question_tokens(self, num_options: int) -> int:
        """Number of tokens in a multi-choice row that are neither the anchor's nor an option's."""
        marks = sum(len(mark) + len(self.full_stop) for mark in self.letter_marks[:num_options])
        return len(self.question_mark) + marks + len(self.ending)


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> TokenIds:
    return _ids(tokenizer(text, add_special_tokens=False)["input_ids"])


def _ids(values: Sequence[int]) -> TokenIds:
    return np.asarray(values, dtype=np.int32)


def _num_distinct(words: Sequence[TokenIds]) -> int:
    """Length of the longest prefix of `words` whose first tokens all differ."""
    seen: set[int] = set()
    for count, word in enumerate(words):
        if int(word[0]) in seen:
            return count
        seen.add(int(word[0]))
    return len(words)
