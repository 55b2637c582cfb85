"""Memory, traffic and time of a meta-step, and the settings that are recommended for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from supmer.model.regularizer import GradientRegularizer
from supmer.planning.estimate import Planner, loads_of, setting_of
from supmer.planning.recommend import recommend, warnings_for

MEBIBYTE = 2**20
Build = Callable[..., Planner]


def test_traffic_is_one_gather_of_the_root_and_two_of_each_block(build: Build) -> None:
    """4 episodes on 4 ranks: 16 support rows of 128 in 2 micro-batches of 1024 tokens, 16 mixed rows in 4."""
    planner = build()
    found = planner.estimate(setting_of(planner.config, 4, planner.hardware, "full"))
    assert found.gathers == 6 * (2 * 12 + 1)
    blocks = 4 * (planner.weights.total - planner.weights.root)
    assert found.gathered == 6 * 3 / 4 * (4 * planner.weights.root + 2 * blocks)
    assert found.parameters == planner.weights.total


def test_more_gpus_share_the_rows_of_the_same_step(build: Build) -> None:
    """16 rows of each of 4 episodes: 16 GPUs compute a sixteenth each, 24 as long as 22 would, which have 3 rows each."""
    planner = build()
    one, many, uneven = (planner.estimate(setting_of(planner.config, gpus, planner.hardware)) for gpus in (1, 16, 24))
    assert one.setting.tasks == many.setting.tasks == 4
    assert many.flops == one.flops / 16
    assert uneven.flops == one.flops * 3 / 64
    # Each of both passes sums 4 tasks' gradients [20, 64] and pooled states [64] in fp32.
    assert many.all_reduce_seconds == 2 * planner.hardware.all_reduce_seconds(4 * 4 * (20 * 64 + 64), 16)


def test_traffic_does_not_grow_with_tasks_within_the_budget(build: Build) -> None:
    planner = build()
    setting = replace(setting_of(planner.config, 4, planner.hardware, "full"), max_tokens=10**6)
    one, eight = (planner.estimate(replace(setting, tasks=4 * tasks)) for tasks in (1, 8))
    assert eight.gathered == one.gathered
    assert eight.flops == 8 * one.flops


def test_hybrid_gathers_within_the_node(build: Build) -> None:
    planner = build()
    hybrid, full = (planner.estimate(setting_of(planner.config, 16, planner.hardware, kind)) for kind in ("hybrid", "full"))
    assert hybrid.setting.shard_size == 4
    assert hybrid.parameters == 4 * full.parameters
    assert hybrid.gather_seconds < full.gather_seconds / 5
    assert full.seconds == full.gather_seconds + full.all_reduce_seconds
    assert full.compute_seconds == full.flops / 1e12


def test_the_state_holds_prompt_and_regularizer(build: Build) -> None:
    """Counted from a real regularizer: weights, Adam's two moments and gradients."""
    planner = build()
    regularizer = GradientRegularizer(64, planner.config.regularizer)
    trained = 4 * (20 * 64 + sum(parameter.numel() for parameter in regularizer.parameters()))
    found = planner.estimate(setting_of(planner.config, 1, planner.hardware))
    state = found.peak - found.parameters - found.activations
    assert state == 4 * trained + 12 * 4 * 20 * 64 * torch.float32.itemsize


def test_second_order_repeats_the_support_pass(build: Build) -> None:
    config = build().config
    second = config.model_copy(update={"meta": config.meta.model_copy(update={"order": "second"})})
    assert [load.repeats for load in loads_of(config)] == [1, 1]
    assert [load.repeats for load in loads_of(second)] == [3, 1]


def test_the_largest_budget_fits_and_a_larger_one_does_not(build: Build) -> None:
    planner = build()
    setting = replace(setting_of(planner.config, 2, planner.hardware, "full"), tasks=1000)
    budget = planner.estimate(setting).largest_budget
    assert budget % 128 == 0
    assert planner.fits(planner.estimate(replace(setting, max_tokens=budget)))
    assert not planner.fits(planner.estimate(replace(setting, max_tokens=budget + 256)))


def test_the_recommended_settings_fit_and_are_no_slower(build: Build) -> None:
    planner = build()
    for gpus in (1, 4, 16):
        best = recommend(planner, gpus)
        assert best is not None
        assert planner.fits(best)
        assert best.seconds <= planner.estimate(setting_of(planner.config, gpus, planner.hardware)).seconds * 1.01


def test_scarce_memory_is_met_by_checkpointing_or_sharding(build: Build) -> None:
    plenty, scarce = recommend(build(1000 * MEBIBYTE), 4), recommend(build(8 * MEBIBYTE), 4)
    assert plenty is not None
    assert (plenty.setting.sharding, plenty.setting.checkpointing) == ("none", False)
    assert scarce is not None
    assert scarce.setting.checkpointing or scarce.setting.sharding != "none"
    assert recommend(build(2 * MEBIBYTE), 4) is None


def test_warnings_name_the_setting_and_its_remedy(build: Build) -> None:
    little, none, slow = build(20 * MEBIBYTE), build(2 * MEBIBYTE), build()
    setting = replace(setting_of(little.config, 1, little.hardware), max_tokens=8192)
    found = little.estimate(setting)
    assert 0 < found.largest_budget < 8192
    assert f"lower train.max_tokens_per_microbatch from 8192 to {found.largest_budget}" in warnings_for(little, found)[0]
    assert "backbone.gradient_checkpointing=true" in warnings_for(none, none.estimate(setting))[0]
    text = " / ".join(warnings_for(slow, slow.estimate(setting_of(slow.config, 16, slow.hardware, "full"))))
    assert "train.sharding=none fits" in text
    assert "bfloat16 halves" in text
    assert "have none" not in text
    text = " / ".join(warnings_for(slow, slow.estimate(setting_of(slow.config, 128, slow.hardware, "full"))))
    assert "train.workers=128: a pass has 64 rows, so that the other workers have none" in text
