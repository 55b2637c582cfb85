"""One meta-step: ours against the plain formulation, and against the machine's matrix multiplication.

    python benchmarks/meta_step.py --corpus ../shared/corpus/wikipedia_en.jsonl.gz --tokenizer ../shared/tokenizer

Both compute the meta-gradients of the same episodes (natural sentence lengths, published sizes) on a T5-small shape. The
plain formulation takes one task after the other, pads every row to the configured maximum, and runs support batches of 16
and query batches of 8. Equal gradients are asserted before any time is printed; the runs alternate, so that a noisy
machine disturbs both. The last line is one JSON object: `ratio` (plain / ours, median) and `mfu`, the share of the
machine's fp32 matmul rate that our step spends on rows' own positions (padding does not count as work).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ray
import torch
from hardware import describe, matmul_rate
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from supmer.backbone.load import load_tokenizer
from supmer.cli import validate
from supmer.config import Config, TaskKind
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.meta.losses import cross_entropy, mixed_divergence
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.model.prompted import Mixing, PromptedSeq2Seq
from supmer.model.regularizer import GradientRegularizer
from supmer.model.rows import collate
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

NUM_DOCUMENTS = 150
NUM_CLUSTERS = 20
INNER_LR, LAM = 0.1, 0.7
PLAIN_QUERY_BATCH = 8
WIDTH = 512
NUM_DECODED = 3
TOLERANCE = 5e-4
"""Of fp32 sums over thousands of positions in another order: in float64 both agree to 2e-14, in fp32 each is off by 1e-4."""


def main() -> None:
    arguments = _parse()
    torch.set_num_threads(arguments.threads)
    config, episodes = draw_episodes(arguments)
    model = t5_small(torch.randn(NUM_CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(0)))
    psi = GradientRegularizer(WIDTH, config.regularizer, torch.Generator().manual_seed(0))
    prompt = model.backbone.shared.weight[: config.prompt.length].detach().clone()
    plan = PassPlan(config.train.max_tokens_per_microbatch)

    def ours(batch: list[Episode]) -> Tensor:
        return meta_gradients(model, psi, prompt, batch, LAM, INNER_LR, plan).prompt

    def plain(batch: list[Episode]) -> Tensor:
        return plain_prompt_gradient(model, psi, prompt, batch, config.max_input_tokens)

    print(describe())
    ours(next(iter(episodes.values())))  # warm-up
    results = []
    for kind, batch in episodes.items():
        rate = matmul_rate()
        seconds = compare(partial(plain, batch), partial(ours, batch), arguments.repeats)
        share = useful_flops(model.backbone.config, batch, config.prompt.length) / rate
        results.append((*seconds, share))
        print(
            f"{kind:5s} plain {seconds[0]:6.2f} s  ours {seconds[1]:6.2f} s  ratio {seconds[0] / seconds[1]:5.2f}  "
            f"mfu {share / seconds[1]:.2f}  matmul {rate / 1e9:.0f} GFLOP/s",
            flush=True,
        )
    plain_seconds, our_seconds, ideal_seconds = (sum(column) for column in zip(*results, strict=True))
    summary = {"ratio": round(plain_seconds / our_seconds, 3), "mfu": round(ideal_seconds / our_seconds, 3)}
    print(json.dumps({"benchmark": "meta_step", **summary}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    shared = Path(__file__).resolve().parents[2] / "shared"
    parser.add_argument("--corpus", default=str(shared / "corpus" / "wikipedia_en.jsonl.gz"))
    parser.add_argument("--tokenizer", default=str(shared / "tokenizer"))
    parser.add_argument("--tasks", type=int, default=2, help="episodes of a meta-batch (published: 4)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
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
        sampler = EpisodeSampler(store, TaskVocabulary.from_tokenizer(load_tokenizer(config.backbone)), config)
        return config, {
            kind: [sampler.validation_episode(kind, index) for index in range(arguments.tasks)]
            for kind in config.tasks.kinds
        }


def t5_small(centroids: Tensor) -> PromptedSeq2Seq:
    """Build a random backbone of T5-small's shape (d 512, 6 + 6 layers)."""
    torch.manual_seed(0)
    backbone = T5ForConditionalGeneration(T5Config(vocab_size=32128, dropout_rate=0.0, decoder_start_token_id=0))
    backbone.config.use_cache = False
    return PromptedSeq2Seq(backbone.requires_grad_(False).eval(), centroids)


