"""What more ranks gain: a meta-step whose rows two ranks share, against one rank; and how evenly three ranks would share.

    python benchmarks/scaling.py

The meta-gradients of one episode (natural sentence lengths, published sizes) on a T5-small shape, by one rank of one thread
and by two (gloo), in turn; equal gradients are asserted first. Then, on paper: the published four episodes, dealt to three
ranks, whose passes one process runs and times one after the other. `--clock cpu` counts processor seconds in place of wall
time (of two ranks those of the busier), for machines whose cores are shared with other work. The last line is one JSON
object: `speedup` of two ranks, `three_ranks` on paper, and `idle`, the part of a step for which the least busy of the three
waits.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import torch
from hardware import describe
from meta_step import CLOCKS, INNER_LR, LAM, NUM_CLUSTERS, SHARED, WIDTH, draw_episodes, t5_small
from torch import Tensor, distributed, multiprocessing

from supmer.config import RegularizerConfig, TaskKind
from supmer.meta.group import LocalGroup, TorchGroup
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan, plan_rows, query_loss, run_pass, support_loss, with_first_labels
from supmer.model.regularizer import GradientRegularizer
from supmer.model.seq2seq import PromptedSeq2Seq
from supmer.tasks.episode import Episode

NUM_TASKS, PAPER_RANKS = 4, 3
TOLERANCE = 1e-5
NANOSECONDS = 10**9


class Timing(NamedTuple):
    """Seconds of a kind: one episode by one rank and by two; four by one rank, by each of three, and until the last ends."""

    alone: float
    together: float
    four_alone: float
    four_dealt: list[float]
    four_busiest: float


class PaperGroup(LocalGroup):
    """One of several ranks, of which only this one exists."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


