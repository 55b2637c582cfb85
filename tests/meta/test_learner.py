"""The learner: one step by hand, resuming bit for bit, sharing rows among ranks, refusing broken numbers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from factories import NUM_CENTROIDS, random_episodes, random_prompt, tiny_model
from torch import Tensor

from supmer.backbone.load import finish_backbone
from supmer.config import BackboneConfig, Config
from supmer.config.values import validate
from supmer.meta.learner import Learner
from supmer.meta.objective import meta_gradients
from supmer.meta.passes import PassPlan
from supmer.meta.record import StepRecord
from supmer.tasks.episode import Episode

NUM_TASKS = 4


def settings(**sections: dict[str, object]) -> Config:
    base: dict[str, dict[str, object]] = {
        "backbone": {"dropout": 0.0},
        "meta": {"steps": 20, "tasks_per_step": NUM_TASKS},
        "regularizer": {"rank": 8, "init": "xavier"},
    }
    for name, section in sections.items():
        base[name] = {**base.get(name, {}), **section}
    return validate(base)


def episodes_of(step: int) -> list[Episode]:
    return random_episodes(seed=1, num_tasks=NUM_TASKS, step=step)


def build(config: Config | None = None, **keywords: object) -> Learner:
    config = config or settings()
    return Learner(config, tiny_model(dropout=config.backbone.dropout), random_prompt(), **keywords)


def test_first_step_is_clipped_adam_on_the_meta_gradient() -> None:
    learner = build()
    expected = meta_gradients(
        tiny_model(), learner.regularizer, random_prompt(), episodes_of(0), 1.0, inner_lr=0.1, plan=PassPlan(8192)
    )
    report = learner.step(episodes_of(0))
    norm = float(expected.prompt.norm())
    assert report.prompt_gradient_norm == pytest.approx(norm, rel=1e-3)
    clipped = expected.prompt * min(1.0, 1 / norm)
    # Adam's first step is lr * g / (|g| + eps), in each coordinate.
    torch.testing.assert_close(
        learner.prompt.detach(), random_prompt() - 0.1 * clipped / (clipped.abs() + 1e-8), rtol=1e-3, atol=2e-3
    )
    assert report.query_loss == pytest.approx(float(expected.query_losses.mean()), rel=1e-3)
    assert learner.similarity == pytest.approx(0.5 * float(expected.similarities.mean()), rel=1e-3)


def test_loss_falls_on_repeated_episodes() -> None:
    learner = build(settings(curriculum={"mode": "none"}))
    losses = [learner.step(episodes_of(0)).query_loss for _ in range(15)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.95 * losses[0]


def test_rates_follow_the_schedule_after_the_warm_up() -> None:
    meta = {"steps": 4, "schedule": "cosine", "warmup_steps": 2, "prompt_lr": 0.1}
    learner, used = build(settings(meta=meta)), []
    for step in range(4):
        learner.step(episodes_of(step))
        used.append(learner.groups[0].optimizer.param_groups[0]["lr"])
    assert used == pytest.approx([0.05, 0.1, 0.1, 0.05])


def test_rates_decay_to_zero() -> None:
    learner = build(settings(meta={"steps": 2}))
    learner.step(episodes_of(0))
    learner.step(episodes_of(1))
    rates = {group.name: group.optimizer.param_groups[0]["lr"] for group in learner.groups}
    assert rates == pytest.approx({"prompt": 0.05, "regularizer": 0.5e-4})


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_resumed_run_is_the_same_bit_for_bit(dropout: float) -> None:
    config = settings(backbone={"dropout": dropout})
    straight, first = build(config), build(config)
    for step in range(6):
        straight.step(episodes_of(step))
    for step in range(3):
        first.step(episodes_of(step))
    torch.manual_seed(1234)
    resumed = build(config)
    resumed.load_state_dict(first.state_dict())
    for step in range(3, 6):
        resumed.step(episodes_of(step))
    expected = straight.state_dict()
    found = resumed.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


class ThreadGroup:
    """Ranks as threads of one process: a sum over real partial results without a network."""

    def __init__(self, rank: int, size: int, board: list[Tensor | None], barrier: Barrier) -> None:
        self.rank, self.size, self.board, self.barrier = rank, size, board, barrier

    def all_reduce_sum(self, flat: Tensor) -> Tensor:
        self.board[self.rank] = flat
        self.barrier.wait(timeout=300)
        total = torch.stack([tensor for tensor in self.board if tensor is not None]).sum(dim=0)
        self.barrier.wait(timeout=300)
        return total

    def all_reduce_max(self, value: int) -> int:
        raise NotImplementedError


MULTITASK: dict[str, dict[str, object]] = {"meta": {"algorithm": "multitask"}, "regularizer": {"enabled": False}}
SECOND_ORDER: dict[str, dict[str, object]] = {"meta": {"order": "second", "inner_steps": 2}}


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
@pytest.mark.parametrize(("sections", "lockstep"), [({}, False), ({}, True), (SECOND_ORDER, True), (MULTITASK, False)])
def test_ranks_that_share_rows_compute_what_one_does(
    num_ranks: int, sections: dict[str, dict[str, object]], lockstep: bool
) -> None:
    """Micro-batches of a few rows, so that ranks have unequal numbers of them."""
    barrier, board = Barrier(num_ranks), [None] * num_ranks
    config = settings(**sections)
    learners = [
        build(config, group=ThreadGroup(rank, num_ranks, board, barrier), lockstep=lockstep) for rank in range(num_ranks)
    ]

    def train(learner: Learner) -> list[StepRecord]:
        records = [learner.step(episodes_of(step)) for step in range(2)]
        return [*records, learner.evaluate(episodes_of(7))]

    with ThreadPoolExecutor(num_ranks) as pool:
        found = list(pool.map(train, learners))
    alone = build(config)
    expected = train(alone)
    for learner, records in zip(learners, found, strict=True):
        assert torch.equal(learner.prompt, learners[0].prompt)
        torch.testing.assert_close(learner.prompt, alone.prompt, rtol=1e-3, atol=1e-3)
        assert learner.similarity == pytest.approx(alone.similarity, rel=1e-5)
        for record, one in zip(records, expected, strict=True):
            assert (record.tokens, record.kind) == (one.tokens, one.kind)
            assert record.query_loss == pytest.approx(one.query_loss, rel=1e-5)


def test_ranks_that_have_drifted_apart_get_the_weights_of_the_first() -> None:
    barrier, board = Barrier(2), [None, None]
    learners = [build(group=ThreadGroup(rank, 2, board, barrier)) for rank in range(2)]
    before = learners[0].state_dict()
    with torch.no_grad():
        for group in learners[1].groups:
            for weight in group.parameters.values():
                weight += 1e-3
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Learner.synchronize, learners))
    for learner in learners:
        assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())


def test_broken_numbers_change_nothing_and_are_counted() -> None:
    learner = build()
    learner.step(episodes_of(0))
    before = learner.state_dict()
    learner.model.centroids.fill_(float("nan"))
    report = learner.step(episodes_of(1))
    assert report.skipped
    assert learner.num_skipped == 1
    assert learner.next_step == 2
    after = learner.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name not in ("next_step", "num_skipped"))


def test_spoiled_slots_are_the_episodes_that_show_what_is_broken() -> None:
    learner, batch = build(), episodes_of(0)
    showing = {
        centroid: tuple(
            episode.slot
            for episode in batch
            if any(centroid in row.centroid_ids for row in (*episode.support, *episode.query, *episode.augmentation))
        )
        for centroid in range(NUM_CENTROIDS)
    }
    centroid, slots = next((centroid, slots) for centroid, slots in showing.items() if 0 < len(slots) < NUM_TASKS)
    learner.model.centroids[centroid] = float("nan")
    assert learner.step(batch).spoiled_slots == slots


def test_evaluation_is_free_of_dropout_and_changes_nothing() -> None:
    learner = build(settings(backbone={"dropout": 0.3}))
    learner.step(episodes_of(0))
    before = learner.state_dict()
    first, second = learner.evaluate(episodes_of(5)), learner.evaluate(episodes_of(5))
    assert first == second
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.state_dict().items())


@pytest.mark.parametrize("meta", [{}, {"order": "second"}])
def test_gradient_checkpointing_computes_the_same(meta: dict[str, object]) -> None:
    config = settings(backbone={"attention": "eager"}, meta=meta)
    plain, saving = build(config), build(config)
    finish_backbone(saving.model.backbone, BackboneConfig(dropout=0.0, gradient_checkpointing=True))
    for step in range(2):
        plain.step(episodes_of(step))
        saving.step(episodes_of(step))
    assert saving.model.backbone.encoder.gradient_checkpointing
    torch.testing.assert_close(saving.prompt, plain.prompt, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.*is deprecated:DeprecationWarning")  # torch's compiler imports it itself
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # and looks at all
def test_compiled_blocks_compute_the_same_for_rows_of_any_length() -> None:
    plain, compiled = build(), build()
    finish_backbone(compiled.model.backbone, BackboneConfig(dropout=0.0, compile=True))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):  # what is beyond it would run uncompiled
        for step in range(2):
            plain.step(episodes_of(step))
            compiled.evaluate(episodes_of(step)[:1])
            compiled.step(episodes_of(step))
    torch.testing.assert_close(compiled.prompt, plain.prompt, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("meta", [{}, {"order": "second"}])
def test_bfloat16_backbone_trains_in_float32(meta: dict[str, object]) -> None:
    config = settings(meta=meta)
    full, half = build(config), build(config)
    half.model.backbone.bfloat16()
    expected, report = full.step(episodes_of(0)), half.step(episodes_of(0))
    assert report.query_loss == pytest.approx(expected.query_loss, rel=0.02)
    assert not report.skipped
    kept = {name: tensor.dtype for name, tensor in half.state_dict().items() if tensor.is_floating_point()}
    assert {kept.pop("similarity")} == {torch.float64}
    assert set(kept.values()) == {torch.float32}


@pytest.mark.parametrize("algorithm", ["supmer", "multitask"])
def test_without_regularizer(algorithm: str) -> None:
    learner = build(settings(meta={"algorithm": algorithm}, regularizer={"enabled": False}))
    report = learner.step(episodes_of(0))
    assert learner.regularizer is None
    assert report.regularizer_gradient_norm == 0
    assert not torch.equal(learner.prompt.detach(), random_prompt())
