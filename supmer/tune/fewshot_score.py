"""The few-shot objective: how well the state at a rung serves on labelled tasks, measured on their dev rows (section 7)."""

from __future__ import annotations

import contextlib
import logging
import time

from torch import Tensor

from supmer import storage
from supmer.config import Config
from supmer.config.load import with_settings
from supmer.fewshot.cell_runner import CellRunner
from supmer.fewshot.cells import plan_cells
from supmer.fewshot.comparison import prepare_tasks
from supmer.fewshot.starting_points import StartingPoints
from supmer.train import checkpoint
from supmer.train.run_dir import RunDirectory

logger = logging.getLogger(__name__)

SECONDS_TO_CHECKPOINT = 60
REGULARIZER = "regularizer."


def dev_score(config: Config, state: dict[str, Tensor]) -> float:
    """Return the mean dev score over `fewshot.tasks` and `fewshot.seeds`, tuned from a checkpoint's state.

    The regularizer is used where the run trained one. Test rows play no part: of each test set one row is scored, for the
    harness wants some, and the score is dropped.

    Args:
        config: the trial's configuration, its backbone resolved.
        state: what `Learner.state_dict` returned.
    """
    regularizer = {name.removeprefix(REGULARIZER): value for name, value in state.items() if name.startswith(REGULARIZER)}
    method = "supmer" if regularizer else "supmer_no_regularizer"
    config = with_settings(config, {"fewshot.methods": [method], "fewshot.max_test_rows": 1, "fewshot.transfer": False})
    tasks = prepare_tasks(config)
    runner = CellRunner(config, tasks, StartingPoints(prompt=state["prompt"].float(), regularizer=regularizer or None))
    scores = [runner.run(cell).dev_score for cell in plan_cells(config, tasks)]
    return sum(scores) / len(scores)


def state_at(directory: RunDirectory, step: int) -> dict[str, Tensor]:
    """Return the state after `step` meta-steps, waiting for its checkpoint, which is written while training goes on.

    Raises:
        TimeoutError: it did not come, or was gone already.
    """
    give_up = time.monotonic() + SECONDS_TO_CHECKPOINT
    while time.monotonic() < give_up:
        with contextlib.suppress(checkpoint.DamagedCheckpointError, OSError):  # being written, or deleted meanwhile
            name = checkpoint.find_newest(directory.checkpoints, logger.debug, max_step=step)
            found = checkpoint.read(storage.join(directory.checkpoints, name)) if name else None
            if found and found.manifest.step == step:
                return found.state
        time.sleep(0.2)
    raise TimeoutError(f"no checkpoint of meta-step {step} in {directory.checkpoints}")
