"""Exemplar rows: the word asked for stands beside the prototype that the sentence is closest to, and only there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from supmer.corpus.package_docs import iter_documents
from supmer.pretrain.exemplars import LIKENESS, LOOKUP, ExemplarRows
from supmer.pretrain.patterns import NONE
from supmer.pretrain.tokenizer import WHOLE_WORDS, train_tokenizer

NUM_SENTENCES, NUM_TOPICS = 400, 4


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([document["text"] for document in iter_documents(["optuna"])], 600)


@pytest.fixture(scope="module")
def rows(tokenizer) -> ExemplarRows:
    """Sentences of four topics: sentence i is of topic i % 4 and its tokens are sentinels that no row uses."""
    generator = np.random.default_rng(0)
    topics = np.arange(NUM_SENTENCES) % NUM_TOPICS
    embeddings = np.eye(8)[topics] + 0.05 * generator.standard_normal((NUM_SENTENCES, 8))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return ExemplarRows([[610 + topic] * 5 for topic in topics], embeddings.astype(np.float32), tokenizer)


def test_a_sentence_is_of_its_prototypes_topic(rows: ExemplarRows) -> None:
    generator, checked = np.random.default_rng(0), 0
    while checked < 100:
        prototypes, sentence, answer = rows.choose(3, generator)
        assert sentence not in prototypes
        if len(set(prototypes % NUM_TOPICS)) == 3:
            assert sentence % NUM_TOPICS == prototypes[answer] % NUM_TOPICS
            checked += 1


def test_a_sentence_to_look_up_is_its_prototype(rows: ExemplarRows, tokenizer) -> None:
    lookups = ExemplarRows(rows.sentences, rows.embeddings, tokenizer, LOOKUP)
    for seed in range(20):
        prototypes, sentence, answer = lookups.choose(3, np.random.default_rng(seed))
        assert sentence == prototypes[answer] and len(set(prototypes)) == 3


def test_rows_show_every_word_once_and_ask_for_one_of_them(rows: ExemplarRows, tokenizer) -> None:
    words = set(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]))
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    for seed in range(30):
        batch = rows.draw(4, np.random.default_rng(seed))
        for tokens, mask, target in zip(batch.tokens, batch.mask, batch.targets, strict=True):
            row = tokens[mask == 1].tolist()
            shown = [token for token in row if token in words]
            assert LIKENESS.min_classes <= len(shown) == len(set(shown)) <= LIKENESS.max_classes
            assert row.count(sentinel) == 1 and row[-1] == 1 and (tokens[mask == 0] == NONE).all()
            assert target.tolist() == [sentinel, target[1], sentinel - 1, 1] and target[1] in shown


def test_prototypes_come_merged_with_their_word_or_beside_it_or_spelled_out(rows: ExemplarRows, tokenizer) -> None:
    words = tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS])
    seen: Counter[str] = Counter()
    for seed in range(60):
        tokens, sentences, *_ = rows.draw(1, np.random.default_rng(seed))
        has_word, has_vector = np.isin(tokens, words), sentences != NONE
        assert not has_vector.any() or has_vector.sum() == has_word.sum()
        assert (tokens[has_vector & ~has_word] == NONE).all()
        seen["text" if not has_vector.any() else "merged" if (has_vector & has_word).any() else "vector"] += 1
    assert seen["merged"] > 20 and min(seen["text"], seen["vector"]) > 5


def test_a_batch_depends_on_its_generator_alone(rows: ExemplarRows) -> None:
    ours, theirs = (rows.draw(8, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_answer_cannot_be_told_from_its_place(rows: ExemplarRows) -> None:
    generator = np.random.default_rng(1)
    answers = Counter(rows.choose(4, generator)[2] for _ in range(800))
    assert all(abs(answers[place] - 200) < 60 for place in range(4))
