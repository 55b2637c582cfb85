"""One meta-step: ours against the plain formulation, and against the machine's matrix multiplication.

    python benchmarks/meta_step.py --corpus ../shared/corpus/wikipedia_en.jsonl.gz --tokenizer ../shared/tokenizer

Both compute the meta-gradients of the same episodes (natural sentence lengths, published sizes) on a T5-small shape. The
plain formulation is written on transformers' own T5: one task after the other, every row padded to the configured maximum,
support batches of 16 and query batches of 8. Equal gradients are asserted before any time is printed. Plain, ours and
matrix products run in turn, so that a noisy machine disturbs all of them; `--clock cpu` counts processor seconds in place
of wall time, for machines whose cores are shared with other work. The last line is one JSON object: `ratio` (plain / ours,
over all kinds) and `mfu`, the share of the fp32 matmul rate that our step spends on products that the method needs: padding
does not count, and neither do the keys and values that our cross-attention leaves out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import ray
import torch
from hardware import describe, matmul_seconds
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput

from supmer.config import Config, TaskKind
from supmer.config.load import validate
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.meta.losses import cross_entropy, mixed_divergence
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.regularizer import GradientRegularizer
from supmer.model.rows import Rows, collate
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

SHARED = Path(__file__).resolve().parents[2] / "shared"
NUM_DOCUMENTS = 150
NUM_CLUSTERS = 20
INNER_LR, LAM = 0.1, 0.7
PLAIN_QUERY_BATCH = 8
WIDTH = 512
NUM_DECODED = 3
TOLERANCE = 5e-4
"""Of fp32 sums over thousands of positions in another order: in float64 both agree to 2e-14, in fp32 each is off by 1e-4."""

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


class Timing(NamedTuple):
    """Seconds of one meta-step, plain and ours, and the matmul rate around ours in FLOP/s."""

    plain: float
    ours: float
    rate: float


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    config, episodes = draw_episodes(arguments)
    centroids = torch.randn(NUM_CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(0))
    psi = GradientRegularizer(WIDTH, config.regularizer, torch.Generator().manual_seed(0))
    model = PromptedSeq2Seq(t5_small(), centroids)
    plain = Plain(t5_small(), centroids, psi, config.max_input_tokens)
    prompt = model.backbone.shared.weight[: config.prompt.length].detach().clone()
    plan = PassPlan(arguments.max_tokens)

    def ours(batch: list[Episode]) -> Tensor:
        return meta_gradients(model, psi, prompt, batch, LAM, INNER_LR, plan).prompt

    print(describe(), f"{arguments.clock} time, micro-batches of {arguments.max_tokens} tokens", sep=", ")
    ours(next(iter(episodes.values()))[:1])  # warm-up
    rows = []
    for kind, batch in episodes.items():
        timing = compare(lambda b=batch: plain.prompt_gradient(prompt, b), lambda b=batch: ours(b), arguments)
        ideal = needed_flops(model.backbone.config, batch, config.prompt.length) / timing.rate
        rows.append((timing.plain, timing.ours, ideal))
        print(
            f"{kind:5s} plain {timing.plain:6.2f} s  ours {timing.ours:6.2f} s  ratio {timing.plain / timing.ours:5.2f}  "
            f"mfu {ideal / timing.ours:.2f}  matmul {timing.rate / 1e9:.0f} GFLOP/s",
            flush=True,
        )
    plain_seconds, our_seconds, ideal_seconds = (sum(column) for column in zip(*rows, strict=True))
    summary = {"ratio": round(plain_seconds / our_seconds, 3), "mfu": round(ideal_seconds / our_seconds, 3)}
    print(json.dumps({"benchmark": "meta_step", **summary}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", default=str(SHARED / "corpus" / "wikipedia_en.jsonl.gz"))
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizer"))
    parser.add_argument("--tasks", type=int, default=2, help="episodes of a meta-batch (published: 4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="the median counts")
    parser.add_argument("--max-tokens", type=int, default=2048, help="train.max_tokens_per_microbatch")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    return parser.parse_args()


def draw_episodes(arguments: argparse.Namespace) -> tuple[Config, dict[TaskKind, list[Episode]]]:
    """Prepare a small store (embedded by a throw-away backbone) and draw a meta-batch of each kind."""
    with tempfile.TemporaryDirectory() as folder:
        small = T5Config(vocab_size=32128, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4)
        small.save_pretrained(folder)
        config = validate(
            {
                "backbone": {"name": folder, "weights": "random", "tokenizer": arguments.tokenizer, "dropout": 0.0},
                "corpus": {"paths": [arguments.corpus], "max_documents": NUM_DOCUMENTS, "store_dir": f"{folder}/stores"},
                "clusters": {"num_clusters": NUM_CLUSTERS, "restarts": 1},
            }
        )
        store = TaskStore.open(prepare(config))
        ray.shutdown()
        sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
        return config, {
            kind: [sampler.validation_episode(kind, index) for index in range(arguments.tasks)]
            for kind in config.tasks.kinds
        }


def t5_small() -> T5ForConditionalGeneration:
    """Build a frozen backbone of T5-small's shape (d 512, 6 + 6 layers), always with the same random weights."""
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(T5Config(vocab_size=32128, dropout_rate=0.0, decoder_start_token_id=0))
    backbone.config.use_cache = False
    return backbone.requires_grad_(False).eval()


