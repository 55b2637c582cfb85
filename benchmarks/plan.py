"""Compare what the planner predicts with what real meta-steps on CPU ranks hold in memory and gather.

    python benchmarks/plan.py

Two backbones with random weights, 1, 2 and 4 gloo ranks, each rank a process. The peak is the highest resident memory that
the kernel saw during a meta-step (VmHWM, reset before it), less what the process had before it loaded the model (but after a
step of a tiny one, which loads libraries), with malloc told to return what is freed. The last line is one JSON object.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import distributed, multiprocessing
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import T5Config, T5ForConditionalGeneration

from supmer.cli import validate
from supmer.config import Config
from supmer.meta.group import LocalGroup, TorchGroup
from supmer.meta.learner import Learner
from supmer.model.prompted import build_model, initial_prompt
from supmer.model.sharding import build_sharded_model, local_parameter_bytes
from supmer.planning.costs import Costs
from supmer.planning.estimate import Estimate, Setting, estimate
from supmer.planning.hardware import Hardware
from supmer.planning.shapes import resolve_shape
from supmer.tasks.episode import NO_CENTROID, Episode, Example

WORLDS = (1, 2, 4)
NUM_TASKS, NUM_ROWS, LENGTH, PROMPT_LENGTH, MAX_TOKENS = 4, 4, 160, 20, 1280
FIRST_PORT = 29_731
SHAPES: dict[str, dict[str, int]] = {
    "mini (d 256, 4+4)": {"vocab_size": 8000, "d_model": 256, "d_ff": 640, "num_layers": 4, "num_heads": 4},
    "flan-t5-small (d 512, 8+8)": {"vocab_size": 32_128, "d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6},
}
WARM_UP = "warm-up"
WARM_UP_SHAPE = {"vocab_size": 8000, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 1}
ANY_HARDWARE = Hardware(2**34, 0, 1e11, 1e10, 1e10, 8, 0.0)


class Measured(NamedTuple):
    """Bytes of rank 0: parameters, peak of a meta-step, received by all-gathers of a meta-step; and their number."""

    parameters: int
    peak: int
    gathered: int
    gathers: int


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


def settings(folder: Path, world: int) -> Config:
    return validate(
        {
            "backbone": {"name": str(folder), "dropout": 0.0},
            "prompt": {"length": PROMPT_LENGTH},
            "tasks": {"num_support": NUM_ROWS, "num_query": NUM_ROWS, "max_length": LENGTH},
            "meta": {"tasks_per_step": NUM_TASKS},
            "train": {
                "workers": world,
                "sharding": "none" if world == 1 else "full",
                "max_tokens_per_microbatch": MAX_TOKENS,
            },
        }
    )


def make_backbone(folder: Path, shape: dict[str, int]) -> None:
    """Save a backbone of random weights, its head untied as in a flan-t5 checkpoint."""
    model = T5ForConditionalGeneration(T5Config(**shape, feed_forward_proj="gated-gelu", decoder_start_token_id=0))
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
    model.config.tie_word_embeddings = False
    model.save_pretrained(folder)


def predict(folder: Path, world: int) -> Estimate:
    config = settings(folder, world)
    sharding = config.train.sharding
    setting = Setting(world, NUM_TASKS, sharding, world, checkpointing=False, max_tokens=MAX_TOKENS)
    return estimate(Costs(config, resolve_shape(config.backbone), gpu=False), setting, ANY_HARDWARE)


def measure(folder: Path, world: int, port: int) -> Measured:
    """Run the ranks in processes whose malloc maps each tensor by itself, so that freed memory leaves them at once."""
    os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = "65536"
    result = folder / f"measured-{world}.json"
    multiprocessing.spawn(run_rank, (world, port, folder, result), nprocs=world)
    return Measured(**json.loads(result.read_text()))


def run_rank(rank: int, world: int, port: int, folder: Path, result: Path) -> None:
    """Measure the second meta-step, when the optimizers have their state, and count the all-gathers of a third."""
    join(rank, world, port)
    config = settings(folder, world)
    warm_up(rank, world, folder.parent)
    before = resident_bytes("VmRSS")
    learner = build_learner(config, world)
    learner.step(list(episodes(rank, world)))
    reset_high_water_mark()
    learner.step(list(episodes(rank, world)))
    peak = resident_bytes("VmHWM") - before
    with GatherCounter(world) as counter:
        learner.step(list(episodes(rank, world)))
    if rank == 0:
        found = Measured(local_parameter_bytes(learner.model), peak, counter.num_bytes, counter.count)
        result.write_text(json.dumps(found._asdict()))
    if world > 1:
        distributed.destroy_process_group()


def join(rank: int, world: int, port: int) -> None:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in ranks.items()}, MASTER_ADDR="127.0.0.1")
    torch.set_num_threads(1)
    if world > 1:
        distributed.init_process_group("gloo", rank=rank, world_size=world)


def build_learner(config: Config, world: int) -> Learner:
    device = torch.device("cpu")
    centroids = torch.zeros(4, resolve_shape(config.backbone).config.d_model)
    model = build_model(config, centroids.numpy()) if world == 1 else build_sharded_model(config, centroids, device)
    group = TorchGroup(device) if world > 1 else LocalGroup()
    return Learner(config, model, initial_prompt(config.prompt, model, 0), group, lockstep=world > 1)


def episodes(rank: int, world: int) -> Iterator[Episode]:
    """Make this rank's episodes of random rows, all but one of the greatest length."""
    rng = np.random.default_rng(0)
    for slot in range(rank, NUM_TASKS, world):
        sets = [tuple(random_row(rng, shorter=row == 0) for row in range(NUM_ROWS)) for _ in range(3)]
        yield Episode("nsp", 0, slot, (0,), (1,), *sets)


