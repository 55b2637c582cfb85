"""TensorBoard, Weights & Biases and MLflow, through accelerate's trackers, fed by the driver."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, TensorBoardTracker, get_available_trackers
from accelerate.utils import LoggerType
from typing_extensions import Self

from supmer import storage
from supmer.config import Config
from supmer.errors import UserError
from supmer.train.metrics import MetricsRow
from supmer.train.run_dir import RunDirectory


class Trackers:
    """Sends rows to the trackers of `log.trackers`: validations and every `log.every`-th meta-step."""

    def __init__(self, config: Config, directory: RunDirectory) -> None:
        self._every = config.log.every
        self._uri = directory.uri
        self._trackers = [_start(name, config, directory) for name in config.log.trackers]

    def log(self, row: MetricsRow) -> None:
        if row.split == "train" and row.step % self._every:
            return
        values = {
            f"{row.split}/{row.kind}/query_loss": row.query_loss,
            f"{row.split}/{row.kind}/support_loss": row.support_loss,
            f"{row.split}/gate": row.gate,
            f"{row.split}/similarity": row.similarity,
        }
        if row.split == "train":
            values |= {
                "train/mixup_b": row.mixup_b,
                "speed/tokens_per_second": row.tokens / row.step_seconds,
                "speed/step_seconds": row.step_seconds,
                "speed/data_wait_seconds": row.data_wait_seconds,
            }
        with storage.explained(self._uri, "written"):
            for tracker in self._trackers:
                tracker.log(values, step=row.step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with storage.explained(self._uri, "written"):
            for tracker in self._trackers:
                tracker.finish()


def _start(name: str, config: Config, directory: RunDirectory) -> Any:
    """Start one tracker; TensorBoard's event files go into the run directory.

    Raises:
        UserError: its package is not installed.
    """
    if LoggerType(name) not in get_available_trackers():
        raise UserError(f"log.trackers={name}: the package {name} is not installed")
    if name == "tensorboard":
        tracker = TensorBoardTracker("tensorboard", logging_dir=directory.uri)
    else:
        tracker = LOGGER_TYPE_TO_CLASS[name](config.run.name)
    tracker.start()
    return tracker
