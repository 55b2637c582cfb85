"""Each ablation switch of section 6 changes what it should and nothing else, over two meta-steps of one learner."""

from __future__ import annotations

import gc
from dataclasses import dataclass

import pytest
import torch
from factories import random_episodes, random_prompt, tiny_model
from torch import Tensor

from supmer.config.load import load_config
from supmer.meta.learner import Learner
from supmer.meta.record import StepRecord

BASE = (
    "backbone.dropout=0",
    "meta.steps=10",
    "meta.tasks_per_step=3",
    "regularizer.rank=8",
    "regularizer.init=xavier",
)


@dataclass
class Outcome:
    """What two meta-steps reported and left behind."""

    reports: list[StepRecord]
    state: dict[str, Tensor]

    def phi(self, part: str) -> list[Tensor]:
        return [tensor for name, tensor in self.state.items() if name.startswith("regularizer.") and part in name]


def outcome(*switches: str) -> Outcome:
    learner = Learner(load_config(None, [*BASE, *switches]), tiny_model(), random_prompt())
    reports = [learner.step(random_episodes(seed=4, step=step)) for step in range(2)]
    return Outcome(reports, learner.state_dict())


@pytest.fixture(scope="module")
def base() -> Outcome:
    return outcome()


def test_no_augmentation(base: Outcome) -> None:
    plain = outcome("curriculum.mode=none")
    assert [report.mixup_b for report in plain.reports] == [0, 0]
    assert plain.reports[0].support_loss == base.reports[0].support_loss
    assert plain.reports[0].gate == base.reports[0].gate
    assert plain.reports[0].tokens < base.reports[0].tokens


def test_mixup_without_curriculum(base: Outcome) -> None:
    mixed = outcome("curriculum.mode=mixup")
    assert [report.mixup_b for report in mixed.reports] == [1, 1]
    assert base.reports[0].mixup_b < 1e-6 < base.reports[1].mixup_b < 1
    assert mixed.reports[0].support_loss == base.reports[0].support_loss
    assert mixed.reports[0].query_loss != base.reports[0].query_loss


def test_no_regularizer(base: Outcome) -> None:
    maml = outcome("regularizer.enabled=false")
    assert not maml.phi("")
    assert maml.reports[0].support_loss == base.reports[0].support_loss
    assert maml.reports[0].mixup_b == base.reports[0].mixup_b
    assert maml.reports[0].query_loss != base.reports[0].query_loss


def test_no_gate_consistency(base: Outcome) -> None:
    free = outcome("meta.gate_consistency=false")
    assert free.reports[0].query_loss == base.reports[0].query_loss
    assert free.reports[0].prompt_gradient_norm == base.reports[0].prompt_gradient_norm
    first_layers = zip(free.phi("linear"), base.phi("linear"), strict=True)
    assert any(not torch.equal(mine, other) for mine, other in first_layers)


def test_no_meta_learning(base: Outcome) -> None:
    multitask = outcome("meta.algorithm=multitask")
    assert not multitask.phi("")
    assert multitask.reports[0].query_loss == multitask.reports[0].support_loss
    assert not torch.equal(multitask.state["prompt"], base.state["prompt"])


def test_memory_is_flat_over_many_steps() -> None:
    """Storage of all live tensors after 200 meta-steps is that after 20."""
    learner = Learner(load_config(None, [*BASE, "meta.steps=300"]), tiny_model(), random_prompt())
    sizes = {}
    for step in range(200):
        learner.step(random_episodes(seed=4, step=step, num_tasks=3))
        if step in (19, 199):
            sizes[step] = live_bytes()
    assert sizes[199] <= sizes[19] * 1.01


def live_bytes() -> int:
    gc.collect()
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}.values())
