"""The loop of one worker: episodes, meta-step, metrics, and validation and checkpoint when they are due.

Nothing here knows of Ray or of files: `Session` is all that the loop needs of the process it runs in.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Protocol

from torch import Tensor

from supmer.config import Config, TaskKind
from supmer.errors import DivergedError
from supmer.meta.learner import Learner
from supmer.meta.record import StepRecord
from supmer.tasks.episode import Episode


class Request(IntEnum):
    """What a session may request of the loop after any meta-step, in rising order."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Session(Protocol):
    """What the loop needs of the process it runs in."""

    def record(self, record: StepRecord) -> None:
        """Keep the record of a step or of a validation."""
        ...

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        """Hand over this step's figures and, on rank 0 where a checkpoint is due, the state; all ranks call it together.

        A key `validation_query_loss` is there where this very state was validated.
        """
        ...

    def warn(self, text: str) -> None:
        """Show the user a warning."""
        ...

    def request(self) -> Request:
        """Return what should happen after this step beyond the plan; of the ranks' requests the greatest counts."""
        ...


@dataclass(frozen=True)
class Episodes:
    """The episodes of each coming meta-step, and those of the validation by kind; the same on all ranks."""

    train: Iterable[list[Episode]]
    validation: dict[TaskKind, list[Episode]]


def train(config: Config, learner: Learner, episodes: Episodes, session: Session) -> bool:
    """Do the meta-steps from `learner.next_step` on; return whether the last one was reached (else: asked to stop).

    Raises:
        DivergedError: more than `train.max_skipped_steps` steps in a row were spoiled by non-finite numbers.
    """
    if learner.next_step == 0:
        session.report({"step": 0, **validate(config, learner, episodes.validation, session)}, None)
    num_skipped, batches, started = 0, iter(episodes.train), time.perf_counter()
    while (batch := next(batches, None)) is not None:
        waited = time.perf_counter() - started
        stepped = learner.step(batch)
        record = replace(stepped, step_seconds=time.perf_counter() - started, data_wait_seconds=waited)
        session.record(record)
        num_skipped = num_skipped + 1 if record.skipped else 0
        if record.skipped:
            what = describe_skipped(record)
            session.warn(what)
            if num_skipped > config.train.max_skipped_steps:
                raise DivergedError(
                    f"train.max_skipped_steps={config.train.max_skipped_steps}: {num_skipped} meta-steps in a row were "
                    f"skipped; lower meta.prompt_lr or meta.inner_lr, or look at the episodes. The last: {what}"
                )
        request = Request(learner.group.all_reduce_max(session.request()))
        is_last = learner.next_step == config.meta.steps
        validates = is_last or learner.next_step % config.train.validate_every == 0
        saves = is_last or request >= Request.SAVE or learner.next_step % config.train.checkpoint_every == 0
        if saves:
            learner.synchronize()
        figures = validate(config, learner, episodes.validation, session) if validates else {}
        if validates or saves:
            metrics = {"step": record.step, "query_loss": record.query_loss, "support_loss": record.support_loss, **figures}
            session.report(metrics, learner.state_dict() if saves and learner.group.rank == 0 else None)
        if request == Request.STOP and not is_last:
            return False
        started = time.perf_counter()
    return True


def validate(
    config: Config, learner: Learner, episodes: dict[TaskKind, list[Episode]], session: Session
) -> dict[str, float]:
    """Score the validation episodes of each kind, record each, and return the query losses by name."""
    started = time.perf_counter()
    scores = {kind: learner.evaluate(own) for kind, own in episodes.items()}
    seconds = (time.perf_counter() - started) / len(scores)
    for score in scores.values():
        session.record(replace(score, step_seconds=seconds))
    losses = {f"validation_query_loss_{kind}": score.query_loss for kind, score in scores.items()}
    return {"validation_query_loss": sum(losses.values()) / len(losses), **losses}


def describe_skipped(record: StepRecord) -> str:
    """Say which numbers of a skipped meta-step are not finite, and how to look at the step alone."""
    slots = ", ".join(map(str, record.spoiled_slots))
    spoiled = f"not finite are its episodes in slots {slots}" if slots else "each of its episodes alone is finite"
    return (
        f"step {record.step} ({record.kind}) is skipped for non-finite numbers: query loss {record.query_loss}, support "
        f"loss {record.support_loss}, gradient norm of the prompt {record.prompt_gradient_norm}, of the regularizer "
        f"{record.regularizer_gradient_norm}; {spoiled}; look at it alone with --replay {record.step}"
    )
