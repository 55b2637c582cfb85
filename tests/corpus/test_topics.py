"""Topic words: one token, long enough, no stop word, and of one cluster only."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from supmer.corpus.topics import WORDS_PER_TOPIC, choose_topic_words


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(
        shared / "tokenizer", config=AutoConfig.from_pretrained(shared / "golden" / "tiny_t5")
    )


def test_each_word_is_a_token_of_one_cluster(tokenizer: PreTrainedTokenizerBase) -> None:
    river = {"river": 0.9, "water": 0.5, "because": 0.8, "sea": 0.7, "waterfallish": 0.6, "fish": 0.1, "none": 0.0}
    money = {"water": 0.4, "bank": 0.7, "river": 0.2, "price": 0.3}
    chosen = choose_topic_words([river, money, {"water": 0.1}], tokenizer)
    assert [[word.word for word in words] for words in chosen] == [["river", "water", "fish"], ["bank", "price"], []]
    assert all(len(words) <= WORDS_PER_TOPIC for words in chosen)
    for word in (word for words in chosen for word in words):
        assert tokenizer(f"It is about {word.word}", add_special_tokens=False)["input_ids"][-1] == word.token
        assert word.token in word.forms
    written = tokenizer("River", add_special_tokens=False)["input_ids"]
    assert len(written) > 1 or written[0] in chosen[0][0].forms
