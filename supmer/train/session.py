"""What the loop needs of a Ray Train worker: metrics file, checkpoints, and messages to the driver."""

from __future__ import annotations

import math

import ray.train
from ray.train import CheckpointUploadMode
from torch import Tensor

import supmer
from supmer import storage
from supmer.meta.record import StepRecord
from supmer.train import checkpoint
from supmer.train.hang import HangWatch
from supmer.train.loop import Request
from supmer.train.mailbox import Job, Reporter
from supmer.train.metrics import MetricsLog


class RaySession:
    """Implements `supmer.train.loop.Session`. Only rank 0 writes.

    Args:
        job: the run that this worker is part of.
        rank: this worker's rank.
        step: meta-steps done so far; rows of later ones are removed from `metrics.jsonl`.
        reporter: sends to the driver.
        watch: gets a beat whenever something was recorded.
    """

    def __init__(self, job: Job, rank: int, step: int, reporter: Reporter, watch: HangWatch) -> None:
        self._job, self._reporter, self._watch = job, reporter, watch
        self._nodes_to_go: set[str] = set()
        self._metrics = MetricsLog(job.directory.metrics, step) if rank == 0 else None
        if rank == 0:
            # Names first: what is damaged is deleted, and Ray may know it by its name.
            self._names = checkpoint.newest_first(job.directory.checkpoints)
            self._kept = checkpoint.KeptCheckpoints(job.directory.checkpoints, job.config.train.keep_checkpoints)

    def record(self, record: StepRecord) -> None:
        self._watch.beat()
        if self._metrics is not None:
            self._metrics.append(record)
            self._reporter.send(record)

    def warn(self, text: str) -> None:
        if self._metrics is not None:
            self._reporter.warn(text)

    def request(self) -> Request:
        """Return the driver's request to stop, or that to save before nodes are taken away; all ranks call it together."""
        request = Request.STOP if self._reporter.stop_requested else Request.NOTHING
        info = ray.train.get_preemption_info()
        if info is None or self._nodes_to_go.issuperset(info.preempted_node_ids):
            return request
        self._nodes_to_go.update(info.preempted_node_ids)
        self.warn(f"the nodes of ranks {info.preempted_ranks} will be taken away; saving")
        if self._metrics is not None:
            self._reporter.flush()  # this worker may be on one of them
        return max(request, Request.SAVE)

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        """Report to Ray Train; a state is serialized here and written by a thread of Ray's while training goes on."""
        if state is None or self._metrics is None:
            ray.train.report(metrics, checkpoint_upload_mode=CheckpointUploadMode.ASYNC)
            return
        self._metrics.sync()
        step, loss, content = int(metrics["step"]), metrics.get("validation_query_loss"), checkpoint.serialize(state)
        score = loss if loss is not None and math.isfinite(loss) else None
        name = checkpoint.new_name(self._names, step)
        self._names.append(name)
        folder, origin = storage.join(self._job.directory.checkpoints, name), self._job.origin

        def write(target: ray.train.Checkpoint, name: str) -> ray.train.Checkpoint:
            """Write the files in our own order, the manifest last, which Ray's copy of a folder would not promise."""
            checkpoint.write(folder, content, step, origin, supmer.__version__, score)
            self._kept.add(name, score)
            return target

        filesystem, path = storage.resolve(folder)
        ray.train.report(
            metrics,
            checkpoint=ray.train.Checkpoint(path, filesystem),
            checkpoint_dir_name=name,
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            delete_local_checkpoint_after_upload=False,
            checkpoint_upload_fn=write,
        )

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()
