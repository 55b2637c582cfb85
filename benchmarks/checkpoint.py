"""What checkpoints cost: meta-steps with a checkpoint every ten steps against the same steps without.

    python benchmarks/checkpoint.py

One Ray Train worker trains a random T5 on documentation that is installed anyway, through the main job's own loop and
session. First without checkpoints; then the same steps again, in blocks of ten that begin with handing over a checkpoint or
not, in turn, so that a noisy machine disturbs both kinds alike. Equal final numbers are asserted before any time is
printed. The last line is one JSON object: `overhead`, the median block with a checkpoint over the median block without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import ray
import ray.train
import torch
from hardware import describe
from ray.train.torch import TorchTrainer
from torch import Tensor

from supmer import storage
from supmer.backbone.load import resolve_backbone
from supmer.config import Config
from supmer.config.load import load_config
from supmer.corpus.prepare import prepare
from supmer.corpus.store import TaskStore
from supmer.meta.group import LocalGroup
from supmer.meta.learner import build_learner
from supmer.meta.record import StepRecord
from supmer.runtime import connect_ray
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train.hang import HangWatch
from supmer.train.loop import Episodes, Request, train
from supmer.train.mailbox import Job, Reporter, open_mailbox
from supmer.train.run_dir import claim, origin_of
from supmer.train.session import RaySession
from supmer.train.stream import local_episodes

BLOCK = 10
QUICKSTART = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"


@dataclass
class Pass:
    """What one pass over the steps gave: its final state, and the seconds of each block."""

    state: dict[str, Tensor]
    plain: list[float] = field(default_factory=list)
    saving: list[float] = field(default_factory=list)


class StopwatchSession(RaySession):
    """The main job's session; asks for a checkpoint at the start of every other block, and notes when steps end."""

    def __init__(self, job: Job, saves: bool) -> None:
        super().__init__(job, 0, 0, Reporter(job.mailbox), HangWatch(float("inf"), print))
        self._saves = saves
        self.ends: list[float] = []

    def record(self, row: StepRecord) -> None:
        super().record(row)
        if row.split == "train":
            self.ends.append(time.perf_counter())

    def request(self) -> Request:
        block, step = divmod(len(self.ends), BLOCK)
        return max(super().request(), Request.SAVE if self._saves and step == 0 and block % 2 else Request.NOTHING)


def main() -> None:
    arguments = _parse()
    with tempfile.TemporaryDirectory() as folder:
        connect_ray(2)
        config = make_config(folder, 2 * BLOCK * arguments.pairs + BLOCK)
        resolved = resolve_backbone(config)
        store_uri = storage.absolute(prepare(resolved))
        passes = [one_pass(config, resolved, store_uri, saves) for saves in (False, True)]
        ray.shutdown()
    without, with_checkpoints = passes
    assert all(torch.equal(without.state[name], with_checkpoints.state[name]) for name in without.state)
    print(describe())
    plain, saving = (statistics.median(times) for times in (with_checkpoints.plain, with_checkpoints.saving))
    print(f"{BLOCK} steps: {plain:.3f} s without, {saving:.3f} s with a checkpoint, {arguments.pairs} of each")
    print(json.dumps({"benchmark": "checkpoint", "overhead": round(saving / plain, 4)}))


def make_config(folder: str, steps: int) -> Config:
    """Return the quickstart's settings on less text; of itself the loop saves at the very end only."""
    places = [f"run.dir={folder}/runs", f"corpus.store_dir={folder}/stores"]
    small = ["corpus.max_documents=1000", "clusters.num_clusters=10"]
    rare = [f"meta.steps={steps}", f"train.checkpoint_every={10 * steps}", f"train.validate_every={10 * steps}"]
    return load_config(QUICKSTART, [*places, *small, *rare, "train.validation_episodes=1"])


def one_pass(config: Config, resolved: Config, store_uri: str, saves: bool) -> Pass:
    """Train from the beginning in a worker of its own."""
    run = config.run.model_copy(update={"name": f"saves-{saves}"})
    _, directory = claim(config.model_copy(update={"run": run}))
    job = Job(resolved, directory, store_uri, origin_of(config, resolved, store_uri), open_mailbox())
    trainer = TorchTrainer(
        partial(timed_worker, job=job, saves=saves),
        run_config=ray.train.RunConfig(storage_path=directory.uri, name="checkpoints"),
    )
    return trainer.fit().return_value


def timed_worker(job: Job, saves: bool) -> Pass:
    """Do what the main job's worker does, on episodes that were built before the clock started."""
    store = TaskStore.open(job.store_uri)
    learner = build_learner(job.config, store.centroids, torch.device("cpu"), LocalGroup())
    sampler = EpisodeSampler(store, TaskVocabulary.of_backbone(job.config.backbone), job.config)
    batches = list(local_episodes(sampler, job.config, range(job.config.meta.steps)))
    validation = {kind: [sampler.validation_episode(kind, 0)] for kind in job.config.tasks.kinds}
    session = StopwatchSession(job, saves)
    train(job.config, learner, Episodes(batches, validation), session)
    session.close()
    ends = session.ends[BLOCK - 1 :: BLOCK]
    blocks = [end - start for start, end in pairwise(ends)]
    return Pass(learner.state_dict(), plain=blocks[1::2], saving=blocks[0::2])


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pairs", type=int, default=6, help="blocks of each kind")
    return parser.parse_args()


if __name__ == "__main__":
    main()
