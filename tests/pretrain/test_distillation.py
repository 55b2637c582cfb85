"""Distillation: the loss, resuming bit for bit, and that the student comes to see the teacher's likeness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from supmer.config import DistillConfig, WarmupConfig
from supmer.corpus.package_docs import iter_documents
from supmer.errors import UserError
from supmer.pretrain.distillation import Pretraining, PretrainingData, distillation_loss, pad
from supmer.pretrain.recipe import choose_sentences
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.teacher import embed_sentences, teacher_folder
from supmer.pretrain.tokenizer import train_tokenizer

SHAPE = WarmupConfig(
    vocab_size=600, d_model=32, d_ff=64, num_layers=1, num_heads=2, steps=12, batch_size=4, sequence_length=48
)
SETTINGS = DistillConfig(batch_size=16, checkpoint_every=5)


@pytest.fixture(scope="module")
def build():
    texts = [document["text"] for document in iter_documents(["optuna"])]
    tokenizer = train_tokenizer(texts, SHAPE.vocab_size)
    sentences = tokenizer(choose_sentences(texts, "en", 64), add_special_tokens=False)["input_ids"]
    embeddings = np.random.default_rng(0).standard_normal((len(sentences), 8)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    sequences = pack_sequences(tokenizer(texts, add_special_tokens=False)["input_ids"], SHAPE.sequence_length, 1)
    data = PretrainingData([ids[:32] for ids in sentences], embeddings, sequences)
    return lambda settings=SETTINGS, shape=SHAPE: Pretraining(tokenizer, data, shape, settings)


def test_loss_is_zero_for_the_teacher_itself_and_positive_for_others():
    teacher = torch.nn.functional.normalize(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    assert distillation_loss(teacher, teacher, 0.05).item() == pytest.approx(0, abs=1e-5)
    assert distillation_loss(teacher.roll(1, 0), teacher, 0.05).item() > 0.5


def test_padding_is_masked():
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]] and mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_resumed_run_equals_an_unbroken_one(build, tmp_path: Path):
    whole, first, second = build(), build(), build()
    assert whole.run(tmp_path / "whole.pt", lambda: False)
    assert not first.run(tmp_path / "part.pt", lambda: first.step == 7)
    second.load(tmp_path / "part.pt")
    assert second.step == 7 and second.run(tmp_path / "part.pt", lambda: False)
    for ours, theirs in zip(whole.parameters, second.parameters, strict=True):
        assert torch.equal(ours, theirs)


def test_the_student_follows_the_teacher(build, tmp_path: Path):
    training = build(
        SETTINGS.model_copy(update={"span_weight": 0, "cue_weight": 0}), SHAPE.model_copy(update={"steps": 120})
    )
    losses = [training.train_step()[1] for _ in range(120)]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


def test_every_objective_has_its_share(build):
    training = build()
    drawn = [training._draw(np.random.default_rng([0, step])) for step in range(2000)]
    assert drawn.count("distill") / 2000 == pytest.approx(0.6, abs=0.05)
    assert drawn.count("cue") / 2000 == pytest.approx(0.2, abs=0.05)


def test_finished_chunks_are_not_embedded_again(tmp_path: Path):
    stored = np.eye(3, dtype=np.float16)
    np.save(tmp_path / "000000000.npy", stored)
    found = embed_sentences(tmp_path / "no-teacher", ["a", "b", "c"], 8, tmp_path, lambda: False)
    assert found is not None and np.array_equal(found, stored)


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"backbone\.distill\.teacher=nowhere"):
        teacher_folder("nowhere")
    with pytest.raises(UserError, match=r"corpus\.paths: only 0 sentences"):
        choose_sentences(["short."], "en", 10)
