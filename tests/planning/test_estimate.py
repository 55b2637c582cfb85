"""Memory, traffic and time of a meta-step."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supmer.config import Config
from supmer.errors import UserError
from supmer.planning.costs import Costs
from supmer.planning.estimate import estimate, pass_loads, setting_of
from supmer.planning.hardware import Hardware, parse_count, parse_units

NUM_BLOCKS = 12


def test_weights_fall_as_one_over_the_ranks(costs: Costs) -> None:
    whole = costs.parameter_bytes()
    for size in (2, 4, 8):
        assert costs.parameter_bytes(size) == pytest.approx(whole / size, rel=0.01)


def test_traffic_is_one_gather_of_the_root_and_two_of_each_block(
    costs: Costs, small_config: Config, hardware: Hardware
) -> None:
    """4 episodes on 4 ranks: 16 support rows of 128 in 2 micro-batches of 1024 tokens, 16 mixed rows in 4."""
    found = estimate(costs, setting_of(small_config, 4, hardware, "full"), hardware)
    assert found.gathers == 6 * (2 * NUM_BLOCKS + 1)
    root = costs.parameter_bytes() - costs.block_bytes()
    assert found.gathered == pytest.approx(6 * 3 / 4 * (root + 2 * costs.block_bytes()), rel=0.01)


def test_traffic_does_not_grow_with_tasks_within_the_budget(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    setting = replace(setting_of(small_config, 4, hardware, "full"), max_tokens=10**6)
    one, eight = (estimate(costs, replace(setting, tasks=4 * tasks), hardware) for tasks in (1, 8))
    assert eight.gathered == one.gathered
    assert eight.flops == 8 * one.flops


def test_hybrid_gathers_within_the_node(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    hybrid, full = (
        estimate(costs, setting_of(small_config, 16, hardware, sharding), hardware) for sharding in ("hybrid", "full")
    )
    assert hybrid.setting.shard_size == 4
    assert hybrid.parameters > full.parameters
    assert hybrid.gather_seconds < full.gather_seconds / 5


def test_second_order_repeats_the_support_pass(small_config: Config) -> None:
    second = small_config.model_copy(update={"meta": small_config.meta.model_copy(update={"order": "second"})})
    assert [load.repeats for load in pass_loads(small_config)] == [1, 1]
    assert [load.repeats for load in pass_loads(second)] == [3, 1]


def test_the_largest_budget_fits_and_a_larger_one_does_not(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    setting = replace(setting_of(small_config, 2, hardware, "full"), tasks=1000)
    budget = estimate(costs, setting, hardware).largest_budget
    assert budget % 128 == 0
    assert estimate(costs, replace(setting, max_tokens=budget), hardware).peak <= hardware.usable
    assert estimate(costs, replace(setting, max_tokens=budget + 256), hardware).peak > hardware.usable


def test_the_least_time_is_the_longer_of_computing_and_gathering(
    costs: Costs, small_config: Config, hardware: Hardware
) -> None:
    found = estimate(costs, setting_of(small_config, 16, hardware, "full"), hardware)
    assert found.gather_seconds > found.compute_seconds > 0
    assert found.seconds == found.gather_seconds + found.all_reduce_seconds
    assert found.compute_seconds == pytest.approx(found.flops / 1e12)


@pytest.mark.parametrize(("text", "number"), [("24GiB", 24 * 2**30), ("25GB", 25e9), ("120T", 120e12), ("2e-5", 2e-5)])
def test_numbers_carry_units(text: str, number: float) -> None:
    assert parse_units("--x", text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["much", "-1", "inf", "nan"])
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=f"--x {text}"):
        parse_units("--x", text)


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "x"])
def test_counts_are_whole(text: str) -> None:
    with pytest.raises(UserError, match="whole number"):
        parse_count("--gpus", text)
