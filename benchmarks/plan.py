"""Compare what the planner predicts with what real meta-steps on CPU ranks hold in memory, compute and gather.

    python benchmarks/plan.py

The embedded backbone and T5 shapes with random weights, whole and sharded over 2 and 4 gloo ranks, each rank a process.
Memory and FLOPs are those of `metatrain.py --dry-run`. The last line is one JSON object with the largest relative error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import distributed, multiprocessing, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config, T5ForConditionalGeneration

from supmer.config import Config
from supmer.config.load import validate
from supmer.meta.group import Group, LocalGroup, TorchGroup
from supmer.planning.dry_run import plan
from supmer.planning.measuring import Measured, longest_episodes, measure, untrained_learner
from supmer.reports.tables import Table

CPU = torch.device("cpu")
FIRST_PORT = 29_731
SMALL = {"vocab_size": 8000, "d_model": 256, "d_ff": 640, "num_layers": 4, "num_heads": 4}
BACKBONES: dict[str, dict[str, Any] | None] = {
    "embedded": None,
    "d 256, 4 + 4 layers, gated": {**SMALL, "feed_forward_proj": "gated-gelu"},
    "d 256, 6 + 2 layers, relu": {**SMALL, "num_layers": 6, "num_decoder_layers": 2},
    "flan-t5-small": {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6, "feed_forward_proj": "gated-gelu"},
}
CASES = [
    ("embedded", 1, {}),
    ("embedded", 2, {"gradient_checkpointing": True}),
    ("d 256, 4 + 4 layers, gated", 1, {}),
    ("d 256, 4 + 4 layers, gated", 4, {}),
    ("d 256, 6 + 2 layers, relu", 2, {}),
    ("flan-t5-small", 2, {}),
]


class Gathered(NamedTuple):
    """Bytes that one meta-step receives by all-gathers, and their number."""

    num_bytes: int
    count: int


class GatherCounter(TorchDispatchMode):
    """Counts all-gathers and the bytes they bring from other ranks."""

    def __init__(self, world: int) -> None:
        super().__init__()
        self.world, self.count, self.num_bytes = world, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.c10d._allgather_base_.default:
            self.count += 1
            self.num_bytes += args[0].nbytes * (self.world - 1) // self.world
        return func(*args, **(kwargs or {}))


def settings(folder: str, world: int, backbone: dict[str, Any]) -> Config:
    sharding = "none" if world == 1 else "full"
    return validate(
        {
            "backbone": {"name": folder, "dropout": 0.0, **backbone},
            "prompt": {"length": 20},
            "tasks": {"num_support": 4, "num_query": 4, "max_length": 160, "max_option_tokens": 24},
            "train": {"workers": world, "sharding": sharding, "max_tokens_per_microbatch": 1280},
        }
    )


def make_backbone(folder: Path, shape: dict[str, Any] | None) -> str:
    """Save a backbone of random weights, its head untied as in a flan-t5 checkpoint; None: the embedded one."""
    if shape is None:
        return "embedded"
    model = T5ForConditionalGeneration(T5Config(**shape, decoder_start_token_id=0))
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)
    return str(folder)


def run_rank(rank: int, world: int, port: int, config: Config, result: Path) -> None:
    """Measure as one rank of `world`, and count the all-gathers of one more meta-step."""
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    group: Group = LocalGroup()
    if world > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=world)
        group = TorchGroup(CPU)
    measured = measure(config, CPU, group)
    counter = GatherCounter(world)
    if world > 1:
        learner = untrained_learner(config, CPU, group)
        with counter:
            learner.step(longest_episodes(config))
    if rank == 0:
        result.write_text(json.dumps([measured, Gathered(counter.num_bytes, counter.count)]))
    if world > 1:
        distributed.destroy_process_group()


def main() -> None:
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as scratch:
        folders = {name: make_backbone(Path(scratch) / name, shape) for name, shape in BACKBONES.items()}
        for number, (name, world, backbone) in enumerate(CASES):
            config, result = settings(folders[name], world, backbone), Path(scratch) / f"{number}.json"
            multiprocessing.spawn(run_rank, (world, FIRST_PORT + number, config, result), nprocs=world)
            raw = json.loads(result.read_text())
            measured, gathered, planned = Measured(*raw[0]), Gathered(*raw[1]), plan(config)
            pairs = [(planned.peak, measured.peak), (planned.flops, measured.flops), (planned.gathered, gathered.num_bytes)]
            found = [expected / seen - 1 for expected, seen in pairs if seen]
            errors += found
            rows.append(
                [
                    name + (", checkpointing" if backbone else ""),
                    str(world),
                    *(f"{expected / 2**20:,.0f} {seen / 2**20:,.0f}" for expected, seen in pairs[:1]),
                    *(f"{expected / 1e9:,.0f} {seen / 1e9:,.0f}" for expected, seen in pairs[1:2]),
                    *(f"{expected / 2**20:,.0f} {seen / 2**20:,.0f}" for expected, seen in pairs[2:]),
                    f"{planned.gathers} {gathered.count}",
                    " ".join(f"{error:+.1%}" for error in found),
                ]
            )
            print(rows[-1], file=sys.stderr, flush=True)
    heads = ["backbone", "ranks", "peak, MiB", "GFLOP", "gathered, MiB", "gathers", "errors"]
    Console(width=140).print(Table(heads, rows, "Planned and measured, of one rank").terminal())
    print(json.dumps({"benchmark": "plan", "max_error": round(max(map(abs, errors)), 4)}))


if __name__ == "__main__":
    main()
