"""Weights, FLOPs and memory of a frozen decoder-only model under soft prompts, as `supmer/planning/t5.py` has them of a T5.

Weights are those of the model that transformers builds, without values. FLOPs and kept bytes are those of a Llama block (RMS
norms, rotary positions, gated feed-forward layer; Touvron et al. 2023, arXiv 2302.13971). `tests/planning/test_causal.py`
says how near they come to other families. Experts of a mixture all count, as if each position went through all of them.

Symbols: d width, i width of attention over all heads, f feed-forward width, V vocabulary, S positions of a row with its
prompt.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from supmer.backbone.kinds import block_names
from supmer.planning.shapes import FUSED_BACKWARD, Pass, Shape, Weights

TARGETS = 1
"""Positions at which a row's label is scored."""


class _Block(NamedTuple):
    """One block: parameters that are matrices, and whether its feed-forward layer is gated."""

    matrices: int
    is_gated: bool


def count_weights(shape: Shape) -> Weights:
    """Count parameters by block; the rest is the root: embeddings, head and last norm."""
    return _read(shape.config.to_json_string(use_diff=False))[0]


def row_flops(shape: Shape, positions: int, one: Pass) -> float:
    """Return the FLOPs of one row of S positions, forward and backward.

    A position costs 2 FLOPs for each weight of a block, and 4iS of self-attention (the half that a causal mask leaves out is
    counted too); the label costs 2dV in the head.
    """
    encoded = positions * (1 + one.mixed) * shape.config.num_hidden_layers
    products = 2 * _block(shape).matrices * encoded
    attention = 4 * _attention_width(shape) * positions * encoded
    forward, backward = products + attention, products + FUSED_BACKWARD * attention
    # The second forward stops before the feed-forward layer's way out.
    repeated = forward - 2 * shape.config.hidden_size * _feed_forward_width(shape) * encoded if one.checkpointing else 0
    return float(forward + backward + repeated + 2 * 2 * shape.config.hidden_size * shape.config.vocab_size * TARGETS)


def peak_bytes(shape: Shape, positions: int, one: Pass) -> int:
    """Return the most bytes that one row has at once: what is kept, and what comes and goes at one of two moments.

    One is the beginning of the backward pass: logits with their gradients, and the gradient of all states. The other is the
    last block's feed-forward layer, two gradients of width f.
    """
    c, copies = shape.config, 1 + one.mixed
    start = TARGETS * c.vocab_size * (4 + 4 + one.element) + 2 * copies * positions * c.hidden_size * one.element
    feed_forward = 2 * positions * copies * (_feed_forward_width(shape) + c.hidden_size) * one.element
    if one.checkpointing:
        feed_forward += copies * _block_bytes(shape, positions, one)
    return int(kept_bytes(shape, positions, one) + max(start, feed_forward))


def kept_bytes(shape: Shape, positions: int, one: Pass) -> int:
    """Return the bytes of one row that a GPU keeps for the backward pass; the loss keeps log-probabilities in float32."""
    c, copies = shape.config, 1 + one.mixed
    block = positions * c.hidden_size * one.element if one.checkpointing else _block_bytes(shape, positions, one)
    end = positions * c.hidden_size * (4 + one.element)  # the last norm's input and output
    return int(copies * (c.num_hidden_layers * block + end) + TARGETS * c.vocab_size * 4)


def _block_bytes(shape: Shape, positions: int, one: Pass) -> int:
    """Return what one block keeps of one row.

    Attention keeps q, its output, k and v of the heads that have their own, and a number a head; a gated feed-forward layer
    three tensors of width f, one without a gate; each of two norms its input in float32.
    """
    inner, width = _attention_width(shape), _feed_forward_width(shape)
    feed_forward = (3 if _block(shape).is_gated else 1) * width * one.element
    heads = shape.config.num_attention_heads
    own = (getattr(shape.config, "num_key_value_heads", None) or heads) / heads
    attention = 2 * (1 + own) * inner * one.element + 4 * heads
    return int(positions * (feed_forward + attention + 2 * 4 * shape.config.hidden_size))


def _attention_width(shape: Shape) -> int:
    c = shape.config
    return int(c.num_attention_heads * (getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads))


def _feed_forward_width(shape: Shape) -> int:
    c = shape.config
    return int(getattr(c, "intermediate_size", None) or getattr(c, "n_inner", None) or 4 * c.hidden_size)


def _block(shape: Shape) -> _Block:
    return _read(shape.config.to_json_string(use_diff=False))[1]


@lru_cache(maxsize=8)
def _read(settings: str) -> tuple[Weights, _Block]:
    """Build the model of a `config.json` without values, and count."""
    values: dict[str, Any] = json.loads(settings)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**values))
    names = block_names(model)
    blocks = [module for module in model.modules() if type(module).__name__ in names]
    sizes = tuple(sum(weight.numel() for weight in block.parameters()) for block in blocks)
    root = sum(weight.numel() for weight in model.parameters()) - sum(sizes)
    matrices = sum(weight.numel() for weight in blocks[-1].parameters() if weight.dim() > 1)
    return Weights(root, sizes), _Block(matrices, any("gate" in name for name, _ in blocks[-1].named_parameters()))
