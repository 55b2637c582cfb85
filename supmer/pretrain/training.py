"""A small T5 v1.1 and its training in plain torch: span corruption, and now and then a batch of label cues."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, T5Config, T5ForConditionalGeneration

from supmer.config import WarmupConfig
from supmer.corpus.unit import TokenIds
from supmer.pretrain.label_cues import TEXT_LENGTH, cue_batch
from supmer.pretrain.span_corruption import Batch, corrupt_batch
from supmer.pretrain.tokenizer import WHOLE_WORDS

log = logging.getLogger(__name__)

SEED = 0
HELD_OUT_SHARE = 0.02
MAX_HELD_OUT = 128
WARMUP_SHARE = 0.1
CUE_SHARE = 0.3
"""Share of steps that train on label cues."""
CLIP_NORM = 1.0
LOG_EVERY = 100


def build_model(config: WarmupConfig, tokenizer: PreTrainedTokenizerBase) -> T5ForConditionalGeneration:
    """Return an untrained T5 v1.1 (gated GELU, head tied to the embeddings) for the tokenizer, from a fixed seed."""
    model_config = T5Config(
        vocab_size=len(tokenizer),
        d_model=config.d_model,
        d_kv=max(8, config.d_model // config.num_heads),
        d_ff=config.d_ff,
        num_layers=config.num_layers,
        num_decoder_layers=config.num_decoder_layers or config.num_layers,
        num_heads=config.num_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
        decoder_start_token_id=tokenizer.pad_token_id,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return T5ForConditionalGeneration(model_config)


def train(
    model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, sequences: TokenIds, config: WarmupConfig
) -> tuple[float, float]:
    """Train in place on token sequences [N, length]; return the held-out loss in nats a token before and after."""
    num_held_out = min(MAX_HELD_OUT, max(1, int(len(sequences) * HELD_OUT_SHARE)))
    order = np.random.default_rng(SEED).permutation(len(sequences))
    held_out, training = sequences[order[:num_held_out]], sequences[order[num_held_out:]]
    before = evaluate(model, tokenizer, held_out)
    # Adafactor's steps are relative to the size of each weight, as T5's initialization needs: its embeddings are ten times
    # larger than its matrices, and one rate for both (Adam) leaves them behind.
    optimizer: torch.optim.Optimizer = torch.optim.Adafactor(model.parameters(), lr=config.learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, config.steps))
    model.train()
    began = time.perf_counter()
    for step, batch in enumerate(_batches(training, tokenizer, config), start=1):
        loss = seq2seq_loss(model, batch)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        schedule.step()
        if step % LOG_EVERY == 0 or step == config.steps:
            log.info("backbone step %d/%d: loss %.3f (%.0f s)", step, config.steps, loss.item(), time.perf_counter() - began)
    model.eval()
    return before, evaluate(model, tokenizer, held_out)


@torch.no_grad()
def evaluate(model: T5ForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, sequences: TokenIds) -> float:
    """Return the span-corruption loss in nats a target token, under a fixed corruption."""
    generator = np.random.default_rng(SEED)
    losses = []
    for start in range(0, len(sequences), 32):
        rows = sequences[start : start + 32]
        losses.append(seq2seq_loss(model, span_batch(rows, generator, tokenizer)).item() * len(rows))
    return sum(losses) / len(sequences)


def _batches(sequences: TokenIds, tokenizer: PreTrainedTokenizerBase, config: WarmupConfig) -> Iterator[Batch]:
    """Yield `config.steps` batches: epoch after epoch in a new order, each time corrupted anew."""
    generator = np.random.default_rng(SEED + 1)
    rows = np.empty(0, dtype=np.int64)
    for _ in range(config.steps):
        while len(rows) < config.batch_size:
            rows = np.concatenate([rows, generator.permutation(len(sequences))])
        batch, rows = sequences[rows[: config.batch_size]], rows[config.batch_size :]
        has_cues = generator.random() < CUE_SHARE and config.sequence_length >= TEXT_LENGTH
        yield label_cue_batch(batch, generator, tokenizer) if has_cues else span_batch(batch, generator, tokenizer)


def label_cue_batch(sequences: TokenIds, generator: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Batch:
    words = np.asarray(tokenizer.convert_tokens_to_ids([f"▁{word}" for word in WHOLE_WORDS]), dtype=np.int32)
    return cue_batch(sequences, words, generator, tokenizer.convert_tokens_to_ids("<extra_id_0>"), tokenizer.eos_token_id)


def span_batch(sequences: TokenIds, generator: np.random.Generator, tokenizer: PreTrainedTokenizerBase) -> Batch:
    first_sentinel = tokenizer.convert_tokens_to_ids("<extra_id_0>")
    return corrupt_batch(sequences, generator, first_sentinel, tokenizer.eos_token_id)


def seq2seq_loss(model: T5ForConditionalGeneration, batch: Batch) -> torch.Tensor:
    inputs, targets = batch
    loss: torch.Tensor = model(input_ids=torch.from_numpy(inputs), labels=torch.from_numpy(targets)).loss
    return loss


def rate_at(step: int, num_steps: int) -> float:
    """Linear warm-up over the first tenth, then linear decay to 0, as a share of the peak rate."""
    num_warmup = max(1, round(num_steps * WARMUP_SHARE))
    return min((step + 1) / num_warmup, (num_steps - step) / max(1, num_steps - num_warmup))
