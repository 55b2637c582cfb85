"""One masked position bias for all encoder blocks against one for each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from factories import WIDTH, tiny_backbone
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel

from supmer.backbone.load import enable_checkpointing
from supmer.model.position_bias import share_position_bias

POSITIONS = 50
PADDED = torch.tensor([[1] * POSITIONS, [1] * 20 + [0] * 30])


def encode(backbone: PreTrainedModel, states: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    hidden: torch.Tensor = backbone.get_encoder()(inputs_embeds=states, attention_mask=mask).last_hidden_state
    return hidden


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mask", [PADDED, torch.ones_like(PADDED), None], ids=["padded", "full", "none"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_states_and_gradients_equal_those_of_a_bias_for_each_block(
    attention: str, mask: torch.Tensor | None, checkpointing: bool
) -> None:
    torch.manual_seed(0)
    states = torch.randn(2, POSITIONS, WIDTH)
    found = []
    for shared in (False, True):
        backbone = tiny_backbone(attention=attention).train()
        if checkpointing:
            enable_checkpointing(backbone)
        if shared:
            share_position_bias(backbone)
            share_position_bias(backbone)
        leaf = states.clone().requires_grad_()
        hidden = encode(backbone, leaf, mask)
        kept = hidden if mask is None else hidden * mask[..., None]
        found.append((kept, torch.autograd.grad(kept.square().sum(), leaf)[0]))
    for own, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, own, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mask", [PADDED, None], ids=["padded", "none"])
def test_fused_attention_is_given_a_bias_that_a_gpu_takes_as_it_is(mask: torch.Tensor | None) -> None:
    """Of a bias whose rows do not begin at multiples of 8, torch makes a copy in each block, and keeps it (`pad_bias`)."""
    backbone = tiny_backbone(attention="sdpa")
    share_position_bias(backbone)
    given = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is functional.scaled_dot_product_attention:
                given.append(kwargs["attn_mask"])
            return func(*args, **(kwargs or {}))

    with Watch():
        encode(backbone, torch.randn(2, POSITIONS, WIDTH), mask)
    assert len(given) == len(backbone.get_encoder().block) > 1
    assert len({bias.untyped_storage().data_ptr() for bias in given}) == 1
    for bias in given:
        assert len(bias) == (1 if mask is None else 2)
        assert bias.stride(-1) == 1 and not any(stride % 8 for stride in bias.stride()[:-1]), bias.stride()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_masked_bias_is_kept_once(attention: str) -> None:
    """For the backward pass: of each block what attention keeps itself, but a single bias in all."""
    kept = {shared: kept_squares(attention, shared) for shared in (False, True)}
    blocks = len(tiny_backbone().get_encoder().block)
    saved = 0 if attention == "eager" else blocks - 1
    assert kept[False] - kept[True] == saved


def kept_squares(attention: str, shared: bool) -> int:
    """Count the tensors [B, h, S, S] that a pass keeps for its backward."""
    backbone = tiny_backbone(attention=attention)
    if shared:
        share_position_bias(backbone)
    kept = set()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape[-2:] == (POSITIONS, POSITIONS):
            kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = encode(backbone, torch.randn(2, POSITIONS, WIDTH, requires_grad=True), PADDED)
    assert hidden.requires_grad
    return len(kept)
