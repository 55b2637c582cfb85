"""Exemplar rows: the word asked for stands beside the prototype that the sentence is closest to, and only there."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from supmer.corpus.package_docs import iter_documents
from supmer.pretrain.exemplars import MAX_CLASSES, MIN_CLASSES, ExemplarRows
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


def test_rows_show_every_word_once_and_ask_for_one_of_them(rows: ExemplarRows, tokenizer) -> None:
    words = set(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]))
    sentinel, seen = tokenizer.convert_tokens_to_ids("<extra_id_0>"), Counter()
    for seed in range(30):
        batch = rows.draw(4, np.random.default_rng(seed))
        for inputs, mask, target in zip(batch.inputs, batch.mask, batch.targets, strict=True):
            row = inputs[mask == 1].tolist()
            shown = [token for token in row if token in words]
            assert MIN_CLASSES <= len(shown) == len(set(shown)) <= MAX_CLASSES
            assert row.count(sentinel) == 1 and row[-1] == 1 and not inputs[mask == 0].any()
            assert target.tolist() == [sentinel, target[1], sentinel - 1, 1] and target[1] in shown
            vectors = [token for token in row if token < 0]
            assert len(vectors) in (0, len(shown))
            seen[bool(vectors)] += 1
    assert min(seen.values()) > 20


def test_a_batch_depends_on_its_generator_alone(rows: ExemplarRows) -> None:
    ours, theirs = (rows.draw(8, np.random.default_rng(5)) for _ in range(2))
    assert all(np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_the_answer_cannot_be_told_from_its_place(rows: ExemplarRows) -> None:
    generator = np.random.default_rng(1)
    answers = Counter(rows.choose(4, generator)[2] for _ in range(800))
    assert all(abs(answers[place] - 200) < 60 for place in range(4))
