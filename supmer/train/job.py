"""What the driver tells each worker, and where a worker begins.

Ray's controller holds all of this too and has no use for what it leads to, so nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from supmer.config import Config
from supmer.train.run_dir import RunDirectory


class Origin(BaseModel):
    """What a state belongs to; it cannot be continued with anything else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    config_hash: str
    backbone: dict[str, str | None]
    store_fingerprint: str


@dataclass(frozen=True)
class Job:
    """One run: its settings, where it is kept, what it learns from, and the mailbox that reaches the driver."""

    config: Config
    directory: RunDirectory
    store_uri: str
    origin: Origin
    mailbox: Any


def work(arguments: dict[str, Job]) -> bool:
    """Do one rank's part of the job; return whether the last meta-step was reached."""
    from supmer.train.worker import train_worker

    return train_worker(arguments["job"])
