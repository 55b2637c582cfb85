"""Topic words: the label words of the kind `ctw`, for each cluster that has some of its own (METHOD section 11)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from supmer.backbone.pieces import following

if TYPE_CHECKING:  # takes seconds to import
    from transformers import PreTrainedTokenizerBase

WORDS_PER_TOPIC = 4
MIN_LETTERS = 4


class TopicWord(NamedTuple):
    """A word, its one token where it follows a blank, and the tokens of all its forms (at a start, capitalized)."""

    word: str
    token: int
    forms: tuple[int, ...]


def choose_topic_words(ranked: Sequence[Mapping[str, float]], tokenizer: PreTrainedTokenizerBase) -> list[list[TopicWord]]:
    """Return the words of each cluster that label it, the most distinctive first, at most WORDS_PER_TOPIC.

    A word is one token of the tokenizer, has at least MIN_LETTERS letters, is no stop word, and belongs to the cluster where
    its score is highest, so that no two clusters share one. A cluster may have none.

    Args:
        ranked: for each cluster the scores of its words.
        tokenizer: the backbone's.
    """
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

    owner: dict[str, int] = {}
    for cluster, scores in enumerate(ranked):
        for word, score in scores.items():
            if word not in owner or score > ranked[owner[word]][word]:
                owner[word] = cluster
    chosen: list[list[TopicWord]] = []
    for cluster, scores in enumerate(ranked):
        words: list[TopicWord] = []
        for word in sorted(scores, key=lambda word: (-scores[word], word)):
            if len(words) == WORDS_PER_TOPIC:
                break
            if owner[word] != cluster or len(word) < MIN_LETTERS or word in ENGLISH_STOP_WORDS or scores[word] <= 0:
                continue
            tokens = following(tokenizer, word).tolist()
            if len(tokens) != 1 or tokens[0] == tokenizer.unk_token_id:
                continue
            written = [following(tokenizer, word.capitalize()).tolist()]
            written += [tokenizer(form, add_special_tokens=False)["input_ids"] for form in (word, word.capitalize())]
            forms = {tokens[0], *(form[0] for form in written if len(form) == 1)}
            words.append(TopicWord(word, tokens[0], tuple(sorted(forms))))
        chosen.append(words)
    return chosen
