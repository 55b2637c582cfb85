"""The tokens of a row besides the text itself: sentinels, label words, pieces of the question (section 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING

import numpy as np

from supmer.backbone.pieces import following, start_tokens
from supmer.corpus.unit import TokenIds
from supmer.errors import setting_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from supmer.config import BackboneConfig

LINE_END = "\n"

TOPIC_ENDINGS = ("This is about", "The topic is", "All of it is about", "In a word:")
"""What stands between a sentence and the word of its topic; an episode draws one."""

PAIR_LABELS = ("yes", "no", "maybe")
"""Label words of the sentence-pair format in class order; `scsp` uses the first two."""


@dataclass(frozen=True, eq=False)
class TaskVocabulary:
    """Token ids of the fixed parts of a row.

    An encoder-decoder finds the place of the label by a sentinel, ``A <X> B``, and says ``<X> LABEL <Y>``; a decoder-only
    model finds it at the end of the row and says ``LABEL`` (section 10).

    `start` stands before each row, `pair_middle` between the sentences of a pair, `pair_end` after them. `pair_targets` and
    `letter_targets` hold what the model is to say for each label in class order. Labels of one format differ in their first
    token, which the losses and predictions look at; letters that would repeat an earlier letter's first token are left out,
    so `letter_targets` may have fewer than 26 entries. A topic word is said between `label_start` and `label_end`.
    """

    start: TokenIds
    pair_middle: TokenIds
    pair_end: TokenIds
    placeholder: int
    pair_targets: tuple[TokenIds, ...]
    letter_targets: tuple[TokenIds, ...]
    letter_marks: tuple[TokenIds, ...]
    question_mark: TokenIds
    full_stop: TokenIds
    ending: TokenIds
    topic_endings: tuple[TokenIds, ...]
    label_start: TokenIds
    label_end: TokenIds

    @classmethod
    def of_backbone(cls, config: BackboneConfig) -> TaskVocabulary:
        """Encode the fixed parts with a backbone's tokenizer.

        Raises:
            UserError: there is no such tokenizer, or two of the words yes, no and maybe begin with the same token.
        """
        # Here, not above: episode builders receive the finished vocabulary and start faster without torch.
        from supmer.backbone.load import is_causal, load_tokenizer

        return cls.from_tokenizer(load_tokenizer(config), causal=is_causal(config))

    @classmethod
    def from_tokenizer(cls, tokenizer: PreTrainedTokenizerBase, *, causal: bool = False) -> TaskVocabulary:
        """Encode the fixed parts with a tokenizer.

        Raises:
            UserError: two of the words yes, no and maybe begin with the same token.
        """
        from supmer.backbone.load import FIRST_SENTINEL, SECOND_SENTINEL

        words = [following(tokenizer, word) for word in PAIR_LABELS]
        if _num_distinct(words) < len(words):
            raise setting_error(
                "backbone.tokenizer",
                tokenizer.name_or_path,
                f"the label words {', '.join(PAIR_LABELS)} must begin with "
                f"different tokens, they are {[tokenizer.convert_ids_to_tokens(word.tolist()) for word in words]}",
            )
        letters = [following(tokenizer, letter) for letter in ascii_uppercase]
        letters = letters[: _num_distinct(letters)]
        nothing = _ids([])
        first, second = nothing, nothing
        if not causal:
            first, second = (_ids([tokenizer.convert_tokens_to_ids(token)]) for token in (FIRST_SENTINEL, SECOND_SENTINEL))
        return cls(
            start=start_tokens(tokenizer) if causal else nothing,
            pair_middle=following(tokenizer, LINE_END) if causal else first,
            pair_end=following(tokenizer, f"{LINE_END}The answer is") if causal else nothing,
            placeholder=next(i for i in (tokenizer.unk_token_id, tokenizer.eos_token_id, 0) if i is not None),
            pair_targets=tuple(np.concatenate([first, word, second]) for word in words),
            letter_targets=tuple(np.concatenate([first, letter, second]) for letter in letters),
            letter_marks=tuple(following(tokenizer, f"{letter}.") for letter in ascii_uppercase[: len(letters)]),
            question_mark=following(tokenizer, "?"),
            full_stop=following(tokenizer, "."),
            ending=np.concatenate([following(tokenizer, "? The correct one is"), first]),
            topic_endings=tuple(np.concatenate([following(tokenizer, text), first]) for text in TOPIC_ENDINGS),
            label_start=first,
            label_end=second,
        )

    def question_tokens(self, num_options: int) -> int:
        """Number of tokens in a multi-choice row that are neither the anchor's nor an option's."""
        marks = sum(len(mark) + len(self.full_stop) for mark in self.letter_marks[:num_options])
        return len(self.start) + len(self.question_mark) + marks + len(self.ending)


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
