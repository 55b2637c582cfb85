"""Trackers of `log.trackers`, through accelerate: TensorBoard in the run directory, Weights & Biases, MLflow.

The project is `log.project`, a record has the name of its run, and runs that belong together share a group.
Where records are kept, and offline modes, are up to the clients' own variables (``WANDB_MODE``, ``MLFLOW_TRACKING_URI``).
"""

from __future__ import annotations

import importlib
import json
import logging
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from accelerate import PartialState
from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker, get_available_trackers
from accelerate.utils import LoggerType

from supmer import storage
from supmer.config import Config
from supmer.errors import one_line, setting_error

logger = logging.getLogger(__name__)

RECORDS_FILE = "trackers.json"
"""Which record of each tracker a run has, so that a continued run continues it."""

CLIENT_ERRORS = {"wandb": ("wandb.errors", "Error"), "mlflow": ("mlflow.exceptions", "MlflowException")}
"""Module and class of what a client raises when its service does not answer, or does not let anybody in."""


class Tracked(NamedTuple):
    """What the trackers record as one run.

    Args:
        name: what it is called.
        group: what runs that belong together share.
        folder: run directory, or the folder of a cell in one; TensorBoard's event files go there.
        settings: settings by dotted name, sent once.
        continues: whether the next process with this folder goes on with the same record.
    """

    name: str
    group: str | None
    folder: str
    settings: Mapping[str, Any]
    continues: bool = False


class Trackers:
    """The records of one run. A service that fails later is left out with a warning: it must not end a run.

    Raises:
        UserError: a tracker's package is not installed, its service refuses, or its files cannot be written.
    """

    def __init__(self, config: Config, tracked: Tracked) -> None:
        self._config, self._tracked = config, tracked
        path = storage.join(tracked.folder, RECORDS_FILE)
        known = json.loads(storage.read_bytes(path)) if tracked.continues and storage.exists(path) else {}
        self._trackers: dict[str, Any] = {}
        for name in config.log.trackers:
            self._trackers[name], record = self._start(name, known.get(name))
            if record is not None:
                known[name] = record
        if tracked.continues and known:
            storage.write_bytes(path, json.dumps(known).encode())

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name in list(self._trackers):
            self._guarded(name, lambda tracker: tracker.log(dict(values), step=step))

    def finish(self, artifacts: Sequence[str] = ()) -> None:
        """Close the records; keep files in them where `log.artifacts` asks for it."""

        def close(tracker: Any) -> None:
            keeps = self._config.log.artifacts and not isinstance(tracker, TensorBoardTracker)
            with tempfile.TemporaryDirectory() as folder:
                for uri in filter(storage.exists, artifacts if keeps else ()):
                    file = Path(folder, posixpath.basename(uri.partition("?")[0]))
                    file.write_bytes(storage.read_bytes(uri))
                    if isinstance(tracker, MLflowTracker):
                        tracker.log_artifact(str(file))
                    else:
                        name = f"{self._tracked.name}-{file.stem}"
                        tracker.tracker.log_artifact(str(file), name=name, type=file.stem)
            tracker.finish()

        for name in list(self._trackers):
            self._guarded(name, close)

    def _start(self, name: str, record: str | None) -> tuple[Any, str | None]:
        """Start a tracker, with all settings where its record is new; return it and the record's identifier."""
        if LoggerType(name) not in get_available_trackers():
            raise setting_error("log.trackers", name, f"its client is not installed: pip install 'supmer[{name}]'")
        PartialState(cpu=True)  # accelerate's trackers ask it whether this is the main process
        run, project, is_new = self._tracked, self._config.log.project, record is None
        if name == "wandb":
            record = record or uuid4().hex[:8]
            tracker: Any = WandBTracker(project, name=run.name, group=run.group, id=record, resume="allow")
        elif name == "mlflow":
            tags = {"group": run.group} if run.group else None
            tracker = MLflowTracker(project, run_id=record, run_name=run.name, tags=tags)
        else:
            is_new = not storage.exists(storage.join(run.folder, "tensorboard"))
            tracker = TensorBoardTracker("tensorboard", logging_dir=run.folder)
        try:
            with storage.explained(run.folder, "written"):
                tracker.start()
                plain = {
                    setting: value if isinstance(value, bool | int | float) else str(value)
                    for setting, value in run.settings.items()
                }
                if is_new and name == "tensorboard":  # accelerate's way adds a second run to the list
                    lines = (f"    {setting}: {value}" for setting, value in plain.items())
                    tracker.tracker.add_text("settings", "\n".join(lines))
                elif is_new:
                    tracker.store_init_configuration(plain)
        except _client_errors(name) as error:
            raise setting_error("log.trackers", name, one_line(error)) from error
        return tracker, tracker.tracker.info.run_id if name == "mlflow" else record

    def _guarded(self, name: str, act: Any) -> None:
        try:
            with storage.explained(self._tracked.folder, "written"):
                act(self._trackers[name])
        except _client_errors(name) as error:
            del self._trackers[name]
            logger.warning("%s failed and gets nothing more of this run: %s", name, one_line(error))


def _client_errors(name: str) -> tuple[type[Exception], ...]:
    if name not in CLIENT_ERRORS:
        return ()
    module, error = CLIENT_ERRORS[name]
    return (getattr(importlib.import_module(module), error),)
