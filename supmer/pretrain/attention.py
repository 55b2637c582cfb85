"""Attention to start from: positions attend to what is like them and pass on what they hold.

After "Mimetic Initialization of Self-Attention Layers" (Trockman & Kolter, ICML 2023): products of query and key weights,
and of value and output weights, begin near multiples of the identity. From a random start looking up a label word in the
input is not learnt within the steps that an hour of CPU has; from this one it is within a few hundred.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

LIKENESS = 8.0
"""Attention logit, by head, between two equal positions of unit size."""
PASSED_ON = 2.0
"""How many times what a position attends to is added to it."""
NOISE = 0.01
"""Standard deviation of what sets query weights apart from key weights."""


@torch.no_grad()
def start_attention(model: T5ForConditionalGeneration, seed: int) -> None:
    """Set the weights of the encoder's self-attention and of cross-attention in place."""
    generator = torch.Generator().manual_seed(seed)
    for block in model.encoder.block:
        _near_identity(block.layer[0].SelfAttention, generator)
    for block in model.decoder.block:
        _near_identity(block.layer[1].EncDecAttention, generator)


def _near_identity(attention: T5Attention, generator: torch.Generator) -> None:
    width, inner = attention.d_model, attention.inner_dim
    # An orthonormal map leaves a position of unit entries with a squared norm of its key size in each head.
    likeness = _orthonormal(inner, width, generator) * (LIKENESS / attention.key_value_proj_dim) ** 0.5
    for weights in (attention.q.weight, attention.k.weight):
        weights.copy_(likeness + NOISE * torch.randn(weights.shape, generator=generator))
    values = _orthonormal(inner, width, generator) * PASSED_ON**0.5
    attention.v.weight.copy_(values)
    attention.o.weight.copy_(values.T)


def _orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    weights = torch.randn(rows, columns, generator=generator)
    return nn.init.orthogonal_(weights, generator=generator)
