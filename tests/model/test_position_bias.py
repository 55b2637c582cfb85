"""One masked position bias for all encoder blocks against one for each."""

from __future__ import annotations

import pytest
import torch
from factories import WIDTH, tiny_backbone
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
