"""The record of one meta-step, or of the validation of one kind of task. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class StepRecord:
    """What one meta-step, or the validation of one kind, showed; equal on all ranks.

    Attributes:
        step: meta-steps done: a record `train` of step n is of the n-th step, a record `validation` of the state after n.
        query_loss, support_loss, gate, similarity: means over the episodes.
        mixup_b: the curriculum's b at that step (validation itself never mixes).
        kind: task kind of the meta-batch or of the validation episodes.
        tokens: encoder tokens of text that all ranks passed.
        step_seconds: wall time, waiting included; the kinds of one validation share its time evenly.
        data_wait_seconds: part of it spent waiting for episodes.
        prompt_gradient_norm, regularizer_gradient_norm: outer gradients before clipping; 0 in a validation.
        skipped: a non-finite loss or gradient was met, and no weight was changed.
        spoiled_slots: of a skipped step, the episodes whose own loss or support gradient was not finite.
    """

    step: int
    split: Literal["train", "validation"]
    query_loss: float
    support_loss: float
    gate: float
    similarity: float
    mixup_b: float
    kind: str
    tokens: int
    step_seconds: float = 0.0
    data_wait_seconds: float = 0.0
    prompt_gradient_norm: float = 0.0
    regularizer_gradient_norm: float = 0.0
    skipped: bool = False
    spoiled_slots: tuple[int, ...] = ()
