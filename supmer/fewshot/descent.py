"""The optimizer of few-shot tuning: AdamW, a schedule of rates, and a limit on the gradient's norm."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor
from transformers import get_scheduler

from supmer.config import FewshotConfig

logger = logging.getLogger(__name__)

CONSTANT_WITH_WARMUP = "constant_with_warmup"


class Descent:
    """Steps of AdamW along the gradients that parameters hold. A step whose gradient is not finite is skipped, and counted.

    Args:
        groups: parameters and their rate before the schedule.
        settings: steps, schedule, warm-up, weight decay and the limit on the gradient's norm over all parameters.

    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> descent = Descent([([weight], 0.1)], FewshotConfig(steps=2, schedule="linear"))
    >>> for _ in range(2):
    ...     weight.grad = torch.ones(2)
    ...     descent.step()
    >>> weight.detach()  # 0.1, then 0.05
    tensor([0.8500, 0.8500])
    """

    FUSED_ON: ClassVar[tuple[str, ...]] = ("cuda",)
    """Devices that skip a step themselves, so that nobody waits for whether the gradient is finite."""

    def __init__(self, groups: Iterable[tuple[Iterable[Tensor], float]], settings: FewshotConfig) -> None:
        self.groups = [(list(parameters), rate) for parameters, rate in groups]
        self.parameters = [parameter for parameters, _ in self.groups for parameter in parameters]
        self.clip_norm = settings.clip_norm
        self.is_fused = all(parameter.device.type in self.FUSED_ON for parameter in self.parameters)
        self.optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for parameters, rate in self.groups],
            weight_decay=settings.weight_decay,
            fused=self.is_fused or None,
        )
        name = CONSTANT_WITH_WARMUP if settings.schedule == "constant" else settings.schedule
        self.schedule = get_scheduler(
            name, self.optimizer, num_warmup_steps=settings.warmup_steps, num_training_steps=settings.steps
        )
        self.num_steps = 0
        self.num_skipped: Tensor | float = 0.0

    def zero_grad(self) -> None:
        """Forget the gradients."""
        self.optimizer.zero_grad()

    def step(self) -> None:
        """Clip the gradients, take the step, and go on in the schedule."""
        self.num_steps += 1
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        skipped = 1.0 - torch.nn.utils.clip_grad_norm_(self.parameters, limit).isfinite().float()
        self.num_skipped = self.num_skipped + skipped
        if self.is_fused:
            self.optimizer.found_inf = skipped  # type: ignore[attr-defined]  # as torch's GradScaler says it
        elif skipped:
            self.zero_grad()  # parameters without gradients stay as they are
        self.optimizer.step()
        self.schedule.step()

    def report_skipped(self) -> None:
        """Log how many steps were skipped, if any."""
        if self.num_skipped:
            message = "%d of %d steps had a gradient that is not finite and were skipped"
            logger.warning(message, self.num_skipped, self.num_steps)
