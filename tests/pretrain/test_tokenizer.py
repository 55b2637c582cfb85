"""The trained tokenizer has T5's layout, survives saving, and keeps label words whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from supmer.corpus.package_docs import iter_documents
from supmer.errors import UserError
from supmer.pretrain.tokenizer import WHOLE_WORDS, train_tokenizer
from supmer.tasks.vocabulary import TaskVocabulary

VOCAB_SIZE = 1000


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [document["text"] for document in iter_documents(["networkx"])]


@pytest.fixture(scope="module")
def tokenizer(texts: list[str]) -> PreTrainedTokenizerBase:
    return train_tokenizer(texts, VOCAB_SIZE)


def test_layout_is_that_of_t5(tokenizer: PreTrainedTokenizerBase) -> None:
    assert len(tokenizer) == VOCAB_SIZE + 100
    specials = ["<pad>", "</s>", "<unk>", "<extra_id_99>", "<extra_id_0>"]
    assert tokenizer.convert_tokens_to_ids(specials) == [0, 1, 2, VOCAB_SIZE, VOCAB_SIZE + 99]
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)


def test_label_words_are_single_tokens(tokenizer: PreTrainedTokenizerBase) -> None:
    lengths = {word: len(tokenizer(word, add_special_tokens=False)["input_ids"]) for word in WHOLE_WORDS}
    assert {word for word, length in lengths.items() if length != 1} == set()
    assert len(TaskVocabulary.from_tokenizer(tokenizer).letter_targets) == 26


def test_saved_tokenizer_encodes_alike(tokenizer: PreTrainedTokenizerBase, texts: list[str], tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = f"The shortest path <extra_id_0> is {texts[0]}"
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert VOCAB_SIZE + 99 in loaded(text)["input_ids"]


def test_plain_english_round_trips(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Return the number of nodes in a connected component of the graph."
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_training_repeats(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> None:
    assert train_tokenizer(texts, VOCAB_SIZE).get_vocab() == tokenizer.get_vocab()


def test_too_little_text_is_one_line() -> None:
    with pytest.raises(UserError, match=r"backbone\.warmup\.vocab_size=5000") as caught:
        train_tokenizer(["A few words are not enough for a vocabulary."], 5000)
    assert "\n" not in str(caught.value)
