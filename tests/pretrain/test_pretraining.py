"""Pre-training on several objectives: shares, resuming bit for bit, what is held out, and that it learns each of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from supmer.config import DistillConfig, WarmupConfig
from supmer.corpus.package_docs import iter_documents
from supmer.pretrain.patterns import NONE, LabelledRows
from supmer.pretrain.pretraining import OBJECTIVES, Pretraining, PretrainingData
from supmer.pretrain.sentences import choose_sentences
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.tokenizer import train_tokenizer

SHAPE = WarmupConfig(
    vocab_size=600, d_model=32, d_ff=64, num_layers=1, num_heads=2, steps=12, batch_size=4, sequence_length=48
)
SETTINGS = DistillConfig(batch_size=16, checkpoint_every=5)


def unit_vectors(number: int, width: int = 8) -> np.ndarray:
    vectors = np.random.default_rng(number).standard_normal((number, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([document["text"] for document in iter_documents(["optuna"])], SHAPE.vocab_size)


@pytest.fixture(scope="module")
def data(tokenizer):
    texts = [document["text"] for document in iter_documents(["optuna"])]
    sentences = tokenizer(choose_sentences(texts, "en", 100), add_special_tokens=False)["input_ids"]
    sequences = pack_sequences(tokenizer(texts, add_special_tokens=False)["input_ids"], SHAPE.sequence_length, 1)
    cut = [ids[:32] for ids in sentences]
    return PretrainingData(cut, unit_vectors(len(cut)), sequences, unit_vectors(SHAPE.vocab_size))


@pytest.fixture(scope="module")
def build(tokenizer, data):
    return lambda settings=SETTINGS, shape=SHAPE: Pretraining(tokenizer, data, shape, settings)


def only(objective: str) -> DistillConfig:
    return SETTINGS.model_copy(update={f"{name}_weight": float(name == objective) for name in OBJECTIVES})


def test_a_resumed_run_equals_an_unbroken_one(build, tmp_path: Path):
    whole, first, second = build(), build(), build()
    assert whole.run(tmp_path / "whole.pt", lambda: False)
    assert not first.run(tmp_path / "part.pt", lambda: first.step == 7)
    second.load(tmp_path / "part.pt")
    assert second.step == 7 and second.run(tmp_path / "part.pt", lambda: False)
    for ours, theirs in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("objective", ["distill", "exemplar", "pair"])
def test_an_objective_alone_is_learnt(build, objective: str):
    training = build(only(objective), SHAPE.model_copy(update={"steps": 120}))
    losses = [training.train_step()[1] for _ in range(120)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_vectors_stand_alone_or_are_added_to_a_token(build, data):
    training = build()
    seen = {}
    training.model.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    targets = np.array([[599, 5, 598, 1]])
    training.answer(data, LabelledRows(np.array([[7, NONE, 9]]), np.array([[NONE, 2, 3]]), np.ones((1, 3), int), targets))
    table = training.model.get_input_embeddings().weight
    vectors = torch.from_numpy((data.embeddings - data.centre) @ training.to_width)
    expected = torch.stack([table[7], vectors[2], table[9] + vectors[3]])
    torch.testing.assert_close(seen["inputs_embeds"][0], expected)


def test_every_objective_has_its_share(build):
    training = build()
    drawn = [training._draw(np.random.default_rng([0, step])) for step in range(2000)]
    for objective in OBJECTIVES:
        assert drawn.count(objective) / 2000 == pytest.approx(getattr(SETTINGS, f"{objective}_weight"), abs=0.04)


def test_what_is_held_out_is_not_trained_on_and_judged_alike_each_time(build, data):
    training, held_out = data.split()
    assert len(training.sentences) + len(held_out.sentences) == len(data.sentences)
    assert len(training.sequences) + len(held_out.sequences) == len(data.sequences)
    assert held_out.embeddings.tolist() == data.embeddings[: len(held_out.sentences)].tolist()
    run = build()
    assert run.evaluate() == run.evaluate()
    assert list(run.evaluate()) == list(OBJECTIVES)
    assert list(build(only("span")).evaluate()) == ["span"]


def test_rates_run_in_straight_lines_between_points(build):
    training = build(SETTINGS.model_copy(update={"rates": [(0, 0.0), (4, 0.4), (5, 0.2), (10, 0.0)]}))
    found = []
    for training.step in (0, 2, 4, 5, 10, 20):
        found.append(training._rate())
    assert found == pytest.approx([0, 0.2, 0.4, 0.2, 0, 0])
