"""The warm-up of the small T5: it learns, repeats exactly, and survives saving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

from supmer.backbone.load import load_backbone
from supmer.config import BackboneConfig, WarmupConfig
from supmer.corpus.package_docs import iter_documents
from supmer.corpus.unit import TokenIds
from supmer.pretrain.span_corruption import pack_sequences
from supmer.pretrain.tokenizer import train_tokenizer
from supmer.pretrain.training import build_model, evaluate, train

SETTINGS = WarmupConfig(
    vocab_size=600,
    d_model=32,
    d_ff=64,
    num_layers=1,
    num_heads=2,
    steps=30,
    batch_size=8,
    sequence_length=48,
    learning_rate=5e-2,
)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer([document["text"] for document in iter_documents(["optuna"])], SETTINGS.vocab_size)


@pytest.fixture(scope="module")
def sequences(tokenizer: PreTrainedTokenizerBase) -> TokenIds:
    texts = [document["text"] for document in iter_documents(["optuna"])]
    documents = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return pack_sequences(documents, SETTINGS.sequence_length, tokenizer.eos_token_id)


def trained(tokenizer: PreTrainedTokenizerBase, sequences: TokenIds) -> tuple[T5ForConditionalGeneration, float, float]:
    model = build_model(SETTINGS, tokenizer)
    return model, *train(model, tokenizer, sequences, SETTINGS)


def test_held_out_loss_falls_and_training_repeats(tokenizer: PreTrainedTokenizerBase, sequences: TokenIds) -> None:
    torch.manual_seed(1)
    model, before, after = trained(tokenizer, sequences)
    assert after < before - 0.5
    torch.manual_seed(2)
    again, _, _ = trained(tokenizer, sequences)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], weight, rtol=0, atol=0)


def test_evaluation_leaves_no_trace(tokenizer: PreTrainedTokenizerBase, sequences: TokenIds) -> None:
    model = build_model(SETTINGS, tokenizer)
    state = torch.random.get_rng_state()
    assert evaluate(model, tokenizer, sequences[:8]) == evaluate(model, tokenizer, sequences[:8])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_saved_model_is_the_same_model(tokenizer: PreTrainedTokenizerBase, sequences: TokenIds, tmp_path: Path) -> None:
    model = build_model(SETTINGS, tokenizer)
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = load_backbone(BackboneConfig(name=str(tmp_path), dropout=0.0))
    inputs = torch.from_numpy(sequences[:2].astype(np.int64))
    torch.testing.assert_close(
        loaded(input_ids=inputs, labels=inputs).logits,
        model.eval()(input_ids=inputs, labels=inputs).logits,
        rtol=0,
        atol=1e-5,
    )
    assert loaded.lm_head.weight is loaded.shared.weight