def random_row(rng: np.random.Generator, *, shorter: bool) -> Example:
    length = LENGTH - PROMPT_LENGTH - shorter
    tokens = rng.integers(5, 7000, length + 3).astype(np.int32)
    return Example(tokens[:length], np.full(length, NO_CENTROID, np.int32), tokens[length:], label=0)


def warm_up(rank: int, world: int, scratch: Path) -> None:
    """Do a meta-step of a backbone of next to no size, so that libraries are loaded before memory is measured."""
    learner = build_learner(settings(scratch / WARM_UP, world), world)
    learner.step(list(episodes(rank, world)))
    del learner
    gc.collect()


def resident_bytes(field: str) -> int:
    """Return resident memory of this process: `VmRSS` now, or `VmHWM`, the highest since the mark was reset."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024


def reset_high_water_mark() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def compare(table: Table, name: str, world: int, predicted: Estimate, measured: Measured) -> float:
    """Add a row to the table and return the greater of the two relative errors of memory."""
    errors = [predicted.parameters / measured.parameters - 1, predicted.peak / measured.peak - 1]
    mebibytes = (predicted.parameters, measured.parameters, predicted.peak, measured.peak)
    table.add_row(
        name,
        str(world),
        *(f"{value / 2**20:,.1f}" for value in mebibytes),
        f"{errors[0]:+.1%} {errors[1]:+.1%}",
        f"{predicted.gathered / 2**20:,.0f} {measured.gathered / 2**20:,.0f}",
        f"{predicted.gathers} {measured.gathers}",
    )
    return max(abs(error) for error in errors)


def main() -> None:
    table = Table(title="Predicted and measured, MiB of rank 0")
    heads = ("parameters", "measured", "peak", "measured", "errors", "gathered, measured", "gathers, measured")
    for head in ("backbone", "ranks", *heads):
        table.add_column(head, justify="left" if head == "backbone" else "right")
    errors = []
    with tempfile.TemporaryDirectory() as scratch:
        make_backbone(Path(scratch) / WARM_UP, WARM_UP_SHAPE)
        for number, (name, shape) in enumerate(SHAPES.items()):
            folder = Path(scratch) / str(number)
            make_backbone(folder, shape)
            for world in WORLDS:
                measured = measure(folder, world, FIRST_PORT + world + 10 * number)
                errors.append(compare(table, name, world, predict(folder, world), measured))
    Console(width=160).print(table)
    print(json.dumps({"benchmark": "plan", "max_error": round(max(errors), 4)}))


if __name__ == "__main__":
    sys.exit(main())
