"""One meta-step on a decoder-only backbone: tokens a second, and the share of the machine's matrix multiplication.

    python benchmarks/causal_step.py --config experiments/smollm2/smollm2.yaml --store STORE [section.key=value ...]

STORE is a task store, such as `experiments.smollm2.topics` makes. The episodes of a validation meta-batch go through a whole
step (support pass, query pass with augmentation, both backward) with `train.threads_per_worker` threads; the median of
`--repeats` counts. Matrix products in the backbone's dtype run before and after each, by the same clock; `--clock cpu` is
processor seconds, for machines whose cores are shared with other work. `mfu` is the share of that rate that the step spends
on products which the method needs: padding does not count. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from hardware import describe, matmul_seconds
from transformers import PreTrainedModel

from supmer.backbone.kinds import block_names
from supmer.backbone.load import resolve_backbone
from supmer.cli import job_parser, run_job
from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.meta.group import LocalGroup
from supmer.meta.learner import build_learner
from supmer.tasks.episode import Episode
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def measure(config: Config, arguments: argparse.Namespace) -> None:
    """Time the step and print what it reached."""
    config, clock = resolve_backbone(config), CLOCKS[arguments.clock]
    torch.set_num_threads(config.train.threads_per_worker or 1)
    store = TaskStore.open(arguments.store)
    learner = build_learner(config, store.centroids, torch.device("cpu"), LocalGroup())
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(config.backbone), config)
    kind, numbers = config.tasks.kinds[0], range(config.meta.tasks_per_step)
    episodes = [sampler.validation_episode(kind, number) for number in numbers]
    flops = needed_flops(learner.model.backbone, episodes, config.prompt.length)
    dtype = getattr(torch, config.backbone.dtype)
    learner.gradients(episodes)  # warm-up
    found = []
    for _ in range(arguments.repeats):
        done, before = matmul_seconds(clock, dtype=dtype)
        started = clock()
        tokens = float(learner.gradients(episodes).tokens)
        seconds = clock() - started
        _, after = matmul_seconds(clock, dtype=dtype)
        rate = 2 * done / (before + after)
        found.append((seconds, tokens / seconds, flops / seconds / rate, rate / 1e9))
    seconds, tokens_per_second, mfu, rate = (statistics.median(column) for column in zip(*found, strict=True))
    print(describe(), f"{config.backbone.dtype}, {kind}, {arguments.clock} time, matmul {rate:.0f} GFLOP/s", sep=", ")
    result = {"seconds": round(seconds, 2), "tokens_per_second": round(tokens_per_second), "mfu": round(mfu, 2)}
    print(json.dumps({"benchmark": "causal_step", **result}))


def needed_flops(backbone: PreTrainedModel, episodes: Sequence[Episode], prompt_length: int) -> float:
    """Return the operations of a step on rows of their own lengths, forward and backward.

    Frozen weights need no gradient, so a linear layer costs as much backward as forward, and an attention product, of whose
    square the causal mask leaves half, twice.
    """
    names, config = block_names(backbone), backbone.config
    blocks = [module for module in backbone.modules() if type(module).__name__ in names]
    weights = sum(weight.numel() for block in blocks for weight in block.parameters() if weight.dim() == 2)
    total = 0.0
    for episode in episodes:
        for row in (*episode.support, *episode.query, *episode.augmentation):
            length = prompt_length + len(row.input_ids)
            attention = len(blocks) * 2 * length * length * config.hidden_size
            total += 2 * 2 * length * weights + 3 * attention
        total += 2 * 2 * (len(episode.support) + len(episode.query)) * config.vocab_size * config.hidden_size
    return total


def main() -> None:
    parser = job_parser(__doc__ or "")
    parser.add_argument("--store", required=True, help="folder of the task store")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    run_job(measure, parser)


if __name__ == "__main__":
    main()
