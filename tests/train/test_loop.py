"""The worker's loop: what is due when, and that an interruption changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from factories import random_episode, random_episodes, random_prompt, tiny_model
from torch import Tensor

from supmer.config import Config
from supmer.config.load import load_config
from supmer.errors import DivergedError
from supmer.meta.learner import Learner
from supmer.meta.record import StepRecord
from supmer.tasks.episode import Episode
from supmer.train import checkpoint
from supmer.train.loop import Episodes, Request, train


class Notebook:
    """A session that keeps everything in memory."""

    def __init__(self, stop_after: int | None = None, save_after: int | None = None) -> None:
        self.rows: list[StepRecord] = []
        self.reports: list[dict[str, float]] = []
        self.saved: dict[int, bytes] = {}
        self.warnings: list[str] = []
        self._stop_after = stop_after
        self._save_after = save_after

    def record(self, row: StepRecord) -> None:
        self.rows.append(row)

    def report(self, metrics: dict[str, float], state: dict[str, Tensor] | None) -> None:
        self.reports.append(metrics)
        if state is not None:
            self.saved[int(metrics["step"])] = checkpoint.serialize(state)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def request(self) -> Request:
        num_steps = len(self.steps("train"))
        if self._stop_after is not None and num_steps >= self._stop_after:
            return Request.STOP
        return Request.SAVE if num_steps == self._save_after else Request.NOTHING

    def steps(self, split: str) -> list[int]:
        return [row.step for row in self.rows if row.split == split]


def config(*overrides: str) -> Config:
    fixed = [
        "prompt.length=5",
        "meta.tasks_per_step=2",
        "meta.steps=7",
        "train.validate_every=3",
        "train.checkpoint_every=2",
    ]
    return load_config(None, [*fixed, "regularizer.rank=4", "tasks.kinds=[nsp]", *overrides])


def learner(settings: Config) -> Learner:
    return Learner(settings, tiny_model(dropout=settings.backbone.dropout), random_prompt())


def episodes(settings: Config, start: int = 0) -> Episodes:
    def batches() -> Iterator[list[Episode]]:
        for step in range(start, settings.meta.steps):
            yield [random_episode(1, step=step, slot=slot) for slot in range(settings.meta.tasks_per_step)]

    return Episodes(batches(), {"nsp": random_episodes(9, num_tasks=2)})


def untimed(rows: list[StepRecord]) -> list[StepRecord]:
    return [replace(row, step_seconds=0.0, data_wait_seconds=0.0) for row in rows]


def test_validations_and_checkpoints_come_when_due() -> None:
    notebook = Notebook()
    assert train(config(), learner(config()), episodes(config()), notebook)
    assert notebook.steps("train") == [1, 2, 3, 4, 5, 6, 7]
    assert notebook.steps("validation") == [0, 3, 6, 7]
    assert sorted(notebook.saved) == [2, 4, 6, 7]
    assert [metrics["step"] for metrics in notebook.reports] == [0, 2, 3, 4, 6, 7]
    validated = [metrics["step"] for metrics in notebook.reports if "validation_query_loss" in metrics]
    assert validated == [0, 3, 6, 7]


@pytest.mark.parametrize("interrupted_at", [2, 4, 6])
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(interrupted_at: int) -> None:
    settings = config("backbone.dropout=0.1", "curriculum.mode=curriculum")
    whole = Notebook()
    reference = learner(settings)
    train(settings, reference, episodes(settings), whole)

    first = Notebook(stop_after=interrupted_at)
    assert not train(settings, learner(settings), episodes(settings), first)
    resumed = learner(settings)
    torch.manual_seed(1234)  # the global random state at the start of a process must not matter
    resumed.load_state_dict(checkpoint.safetensors.torch.load(first.saved[interrupted_at]))
    second = Notebook()
    assert train(settings, resumed, episodes(settings, interrupted_at), second)

    assert untimed(first.rows + second.rows) == untimed(whole.rows)
    assert second.saved[7] == whole.saved[7]


def test_request_to_stop_saves_and_ends_at_once() -> None:
    notebook = Notebook(stop_after=3)
    assert not train(config(), learner(config()), episodes(config()), notebook)
    assert notebook.steps("train") == [1, 2, 3]
    assert sorted(notebook.saved) == [2, 3]


def test_request_to_save_is_met_at_once_and_changes_nothing_else() -> None:
    notebook, undisturbed = Notebook(save_after=5), Notebook()
    assert train(config(), learner(config()), episodes(config()), notebook)
    train(config(), learner(config()), episodes(config()), undisturbed)
    assert sorted(notebook.saved) == [2, 4, 5, 6, 7]
    assert notebook.saved[7] == undisturbed.saved[7]


def test_request_to_stop_in_the_last_step_completes_the_run() -> None:
    notebook = Notebook(stop_after=7)
    assert train(config(), learner(config()), episodes(config()), notebook)


def test_complete_run_has_nothing_left_to_do() -> None:
    done = learner(config())
    done.next_step = 7
    notebook = Notebook()
    assert train(config(), done, episodes(config(), start=7), notebook)
    assert notebook.rows == []


def test_rows_tell_the_wait_within_the_step() -> None:
    notebook = Notebook()
    train(config(), learner(config()), episodes(config()), notebook)
    assert all(0 <= row.data_wait_seconds < row.step_seconds for row in notebook.rows)


def test_spoiled_steps_are_told_and_too_many_in_a_row_end_the_run() -> None:
    settings = config("train.max_skipped_steps=2")
    broken = learner(settings)
    with torch.no_grad():
        broken.prompt[0, 0] = torch.nan
    notebook = Notebook()
    expected = r"train\.max_skipped_steps=2: 3 meta-steps in a row.*step 3 \(nsp\).*in slots 0, 1; .*--replay 3"
    with pytest.raises(DivergedError, match=expected):
        train(settings, broken, episodes(settings), notebook)
    assert len(notebook.warnings) == 3
