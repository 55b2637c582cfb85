"""The loop's surroundings in a Ray Train worker: metrics file, checkpoints, and the post to the driver."""

from __future__ import annotations

import math
from functools import partial

import ray.train
from ray.train import CheckpointUploadMode
from torch import Tensor

import supmer
from supmer import storage
from supmer.train import checkpoint
from supmer.train.hang import HangWatch
from supmer.train.job import Job
from supmer.train.loop import Wish
from supmer.train.mailbox import Correspondent, Progress
from supmer.train.metrics import MetricsLog, MetricsRow


class RaySession:
    """Implements `supmer.train.loop.Session`. Only rank 0 writes.

    Args:
        job: the run that this worker is part of.
        rank: this worker's rank.
        step: meta-steps done so far; rows of later ones are removed from `metrics.jsonl`.
        post: the post to the driver.
        watch: is told whenever a row was recorded.
    """

    def __init__(self, job: Job, rank: int, step: int, post: Correspondent, watch: HangWatch) -> None:
        self._post = post
        self._watch = watch
        self._metrics = MetricsLog(job.directory.metrics, step) if rank == 0 else None
        self._checkpoints = _CheckpointWriter(job) if rank == 0 else None
        self._nodes_to_go: set[str] = set()

    def record(self, row: MetricsRow) -> None:
        self._watch.beat()
        if self._metrics is not None:
            self._metrics.append(row)
            self._post.post(Progress(row))

    def warn(self, text: str) -> None:
        if self._metrics is not None:
            self._post.warn(text)

    def wish(self) -> Wish:
        """Tell of the driver's wish to stop, and of nodes that will be taken away; all ranks call it together."""
        wish = Wish.STOP if self._post.stop_requested else Wish.NOTHING
        info = ray.train.get_preemption_info()
        if info is None or self._nodes_to_go.issuperset(info.preempted_node_ids):
            return wish
        self._nodes_to_go.update(info.preempted_node_ids)
        self.warn(f"the nodes of ranks {info.preempted_ranks} will be taken away; saving")
        if self._metrics is not None:
            self._post.flush()  # this worker may be on one of them
        return max(wish, Wish.SAVE)

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        """Report to Ray Train; a state is serialized here and written by a thread of Ray's while training goes on."""
        if state is None or self._metrics is None or self._checkpoints is None:
            ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        self._metrics.sync()
        self._checkpoints.report(metrics, state)

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()


class _CheckpointWriter:
    """Writes checkpoints in Ray's thread for that, and deletes those that need not stay."""

    def __init__(self, job: Job) -> None:
        self._folder = job.directory.checkpoints
        self._origin = job.origin
        # Names first: what is damaged is deleted, and Ray may know it by its name.
        self._names = checkpoint.newest_first(self._folder)
        self._kept = checkpoint.KeptCheckpoints(self._folder, job.config.train.keep_checkpoints)

    def report(self, metrics: dict[str, float], state: dict[str, Tensor]) -> None:
        name = checkpoint.new_name(self._names, int(metrics["step"]))
        self._names.append(name)
        filesystem, path = storage.resolve(storage.join(self._folder, name))
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint(path, filesystem),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=partial(self._write, checkpoint.serialize(state), metrics),
        )

    def _write(
        self, state: bytes, metrics: dict[str, float], target: ray.train.Checkpoint, name: str
    ) -> ray.train.Checkpoint:
        """Write the files in our own order, the manifest last, which Ray's copy of a folder would not promise."""
        loss = metrics.get("validation_query_loss")
        score = loss if loss is not None and math.isfinite(loss) else None
        folder = storage.join(self._folder, name)
        checkpoint.write(folder, state, int(metrics["step"]), self._origin, supmer.__version__, score)
        self._kept.add(name, score)
        return target
