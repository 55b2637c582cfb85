"""The faults, each a function that does its harm to a run from outside."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
from run_process import RunLostError, RunProcess

from supmer.train import checkpoint

T = TypeVar("T")

WORKER, BUILDER = "RayTrainWorker", "MapWorker"
"""Words in the titles that Ray gives the processes of workers and of the actors that build episodes."""

SECONDS_TO_FIND = 60.0


@dataclass(frozen=True)
class Fault:
    """What is done to a run, and the exit code with which its command then ends (None: it goes on by itself)."""

    inject: Callable[[RunProcess, random.Random], None]
    exit_code: int | None = None


def kill_worker(run: RunProcess, rng: random.Random) -> None:
    _one_of(run, WORKER, rng).kill()


def kill_builder(run: RunProcess, rng: random.Random) -> None:
    _one_of(run, BUILDER, rng).kill()


def stop_worker(run: RunProcess, rng: random.Random) -> None:
    """Let one worker stand still without ending, as a machine does that swaps or has lost its network."""
    _one_of(run, WORKER, rng).suspend()


def kill_driver(run: RunProcess, rng: random.Random) -> None:
    run.signal(signal.SIGKILL)


def terminate(run: RunProcess, rng: random.Random) -> None:
    run.signal(signal.SIGTERM)


def interrupt(run: RunProcess, rng: random.Random) -> None:
    run.signal(signal.SIGINT, group=True)


def damage_newest_checkpoint(run: RunProcess, rng: random.Random) -> None:
    """Cut off, change or lose a file of the newest checkpoint, and kill a worker, so that it is needed."""
    folder = run.folder / "checkpoints"
    newest = folder / checkpoint.newest_first(str(folder))[0]
    file = newest / rng.choice([checkpoint.STATE_FILE, checkpoint.MANIFEST_FILE])
    content = file.read_bytes() if file.exists() else b"?"
    position = rng.randrange(len(content))
    changed = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
    damaged = rng.choice([changed, content[:position], None])
    if damaged is None:
        file.unlink(missing_ok=True)
    else:
        file.write_bytes(damaged)
    kill_worker(run, rng)


def kill_workers_while_a_checkpoint_is_written(run: RunProcess, rng: random.Random) -> None:
    """Wait for the next folder of a checkpoint to appear, and up to some milliseconds more."""
    workers = run.processes(WORKER)
    before = _checkpoints(run)
    _wait_for(lambda: _checkpoints(run) - before)
    time.sleep(rng.uniform(0, 0.004))
    for worker in workers:
        with suppress(psutil.NoSuchProcess):  # one that has ended with the other
            worker.kill()


def kill_driver_while_a_checkpoint_is_written(run: RunProcess, rng: random.Random) -> None:
    before = _checkpoints(run)
    _wait_for(lambda: _checkpoints(run) - before)
    time.sleep(rng.uniform(0, 0.004))
    kill_driver(run, rng)


FAULTS: dict[str, Fault] = {
    "worker killed": Fault(kill_worker),
    "episode builder killed": Fault(kill_builder),
    "worker hangs": Fault(stop_worker),
    "newest checkpoint damaged, worker killed": Fault(damage_newest_checkpoint),
    "workers killed while a checkpoint is written": Fault(kill_workers_while_a_checkpoint_is_written),
    "driver killed": Fault(kill_driver, exit_code=-signal.SIGKILL),
    "driver killed while a checkpoint is written": Fault(
        kill_driver_while_a_checkpoint_is_written, exit_code=-signal.SIGKILL
    ),
    "SIGTERM": Fault(terminate, exit_code=0),
    "Ctrl-C": Fault(interrupt, exit_code=130),
}

MIXTURE = [*FAULTS, *(kind for kind, fault in FAULTS.items() if fault.exit_code is None)]
"""Those that a run survives by itself come twice as often: to start a command again takes longest."""


def _one_of(run: RunProcess, word: str, rng: random.Random) -> psutil.Process:
    return rng.choice(_wait_for(lambda: run.processes(word)))


def _checkpoints(run: RunProcess) -> set[Path]:
    return set((run.folder / "checkpoints").glob("step_*"))


def _wait_for(look: Callable[[], T]) -> T:
    """Look until there is something, and return it."""
    give_up = time.monotonic() + SECONDS_TO_FIND
    while not (found := look()):
        if time.monotonic() > give_up:
            raise RunLostError("nothing was there to be harmed")
    return found
