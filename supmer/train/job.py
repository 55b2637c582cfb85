"""What the driver tells each worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from supmer.config import Config
from supmer.train.checkpoint import Origin
from supmer.train.run_dir import RunDirectory


@dataclass(frozen=True)
class Job:
    """One run: its settings, where it is kept, what it learns from, and the mailbox that reaches the driver."""

    config: Config
    directory: RunDirectory
    store_uri: str
    origin: Origin
    mailbox: Any
