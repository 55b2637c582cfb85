"""The fixed parts of rows with the real T5 tokenizer, and tokenizers that cannot tell labels apart."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase

from supmer.errors import UserError
from supmer.tasks.vocabulary import TaskVocabulary


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(
        shared / "tokenizer", config=AutoConfig.from_pretrained(shared / "golden" / "tiny_t5")
    )


def test_t5_vocabulary(tokenizer: PreTrainedTokenizerBase) -> None:
    vocabulary = TaskVocabulary.from_tokenizer(tokenizer)
    first, second = 32099, 32098
    assert [target.tolist() for target in vocabulary.pair_targets] == [
        [first, 4273, second],
        [first, 150, second],
        [first, 2087, second],
    ]
    assert vocabulary.letter_targets[0].tolist() == [first, 71, second]
    assert vocabulary.ending.tolist() == [3, 58, 37, 2024, 80, 19, first]
    row = [*vocabulary.question_mark, *vocabulary.letter_marks[1], *vocabulary.full_stop]
    assert row == tokenizer("? B. .", add_special_tokens=False)["input_ids"]
    assert vocabulary.placeholder == tokenizer.unk_token_id != tokenizer.pad_token_id


def test_letters_end_where_first_tokens_repeat(tokenizer: PreTrainedTokenizerBase) -> None:
    # T5 has no piece for a word that is just X or Y: both begin with the bare word boundary.
    vocabulary = TaskVocabulary.from_tokenizer(tokenizer)
    assert len(vocabulary.letter_targets) == len(vocabulary.letter_marks) == 24
    assert vocabulary.letter_targets[23].tolist() == [32099, 3, 4, 32098]


class SpellingTokenizer:
    """A tokenizer that begins every word with the same token."""

    name_or_path = "spelling"
    unk_token_id = 1

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [7, *map(ord, text)]}

    def convert_tokens_to_ids(self, token: str) -> int:
        return 2

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return ["▁", *map(chr, ids[1:])]


def test_labels_that_begin_alike_are_refused() -> None:
    with pytest.raises(UserError, match=r"backbone.tokenizer=spelling: the label words yes, no, maybe must begin"):
        TaskVocabulary.from_tokenizer(SpellingTokenizer())  # type: ignore[arg-type]
