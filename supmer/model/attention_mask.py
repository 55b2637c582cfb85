"""Masks as transformers gives them to attention: boolean for fused attention, else to be added."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel

FUSED = "sdpa"
NOT_WAITING = "sdpa_not_waiting"
"""Name under which transformers knows fused attention that recognizes `whole_mask` without reading it."""


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return scores [.., S] under a mask: True (or 0) where attention is allowed, False (or -inf) elsewhere."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


def whole_mask(like: Tensor) -> Tensor:
    """Return a mask that hides nothing, of the shape and device of `like` [B, S]: one element, repeated by strides of 0."""
    return torch.ones((), dtype=torch.bool, device=like.device).expand(like.shape)


def use_attention_that_does_not_wait(backbone: PreTrainedModel) -> None:
    """Let a decoder-only backbone with fused attention recognize `whole_mask`; other masks are as before.

    Of each mask transformers' own looks whether it hides something, and so waits for a GPU.
    """
    if backbone.config._attn_implementation == FUSED:
        AttentionInterface.register(NOT_WAITING, AttentionInterface()[FUSED])
        AttentionMaskInterface.register(NOT_WAITING, _causal_mask)
        backbone.set_attn_implementation(NOT_WAITING)


def _causal_mask(*sizes: int, attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return transformers' mask [B, 1, S, S]; None where rows may look at all positions up to their own."""
    if attention_mask is not None and not any(attention_mask.stride()):
        attention_mask = None
    mask: Tensor | None = AttentionMaskInterface()[FUSED](*sizes, attention_mask=attention_mask, **options)
    return mask
