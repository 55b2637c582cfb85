"""The formulas of a T5 against a real model: its parameters, torch's FLOP counter, the tensors that autograd saves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import T5Config, T5ForConditionalGeneration

from supmer.backbone.load import finish_backbone
from supmer.config import BackboneConfig
from supmer.meta.passes import Microbatch, query_loss, support_loss
from supmer.model.prompted import Mixing
from supmer.model.rows import Rows
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.planning import t5
from supmer.planning.measuring import CPU_ATTENTION
from supmer.planning.shapes import Shape

ROWS, POSITIONS, PROMPT = 4, 48, 20
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


def random_rows(targets: int) -> Rows:
    ids = torch.randint(0, 600, (ROWS, POSITIONS - PROMPT))
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # without padding, attention would leave out its mask
    labels = torch.randint(0, 600, (ROWS, targets))
    return Rows(ids, mask, torch.full_like(ids, -1), labels, torch.zeros(ROWS, dtype=torch.long))


def loss_of(model: PromptedSeq2Seq, *, mixed: bool) -> Tensor:
    prompt = torch.randn(1, PROMPT, model.backbone.config.d_model, requires_grad=True)
    targets = t5.MIXED_TARGETS if mixed else t5.TARGETS
    mixing = Mixing(random_rows(targets), torch.full((ROWS,), 0.7)) if mixed else None
    batch = Microbatch(random_rows(targets), torch.ones(ROWS), mixing)
    row_loss = query_loss if mixed else support_loss
    return row_loss(model(prompt, batch.rows, mixing).logits, batch).sum()


def saved_bytes(model: PromptedSeq2Seq, *, mixed: bool) -> int:
    """Return the bytes of all storages that autograd saves, besides the model's own."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    found: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        loss = loss_of(model, mixed=mixed)
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in found.items() if pointer not in own)


def counted_flops(model: PromptedSeq2Seq, *, mixed: bool) -> int:
    """Count a forward and a backward pass."""
    with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        loss_of(model, mixed=mixed).backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", SIZES)
def test_weights_are_those_of_the_real_model(name: str) -> None:
    with torch.device("meta"):
        model = build(shape_of(name))
    assert t5.count_weights(shape_of(name)).total == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", SIZES)
def test_flops_are_those_that_torch_counts(name: str, checkpointing: bool, mixed: bool) -> None:
    counted = counted_flops(build(shape_of(name), checkpointing=checkpointing), mixed=mixed)
    flops = t5.row_flops(shape_of(name), POSITIONS, t5.Pass(mixed, checkpointing))
    assert ROWS * flops == pytest.approx(counted, rel=0.03)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", SIZES)
def test_kept_bytes_are_those_that_autograd_saves(name: str, dtype: torch.dtype, checkpointing: bool, mixed: bool) -> None:
    saved = saved_bytes(build(shape_of(name), dtype, checkpointing=checkpointing), mixed=mixed)
    kept = sum(t5.kept_bytes(shape_of(name), POSITIONS, t5.Pass(mixed, checkpointing, dtype.itemsize)))
    assert ROWS * kept == pytest.approx(saved, rel=0.05)


def test_dropout_keeps_one_byte_an_element() -> None:
    """As `native_dropout` does, which a GPU runs; a CPU keeps a mask of the input's type."""
    shape, d, f = shape_of("gated"), 96, 160
    kept = [sum(t5.kept_bytes(shape, POSITIONS, t5.Pass(False, False, 4, dropout))) for dropout in (False, True)]
    encoder = POSITIONS * (3 * (2 * d + f) + 2 * d)
    decoder = t5.TARGETS * (2 * (3 * d + f + 4 * POSITIONS * 4) + 2 * d)
    assert kept[1] - kept[0] == encoder + decoder
