"""Recommended settings and warnings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supmer.config import Config
from supmer.planning.costs import Costs
from supmer.planning.estimate import Setting, estimate, setting_of
from supmer.planning.hardware import Hardware
from supmer.planning.search import fits, recommend, warnings_for

MEBIBYTE = 2**20


def warnings(costs: Costs, config: Config, setting: Setting, hardware: Hardware) -> str:
    return " / ".join(warnings_for(costs, config, estimate(costs, setting, hardware), hardware))


@pytest.mark.slow
def test_the_recommended_settings_fit_and_are_no_slower(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    for gpus in (1, 4, 16):
        best = recommend(costs, small_config, gpus, hardware, 128)
        assert best is not None
        assert fits(best, hardware)
        assert best.setting.tasks >= gpus
        own = estimate(costs, setting_of(small_config, gpus, hardware), hardware)
        assert best.seconds <= own.seconds * 1.01


def test_scarce_memory_is_met_by_checkpointing_or_sharding(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    plenty = recommend(costs, small_config, 4, replace(hardware, memory=1000 * MEBIBYTE), 128)
    assert plenty is not None
    assert (plenty.setting.sharding, plenty.setting.checkpointing) == ("none", False)
    scarce = recommend(costs, small_config, 4, replace(hardware, memory=7 * MEBIBYTE), 128)
    assert scarce is not None
    assert scarce.setting.checkpointing or scarce.setting.sharding != "none"
    assert recommend(costs, small_config, 4, replace(hardware, memory=2 * MEBIBYTE), 128) is None


def test_what_does_not_fit_is_told_with_the_budget_that_does(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    setting = replace(setting_of(small_config, 1, hardware), max_tokens=8192)
    little = replace(hardware, memory=20 * MEBIBYTE)
    budget = estimate(costs, setting, little).largest_budget
    assert 0 < budget < 8192
    assert f"lower train.max_tokens_per_microbatch from 8192 to {budget}" in warnings(costs, small_config, setting, little)
    none = replace(hardware, memory=2 * MEBIBYTE)
    assert "backbone.gradient_checkpointing=true" in warnings(costs, small_config, setting, none)


def test_slow_gathering_is_told_with_the_remedy(costs: Costs, small_config: Config, hardware: Hardware) -> None:
    setting = setting_of(small_config, 16, hardware, "full")
    text = warnings(costs, small_config, setting, hardware)
    assert "train.sharding=full: gathering weights takes" in text
    assert "train.sharding=none fits" in text


@pytest.mark.parametrize(
    ("section", "change", "told"),
    [
        ("meta", {}, "meta.tasks_per_step=4: 8 workers need as many"),
        ("backbone", {}, "bfloat16 halves"),
    ],
)
def test_traps_are_told(
    costs: Costs, small_config: Config, hardware: Hardware, section: str, change: dict[str, object], told: str
) -> None:
    config = small_config.model_copy(update={section: getattr(small_config, section).model_copy(update=change)})
    setting = replace(setting_of(small_config, 8, hardware), checkpointing=True)
    found = estimate(costs, setting, hardware)
    assert told in " / ".join(warnings_for(costs, config, found, hardware))
