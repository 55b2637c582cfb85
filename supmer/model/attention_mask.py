"""Masks as transformers gives them to attention: boolean for fused attention, else to be added."""

from __future__ import annotations

import torch
from torch import Tensor


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return scores [.., S] under a mask: True (or 0) where attention is allowed, False (or -inf) elsewhere."""
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask
