"""Weights, FLOPs and memory of a frozen T5 under soft prompts, by formulas.

A matrix product of [m, k] and [k, n] is 2mkn FLOPs. The weights are frozen, so a backward pass computes gradients of inputs
only: as many FLOPs as the forward pass, not twice as many, and a linear layer keeps nothing for the backward pass.
`tests/planning/test_t5.py` compares weights with a real model, FLOPs with torch's counter, and kept bytes with the tensors
that autograd saves.

Symbols: d width, i width of attention over all heads, f feed-forward width, h heads, V vocabulary, S encoder positions of a
row with its prompt, D decoder positions. Sources: Raffel et al. 2020 (arXiv 1910.10683, section 2.1) for the block, Shazeer
2020 (arXiv 2002.05202) for its gated feed-forward layer, `model/cross_attention.py` for the decoder's cross-attention.
"""

from __future__ import annotations

from typing import NamedTuple

from supmer.planning.shapes import Shape

TARGETS, MIXED_TARGETS = 3, 2
"""Decoder positions of a row: a target is `<X> label <Y>`, of which the outer loss of mixed rows looks at two."""
FUSED_BACKWARD = 2.5
"""Fused attention computes 2 matrix products forward and 5 backward, the scores again among them (arXiv 2205.14135)."""


class Weights(NamedTuple):
    """Numbers of parameters: embeddings, head and final norms (`root`), a block of the encoder, of the decoder, and all."""

    root: int
    encoder_block: int
    decoder_block: int
    total: int


class Pass(NamedTuple):
    """What the memory and the FLOPs of a row depend on besides the backbone.

    Attributes:
        mixed: the row is encoded twice, once as its augmentation, and decoded once.
        checkpointing: blocks keep their input only, and run forward a second time in the backward pass (arXiv 1604.06174).
        element: bytes of an element, 4 in float32 and 2 in bfloat16.
        dropout: dropout layers are on.
    """

    mixed: bool
    checkpointing: bool
    element: int = 4
    dropout: bool = False

    @property
    def targets(self) -> int:
        """D, the decoder positions."""
        return MIXED_TARGETS if self.mixed else TARGETS


def count_weights(shape: Shape) -> Weights:
    """Count parameters: 4di for self- and for cross-attention, 2df (gated 3df) for a feed-forward layer, d for a norm."""
    c, d = shape.config, shape.config.d_model
    attention = 4 * d * c.num_heads * c.d_kv
    feed_forward = (3 if c.is_gated_act else 2) * d * c.d_ff
    root = c.vocab_size * d * (1 + shape.own_head) + 2 * d
    encoder, decoder = attention + feed_forward + 2 * d, 2 * attention + feed_forward + 3 * d
    biases = 2 * c.relative_attention_num_buckets * c.num_heads  # in the first block of each stack
    return Weights(root, encoder, decoder, root + c.num_layers * encoder + c.num_decoder_layers * decoder + biases)


def row_flops(shape: Shape, positions: int, one: Pass) -> float:
    """Return the FLOPs of one row of S positions, forward and backward.

    A position costs 2 FLOPs for each weight of its block, and 4iS of self-attention; a decoder position 4hdS of
    cross-attention, whose two products have gradients with respect to both factors, and 2dV in the head.
    """
    c, d, weights = shape.config, shape.config.d_model, count_weights(shape)
    encoded = positions * (1 + one.mixed) * c.num_layers
    decoded = one.targets * c.num_decoder_layers
    products = 2 * (weights.encoder_block * encoded + weights.decoder_block * decoded)
    attention = 4 * c.num_heads * c.d_kv * positions * encoded
    cross = 4 * c.num_heads * d * positions * decoded
    forward = products + attention + cross
    backward = products + FUSED_BACKWARD * attention + 2 * cross
    # The second forward stops at the last tensor that is needed, before the feed-forward layer's way out.
    repeated = forward - 2 * d * c.d_ff * (encoded + decoded) if one.checkpointing else 0
    return float(forward + backward + repeated + 2 * 2 * d * c.vocab_size * one.targets)


def kept_bytes(shape: Shape, positions: int, one: Pass) -> tuple[int, int]:
    """Return the bytes of one row that a GPU keeps for the backward pass: of the encoder's blocks, and of all after them.

    The blocks share one masked position bias (`model/position_bias.py`); the loss keeps log-probabilities in float32.
    """
    c, d, copies = shape.config, shape.config.d_model, 1 + one.mixed
    encoder, decoder = _block_bytes(shape, positions, one)
    if one.checkpointing:
        encoder, decoder = positions * d * one.element, one.targets * d * one.element
    bias = c.num_heads * positions**2 * one.element
    final_norm = _norm_bytes(d, one) + d * one.dropout
    head = one.targets * final_norm + one.targets * c.vocab_size * 4
    states = positions * (copies * final_norm + d * one.element)
    entry = d * one.dropout * (positions * copies + one.targets)
    return copies * (c.num_layers * encoder + bias) + entry, c.num_decoder_layers * decoder + states + head


def peak_bytes(shape: Shape, positions: int, one: Pass) -> int:
    """Return the most bytes that one row has at once: what is kept, and what comes and goes at one of two moments.

    One is the beginning of the backward pass: encoder states pooled in float32, and logits with their gradients. The other
    is the last encoder block's feed-forward layer, two gradients of width f; with checkpointing the block's own activations
    have then been computed again.
    """
    c, d, copies = shape.config, shape.config.d_model, 1 + one.mixed
    encoder, after = kept_bytes(shape, positions, one)
    start = max(one.targets * c.vocab_size * (4 + 4 + one.element), positions * d * (8 if one.element < 4 else 4))
    feed_forward = 2 * positions * copies * (c.d_ff + d) * one.element
    if one.checkpointing:
        block, decoder_block = _block_bytes(shape, positions, one)
        start, feed_forward = start + decoder_block, feed_forward + copies * block
    return int(encoder + max(after + start, feed_forward))


def _block_bytes(shape: Shape, positions: int, one: Pass) -> tuple[int, int]:
    """Return what one block of the encoder and one of the decoder keep of one row.

    Attention keeps q, k, v and its output, and draws its dropout mask again; a gated feed-forward layer keeps three tensors
    of width f, one under relu one; cross-attention keeps its weights and
    the queries with the keys' projection absorbed; a dropout layer one byte an element.
    """
    c, d, inner = shape.config, shape.config.d_model, shape.config.num_heads * shape.config.d_kv
    feed_forward = (3 if c.is_gated_act else 1) * c.d_ff * one.element + (d + c.d_ff) * one.dropout
    attention = 4 * inner * one.element + 4 * c.num_heads + d * one.dropout
    both, norm = feed_forward + attention, _norm_bytes(d, one)
    cross = (c.num_heads * (d + positions * (1 + one.dropout)) + inner) * one.element + d * one.dropout
    return positions * (both + 2 * norm), one.targets * (both + 3 * norm + cross)


def _norm_bytes(width: int, one: Pass) -> int:
    """Return what a norm keeps of one position: its input and, where that is shorter, a copy of it in float32."""
    return width * (one.element + (4 if one.element < 4 else 0))
