"""One masked position bias for all encoder blocks.

A T5 adds the same relative position bias to the attention scores of every block, and each block would mask a copy of its
own [B, h, S, S] and keep it for the backward pass. Here the first block masks it once and all use that, so that memory no
longer grows with blocks times S squared. Where a micro-batch has no padding, the bias is [1, h, S, S].
Shapes: B rows, h heads, S encoder positions, d model width, k head width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

from supmer.model.attention_mask import FUSED, masked

FUSED_SHARED = "sdpa_shared_bias"
"""Name under which transformers knows fused attention that takes the shared bias as it is."""
ALIGNMENT = 8
"""Elements at multiples of which the rows of a bias must begin for the fused kernel of GPUs.

Of any other bias torch (`pad_bias` in its `transformers/attention.cpp`) makes a copy in each block, and keeps the copy for
the backward pass: sharing would then save nothing.
"""


def share_position_bias(backbone: PreTrainedModel) -> None:
    """Let the encoder's blocks use one masked position bias (once); states and gradients stay the same."""
    encoder: Any = backbone.get_encoder()
    if getattr(encoder, "shares_position_bias", False):
        return
    if encoder.config._attn_implementation == FUSED:
        AttentionInterface.register(FUSED_SHARED, _attend)
        AttentionMaskInterface.register(FUSED_SHARED, AttentionMaskInterface()[FUSED])
        encoder.set_attn_implementation(FUSED_SHARED)
    first, *others = encoder.block
    first.register_forward_pre_hook(_mask_bias)
    for block in others:
        block.register_forward_pre_hook(_drop_mask)
    encoder.shares_position_bias = True


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: None,
    *,
    dropout: float,
    scaling: float,
    position_bias: Tensor,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend [B, S, h, k] under a masked bias. transformers' own function would make a bias of aligned rows contiguous."""
    seen = functional.scaled_dot_product_attention(
        query, key, value, attn_mask=position_bias, dropout_p=dropout, scale=scaling
    )
    return seen.transpose(1, 2).contiguous(), None


def _mask_bias(block: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the first block its position bias, masked, in aligned rows; it hands on what it was given."""
    hidden_states, mask, _, *rest = inputs
    positions = hidden_states.shape[1]
    bias = block.layer[0].SelfAttention.compute_bias(positions, positions, device=hidden_states.device)
    filling = (0, -positions % ALIGNMENT)
    bias = functional.pad(bias.contiguous(), filling)
    if mask is not None:
        bias = masked(bias, functional.pad(mask, filling))
    return (hidden_states, None, bias[..., :positions], *rest)


def _drop_mask(_: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    hidden_states, _mask, masked_bias, *rest = inputs
    return (hidden_states, None, masked_bias, *rest)
