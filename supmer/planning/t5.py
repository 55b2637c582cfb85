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

from supmer.planning.shapes import FUSED_BACKWARD, Pass, Shape, Weights

TARGETS, MIXED_TARGETS = 3, 2
"""Decoder positions of a row: a target is `<X> label <Y>`, of which the outer loss of mixed rows looks at two."""


def count_weights(shape: Shape) -> Weights:
    """Count parameters by block; to the root (embeddings, head, last norms) come the two relative biases."""
    c, d = shape.config, shape.config.d_model
    encoder, decoder = _block_weights(shape)
    biases = 2 * c.relative_attention_num_buckets * c.num_heads
    root = c.vocab_size * d * (1 + shape.own_head) + 2 * d + biases
    return Weights(root, (encoder,) * c.num_layers + (decoder,) * c.num_decoder_layers)


def row_flops(shape: Shape, positions: int, one: Pass) -> float:
    """Return the FLOPs of one row of S positions, forward and backward.

    A position costs 2 FLOPs for each weight of its block, and 4iS of self-attention; a decoder position 4hdS of
    cross-attention, whose two products have gradients with respect to both factors, and 2dV in the head.
    """
    c, d, (encoder, decoder) = shape.config, shape.config.d_model, _block_weights(shape)
    encoded = positions * (1 + one.mixed) * c.num_layers
    decoded = _targets(one) * c.num_decoder_layers
    products = 2 * (encoder * encoded + decoder * decoded)
    attention = 4 * c.num_heads * c.d_kv * positions * encoded
    cross = 4 * c.num_heads * d * positions * decoded
    forward = products + attention + cross
    backward = products + FUSED_BACKWARD * attention + 2 * cross
    # The second forward stops at the last tensor that is needed, before the feed-forward layer's way out.
    repeated = forward - 2 * d * c.d_ff * (encoded + decoded) if one.checkpointing else 0
    return float(forward + backward + repeated + 2 * 2 * d * c.vocab_size * _targets(one))


def kept_bytes(shape: Shape, positions: int, one: Pass) -> tuple[int, int]:
    """Return the bytes of one row that a GPU keeps for the backward pass: of the encoder's blocks, and of all after them.

    The blocks share one masked position bias (`model/position_bias.py`); the loss keeps log-probabilities in float32.
    """
    c, d, copies = shape.config, shape.config.d_model, 1 + one.mixed
    encoder, decoder = _block_bytes(shape, positions, one)
    if one.checkpointing:
        encoder, decoder = positions * d * one.element, _targets(one) * d * one.element
    bias = c.num_heads * positions**2 * one.element
    final_norm = _norm_bytes(d, one) + d * one.dropout
    head = _targets(one) * final_norm + _targets(one) * c.vocab_size * 4
    states = positions * (copies * final_norm + d * one.element)
    entry = d * one.dropout * (positions * copies + _targets(one))
    return copies * (c.num_layers * encoder + bias) + entry, c.num_decoder_layers * decoder + states + head


def peak_bytes(shape: Shape, positions: int, one: Pass) -> int:
    """Return the most bytes that one row has at once: what is kept, and what comes and goes at one of two moments.

    One is the beginning of the backward pass: encoder states pooled in float32, and logits with their gradients. The other
    is the last encoder block's feed-forward layer, two gradients of width f; with checkpointing the block's own activations
    have then been computed again.
    """
    c, d, copies = shape.config, shape.config.d_model, 1 + one.mixed
    encoder, after = kept_bytes(shape, positions, one)
    start = max(_targets(one) * c.vocab_size * (4 + 4 + one.element), positions * d * (8 if one.element < 4 else 4))
    feed_forward = 2 * positions * copies * (c.d_ff + d) * one.element
    if one.checkpointing:
        block, decoder_block = _block_bytes(shape, positions, one)
        start, feed_forward = start + decoder_block, feed_forward + copies * block
    return int(encoder + max(after + start, feed_forward))


def _targets(one: Pass) -> int:
    """Return D, the decoder positions of a row."""
    return MIXED_TARGETS if one.mixed else TARGETS


def _block_weights(shape: Shape) -> tuple[int, int]:
    """Count a block of the encoder and of the decoder: 4di an attention, 2df (gated 3df) a feed-forward layer, d a norm."""
    c, d = shape.config, shape.config.d_model
    attention = 4 * d * c.num_heads * c.d_kv
    feed_forward = (3 if c.is_gated_act else 2) * d * c.d_ff
    return attention + feed_forward + 2 * d, 2 * attention + feed_forward + 3 * d


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
    return positions * (both + 2 * norm), _targets(one) * (both + 3 * norm + cross)


def _norm_bytes(width: int, one: Pass) -> int:
    """Return what a norm keeps of one position: its input and, where that is shorter, a copy of it in float32."""
    return width * (one.element + (4 if one.element < 4 else 0))
