"""The formulas of a T5 against a real model: its parameters, torch's FLOP counter, the tensors that autograd saves."""

from __future__ import annotations

import pytest
import torch
from planned_pass import POSITIONS, ROWS, counted_flops, saved_bytes
from torch import nn
from transformers import T5Config, T5ForConditionalGeneration

from supmer.backbone.load import finish_backbone
from supmer.config import BackboneConfig
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.planning import t5
from supmer.planning.shapes import Pass, Shape

SIZES = {
    "gated": {"vocab_size": 700, "d_model": 96, "d_kv": 16, "d_ff": 160, "num_layers": 3, "num_decoder_layers": 2},
    "plain": {"vocab_size": 3000, "d_model": 64, "d_kv": 24, "d_ff": 224, "num_layers": 2, "num_decoder_layers": 4},
}
KINDS = {"gated": "gated-gelu", "plain": "relu"}


def shape_of(name: str) -> Shape:
    kind = {"feed_forward_proj": KINDS[name], "dropout_rate": 0.0, "decoder_start_token_id": 0}
    return Shape(name, "test", T5Config(**SIZES[name], num_heads=4, **kind), own_head=name == "gated")


def build(shape: Shape, dtype: torch.dtype = torch.float32, *, checkpointing: bool = False) -> PromptedSeq2Seq:
    model = T5ForConditionalGeneration(shape.config).to(dtype)
    if shape.own_head:
        model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    settings = BackboneConfig(gradient_checkpointing=checkpointing)
    return PromptedSeq2Seq(finish_backbone(model, settings)).train()


def targets(*, mixed: bool) -> int:
    return t5.MIXED_TARGETS if mixed else t5.TARGETS


@pytest.mark.parametrize("name", SIZES)
def test_weights_are_those_of_the_real_model(name: str) -> None:
    with torch.device("meta"):
        model = build(shape_of(name))
    assert t5.count_weights(shape_of(name)).total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_flops_are_those_that_torch_counts(name: str, checkpointing: bool, mixed: bool) -> None:
    counted = counted_flops(build(shape_of(name), checkpointing=checkpointing), targets(mixed=mixed), mixed=mixed)
    flops = t5.row_flops(shape_of(name), POSITIONS, Pass(mixed, checkpointing))
    assert ROWS * flops == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SIZES)
def test_kept_bytes_are_those_that_autograd_saves(name: str, dtype: torch.dtype, checkpointing: bool, mixed: bool) -> None:
    saved = saved_bytes(build(shape_of(name), dtype, checkpointing=checkpointing), targets(mixed=mixed), mixed=mixed)
    kept = sum(t5.kept_bytes(shape_of(name), POSITIONS, Pass(mixed, checkpointing, dtype.itemsize)))
    assert ROWS * kept == pytest.approx(saved, rel=0.05)


def test_dropout_keeps_one_byte_an_element() -> None:
    """As `native_dropout` does, which a GPU runs; a CPU keeps a mask of the input's type."""
    shape, d, f = shape_of("gated"), 96, 160
    kept = [sum(t5.kept_bytes(shape, POSITIONS, Pass(False, False, 4, dropout))) for dropout in (False, True)]
    encoder = POSITIONS * (3 * (2 * d + f) + 2 * d)
    decoder = t5.TARGETS * (2 * (3 * d + f + 4 * POSITIONS * 4) + 2 * d)
    assert kept[1] - kept[0] == encoder + decoder
