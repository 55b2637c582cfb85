"""Settings of a run: its name and place, its workers, what it tells."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, field_validator

from supmer.config.section import Section

RunName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class RunConfig(Section):
    """Where a run lives and the seed of everything in it."""

    name: RunName = Field("supmer", description="run directory is <run.dir>/<run.name>")
    dir: str = Field("runs", description="folder that holds the runs")
    seed: int = Field(0, ge=0, description="seed of episodes, initialization, mixing and dropout")
    on_conflict: Literal["refuse", "new", "overwrite"] = Field(
        "refuse", description="a run of this name with other settings exists: stop, take the next free name, or delete it"
    )


class TrainConfig(Section):
    """Workers, passes, validation and checkpoints of the main job."""

    workers: int | tuple[int, int] = Field(
        1,
        description="Ray Train workers; [min, max]: as many as the cluster has room for, more or fewer as it changes",
    )
    resize_seconds: float = Field(60, gt=0, description="seconds between looks for room for more workers")
    cpus_per_worker: float = Field(1, gt=0, description="CPUs reserved for a worker")
    threads_per_worker: int | None = Field(None, ge=1, description="torch threads; default: CPUs / workers on the node")
    gpus_per_worker: float = Field(0, ge=0, le=1, description="GPUs reserved for a worker")
    sharding: Literal["none", "full", "hybrid"] = Field(
        "none", description="`full`: weights split over all workers; `hybrid`: over `shard_size`, replicated across"
    )
    shard_size: int = Field(1, ge=1, description="workers that share one copy with sharding=hybrid (those of a node)")
    max_tokens_per_microbatch: int = Field(8192, ge=64, description="padded encoder positions per forward pass")
    episode_builders: int = Field(1, ge=1, description="CPU actors per worker that build episodes")
    cpus_per_builder: float = Field(0.25, gt=0, description="CPUs reserved for an episode builder")
    prefetch_episodes: int = Field(16, ge=1, description="episodes built ahead per worker")
    validate_every: int = Field(1000, ge=1, description="meta-steps between validations (also at 0 and at the end)")
    validation_episodes: int = Field(8, ge=1, description="validation episodes per kind")
    checkpoint_every: int = Field(500, ge=1, description="meta-steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept, besides the one that validated best")
    max_failures: int = Field(3, ge=-1, description="worker failures survived; -1: without limit")
    hang_seconds: float = Field(
        1800,
        ge=1,
        description="a worker that finishes nothing for so long says where it is and starts again",
    )
    max_skipped_steps: int = Field(10, ge=0, description="steps in a row that non-finite numbers may spoil")

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

    every: int = Field(10, ge=1, description="meta-steps between progress lines")
    trackers: list[Literal["tensorboard", "wandb", "mlflow"]] = Field(["tensorboard"], description="besides metrics.jsonl")
    level: Literal["debug", "info", "warning", "error"] = Field("info", description="log level")