def plain_prompt_gradient(
    model: PromptedSeq2Seq, psi: GradientRegularizer, prompt: Tensor, episodes: list[Episode], width: int
) -> Tensor:
    """Return the outer gradient of the prompt [L, d], one task after the other at full width."""
    total = torch.zeros_like(prompt)
    for episode in episodes:
        leaf = prompt[None].clone().requires_grad_(True)
        support = collate(episode.support, [0] * len(episode.support), width)
        output = model(leaf, support)
        (gradient,) = torch.autograd.grad(cross_entropy(output.logits, support.labels).mean(), leaf)
        hidden = output.hidden_sum.sum(dim=0) / output.hidden_count.sum()
        adapted = (leaf - INNER_LR * psi(gradient, hidden[None]).gradient).detach().requires_grad_(True)
        for start in range(0, len(episode.query), PLAIN_QUERY_BATCH):
            part = slice(start, start + PLAIN_QUERY_BATCH)
            size = len(episode.query[part])
            query = collate(episode.query[part], [0] * size, width)
            augmentation = collate(episode.augmentation[part], [0] * size, width)
            lam = torch.full((size,), LAM)
            logits = model(adapted, query, Mixing(augmentation, lam)).logits
            loss = mixed_divergence(logits, query.labels, augmentation.labels, lam).sum() / len(episode.query)
            total += torch.autograd.grad(loss, adapted)[0][0] / len(episodes)
    return total


def useful_flops(model: T5Config, episodes: list[Episode], prompt_length: int) -> float:
    """Return the multiply-adds (times 2) of a step on rows of their own lengths, forward and backward.

    Frozen weights need no gradient, so a linear layer costs as much backward as forward, and an attention product twice.
    """
    total = 0.0
    for episode in episodes:
        lengths = [[prompt_length + len(row.input_ids) for row in rows] for rows in (episode.support, episode.query)]
        partners = [prompt_length + len(row.input_ids) for row in episode.augmentation]
        total += sum(encoder_flops(model, length) for length in [*lengths[0], *lengths[1], *partners])
        unions = [max(pair) for pair in zip(lengths[1], partners, strict=True)]
        total += sum(decoder_flops(model, length) for length in [*lengths[0], *unions])
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
    own = 2 * NUM_DECODED * model.d_model * (6 * inner + 2 * model.d_ff)
    states = 2 * length * model.d_model * 2 * inner
    attention = 2 * 2 * NUM_DECODED * (length + NUM_DECODED) * inner
    head = 2 * NUM_DECODED * model.d_model * model.vocab_size
    return model.num_decoder_layers * (2 * (own + states) + 3 * attention) + 2 * head


def compare(plain: Callable[[], Tensor], ours: Callable[[], Tensor], repeats: int) -> tuple[float, float]:
    """Return the median seconds of both, run in turn; each time they must agree."""
    times: list[tuple[float, float]] = []
    for _ in range(repeats):
        started = time.perf_counter()
        expected = plain()
        between = time.perf_counter()
        found = ours()
        times.append((between - started, time.perf_counter() - between))
        assert_near(found, expected)
    return statistics.median(t for t, _ in times), statistics.median(t for _, t in times)


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Assert equal gradients, up to the rounding of another order of summation."""
    error = float((found - expected).norm() / expected.norm())
    assert error < TOLERANCE, f"gradients differ by {error:.1e}"


if __name__ == "__main__":
    main()
