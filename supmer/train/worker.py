"""What one Ray Train worker does: load the model, continue from the newest checkpoint, run the loop, leave the results."""

from __future__ import annotations

import os

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch

from supmer import storage
from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.meta.group import Group, LocalGroup, TorchGroup
from supmer.meta.learner import Learner, build_learner
from supmer.model.sharding import local_parameter_bytes
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train import checkpoint
from supmer.train.hang import HangWatch
from supmer.train.loop import Episodes, train
from supmer.train.mailbox import Job, Note, Reporter
from supmer.train.session import RaySession
from supmer.train.stream import EpisodeStream


def train_worker(job: Job) -> bool:
    """Run one rank's part of the job; return whether the last meta-step was reached.

    A mistake of the user ends the run instead of being retried: the driver receives it and stops everything.
    """
    reporter = Reporter(job.mailbox)
    if ray.get(job.mailbox.has_failed.remote()):
        return False
    try:
        return _train(job, reporter)
    except UserError as error:
        reporter.send(error)
        return False
    finally:
        reporter.flush()


def _train(job: Job, reporter: Reporter) -> bool:
    config = job.config
    context = ray.train.get_context()
    set_threads(config, context.get_local_world_size())
    device = ray.train.torch.get_device()
    group: Group = TorchGroup(device) if context.get_world_size() > 1 else LocalGroup()
    store = TaskStore.open(job.store_uri)
    if group.rank == 0:
        reporter.begin(f"loading the backbone {config.backbone.name}")
    learner = build_learner(config, store.centroids, device, group)
    if config.train.sharding != "none" and group.rank == 0:
        held = local_parameter_bytes(learner.model) / 2**20
        reporter.send(Note(f"each worker holds {held:.2f} MiB of the backbone's weights"))
    _restore(learner, job, reporter)
    # Only now: a backbone may be on its way for longer than any step takes.
    watch = HangWatch(config.train.hang_seconds, lambda where: reporter.warn_at_once(f"worker {group.rank} hangs: {where}"))
    session = RaySession(job, group.rank, learner.next_step, reporter, watch)
    steps = range(learner.next_step, config.meta.steps)
    vocabulary = TaskVocabulary.of_backbone(config.backbone)
    sampler, indices = EpisodeSampler(store, vocabulary, config), range(config.train.validation_episodes)
    validation = {kind: [sampler.validation_episode(kind, index) for index in indices] for kind in config.tasks.kinds}
    if group.rank == 0:
        reporter.begin("building the first episodes")
    with watch, EpisodeStream(job.store_uri, vocabulary, config, steps) as stream:
        is_complete = train(config, learner, Episodes(stream, validation), session)
    if is_complete and group.rank == 0:
        prompt = {"prompt": learner.prompt.detach().float()}
        storage.write_bytes(job.directory.prompt, checkpoint.serialize(prompt))
        if learner.regularizer is not None:
            storage.write_bytes(job.directory.regularizer, checkpoint.serialize(learner.regularizer.state_dict()))
    session.close()
    return is_complete


def set_threads(config: Config, workers_on_node: int) -> None:
    """Divide the node's cores among its workers; Ray itself would leave each worker one thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(config.train.threads_per_worker or max(1, cores // workers_on_node))


def _restore(learner: Learner, job: Job, reporter: Reporter) -> None:
    """Load the newest whole checkpoint, which rank 0 chooses for all.

    Raises:
        UserError: it belongs to other settings, another backbone or another store, or to a newer format.
    """
    folder = job.directory.checkpoints
    is_first = learner.group.rank == 0
    name = ray.train.collective.broadcast_from_rank_zero(checkpoint.find_newest(folder, reporter.warn) if is_first else None)
    if name is None:
        return
    learner.load_state_dict(checkpoint.read_for(job.origin, storage.join(folder, name)).state)
    if is_first:
        workers = f"{learner.group.size} worker{'s' * (learner.group.size > 1)}"
        reporter.send(Note(f"continuing after step {learner.next_step} from {name} with {workers}"))
