"""One masked position bias for all encoder blocks.

A T5 adds the same relative position bias to the attention scores of every block, and each block would mask a copy of its
own [B, h, S, S] and keep it for the backward pass. Here the first block masks it once and all use that, so that memory no
longer grows with blocks times S squared. Shapes: B rows, h heads, S encoder positions, d model width.
"""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from supmer.model.attention_mask import masked


def share_position_bias(backbone: PreTrainedModel) -> None:
    """Let the encoder's blocks use one masked position bias (once); states and gradients stay the same."""
    encoder: Any = backbone.get_encoder()
    if getattr(encoder, "shares_position_bias", False):
        return
    first, *others = encoder.block
    first.register_forward_pre_hook(_mask_bias)
    for block in others:
        block.register_forward_pre_hook(_drop_mask)
    encoder.shares_position_bias = True


def _mask_bias(block: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the first block its position bias, masked; it hands on what it was given."""
    hidden_states, mask, _, *rest = inputs
    positions = hidden_states.shape[1]
    bias = block.layer[0].SelfAttention.compute_bias(positions, positions, device=hidden_states.device)
    return (hidden_states, None, masked(bias, mask).contiguous(), *rest)


def _drop_mask(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden_states, _mask, masked_bias, *rest = inputs
    return (hidden_states, None, masked_bias, *rest)
