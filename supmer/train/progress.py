"""Progress on the terminal: one clean line now and then, from the driver."""

from __future__ import annotations

import logging
from collections import deque
from datetime import timedelta

from supmer.config import Config
from supmer.train.metrics import MetricsRow

logger = logging.getLogger(__name__)

STEPS_OF_RATE = 50
"""Meta-steps over which speed is averaged."""


class ProgressLines:
    """Logs a line every `every` meta-steps and one for each validation."""

    def __init__(self, config: Config) -> None:
        self._num_steps = config.meta.steps
        self._num_kinds = len(config.tasks.kinds)
        self._every = config.log.every
        self._recent: deque[MetricsRow] = deque(maxlen=STEPS_OF_RATE)
        self._validation: list[MetricsRow] = []

    def show(self, row: MetricsRow) -> None:
        if row.split == "validation":
            self._validation.append(row)
            self._show_validation()
            return
        self._recent.append(row)
        if row.step % self._every == 0 or row.step == self._num_steps:
            logger.info("%s", self._train_line(row))

    def _show_validation(self) -> None:
        """Log a validation once the rows of all kinds have come in."""
        if len(self._validation) == self._num_kinds:
            losses = "  ".join(f"{row.kind} {row.query_loss:.4f}" for row in self._validation)
            logger.info("step %d/%d  validation query loss  %s", self._validation[0].step, self._num_steps, losses)
            self._validation = []

    def _train_line(self, row: MetricsRow) -> str:
        seconds = sum(recent.step_seconds for recent in self._recent)
        tokens = sum(recent.tokens for recent in self._recent) / seconds
        left = timedelta(seconds=round(seconds / len(self._recent) * (self._num_steps - row.step)))
        return (
            f"step {row.step}/{self._num_steps}  {row.kind:4}  query {row.query_loss:.4f}  support {row.support_loss:.4f}  "
            f"gate {row.gate:.3f}  similarity {row.similarity:.3f}  {tokens:,.0f} tokens/s  {left} left"
        )
