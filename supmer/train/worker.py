"""What one Ray Train worker does: load the model, continue from the newest checkpoint, run the loop, leave the results."""

from __future__ import annotations

import os
from typing import Any

import ray
import ray.train
import ray.train.collective
import ray.train.torch
import torch

from supmer import storage
from supmer.backbone.load import load_tokenizer
from supmer.config import Config
from supmer.corpus.store import TaskStore
from supmer.errors import UserError
from supmer.meta.group import Group, LocalGroup, TorchGroup
from supmer.meta.learner import Learner
from supmer.model.prompted import PromptedSeq2Seq, build_model, initial_prompt
from supmer.model.sharding import build_sharded_model, local_parameter_bytes
from supmer.tasks.sampler import EpisodeSampler
from supmer.tasks.vocabulary import TaskVocabulary
from supmer.train import checkpoint
from supmer.train.hang import HangWatch
from supmer.train.job import Job
from supmer.train.loop import Episodes, share_of, train
from supmer.train.mailbox import Correspondent, Failure, Note
from supmer.train.run_dir import RunDirectory
from supmer.train.session import RaySession
from supmer.train.stream import episode_stream


def train_worker(job: Job) -> bool:
    """Run one rank's part of the job; return whether the last meta-step was reached.

    A mistake of the user ends the run instead of being retried: it is posted to the driver, which stops everything.
    """
    post = Correspondent(job.mailbox)
    if ray.get(job.mailbox.has_failed.remote()):
        return False
    try:
        return _train(job, post)
    except UserError as error:
        post.post(Failure(error))
        return False
    finally:
        post.flush()


def _train(job: Job, post: Correspondent) -> bool:
    config = job.config
    context = ray.train.get_context()
    set_threads(config, context.get_local_world_size())
    device = ray.train.torch.get_device()
    group: Group = TorchGroup(device) if context.get_world_size() > 1 else LocalGroup()
    store = TaskStore.open(job.store_uri)
    learner = build_learner(config, store, device, group)
    if config.train.sharding != "none" and group.rank == 0:
        held = local_parameter_bytes(learner.model) / 2**20
        post.post(Note(f"each worker holds {held:.2f} MiB of the backbone's weights"))
    _restore(learner, job, post)
    # Only now: a backbone may be on its way for longer than any step takes.
    watch = HangWatch(config.train.hang_seconds, lambda where: post.warn_at_once(f"worker {group.rank} hangs: {where}"))
    session = RaySession(job, group.rank, learner.next_step, post, watch)
    steps_left = config.meta.steps - learner.next_step
    slots = share_of(config.meta.tasks_per_step, group.rank, group.size)
    with watch, episode_stream(job.store_uri, config, learner.next_step, slots, steps_left) as stream:
        is_complete = train(config, learner, Episodes(stream, _validation_episodes(config, store, group)), session)
    if is_complete and group.rank == 0:
        _write_results(learner, job.directory)
    session.close()
    return is_complete


def build_learner(config: Config, store: TaskStore, device: torch.device, group: Group) -> Learner:
    """Return the learner as it is before the first meta-step."""
    model = _build_model(config, store, device)
    prompt = initial_prompt(config.prompt, model, config.run.seed)
    return Learner(config, model, prompt, group, lockstep=config.train.sharding != "none")


def _build_model(config: Config, store: TaskStore, device: torch.device) -> PromptedSeq2Seq:
    if config.train.sharding == "none":
        return build_model(config, store.centroids).to(device)
    return build_sharded_model(config, torch.from_numpy(store.centroids), device)


def set_threads(config: Config, workers_on_node: int) -> None:
    """Share the node's cores among its workers; Ray itself would leave each worker one thread."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(config.train.threads_per_worker or max(1, cores // workers_on_node))


def _restore(learner: Learner, job: Job, post: Correspondent) -> None:
    """Load the newest whole checkpoint, which rank 0 chooses for all.

    Raises:
        UserError: it belongs to other settings, another backbone or another store, or to a newer format.
    """
    folder = job.directory.checkpoints
    is_first = learner.group.rank == 0
    name = ray.train.collective.broadcast_from_rank_zero(checkpoint.find_newest(folder, post.warn) if is_first else None)
    if name is None:
        return
    learner.load_state_dict(checkpoint.read_for(job.origin, storage.join(folder, name)).state)
    if is_first:
        workers = f"{learner.group.size} worker{'s' * (learner.group.size > 1)}"
        post.post(Note(f"continuing after step {learner.next_step} from {name} with {workers}"))


def _validation_episodes(config: Config, store: TaskStore, group: Group) -> dict[Any, Any]:
    sampler = EpisodeSampler(store, TaskVocabulary.from_tokenizer(load_tokenizer(config.backbone)), config)
    indices = share_of(config.train.validation_episodes, group.rank, group.size)
    return {kind: [sampler.validation_episode(kind, index) for index in indices] for kind in config.tasks.kinds}


def _write_results(learner: Learner, directory: RunDirectory) -> None:
    """Write `prompt.safetensors` and, unless it is switched off, `regularizer.safetensors`."""
    prompt = {"prompt": learner.prompt.detach().float()}
    storage.write_bytes(directory.prompt, checkpoint.serialize(prompt))
    if learner.regularizer is not None:
        storage.write_bytes(directory.regularizer, checkpoint.serialize(learner.regularizer.state_dict()))
