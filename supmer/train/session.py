"""The loop's surroundings in a Ray Train worker: metrics file, checkpoints, and the post to the driver."""

from __future__ import annotations

from functools import partial

import ray.train
from ray.train import CheckpointUploadMode
from torch import Tensor

import supmer
from supmer import storage
from supmer.train import checkpoint
from supmer.train.mailbox import Correspondent, Progress
from supmer.train.metrics import MetricsLog, MetricsRow
from supmer.train.run_dir import RunDirectory


class RaySession:
    """Implements `supmer.train.loop.Session`. Only rank 0 writes.

    Args:
        directory: the run directory.
        origin: what checkpoints belong to.
        rank: this worker's rank.
        step: meta-steps done so far; rows of later ones are removed from `metrics.jsonl`.
        post: the post to the driver.
    """

    def __init__(
        self, directory: RunDirectory, origin: checkpoint.Origin, rank: int, step: int, post: Correspondent
    ) -> None:
        self._checkpoints = directory.checkpoints
        self._origin = origin
        self._post = post
        self._metrics = MetricsLog(directory.metrics, step) if rank == 0 else None
        self._names = checkpoint.newest_first(directory.checkpoints) if rank == 0 else []

    def record(self, row: MetricsRow) -> None:
        if self._metrics is not None:
            self._metrics.append(row)
            self._post.post(Progress(row))

    def warn(self, text: str) -> None:
        if self._metrics is not None:
            self._post.warn(text)

    def stop_requested(self) -> bool:
        return self._post.stop_requested

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        """Report to Ray Train; a state is serialized here and written by a thread of Ray's while training goes on."""
        if state is None or self._metrics is None:
            ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        self._metrics.sync()
        step = int(metrics["step"])
        name = checkpoint.new_name(self._names, step)
        self._names.append(name)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint(storage.join(self._checkpoints, name)),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=partial(self._write_checkpoint, checkpoint.serialize(state), step),
        )

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()

    def _write_checkpoint(self, state: bytes, step: int, target: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
        """Write the files in our own order, the manifest last, which Ray's copy of a folder would not promise."""
        checkpoint.write(storage.join(self._checkpoints, name), state, step, self._origin, supmer.__version__)
        return target
