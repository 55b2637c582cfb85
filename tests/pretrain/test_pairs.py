"""Rows of pairs: the word asked for is the one that the row's key gives for alike or for different sentences."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from supmer.corpus.package_docs import iter_documents
from supmer.pretrain.pairs import KEPT_SHARE, KEYS, PairRows
from supmer.pretrain.patterns import NONE
from supmer.pretrain.tokenizer import WHOLE_WORDS, train_tokenizer

NUM_SENTENCES, NUM_TOPICS, LENGTH = 360, 90, 20


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([document["text"] for document in iter_documents(["optuna"])], 600)


@pytest.fixture(scope="module")
def rows(tokenizer) -> PairRows:
    """Sentence i is of topic i % 90 and holds the tokens 600 + its topic, which no other part of a row uses."""
    generator = np.random.default_rng(0)
    topics = np.arange(NUM_SENTENCES) % NUM_TOPICS
    embeddings = np.eye(NUM_TOPICS)[topics] + 0.01 * generator.standard_normal((NUM_SENTENCES, NUM_TOPICS))
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    return PairRows([[600 + topic] * LENGTH for topic in topics], embeddings.astype(np.float32), tokenizer)


def test_alike_sentences_share_a_topic_and_others_hardly_ever_do(rows: PairRows) -> None:
    shared = {
        is_alike: sum(first[0] == second[0] for first, second in (rows.choose(is_alike, generator) for _ in range(200)))
        for is_alike, generator in ((True, np.random.default_rng(0)), (False, np.random.default_rng(1)))
    }
    assert shared[True] > 195 and shared[False] < 20


def test_half_of_the_alike_are_copies_without_some_tokens(rows: PairRows) -> None:
    generator = np.random.default_rng(2)
    lengths = [min(map(len, rows.choose(True, generator))) for _ in range(400)]
    thinned = [length for length in lengths if length < LENGTH]
    assert 150 < len(thinned) < 250
    assert np.mean(thinned) == pytest.approx(KEPT_SHARE * LENGTH, abs=1)


def test_the_answer_follows_from_the_key_and_the_pair(rows: PairRows, tokenizer) -> None:
    words = tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS])
    sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    names = {tuple(position.token for position in rows.filler.fill(key, {"Y": [], "N": []})): key for key in KEYS}
    answers: Counter[bool] = Counter()
    for seed in range(60):
        batch = rows.draw(4, np.random.default_rng(seed))
        assert (batch.sentences == NONE).all()
        for tokens, target in zip(batch.tokens.tolist(), batch.targets.tolist(), strict=True):
            assert tokens.count(sentinel) == 1
            marks = [token for token in tokens if token not in words]
            key = next(name for begin, name in names.items() if tuple(marks[: len(begin)]) == begin)
            first, second = [token for token in tokens if token in words]
            yes, no = (first, second) if key.index("Y") < key.index("N") else (second, first)
            topics = {token for token in tokens if 600 <= token < 600 + NUM_TOPICS}
            assert target[1] in ((yes, no) if len(topics) == 1 else (no,))
            answers[target[1] == yes] += 1
    assert 90 < answers[True] < 150
