"""What the student starts from: the teacher's word vectors, and attention that passes on what is alike.

A student that trains for an hour meets most words a few times only, so it need not learn from nothing what they mean. From
attention that starts at random, looking up a label word in the input is not learnt within that hour; from this start it is
within a few hundred steps.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention

from experiments.embedded_backbone.settings import Recipe
from experiments.embedded_backbone.teacher import Embeddings

KEPT_NOISE = 0.5
"""Share of the embeddings' random start that is kept: the teacher takes some pieces, as `Yes` and `yes`, for the same."""
LIKENESS = 8.0
"""Attention logit, by head, between two equal positions of unit size."""
PASSED_ON = 2.0
"""How many times what a position attends to is added to it."""
ATTENTION_NOISE = 0.01
"""Standard deviation of what sets query weights apart from key weights."""

Vectors = npt.NDArray[np.float32]


def build_model(recipe: Recipe, tokenizer: PreTrainedTokenizerBase, seed: int) -> T5ForConditionalGeneration:
    """Return an untrained T5 v1.1 (gated GELU, head tied to the embeddings) for the tokenizer."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=recipe.d_model,
        d_kv=max(8, recipe.d_model // recipe.num_heads),
        d_ff=recipe.d_ff,
        num_layers=recipe.num_layers,
        num_decoder_layers=recipe.num_decoder_layers,
        num_heads=recipe.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return T5ForConditionalGeneration(config)


def piece_texts(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> list[str]:
    """Return the text of each of the first `vocab_size` tokens, the special ones too."""
    return [token.replace("▁", " ").strip() or "," for token in tokenizer.convert_ids_to_tokens(list(range(vocab_size)))]


def principal_map(pieces: Embeddings, width: int) -> Vectors:
    """Return the map [d_teacher, width] onto the main directions of `pieces` [V, d_teacher], to entries of unit size."""
    centred = pieces - pieces.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2][:width].T
    directions /= np.sqrt(np.mean((centred @ directions) ** 2))
    return np.pad(directions, ((0, 0), (0, width - directions.shape[1]))).astype(np.float32)


@torch.no_grad()
def start_embeddings(weight: torch.Tensor, pieces: Embeddings, to_width: Vectors, num_special: int) -> None:
    """Set the rows of the embedding table [V', d] that belong to `pieces`, all but the special tokens at its beginning."""
    vectors = torch.from_numpy((pieces - pieces.mean(axis=0)) @ to_width)
    rows = slice(num_special, len(pieces))
    weight[rows] = KEPT_NOISE * weight[rows] + vectors[rows]


@torch.no_grad()
def start_attention(model: T5ForConditionalGeneration, seed: int) -> None:
    """Set the encoder's self-attention and the cross-attention in place.

    After "Mimetic Initialization of Self-Attention Layers" (Trockman & Kolter, ICML 2023): products of query and key
    weights, and of value and output weights, begin near multiples of the identity.
    """
    generator = torch.Generator().manual_seed(seed)
    for block in model.encoder.block:
        _near_identity(block.layer[0].SelfAttention, generator)
    for block in model.decoder.block:
        _near_identity(block.layer[1].EncDecAttention, generator)


def _near_identity(attention: T5Attention, generator: torch.Generator) -> None:
    def orthonormal() -> torch.Tensor:
        weights = torch.randn(attention.inner_dim, attention.d_model, generator=generator)
        return nn.init.orthogonal_(weights, generator=generator)

    # An orthonormal map leaves a position of unit entries with a squared norm of its key size in each head.
    likeness = orthonormal() * (LIKENESS / attention.key_value_proj_dim) ** 0.5
    for weights in (attention.q.weight, attention.k.weight):
        weights.copy_(likeness + ATTENTION_NOISE * torch.randn(weights.shape, generator=generator))
    values = orthonormal() * PASSED_ON**0.5
    attention.v.weight.copy_(values)
    attention.o.weight.copy_(values.T)
