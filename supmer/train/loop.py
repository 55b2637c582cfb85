"""The loop of one worker: episodes, meta-step, metrics, and validation and checkpoint when they are due.

Nothing here knows of Ray or of files: `Session` is all that the loop asks of its surroundings.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Protocol

from torch import Tensor

from supmer.config import Config, TaskKind
from supmer.errors import DivergedError
from supmer.meta.curriculum import mixup_b
from supmer.meta.learner import Learner, StepReport
from supmer.tasks.episode import Episode
from supmer.train.metrics import MetricsRow


class Wish(IntEnum):
    """What the surroundings may ask of the loop after any meta-step, in rising order."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class Session(Protocol):
    """What the loop needs of the process it runs in."""

    def record(self, row: MetricsRow) -> None:
        """Keep one row of metrics."""
        ...

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        """Hand over this step's figures and, on rank 0 where a checkpoint is due, the state; all ranks call it together.

        A key `validation_query_loss` is there where this very state was validated.
        """
        ...

    def warn(self, text: str) -> None:
        """Tell the user what they should know."""
        ...

    def wish(self) -> Wish:
        """Tell what should happen after this step beyond the plan; of the ranks' wishes the greatest counts."""
        ...


@dataclass(frozen=True)
class Episodes:
    """This rank's share: batches of the coming meta-steps, and the validation episodes of each kind."""

    train: Iterable[list[Episode]]
    validation: dict[TaskKind, list[Episode]]


def train(config: Config, learner: Learner, episodes: Episodes, session: Session) -> bool:
    """Do the meta-steps from `learner.next_step` on; return whether the last one was reached (else: asked to stop).

    Raises:
        DivergedError: more than `train.max_skipped_steps` steps in a row were spoiled by non-finite numbers.
    """
    if learner.next_step == 0:
        session.report({"step": 0, **validate(config, learner, episodes.validation, session)}, None)
    watch = SkipWatch(config.train.max_skipped_steps, session)
    for batch, waited, started in _timed(episodes.train):
        report = learner.step(batch)
        row = MetricsRow(
            step=learner.next_step,
            split="train",
            kind=batch[0].kind,
            mixup_b=report.mixup_b,
            step_seconds=time.perf_counter() - started,
            data_wait_seconds=waited,
            **asdict(report.means),
        )
        session.record(row)
        watch.see(report, row)
        wish = Wish(learner.group.all_reduce_max(session.wish()))
        is_last = learner.next_step == config.meta.steps
        validates = is_last or learner.next_step % config.train.validate_every == 0
        saves = is_last or wish >= Wish.SAVE or learner.next_step % config.train.checkpoint_every == 0
        figures = validate(config, learner, episodes.validation, session) if validates else {}
        if validates or saves:
            metrics = {"step": row.step, "query_loss": row.query_loss, "support_loss": row.support_loss, **figures}
            session.report(metrics, learner.state_dict() if saves and learner.group.rank == 0 else None)
        if wish == Wish.STOP and not is_last:
            return False
    return True


def validate(
    config: Config, learner: Learner, episodes: dict[TaskKind, list[Episode]], session: Session
) -> dict[str, float]:
    """Score the validation episodes of each kind, record a row for each, and return the query losses by name."""
    started = time.perf_counter()
    means = {kind: learner.evaluate(share) for kind, share in episodes.items()}
    seconds = (time.perf_counter() - started) / len(means)
    b = mixup_b(learner.similarity, config.curriculum)
    for kind, mean in means.items():
        row = MetricsRow(
            step=learner.next_step,
            split="validation",
            kind=kind,
            mixup_b=b,
            step_seconds=seconds,
            data_wait_seconds=0.0,
            **asdict(mean),
        )
        session.record(row)
    losses = {f"validation_query_loss_{kind}": mean.query_loss for kind, mean in means.items()}
    return {"validation_query_loss": sum(losses.values()) / len(losses), **losses}


def share_of(num_items: int, rank: int, num_ranks: int) -> list[int]:
    """Deal items to ranks; together the ranks have each item once, whatever their number."""
    return list(range(rank, num_items, num_ranks))


class SkipWatch:
    """Warns of each skipped meta-step and ends the run when too many follow each other."""

    def __init__(self, limit: int, session: Session) -> None:
        self._limit = limit
        self._session = session
        self._in_a_row = 0

    def see(self, report: StepReport, row: MetricsRow) -> None:
        self._in_a_row = self._in_a_row + 1 if report.skipped else 0
        if not report.skipped:
            return
        what = (
            f"step {row.step} ({row.kind}) is skipped for non-finite numbers: query loss {row.query_loss}, support loss "
            f"{row.support_loss}, gradient norm of the prompt {report.prompt_gradient_norm}, of the regularizer "
            f"{report.regularizer_gradient_norm}; {_episodes(report)}; look at it alone with --replay {row.step}"
        )
        self._session.warn(what)
        if self._in_a_row > self._limit:
            raise DivergedError(
                f"train.max_skipped_steps={self._limit}: {self._in_a_row} meta-steps in a row were skipped; lower "
                f"meta.prompt_lr or meta.inner_lr, or look at the episodes. The last: {what}"
            )


def _episodes(report: StepReport) -> str:
    """Name the episodes that spoiled a step; step and slot are what an episode is drawn by."""
    if not report.spoiled_slots:
        return "each of its episodes alone is finite"
    return f"not finite are its episodes in slots {', '.join(map(str, report.spoiled_slots))}"


def _timed(batches: Iterable[list[Episode]]) -> Iterator[tuple[list[Episode], float, float]]:
    """Yield each batch with the seconds waited for it and the time at which its meta-step began."""
    iterator = iter(batches)
    while True:
        started = time.perf_counter()
        batch = next(iterator, None)
        if batch is None:
            return
        yield batch, time.perf_counter() - started, started