@dataclass(frozen=True)
class Plain:
    """The plain formulation on a transformers model as it is; `width`: text positions that every row is padded to."""

    backbone: T5ForConditionalGeneration
    centroids: Tensor
    psi: GradientRegularizer
    width: int

    def prompt_gradient(self, prompt: Tensor, episodes: list[Episode]) -> Tensor:
        """Return the outer gradient of the prompt [L, d], one task after the other."""
        total = torch.zeros_like(prompt)
        for episode in episodes:
            adapted = self._adapt(prompt, episode).requires_grad_(True)
            for start in range(0, len(episode.query), PLAIN_QUERY_BATCH):
                loss = self._query_loss(adapted, episode, slice(start, start + PLAIN_QUERY_BATCH))
                total += torch.autograd.grad(loss, adapted)[0] / len(episodes)
        return total

    def _adapt(self, prompt: Tensor, episode: Episode) -> Tensor:
        leaf = prompt.clone().requires_grad_(True)
        support = self._collate(episode.support)
        hidden, mask = self._encode(leaf, support)
        (gradient,) = torch.autograd.grad(
            cross_entropy(self._decode(hidden, mask, support.labels), support.labels).mean(), leaf
        )
        pooled = (hidden.detach() * mask.unsqueeze(-1)).sum(dim=(0, 1)) / mask.sum()
        return (prompt - INNER_LR * self.psi(gradient[None], pooled[None]).gradient[0]).detach()

    def _query_loss(self, adapted: Tensor, episode: Episode, part: slice) -> Tensor:
        query, augmentation = self._collate(episode.query[part]), self._collate(episode.augmentation[part])
        (hidden_q, mask_q), (hidden_a, mask_a) = self._encode(adapted, query), self._encode(adapted, augmentation)
        logits = self._decode(LAM * hidden_q + (1 - LAM) * hidden_a, mask_q | mask_a, query.labels)
        lam = torch.full((len(query.labels),), LAM)
        outer = slice(PromptedSeq2Seq.outer_positions)
        losses = mixed_divergence(logits[:, outer], query.labels[:, outer], augmentation.labels[:, outer], lam)
        return losses.sum() / len(episode.query)

    def _collate(self, examples: tuple) -> Rows:
        return collate(examples, [0] * len(examples), self.width)

    def _encode(self, prompt: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
        is_centroid = (rows.centroid_ids >= 0).unsqueeze(-1)
        embedded = self.backbone.shared(rows.input_ids)
        embedded = torch.where(is_centroid, self.centroids[rows.centroid_ids.clamp(min=0)], embedded)
        inputs = torch.cat([prompt.expand(len(embedded), -1, -1), embedded], dim=1)
        mask = torch.cat([torch.ones(len(embedded), len(prompt), dtype=torch.long), rows.attention_mask], dim=1)
        return self.backbone.encoder(inputs_embeds=inputs, attention_mask=mask).last_hidden_state, mask

    def _decode(self, hidden: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
        decoder_input_ids = self.backbone.prepare_decoder_input_ids_from_labels(labels)
        encoded = BaseModelOutput(last_hidden_state=hidden)
        return self.backbone(encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=decoder_input_ids).logits


def needed_flops(model: T5Config, episodes: list[Episode], prompt_length: int) -> float:
    """Return the multiply-adds (times 2) of a step on rows of their own lengths, forward and backward.

    A mixed pair is as long as its longer row: both sides' states count at every position that the other has. Frozen weights
    need no gradient, so a linear layer costs as much backward as forward, and an attention product twice.
    """
    total = 0.0
    for episode in episodes:
        support = [prompt_length + len(row.input_ids) for row in episode.support]
        pairs = [
            prompt_length + max(len(query.input_ids), len(partner.input_ids))
            for query, partner in zip(episode.query, episode.augmentation, strict=True)
        ]
        total += sum(encoder_flops(model, length) for length in [*support, *pairs, *pairs])
        total += sum(decoder_flops(model, length) for length in [*support, *pairs])
    return total


def encoder_flops(model: T5Config, length: int) -> float:
    """Forward and backward of one row through the encoder."""
    inner = model.num_heads * model.d_kv
    linear = 2 * length * model.d_model * (4 * inner + 2 * model.d_ff)
    attention = 2 * 2 * length * length * inner
    return model.num_layers * (2 * linear + 3 * attention)


def decoder_flops(model: T5Config, length: int) -> float:
    """Forward and backward of one row's three decoder positions, cross-attention over `length` states, and the head."""
    inner = model.num_heads * model.d_kv
    own = 2 * NUM_DECODED * model.d_model * (8 * inner + 2 * model.d_ff)
    own_attention = 2 * 2 * NUM_DECODED * NUM_DECODED * inner
    cross_attention = 2 * 2 * NUM_DECODED * model.num_heads * length * model.d_model
    head = 2 * NUM_DECODED * model.d_model * model.vocab_size
    return model.num_decoder_layers * (2 * own + 3 * (own_attention + cross_attention)) + 2 * head


def compare(plain: Callable[[], Tensor], ours: Callable[[], Tensor], arguments: argparse.Namespace) -> Timing:
    """Return the medians of both, and of matrix products just before and after ours; each time both must agree."""
    clock = CLOCKS[arguments.clock]
    # Processor seconds add up over threads; the step's own share of them is what a core of its own would take.
    threads = arguments.threads if arguments.clock == "cpu" else 1
    timings = []
    for _ in range(arguments.repeats):
        marks = [clock()]
        expected = plain()
        marks.append(clock())
        flops, before = matmul_seconds(clock)
        marks.append(clock())
        found = ours()
        marks.append(clock())
        _, after = matmul_seconds(clock)
        assert_near(found, expected)
        timings.append(
            Timing((marks[1] - marks[0]) / threads, (marks[3] - marks[2]) / threads, 2 * flops * threads / (before + after))
        )
    return Timing(*(statistics.median(column) for column in zip(*timings, strict=True)))


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Assert equal gradients, up to the rounding of another order of summation."""
    error = float((found - expected).norm() / expected.norm())
    assert error < TOLERANCE, f"gradients differ by {error:.1e}"


if __name__ == "__main__":
    main()
