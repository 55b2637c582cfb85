"""Settings of a run: its name and place, its workers, what it tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import StringConstraints, field_validator

from supmer.config.section import Section, setting

RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class RunConfig(Section):
    """Where a run lives and the seed of everything in it."""

    name: RunName = setting("supmer", "speed", description="run directory is <run.dir>/<run.name>")
    dir: str = setting("runs", "speed", description="folder that holds the runs")
    seed: int = setting(0, "training", ge=0, description="seed of episodes, initialization, mixing and dropout")
    on_conflict: Literal["refuse", "new", "overwrite"] = setting(
        "refuse",
        "speed",
        description="a run of this name with other settings exists: stop, take the next free name, or delete it",
    )


class TrainConfig(Section):
    """Workers, passes, validation and checkpoints of the main job."""

    workers: int | tuple[int, int] = setting(
        1,
        "speed",
        description="Ray Train workers; [min, max]: as many as the cluster has room for, more or fewer as it changes",
    )
    resize_seconds: float = setting(60, "speed", gt=0, description="seconds between looks for room for more workers")
    cpus_per_worker: float = setting(1, "speed", gt=0, description="CPUs reserved for a worker")
    threads_per_worker: int | None = setting(
        None, "speed", ge=1, description="torch threads; default: CPUs / workers on the node"
    )
    gpus_per_worker: float = setting(0, "speed", ge=0, le=1, description="GPUs reserved for a worker")
    sharding: Literal["none", "full", "hybrid"] = setting(
        "none", "speed", description="`full`: weights split over all workers; `hybrid`: over `shard_size`, replicated across"
    )
    shard_size: int = setting(
        1, "speed", ge=1, description="workers that share one copy with sharding=hybrid (those of a node)"
    )
    max_tokens_per_microbatch: int = setting(8192, "speed", ge=64, description="padded encoder positions per forward pass")
    episode_builders: int = setting(1, "speed", ge=1, description="CPU actors per worker that build episodes")
    cpus_per_builder: float = setting(0.25, "speed", gt=0, description="CPUs reserved for an episode builder")
    prefetch_episodes: int = setting(16, "speed", ge=1, description="episodes built ahead per worker")
    validate_every: int = setting(
        1000, "speed", ge=1, description="meta-steps between validations (also at 0 and at the end)"
    )
    validation_episodes: int = setting(8, "speed", ge=1, description="validation episodes per kind")
    checkpoint_every: int = setting(500, "speed", ge=1, description="meta-steps between checkpoints")
    keep_checkpoints: int = setting(
        2, "speed", ge=1, description="newest checkpoints kept, besides the one that validated best"
    )
    max_failures: int = setting(3, "speed", ge=-1, description="worker failures survived; -1: without limit")
    hang_seconds: float = setting(
        1800,
        "speed",
        ge=1,
        description="a worker that finishes nothing for so long says where it is and starts again",
    )
    max_skipped_steps: int = setting(10, "speed", ge=0, description="steps in a row that non-finite numbers may spoil")

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

    every: int = setting(10, "speed", ge=1, description="meta-steps between values that trackers get")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = setting(
        ["tensorboard"], "speed", description="besides metrics.jsonl"
    )
    project: str = setting("supmer", "speed", min_length=1, description="project (W&B) or experiment (MLflow) of trackers")
    group: str | None = setting(
        None, "speed", description="group of trackers' records; default: of a trial its sweep, of a few-shot cell its run"
    )
    artifacts: bool = setting(False, "speed", description="trackers also keep the prompt and the regularizer")
    level: Literal["debug", "info", "warning", "error"] = setting("info", "speed", description="log level")
