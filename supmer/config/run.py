"""Settings of a run: its name and place, its workers, what it tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints, field_validator

from supmer.config.section import Section, setting

RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class RunConfig(Section):
    """Where a run lives and the seed of everything in it."""

    name: RunName = setting("supmer", "speed", "run directory is <run.dir>/<run.name>")
    dir: str = setting("runs", "speed", "folder that holds the runs")
    seed: int = setting(0, "training", "seed of episodes, initialization, mixing and dropout", ge=0)
    on_conflict: Literal["refuse", "new", "overwrite"] = setting(
        "refuse", "speed", "a run of this name with other settings exists: stop, take the next free name, or delete it"
    )


class TrainConfig(Section):
    """Workers, passes, validation and checkpoints of the main job."""

    workers: int | tuple[int, int] = setting(
        1, "speed", "Ray Train workers; [min, max]: as many as the cluster has room for, more or fewer as it changes"
    )
    resize_seconds: float = setting(60, "speed", "seconds between looks for room for more workers", gt=0)
    cpus_per_worker: float = setting(1, "speed", "CPUs reserved for a worker", gt=0)
    threads_per_worker: int | None = setting(None, "speed", "torch threads; default: CPUs / workers on the node", ge=1)
    gpus_per_worker: float = setting(0, "speed", "GPUs reserved for a worker", ge=0, le=1)
    sharding: Literal["none", "full", "hybrid"] = setting(
        "none", "speed", "`full`: weights split over all workers; `hybrid`: over `shard_size`, replicated across"
    )
    shard_size: int = setting(1, "speed", "workers that share one copy with sharding=hybrid (those of a node)", ge=1)
    max_tokens_per_microbatch: int = setting(8192, "speed", "padded encoder positions per forward pass", ge=64)
    episode_builders: int = setting(1, "speed", "CPU actors per worker that build episodes", ge=1)
    cpus_per_builder: float = setting(0.25, "speed", "CPUs reserved for an episode builder", gt=0)
    prefetch_episodes: int = setting(16, "speed", "episodes built ahead per worker", ge=1)
    validate_every: int = setting(1000, "speed", "meta-steps between validations (also at 0 and at the end)", ge=1)
    validation_episodes: int = setting(8, "speed", "validation episodes per kind", ge=1)
    checkpoint_every: int = setting(500, "speed", "meta-steps between checkpoints", ge=1)
    keep_checkpoints: int = setting(2, "speed", "newest checkpoints kept, besides the one that validated best", ge=1)
    max_failures: int = setting(3, "speed", "worker failures survived; -1: without limit", ge=-1)
    hang_seconds: float = setting(
        1800, "speed", "a worker that finishes nothing for so long says where, and starts again", ge=1
    )
    max_skipped_steps: int = setting(10, "speed", "steps in a row that non-finite numbers may spoil", ge=0)

    @field_validator("workers", mode="before")
    @classmethod
    def check_workers(cls, value: object) -> int | tuple[int, int]:
        match value:
            case int(number) if number >= 1 and value is not True:
                return number
            case [int(least), int(most)] if 1 <= least <= most:
                return least, most
        raise ValueError("must be a number of at least 1, or [min, max] with 1 <= min <= max")

    @property
    def is_elastic(self) -> bool:
        """Whether the number of workers may change while the run goes on."""
        return not isinstance(self.workers, int)

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[0]

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers[1]


class LogConfig(Section):
    """Progress and trackers."""

    every: int = setting(10, "speed", "meta-steps between values that trackers get", ge=1)
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = setting(["tensorboard"], "speed", "besides metrics.jsonl")
    project: str = setting("supmer", "speed", "project (W&B) or experiment (MLflow) of trackers", min_length=1)
    group: str | None = setting(None, "speed", "of trackers' records; default: of a trial its sweep, of a cell its run")
    artifacts: bool = setting(False, "speed", "trackers also keep the prompt and the regularizer")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "speed", "log level")
