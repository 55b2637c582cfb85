"""The fastest settings that fit given GPUs, and what to change where settings do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from supmer.config import Config
from supmer.planning.costs import Costs
from supmer.planning.estimate import SHARDINGS, Estimate, Setting, estimate, setting_of
from supmer.planning.hardware import Hardware

MARGIN = 0.05
"""Share of the usable memory by which predictions may err (see `benchmarks/plan.py`)."""
NEARLY = 1.01
"""Settings that are slower by less than this factor count as equally fast; the simpler one is recommended."""


def recommend(costs: Costs, config: Config, gpus: int, hardware: Hardware, row_length: int) -> Estimate | None:
    """Return the estimate of the fastest settings that fit, the simplest of the equally fast; None if none fit.

    Settings that leave the planner room to err are preferred.
    """
    cautious = replace(hardware, reserve=int(hardware.reserve + MARGIN * hardware.usable))
    for limits in (cautious, hardware):
        found = [estimate(costs, setting, hardware, row_length) for setting in _candidates(costs, config, gpus, limits)]
        if found:
            best = min(candidate.seconds for candidate in found)
            return next(candidate for candidate in found if candidate.seconds <= best * NEARLY)
    return None


def fits(found: Estimate, hardware: Hardware) -> bool:
    """Tell whether a rank's peak leaves the reserve free."""
    return found.peak <= hardware.usable


def warnings_for(costs: Costs, config: Config, found: Estimate, hardware: Hardware) -> list[str]:
    """Return what the user should know of these settings, each with what to change."""
    setting, notes = found.setting, []
    if not fits(found, hardware):
        notes.append(_how_to_fit(costs, found, hardware))
    if setting.tasks > config.meta.tasks_per_step:
        notes.append(
            f"meta.tasks_per_step={config.meta.tasks_per_step}: {setting.gpus} workers need as many episodes a step; "
            f"counted with meta.tasks_per_step={setting.tasks}, whose steps are not those of the smaller number"
        )
    if setting.max_tokens > found.useful_budget:
        notes.append(
            f"train.max_tokens_per_microbatch={setting.max_tokens}: no pass of a worker has more than {found.useful_budget}"
        )
    if config.backbone.dtype == "float32":
        notes.append("backbone.dtype=float32: bfloat16 halves weights, activations and traffic on GPUs that know it")
    return notes + _on_traffic(costs, config, found, hardware)


def _candidates(costs: Costs, config: Config, gpus: int, hardware: Hardware) -> Iterator[Setting]:
    """Yield settings that fit, simplest first, each with the largest token budget that is of use."""
    for sharding in SHARDINGS[:1] if gpus == 1 else SHARDINGS:
        for checkpointing in (False, True):
            setting = replace(setting_of(config, gpus, hardware, sharding), checkpointing=checkpointing)
            if sharding == "hybrid" and setting.shard_size in (1, gpus):
                continue
            found = estimate(costs, setting, hardware)
            if found.largest_budget >= costs.config.tasks.max_length:
                budget = min(found.largest_budget, found.useful_budget)
                fitted = replace(setting, max_tokens=budget)
                if fits(estimate(costs, fitted, hardware), hardware):
                    yield fitted


def _how_to_fit(costs: Costs, found: Estimate, hardware: Hardware) -> str:
    setting = found.setting
    need = f"{found.peak / 2**30:.1f} GiB are needed, {hardware.usable / 2**30:.1f} GiB are there: "
    if found.largest_budget >= costs.config.tasks.max_length:
        return need + f"lower train.max_tokens_per_microbatch from {setting.max_tokens} to {found.largest_budget}"
    changes = []
    if not setting.checkpointing:
        changes.append("backbone.gradient_checkpointing=true")
    if setting.shard_size < setting.gpus:
        changes.append("train.sharding=full")
    if costs.config.backbone.dtype == "float32":
        changes.append("backbone.dtype=bfloat16")
    return need + "set " + " or ".join(changes or ["more GPUs, or GPUs with more memory"])


def _on_traffic(costs: Costs, config: Config, found: Estimate, hardware: Hardware) -> list[str]:
    setting = found.setting
    if setting.shard_size == 1 or found.gather_seconds <= found.compute_seconds:
        return []
    slow = (
        f"train.sharding={setting.sharding}: gathering weights takes {found.gather_seconds:.2f} s a step, computing "
        f"{found.compute_seconds:.2f} s"
    )
    for sharding in SHARDINGS[: SHARDINGS.index(setting.sharding)]:
        other = estimate(costs, replace(setting_of(config, setting.gpus, hardware, sharding)), hardware)
        if fits(other, hardware) and other.seconds < found.seconds:
            return [f"{slow}; train.sharding={sharding} fits and has at least {other.seconds:.2f} s a step"]
    return [f"{slow}; a larger train.max_tokens_per_microbatch gathers less often"]