class Rank:
    """What one process of the benchmark computes with."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.clock = CLOCKS[arguments.clock]
        self.model = PromptedSeq2Seq(
            t5_small(), torch.randn(NUM_CLUSTERS, WIDTH, generator=torch.Generator().manual_seed(0))
        )
        self.psi = GradientRegularizer(WIDTH, RegularizerConfig(), torch.Generator().manual_seed(0))
        self.prompt = self.model.backbone.shared.weight[:100].detach().clone()

    def step(self, episodes: Sequence[Episode], group: LocalGroup | TorchGroup) -> tuple[Tensor, float]:
        """Return the outer gradient [L, d] and the seconds that it took."""
        plan = PassPlan(self.arguments.max_tokens, group=group)
        started = self.clock()
        found = meta_gradients(self.model, self.psi, self.prompt, episodes, LAM, INNER_LR, plan).prompt
        return found, self.clock() - started

    def pass_seconds(self, episodes: Sequence[Episode], group: LocalGroup) -> list[float]:
        """Return the seconds of the support pass and of the query pass."""
        plan = PassPlan(self.arguments.max_tokens, group=group)
        prompts = self.prompt.expand(len(episodes), -1, -1)
        sides = [[episode.query for episode in episodes], [episode.augmentation for episode in episodes]]
        queries, augmentations = ([with_first_labels(rows, self.model.outer_positions) for rows in side] for side in sides)
        support = plan_rows([episode.support for episode in episodes], prompts, plan)
        query = plan_rows(queries, prompts, plan, augmentations, torch.full((len(episodes),), LAM))
        seconds = []
        for batches, loss in ((support, support_loss), (query, query_loss)):
            started = self.clock()
            run_pass(self.model, prompts, batches, loss, plan)
            seconds.append(self.clock() - started)
        return seconds


def main() -> None:
    arguments = _parse()
    _, episodes = draw_episodes(arguments)
    print(describe(), f"{arguments.clock} time, micro-batches of {arguments.max_tokens} tokens", sep=", ")
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder, "results.json")
        chosen = {kind: episodes[kind] for kind in arguments.kinds}
        multiprocessing.spawn(run_rank, (folder, results, arguments, chosen), nprocs=2)
        timings = {kind: Timing(*timing) for kind, timing in json.loads(results.read_text()).items()}
    for kind, found in timings.items():
        dealt = " ".join(f"{seconds:.2f}" for seconds in found.four_dealt)
        print(
            f"{kind:5s} one episode: one rank {found.alone:.2f} s, two {found.together:.2f} s, "
            f"{found.alone / found.together:.2f} times as fast; four: one rank {found.four_alone:.2f} s, three {dealt} s, "
            f"{found.four_alone / found.four_busiest:.2f} times"
        )
    alone, together, four_alone, _, four_busiest = (column for column in zip(*timings.values(), strict=True))
    idle = max(1 - min(found.four_dealt) / found.four_busiest for found in timings.values())
    summary = {
        "speedup": round(sum(alone) / sum(together), 3),
        "three_ranks": round(sum(four_alone) / sum(four_busiest), 3),
        "idle": round(idle, 3),
    }
    print(json.dumps({"benchmark": "scaling", **summary}))


def run_rank(
    rank: int, folder: str, results: Path, arguments: argparse.Namespace, episodes: dict[TaskKind, list[Episode]]
) -> None:
    """Time all kinds as one of two ranks; rank 0 computes alone while the other waits, and writes what was found."""
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2, timeout=timedelta(hours=2)
    )
    group, one = TorchGroup(torch.device("cpu")), Rank(arguments)
    one.step(next(iter(episodes.values()))[:1], group)  # warm-up
    found = {}
    for kind, batch in episodes.items():
        alone, together = [], []
        for _ in range(arguments.repeats):
            expected = alone_only(group, lambda b=batch: one.step(b[:1], LocalGroup()))
            gradient, seconds = one.step(batch[:1], group)
            together.append(group.all_reduce_max(int(seconds * NANOSECONDS)) / NANOSECONDS)
            if expected is not None:
                error = float((gradient - expected[0]).norm() / expected[0].norm())
                assert error < TOLERANCE, f"{kind}: the gradients of one rank and of two differ by {error:.1e}"
                alone.append(expected[1])
        paper = alone_only(group, lambda b=batch: on_paper(one, b[:NUM_TASKS]))
        if paper is not None:
            found[kind] = Timing(statistics.median(alone), statistics.median(together), *paper)
    if rank == 0:
        results.write_text(json.dumps(found))
    distributed.destroy_process_group()


def alone_only(group: TorchGroup, compute: Callable[[], tuple]) -> tuple | None:
    """Return what rank 0 computes while the other rank waits for it."""
    result = compute() if group.rank == 0 else None
    distributed.barrier()
    return result


def on_paper(one: Rank, episodes: Sequence[Episode]) -> tuple[float, list[float], float]:
    """Return the seconds of a step by one rank, those that each of three ranks works, and those that three take together."""
    alone = [one.pass_seconds(episodes, LocalGroup()) for _ in range(one.arguments.repeats)]
    ranks = [
        [one.pass_seconds(episodes, PaperGroup(rank, PAPER_RANKS)) for _ in range(one.arguments.repeats)]
        for rank in range(PAPER_RANKS)
    ]
    medians = [[statistics.median(column) for column in zip(*repeats, strict=True)] for repeats in [alone, *ranks]]
    # Ranks wait for each other at the end of each pass.
    return (
        sum(medians[0]),
        [sum(rank) for rank in medians[1:]],
        sum(max(column) for column in zip(*medians[1:], strict=True)),
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", default=str(SHARED / "corpus" / "wikipedia_en.jsonl.gz"))
    parser.add_argument("--tokenizer", default=str(SHARED / "tokenizer"))
    parser.add_argument(
        "--kinds", nargs="+", default=["nsp", "nss"], help="by default those of the shortest and longest rows"
    )
    parser.add_argument("--repeats", type=int, default=3, help="the median counts")
    parser.add_argument("--max-tokens", type=int, default=2048, help="train.max_tokens_per_microbatch")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.set_defaults(tasks=NUM_TASKS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
