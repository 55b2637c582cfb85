"""Attention to start from: like finds like, and what is found is passed on."""

from __future__ import annotations

import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from supmer.pretrain.attention import LIKENESS, NOISE, PASSED_ON, start_attention

WIDTH, HEADS = 64, 4


@pytest.fixture(scope="module")
def model() -> T5ForConditionalGeneration:
    shape = {"d_model": WIDTH, "d_kv": WIDTH // HEADS, "num_heads": HEADS, "d_ff": 64, "num_layers": 2}
    model = T5ForConditionalGeneration(T5Config(vocab_size=32, decoder_start_token_id=0, **shape))
    start_attention(model, seed=0)
    return model


def started(model: T5ForConditionalGeneration) -> list[torch.nn.Module]:
    own = [block.layer[0].SelfAttention for block in model.encoder.block]
    return own + [block.layer[1].EncDecAttention for block in model.decoder.block]


@torch.no_grad()
def test_equal_positions_attend_to_each_other(model: T5ForConditionalGeneration) -> None:
    positions = torch.randn(20, WIDTH, generator=torch.Generator().manual_seed(1))
    positions /= positions.square().mean(dim=1, keepdim=True).sqrt()
    for attention in started(model):
        queries, keys = (layer(positions).unflatten(1, (HEADS, -1)) for layer in (attention.q, attention.k))
        logits = torch.einsum("qhd,khd->hqk", queries, keys)
        same = logits.diagonal(dim1=1, dim2=2).mean()
        others = logits.sum() - logits.diagonal(dim1=1, dim2=2).sum()
        assert same.item() == pytest.approx(LIKENESS, rel=0.1)
        assert abs(others.item()) / (HEADS * 20 * 19) < 0.1 * LIKENESS
        assert not torch.equal(attention.q.weight, attention.k.weight) and NOISE > 0


@torch.no_grad()
def test_what_is_attended_to_is_passed_on_as_it_is(model: T5ForConditionalGeneration) -> None:
    positions = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2))
    for attention in started(model):
        torch.testing.assert_close(attention.o(attention.v(positions)), PASSED_ON * positions, atol=1e-4, rtol=1e-4)


def test_it_depends_on_the_seed_alone(model: T5ForConditionalGeneration) -> None:
    other = T5ForConditionalGeneration(model.config)
    start_attention(other, seed=0)
    for ours, theirs in zip(started(model), started(other), strict=True):
        assert torch.equal(ours.q.weight, theirs.q.weight) and torch.equal(ours.v.weight, theirs.v.weight)
